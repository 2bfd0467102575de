"""A Hugging Face tokenizer as one of KerasHub's two classes for Llama, where one of them gives the same ids."""

from __future__ import annotations

from typing import Any

from llama_exp.tokenizer.byte_pair import REQUIRED_TOKENS, SPECIAL_FORM, SPLIT_PATTERN, BytePairTokenizer
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

# What the model of a tokenizer.json must say, or leave out, to be plain byte-level BPE.
PLAIN = {
    "dropout": (None,),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (False, None),
}
ADDED_FLAGS = ("single_word", "lstrip", "rstrip")


def byte_pair(
    document: dict[str, Any],
    chat_template: str | None,
    generation_config: dict[str, Any],
    tokenizer_config: dict[str, Any] | None = None,
) -> BytePairTokenizer | str:
    """KerasHub's Llama 3 tokenizer with the ids of a `tokenizer.json`, or why there is none."""
    model = document["model"]
    if model.get("type", "BPE") != "BPE" or any(model.get(key) not in allowed for key, allowed in PLAIN.items()):
        return "its model is not plain byte-level BPE"
    if document.get("normalizer") is not None or not _splits_as_llama_3(document.get("pre_tokenizer")):
        return "it splits text into words in another way than Llama 3"
    tokens = document.get("added_tokens", [])
    if any(not token.get("special") or any(token.get(flag) for flag in ADDED_FLAGS) for token in tokens):
        return "its added tokens are not all special"
    added = {token["content"]: token["id"] for token in tokens}
    vocabulary = {**model["vocab"], **added}
    if {token for token in vocabulary if SPECIAL_FORM.fullmatch(token)} != set(added):
        return "its special tokens are not those of the form <|name|>"
    if missing := [token for token in REQUIRED_TOKENS if token not in vocabulary]:
        return f"it has no {missing[0]}"
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    try:
        pairs = [(left, right) for left, right in merges]
        tokenizer = BytePairTokenizer(vocabulary, pairs, chat_template, generation_config, tokenizer_config)
    except ValueError as error:
        return str(error)
    if not model.get("ignore_merges") and not tokenizer.merges_reach_every_word():
        return "a word that is a token as a whole has other ids in it"
    return tokenizer


def sentence_piece(
    document: dict[str, Any],
    proto: bytes | None,
    chat_template: str | None,
    generation_config: dict[str, Any],
    tokenizer_config: dict[str, Any] | None = None,
) -> SentencePieceTokenizer | str:
    """KerasHub's Llama 2 tokenizer of the SentencePiece model beside a `tokenizer.json`, or why there is none."""
    if proto is None:
        return "it has no SentencePiece model beside it"
    try:
        tokenizer = SentencePieceTokenizer(proto, chat_template, generation_config, tokenizer_config)
    except ValueError as error:
        return str(error)
    added = {token["content"]: token["id"] for token in document.get("added_tokens", [])}
    if {**document["model"].get("vocab", {}), **added} != tokenizer.pieces():
        return "its tokens are not those of the SentencePiece model beside it"
    return tokenizer


def _splits_as_llama_3(pre_tokenizer: dict[str, Any] | None) -> bool:
    parts = (pre_tokenizer or {}).get("pretokenizers", [])
    if [part.get("type") for part in parts] != ["Split", "ByteLevel"]:
        return False
    split, byte_level = parts
    by_pattern = split.get("pattern") == {"Regex": SPLIT_PATTERN} and split.get("behavior") == "Isolated"
    return by_pattern and not (split.get("invert") or byte_level.get("add_prefix_space") or byte_level.get("use_regex"))
