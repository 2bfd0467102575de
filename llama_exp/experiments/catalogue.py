"""The experiments that can be run: those of this package, and those of the user's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_exp.config.check.command_line import read_line
from llama_exp.config.check.composition import COMPOSITION_ERRORS, Composer, list_options
from llama_exp.config.check.options import parse_options
from llama_exp.config.check.sweep_points import count_points
from llama_exp.config.schema.protocol import ProtocolConfig
from llama_exp.errors import ConfigError, InputError
from llama_exp.experiments.lines import stage_lines
from llama_exp.experiments.plan import compose_protocol
from llama_exp.experiments.record import read_record
from llama_exp.experiments.request import Request
from llama_exp.experiments.standing import Standing, find_standing
from llama_exp.limits.protocol import Half

GROUP = "experiment"


@dataclass(frozen=True)
class Entry:
    """An experiment.

    protocol: None where its YAML is wrong. runs: (half, is quick) -> how many runs its stages have. wrong: the first
    mistake of its YAML.
    """

    name: str
    protocol: ProtocolConfig | None
    runs: dict[tuple[Half, bool], int]
    wrong: str | None = None

    @property
    def num_claims(self) -> int:
        """How many claims it states."""
        return 0 if self.protocol is None else len(self.protocol.claims)


def list_experiments(config_dir: str | None) -> list[Entry]:
    """All experiments with stages, by name; raises `ConfigError` where there is no such folder."""
    composer = read_line(*parse_options([] if config_dir is None else [f"--config-dir={config_dir}"])).composer
    return [_describe(name, config_dir, composer) for name in _list_names(composer)]


def find_there(request: Request) -> tuple[Standing, dict[str, str]] | None:
    """How far an experiment is, and the verdicts of its last report by claim; None: it was never begun here."""
    try:
        record = read_record(request.folder)
    except InputError:  # told by whoever runs it
        return None
    if record is None:
        return None
    stages = [find_standing(Path(str(stage["folder"])), int(stage["runs"])) for stage in record["stages"].values()]
    return sum(stages, Standing(0, 0, 0, 0)), dict(record.get("verdicts") or {})


def _list_names(composer: Composer) -> Iterator[str]:
    repository = composer.repository([])
    for name in list_options(repository, GROUP):
        try:
            found = repository.load_config(f"{GROUP}/{name}")
        except COMPOSITION_ERRORS:
            continue  # `experiment=NAME` says what is wrong
        if found is not None and "protocol" in found.config:
            yield name


def _describe(name: str, config_dir: str | None, composer: Composer) -> Entry:
    try:
        protocol = compose_protocol(Request(name, config_dir=config_dir))
    except ConfigError as error:
        return Entry(name, None, {}, str(error.problems[0]).splitlines()[0])
    runs: dict[tuple[Half, bool], int] = {}
    for stage in protocol.stages.values():
        for is_quick in (False, True):
            overrides, _ = composer.parse(stage_lines(stage, {}, is_quick))
            count = count_points([override for override in overrides if override.is_sweep_override()])
            runs[stage.half, is_quick] = runs.get((stage.half, is_quick), 0) + count
    return Entry(name, protocol, runs)
