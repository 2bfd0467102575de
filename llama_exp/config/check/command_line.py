"""The whole command line, checked before Hydra runs: every mistake at once, in under a second, without a framework."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llama_exp.config.check import saved
from llama_exp.config.check.composition import Composer, line_of, names_entries
from llama_exp.config.check.job import Job, JobCheck
from llama_exp.config.check.options import parse_options
from llama_exp.config.check.sweep_points import find_wrong_count, list_points
from llama_exp.config.check.typed import show
from llama_exp.config.check.yaml_files import find_oversized_files
from llama_exp.config.conf_folder import CONF
from llama_exp.config.quoting import quote
from llama_exp.config.schema import Config
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import redact_arguments
from llama_exp.files.writing import free_name

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class Command:
    """A command line that is sound.

    arguments: for Hydra. config: of the only job, or of a sweep's first point; None where nothing was composed (help,
    tab completion). sweep_dir: folder of the sweep, None for a single job. constants: a sweep's overrides that are the
    same in all of its jobs. makes_sweep_dir: whether the sweep's folder is a new one for its time.
    """

    arguments: list[str]
    config: Config | None = None
    sweep_dir: Path | None = None
    constants: tuple[str, ...] = ()
    makes_sweep_dir: bool = False


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
    unusable = list(_option_problems(options))
    if unusable:
        raise ConfigError(*problems, *unusable)
    source = None if options.saved is None else saved.store(Path(options.saved))
    composer = _composer(options, source)
    overrides, wrong = composer.parse(options.overrides)
    problems += [*wrong, *_repeated(overrides)]
    if source is not None:
        choices = [override for override in overrides if composer.is_choice(override)]
        problems += saved.refuse_choices([override.key_or_group for override in choices])
        overrides = [override for override in overrides if override not in choices]
    constants = [override for override in overrides if not override.is_sweep_override()]
    try:
        job = JobCheck(composer, constants).run()
    except ConfigError as error:
        raise ConfigError(*problems, *error.problems) from error
    if not (options.multirun or _multirun_mode(job)):
        problems += [_ambiguous(override) for override in overrides if override.is_sweep_override()]
        if source is not None and job.config is not None and not job.problems:
            problems += source.problems(job.config)
        _raise_if_any([*problems, *job.problems])
        return Command(_for_hydra(options, composer), job.config)
    if job.cfg is None:
        raise ConfigError(*dict.fromkeys([*problems, *job.problems]))
    points, config, sweep_problems = _check_sweep(composer, overrides, job.cfg, job.problems)
    if source is not None and config is not None and not sweep_problems:
        problems += source.problems(config)
    _raise_if_any([*problems, *sweep_problems])
    if options.cfg or options.info:
        return Command(_for_hydra_to_show(options, composer, constants, points), config)
    has_time = "${now:" in str(OmegaConf.to_container(job.cfg.hydra.sweep))  # of another second: a new sweep
    sweep_dir = free_name(_sweep_dir(job.cfg)) if has_time else _sweep_dir(job.cfg)
    extra, same = _sweep_overrides(overrides, sweep_dir), tuple(map(line_of, constants))
    return Command(_for_hydra(options, composer, extra), config, sweep_dir, same, makes_sweep_dir=has_time)


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


def _multirun_mode(job: Job) -> bool:
    return job.cfg is not None and job.cfg.hydra.mode == RunMode.MULTIRUN


def _ambiguous(override: Override) -> Problem:
    key, _, value = line_of(override).partition("=")
    action = f"add -m to run one job per value; for a list write '{key}=[{value}]'; for text quote twice"
    return Problem("has several values, but this is a single run", key, show(override.input_line), action)


def _check_sweep(
    composer: Composer, overrides: list[Override], cfg: DictConfig, of_constants: list[Problem]
) -> tuple[list[list[str]], Config | None, list[Problem]]:
    """The points, the config of the first and the problems of all of them, each named with its point.

    Args:
        composer: of the command line.
        overrides: all of them.
        cfg: composed of those that are the same at every point.
        of_constants: the problems of these, told where the points cannot be checked.
    """
    params = cfg.hydra.sweeper.get("params") or {}
    from_files, problems = composer.parse([f"{key}={value}" for key, value in params.items()])
    by_key = {override.get_key_element(): override for override in [*from_files, *overrides]}
    constants = [override for override in by_key.values() if not override.is_sweep_override()]
    sweeps = [override for override in by_key.values() if override.is_sweep_override()]
    problems += _sweep_problems(sweeps, cfg)
    if problems:
        return [], None, [*problems, *of_constants]
    points = list_points(sweeps)
    jobs = [JobCheck(composer, [*constants, *composer.parse(lines)[0]]).run() for lines in points]
    for problem in dict.fromkeys(problem for point in jobs for problem in point.problems):
        with_it = [lines for lines, point in zip(points, jobs, strict=True) if problem in point.problems]
        problems.append(problem if len(with_it) == len(points) else _at_point(problem, with_it))
    problems += _process_problems(cfg, [point.config for point in jobs if point.config is not None])
    return points, jobs[0].config, problems


def _at_point(problem: Problem, points: list[list[str]]) -> Problem:
    more = f" and {len(points) - 1} more" if len(points) > 1 else ""
    what = f"{problem.what} (at the sweep's point {' '.join(points[0])}{more})"
    return Problem(what, problem.where, problem.found, problem.action)


def _sweep_problems(sweeps: list[Override], cfg: DictConfig) -> Iterator[Problem]:
    basic = cfg.hydra.sweeper.get("_target_") == BASIC_SWEEPER
    for sweep in sweeps:
        line = show(sweep.input_line)
        if sweep.is_hydra_override():
            yield Problem("cannot differ between the jobs of a sweep", sweep.key_or_group, line, "give one value")
        elif basic and not sweep.is_discrete_sweep():
            action = "give a list of values, range(start,stop,step), or choose another hydra/sweeper"
            yield Problem("a grid needs single values, not an interval", sweep.key_or_group, line, action)
        elif problem := find_wrong_count(sweep, line):
            yield problem


def _process_problems(cfg: DictConfig, configs: list[Config]) -> Iterator[Problem]:
    """A backend and its threads are chosen once per process."""
    if cfg.hydra.launcher.get("_target_") != BASIC_LAUNCHER:
        return
    for key in ("backend", "threads"):
        values = sorted({str(getattr(config.runtime, key)) for config in configs})
        if len(values) > 1:
            action = "start one sweep for each, or choose a hydra/launcher with a process per job"
            what = "cannot differ between jobs that share a process"
            yield Problem(what, f"runtime.{key}", ", ".join(values), action)


def _sweep_dir(cfg: DictConfig) -> Path:
    HydraConfig.instance().set_config(cfg)
    try:
        return Path(str(OmegaConf.select(cfg, "hydra.sweep.dir")))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(Problem(reason, "hydra.sweep.dir", "not resolvable", "give a folder")) from error
    finally:
        HydraConfig.instance().cfg = None


def _sweep_overrides(overrides: list[Override], sweep_dir: Path) -> list[str]:
    """Fixes the sweep's folder once for all jobs, and keeps what is the same in all of them out of their names."""
    given = {override.key_or_group for override in overrides}
    constant = {override.key_or_group for override in overrides if not override.is_sweep_override()}
    names = ",".join(quote(key) for key in sorted(constant) if not key.startswith("hydra"))
    extra = {
        "hydra.sweep.dir": quote(str(sweep_dir)),
        "hydra.job.config.override_dirname.exclude_keys": f"[{names}]",
    }
    return [f"{key}={value}" for key, value in extra.items() if key not in given]


