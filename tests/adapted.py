"""A small backbone with random weights, and random values for its adapters."""

from __future__ import annotations

import numpy as np
import oracles
from keras import ops

from llama_exp.models import LlamaBackbone

IDS = np.random.default_rng(0).integers(0, 40, (2, 8)).astype("int32")


def make(seed=0, **kwargs):
    backbone = LlamaBackbone(40, 2, 4, 32, 48, 2, **kwargs)
    oracles.randomize(backbone, seed)
    return backbone


def hidden(backbone):
    return ops.convert_to_numpy(ops.cast(backbone({"token_ids": IDS}), "float32"))


def fill(backbone, seed=5):
    generator = np.random.default_rng(seed)
    for variable in backbone.trainable_variables:
        variable.assign(generator.normal(size=tuple(variable.shape)) * 0.3)
