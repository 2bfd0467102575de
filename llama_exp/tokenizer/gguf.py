"""Tokenizers in GGUF files, rebuilt as what they were made from.

Of a SentencePiece model the file keeps pieces, scores and types: they become that model again. Of byte-level BPE it
keeps tokens, merges and the name of the split into words: they become a `tokenizer.json`. The chat template and the
tokens that end a text or a turn come along.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from sentencepiece import sentencepiece_model_pb2

from llama_exp.formats.gguf.file import GgufFile, open_gguf
from llama_exp.tokenizer.byte_pair import SPLIT_PATTERN
from llama_exp.tokenizer.gguf_ends import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    control_types,
    special_ids,
    stop_ids,
)
from llama_exp.tokenizer.hugging_face import HuggingFaceTokenizer
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

GPT_2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
# Each pattern cuts what the ones before it left whole; where the next one does not match, what lies between is kept.
SPLITS = {
    "llama-bpe": (SPLIT_PATTERN,),
    "smollm": (r"\p{N}", GPT_2_PATTERN),
    "gpt-2": (GPT_2_PATTERN,),
    # What llama.cpp takes where the converter did not know better.
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT_2_PATTERN, r"\p{N}+", "[0-9][0-9][0-9]"),
}
SPLITS |= {"llama3": SPLITS["llama-bpe"], "llama-v3": SPLITS["llama-bpe"]}
WHOLE_WORDS_FIRST = ("llama-bpe", "llama3", "llama-v3")


def load_gguf(path: str | Path) -> SentencePieceTokenizer | HuggingFaceTokenizer:
    """The tokenizer of a GGUF file.

    Raises:
        InputError: the file has no tokenizer, one of a kind that is not supported, or a damaged one.
    """
    with open_gguf(path) as file:
        kind = file.text("tokenizer.ggml.model")
        try:
            if kind == "llama":
                return _sentence_piece(file)
            if kind == "gpt2":
                return _byte_pair(file)
        except ValueError as error:
            file.reject("not a usable tokenizer", str(error))
        found = kind or "no tokenizer.ggml.model"
        file.reject("this tokenizer is not supported", found, "take a file with tokenizer.ggml.model llama or gpt2")


def has_tokenizer(path: str | Path) -> bool:
    """Whether a GGUF file has a tokenizer; InputError where it is none or damaged."""
    with open_gguf(path) as file:
        return "tokenizer.ggml.model" in file.metadata


def _sentence_piece(file: GgufFile) -> SentencePieceTokenizer:
    tokens, types = _tokens(file)
    scores = file.numbers("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        found = "none" if scores is None else str(len(scores))
        file.reject("each token needs a score", f"{len(tokens)} tokens, {found} in tokenizer.ggml.scores")
    if "tokenizer.ggml.precompiled_charsmap" in file.metadata:
        action = "take a file whose tokenizer leaves the text as it is"
        file.reject("a tokenizer that changes the text is not supported", "tokenizer.ggml.precompiled_charsmap", action)
    if not (types == UNKNOWN).any() and (unknown := file.integer("tokenizer.ggml.unknown_token_id")) is not None:
        types = np.where(np.arange(len(types)) == unknown, UNKNOWN, types)
    if (types == UNKNOWN).sum() != 1:
        file.reject("one token must stand for what is unknown", f"{(types == UNKNOWN).sum()} of type {UNKNOWN}")
    ids = special_ids(file, len(tokens), sentence_piece=True)
    generation_config = _generation_config(file, tokens, ids)
    types = control_types(types, [*ids.values(), *generation_config.get("eos_token_id", [])])
    model = sentencepiece_model_pb2.ModelProto()
    for token, score, type_ in zip(tokens, scores.tolist(), types.tolist(), strict=True):
        model.pieces.add(piece=token, score=score, type=type_)
    trainer = model.trainer_spec
    trainer.model_type = trainer.BPE
    trainer.vocab_size = len(tokens)
    trainer.byte_fallback = bool((types == BYTE).any())
    for name, id_ in (ids | {"unk_token": int(np.flatnonzero(types == UNKNOWN)[0])}).items():
        piece = name.replace("_token", "_piece")  # SentencePiece knows these ids by the names of their pieces
        setattr(trainer, piece, tokens[id_])
    normalizer = model.normalizer_spec
    normalizer.name = "identity"
    normalizer.escape_whitespaces = True
    normalizer.add_dummy_prefix = file.flag("tokenizer.ggml.add_space_prefix") is not False
    normalizer.remove_extra_whitespaces = file.flag("tokenizer.ggml.remove_extra_whitespaces") is True
    config = {"add_bos_token": file.flag("tokenizer.ggml.add_bos_token") is not False}
    return SentencePieceTokenizer(model.SerializeToString(), _template(file), generation_config, config)


def _byte_pair(file: GgufFile) -> HuggingFaceTokenizer:
    tokens, types = _tokens(file)
    split = file.text("tokenizer.ggml.pre")
    if split not in SPLITS:
        found = f"tokenizer.ggml.pre {split}" if split else "no tokenizer.ggml.pre: written by an old converter"
        action = f"convert the model again; supported: {', '.join(SPLITS)}"
        file.reject("how this tokenizer splits text into words is not supported", found, action)
    merges = [merge.split(" ") for merge in file.strings("tokenizer.ggml.merges") or []]
    if bad := next((merge for merge in merges if len(merge) != 2), None):
        file.reject("a merge is not a pair", repr(" ".join(bad)))
    vocabulary = {token: id_ for id_, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for id_, token in enumerate(tokens) if vocabulary[token] != id_)
        file.reject("a token is there twice", repr(twice))
    ids = special_ids(file, len(tokens), sentence_piece=False)
    generation_config = _generation_config(file, tokens, ids)
    types = control_types(types, [*ids.values(), *generation_config.get("eos_token_id", [])])
    names = {name: tokens[id_] for name, id_ in ids.items()}
    begin = file.flag("tokenizer.ggml.add_bos_token")
    begin = split in WHOLE_WORDS_FIRST if begin is None else begin
    document = {
        "version": "1.0",
        "added_tokens": _added_tokens(tokens, types),
        "pre_tokenizer": _pre_tokenizer(SPLITS[split]),
        "post_processor": _begin(names["bos_token"], ids["bos_token"]) if begin and "bos_token" in ids else None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE",
            "ignore_merges": split in WHOLE_WORDS_FIRST,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    config = names | {"add_bos_token": begin}
    return HuggingFaceTokenizer(json.dumps(document), config, generation_config, _template(file))


def _tokens(file: GgufFile) -> tuple[list[str], np.ndarray]:
    """Tokens and their types, one for each id."""
    tokens, types = file.strings("tokenizer.ggml.tokens"), file.numbers("tokenizer.ggml.token_type")
    if not tokens or types is None or len(types) != len(tokens):
        found = f"{len(tokens or [])} tokens, {'no' if types is None else len(types)} types"
        file.reject("each token needs a type", found)
    if not np.isin(types, range(NORMAL, BYTE + 1)).all():
        file.reject("tokenizer.ggml.token_type has an unknown type", f"{types.min()} to {types.max()}, known: 1 to 6")
    return tokens, types


def _generation_config(file: GgufFile, tokens: list[str], ids: dict[str, int]) -> dict[str, Any]:
    """What a generation config would say: the ids, and every stop token."""
    stops = stop_ids(file, tokens, ids.get("eos_token"))
    return {f"{name}_id": id_ for name, id_ in ids.items()} | ({"eos_token_id": stops} if stops else {})


def _template(file: GgufFile) -> str | None:
    return file.text("tokenizer.chat_template")


def _added_tokens(tokens: list[str], types: np.ndarray) -> list[dict[str, Any]]:
    """Tokens that no merge makes: special ones, and those that the text always yields where it has their name."""
    return [
        {
            "id": id_,
            "content": tokens[id_],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": bool(types[id_] != USER_DEFINED),
        }
        for id_ in np.flatnonzero(np.isin(types, (UNKNOWN, CONTROL, USER_DEFINED))).tolist()
    ]


def _pre_tokenizer(patterns: tuple[str, ...]) -> dict[str, Any]:
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, byte_level]}


def _begin(token: str, id_: int) -> dict[str, Any]:
    """The step that puts the begin token in front of a text, for who reads the saved `tokenizer.json`."""
    begin = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]}},
    }