def _for_hydra(options: argparse.Namespace, composer: Composer, extra: Sequence[str] = ()) -> list[str]:
    """The command line again, with folders that hold from anywhere and options before overrides."""
    overrides = []
    for line in map(composer.spell, options.overrides):
        overrides.append(f"++{line}" if names_entries(line.partition("=")[0]) else line)
    return [*_flags(options, composer, ("help", "resolve", "run", "multirun")), *overrides, *extra]


def _for_hydra_to_show(
    options: argparse.Namespace, composer: Composer, constants: Sequence[Override], points: list[list[str]]
) -> list[str]:
    """The command line of a sweep's first job, for options that show a configuration: Hydra shows a single job's."""
    first, more = points[0], len(points) - 1
    print(f"of the sweep's first job: {' '.join(first) or 'no overrides'} ({more} more)", file=sys.stderr)
    lines = [line_of(override) for override in constants] + first
    overrides = [f"++{line}" if names_entries(line.partition("=")[0]) else line for line in lines]
    return [*_flags(options, composer, ("resolve",)), *overrides]


def _flags(options: argparse.Namespace, composer: Composer, names: Sequence[str]) -> list[str]:
    """The options as Hydra has them; those of `names` are switches."""
    line = [f"--config-path={composer.config_path}", f"--config-name={composer.config_name}"]
    line += [f"--config-dir={Path(options.config_dir).resolve()}"] if options.config_dir else []
    line += [f"--{name}={getattr(options, name)}" for name in ("cfg", "package", "info") if getattr(options, name)]
    return [*line, *(f"--{name}" for name in names if getattr(options, name))]
