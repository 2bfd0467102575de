"""Whether activations keep their size while a model trains, however wide it is: muP's coordinate check.

    models of several widths take steps on one batch           size    root mean square of a layer's output
    after some of them, layer by layer                         change  likewise of what training added to it
                                                               slope   of log change over log width

Under muP every change goes with the 0th power of the width (Yang et al. 2022, arXiv:2203.03466, appendix D.1); under
the standard parametrization hidden states, attention scores and logits of a wide model move farther at each step, so
that its learning rate has to be smaller. Sizes may shrink with the width, but not grow: logits of random weights go
with the root of 1 / width (ibid., appendix D.2).

Shape letters: B batch, S positions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_exp import runtime
from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config, ModelConfig, ScheduleConfig
from llama_exp.errors import ConfigError, Problem
from llama_exp.run.building import build_model, build_optimizer
from llama_exp.verification.subject import without_dropout

WIDTHS = "--widths"
STEPS = (1, 5, 20)
# A slope that counts as 0. One that is wrong is off by 0.5 or more: exponents are multiples of it.
TOLERANCE = 0.3
ROWS, POSITIONS = 4, 16
MOST_TOKENS, MOST_LAYERS = 64, 2
DOUBLINGS = (1, 2, 4, 8)
# Of the frequency of tokens by rank. Words have 1; a little more, and a step has what to learn.
ZIPF_EXPONENT = 1.5
# Models of each width: with few heads one of them alone says little of its scores.
SEEDS = 3
Build = Callable[[int, int], tuple[Any, Any]]


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


def check(config: Config, widths: Sequence[int] | None, tell: Callable[[str], None]) -> list[Slope]:
    """The slopes of a config's model at other widths, under its optimizer at a constant learning rate.

    The models are smaller than the run's where that says as much: of two blocks, with few tokens. Their weights are
    random.

    Args:
        config: typed.
        widths: see `resize`; None: four, each twice the one before.
        tell: called with what is being done.

    Raises:
        ConfigError: a model that has no widths, or a width that it cannot have.
    """
    step = _find_step(config)
    resized = {width: resize(config, width) for width in widths or [step * factor for factor in DOUBLINGS]}
    if len(resized) < 2:
        action = f"give several that are far apart: {WIDTHS} {step},{2 * step},{4 * step}"
        raise ConfigError(Problem("one width has no slope", WIDTHS, str(*resized), action))
    runtime.start(**to_dict(config.runtime))
    tell("loading Keras")
    runtime.import_backend()

    def build(width: int, seed: int) -> tuple[Any, Any]:
        seeded = dataclasses.replace(resized[width], seed=config.seed + seed)
        model = build_model(seeded, None, None)
        return model, build_optimizer(seeded, model)

    return measure(build, list(resized), tell, SEEDS)


def resize(config: Config, width: int) -> Config:
    """The config of the same model with another `hidden_dim`, small and without dropout, at a constant rate.

    The feed-forward width follows. Where `model.base_head_dim` is stated, heads grow with the width; otherwise there
    are more of them, of the size that they have.

    Raises:
        ConfigError: heads would not come out whole.
    """
    step, model = _find_step(config), config.model
    if width % step:
        nearest = max(1, round(width / step)) * step
        what = "is no width that this model can have: its heads would not come out whole"
        raise ConfigError(Problem(what, WIDTHS, str(width), f"give multiples of {step}, such as {nearest}"))
    more_heads = 1 if model.base_head_dim is not None else width / model.hidden_dim
    sizes = {
        "hidden_dim": width,
        "intermediate_dim": max(1, round(model.intermediate_dim * width / model.hidden_dim)),
        "num_query_heads": round(model.num_query_heads * more_heads),
        "num_key_value_heads": round(model.num_key_value_heads * more_heads),
        "num_layers": min(model.num_layers, MOST_LAYERS),
        "vocabulary_size": min(model.vocabulary_size, MOST_TOKENS),
    }
    schedule = ScheduleConfig(_target_="llama_exp.schedule.constant", warmup_steps=0)
    resized = dataclasses.replace(config, model=dataclasses.replace(model, **sizes), schedule=schedule)
    return without_dropout(resized)


def _find_step(config: Config) -> int:
    """What every width is a multiple of."""
    model = config.model
    if not isinstance(model, ModelConfig):
        what, action = "is a class of its own, whose widths only it knows", "leave model._target_ out"
        raise ConfigError(Problem(what, "model._target_", str(to_dict(model).get("_target_")), action))
    if config.lora.rank > 0:
        what, action = "adapters have no width to follow", "set lora.rank=0"
        raise ConfigError(Problem(what, "lora.rank", str(config.lora.rank), action))
    if model.base_head_dim is not None:
        return 2 * model.num_query_heads
    return model.hidden_dim // math.gcd(model.num_query_heads, model.num_key_value_heads)


def draw_batch(vocabulary_size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Tokens that are as unequal as words are, to predict from each other: arrays (1, B, S) for a `TrainStep`."""
    frequencies = 1 / np.arange(1, vocabulary_size + 1) ** ZIPF_EXPONENT
    shape, rng = (1, ROWS, POSITIONS + 1), np.random.default_rng(seed)
    tokens = rng.choice(vocabulary_size, shape, p=frequencies / frequencies.sum()).astype(np.int32)
    counted = np.ones((1, ROWS, POSITIONS), np.float32)
    return {"token_ids": tokens[..., :-1], "labels": tokens[..., 1:], "loss_mask": counted}


