"""Runs decoder blocks as functions of tensors: traced once for all that are alike, computed again if memory is short.

    block(x) with its variables inside     one graph per block: tracing and compiling grow with depth
    f(values of its variables, x)          one graph for all blocks that differ in nothing but these values

As arguments the variables are also read once, before anything may write them. `keras.remat` alone would on TensorFlow
read them again in the backward pass, at a moment when the optimizer may be writing (seen as rare wrong gradients), and
on JAX a seed variable that advances inside leaks a tracer.

Shape letters: M = B * S rows, D hidden_dim.
"""

from __future__ import annotations

import keras
from keras import ops

from llama_exp import backend
from llama_exp.limits import choose
from llama_exp.limits.trainer import Remat
from llama_exp.models.dropout import DropoutSeeds


def run_block(block: keras.layers.Layer, x_MD, rope, bias_B1ST, seed, remat: Remat | str):
    """`block(x_MD)`.

    Args:
        block: a `TransformerDecoder`.
        x_MD: (M, D).
        rope: its tables.
        bias_B1ST: see `attention_bias`.
        seed: of this block's dropouts, integer tensor (2,); None: no dropout.
        remat: what the backward pass computes again instead of keeping it.
    """
    remat = choose(Remat, remat, "trainer.remat")
    trainable, frozen = block.trainable_variables, block.non_trainable_variables

    def run(x_MD, trainable_values, frozen_values, rope, bias_B1ST, seed):
        frozen_values = [ops.stop_gradient(value) for value in frozen_values]  # their gradients are never computed
        values = zip([*trainable, *frozen], [*trainable_values, *frozen_values], strict=True)
        with keras.StatelessScope(state_mapping=list(values)):
            seeds = None if seed is None else DropoutSeeds(seed)
            keep_weights = remat is Remat.none
            return block(x_MD, rope=rope, bias_B1ST=bias_B1ST, seeds=seeds, keep_weights=keep_weights)[0]

    key = (identify(block), seed is None, remat)
    frozen_values = [_read(variable) for variable in frozen]

    def once(x_MD, *trainable_values):
        return backend.repeated(key, run, x_MD, list(trainable_values), frozen_values, rope, bias_B1ST, seed)

    # The tables and the bias are shared by all blocks and need no gradient, so they stay closed over.
    again = keras.remat(once) if remat is Remat.block else once
    return again(x_MD, *(_read(variable) for variable in trainable))


def identify(block: keras.layers.Layer) -> tuple:
    """Equal for blocks that compute the same from the same values."""
    variables = [(_inner(block, v.path), tuple(v.shape), v.dtype, v.trainable) for v in block.weights]
    layers = [(type(layer).__qualname__, _settings(block, layer)) for layer in [block, *block._flatten_layers(False)]]
    return tuple(variables), tuple(layers)


def _settings(block, layer) -> str:
    config = {key: value for key, value in layer.get_config().items() if key not in ("name", "dtype")}
    return f"{_inner(block, layer.path)} {layer.compute_dtype} {sorted(config.items())}"


def _inner(block, path: str) -> str:
    """A path without what names the block."""
    return path.removeprefix(block.path)


def _read(variable):
    # On TensorFlow `.value` is a variable still. A sum reads it, and gradients pass.
    return ops.convert_to_tensor(variable.value)
