"""The whole command line, checked before Hydra runs: every mistake at once, in under a second, without a framework."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig

from llama_exp.config.check import saved
from llama_exp.config.check.composition import Composer, line_of, names_entries
from llama_exp.config.check.job import JobCheck
from llama_exp.config.check.options import parse_options
from llama_exp.config.check.sweep import OURS, SWEEP_DIR, Sweep, SweepCheck, take_ours
from llama_exp.config.check.typed import show
from llama_exp.config.check.yaml_files import find_oversized_files
from llama_exp.config.conf_folder import CONF
from llama_exp.config.schema import Config
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import redact_arguments
from llama_exp.limits.launcher import find_launcher_problems


@dataclass(frozen=True)
class Command:
    """A command line that is sound.

    arguments: for Hydra. config: of the only job, or of a sweep's first point; None where nothing was composed (help,
    tab completion). sweep: None for a single job.
    """

    arguments: list[str]
    config: Config | None = None
    sweep: Sweep | None = None


def check_arguments(arguments: Sequence[str]) -> Command:
    """The checked command.

    Args:
        arguments: what follows the program's name.

    Raises:
        ConfigError: with every mistake that was found.
        SystemExit: for `--version`, once it is printed.
    """
    options, problems = parse_options(arguments)
    if options.shell_completion or options.hydra_help:
        return Command(list(arguments))
    line = read_line(options, problems)
    composer, source, overrides, problems = line.composer, line.source, line.overrides, list(line.problems)
    try:
        job = line.check_constants().run()
    except ConfigError as error:
        raise ConfigError(*problems, *error.problems) from error
    if not line.is_sweep(job.cfg):
        problems += line.find_ambiguous()
        if source is not None and job.config is not None and not job.problems:
            problems += source.problems(job.config)
        _raise_if_any([*problems, *job.problems])
        return Command(_for_hydra(options, composer), job.config)
    if job.cfg is None:
        raise ConfigError(*dict.fromkeys([*problems, *job.problems]))
    sweep = SweepCheck(composer, overrides, job.cfg, job.problems)
    if source is not None and sweep.config is not None and not sweep.problems:
        problems += source.problems(sweep.config)
    _raise_if_any([*problems, *sweep.problems])
    if options.cfg or options.info:
        return Command(_for_hydra_to_show(options, composer, sweep), sweep.config)
    made = sweep.make(line.ours)
    return Command(_for_hydra(options, composer, made), made.config, made)


@dataclass(frozen=True)
class Line:
    """A command line whose overrides follow Hydra's grammar; nothing is composed yet.

    options: as parsed. composer: of their folders. source: of `--from`. overrides: without those of `ours`. ours: what
    is said of a sweep's manifest. problems: what was found so far.
    """

    options: argparse.Namespace
    composer: Composer
    source: saved.Saved | None
    overrides: tuple[Override, ...]
    ours: Mapping[str, Any]
    problems: tuple[Problem, ...]

    def check_constants(self) -> JobCheck:
        """The check of what all jobs have."""
        return JobCheck(self.composer, [override for override in self.overrides if not override.is_sweep_override()])

    def is_sweep(self, cfg: DictConfig | None) -> bool:
        """Whether the command runs several jobs; `cfg`: composed of what all have."""
        return bool(self.options.multirun) or (cfg is not None and cfg.hydra.mode == RunMode.MULTIRUN)

    def find_ambiguous(self) -> list[Problem]:
        """Several values of a key, where there is one job."""
        return [_ambiguous(override) for override in self.overrides if override.is_sweep_override()]


def read_line(options: argparse.Namespace, problems: Sequence[Problem] = ()) -> Line:
    """The command line of parsed options; `problems`: found while they were parsed.

    Raises:
        ConfigError: the options cannot be followed.
    """
    unusable = list(_option_problems(options))
    if unusable:
        raise ConfigError(*problems, *unusable)
    source = None if options.saved is None else saved.store(Path(options.saved))
    composer = _composer(options, source)
    overrides, wrong = composer.parse(options.overrides)
    found = [*problems, *wrong, *_repeated(overrides)]
    if source is not None:
        choices = [override for override in overrides if composer.is_choice(override)]
        found += saved.refuse_choices([override.key_or_group for override in choices])
        overrides = [override for override in overrides if override not in choices]
    ours, overrides = take_ours(overrides)
    return Line(options, composer, source, tuple(overrides), ours, (*found, *find_launcher_problems(ours)))


def _composer(options: argparse.Namespace, source: saved.Saved | None) -> Composer:
    """The composer of the options' folders and primary config."""
    config_path = Path(options.config_path).resolve() if options.config_path else CONF
    config_dir = Path(options.config_dir).resolve() if options.config_dir else None
    if source is not None:
        return Composer(config_path, saved.NAME, config_dir, source.file)
    return Composer(config_path, options.config_name or "config", config_dir)


