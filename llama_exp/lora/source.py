"""`lora.source`: a run that goes on from an adapter on disk instead of fresh ones.

    section, file headers --open_source--> Adapter --start--> backbone with these adapters
                                              `----ranks----> size of the run, before Keras is imported

The section states ranks, alphas, use_rslora, use_dora and targets as without a source, and the file must say the same:
a run does what its config says, or does not start. Importing this module imports no framework.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from llama_exp import lora as low_rank
from llama_exp.architecture import linear_shapes
from llama_exp.errors import InputError, Problem
from llama_exp.files.digest import digest_of
from llama_exp.files.json_file import open_regular
from llama_exp.formats import open_adapter
from llama_exp.formats.adapter import Adapter, shorten_names
from llama_exp.formats.peft.adapter import WEIGHTS_FILE
from llama_exp.lora.targets import matching_paths, shortest_pattern, values_by_path

OF_THE_RUN = ("source", "learning_rate_ratio")  # keys that say nothing of an adapter itself


def start(backbone, lora: Mapping) -> None:
    """Gives `backbone` the adapters of a `lora` section: fresh ones, or those of its `source`, to train them further.

    Raises:
        InputError: as `lora.load_adapter`, or the file states other values than the section, except for `dropout`.
        ValueError: as `lora.enable`.
    """
    arguments = {key: value for key, value in lora.items() if key not in OF_THE_RUN}
    if lora["source"] is None:
        low_rank.enable(backbone, **arguments)
        return
    with open_source(lora, backbone.get_config()) as adapter:
        low_rank.load(backbone, adapter, lora["dropout"])


@contextlib.contextmanager
def open_source(lora: Mapping, config: Mapping) -> Iterator[Adapter]:
    """The adapter that a `lora` section goes on from, as soon as it is known to say the same as the section.

    For a file of KerasHub's, the section states the file's one rank, which our adapters hold once per head. Such a file
    has a scale of 1, so that alpha must be the rank.

    Args:
        lora: the section; its `source` names the file.
        config: the model's constructor arguments.

    Raises:
        InputError: as `open_adapter`; one problem per key that differs.
    """
    with open_adapter(lora["source"], config) as adapter:
        if problems := list(_disagreements(adapter, lora, list(linear_shapes(config)))):
            raise InputError(*problems)
        yield adapter


def ranks(lora: Mapping, config: Mapping) -> dict[str, int]:
    """The rank of every layer that a `lora` section adapts, by path; read from the headers of its `source`, if any."""
    if lora["rank"] == 0:
        return {}
    if lora["source"] is None:
        paths = matching_paths(lora["targets"], list(linear_shapes(config)))
        return values_by_path(lora["rank_pattern"], paths, lora["rank"])
    with open_source(lora, config) as adapter:
        return adapter.ranks


def count_lora_parameters(model: Mapping, lora: Mapping) -> int:
    """Trainable parameters that a `lora` section adds to a `model` section; 0 for rank 0.

    Raises:
        InputError: the section's `source` is no adapter, does not fit the model, or disagrees with the section.
    """
    return sum(count_lora_matrices_and_magnitudes(model, lora))


def count_lora_matrices_and_magnitudes(model: Mapping, lora: Mapping) -> tuple[int, int]:
    """The same in two: numbers of A and B, and numbers of DoRA's magnitudes."""
    shapes, own = linear_shapes(model), ranks(lora, model)
    magnitudes = sum(shapes[path][1] for path in own) if lora["use_dora"] else 0
    return sum(rank * sum(shapes[path]) for path, rank in own.items()), magnitudes


def origin(source: str) -> dict[str, str]:
    """What `run.json` says of an adapter that a run goes on from: `source`, and `sha256` of the file of its matrices.

    Raises:
        InputError: the file is gone.
    """
    path = Path(source).expanduser()
    with open_regular(path / WEIGHTS_FILE if path.is_dir() else path) as file:
        return {"source": source, "sha256": digest_of(file)}


def require_unchanged(source: str, recorded: Mapping | None) -> None:
    """Fails unless the adapter that a run began with is still there, as a run that is resumed needs it.

    The values of a run's adapters are in its checkpoints, but their ranks, which may differ from layer to layer, are
    read from the source; and a run that was cut before its first checkpoint begins with the source's values again.

    Args:
        source: the run's `lora.source`.
        recorded: what `origin` gave when the run began; None: it was cut before that was written.

    Raises:
        InputError: the file is gone, or another one.
    """
    digest = (recorded or {}).get("sha256")
    known = "" if digest is None else f" (it had sha256 {digest})"
    try:
        found = origin(source)
    except InputError as error:
        what = "the run began with an adapter whose file is gone, and the ranks of its layers are read from there"
        action = f"put {source} back{known}, or begin a new run with resume=none"
        raise InputError(Problem(what, "lora.source", error.problems[0].found, action)) from error
    if digest not in (None, found["sha256"]):
        action = f"put back the one with sha256 {digest}, or begin a new run with resume=none"
        what = "the adapter is another than the one that the run began with"
        raise InputError(Problem(what, "lora.source", f"{source} with sha256 {found['sha256']}", action))


def _disagreements(adapter: Adapter, lora: Mapping, linear_paths: list[str]) -> Iterator[Problem]:
    one_rank = adapter.format == "keras_hub"
    note = "; KerasHub's files have a scale of 1, so alpha is the rank" if one_rank else ""
    for key in ("rank", "alpha", "use_rslora", "use_dora"):
        value = getattr(adapter, key)
        if lora[key] != value:
            what = f"the adapter in {adapter.path} has another value{note if key == 'alpha' else ''}"
            found = f"{json.dumps(lora[key])} (adapter: {json.dumps(value)})"
            yield Problem(what, f"lora.{key}", found, f"set lora.{key}={json.dumps(value)}, or lora.source=null")
    yield from low_rank.other_layers(adapter, matching_paths(lora["targets"], linear_paths), linear_paths)
    for key, values in (("rank", adapter.ranks), ("alpha", adapter.alphas)):
        values = dict.fromkeys(values, getattr(adapter, key)) if one_rank else values
        yield from _other_pattern(adapter, f"{key}_pattern", values, getattr(adapter, key), lora)


def _other_pattern(adapter: Adapter, key: str, values: Mapping, stated: float, lora: Mapping) -> Iterator[Problem]:
    """The problem of a pattern that gives a layer of the file another value than the file does."""
    wanted = values_by_path(lora[key], list(values), stated)
    differing = [f"{path}: {wanted[path]} (adapter: {own})" for path, own in values.items() if wanted[path] != own]
    if differing:
        pattern = ", ".join(f"{target}: {own}" for target, own in shortest_pattern(values, stated).items())
        action = f"set lora.{key}={{{pattern}}}, or lora.source=null"
        yield Problem(f"the adapter in {adapter.path} has others", f"lora.{key}", shorten_names(differing), action)
