"""A training step of a user's own configuration against the same step computed another way.

Each check knows two computations that must agree to rounding. Loss and the gradient of every trainable variable are
compared; what has no gradient (decoding) is compared by its logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_exp.config.schema import Config
from llama_exp.limits.trainer import Remat
from llama_exp.verification import decoding, other_backend, rows
from llama_exp.verification.bench import Bench, Error, compare
from llama_exp.verification.subject import Subject, build_subject

# Relative, by what the products are computed in: (loss, gradients).
TOLERANCES = {"float32": (1e-5, 1e-4), "bfloat16": (1e-2, 5e-2), "float16": (2e-3, 2e-2)}
QUANTIZED_TOLERANCE = (0.05, 0.3)  # where the model rounds activations to integers, whose steps are coarse


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    name: of the check. way: of the computation that was farthest off. error: None: it was skipped. reason: why it was
    skipped, or None.
    """

    name: str
    way: str = ""
    error: Error | None = None
    reason: str | None = None


class Skipped(Exception):
    """A check that says nothing here, and why."""


def verify(
    config: Config, overrides: Sequence[str], only: Sequence[str], tell: Callable[[str], None]
) -> tuple[list[Outcome], tuple[float, float]]:
    """The outcome of every check, in order, and what loss and gradients may be off, relative.

    Args:
        config: typed.
        overrides: that it was composed of, for another process.
        only: names of `CHECKS`; empty: all.
        tell: called with what is being done.

    Raises:
        LlamaExpError: the model or the data cannot be built.
    """
    subject = build_subject(config, tell)
    bench = open_bench(subject)
    tell("the step as it is configured")
    expected = bench.measure(subject.rows)
    outcomes = []
    for name in CHECKS:
        if not only or name in only:
            tell(name)
            outcomes.append(run(name, bench, expected, overrides))
    return outcomes, tolerances_of(bench.backbone)


def open_bench(subject: Subject) -> Bench:
    """What measures the subject as a run would compute it."""
    from llama_exp import backend

    jit, _ = backend.resolve_jit(subject.config.runtime.jit.value, subject.model.backbone.compute_dtype)
    return Bench(subject, jit)


def tolerances_of(backbone: Any) -> tuple[float, float]:
    """What loss and gradients of a model may be off, relative."""
    stored = getattr(backbone, "quantization", None)  # a class of the user's own has none
    if stored is not None and stored.quantize_activations:
        return QUANTIZED_TOLERANCE
    return TOLERANCES[backbone.compute_dtype]


def is_right(outcome: Outcome, tolerances: tuple[float, float]) -> bool:
    """Whether a check was within its tolerances, or skipped; NaN is beyond all of them."""
    if outcome.error is None:
        return True
    return outcome.error.loss <= tolerances[0] and outcome.error.gradient <= tolerances[1]


def run(name: str, bench: Bench, expected: Any, overrides: Sequence[str]) -> Outcome:
    """What came of one check; `expected` is the measurement of the step as it is configured."""
    worst: Outcome | None = None
    try:
        for way, error in CHECKS[name](bench, expected, overrides):
            if worst is None or worst.error is None or _size(error) > _size(worst.error):
                worst = Outcome(name, way, error)
    except Skipped as skipped:
        return Outcome(name, reason=str(skipped))
    return worst or Outcome(name, reason="there is nothing to compare")


def _size(error: Error) -> float:
    return math.inf if math.isnan(error.loss + error.gradient) else max(error.loss, error.gradient)


Ways = Iterator[tuple[str, Error]]


def _accumulation(bench: Bench, expected: Any, overrides: Sequence[str]) -> Ways:
    """Micro-batches, k of b rows, are one of k * b, also where rows have different numbers of targets."""
    uneven = rows.drop_targets(bench.subject.rows)
    at_once, num_rows = bench.measure(uneven), len(uneven["token_ids"])
    for size in (size for size in range(1, num_rows) if num_rows % size == 0):
        micro = {key: array.reshape(-1, size, array.shape[-1]) for key, array in uneven.items()}
        yield f"{num_rows // size} x {size} rows", compare(bench.measure(micro), at_once)


