"""Tokenizers from files: a preset folder in KerasHub's format, a SentencePiece model, a `tokenizer.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError, Problem
from llama_exp.tokenizer import hugging_face
from llama_exp.tokenizer.byte_pair import BytePairTokenizer
from llama_exp.tokenizer.hugging_face import HuggingFaceTokenizer
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer


def load(folder: str | Path) -> BytePairTokenizer | SentencePieceTokenizer | HuggingFaceTokenizer:
    """The tokenizer of a preset folder: ours, KerasHub's (Llama 2 or 3), or Hugging Face's.

    Raises:
        InputError: no tokenizer there, one of a kind that is not supported, or damaged files.
    """
    folder = Path(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise _rejected(path, "this folder has no tokenizer", "no such file", "choose another tokenizer, e.g. bpe")
    config = _json_object(path)
    if "model" in config:
        return load_hugging_face(path)
    assets = folder / "assets" / "tokenizer"
    if config.get("class_name") == "LlamaTokenizer":
        return load_sentence_piece(assets / "vocabulary.spm")
    if config.get("class_name") == "Llama3Tokenizer":
        return _load_byte_pair(path, config, assets)
    raise _rejected(
        path,
        "this tokenizer class is not supported",
        repr(config.get("class_name")),
        "use a preset with KerasHub's LlamaTokenizer or Llama3Tokenizer, or a Hugging Face tokenizer.json",
    )


def load_sentence_piece(path: str | Path) -> SentencePieceTokenizer:
    """The tokenizer of a SentencePiece model file; InputError where it is missing or damaged."""
    path = Path(path)
    proto = _read(path)
    try:
        return SentencePieceTokenizer(proto)
    except ValueError as error:
        raise _rejected(path, "not a SentencePiece model", str(error), "give a .model or .spm file") from None


def load_hugging_face(path: str | Path) -> HuggingFaceTokenizer:
    """The tokenizer of a `tokenizer.json`, with the configs beside it; InputError where one is missing or damaged."""
    path = Path(path)
    beside = [path.with_name(name) for name in (hugging_face.TOKENIZER_CONFIG, hugging_face.GENERATION_CONFIG)]
    configs = [_json_object(other) if other.is_file() else {} for other in beside]
    try:
        return HuggingFaceTokenizer(_read(path).decode("utf-8"), *configs)
    except ValueError as error:  # includes UnicodeDecodeError
        action = "give a tokenizer.json as the tokenizers library writes it"
        raise _rejected(path, "not a usable tokenizer", str(error), action) from None


def _load_byte_pair(path: Path, config: dict[str, Any], assets: Path) -> BytePairTokenizer:
    if (config.get("config") or {}).get("add_prefix_space"):
        raise _rejected(path, "a prefix space is not supported", "add_prefix_space: true", "use another preset")
    vocabulary = _json_object(assets / "vocabulary.json")
    if not all(isinstance(token_id, int) for token_id in vocabulary.values()):
        action = "download the preset again"
        raise _rejected(assets / "vocabulary.json", "ids must be whole numbers", "another type", action)
    try:
        lines = _read(assets / "merges.txt").decode("utf-8").split("\n")
        # Only the line's own end is cut off: a merge may contain any other kind of white space.
        rules = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version:")]
        merges = [tuple(rule.split(" ")) for rule in rules]
        if bad := next((rule for rule, pair in zip(rules, merges, strict=True) if len(pair) != 2), None):
            raise ValueError(f"merge rule {bad!r} is not a pair")
        return BytePairTokenizer(vocabulary, merges)
    except ValueError as error:
        raise _rejected(assets, "not a usable BPE tokenizer", str(error), "download the preset again") from None


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(path).decode("utf-8"))
    except ValueError as error:
        raise _rejected(path, "not JSON", str(error), "repair the file or take another one") from None
    if not isinstance(content, dict):
        raise _rejected(path, "not a JSON object", type(content).__name__, "repair the file or take another one")
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        action = "check the path (relative paths start at the folder the command runs in)"
        raise _rejected(path, "the tokenizer file cannot be read", error.strerror or str(error), action) from None


def _rejected(path: Path, what: str, found: str, action: str) -> InputError:
    return InputError(Problem(what=what, where=str(path), found=found, action=action))
