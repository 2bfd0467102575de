"""Variables as named arrays and back: what a checkpoint holds of model and optimizer."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from keras import ops

from llama_exp.backend.digest import weights_digest
from llama_exp.errors import InputError, Problem
from llama_exp.lora.dora import is_derived
from llama_exp.trainer.step import seed_states

SHOWN = 5


def trainable_variables(backbone) -> dict:
    """Trainable variables by path: every weight in full training, only the adapters with LoRA."""
    return {variable.path: variable for variable in backbone.trainable_variables}


def optimizer_variables(optimizer) -> dict:
    """The optimizer's variables by path, without the number that Keras gives to a process' second optimizer."""
    named = {re.sub(r"^([a-z_]+?)_\d+/", r"\1/", variable.path): variable for variable in optimizer.variables}
    if len(named) != len(optimizer.variables):
        raise ValueError(f"{type(optimizer).__name__} has two variables of one name, so it cannot be checkpointed")
    return named


def arrays(variables: Mapping) -> dict[str, np.ndarray]:
    """Host copies by name."""
    return {name: np.asarray(ops.convert_to_numpy(variable)) for name, variable in variables.items()}


def seed_variables(backbone) -> dict:
    """States of the seed generators, numbered in the order in which the model made them."""
    return {str(number): variable for number, variable in enumerate(seed_states(backbone))}


def seed_numbers(backbone) -> list[list[int]]:
    """The seed generators' states as JSON."""
    return [[int(x) for x in array.reshape(-1)] for array in arrays(seed_variables(backbone)).values()]


def restore(variables: Mapping[str, Mapping], saved: Mapping[str, Mapping[str, np.ndarray]], where: str) -> None:
    """Assigns saved arrays: group -> name -> array to group -> name -> variable.

    Names, shapes and dtypes must agree exactly, except that whole numbers (counters, seeds) may be wider or narrower:
    the backends differ there.

    Raises:
        InputError: naming the first differences; nothing was assigned.
    """
    ours = {(group, name): variable for group, named in variables.items() for name, variable in named.items()}
    theirs = {(group, name): array for group, named in saved.items() for name, array in named.items()}
    differences = []
    for key in sorted({*ours, *theirs}):
        expected, found = _described(ours.get(key)), _described(theirs.get(key))
        if expected != found:
            differences.append(f"{': '.join(key)}: checkpoint {found}, model {expected}")
    if differences:
        more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise InputError(
            Problem(
                "the checkpoint belongs to another model or optimizer",
                where,
                "; ".join(differences[:SHOWN]) + more,
                "use the model, lora, precision and optimizer settings it was made with, or resume=none",
            )
        )
    for key, variable in ours.items():
        array = theirs[key]
        variable.assign(array.astype(variable.dtype) if array.dtype.kind in "iu" else array)


def frozen_digest(backbone) -> str:
    """The digest of every frozen weight: it stands for the base model in checkpoints of adapters."""
    return weights_digest(v for v in backbone.weights if not v.trainable and not is_derived(v))


def check_base(digest: str, saved: str, where: str) -> None:
    """Raises `InputError` if the frozen weights are not those that the checkpoint's adapters were trained on."""
    if digest != saved:
        raise InputError(
            Problem(
                "the frozen weights are not those of the checkpoint",
                where,
                f"base digest {digest}, the checkpoint was made with {saved}",
                "use the same preset and seed as then, or resume=none",
            )
        )


def _described(value) -> str:
    if value is None:
        return "absent"
    dtype = str(value.dtype)
    return f"{tuple(int(size) for size in value.shape)} {'integer' if 'int' in dtype else dtype}"
