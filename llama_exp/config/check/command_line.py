"""The whole command line, checked before Hydra runs: every mistake at once, in under a second, without a framework."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llama_exp.config.check.composition import Composer, line_of, names_entries
from llama_exp.config.check.job import Job, JobCheck
from llama_exp.config.check.sweep_points import list_points
from llama_exp.config.check.typed import show
from llama_exp.config.check.yaml_files import find_oversized_files
from llama_exp.config.conf_folder import CONF
from llama_exp.config.schema import Config
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.writing import free_name

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class Command:
    """A command line that is sound.

    arguments: for Hydra. config: of the only job, or of a sweep's first point; None where nothing was composed (help,
    tab completion). sweep_dir: folder of the sweep, None for a single job. makes_sweep_dir: whether it is one that
    nobody named and that the sweep will make; it does not exist yet.
    """

    arguments: list[str]
    config: Config | None = None
    sweep_dir: Path | None = None
    makes_sweep_dir: bool = False


def check_arguments(arguments: Sequence[str]) -> Command:
    """The checked command.

    Args:
        arguments: what follows the program's name.

    Raises:
        ConfigError: with every mistake that was found.
        SystemExit: for options that argparse refuses (exit code 2) or answers itself (--version).
    """
    parser = get_args_parser()
    options = parser.parse_intermixed_args(list(arguments))
    if options.shell_completion or options.hydra_help:
        return Command(list(arguments))
    problems = list(_option_problems(options))
    if problems:
        raise ConfigError(*problems)
    config_path = Path(options.config_path).resolve() if options.config_path else CONF
    config_dir = Path(options.config_dir).resolve() if options.config_dir else None
    composer = Composer(config_path, options.config_name or "config", config_dir)
    overrides, problems = composer.parse(options.overrides)
    constants = [override for override in overrides if not override.is_sweep_override()]
    try:
        job = JobCheck(composer, constants).run()
    except ConfigError as error:
        raise ConfigError(*problems, *error.problems) from error
    if not (options.multirun or _multirun_mode(job)):
        problems += [_ambiguous(override) for override in overrides if override.is_sweep_override()]
        _raise_if_any([*problems, *job.problems])
        return Command(_for_hydra(options, config_path), job.config)
    if job.cfg is None:
        raise ConfigError(*dict.fromkeys([*problems, *job.problems]))
    config, sweep_problems = _check_sweep(composer, overrides, job.cfg, job.problems)
    _raise_if_any([*problems, *sweep_problems])
    is_named = any(override.key_or_group == "hydra.sweep.dir" for override in overrides)
    sweep_dir = _sweep_dir(job.cfg) if is_named else free_name(_sweep_dir(job.cfg))
    extra = _sweep_overrides(overrides, sweep_dir)
    is_run = not (is_named or options.cfg or options.info or options.help)
    return Command(_for_hydra(options, config_path, extra), config, sweep_dir, makes_sweep_dir=is_run)


def _option_problems(options: argparse.Namespace) -> Iterator[Problem]:
    if options.experimental_rerun is not None:
        reason = "is refused: it would unpickle a file, and a pickle may run any code"
        action = "repeat a run with the overrides in its overrides.yaml, or go on with it: resume=<its folder>"
        yield Problem(reason, "--experimental-rerun", options.experimental_rerun, action)
    for flag in ("config_path", "config_dir"):
        folder = getattr(options, flag)
        if folder is not None and not Path(folder).is_dir():
            yield Problem("no such folder", f"--{flag.replace('_', '-')}", folder, "name an existing folder")
        elif folder is not None:
            yield from find_oversized_files(Path(folder).resolve())


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
) -> tuple[Config | None, list[Problem]]:
    """Config of the first point and the problems of all points, each named with its point.

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
        return None, [*problems, *of_constants]
    points = list_points(sweeps)
    jobs = [JobCheck(composer, [*constants, *composer.parse(lines)[0]]).run() for lines in points]
    for problem in dict.fromkeys(problem for point in jobs for problem in point.problems):
        with_it = [lines for lines, point in zip(points, jobs, strict=True) if problem in point.problems]
        problems.append(problem if len(with_it) == len(points) else _at_point(problem, with_it))
    problems += _process_problems(cfg, [point.config for point in jobs if point.config is not None])
    return jobs[0].config, problems


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
    names = ",".join(_quoted(key) for key in sorted(constant) if not key.startswith("hydra"))
    extra = {
        "hydra.sweep.dir": _quoted(str(sweep_dir)),
        "hydra.job.config.override_dirname.exclude_keys": f"[{names}]",
    }
    return [f"{key}={value}" for key, value in extra.items() if key not in given]


def _quoted(text: str) -> str:
    """Text as a quoted value of Hydra's grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _for_hydra(options: argparse.Namespace, config_path: Path, extra: Sequence[str] = ()) -> list[str]:
    """The command line again, with folders that hold from anywhere and options before overrides."""
    line = [f"--config-path={config_path}"]
    line += [f"--config-name={options.config_name}"] if options.config_name else []
    line += [f"--config-dir={Path(options.config_dir).resolve()}"] if options.config_dir else []
    line += [f"--cfg={options.cfg}"] if options.cfg else []
    line += [f"--package={options.package}"] if options.package else []
    line += [f"--info={options.info}"] if options.info else []
    for flag in ("help", "resolve", "run", "multirun"):
        line += [f"--{flag}"] if getattr(options, flag) else []
    overrides = [f"++{text}" if names_entries(text.partition("=")[0]) else text for text in options.overrides]
    return [*line, *overrides, *extra]
