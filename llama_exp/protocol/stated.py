"""What runs say that their experiments stated: the section `protocol` of each run's own config.yaml."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from llama_exp.config.check.typed import Typing
from llama_exp.config.identity import flatten, to_dict
from llama_exp.config.schema.protocol import ProtocolConfig, StageConfig
from llama_exp.errors import InputError
from llama_exp.protocol.overrides import is_given, list_unstated
from llama_exp.results import RunResult
from llama_exp.results.decisive import canonical

SECTION = "protocol"
QUICK = re.compile(r"-quick(-[0-9a-f]+)?$")  # with a digest of the overrides behind it
_MOST_CHANGES = 5
_ABSENT = "absent"


@dataclass(frozen=True)
class Experiment:
    """Runs that one experiment's YAML describes.

    name: of the runs. is_quick: whether it is the quick variant, whose figures mean nothing. changes: overrides that
    all of its runs were given and the protocol does not state. protocol: that the newest run states. stages: index of a
    run -> its stage. keys: of the runs' configs, dotted. notes: where the runs state different things, sentences.
    """

    name: str
    is_quick: bool
    changes: tuple[str, ...]
    protocol: ProtocolConfig
    stages: dict[int, str | None]
    keys: frozenset[str]
    notes: tuple[str, ...] = ()

    def list_runs(self, stages: Collection[str]) -> list[int]:
        """Indices of the runs of some stages."""
        return [number for number, stage in self.stages.items() if stage in stages]


def read_protocol(run: RunResult) -> ProtocolConfig | None:
    """What the experiment stated when the run began; None: the run belongs to none.

    Raises:
        InputError: the section is damaged.
    """
    data = run.config.get(SECTION)
    if not isinstance(data, dict) or data.get("title") is None:
        return None
    typing = Typing()
    protocol = typing.section(SECTION, data, [])
    problems = typing.problems
    if problems:
        action = "take the file from the run's archive, or leave the run out"
        where = run.folder / "config.yaml"
        raise InputError.about(where, f"{problems[0].where} {problems[0].what}", problems[0].found, action)
    return protocol


def list_experiments(runs: Sequence[RunResult]) -> list[Experiment]:
    """The experiments that runs belong to, in the order of their first runs.

    A stage that is kept for several experiments is none by itself. Raises `InputError` for a damaged section.
    """
    found: dict[tuple[str, bool, tuple[str, ...]], dict[int, ProtocolConfig]] = {}
    for number, run in enumerate(runs):
        protocol = read_protocol(run)
        if protocol is not None:
            found.setdefault(_identify(run, protocol), {})[number] = protocol
    experiments = [_make_experiment(key, runs, protocols) for key, protocols in found.items()]
    return [one for one in experiments if not all(_is_cached(one, stage) for stage in one.stages.values())]


def _identify(run: RunResult, protocol: ProtocolConfig) -> tuple[str, bool, tuple[str, ...]]:
    """Name, whether it is the quick variant (by its folder, or by the overrides that it was given), and changes."""
    overrides = _read_overrides(run)
    stage = protocol.stages.get(str(protocol.stage), StageConfig())
    quick = any(QUICK.search(folder.name) for folder in run.folder.parents[:3])
    quick = quick or is_given(overrides, stage.quick.overrides)
    changes = [] if stage.cached else list_unstated(overrides, stage)
    return str(run.config.get("name", run.folder.name)), quick, tuple(changes)


def _read_overrides(run: RunResult) -> list[str]:
    """Nothing where the file is lost: then the folder alone tells."""
    try:
        return run.overrides
    except InputError:
        return []


def _make_experiment(
    key: tuple[str, bool, tuple[str, ...]], runs: Sequence[RunResult], protocols: dict[int, ProtocolConfig]
) -> Experiment:
    begun = {number: _find_beginning(runs[number]) for number in protocols}
    newest = max(protocols, key=lambda number: (begun[number], number))
    stages = {number: protocol.stage for number, protocol in protocols.items()}
    notes = tuple(_list_changes(protocols, begun, newest))
    keys = frozenset(key for number in protocols for key in runs[number].values)
    return Experiment(*key, protocols[newest], stages, keys, notes)


def _list_changes(protocols: dict[int, ProtocolConfig], begun: dict[int, str], newest: int) -> Iterator[str]:
    """What other runs of the experiment state otherwise than the newest, and when they began."""
    flat = functools.partial(_flatten_stated)
    now, others = flat(protocols[newest]), {number: flat(protocol) for number, protocol in protocols.items()}
    changes: dict[str, dict[str, list[int]]] = {}
    for number, then in others.items():
        for key in (*then, *(key for key in now if key not in then)):
            if then.get(key, _ABSENT) != now.get(key, _ABSENT):
                changes.setdefault(key, {}).setdefault(then.get(key, _ABSENT), []).append(number)
    if not changes:
        return
    yield "The runs do not state the same: the YAML was edited between them. The verdicts are on the newest statement."
    for key, values in list(changes.items())[:_MOST_CHANGES]:
        for value, numbers in values.items():
            last = max(begun[number] for number in numbers) or "a time that is not recorded"
            yield (
                f"{key} was {value} in {len(numbers)} runs, the last begun at {last}; it is {now.get(key, _ABSENT)} in"
                f" the run begun at {begun[newest] or 'a time that is not recorded'}."
            )
    if len(changes) > _MOST_CHANGES:
        yield f"{len(changes) - _MOST_CHANGES} more keys of the protocol differ."


def _flatten_stated(protocol: ProtocolConfig) -> dict[str, str]:
    """Keys and values of a statement, as texts; the stage is each run's own."""
    return {key: canonical(value) for key, value in flatten(to_dict(replace(protocol, stage=None))).items()}


def _find_beginning(run: RunResult) -> str:
    starts = run.record.get("starts")
    first = starts[0] if isinstance(starts, list) and starts else None
    return str(first.get("time", "")) if isinstance(first, dict) else ""


def _is_cached(experiment: Experiment, name: str | None) -> bool:
    stage = experiment.protocol.stages.get(str(name))
    return stage is not None and stage.cached
