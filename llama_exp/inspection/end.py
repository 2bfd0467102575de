"""The weights that training ended with, or had at a checkpoint: found, and known to be those that the run wrote."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.architecture import CONFIG_KEYS, linear_shapes, variable_shapes
from llama_exp.errors import InputError
from llama_exp.files.digest import file_digest
from llama_exp.formats import open_adapter, open_checkpoint
from llama_exp.formats.adapter import Matrices, compute_scale
from llama_exp.formats.checkpoint import match_architecture
from llama_exp.formats.safetensors_file import open_file
from llama_exp.inspection.sections import Sections
from llama_exp.lora.targets import values_by_path
from llama_exp.results import RunResult
from llama_exp.trainer.checkpoint import list_steps, step_folder, verify

_TRAINABLE = "trainable.safetensors"
_LORA_A, _LORA_B, _MAGNITUDE = "/adapter/lora_a", "/adapter/lora_b", "/adapter/lora_magnitude"
_WEIGHTS = (".h5", ".safetensors")


@dataclass(frozen=True)
class End:
    """Where the weights are.

    folder: model/, adapter/ or a checkpoint. step: optimizer steps behind them; None: not known. digests: file ->
    SHA-256. is_checkpoint: which of the two kinds of folder it is.
    """

    folder: Path
    step: int | None
    digests: Mapping[str, str]
    is_checkpoint: bool


@dataclass(frozen=True)
class Adapters:
    """Adapters of any origin.

    layers: paths of the adapted layers. read: of a path, its matrices. scale_of: of a path, what multiplies A B.
    """

    layers: tuple[str, ...]
    read: Callable[[str], Matrices]
    scale_of: Callable[[str], float]


def find_end(run: RunResult, sections: Sections, step: int | None) -> End:
    """The weights after training.

    Args:
        run: the run.
        sections: of its config.
        step: of a checkpoint; None: what the run exported.

    Raises:
        InputError: there are none, they are damaged, or not those that the run wrote.
    """
    if step is not None:
        return _find_checkpoint(run, step)
    folder = run.folder / ("model" if sections.method == "full" else "adapter")
    if not folder.is_dir():
        raise _no_export(run, folder)
    digests = {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in _WEIGHTS
    }
    recorded = run.summary.get("weights")
    expected = {
        name: digest
        for name, digest in (recorded if isinstance(recorded, Mapping) else {}).items()
        if name.startswith(f"{folder.name}/")
    }
    if expected and expected != digests:
        name = next(name for name in [*expected, *digests] if expected.get(name) != digests.get(name))
        found = f"{name} with sha256 {digests.get(name, 'none: it is gone')}, the run wrote {expected.get(name)}"
        action = f"put back what the run wrote, or look at a checkpoint{_steps_hint(run)}"
        raise InputError.about(folder, "the weights are not those that the run exported", found, action)
    exported = run.summary.get("exported_step")
    return End(folder, exported if isinstance(exported, int) else None, digests, is_checkpoint=False)


@contextlib.contextmanager
def open_matrices(end: End, sections: Sections) -> Iterator[dict[str, Callable[[], np.ndarray]]]:
    """Path of each variable that is a matrix, in the model's order -> what reads it, float32. Of a run in full.

    Raises:
        InputError: a file is damaged, or of another architecture than the run's config says.
    """
    with _open_tensors(end, sections) as tensors:
        shapes = {path: shape for path, shape in variable_shapes(sections.model).items() if len(shape) == 2}
        unfit = [path for path, shape in shapes.items() if path not in tensors or tuple(tensors[path].shape) != shape]
        if unfit:
            what, found = "the weights are not those of the run's config", ", ".join(unfit[:3])
            raise InputError.about(end.folder, what, found, "restore config.yaml and the folder as the run left them")
        float32 = np.dtype(np.float32)
        yield {path: functools.partial(tensors[path].read, float32) for path in shapes}


@contextlib.contextmanager
def _open_tensors(end: End, sections: Sections) -> Iterator[Mapping[str, Any]]:
    if end.is_checkpoint:
        with open_file(end.folder / _TRAINABLE) as stored:
            yield stored.tensors
        return
    with open_checkpoint(end.folder) as checkpoint:
        stated = {key: value for key, value in sections.model.items() if key in CONFIG_KEYS}
        action = "restore the folder, or give --step of a checkpoint"
        yield match_architecture(checkpoint, stated, action).tensors


@contextlib.contextmanager
def open_adapters(end: End, sections: Sections) -> Iterator[Adapters]:
    """The adapters of a run with LoRA or DoRA.

    Raises:
        InputError: a file is damaged, or does not fit the run's model.
    """
    if not end.is_checkpoint:
        with open_adapter(end.folder, sections.model) as adapter:
            yield Adapters(tuple(adapter.ranks), adapter.read, adapter.scale_of)
        return
    with open_file(end.folder / _TRAINABLE) as stored:
        tensors = stored.tensors
        layers = tuple(path for path in linear_shapes(sections.model) if path + _LORA_A in tensors)
        alphas = values_by_path(sections.lora["alpha_pattern"], layers, sections.lora["alpha"])
        float32 = np.dtype(np.float32)

        def read(layer: str) -> Matrices:
            parts = [tensors[layer + suffix] for suffix in (_LORA_A, _LORA_B, _MAGNITUDE) if layer + suffix in tensors]
            return Matrices(*(part.read(float32) for part in parts))

        def scale_of(layer: str) -> float:
            return compute_scale(tensors[layer + _LORA_A].shape[1], alphas[layer], sections.lora["use_rslora"])

        yield Adapters(layers, read, scale_of)


def _find_checkpoint(run: RunResult, step: int) -> End:
    folder = step_folder(run.folder / "checkpoints", step)
    manifest = verify(folder, f"give --step of another{_steps_hint(run)}")
    return End(folder, step, {name: facts["sha256"] for name, facts in manifest["files"].items()}, is_checkpoint=True)


def _no_export(run: RunResult, folder: Path) -> InputError:
    status = run.status
    what = f"the run has left no {folder.name}/"
    steps = _steps_hint(run)
    if status == "finished":
        action = "put the folder back" + (f", or give --step of a checkpoint{steps}" if steps else "")
    else:
        action = f"finish it with resume={run.folder}" + (f", or give --step of a checkpoint{steps}" if steps else "")
    return InputError.about(run.folder, what, f"it is {status}", action)


def _steps_hint(run: RunResult) -> str:
    """` (there are 20, 40)`; empty where there are none."""
    steps = list_steps(run.folder / "checkpoints")
    shown = ", ".join(map(str, steps[-8:]))
    return f" (there are {'... ' if len(steps) > 8 else ''}{shown})" if steps else ""


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError.about(path, "the file cannot be read", error.strerror or str(error)) from error
