"""What tokenizers accept."""

from __future__ import annotations

from collections.abc import Iterator

from llama_exp.errors import Problem
from llama_exp.limits import COUNT, FILLED, Limits

LIMITS = Limits("tokenizer", {"vocabulary_size": COUNT, "file": FILLED})
SMALLEST_TRAINED = 262  # every byte, and `byte_pair.SPECIAL_TOKENS`
NO_PRESET = Problem(
    "takes the preset's tokenizer, but preset.source names no preset",
    "tokenizer._target_",
    "tokenizer=preset with source=null",
    "set preset.source=<built-in id, kaggle://, hf:// or folder>, or choose tokenizer=bpe",
)


def check_room(vocabulary_size: int) -> Iterator[Problem]:
    """A vocabulary that is trained has room for every byte and the special tokens."""
    if vocabulary_size < SMALLEST_TRAINED:
        yield Problem(
            "is too small for every byte and the special tokens",
            "tokenizer.vocabulary_size",
            f"vocabulary_size={vocabulary_size}",
            f"give at least {SMALLEST_TRAINED}, or choose tokenizer=byte",
        )
