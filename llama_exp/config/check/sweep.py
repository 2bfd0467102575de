"""The sweep that a command line asks for: all of its points, checked before the first job starts."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from llama_exp.config.check.composition import Composer, line_of
from llama_exp.config.check.job import JobCheck
from llama_exp.config.check.search_space import find_search_problems, find_unfit_objectives
from llama_exp.config.check.sweep_points import (
    count_points,
    drop_repeated,
    find_too_many,
    find_wrong_count,
    list_corners,
    list_points,
    list_single_changes,
)
from llama_exp.config.check.typed import show
from llama_exp.config.identity import NOT_SCIENCE, config_hash, flatten, to_record
from llama_exp.config.plugins import BASIC_LAUNCHER, BASIC_SWEEPER, PROCESSES_LAUNCHER, SEARCH_SWEEPER
from llama_exp.config.quoting import quote
from llama_exp.config.schema import Config
from llama_exp.config.sweep_point import Point
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import redact_arguments
from llama_exp.limits.launcher import find_launcher_problems

# Launchers whose processes run several jobs.
SHARED = (
    BASIC_LAUNCHER,
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
)
SWEEP_DIR = "hydra.sweep.dir"
OURS = frozenset({"hydra.launcher.extend", "hydra.launcher.on_failed"})  # whichever launcher runs the jobs
SAME_IN_ALL = ("resume", "objective_metric")
SUBDIR, EXCLUDED = "hydra.sweep.subdir", "hydra.job.config.override_dirname.exclude_keys"
LONGEST_NAME = 255  # bytes, on every usual file system
POINTS_SHOWN = 3
SECONDS_IN_SILENCE = 1.0


@dataclass(frozen=True)
class Sweep:
    """What a sound command line says of its sweep.

    folder: the sweep's. is_dated: whether its name is one for its time, so that a sweep of the same second may have it.
    points: in the order in which Hydra numbers them; of a search one that stands for all. space: of a search, key ->
    what it may be; None: the points are all. launcher: its keys, as plain data. constants: overrides that all points
    have. config: of the first point. fixed: overrides that decide once what Hydra would decide for each job, and that
    take the place of what was typed.
    """

    folder: Path
    is_dated: bool
    points: tuple[Point, ...]
    space: Mapping[str, str] | None
    launcher: Mapping[str, Any]
    constants: tuple[str, ...]
    config: Config
    fixed: Mapping[str, str]

    @property
    def resume(self) -> str:
        """Whether a sweep goes on: none or auto."""
        return self.config.resume


def take_ours(overrides: Sequence[Override]) -> tuple[dict[str, Any], list[Override]]:
    """What is said of the manifest, key -> value, and the other overrides.

    A launcher of somebody else knows no such keys, and Hydra would build it with them.
    """
    kept = [override for override in overrides if override.is_sweep_override() or override.key_or_group not in OURS]
    taken = [override for override in overrides if override not in kept]
    return {override.key_or_group.rpartition(".")[2]: override.value() for override in taken}, kept


class SweepCheck:
    """All points of a sweep, and what is wrong with any of them.

    Args:
        composer: of the command line.
        overrides: all of them.
        cfg: composed of those that are the same at every point.
        of_constants: the problems of these, told where the points cannot be checked.

    Attributes:
        problems: each names its point, unless all have it.
        config: of the first point.
    """

    def __init__(self, composer: Composer, overrides: Sequence[Override], cfg: DictConfig, of_constants: list[Problem]):
        self._composer, self._cfg = composer, cfg
        self._given = {override.key_or_group for override in overrides}
        params = cfg.hydra.sweeper.get("params") or {}
        from_files, self.problems = composer.parse([f"{key}={value}" for key, value in params.items()])
        self._is_grid = cfg.hydra.sweeper.get("_target_") == BASIC_SWEEPER
        self._is_search = cfg.hydra.sweeper.get("_target_") == SEARCH_SWEEPER
        self._shortened: dict[str, str] = {}
        by_key = {override.get_key_element(): self._shorten(override) for override in [*from_files, *overrides]}
        self._constants = [override for override in by_key.values() if not override.is_sweep_override()]
        self._sweeps = [override for override in by_key.values() if override.is_sweep_override()]
        self.config: Config | None = None
        self._points: list[Point] = []
        self.problems += self._find_unusable()
        self._is_unusable = bool(self.problems)
        if self.problems:
            self.problems += of_constants
        else:
            self._check_points()

    def list_first(self) -> list[str]:
        """The overrides of the first point, those that are the same at every point included."""
        first = next(iter(list_points(self._sweeps) if self._is_grid else list_corners(self._sweeps)), ())
        return [*map(line_of, self._constants), *first]

    def list_jobs(self, most: int) -> Iterator[tuple[tuple[str, ...], list[Override]]]:
        """What differs and all overrides of each point; of more than `most`, those that differ in one key."""
        if self._is_unusable:
            return
        is_whole = self._is_grid and count_points(self._sweeps) <= most
        for lines in list_points(self._sweeps) if is_whole else list_single_changes(self._sweeps):
            yield lines, [*self._constants, *self._composer.parse(lines)[0]]

    def describe(self) -> tuple[int | None, dict[str, str]]:
        """How many jobs there are (None: a search decides), and each key that differs with what it may be."""
        count = count_points(self._sweeps) if self._is_grid and not self._is_unusable else None
        return count, dict(line_of(sweep).split("=", 1) for sweep in self._sweeps)

    def count_points(self) -> int:
        """How many jobs there are; of a search, how many points were checked."""
        return len(self._points)

    def make(self, ours: Mapping[str, Any]) -> Sweep:
        """The sweep, once there are no problems; `ours`: what was typed of the manifest's keys."""
        assert self.config is not None and self._points
        _, space = self.describe()
        launcher: Any = OmegaConf.to_container(self._cfg.hydra.launcher, resolve=True)
        return Sweep(
            Path(_select(self._cfg, SWEEP_DIR)),
            "${now:" in str(OmegaConf.to_container(self._cfg.hydra.sweep)["dir"]),  # type: ignore[index,call-overload]
            tuple(self._points if self._is_grid else self._points[:1]),
            None if self._is_grid else space,
            {**launcher, **ours},
            tuple(line_of(override) for override in self._constants),
            self.config,
            self._fix(),
        )

    def _fix(self) -> dict[str, str]:
        """Keeps what is the same in all jobs out of their names, and what stands there again out of their number."""
        fixed = dict(self._shortened)
        if EXCLUDED not in self._given:
            fixed[EXCLUDED] = f"[{','.join(map(quote, self._same_keys()))}]"
        return fixed

    def _same_keys(self) -> list[str]:
        keys = {override.key_or_group for override in self._constants}
        return [key for key in sorted(keys) if not key.startswith("hydra")]

    def _shorten(self, override: Override) -> Override:
        """The override with each of its values once, where a grid would run a job twice."""
        if not (self._is_grid and override.is_choice_sweep()):
            return override
        line, num_repeated = drop_repeated(override)
        if num_repeated == 0:
            return override
        told = f"{show(override.input_line)}: values that stand there again make no further jobs: {num_repeated}"
        print(told, file=sys.stderr)
        ((shorter,), _) = self._composer.parse([line])
        key, _, value = line.partition("=")
        self._shortened[key] = value
        return shorter

    def _find_unusable(self) -> Iterator[Problem]:
        """What keeps the points from being listed."""
        problems = []
        for sweep in self._sweeps:
            line, key = show(sweep.input_line), sweep.key_or_group
            if (sweep.is_hydra_override() and not self._is_search) or key in SAME_IN_ALL:
                problems.append(Problem("cannot differ between the jobs of a sweep", key, line, "give one value"))
            elif self._is_grid and not sweep.is_discrete_sweep():
                action = "give a list of values, range(start,stop,step), or choose another hydra/sweeper"
                problems.append(Problem("a grid needs single values, not an interval", key, line, action))
            elif not self._is_search and sweep.is_discrete_sweep() and (problem := find_wrong_count(sweep, line)):
                problems.append(problem)
        if self._is_search:
            of_search = list(find_search_problems(self._cfg.hydra, self._sweeps))
            problems += of_search or find_unfit_objectives(self._cfg)
        if self._is_grid and not problems and (problem := find_too_many(self._sweeps)):
            problems.append(problem)
        return iter(problems)

    def _check_points(self) -> None:
        points = list(list_points(self._sweeps) if self._is_grid else list_corners(self._sweeps))
        with_it: dict[Problem, list[tuple[str, ...]]] = {}
        processes: dict[str, set[str]] = {"backend": set(), "threads": set()}
        started, told = time.monotonic(), False
        parse = functools.cache(lambda line: self._composer.parse([line])[0])
        for number, lines in enumerate(points):
            if not told and time.monotonic() - started > SECONDS_IN_SILENCE:
                print(f"checking all {len(points)} jobs before the first one starts", file=sys.stderr)
                told = True
            overrides = [*self._constants, *(override for line in lines for override in parse(line))]
            job = JobCheck(self._composer, overrides).run()
            for problem in job.problems:
                with_it.setdefault(problem, []).append(lines)
            if number == 0:
                self.config = job.config
            for key, values in processes.items():
                values |= {str(getattr(job.config.runtime, key))} if job.config is not None else set()
            if not with_it and job.config is not None and job.cfg is not None:
                self._points.append(self._make_point(number, lines, overrides, job.config, job.cfg))
        for problem, where in with_it.items():
            self.problems.append(problem if len(where) == len(points) else _at_points(problem, where))
        self.problems += _process_problems(self._cfg, processes)
        self.problems += _launcher_problems(self._cfg)
        self.problems += [] if self.problems else [*_same_problems(self._points), *_folder_problems(self._points)]

    def _make_point(
        self, number: int, lines: tuple[str, ...], overrides: list[Override], config: Config, cfg: DictConfig
    ) -> Point:
        # What the hash leaves out may still be what tells two jobs apart.
        own = [line for line in lines if line.lstrip("+").partition(".")[0].partition("=")[0] in NOT_SCIENCE]
        identity = config_hash(config)
        if own:
            identity = hashlib.sha256("\n".join([identity, *own]).encode("utf-8", "backslashreplace")).hexdigest()
        first = self._points[0].config if self._points else {}
        # Ten thousand points share what they have in common.
        record = {
            key: first[key] if key in first and first[key] == value else value
            for key, value in _flatten(config).items()
        }
        named = self._name_folder(number, overrides, cfg)

        def folder_as(now: int) -> str:
            return named if now == number else self._name_folder(now, overrides)

        return Point(lines, identity, record, folder_as)

    def _name_folder(self, number: int, overrides: list[Override], cfg: DictConfig | None = None) -> str:
        """The job's folder in the sweep's, as Hydra will have it."""
        cfg = JobCheck(self._composer, overrides).run().cfg if cfg is None else cfg
        assert cfg is not None, "the same overrides were composed before"
        with read_write(cfg), open_dict(cfg):
            cfg.hydra.job.num, cfg.hydra.job.id = number, number
            naming = cfg.hydra.job.config.override_dirname
            excluded = naming.exclude_keys if EXCLUDED in self._given else self._same_keys()
            named = [_as_hydra_has_it(override) for override in overrides if not override.is_hydra_override()]
            cfg.hydra.job.override_dirname = get_overrides_dirname(named, excluded, naming.item_sep, naming.kv_sep)
        return _select(cfg, "hydra.sweep.subdir")


