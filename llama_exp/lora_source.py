"""`lora.source`: a run that goes on from an adapter on disk instead of fresh ones.

    section, file headers --open_source--> Adapter --start--> backbone with these adapters
                                              `----ranks----> size of the run, before Keras is imported

The section states rank, alpha, use_rslora and targets as without a source, and the file must say the same: a run does
what its config says, or does not start. Importing this module imports no framework.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from llama_exp import lora as low_rank
from llama_exp.architecture import linear_shapes
from llama_exp.errors import InputError, Problem
from llama_exp.formats import open_adapter
from llama_exp.formats.adapter import Adapter
from llama_exp.formats.json_file import open_regular
from llama_exp.formats.peft import WEIGHTS_FILE


def start(
    backbone,
    rank: int,
    alpha: float,
    dropout: float,
    use_rslora: bool,
    targets: Sequence[str],
    source: str | None = None,
) -> None:
    """Gives `backbone` the adapters of a `lora` section: fresh ones, or those of `source`, to train them further.

    Raises:
        InputError: as `lora.load_adapter`, or the file states other values than the arguments, except for `dropout`.
        ValueError: as `lora.enable`.
    """
    if source is None:
        low_rank.enable(backbone, rank, alpha, dropout, use_rslora, targets)
        return
    section = {"rank": rank, "alpha": alpha, "use_rslora": use_rslora, "targets": targets, "source": source}
    with open_source(section, backbone.get_config()) as adapter:
        low_rank.load(backbone, adapter, dropout)


@contextlib.contextmanager
def open_source(lora: Mapping, config: Mapping) -> Iterator[Adapter]:
    """The adapter that a `lora` section goes on from, as soon as it is known to say the same as the section.

    A file whose ranks differ from layer to layer agrees if its one stated rank does: `r` of PEFT, beside which
    `rank_pattern` is the file's own; `rank` of KerasHub, which our adapters hold once per head. A file of KerasHub's
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
    if lora.get("source") is None:
        return dict.fromkeys(low_rank.matching_paths(lora["targets"], list(linear_shapes(config))), lora["rank"])
    with open_source(lora, config) as adapter:
        return adapter.ranks


def origin(source: str) -> dict[str, str]:
    """What `run.json` says of an adapter that a run goes on from: `source`, and `sha256` of the file of its matrices.

    Raises:
        InputError: the file is gone.
    """
    path = Path(source).expanduser()
    with open_regular(path / WEIGHTS_FILE if path.is_dir() else path) as file:
        return {"source": source, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


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
    note = "; KerasHub's files have a scale of 1, so alpha is the rank" if adapter.format == "keras_hub" else ""
    for key in ("rank", "alpha", "use_rslora"):
        value = getattr(adapter, key)
        if lora[key] != value:
            what = f"the adapter in {adapter.path} has another value{note if key == 'alpha' else ''}"
            found = f"{json.dumps(lora[key])} (adapter: {json.dumps(value)})"
            yield Problem(what, f"lora.{key}", found, f"set lora.{key}={json.dumps(value)}, or lora.source=null")
    yield from low_rank.other_layers(adapter, low_rank.matching_paths(lora["targets"], linear_paths), linear_paths)