def _option_problems(options: argparse.Namespace) -> Iterator[Problem]:
    if options.experimental_rerun is not None:
        reason = "is refused: it would unpickle a file, and a pickle may run any code"
        action = "repeat a run with --from <its folder>, or go on with it: resume=<its folder>"
        yield Problem(reason, "--experimental-rerun", options.experimental_rerun, action)
    for flag in ("config_path", "config_dir"):
        folder = getattr(options, flag)
        if folder is not None and not Path(folder).is_dir():
            yield Problem("no such folder", f"--{flag.replace('_', '-')}", folder, "name an existing folder")
        elif folder is not None:
            yield from find_oversized_files(Path(folder).resolve())
    if options.resolve and not (options.cfg or options.help):
        yield Problem("says how a configuration is shown", "--resolve", "without --cfg", "add --cfg job")
    if options.saved is not None and (options.config_name or options.config_path):
        yield Problem(
            "is a whole configuration", "--from", "with another one", "leave out --config-name, --config-path"
        )
    shown = [f"--{flag}" for flag in ("cfg", "info", "run") if getattr(options, flag)]
    if len(shown) > 1 or (options.run and options.multirun):
        yield Problem("one command does one thing", "command line", " ".join(shown), "leave all but one out")


def _repeated(overrides: Sequence[Override]) -> Iterator[Problem]:
    """A key, or the choice of a part, that is given twice: nobody can tell which one is meant."""
    lines: dict[str, list[str]] = {}
    for override in overrides:
        if not override.is_delete():
            lines.setdefault(override.get_key_element().lstrip("+"), []).append(show(override.input_line))
    for key, given in lines.items():
        if len(given) > 1:
            found = " ".join(redact_arguments(given))
            yield Problem(
                "is given more than once", key, found, "leave all but one out; -m key=a,b runs one job for each"
            )


def _raise_if_any(problems: list[Problem]) -> None:
    unique = list(dict.fromkeys(problems))
    if unique:
        raise ConfigError(*unique)


def _ambiguous(override: Override) -> Problem:
    key, _, value = line_of(override).partition("=")
    action = f"add -m to run one job per value; for a list write '{key}=[{value}]'; for text quote twice"
    return Problem("has several values, but this is a single run", key, show(override.input_line), action)


def _for_hydra(options: argparse.Namespace, composer: Composer, sweep: Sweep | None = None) -> list[str]:
    """The command line again, with folders that hold from anywhere, and options before overrides.

    Args:
        options: as they were parsed.
        composer: of their folders.
        sweep: what it decides takes the place of what was typed; its folder is told to Hydra by whoever makes it.
    """
    fixed = {} if sweep is None else sweep.fixed
    replaced = OURS if sweep is None else {*fixed, SWEEP_DIR, *OURS}
    lines = [line for line in map(composer.spell, options.overrides) if _key_of(line) not in replaced]
    own = [f"{key}={value}" for key, value in fixed.items()]
    return [*_flags(options, composer, ("help", "resolve", "run", "multirun")), *map(_opened, lines), *own]


def _for_hydra_to_show(options: argparse.Namespace, composer: Composer, sweep: SweepCheck) -> list[str]:
    """The command line of a sweep's first job, for options that show a configuration: Hydra shows a single job's."""
    lines, more = sweep.list_first(), sweep.count_points() - 1
    print(f"of the sweep's first job: {' '.join(lines) or 'no overrides'} ({more} more)", file=sys.stderr)
    return [*_flags(options, composer, ("resolve",)), *map(_opened, lines)]


def _key_of(line: str) -> str:
    return line.lstrip("+~").partition("=")[0]


def _opened(line: str) -> str:
    return f"++{line}" if names_entries(line.partition("=")[0]) else line


def _flags(options: argparse.Namespace, composer: Composer, names: Sequence[str]) -> list[str]:
    """The options as Hydra has them; those of `names` are switches."""
    line = [f"--config-path={composer.config_path}", f"--config-name={composer.config_name}"]
    line += [f"--config-dir={Path(options.config_dir).resolve()}"] if options.config_dir else []
    line += [f"--{name}={getattr(options, name)}" for name in ("cfg", "package", "info") if getattr(options, name)]
    return [*line, *(f"--{name}" for name in names if getattr(options, name))]