def _batch_order(bench: Bench, expected: Any, overrides: Sequence[str]) -> Ways:
    """A batch is a set of rows."""
    backwards = {key: np.ascontiguousarray(array[::-1]) for key, array in bench.subject.rows.items()}
    yield "rows backwards", compare(bench.measure(backwards), expected)


def _packing(bench: Bench, expected: Any, overrides: Sequence[str]) -> Ways:
    """Documents in one row do not see each other; as micro-batches they need no more memory than a row."""
    packed = rows.keep_few_documents(bench.subject.rows)
    single = {key: array[:, None, :] for key, array in rows.unpack(packed).items()}
    count = len(single["token_ids"])
    yield f"{count} documents, a row each", compare(bench.measure(single), bench.measure(packed))


def _padding(bench: Bench, expected: Any, overrides: Sequence[str]) -> Ways:
    """What stands behind the last token is not seen."""
    padded = rows.pad(bench.subject.rows, bench.backbone.vocabulary_size)
    yield f"padded to {padded['token_ids'].shape[1]}", compare(bench.measure(padded), expected)


def _chunked_loss(bench: Bench, expected: Any, overrides: Sequence[str]) -> Ways:
    """The loss is a sum over tokens, whose logits may exist in parts of any size."""
    count = bench.subject.rows["token_ids"].size
    for size in sorted({count, count // 3 + 1, count // 7 + 1} - {bench.subject.config.objective.chunk_tokens}):
        yield f"chunks of {size} tokens", compare(bench.measure(bench.subject.rows, chunk_tokens=size), expected)


def _remat(bench: Bench, expected: Any, overrides: Sequence[str]) -> Ways:
    """What the backward pass computes again is what the forward pass computed."""
    for remat in Remat:
        if remat is not bench.subject.config.trainer.remat:
            yield f"remat={remat.value}", compare(bench.measure(bench.subject.rows, remat=remat), expected)


def _fast_paths(bench: Bench, expected: Any, overrides: Sequence[str]) -> Ways:
    """The compiled step is the plain one, operation by operation."""
    from llama_exp import backend

    for jit, fuse in ((True, True), (False, True), (False, False)):
        is_same = jit == bench.jit and (jit or fuse == (bench.subject.config.runtime.jit.value != "false"))
        if is_same or (not jit and fuse and not backend.runs_without_xla()):
            continue
        way = "XLA" if jit else "parts by XLA" if fuse else "no XLA"
        yield way, compare(bench.measure(bench.subject.rows, jit=jit, fuse=fuse), expected)


def _decoding(bench: Bench, expected: Any, overrides: Sequence[str]) -> Ways:
    """A token at a time, with keys and values kept, is the whole row at once."""
    if not hasattr(bench.backbone, "call_with_cache"):
        raise Skipped(f"{type(bench.backbone).__name__} has no call_with_cache")
    for way, error in decoding.compare_ways(bench.backbone, bench.subject.rows["token_ids"]):
        yield way, Error(error, 0.0, "logits")


def _backend(bench: Bench, expected: Any, overrides: Sequence[str]) -> Ways:
    """Keras' other backend computes the same from the same weights."""
    name = other_backend.name_other(bench.subject.config)
    reason = other_backend.find_obstacle(name)
    if reason is not None:
        raise Skipped(reason)
    measured = other_backend.measure_there(name, overrides)
    if isinstance(measured, str):
        raise Skipped(measured)
    yield name, compare(measured, expected)


# Name -> what yields each way of computing it and how far it is off. Those that cost most come last.
CHECKS: dict[str, Callable[[Bench, Any, Sequence[str]], Ways]] = {
    "batch order": _batch_order,
    "accumulation": _accumulation,
    "packing": _packing,
    "padding": _padding,
    "chunked loss": _chunked_loss,
    "remat": _remat,
    "fast paths": _fast_paths,
    "decoding": _decoding,
    "backend": _backend,
}