def _as_hydra_has_it(override: Override) -> Override:
    line = f"{override.get_key_element()}={override.get_value_element_as_str()}"
    return dataclasses.replace(override, input_line=line)


def _flatten(config: Config) -> dict[str, Any]:
    return {sys.intern(key): value for key, value in flatten(to_record(config)).items()}


def _at_points(problem: Problem, points: list[tuple[str, ...]]) -> Problem:
    shown = ", ".join(" ".join(redact_arguments(point)) for point in points[:POINTS_SHOWN])
    more = f" and {len(points) - POINTS_SHOWN} more" if len(points) > POINTS_SHOWN else ""
    what = f"{problem.what} (at the sweep's point {shown}{more})"
    return Problem(what, problem.where, problem.found, problem.action)


def _process_problems(cfg: DictConfig, processes: Mapping[str, set[str]]) -> Iterator[Problem]:
    """A backend and its threads are chosen once per process."""
    launcher = cfg.hydra.launcher
    if launcher.get("_target_") not in SHARED or OmegaConf.select(launcher, "ray.remote.max_calls") == 1:
        return
    for key, values in processes.items():
        if len(values) > 1:
            action = "start one sweep for each, or choose a hydra/launcher with a process per job"
            what = "cannot differ between jobs that share a process"
            yield Problem(what, f"runtime.{key}", ", ".join(sorted(values)), action)


