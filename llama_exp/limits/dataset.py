"""What data sets accept."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any

from llama_exp.errors import Problem
from llama_exp.limits import FILLED, INSIDE, Limit, Limits, allow_null, is_whole


class Packing(enum.Enum):
    """How documents become rows of `sequence_length` tokens."""

    concat = "concat"  # one after the other, cut at the row's end: no padding
    best_fit = "best_fit"  # whole documents, each into the fullest row that still has room
    none = "none"  # one document a row, padded
    auto = "auto"  # concat where all documents are plain text, best_fit where some are pairs or conversations


class Overlong(enum.Enum):
    """What happens to a document that is longer than `sequence_length` tokens."""

    split = "split"  # becomes several documents
    truncate = "truncate"  # keeps its first `sequence_length` tokens
    drop = "drop"
    error = "error"
    auto = "auto"  # plain text: split; a pair or a conversation: truncate


class Document(enum.Enum):
    """What one document of a text file is."""

    file = "file"
    paragraph = "paragraph"  # separated by blank lines
    line = "line"


class EncodingErrors(enum.Enum):
    """What happens to bytes that are not UTF-8."""

    strict = "strict"  # the run stops and names file and position
    replace = "replace"  # U+FFFD takes their place, and the count is logged


class ChatTemplate(enum.Enum):
    """How chat messages become text."""

    chatml = "chatml"  # <|im_start|>role ... <|im_end|>
    llama2 = "llama2"  # [INST] ... [/INST]
    llama3 = "llama3"  # <|start_header_id|>role<|end_header_id|> ... <|eot_id|>
    model = "model"  # the Jinja template that came with the preset


def check_record_keys(dataset: Mapping[str, Any]) -> Iterator[Problem]:
    """A TFDS record, the only kind with a `builder`, is read as text or as a pair; without a key, as its only text."""
    if "builder" not in dataset:
        return
    text_key, pair = dataset["text_key"], {key: dataset[key] for key in ("prompt_key", "completion_key")}
    absent = [key for key, value in pair.items() if value is None]
    if text_key is not None and len(absent) < len(pair):
        where = "text_key"
    elif len(absent) == 1:
        where = absent[0]
    else:
        return
    yield Problem(
        "a record is either text, or prompt and completion",
        f"dataset.{where}",
        ", ".join(f"{key}={value}" for key, value in {"text_key": text_key, **pair}.items()),
        "set text_key alone, or text_key=null with prompt_key and completion_key",
    )


LIMITS = Limits(
    "dataset",
    {
        "sequence_length": Limit(lambda value: is_whole(value, 2), "an integer of at least 2"),
        "validation_fraction": INSIDE,
        "files": FILLED,
        "text_key": allow_null(FILLED),
        "prompt_key": allow_null(FILLED),
        "completion_key": allow_null(FILLED),
        "messages_key": FILLED,
        "builder": FILLED,
        "train_split": FILLED,
        "validation_split": allow_null(FILLED),
    },
    (check_record_keys,),
)
