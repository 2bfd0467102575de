"""How the weights in one of Keras' own files are stored, and which adapters are among them.

Keras reads by name what a model has, and passes over the rest of a file in silence: adapters that the model lacks would
be lost, and numbers of int8 would become floats. A backbone therefore writes its form beside its weights, and loads
nothing but weights of the same form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

_FORM = "form"
_FIX = (
    "Load it into a model of the same form: quantize and enable_lora with the same arguments first, or save the whole "
    "model, model.save('x.keras'), and use keras.models.load_model."
)


def write_form(store, config: Mapping) -> None:
    """Writes the form of the backbone of `config` into Keras' `store`."""
    store[_FORM] = np.frombuffer(json.dumps(_form_of(config)).encode(), np.uint8)


def require_form(store, config: Mapping) -> None:
    """Fails unless `store` has the weights of a backbone of the form of `config`.

    Raises:
        ValueError: another quantization or other adapters, or the file does not say which.
    """
    own = _form_of(config)
    # Keras tries several paths of a file, and shows what the last one gave: there is no form, and the message fits too.
    stored = json.loads(np.asarray(store[_FORM]).tobytes()) if _FORM in store else None
    if stored != own:
        raise ValueError(
            "the weights file has no weights of the model's form: another model wrote it, or one with other adapters "
            f"or another quantization than this one's, {json.dumps(own)[:300]}. {_FIX}"
        )


def _form_of(config: Mapping) -> dict:
    """What must be the same for weights to mean the same; dropout need not."""
    adapters = config["adapters"] and {key: value for key, value in config["adapters"].items() if key != "dropout"}
    return json.loads(json.dumps({"quantization": config["quantization"], "adapters": adapters}))
