"""Which single values are possible: one row per key."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from llama_exp.architecture import AS_STORED, FLOATS, MODES, OPTIONS
from llama_exp.config.check.typed import MISSING, Origin, show
from llama_exp.config.schema import Config
from llama_exp.errors import Problem

POLICIES = ("float32", "bfloat16", "mixed_bfloat16", "mixed_float16")
CHAT_TEMPLATES = ("chatml", "llama2", "llama3")
LARGEST = 2**31 - 1  # sizes and counters are int32 on some device or other
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")

Rule = tuple[Callable[[Any], bool], str]


def at_least(low: float) -> Rule:
    """A finite number not below `low`."""
    return (lambda value: value >= low), f"a number of at least {low}"


def one_of(names: tuple[str, ...]) -> Rule:
    """One of a few texts."""
    return (lambda value: value in names), f"one of {', '.join(names)}"


COUNT: Rule = (lambda value: 1 <= value <= LARGEST), "an integer of at least 1"
COUNT_OR_ZERO: Rule = (lambda value: 0 <= value <= LARGEST), "an integer of at least 0"
POSITIVE: Rule = (lambda value: value > 0), "a number above 0"
PROBABILITY: Rule = (lambda value: 0 <= value < 1), "a number in [0, 1)"
SHARE: Rule = (lambda value: 0 <= value <= 1), "a number in [0, 1]"
INSIDE: Rule = (lambda value: 0 < value < 1), "a number between 0 and 1, both excluded"
FILLED: Rule = (lambda value: bool(value) and all(value)), "at least one entry, none of them empty"

RANGES: dict[str, Rule] = {
    "name": (
        lambda value: bool(NAME.fullmatch(value)),
        "letters, digits, '_', '-' and '.', at most 100: it becomes a folder below outputs/",
    ),
    "seed": ((lambda value: 0 <= value < 2**32), "an integer from 0 to 4294967295"),
    "resume": FILLED,
    "runtime.threads": COUNT_OR_ZERO,
    "runtime.cache_dir": FILLED,
    "dataset.sequence_length": ((lambda value: 2 <= value <= LARGEST), "an integer of at least 2"),
    "dataset.validation_fraction": INSIDE,
    "dataset.files": FILLED,
    "dataset.text_key": FILLED,
    "dataset.prompt_key": FILLED,
    "dataset.completion_key": FILLED,
    "dataset.messages_key": FILLED,
    "dataset.chat_template": one_of(CHAT_TEMPLATES),
    "dataset.builder": FILLED,
    "dataset.train_split": FILLED,
    "dataset.validation_split": FILLED,
    "tokenizer.vocabulary_size": COUNT,
    "tokenizer.file": FILLED,
    "preset.source": FILLED,
    "model.vocabulary_size": COUNT,
    "model.num_layers": COUNT,
    "model.num_query_heads": COUNT,
    "model.hidden_dim": COUNT,
    "model.intermediate_dim": COUNT,
    "model.num_key_value_heads": COUNT,
    "model.rope_max_wavelength": POSITIVE,
    "model.rope_position_scaling_factor": POSITIVE,
    "model.rope_frequency_adjustment_factor": POSITIVE,
    "model.rope_low_freq_factor": POSITIVE,
    "model.rope_high_freq_factor": POSITIVE,
    "model.rope_pretraining_sequence_length": COUNT,
    "model.layer_norm_epsilon": POSITIVE,
    "model.initializer_range": POSITIVE,
    "model.embedding_initializer_range": POSITIVE,
    "model.dropout": PROBABILITY,
    "precision.policy": one_of(POLICIES),
    "quantization.mode": one_of((FLOATS, AS_STORED, *MODES)),
    **{f"quantization.{name}": (option.possible, option.words) for name, option in OPTIONS.items()},
    "lora.rank": COUNT_OR_ZERO,
    "lora.alpha": POSITIVE,
    "lora.dropout": PROBABILITY,
    "lora.targets": FILLED,
    "lora.rank_pattern": (
        (lambda value: all(value) and all(1 <= rank <= LARGEST for rank in value.values())),
        "targets with an integer of at least 1 each",
    ),
    "lora.alpha_pattern": (
        (lambda value: all(value) and all(0 < alpha < math.inf for alpha in value.values())),
        "targets with a number above 0 each",
    ),
    "lora.source": FILLED,
    "objective.chunk_tokens": COUNT,
    "optimizer.learning_rate": POSITIVE,
    "optimizer.weight_decay": at_least(0),
    "optimizer.beta_1": PROBABILITY,
    "optimizer.beta_2": PROBABILITY,
    "optimizer.epsilon": POSITIVE,
    "optimizer.global_clipnorm": POSITIVE,
    "schedule.warmup_steps": COUNT_OR_ZERO,
    "schedule.final_fraction": SHARE,
    "schedule.decay_steps": COUNT,
    "trainer.max_steps": COUNT,
    "trainer.batch_size": COUNT,
    "trainer.accumulation_steps": COUNT,
    "trainer.log_every_steps": COUNT,
    "trainer.validate_every_steps": COUNT,
    "trainer.validation_batches": COUNT,
    "trainer.checkpoint_every_steps": COUNT,
    "trainer.keep_checkpoints": COUNT,
    "trainer.sample_tokens": COUNT,
    "trainer.sample_temperature": at_least(0),
    "logger.project": FILLED,
    "logger.entity": FILLED,
}


def leaves(config: Config) -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every typed key."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                yield f"{field.name}.{inner.name}", getattr(value, inner.name)
        elif not isinstance(value, dict):
            yield field.name, value


def impossible_values(config: Config, origin: Origin) -> Iterator[Problem]:
    """Every value outside its range; a null that the schema allows is always possible."""
    for path, value in leaves(config):
        if value is None or (isinstance(value, str) and value == MISSING):
            continue
        possible, words = RANGES.get(path, ((lambda value: True), "a finite number"))
        if isinstance(value, float) and not math.isfinite(value):
            yield Problem("is not a finite number", path, origin(path, show(value)), f"give {words}")
        elif not possible(value):
            yield Problem("is an impossible value", path, origin(path, show(value)), f"give {words}")
