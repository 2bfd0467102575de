"""Whether activations keep their size while a model trains, however wide it is: muP's coordinate check.

    models of several widths take steps on one batch           size    root mean square of a layer's output
    after some of them, layer by layer                         change  likewise of what training added to it
                                                               slope   of log change over log width

Under muP every change goes with the 0th power of the width (Yang et al. 2022, arXiv:2203.03466, appendix D.1); under
the standard parametrization hidden states, attention scores and logits of a wide model move farther at each step, so
that its learning rate has to be smaller. Sizes may shrink with the width, but not grow: logits of random weights go
with the root of 1 / width (ibid., appendix D.2).

Shape letters: B batch, S positions, V vocabulary, M = B * S rows, N query heads, K key/value heads, H head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STEPS = (1, 5, 20)
# A slope that counts as 0. One that is wrong is off by 0.5 or more: exponents are multiples of it.
TOLERANCE = 0.3
ROWS, POSITIONS = 4, 16
MOST_TOKENS = 64
# Of the frequency of tokens by rank. Words have 1; a little more, and a step has what to learn.
ZIPF_EXPONENT = 1.5
Build = Callable[[int], tuple[Any, Any]]


@dataclass(frozen=True)
class Slope:
    """How an activation follows the width.

    layer: what it is the output of, or the scores of an attention, or the logits. step: after how many updates. size,
    change: exponents of the width. changes: by width, in the order of the widths.
    """

    layer: str
    step: int
    size: float
    change: float
    changes: tuple[float, ...]

    @property
    def is_flat(self) -> bool:
        """Whether the change is the same at all widths, and the size does not grow."""
        return abs(self.change) <= TOLERANCE and self.size <= TOLERANCE


def draw_batch(vocabulary_size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Tokens that are as unequal as words are, to predict from each other: arrays (1, B, S) for a `TrainStep`."""
    frequencies = 1 / np.arange(1, vocabulary_size + 1) ** ZIPF_EXPONENT
    shape, rng = (1, ROWS, POSITIONS + 1), np.random.default_rng(seed)
    tokens = rng.choice(vocabulary_size, shape, p=frequencies / frequencies.sum()).astype(np.int32)
    counted = np.ones((1, ROWS, POSITIONS), np.float32)
    return {"token_ids": tokens[..., :-1], "labels": tokens[..., 1:], "loss_mask": counted}


def measure(build: Build, widths: Sequence[int], tell: Callable[[str], None], jit: bool = False) -> list[Slope]:
    """The slope of every activation after each of `STEPS`, in order.

    Args:
        build: makes a `LlamaCausalLM` of a width and its optimizer, whose learning rate is constant.
        widths: at least two.
        tell: called with what is being done.
        jit: see `TrainStep`.
    """
    found = []
    for width in widths:
        tell(f"width {width}")
        found.append(_train(*build(width), jit))
    return [_fit(layer, step, widths, [one[layer, step] for one in found]) for layer, step in found[0]]


def _train(model: Any, optimizer: Any, jit: bool) -> dict[tuple[str, int], tuple[float, float]]:
    """(Layer, step) -> size and change."""
    from llama_exp.trainer.step import TrainStep

    batch = draw_batch(model.backbone.vocabulary_size)
    step = TrainStep(model.backbone, optimizer, chunk_tokens=ROWS * POSITIONS, jit=jit)
    first = dict(read_activations(model, batch["token_ids"][0]))
    found = {}
    for number in range(1, max(STEPS) + 1):
        step(batch)
        if number in STEPS:
            for layer, array in read_activations(model, batch["token_ids"][0]):
                found[layer, number] = (_size(array), _size(array - first[layer]))
    return found


def read_activations(model: Any, token_ids_BS: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Hidden states of a `LlamaCausalLM` layer by layer, scores of its attentions, and logits; float64."""
    from keras import ops

    from llama_exp.models.layer_outputs import layer_outputs

    backbone, outputs = model.backbone, layer_outputs(model, token_ids_BS)
    rope = backbone.rope(np.arange(token_ids_BS.shape[1], dtype=np.int32)[None, :])
    x_BSD = outputs.pop(backbone.token_embedding.path)
    yield "token_embedding", x_BSD.astype(np.float64)
    for block in backbone.transformer_layers:
        x_MD = ops.cast(x_BSD.reshape(-1, backbone.hidden_dim), backbone.compute_dtype)
        scores = _scores(block.self_attention, block.self_attention_layernorm(x_MD), rope)
        yield f"{block.name}/scores", np.asarray(ops.convert_to_numpy(scores), np.float64)
        x_BSD = outputs.pop(block.path)
        yield block.name, x_BSD.astype(np.float64)
    yield "logits", outputs["logits"].astype(np.float64)


def _scores(attention: Any, x_MD, rope):
    """Every query's product with every key, before the softmax: (B, N, S, S)."""
    from keras import ops

    from llama_exp.models.fused import rotate_heads

    N, K = attention.num_query_heads, attention.num_key_value_heads
    q_BNSH = rotate_heads(attention.query(x_MD), rope.cos_query, rope.sin_query, N)
    k_BKSH = rotate_heads(attention.key(x_MD), rope.cos_key, rope.sin_key, K)
    return ops.matmul(q_BNSH, ops.transpose(ops.repeat(k_BKSH, N // K, axis=1), (0, 1, 3, 2)))


def _size(array: np.ndarray) -> float:
    return math.sqrt(float(np.mean(np.square(array))))


def _fit(layer: str, step: int, widths: Sequence[int], found: Sequence[tuple[float, float]]) -> Slope:
    sizes, changes = np.array(found).T
    size, change = (_exponent(widths, values) for values in (sizes, changes))
    return Slope(layer, step, size, change, tuple(map(float, changes)))


def _exponent(widths: Sequence[int], values: np.ndarray) -> float:
    """Of the width that fits the values best; NaN, which is not flat, where one is 0 or not finite."""
    if not (np.isfinite(values).all() and (values > 0).all()):
        return math.nan
    return float(np.polyfit(np.log2(widths), np.log2(values), 1)[0])
