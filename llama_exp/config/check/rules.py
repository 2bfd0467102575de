"""Which values of different parts are impossible together.

A rule runs only where every section it reads is sound by itself. What concerns one part alone is in `llama_exp.limits`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from llama_exp.architecture import linear_shapes
from llama_exp.config.check.ranges import LIMITS
from llama_exp.config.schema import Config, ModelConfig, ScheduleConfig, WsdScheduleConfig
from llama_exp.errors import Problem
from llama_exp.limits.lora import PATTERNS
from llama_exp.limits.model import find_nearest
from llama_exp.limits.precision import Policy
from llama_exp.limits.schedule import check_steps
from llama_exp.limits.tokenizer import NO_PRESET, check_room
from llama_exp.lora.targets import layer_problems

TRAINED_TOKENIZERS = ("llama_exp.tokenizer.auto", "llama_exp.tokenizer.bpe")
PRESET_TOKENIZER = "llama_exp.tokenizer.preset"


def lora_layers(config: Config) -> Iterator[Problem]:
    """Every target and every pattern names a layer, and no adapter is wider than its layer."""
    lora = config.lora
    if lora.rank > 0:
        patterns = {key: getattr(lora, key) for key in PATTERNS}
        yield from layer_problems(lora.rank, lora.targets, patterns, linear_shapes(vars(config.model)))


# Options of quantization that say something under one mode only: the mode, and why.
_ONE_MODE = {
    "quantize_activations": ("int8", "only int8 has integer products"),
    "group_size": ("int4", "only int4 has groups of inputs that share a scale"),
    "embeddings": ("int4", "only int4 leaves the embeddings a choice"),
    "gptq": ("int4", "only int4 is rounded by GPTQ"),
    "int8_layers": ("int4", "only int4 may have other layers as int8"),
}


def quantization_options(config: Config) -> Iterator[Problem]:
    """An option of one mode says nothing under another."""
    mode, options = config.quantization.mode, config.quantization
    for name, (own_mode, what) in _ONE_MODE.items():
        value = getattr(options, name)
        if mode != own_mode and value is not None and value is not False:
            shown = value if isinstance(value, str) else json.dumps(value)
            action = f"set quantization={own_mode}, or quantization.{name}=null"
            yield Problem(what, f"quantization.{name}", f"{name}={shown} with mode={mode}", action)
    rounds = mode == "int8" and options.quantize_activations is not False
    for name in ("float_activations", "asymmetric_activations"):
        value = getattr(options, name)
        if value is not None and not rounds:
            yield Problem(
                "only int8 rounds activations",
                f"quantization.{name}",
                f"{name}={json.dumps(value)} with mode={mode}, "
                f"quantize_activations={json.dumps(options.quantize_activations)}",
                f"set quantization=int8, or quantization.{name}=null",
            )


def quantization_groups(config: Config) -> Iterator[Problem]:
    """Groups that somebody asks for fill every layer."""
    group_size, model = config.quantization.group_size, config.model
    inputs = math.gcd(model.hidden_dim, model.intermediate_dim)
    if group_size and inputs % group_size:
        divisors = [size for size in range(1, inputs + 1) if inputs % size == 0]
        yield Problem(
            "does not divide the inputs of every layer into equal groups",
            "quantization.group_size",
            f"group_size={group_size} with hidden_dim={model.hidden_dim}, intermediate_dim={model.intermediate_dim}",
            f"the nearest group_size is {find_nearest(group_size, divisors)}; 0 means one group",
        )


def quantization_trains(config: Config) -> Iterator[Problem]:
    """Quantized weights do not train; adapters on top of them do."""
    if config.quantization.mode != "none" and config.lora.rank == 0:
        yield Problem(
            "is 0, but quantized weights do not train: only adapters on top of them do",
            "lora.rank",
            f"lora.rank=0 with quantization.mode={config.quantization.mode}",
            "set lora.rank=8, or quantization=none",
        )


def quantization_precision(config: Config) -> Iterator[Problem]:
    """Sums of products with stored numbers fit into the compute type."""
    mode = config.quantization.mode
    if mode in ("int8", "float8") and config.precision.policy is Policy.mixed_float16:
        yield Problem(
            f"sums of {mode} products exceed float16's largest number",
            "precision.policy",
            f"mixed_float16 with quantization.mode={mode}",
            "choose precision=mixed_bfloat16 or float32, or quantization=int4",
        )


def steps(config: Config) -> Iterator[Problem]:
    """Warm-up and decay fit into the run."""
    schedule = config.schedule
    if isinstance(schedule, ScheduleConfig):
        decay_steps = schedule.decay_steps if isinstance(schedule, WsdScheduleConfig) else 0
        yield from check_steps(schedule.warmup_steps, decay_steps, config.trainer.max_steps)


def tokenizer(config: Config) -> Iterator[Problem]:
    """A tokenizer is loaded from somewhere, or trained with room for every byte."""
    target = getattr(config.tokenizer, "_target_", None)
    if target == PRESET_TOKENIZER and config.preset.source is None:
        yield NO_PRESET
    elif target in TRAINED_TOKENIZERS and config.preset.source is None:
        yield from check_room(config.tokenizer.vocabulary_size)


def vocabulary(config: Config) -> Iterator[Problem]:
    """The model has a row for each token."""
    size = getattr(config.tokenizer, "vocabulary_size", 0)
    if size > config.model.vocabulary_size:
        yield Problem(
            "exceeds model.vocabulary_size: the last tokens would have no embedding",
            "tokenizer.vocabulary_size",
            f"{size} with model.vocabulary_size={config.model.vocabulary_size}",
            f"give at most {config.model.vocabulary_size}, or raise model.vocabulary_size",
        )


def resume(config: Config) -> Iterator[Problem]:
    """A run can only be resumed from where there is something."""
    if config.resume not in ("none", "auto") and not Path(config.resume).expanduser().is_dir():
        yield Problem(
            "is neither none nor auto, and no such folder exists",
            "resume",
            config.resume,
            "give none, auto, or a run or checkpoint folder (outputs/<name>/<run>)",
        )


RULES: tuple[tuple[tuple[str, ...], Callable[[Config], Iterator[Problem]]], ...] = (
    (("model", "lora"), lora_layers),
    (("quantization",), quantization_options),
    (("quantization", "model"), quantization_groups),
    (("quantization", "lora"), quantization_trains),
    (("quantization", "precision"), quantization_precision),
    (("schedule", "trainer"), steps),
    (("preset", "tokenizer"), tokenizer),
    (("tokenizer", "model"), vocabulary),
    (("resume",), resume),
)


def find_impossible_pairs(config: Config, unsound: set[str]) -> Iterator[Problem]:
    """Problems of all rules whose sections are sound: of each part of ours, then across parts."""
    for name, limits in LIMITS.items():
        section = getattr(config, name, None)
        if name not in unsound and dataclasses.is_dataclass(section):
            yield from limits.pair_problems(vars(section))
    for sections, rule in RULES:
        if unsound & set(sections) or ("model" in sections and not isinstance(config.model, ModelConfig)):
            continue
        yield from rule(config)
