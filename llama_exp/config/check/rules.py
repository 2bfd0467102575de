"""Which values are impossible together. A rule runs only where every section it reads is sound by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from llama_exp.architecture import (
    AS_STORED,
    FLOATS,
    Quantization,
    linear_shapes,
    quantization_problems,
    stored_problems,
)
from llama_exp.config.schema import Config, ModelConfig, ScheduleConfig, TfdsConfig, WsdScheduleConfig
from llama_exp.config.stored import known_quantization
from llama_exp.errors import Problem
from llama_exp.lora import targets as lora_targets

ROPE_ADJUSTMENT = (
    "rope_frequency_adjustment_factor",
    "rope_low_freq_factor",
    "rope_high_freq_factor",
    "rope_pretraining_sequence_length",
)
PRESET_TOKENIZER = "llama_exp.tokenizer.preset"


def _nearest_number(value: int, possible: list[int]) -> int:
    return min(possible, key=lambda candidate: (abs(candidate - value), candidate))


def heads(config: Config) -> Iterator[Problem]:
    """Query heads divide the hidden size into even heads; key/value heads divide the query heads."""
    model = config.model
    if model.hidden_dim % (2 * model.num_query_heads):
        step = 2 * model.num_query_heads
        yield Problem(
            "is no even multiple of model.num_query_heads: rotary embedding turns pairs within a head",
            "model.hidden_dim",
            f"hidden_dim={model.hidden_dim} with num_query_heads={model.num_query_heads}",
            f"the nearest hidden_dim is {max(1, round(model.hidden_dim / step)) * step}",
        )
    if model.num_query_heads % model.num_key_value_heads:
        divisors = [n for n in range(1, model.num_query_heads + 1) if model.num_query_heads % n == 0]
        yield Problem(
            "does not divide model.num_query_heads: each key/value head serves the same number of query heads",
            "model.num_key_value_heads",
            f"num_key_value_heads={model.num_key_value_heads} with num_query_heads={model.num_query_heads}",
            f"the nearest num_key_value_heads is {_nearest_number(model.num_key_value_heads, divisors)}",
        )


def rope(config: Config) -> Iterator[Problem]:
    """Llama 3.1's four rotary keys come together, the low frequency factor below the high one."""
    values = {key: getattr(config.model, key) for key in ROPE_ADJUSTMENT}
    absent = [key for key, value in values.items() if value is None]
    if absent and len(absent) < len(values):
        yield Problem(
            "Llama 3.1's four rotary keys come together or not at all",
            f"model.{absent[0]}",
            ", ".join(f"{key}={'null' if value is None else value}" for key, value in values.items()),
            f"set {', '.join(absent)} too, or all four to null",
        )
    elif not absent and not config.model.rope_low_freq_factor < config.model.rope_high_freq_factor:
        yield Problem(
            "is not below model.rope_high_freq_factor",
            "model.rope_low_freq_factor",
            f"{config.model.rope_low_freq_factor} with rope_high_freq_factor={config.model.rope_high_freq_factor}",
            "Llama 3.1 uses 1 and 4",
        )


def lora_layers(config: Config) -> Iterator[Problem]:
    """Every target and every pattern names a layer, and no adapter is wider than its layer."""
    lora, shapes = config.lora, linear_shapes(vars(config.model))
    if lora.rank == 0:
        return
    yield from lora_targets.target_problems(lora.targets, list(shapes))
    for key in ("rank_pattern", "alpha_pattern"):
        yield from lora_targets.pattern_problems(key, getattr(lora, key), lora.targets, list(shapes))
    paths = lora_targets.matching_paths(lora.targets, list(shapes))
    ranks = lora_targets.values_by_path(lora.rank_pattern, paths, lora.rank)
    widest = max(ranks, key=lambda path: ranks[path] - min(shapes[path]), default=None)
    if widest is not None and ranks[widest] > min(shapes[widest]):
        inputs, outputs = shapes[widest]
        yield Problem(
            f"exceeds the size of a target: {widest} is {inputs} x {outputs}, so a larger rank adds nothing",
            "lora.rank" if ranks[widest] == lora.rank else "lora.rank_pattern",
            str(ranks[widest]),
            f"give at most {min(inputs, outputs)}, or leave that layer out of lora.targets",
        )


def lora_is_on(config: Config) -> Iterator[Problem]:
    """An adapter to go on from, and ranks of single layers, mean adapters that train."""
    lora = config.lora
    if lora.rank > 0:
        return
    if lora.source is not None:
        yield Problem(
            "names an adapter, but lora.rank=0 means none",
            "lora.source",
            f"source={lora.source} with rank=0",
            "set lora.rank, lora.alpha and lora.targets to those of the adapter, or lora.source=null",
        )
    for key in ("rank_pattern", "alpha_pattern"):
        if getattr(lora, key):
            yield Problem(
                "is about adapters, but lora.rank=0 means none",
                f"lora.{key}",
                f"{key}={getattr(lora, key)} with rank=0",
                f"set lora.rank, the rank of all other layers of lora.targets, or lora.{key}={{}}",
            )


def quantization_options(config: Config) -> Iterator[Problem]:
    """A mode has all its options, and no other's."""
    yield from quantization_problems(vars(config.quantization))


