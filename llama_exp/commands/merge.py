"""`llama-exp merge`: an adapter into its model, tensor by tensor and without a framework.

Every adapted kernel becomes W + s A B, with DoRA m / ||W + s A B|| times that, summed in float32 and rounded once to
the type that is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.progress import track

from llama_exp.architecture import AS_STORED
from llama_exp.commands import export, export_target
from llama_exp.commands.parser import Parser
from llama_exp.commands.sources import Source, find, load_tokenizer, opened
from llama_exp.console import logs
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.files.redact import printable
from llama_exp.formats import open_adapter, read_quantization
from llama_exp.formats.adapter import Adapter
from llama_exp.formats.adapter import merge_kernel as merged_kernel
from llama_exp.formats.checkpoint import Checkpoint, Tensor
from llama_exp.formats.digest import digest_tensors
from llama_exp.formats.quantized import dequantize_checkpoint
from llama_exp.quantization import choose, describe, fit_checkpoint

logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Merges as the command line says; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.source is None) or (options.source is None) != (options.adapter is None):
        parser.error("give a run's folder, or both --from and --adapter")
    logs.attach_console()
    console, place = Console(stderr=True), export_target.target(options)
    source = find(options.run or options.source, options.adapter, options.offline)
    if source.adapter is None:
        action = "it is a whole model already: llama-exp convert brings it into another format"
        raise InputError(Problem("there is no adapter to merge", options.run, "a run without adapter/", action))
    export_target.require_free(place, source.path)
    export_target.require_free(place, source.adapter)
    _require_dtype(source, place)
    with open_base(source) as checkpoint, open_adapter(source.adapter, checkpoint.config) as adapter:
        _require_base(checkpoint, adapter, source.policy, console)
        tokenizer = load_tokenizer(source)
        rows = export.write(merge_adapter(checkpoint, adapter), tokenizer, place, console, source)
        rows["merged"] = f"{len(adapter.ranks)} layers of {source.adapter} into {source.origin}"
        if checkpoint.quantization is not None:
            rows["quantization"] = f"none any more: {describe(checkpoint.quantization)} became floating point"
            small = checkpoint.quantization.mode
            logger.info("the merged model is not quantized: %s cannot hold the sum of a kernel and its adapter", small)
    rows["next"] = export.next_command(place, tokenizer)
    export.show(rows, Console())
    return 0


def merge_adapter(checkpoint: Checkpoint, adapter: Adapter) -> Checkpoint:
    """The model with the adapter in its kernels.

    Args:
        checkpoint: open; quantized weights count as what they stand for.
        adapter: open, made for this model.
    """
    if checkpoint.quantization is not None:
        checkpoint = dequantize_checkpoint(checkpoint)
    tensors = dict(checkpoint.tensors)
    for layer in adapter.ranks:
        path = f"{layer}/kernel"
        tensors[path] = _with_adapter(tensors[path], layer, adapter)
    return dataclasses.replace(checkpoint, tensors=tensors)


def _with_adapter(kernel: Tensor, layer: str, adapter: Adapter) -> Tensor:
    def read(dtype: np.dtype | None) -> np.ndarray:
        sums = merged_kernel(kernel.read(np.dtype(np.float32)), adapter.read(layer), adapter.scale_of(layer))
        with np.errstate(over="ignore"):  # an overflow is told below
            values = sums.astype(kernel.dtype if dtype is None else dtype, copy=False)
        if not np.isfinite(values.astype(np.float32, copy=False)).all():
            what = "with the adapter a weight is too large for its type"
            action = "give --dtype float32 or bfloat16"
            raise InputError(Problem(what, kernel.origin, f"beyond {values.dtype}", action))
        return values

    return dataclasses.replace(kernel, read=read)


@contextlib.contextmanager
def open_base(source: Source) -> Iterator[Checkpoint]:
    """The model of a source without its adapter: with a run's own arguments, quantized where the run quantized it."""
    with opened(source) as checkpoint:
        chosen = choose(source.quantization or {"mode": AS_STORED}, checkpoint.quantization, checkpoint.path)
        yield fit_checkpoint(checkpoint, chosen)


def _require_dtype(source: Source, place: export_target.Target) -> None:
    stored = read_quantization(source.path) if place.dtype is None else None
    if stored is not None:
        what = "the base is quantized, and a merged model has floating-point weights"
        action = "give --dtype, such as bfloat16" + (" or Q8_0" if place.format == "gguf" else "")
        raise ConfigError(Problem(what, "--dtype", f"none, the base is {stored.mode}", action))


def _require_base(checkpoint: Checkpoint, adapter: Adapter, policy: str | None, console: Console) -> None:
    """Fails if the adapter says that it was trained on other weights."""
    if adapter.base is None:
        logger.info("%s does not say which base weights it was trained on (as PEFT's own files)", adapter.path)
        return
    trained_on = adapter.base["variable_dtype"]
    stored = None if checkpoint.quantization is None else checkpoint.quantization.mode
    if (stored or trained_on) != trained_on or (stored is None and trained_on not in export_target.DTYPES):
        here = stored or "floating-point"
        logger.warning(
            "%s was trained on %s weights; the base here is %s, so that it cannot be compared",
            adapter.path,
            printable(trained_on),
            here,
        )
        return
    steps = track(
        sorted(checkpoint.tensors.items()),
        "checking the base",
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    of_norms = "bfloat16" if policy == "bfloat16" else "float32"  # mixed policies have float32 variables
    found = digest_tensors(steps, export_target.DTYPES[of_norms if stored else trained_on])
    if found != adapter.base["digest"]:
        what = "the adapter was trained on other base weights"
        action = "name the model that it was trained on"
        where = f"{adapter.path} (base: {checkpoint.path})"
        raise InputError(Problem(what, where, f"digest {found}, the adapter has {json.dumps(adapter.base)}", action))


def _parser() -> Parser:
    parser = Parser(
        "merge",
        "Puts a LoRA adapter into its model: every adapted kernel becomes W + s A B, summed in float32\n"
        "and rounded once. The result is a model like any other. One tensor is in memory at a time.\n"
        "An adapter of this package knows its base weights by their digest, and fits no other.",
        [
            "llama-exp merge outputs/default/<run> --to merged",
            "llama-exp merge outputs/default/<run> --to merged --format hf --dtype bfloat16",
            "llama-exp merge outputs/default/<run> --to merged --format gguf --dtype Q8_0",
            "llama-exp merge --from llama3.2_1b --adapter my_peft_folder --to merged",
        ],
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help="folder of a run that trained adapters")
    parser.add_argument("--from", dest="source", metavar="SRC", help="instead of RUN: the model, as for convert")
    parser.add_argument("--adapter", metavar="DIR", help="with --from: a PEFT folder or a KerasHub .lora.h5 file")
    export_target.add_arguments(parser, format_required=False)
    parser.add_argument("--offline", action="store_true", help="ask no server: files or the cache must have it")
    return parser
