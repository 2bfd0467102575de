"""The points of a grid as Hydra hands them to a launcher, and the jobs that a manifest makes of them."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from hydra.types import HydraContext
from omegaconf import DictConfig

from llama_exp.config.sweep_point import Point
from llama_exp.sweeps.app import App
from llama_exp.sweeps.freeze import freeze, hydra_is_of
from llama_exp.sweeps.jobs import Job
from llama_exp.sweeps.manifest import Manifest


class Grid:
    """The points of one call of a launcher.

    Args:
        config: the sweep's.
        hydra_context: Hydra's.
        overrides: of each point.
        first: Hydra's number of the first one.
        app: says which job is which.

    Attributes:
        folder: the sweep's.
    """

    def __init__(
        self,
        config: DictConfig,
        hydra_context: HydraContext,
        overrides: Sequence[Sequence[str]],
        first: int,
        app: App,
    ):
        self._config, self._hydra_context, self._overrides, self._first = config, hydra_context, overrides, first
        self.app, self.folder = app, Path(os.path.abspath(str(config.hydra.sweep.dir)))

    def list_points(self) -> list[Point]:
        """All of them, for a manifest."""
        return [self._as_point(job) for job in self._jobs]

    def number_as(self, manifest: Manifest) -> list[Job]:
        """The jobs, frozen, with the numbers and folders that the manifest has; one that it lacks is added to it.

        The same point twice is the same job twice.
        """
        entries = [manifest.find_entry(point) for point in self._overrides]
        for index, entry in enumerate(entries):
            if entry is None:
                entries[index] = manifest.add(self._as_point(self._jobs[index]))
        known = [entry for entry in entries if entry is not None]
        numbers, folders = [entry.number for entry in known], [entry.folder for entry in known]
        return freeze(self._config, self._hydra_context, self._overrides, numbers, folders)

    @functools.cached_property
    def _jobs(self) -> list[Job]:
        """As Hydra numbers and names them."""
        numbers = range(self._first, self._first + len(self._overrides))
        return freeze(self._config, self._hydra_context, self._overrides, numbers)

    def _as_point(self, job: Job) -> Point:
        with hydra_is_of(job.cfg):
            identity, values = self.app.identify(job.cfg)
        of_hydra = sorted(line for line in job.overrides if line.lstrip("+~").startswith("hydra"))
        digest = hashlib.sha256("\n".join([identity, *of_hydra]).encode("utf-8", "backslashreplace")).hexdigest()

        def folder_as(number: int) -> str:
            found = (
                job
                if number == job.number
                else freeze(self._config, self._hydra_context, [job.all_overrides], [number])[0]
            )
            return os.path.relpath(found.folder, self.folder)

        return Point(job.overrides, digest, values, folder_as)
