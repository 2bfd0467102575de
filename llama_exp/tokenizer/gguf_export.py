"""Tokenizers into GGUF files: what `gguf.py` reads, the other way round, and only what llama.cpp does as we do.

llama.cpp has the split of text into words in its own code, under a name. So byte-level BPE goes out where its split has
one; a SentencePiece model where it is BPE and leaves the text as it is. What else a tokenizer may do is refused, with
the reason: other ids than in training would be an error that nobody sees.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from sentencepiece import sentencepiece_model_pb2

from llama_exp.errors import InputError, Problem
from llama_exp.tokenizer.byte_pair import BytePairTokenizer
from llama_exp.tokenizer.gguf import GPT_2_PATTERN, SPLITS, WHOLE_WORDS_FIRST
from llama_exp.tokenizer.gguf_ends import BYTE, CONTROL, NORMAL, STOP_NAMES, UNKNOWN, UNUSED, USER_DEFINED
from llama_exp.tokenizer.hugging_face import HuggingFaceTokenizer
from llama_exp.tokenizer.keras_hub_form import ADDED_FLAGS, PLAIN
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer
from llama_exp.tokenizer.sentence_piece_config import find_change

_NO_SCORE = -1000.0  # what other converters give to a row of the embeddings that is no token
_MORE_STOPS = ("eot_token_id", "eom_token_id")

log = logging.getLogger("llama_exp")


def describe(tokenizer, num_embeddings: int) -> dict[str, Any]:
    """The metadata of a tokenizer, by GGUF's keys.

    Args:
        tokenizer: of this package.
        num_embeddings: rows of the embeddings; those that are no token get a name that no text has.

    Raises:
        InputError: llama.cpp cannot do what it does.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer) and not _is_byte_level(tokenizer.document):
        found = tokenizer.as_sentence_piece()
        if isinstance(found, str):
            raise _refusal(f"it is no byte-level BPE, and {found}")
        tokenizer = found
    if isinstance(tokenizer, SentencePieceTokenizer):
        metadata, tokens = _sentence_piece(tokenizer, num_embeddings)
    elif isinstance(tokenizer, BytePairTokenizer | HuggingFaceTokenizer):
        metadata, tokens = _byte_pair(tokenizer, num_embeddings)
    else:
        raise _refusal(f"it is a class of your own, {type(tokenizer).__name__}")
    return metadata | _ends(tokenizer, tokens) | _template(tokenizer)


def _refusal(reason: str) -> InputError:
    action = "leave the model in another format (--format hf), or train with tokenizer=bpe"
    return InputError(Problem("llama.cpp has no such tokenizer", "--format gguf", reason, action))


def _template(tokenizer) -> dict[str, str]:
    return {} if tokenizer.chat_template is None else {"tokenizer.chat_template": tokenizer.chat_template}


def _ends(tokenizer, tokens: Sequence[str]) -> dict[str, Any]:
    """Which tokens begin, end and pad a text, and whether one stands in front of it."""
    stops = [id_ for id_ in tokenizer.stop_ids if id_ != tokenizer.eos_id]
    end = tokenizer.eos_id if tokenizer.eos_id is not None or not stops else stops.pop(0)
    if end is None:
        raise _refusal("it has no token that ends a text; llama.cpp would take an ordinary one for it")
    begin = tokenizer.bos_id if tokenizer.begin_id is None else tokenizer.begin_id
    ids = {"bos_token_id": begin, "eos_token_id": end, "padding_token_id": tokenizer.pad_id}
    ids |= dict(zip(_MORE_STOPS, stops, strict=False))
    unsaid = [tokens[id_] for id_ in stops[len(_MORE_STOPS) :] if tokens[id_] not in STOP_NAMES]
    if unsaid:
        log.warning("llama.cpp will not stop at %s: GGUF has a place for three stop tokens", ", ".join(unsaid))
    more = [name for id_, name in enumerate(tokens) if name in STOP_NAMES and id_ not in tokenizer.stop_ids]
    if more:
        log.warning("llama.cpp will also stop at %s, because of the name", ", ".join(more))
    metadata: dict[str, Any] = {f"tokenizer.ggml.{key}": id_ for key, id_ in ids.items() if id_ is not None}
    metadata["tokenizer.ggml.add_bos_token"] = tokenizer.begin_id is not None
    metadata["tokenizer.ggml.add_eos_token"] = False
    return metadata


def _sentence_piece(tokenizer: SentencePieceTokenizer, num_embeddings: int) -> tuple[dict[str, Any], list[str]]:
    model = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.proto)
    if reason := _inexpressible(model):
        raise _refusal(reason)
    if tokenizer.adds_spaces_once:
        log.warning("llama.cpp puts a space behind every special token, as Llama 2 does; this model asks for none")
    padding = [f"[PAD{id_}]" for id_ in range(len(model.pieces), num_embeddings)]
    tokens = [piece.piece for piece in model.pieces] + padding
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array(
            [piece.score for piece in model.pieces] + [_NO_SCORE] * len(padding), np.float32
        ),
        "tokenizer.ggml.token_type": np.array(
            [piece.type for piece in model.pieces] + [UNUSED] * len(padding), np.int32
        ),
        "tokenizer.ggml.unknown_token_id": next(i for i, piece in enumerate(model.pieces) if piece.type == UNKNOWN),
        "tokenizer.ggml.add_space_prefix": bool(model.normalizer_spec.add_dummy_prefix),
    }
    return metadata, tokens