def _launcher_problems(cfg: DictConfig) -> Iterator[Problem]:
    """Impossible values of our own launcher's keys; others check theirs."""
    if cfg.hydra.launcher.get("_target_") == PROCESSES_LAUNCHER:
        node: Any = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
        yield from find_launcher_problems({key: value for key, value in node.items() if key != "resume"})


def _same_problems(points: Sequence[Point]) -> Iterator[Problem]:
    """Points that are the same experiment, under two names."""
    first: dict[str, Point] = {}
    for point in points:
        other = first.setdefault(point.identity, point)
        if other is not point:
            found = f"{' '.join(redact_arguments(point.overrides))} is {' '.join(redact_arguments(other.overrides))}"
            action = "leave one of them out; the same once more, in another folder, is a job with another name=<name>"
            yield Problem("two jobs of the sweep are the same experiment", "command line", found, action)


def _folder_problems(points: Sequence[Point]) -> Iterator[Problem]:
    """Jobs need folders of their own, inside of the sweep's, with names that a file system takes."""
    owners: dict[str, int] = {}
    for number, point in enumerate(points):
        name = point.folder_as(number)
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or not parts:
            yield _folder_problem("is no folder inside of the sweep's", name, number)
        elif any(len(part.encode("utf-8", "surrogateescape")) > LONGEST_NAME or "\0" in part for part in parts):
            yield _folder_problem(f"is no name of a folder, which has at most {LONGEST_NAME} bytes", name, number)
        elif (other := owners.setdefault(name, number)) != number:
            yield _folder_problem(f"is the folder of job {other} too", name, number)
        else:
            continue
        return


def _folder_problem(what: str, name: str, number: int) -> Problem:
    shown = show(name if len(name) <= 80 else f"{name[:60]}...")
    action = "leave it out, or give hydra.sweep.subdir='${hydra.job.num}'"
    return Problem(what, SUBDIR, f"{shown}, of job {number}", action)


def _select(cfg: DictConfig, key: str) -> str:
    """A value of Hydra's own node, which may look at all of it."""
    HydraConfig.instance().cfg = cfg  # type: ignore[assignment]  # `set_config` would copy it, once for each job
    try:
        return str(OmegaConf.select(cfg, key))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(Problem(reason, key, "not resolvable", "give a folder")) from error
    finally:
        HydraConfig.instance().cfg = None
