"""Keys of a whole command line, explained: of a single run, or at the points of a sweep."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_exp.config.check.command_line import Line, read_line
from llama_exp.config.check.job import EXPERIMENT, SWEEP, JobCheck
from llama_exp.config.check.nearest import advise, ask_whether, find_nearest_name
from llama_exp.config.check.options import parse_options
from llama_exp.config.check.sweep import SweepCheck
from llama_exp.config.check.typed import list_sections
from llama_exp.config.explain.explanation import Explainer, Explanation
from llama_exp.config.explain.settings import Place, Setting, list_file_settings, replay
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import redact_arguments

SWEEP_PARAMS = ("hydra", "sweeper", "params")
MOST_POINTS = 32  # each is composed; of a larger sweep, those that differ from the first one in one key


@dataclass(frozen=True)
class Point:
    """What one point of a sweep, or the only run, says of the keys.

    overrides: those that differ between the points. explanations: in the order in which the keys were asked for.
    """

    overrides: tuple[str, ...]
    explanations: tuple[Explanation, ...]


@dataclass(frozen=True)
class Explained:
    """Keys of a command line, explained.

    points: of a sweep, or the only run; none where the sweep's cannot be listed. num_points: how many jobs there are;
    None: a search decides. space: key that differs between the jobs -> what it may be. problems: why `llama-exp train`
    would refuse the command line. values: of what all jobs have, by dotted key.
    """

    points: list[Point]
    num_points: int | None
    space: dict[str, str]
    problems: list[Problem]
    values: Mapping[str, Any]


def explain(
    names: Sequence[str] | None, arguments: Sequence[str], labels: Mapping[str, str], *, is_one_job: bool = False
) -> Explained:
    """The explanations of keys.

    Args:
        names: keys and parts of the configuration; None: all but Hydra's own.
        arguments: options and overrides, as for `train`.
        labels: override as typed -> what it is called: `argument 2`.
        is_one_job: the command line is that of one job, even of a sweep's.

    Raises:
        ConfigError: the command line does not compose, or there is no such key.
    """
    options, problems = parse_options(arguments)
    _refuse_others(options)
    line = read_line(options, problems)
    source = _Source(line, labels)
    check = line.check_constants()
    base = source.explainer(check)
    found = [*line.problems, *check.problems]
    if is_one_job or not line.is_sweep(base.cfg):
        points = [Point((), tuple(map(base.explain, _find_keys(names, base))))]
        return Explained(points, 1, {}, _unique([*found, *line.find_ambiguous()]), base.values)
    sweep = SweepCheck(line.composer, line.overrides, base.cfg, check.problems)
    source.params = {setting.path[-1]: setting for setting in base.settings if setting.path[:-1] == SWEEP_PARAMS}
    points = _explain_points(names, sweep, source)
    num_points, space = sweep.describe()
    return Explained(points, num_points, space, _unique([*line.problems, *sweep.problems]), base.values)


def _unique(problems: Iterable[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))


def _explain_points(names: Sequence[str] | None, sweep: SweepCheck, source: _Source) -> list[Point]:
    """Each point with the keys that any of them has: another data set has other keys."""
    jobs = [
        (lines, source.explainer(JobCheck(source.line.composer, overrides)))
        for lines, overrides in sweep.list_jobs(MOST_POINTS)
    ]
    keys = _find_keys(names, *(explainer for _, explainer in jobs)) if jobs else []
    return [Point(lines, tuple(map(explainer.explain, keys))) for lines, explainer in jobs]


class _Source:
    """Where the overrides of a command line come from.

    params: of a sweep's file, key -> how it was set.
    """

    def __init__(self, line: Line, labels: Mapping[str, str]):
        self.line, self.params = line, dict[str, Setting]()
        self._labels = {
            _key_of(line.composer.spell(text)): f"{label}: {redact_arguments([text])[0]}"
            for text, label in labels.items()
        }
        self._of_files: dict[tuple[str, ...], list[Setting]] = {}

    def explainer(self, check: JobCheck) -> Explainer:
        """Of one job; raises ConfigError where it does not compose, or only with other choices than were typed."""
        job = check.run()
        if job.cfg is None or check.doubtful:
            raise ConfigError(*dict.fromkeys([*self.line.problems, *job.problems]))
        choices = tuple(check.lines)
        if choices not in self._of_files:
            layers = self.line.composer.layers(choices)
            self._of_files[choices] = list(list_file_settings(layers, choices, self.place_of))
        return Explainer(job.cfg, job.config, replay(self._of_files[choices], check.values, self.place_of))

    def place_of(self, line: str) -> Place:
        """Who said an override: an argument, or the parameters of a sweep's file."""
        key = _key_of(line)
        if key in self._labels:
            return Place(self._labels[key])
        setting = self.params.get(key)
        if setting is None:
            return Place(".".join(SWEEP_PARAMS))
        return Place(f"{setting.place.text}: {key}={setting.value}", setting.place.config, setting.place.chosen_by)


def _key_of(line: str) -> str:
    return line.partition("=")[0].lstrip("+")


def _find_keys(names: Sequence[str] | None, *explainers: Explainer) -> list[str]:
    """The keys that names mean, each once; raises ConfigError with every name that means none."""
    if names is None:
        return list(dict.fromkeys(key for explainer in explainers for key in explainer.list_keys()))
    found = {name: [key for explainer in explainers for key in explainer.find_keys(name)] for name in names}
    problems = [_no_such_key(name, explainers[0]) for name, keys in found.items() if not keys]
    if problems:
        raise ConfigError(*problems)
    return list(dict.fromkeys(key for keys in found.values() for key in keys))


def _no_such_key(name: str, explainer: Explainer) -> Problem:
    deleted = explainer.find_deletion(name)
    if deleted is not None:
        return Problem("was taken out of the configuration", name, deleted.text, "leave that out to see what it was")
    known = explainer.list_hydra_keys() if name.startswith("hydra") else explainer.list_keys()
    parts = (*list_sections(), EXPERIMENT, SWEEP)
    match = (find_nearest_name(name, parts) if "." not in name else None) or advise(name, known)
    if name in (EXPERIMENT, SWEEP):
        return Problem("none is chosen", name, "no such override", f"add {name}=<choice>; see llama-exp train --help")
    action = ask_whether(match, name) if match else "llama-exp explain --all shows every key"
    return Problem("no such key", name, "the configuration of this command has none", action)


def _refuse_others(options: argparse.Namespace) -> None:
    """Options that say what else `train` should do have no meaning here."""
    flags = ("help", "hydra_help", "resolve", "run", "cfg", "info", "package", "shell_completion")
    given = [f"--{flag.replace('_', '-')}" for flag in flags if getattr(options, flag)]
    if given:
        raise ConfigError(Problem("explains no key", "llama-exp explain", " ".join(given), "leave it out"))