def quantization_of_preset(config: Config) -> Iterator[Problem]:
    """Weights that are stored in a small type stay what they are."""
    stored, section = _stored(config), vars(config.quantization)
    if stored is not None and not any(quantization_problems(section)):
        yield from stored_problems(section, stored, str(config.preset.source))


def quantization_groups(config: Config) -> Iterator[Problem]:
    """Groups that somebody asks for fill every layer; a preset's are what they are."""
    group_size, model = config.quantization.group_size, config.model
    inputs = math.gcd(model.hidden_dim, model.intermediate_dim)
    if group_size and inputs % group_size and _stored(config) is None:
        divisors = [size for size in range(1, inputs + 1) if inputs % size == 0]
        yield Problem(
            "does not divide the inputs of every layer into equal groups",
            "quantization.group_size",
            f"group_size={group_size} with hidden_dim={model.hidden_dim}, intermediate_dim={model.intermediate_dim}",
            f"the nearest group_size is {_nearest_number(group_size, divisors)}; 0 means one group",
        )


def quantization_trains(config: Config) -> Iterator[Problem]:
    """Quantized weights do not train; adapters on top of them do."""
    if config.quantization.mode not in (FLOATS, AS_STORED) and config.lora.rank == 0:
        other = "quantization=none" if _stored(config) is None else "choose a preset with floating-point weights"
        yield Problem(
            "is 0, but quantized weights do not train: only adapters on top of them do",
            "lora.rank",
            f"lora.rank=0 with quantization.mode={config.quantization.mode}",
            f"set lora.rank=8, or {other}",
        )


def _stored(config: Config) -> Quantization | None:
    """How the preset's weights are stored, where that is known and not in floating point."""
    known = known_quantization(config)
    return known if isinstance(known, Quantization) else None


def quantization_precision(config: Config) -> Iterator[Problem]:
    """Sums of products with stored numbers fit into the compute type."""
    mode = config.quantization.mode
    if mode in ("int8", "float8") and config.precision.policy == "mixed_float16":
        yield Problem(
            f"sums of {mode} products exceed float16's largest number",
            "precision.policy",
            f"mixed_float16 with quantization.mode={mode}",
            "choose precision=mixed_bfloat16 or float32, or quantization=int4",
        )


def steps(config: Config) -> Iterator[Problem]:
    """Warm-up and decay fit into the run."""
    schedule, max_steps = config.schedule, config.trainer.max_steps
    if not isinstance(schedule, ScheduleConfig):
        return
    decay_steps = schedule.decay_steps if isinstance(schedule, WsdScheduleConfig) else 0
    if schedule.warmup_steps > max_steps:
        yield Problem(
            "is longer than the run",
            "schedule.warmup_steps",
            f"warmup_steps={schedule.warmup_steps} with trainer.max_steps={max_steps}",
            f"give at most {max_steps}, or raise trainer.max_steps",
        )
    elif schedule.warmup_steps + decay_steps > max_steps:
        yield Problem(
            "does not fit into the run behind the warm-up",
            "schedule.decay_steps",
            f"decay_steps={decay_steps}, warmup_steps={schedule.warmup_steps}, trainer.max_steps={max_steps}",
            f"give at most {max_steps - schedule.warmup_steps}, or raise trainer.max_steps",
        )


def preset(config: Config) -> Iterator[Problem]:
    """A tokenizer can only be loaded from somewhere."""
    if config.preset.source is None and getattr(config.tokenizer, "_target_", None) == PRESET_TOKENIZER:
        yield Problem(
            "takes the preset's tokenizer, but preset.source names no preset",
            "tokenizer._target_",
            "tokenizer=preset with source=null",
            "set preset.source=<built-in id, kaggle://, hf:// or folder>, or choose tokenizer=bpe",
        )


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


def tfds_keys(config: Config) -> Iterator[Problem]:
    """A TFDS record is read as text, or as prompt and completion."""
    dataset = config.dataset
    if not isinstance(dataset, TfdsConfig):
        return
    pair = (dataset.prompt_key is not None, dataset.completion_key is not None)
    if (dataset.text_key is not None, *pair) not in ((True, False, False), (False, True, True)):
        yield Problem(
            "a record is either text, or prompt and completion",
            "dataset.text_key",
            f"text_key={dataset.text_key}, prompt_key={dataset.prompt_key}, completion_key={dataset.completion_key}",
            "set text_key alone, or text_key=null with prompt_key and completion_key",
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
    (("model",), heads),
    (("model",), rope),
    (("model", "lora"), lora_layers),
    (("lora",), lora_is_on),
    (("quantization",), quantization_options),
    (("quantization", "preset"), quantization_of_preset),
    (("quantization", "preset", "model"), quantization_groups),
    (("quantization", "preset", "lora"), quantization_trains),
    (("quantization", "precision"), quantization_precision),
    (("schedule", "trainer"), steps),
    (("preset", "tokenizer"), preset),
    (("tokenizer", "model"), vocabulary),
    (("dataset",), tfds_keys),
    (("resume",), resume),
)


def impossible_pairs(config: Config, unsound: set[str]) -> Iterator[Problem]:
    """Problems of all rules whose sections are sound; `model` rules need a model of ours."""
    for sections, rule in RULES:
        if unsound & set(sections) or ("model" in sections and not isinstance(config.model, ModelConfig)):
            continue
        yield from rule(config)
