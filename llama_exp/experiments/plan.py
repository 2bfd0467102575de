"""An experiment's stages as command lines of their own, checked before the first one starts.

    conf/experiment/NAME.yaml --compose--> protocol.stages --make_plan--> Steps --conduct--> run folders

Imports no framework.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_exp.config.check.command_line import read_line
from llama_exp.config.check.composition import Composer, line_of
from llama_exp.config.check.job import Job, JobCheck
from llama_exp.config.check.nearest import suggest
from llama_exp.config.check.options import parse_options
from llama_exp.config.check.stages import key_of, list_texts
from llama_exp.config.check.sweep import SWEEP_DIR
from llama_exp.config.check.sweep_points import count_points, list_corners
from llama_exp.config.check.typed import lies_under
from llama_exp.config.identity import config_hash
from llama_exp.config.quoting import plain_or_quoted
from llama_exp.config.schema import Config
from llama_exp.config.schema.protocol import ProtocolConfig, StageConfig
from llama_exp.errors import ConfigError, Problem
from llama_exp.experiments.lines import last_wins, stage_lines
from llama_exp.experiments.request import BASES, Request
from llama_exp.limits.protocol import MODELS, Half, find_places

RUN_DIR = "hydra.run.dir"
# Where a mistake stands that is the experiment's, and no stage's.
_OWN = ("protocol", "experiment", "configuration")
_BASE_LETTERS = 16
THREADS, JOBS = "runtime.threads", "hydra.launcher.n_jobs"


@dataclass(frozen=True)
class Step:
    """A stage as a command.

    folder: of its sweep; of a cached stage that of its run. arguments: behind `llama-exp train`. num_runs: of the grid.
    needs: names of the stages whose folders its overrides name.
    """

    name: str
    half: Half
    folder: Path
    arguments: tuple[str, ...]
    num_runs: int
    is_cached: bool
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """An experiment that may start. protocol: as composed. steps: in the order in which they run."""

    request: Request
    protocol: ProtocolConfig
    steps: tuple[Step, ...]


def make_plan(request: Request, cores: int) -> Plan:
    """The steps of what somebody asks for.

    Args:
        request: what.
        cores: of this machine, which so many runs of one thread share.

    Raises:
        ConfigError: with every mistake of the experiment's YAML and of the request.
    """
    request.check_extra()
    composer, protocol = _compose_protocol(request)
    chosen = _choose_stages(request, protocol)
    _require_models(request, chosen)
    places, steps = dict(request.models), list[Step]()
    wrong: dict[Problem, list[str]] = {}
    for name, stage in chosen.items():
        step, found = _Stage(request, composer, name, stage, places, cores).make()
        steps.append(step)
        for problem in found:
            wrong.setdefault(problem, []).append(name)
        places.setdefault(name, str(step.folder))
    if wrong:
        raise ConfigError(*(_in_stages(problem, names, len(chosen)) for problem, names in wrong.items()))
    return Plan(request, protocol, tuple(steps))


def _in_stages(problem: Problem, names: Sequence[str], num_stages: int) -> Problem:
    """The problem with the stages that have it, unless all have."""
    if len(names) == num_stages > 1:
        return problem
    return dataclasses.replace(problem, what=f"{problem.what} (in stage {', '.join(names)})")


def compose_protocol(request: Request) -> ProtocolConfig:
    """What an experiment states; raises `ConfigError` with all mistakes of its YAML."""
    return _compose_protocol(request)[1]


def _compose_protocol(request: Request) -> tuple[Composer, ProtocolConfig]:
    folders = [] if request.config_dir is None else [f"--config-dir={request.config_dir}"]
    options, problems = parse_options([*folders, f"experiment={request.name}"])
    line = read_line(options, problems)
    job = line.check_constants().run()
    # What else is wrong may be mended by the stages' overrides, and is found in those where it is not.
    found = [problem for problem in job.problems if job.config is None or lies_under(problem.where, _OWN)]
    if line.problems or found or job.config is None:
        raise ConfigError(*dict.fromkeys([*line.problems, *found]))
    protocol = job.config.protocol
    if not protocol.stages:
        what = "has no stages: it is the configuration of one run"
        action = f"llama-exp train experiment={request.name}; `llama-exp experiment` lists those with stages"
        raise ConfigError(Problem(what, "experiment", request.name, action))
    return line.composer, protocol


def _choose_stages(request: Request, protocol: ProtocolConfig) -> dict[str, StageConfig]:
    """The stages that were asked for and those that they need, in order."""
    if request.stage is not None and request.stage not in protocol.stages:
        raise ConfigError(
            Problem("no such stage", "--stage", request.stage, suggest(request.stage, protocol.stages, "stages"))
        )
    if request.stage is not None:
        wanted = {request.stage}
    else:
        wanted = {name for name, stage in protocol.stages.items() if stage.half in request.halves}
    if not wanted:
        halves = sorted({stage.half.value for stage in protocol.stages.values()})
        found = ", ".join(sorted(half.value for half in request.halves))
        raise ConfigError(
            Problem("the experiment has no stage of this half", "--half", found, f"it has: {', '.join(halves)}")
        )
    for name in reversed(protocol.stages):  # what a stage needs stands before it
        if name in wanted:
            wanted |= set(_list_needs(protocol.stages[name]))
    return {name: stage for name, stage in protocol.stages.items() if name in wanted}


def _list_needs(stage: StageConfig) -> tuple[str, ...]:
    """The stages whose folders a stage names."""
    named = dict.fromkeys(name for _, text in list_texts(stage) for name in find_places(text))
    return tuple(name for name in named if name not in MODELS)


def _require_models(request: Request, stages: Mapping[str, StageConfig]) -> None:
    """Raises `ConfigError` for each model that a stage needs and nobody gave."""
    needed: dict[str, list[str]] = {}
    for name, stage in stages.items():
        for model in dict.fromkeys(place for _, text in list_texts(stage) for place in find_places(text)):
            if model in MODELS and model not in request.models:
                needed.setdefault(model, []).append(name)
    problems = []
    for model, names in needed.items():
        action = f"give --preset {model}=<folder or file>, or set {MODELS[model]}"
        problems.append(Problem("needs a model that only you have", f"{{{model}}}", f"in {', '.join(names)}", action))
    if problems:
        raise ConfigError(*problems)


class _Stage:
    """One stage on its way to a step."""

    def __init__(
        self,
        request: Request,
        composer: Composer,
        name: str,
        stage: StageConfig,
        places: Mapping[str, str],
        cores: int,
    ):
        self.request, self.composer, self.name, self.stage, self.cores = request, composer, name, stage, cores
        own = stage_lines(stage, places, request.is_quick)
        # What an earlier stage will leave is missing before it has run, and is no mistake.
        self.awaited = [places[need] for need in _list_needs(stage) if not Path(places[need]).exists()]
        self.lines = last_wins([f"experiment={request.name}", *own, *request.extra])
        if not stage.cached or f"experiment={request.name}" in self.lines:
            self.lines.append(f"protocol.stage={plain_or_quoted(name)}")

    def make(self) -> tuple[Step, list[Problem]]:
        """The step, and what is wrong with its runs."""
        problems, first, num_runs = self._check()
        if problems or first.config is None:
            folder, lines = self.request.folder / self.name, self.lines
        else:
            lines = [*self.lines, *self._share_machine(first, num_runs)]
            folder = self._choose_folder(first.config)
        where = RUN_DIR if self.stage.cached else SWEEP_DIR
        options = [] if self.stage.cached else ["-m"]
        options += [] if self.request.config_dir is None else [f"--config-dir={self.request.config_dir}"]
        arguments = (*options, *lines, f"{where}={plain_or_quoted(str(folder))}", "resume=auto")
        step = Step(self.name, self.stage.half, folder, arguments, num_runs, self.stage.cached, _list_needs(self.stage))
        return step, problems

    def _check(self) -> tuple[list[Problem], Job, int]:
        """Problems of runs in which every value of the grid occurs, the first of them, and how many runs there are.

        The stage's own command checks all of them, before its first run starts.
        """
        overrides, problems = self.composer.parse(self.lines)
        sweeps = [override for override in overrides if override.is_sweep_override()]
        if sweeps and self.stage.cached:
            found = ", ".join(line_of(override) for override in sweeps)
            problems.append(Problem("a stage with cached: true is one run", self.name, found, "give one value"))
            sweeps = []
        constants = [override for override in overrides if not override.is_sweep_override()]
        points = list(list_corners(sweeps)) if sweeps else [()]
        jobs = [JobCheck(self.composer, [*constants, *self.composer.parse(lines)[0]]).run() for lines in points]
        problems += [problem for job in jobs for problem in job.problems if not self._is_awaited(problem)]
        return list(dict.fromkeys(problems)), jobs[0], count_points(sweeps)

    def _is_awaited(self, problem: Problem) -> bool:
        return any(folder in problem.found for folder in self.awaited)

    def _share_machine(self, job: Job, num_runs: int) -> list[str]:
        """One thread for each run unless somebody says otherwise: bits depend on it, not on how many run at once."""
        assert job.config is not None
        threads = job.config.runtime.threads or 1
        lines = [] if job.config.runtime.threads else [f"{THREADS}={threads}"]
        jobs = min(max(1, self.cores // threads), num_runs)
        is_ours = not self.stage.cached and JOBS.rpartition(".")[2] in job.launcher_keys
        return [*lines, f"{JOBS}={jobs}"] if is_ours and jobs > 1 and JOBS not in map(key_of, self.lines) else lines

    def _choose_folder(self, config: Config) -> Path:
        if not self.stage.cached:
            return self.request.folder / self.name
        # What the hash leaves out may still decide bits, and with them everything that is built on this run.
        place = config.runtime
        decides = [config_hash(config), place.backend.value, place.jit.value, place.threads or 1]
        return BASES / hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:_BASE_LETTERS]