def measure(build: Build, widths: Sequence[int], tell: Callable[[str], None], num_seeds: int) -> list[Slope]:
    """The slope of every activation after each of `STEPS`, in order.

    Args:
        build: makes a `LlamaCausalLM` of a width and a seed, and its optimizer, whose learning rate is constant.
        widths: at least two.
        tell: called with what is being done.
        num_seeds: models of each width.
    """
    found: list[dict] = []
    for width in widths:
        tell(f"width {width}")
        found.append(_average([_train(*build(width, seed)) for seed in range(num_seeds)]))
    return [_fit(layer, step, widths, [one[layer, step] for one in found]) for layer, step in found[0]]


def _average(models: Sequence[dict[tuple[str, int], tuple[float, float]]]) -> dict[tuple[str, int], np.ndarray]:
    """Roots of the means of squares of sizes and changes over the models of a width."""
    return {key: np.sqrt(np.mean([np.square(one[key]) for one in models], axis=0)) for key in models[0]}


def _train(model: Any, optimizer: Any) -> dict[tuple[str, int], tuple[float, float]]:
    """(Layer, step) -> size and change."""
    from llama_exp.trainer.step import TrainStep

    batch = draw_batch(model.backbone.vocabulary_size)
    step = TrainStep(model.backbone, optimizer, chunk_tokens=ROWS * POSITIONS, jit=False, fuse=False)
    first = read_activations(model, batch["token_ids"][0])
    found = {}
    for number in range(1, max(STEPS) + 1):
        step(batch)
        if number in STEPS:
            for layer, array in read_activations(model, batch["token_ids"][0]).items():
                found[layer, number] = (_size(array), _size(array - first[layer]))
    return found


def read_activations(model: Any, token_ids_BS: np.ndarray) -> dict[str, np.ndarray]:
    """Hidden states of a `LlamaCausalLM` layer by layer, scores of its attentions, and logits; float64."""
    from llama_exp.models.layer_outputs import attention_scores, layer_outputs

    outputs = layer_outputs(model, token_ids_BS)
    outputs.pop(model.backbone.layer_norm.path)  # as large as its scale says
    found = attention_scores(model, outputs) | outputs
    return {layer: found[layer].astype(np.float64) for layer in sorted(found, key=_order)}


def _order(layer: str) -> tuple[int, str]:
    return (0 if layer == "token_embedding" else 2 if layer == "logits" else 1), layer


def _size(array: np.ndarray) -> float:
    return math.sqrt(float(np.mean(np.square(array))))


def _fit(layer: str, step: int, widths: Sequence[int], found: Sequence[np.ndarray]) -> Slope:
    sizes, changes = np.array(found).T
    size, change = (_exponent(widths, values) for values in (sizes, changes))
    return Slope(layer, step, size, change, tuple(map(float, changes)))


def _exponent(widths: Sequence[int], values: np.ndarray) -> float:
    """Of the width that fits the values best; NaN, which is not flat, where one is 0 or not finite."""
    if not (np.isfinite(values).all() and (values > 0).all()):
        return math.nan
    return float(np.polyfit(np.log2(widths), np.log2(values), 1)[0])
