"""From a `preset.source` to a folder or file on this machine. Imports no framework."""

from __future__ import annotations

from llama_exp.errors import InputError, Problem
from llama_exp.preset import local
from llama_exp.preset.resolved import Resolved
from llama_exp.preset.table import PRESETS

KAGGLE = "kaggle://"
HUGGING_FACE = "hf://"


def resolve(source: str, load_weights: bool = True, offline: bool = False, where: str = local.KEY) -> Resolved:
    """The preset on this machine, downloaded if it is neither here nor cached.

    Args:
        source: a key of `PRESETS`, `kaggle://user/model/keras/variant[/version]`, `hf://user/repo[@revision]`, a
            folder, or a `.gguf` file.
        load_weights: false leaves the weight files where they are and fetches configuration and tokenizer only.
        where: config key or argument that names it, for messages about what is on this machine.
        offline: take what is cached and ask no server; for `hf://` the environment's `HF_HUB_OFFLINE=1` does the same.

    Raises:
        InputError: there is no such preset, it is of a kind that cannot be loaded, or it could not be had.
    """
    handle = PRESETS[source].handle if source in PRESETS else source
    if handle.startswith(KAGGLE):
        from llama_exp.preset import kaggle

        return kaggle.fetch(source, handle, load_weights, offline)
    if handle.startswith(HUGGING_FACE):
        from llama_exp.preset import hugging_face

        return hugging_face.fetch(source, load_weights, offline)
    if "://" in source:
        raise InputError(
            Problem(
                "the scheme is unknown",
                where,
                source,
                "use kaggle://, hf://, a built-in id, a folder or a .gguf file",
            )
        )
    path = local.find(source, where)
    return Resolved(path, str(path.absolute()), None)