def _inexpressible(model) -> str | None:
    """What a SentencePiece model does that llama.cpp does not; None if there is nothing."""
    trainer = model.trainer_spec
    if trainer.model_type != type(trainer).BPE:
        return "its SentencePiece model is not BPE"
    if change := find_change(model):
        return change
    if sum(piece.type == BYTE for piece in model.pieces) != 256:
        return "it has no token for each byte, so that not every text could be encoded"
    if odd := next((piece.piece for piece in model.pieces if piece.type == UNUSED), None):
        return f"its piece {odd[:40]!r} is marked as unused, and llama.cpp would use it"
    return None


def _byte_pair(
    tokenizer: BytePairTokenizer | HuggingFaceTokenizer, num_embeddings: int
) -> tuple[dict[str, Any], list[str]]:
    document = tokenizer.document
    model, added = document["model"], document.get("added_tokens") or []
    name = _name_of_split(document)
    if any(model.get(key) not in allowed for key, allowed in PLAIN.items()) or model.get("unk_token"):
        raise _refusal("its model is not plain byte-level BPE")
    if document.get("normalizer") is not None:
        raise _refusal(f"its normalizer {str(document['normalizer'])[:40]!r} changes the text before it is split")
    if odd := next((token for token in added if any(token.get(flag) for flag in ADDED_FLAGS)), None):
        flags = ", ".join(flag for flag in ADDED_FLAGS if odd.get(flag))
        raise _refusal(f"its added token {odd['content'][:40]!r} has the flags {flags}")
    if bool(model.get("ignore_merges")) != (name in WHOLE_WORDS_FIRST) and not _merges_reach_every_word(document):
        raise _refusal("it and llama.cpp differ on words that are a token as a whole")
    vocabulary = {**model["vocab"], **{token["content"]: token["id"] for token in added}}
    by_id = {id_: token for token, id_ in vocabulary.items()}
    tokens = [by_id.get(id_, f"[PAD{id_}]") for id_ in range(max(num_embeddings, len(by_id)))]
    special = {tokenizer.special_id(token) for token in tokenizer.special_tokens}
    ordinary = {token["id"] for token in added} - special
    types = [
        CONTROL if id_ in special else USER_DEFINED if id_ in ordinary else NORMAL if id_ in by_id else UNUSED
        for id_ in range(len(tokens))
    ]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.add_space_prefix": False,
    }
    return metadata, tokens


def _is_byte_level(document: Mapping[str, Any]) -> bool:
    """Whether the tokens are bytes in GPT-2's printable form."""
    parts = _parts(document)
    return document["model"].get("type", "BPE") == "BPE" and bool(parts) and parts[-1].get("type") == "ByteLevel"


def _parts(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What splits a text into words, step by step."""
    found = document.get("pre_tokenizer") or {}
    return found.get("pretokenizers", []) if found.get("type") == "Sequence" else [found] if found else []


def _name_of_split(document: Mapping[str, Any]) -> str:
    """llama.cpp's name of the split into words."""
    patterns = tuple(pattern for part in _parts(document) for pattern in _patterns(part))
    # A pattern's last resort, "any other white space", takes what lies between the words anyway.
    last_resort = r"|\s+"
    for name, known in SPLITS.items():
        if patterns == known or tuple(pattern.removesuffix(last_resort) for pattern in patterns) == known:
            return name
    shown = " then ".join(map(repr, patterns)) or "not at all"
    raise _refusal(f"it splits text into words in a way that llama.cpp has no name for: {shown[:200]}")


def _patterns(part: Mapping[str, Any]) -> list[str]:
    """The patterns by which a step cuts, words being what they match and what lies between."""
    kind = part.get("type")
    if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        return [str(part["pattern"].get("Regex", part["pattern"].get("String")))]
    if kind == "Digits" and part.get("individual_digits"):
        return [r"\p{N}"]
    if kind == "ByteLevel" and not part.get("add_prefix_space"):
        return [GPT_2_PATTERN] if part.get("use_regex", True) else []
    raise _refusal(f"it splits text into words by {str(dict(part))[:80]}")


def _merges_reach_every_word(document: Mapping[str, Any]) -> bool:
    """Whether the merges alone make each token that is a whole word; then it does not matter which comes first."""
    model = document["model"]
    encoders = [
        tokenizers.Tokenizer.from_str(json.dumps({**document, "model": {**model, "ignore_merges": ignore_merges}}))
        for ignore_merges in (False, True)
    ]
    decoder = tokenizers.decoders.ByteLevel()
    words = [decoder.decode([token]) for token in model["vocab"]]
    found = [encoder.encode_batch_fast(words, add_special_tokens=False) for encoder in encoders]
    return all(one.ids == other.ids for one, other in zip(*found, strict=True))
