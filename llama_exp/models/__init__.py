"""The model classes. Importing this package imports Keras.

`Backbone` is the name under which KerasHub users look for `from_preset`; the only architecture here is Llama.
"""

from __future__ import annotations

import importlib

from llama_exp.models.backbone import LlamaBackbone

Backbone = LlamaBackbone

__all__ = ["Backbone", "LlamaBackbone", "LlamaCausalLM"]


def __getattr__(name: str):
    # Loaded on first use: a backbone alone needs none of the generation code.
    if name == "LlamaCausalLM":
        return importlib.import_module("llama_exp.models.causal_lm").LlamaCausalLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
