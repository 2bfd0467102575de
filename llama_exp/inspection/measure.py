"""Singular values of what a run's training changed, one matrix in memory at a time.

    full    the exported (or checkpointed) matrix minus the one that the run started from
    LoRA    s A B, through the factors; the base is not needed, and not read
    DoRA    m / ||W + s A B|| (W + s A B) minus W, from the base

A run that went on from an adapter (`lora.source`) started from the base with that adapter: its product is taken away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_exp.architecture import linear_shapes, variable_shapes
from llama_exp.console import live
from llama_exp.formats.adapter import merge_kernel
from llama_exp.inspection.end import Adapters, End, find_end, open_adapters, open_matrices
from llama_exp.inspection.record import read_update
from llama_exp.inspection.sections import Sections, read_sections
from llama_exp.inspection.spectrum import find_values, find_values_of_product
from llama_exp.inspection.start import Read, find_digest, name_start, open_start
from llama_exp.inspection.update import MatrixUpdate, Update, make_matrix_update
from llama_exp.lora import source as lora_source
from llama_exp.results import RunResult

_KERNEL = "/kernel"


@dataclass(frozen=True)
class Options:
    """What to measure.

    step: of a checkpoint; None: what the run exported. base: where the run's preset is now; None: where it was.
    relative: for LoRA too, norms relative to those of the base, for which the base is read.
    """

    step: int | None = None
    base: str | None = None
    relative: bool = False


@dataclass(frozen=True)
class Measured:
    """An update, and what it is of: `key`, by which a record of it is known again."""

    update: Update
    key: Mapping[str, Any]


def measure_update(run: RunResult, options: Options | None = None) -> Measured:
    """What training changed, from the run's record of it where there is one of these weights.

    Args:
        run: with what it exported, or the checkpoint.
        options: what to measure; None: what the run exported.

    Raises:
        InputError: weights before or after are missing, damaged, not finite, or not those that the run had.
    """
    options = options or Options()
    sections = read_sections(run)
    end = find_end(run, sections, options.step)
    is_relative = _reads_base(sections, options)
    key = {"files": dict(end.digests), "start": find_digest(run, sections), "relative": is_relative}
    known = read_update(run.folder, options.step, key)
    if known is not None:
        return Measured(known, key)
    measure = _of_full if sections.method == "full" else _of_adapters
    matrices = measure(run, sections, end, options)
    return Measured(Update(sections.method, end.step, name_start(run, sections), tuple(matrices)), key)


def _reads_base(sections: Sections, options: Options) -> bool:
    return sections.method != "lora" or options.relative


def _of_full(run: RunResult, sections: Sections, end: End, options: Options) -> list[MatrixUpdate]:
    found = []
    shapes = variable_shapes(sections.model)
    with open_start(run, sections, options.base) as before, open_matrices(end, sections) as after:
        with _bar(len(after)) as advance:
            for path, read in after.items():
                change_IO = read()
                base_IO = before(path)
                change_IO -= base_IO
                values = find_values(change_IO)
                found.append(make_matrix_update(_layer(path), shapes[path], values, float(np.linalg.norm(base_IO))))
                advance()
    return found


def _of_adapters(run: RunResult, sections: Sections, end: End, options: Options) -> list[MatrixUpdate]:
    shapes = linear_shapes(sections.model)
    found = []
    base_norm: float | None
    with contextlib.ExitStack() as stack:
        after = stack.enter_context(open_adapters(end, sections))
        first = stack.enter_context(_open_source(run, sections))
        base = stack.enter_context(open_start(run, sections, options.base)) if _reads_base(sections, options) else None
        advance = stack.enter_context(_bar(len(after.layers)))
        for layer in after.layers:
            if base is not None and sections.method == "dora":
                values, base_norm = _measure_dora(layer, after, first, base)
            else:
                values = _measure_lora(layer, after, first)
                base_norm = None if base is None else float(np.linalg.norm(_start_of(layer, first, base)[1]))
            found.append(make_matrix_update(layer, shapes[layer], values, base_norm))
            advance()
    return found


def _measure_lora(layer: str, after: Adapters, first: Adapters | None) -> np.ndarray:
    """Singular values of s A B, or of what it has more than the product that it began with."""
    a_IR, b_RO = _factors(after, layer)
    if first is not None:
        first_a_IR, first_b_RO = _factors(first, layer)
        a_IR, b_RO = np.hstack([a_IR, -first_a_IR]), np.vstack([b_RO, first_b_RO])
    return find_values_of_product(a_IR, b_RO)


def _measure_dora(layer: str, after: Adapters, first: Adapters | None, base: Read) -> tuple[np.ndarray, float]:
    """Singular values of the change, and the norm of the matrix before."""
    base_IO, start_IO = _start_of(layer, first, base)
    end_IO = merge_kernel(base_IO, after.read(layer), after.scale_of(layer))
    return find_values(end_IO - start_IO), float(np.linalg.norm(start_IO))


def _start_of(layer: str, first: Adapters | None, base: Read) -> tuple[np.ndarray, np.ndarray]:
    """The base's matrix, and the same with the adapter that the run went on from."""
    base_IO = base(f"{layer}{_KERNEL}")
    if first is None:
        return base_IO, base_IO
    return base_IO, merge_kernel(base_IO, first.read(layer), first.scale_of(layer))


def _factors(adapters: Adapters, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """The factors s A and B, in float64."""
    matrices = adapters.read(layer)
    return np.asarray(matrices.a_IR, np.float64) * adapters.scale_of(layer), matrices.b_RO


@contextlib.contextmanager
def _open_source(run: RunResult, sections: Sections) -> Iterator[Adapters | None]:
    """The adapters that the run went on from; None: fresh ones, whose product is zero."""
    source = sections.lora["source"]
    if source is None:
        yield None
        return
    recorded = run.record.get("lora")
    lora_source.require_unchanged(source, recorded if isinstance(recorded, Mapping) else None)
    with lora_source.open_source(sections.lora, sections.model) as adapter:
        yield Adapters(tuple(adapter.ranks), adapter.read, adapter.scale_of)


def _bar(total: int) -> contextlib.AbstractContextManager:
    return live.steps_bar("singular values of matrices", total)


def _layer(path: str) -> str:
    """The layer of a variable: kernels are named by theirs, tables by themselves."""
    return path.removesuffix(_KERNEL)
