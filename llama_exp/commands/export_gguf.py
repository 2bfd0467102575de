"""A model into a folder for llama.cpp and Ollama: one GGUF file and a Modelfile."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.architecture import variable_shapes
from llama_exp.commands.export_target import GGUF_TYPES, Target
from llama_exp.commands.sources import Source
from llama_exp.errors import ConfigError, Problem, StorageError
from llama_exp.files.digest import file_digest
from llama_exp.formats.checkpoint import SCALING, Checkpoint, Tensor
from llama_exp.formats.gguf import export
from llama_exp.formats.gguf.checkpoint import is_turned
from llama_exp.preset import context_length, find_name
from llama_exp.tokenizer import assets, gguf_export, modelfile

MODELFILE = "Modelfile"
# Read back, the tokenizer must give the same ids for these.
_PROBES = (
    "The quick brown fox don't jump: it's 3.14 or 12345!",
    "  two  spaces\n\n\tdef f(x):\r\n    return x**2  ",
    "Ünïcödé, 漢字仮名, русский, ١٢٣, 🙂👩‍👩‍👧, e\u0301 and \u3000",
)

log = logging.getLogger("llama_exp")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A model that is ready to be written as GGUF.

    Attributes:
        checkpoint: as it will be written, norms in float32.
        plan: of the file.
        tokenizer: metadata of the tokenizer; {}: there is none.
        file: name of the file.
        context_length: tokens that the model is meant for.
    """

    checkpoint: Checkpoint
    plan: export.Plan
    tokenizer: Mapping[str, Any]
    file: str
    context_length: int

    @property
    def types(self) -> str:
        """Names of the types of its tensors."""
        return ", ".join(sorted(set(self.plan.types.values())))

    @property
    def exact(self) -> set[str]:
        """Paths of the tensors that the file has bit by bit."""
        names = {path: export.PLAIN_NAMES[tensor.dtype.name] for path, tensor in self.checkpoint.tensors.items()}
        return {path for path, name in names.items() if self.plan.types[path] == name}


def prepare(checkpoint: Checkpoint, tokenizer, place: Target, source: Source) -> Prepared:
    """What will be written, decided and checked before anything is.

    Args:
        checkpoint: of floating-point weights.
        tokenizer: None: the model has none.
        place: where to and how.
        source: of the model.

    Raises:
        ConfigError: nothing says how many tokens the model is meant for.
        InputError: llama.cpp has no such tokenizer.
    """
    length = place.context_length or _context_length(checkpoint, source)
    tensors = {path: _norm(tensor) for path, tensor in checkpoint.tensors.items()}
    checkpoint = dataclasses.replace(checkpoint, tensors=tensors, config=export.round_config(checkpoint.config))
    checkpoint = dataclasses.replace(checkpoint, context_length=length)
    plan = export.plan(checkpoint, place.dtype and GGUF_TYPES[place.dtype], length, name_model(source))
    metadata = {} if tokenizer is None else gguf_export.describe(tokenizer, checkpoint.config["vocabulary_size"])
    if tokenizer is None:
        log.warning("the model has no tokenizer: llama.cpp will not load the file without one")
    return Prepared(checkpoint, plan, metadata, f"model-{_shown_type(plan)}.gguf", length)


def write(draft: Path, prepared: Prepared, tensors: Mapping[str, Tensor], tokenizer, source: Source) -> dict[str, str]:
    """Writes the GGUF file and the Modelfile, and reads the former back.

    Args:
        draft: an empty folder.
        prepared: what to write.
        tensors: of its checkpoint, perhaps watched.
        tokenizer: None: the model has none.
        source: of the model.

    Returns:
        What there is to say of the file, as labels and texts.

    Raises:
        InputError: a tensor is damaged, or too large for its type.
        StorageError: the disk gave back something else than was written.
    """
    hasher = hashlib.sha256()
    checkpoint = dataclasses.replace(prepared.checkpoint, tensors=dict(tensors))
    export.write(draft / prepared.file, checkpoint, prepared.plan, prepared.tokenizer, hasher)
    served = modelfile.Served(prepared.file, prepared.context_length, source.temperature)
    (draft / MODELFILE).write_text(modelfile.write(tokenizer, served), encoding="utf-8")
    _check(draft / prepared.file, hasher.hexdigest(), tokenizer)
    return _rows(prepared, hasher.hexdigest())


def _check(file: Path, digest: str, tokenizer) -> None:
    """Fails unless the file holds the bytes that were written, and a tokenizer that gives the same ids."""
    found = file_digest(file)
    if found != digest:
        action = "check the disk and its memory, then try again"
        raise StorageError(Problem("what was read back is not what was written", str(file), f"SHA-256 {found}", action))
    if tokenizer is None:
        return
    read = assets.load(file)
    for text in _PROBES:
        if read.encode(text) != tokenizer.encode(text):
            what = "the tokenizer in the file gives other ids than the model's own"
            action = "leave the model in another format (--format hf), and report it with the name of the model"
            raise StorageError(Problem(what, str(file), repr(text), action))


def _rows(prepared: Prepared, digest: str) -> dict[str, str]:
    told = {"file": prepared.file, "sha256": digest}
    if prepared.plan.fallbacks:
        shapes = variable_shapes(prepared.checkpoint.config)
        sizes = {shapes[path][0 if is_turned(path) else -1] for path in prepared.plan.fallbacks}
        columns = ", ".join(map(str, sorted(sizes)))
        count = f"{len(prepared.plan.fallbacks)} matrices are F16 instead"
        told["not in blocks"] = f"{count}: their rows of {columns} values are no whole blocks of 32"
    return told


def name_model(source: Source) -> str:
    """What people call a model: as its repository, file or folder is called; a run's as its experiment."""
    if source.run is not None:
        return source.run.absolute().parent.name or source.run.name
    return Path(source.origin).name.removesuffix(".gguf")


def _shown_type(plan: export.Plan) -> str:
    return next(name for name, number in export.FILE_TYPES.items() if number == plan.metadata["general.file_type"])


def _norm(tensor: Tensor) -> Tensor:
    """Norms in float32, as llama.cpp takes them; matrices as they are."""
    if len(tensor.shape) > 1:
        return tensor
    dtype = np.dtype(np.float32)
    return dataclasses.replace(tensor, dtype=dtype, read=lambda wanted: tensor.read(wanted or dtype))


def _context_length(checkpoint: Checkpoint, source: Source) -> int:
    """Tokens that a model is meant for: by its files, by the table of presets, or by the rows that a run trained on."""
    if checkpoint.context_length is not None:
        return checkpoint.context_length
    if (built_in := find_name(source.origin)) is not None:
        return int(context_length(built_in) * checkpoint.config[SCALING])
    if source.sequence_length is not None:
        return source.sequence_length
    what = "nothing in the model's files says how many tokens it is meant for, which a GGUF file has to say"
    raise ConfigError(Problem(what, "--context-length", "none", "give the number, such as --context-length 4096"))
