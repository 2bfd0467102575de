"""Single changes of a config that need less memory, with what each costs. Imports no framework.

    same result           the same numbers, computed twice instead of kept
    rounding              the same mathematics; sums are added in another order
    another experiment    another model, other weights or other data

Time is counted in arithmetic alone: the factor by which that of the whole run grows. How fast a machine is at each kind
of it, nobody knows beforehand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_exp.architecture import FLOATS, make_quantization, to_section
from llama_exp.config.check.rules import find_impossible_pairs
from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config
from llama_exp.limits.precision import Policy
from llama_exp.limits.trainer import Remat
from llama_exp.run.plan import Plan, make_plan

SAME, ROUNDING, OTHER = "same result", "rounding", "another experiment"
LOSSES = (SAME, ROUNDING, OTHER)
ADAPTER_RANK = 8  # that is proposed
LEAST_CHUNK = 64
LEAST_LENGTH = 32


Kind = Callable[[Config, "Plan"], Iterator["Change"]]


@dataclass(frozen=True)
class Change:
    """What may be typed in addition to a command line.

    text: overrides. config: changed. plan: of that. time_factor: arithmetic of the whole run, as a multiple. accuracy:
    of `LOSSES`.
    """

    text: str
    config: Config
    plan: Plan
    time_factor: float
    accuracy: str


def find_changes(config: Config, plan: Plan, fits: Callable[[Plan], bool]) -> list[Change]:
    """The single changes that fit, the mildest of each kind, by what they cost.

    Args:
        config: sound.
        plan: of it.
        fits: whether there is room for a plan.
    """
    found = (next((change for change in kind(config, plan) if fits(change.plan)), None) for kind in _KINDS)
    changes = [change for change in found if change is not None]
    return sorted(changes, key=lambda change: (LOSSES.index(change.accuracy), change.time_factor, -_size(change)))


def find_smallest(config: Config, plan: Plan) -> list[Change]:
    """The smallest that a run gets with its model, weights and data as they are, and with small weights too; [] : none.

    Several kinds of change together, each as far as it goes.
    """
    mild = _combine(config, plan, (_split_batch, _repeat, _chunk))
    strong = _combine(config, plan, (_split_batch, _repeat, _chunk, _round, _quantize))
    found = [change for change in (mild, strong) if change is not None]
    return found[:1] if mild == strong else found


def _combine(config: Config, plan: Plan, kinds: Sequence[Kind]) -> Change | None:
    best: Change | None = None
    for kind in kinds:
        current, words, loss = (config, "", SAME) if best is None else (best.config, f"{best.text} ", best.accuracy)
        smallest = (plan if best is None else best.plan).peak_bytes
        for change in list(kind(current, plan))[-1:]:
            if change.plan.peak_bytes < smallest:
                accuracy = max(loss, change.accuracy, key=LOSSES.index)
                best = dataclasses.replace(change, text=words + change.text, accuracy=accuracy)
    return best


def _size(change: Change) -> int:
    return change.plan.peak_bytes


def _change(config: Config, before: Plan, text: str, accuracy: str, **sections: Mapping[str, Any]) -> Iterator[Change]:
    """The change of some keys of some sections, if it is possible, and trains the same tokens."""
    named = {name: dataclasses.replace(getattr(config, name), **keys) for name, keys in sections.items()}
    changed = dataclasses.replace(config, **named)
    if list(find_impossible_pairs(changed, set())):
        return
    plan = make_plan(changed)
    assert plan is not None, "no class of the user's own came in"
    work = plan.work_per_token * plan.total_tokens / (before.work_per_token * before.total_tokens)
    yield Change(text, changed, plan, work, accuracy)


def _repeat(config: Config, plan: Plan) -> Iterator[Change]:
    """Less of what the forward pass leaves for the backward pass."""
    order = list(Remat)
    for remat in order[order.index(config.trainer.remat) + 1 :]:
        yield from _change(config, plan, f"trainer.remat={remat.value}", SAME, trainer={"remat": remat})


def _split_batch(config: Config, plan: Plan) -> Iterator[Change]:
    """Smaller micro-batches, more of them; masks of dropout are drawn for each."""
    size, steps = config.trainer.batch_size, config.trainer.accumulation_steps
    drops = config.lora.dropout > 0 or to_dict(config.model)["dropout"] > 0
    for parts in range(2, size + 1):
        if size % parts == 0:
            keys = {"batch_size": size // parts, "accumulation_steps": steps * parts}
            text = " ".join(f"trainer.{key}={value}" for key, value in keys.items())
            yield from _change(config, plan, text, OTHER if drops else ROUNDING, trainer=keys)


def _chunk(config: Config, plan: Plan) -> Iterator[Change]:
    """Logits of fewer tokens at a time."""
    tokens = min(config.objective.chunk_tokens, config.trainer.batch_size * to_dict(config.dataset)["sequence_length"])
    while (tokens := tokens // 2) >= LEAST_CHUNK:
        keys = {"chunk_tokens": tokens}
        yield from _change(config, plan, f"objective.chunk_tokens={tokens}", ROUNDING, objective=keys)


def _round(config: Config, plan: Plan) -> Iterator[Change]:
    """Fewer bytes per number, of activations and then of weights."""
    if config.precision.policy is Policy.float32:
        for policy in (Policy.mixed_bfloat16, Policy.bfloat16):
            yield from _change(config, plan, f"precision={policy.value}", OTHER, precision={"policy": policy})


def _quantize(config: Config, plan: Plan) -> Iterator[Change]:
    """Small weights below the adapters."""
    if config.quantization.mode == FLOATS:
        for mode in ("int8", "int4"):
            section = to_section(make_quantization(mode))
            yield from _change(config, plan, f"quantization={mode}", OTHER, quantization=section)


def _adapt(config: Config, plan: Plan) -> Iterator[Change]:
    """Adapters alone train, on a model that has been trained already."""
    if config.lora.rank == 0 and config.preset.source is not None:
        yield from _change(config, plan, f"lora.rank={ADAPTER_RANK}", OTHER, lora={"rank": ADAPTER_RANK})


def _shorten(config: Config, plan: Plan) -> Iterator[Change]:
    """Shorter rows, and so fewer tokens in a step."""
    length = to_dict(config.dataset)["sequence_length"]
    while (length := length // 2) >= LEAST_LENGTH:
        keys = {"sequence_length": length}
        yield from _change(config, plan, f"dataset.sequence_length={length}", OTHER, dataset=keys)


_KINDS = (_repeat, _split_batch, _chunk, _round, _quantize, _adapt, _shorten)
