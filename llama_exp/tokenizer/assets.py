"""Tokenizers from files: a preset folder in KerasHub's format, a SentencePiece model, a `tokenizer.json`, GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.json_file import inside, read_json
from llama_exp.tokenizer import generation_files as companions
from llama_exp.tokenizer import gguf
from llama_exp.tokenizer.byte_pair import BytePairTokenizer
from llama_exp.tokenizer.generation_files import read_bytes
from llama_exp.tokenizer.hugging_face import HuggingFaceTokenizer
from llama_exp.tokenizer.hugging_face_export import SENTENCE_PIECE, TOKENIZER
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

Tokenizer = BytePairTokenizer | SentencePieceTokenizer | HuggingFaceTokenizer

BYTE_PAIR_ASSETS = (Path("assets", "tokenizer", "vocabulary.json"), Path("assets", "tokenizer", "merges.txt"))
SENTENCE_PIECE_ASSET = Path("assets", "tokenizer", "vocabulary.spm")
MAX_BYTES = 64 << 20  # Llama 3's tokenizer.json has 17 MB
MAX_VALUES = 1 << 22  # and a million of them
MAX_IDS = 1 << 24  # as many as embeddings (formats/checkpoint.py)
AGAIN = "download or export it again"


def load(folder: str | Path) -> Tokenizer:
    """The tokenizer of a model's folder: ours, KerasHub's (Llama 2 or 3), or Hugging Face's; or that of a GGUF file.

    Raises:
        InputError: no tokenizer there, one of a kind that is not supported, or damaged files.
    """
    folder = Path(folder)
    if _is_gguf(folder):
        return gguf.load_gguf(folder)
    path = inside(folder, TOKENIZER)
    if not path.exists() and (folder / SENTENCE_PIECE).exists():
        return _load_sentence_piece(inside(folder, SENTENCE_PIECE), folder)
    if not path.exists():
        raise InputError.about(
            path, "this folder has no tokenizer", "no such file", "choose another tokenizer, e.g. bpe"
        )
    config = read_json(path, MAX_BYTES, MAX_VALUES)
    if "model" in config:
        return load_hugging_face(path)
    if not isinstance(config.get("config"), dict | None):
        raise InputError.about(path, "config must be an object", repr(config["config"])[:80], AGAIN)
    _refuse_content(path, config.get("config") or {})
    if config.get("class_name") == "LlamaTokenizer":
        return _load_sentence_piece(inside(folder, str(SENTENCE_PIECE_ASSET)), folder)
    if config.get("class_name") == "Llama3Tokenizer":
        return _load_byte_pair(folder, config)
    raise InputError.about(
        path,
        "this tokenizer class is not supported",
        repr(config.get("class_name")),
        "use a preset with KerasHub's LlamaTokenizer or Llama3Tokenizer, or a Hugging Face tokenizer.json",
    )


def has_tokenizer(folder: Path) -> bool:
    """Whether there is something for `load` in a folder or a GGUF file."""
    if _is_gguf(folder):
        return gguf.has_tokenizer(folder)
    return any((folder / name).exists() for name in (TOKENIZER, SENTENCE_PIECE))


def _is_gguf(path: Path) -> bool:
    return path.is_file() or path.suffix == ".gguf" and not path.is_dir()


def load_sentence_piece(path: str | Path) -> SentencePieceTokenizer:
    """The tokenizer of a SentencePiece model file; InputError where it is missing or damaged."""
    return _load_sentence_piece(Path(path), None)


def load_hugging_face(path: str | Path) -> HuggingFaceTokenizer:
    """The tokenizer of a `tokenizer.json`, with the configs beside it; InputError where one is missing or damaged."""
    path = Path(path)
    folder = path.parent
    read_json(path, MAX_BYTES, MAX_VALUES)  # no key twice: the library would take the last one without a word
    tokenizer_config = companions.read_tokenizer_config(folder)
    generation_config = companions.read_generation_config(folder)
    chat_template = companions.read_chat_template(folder, tokenizer_config)
    model = inside(folder, SENTENCE_PIECE)
    sentence_piece_model = read_bytes(model, MAX_BYTES) if model.exists() else None
    text = read_bytes(path, MAX_BYTES).decode("utf-8")
    try:
        return HuggingFaceTokenizer(text, tokenizer_config, generation_config, chat_template, sentence_piece_model)
    except ValueError as error:
        action = "give a tokenizer.json as the tokenizers library writes it"
        raise InputError.about(path, "not a usable tokenizer", str(error), action) from None


def _load_sentence_piece(path: Path, folder: Path | None) -> SentencePieceTokenizer:
    """A SentencePiece model, with what lies in the model's folder beside it; None: with nothing."""
    config = companions.read_tokenizer_config(folder) if folder else {}
    chat_template = companions.read_chat_template(folder, config) if folder else None
    generation_config = companions.read_generation_config(folder) if folder else {}
    proto = read_bytes(path, MAX_BYTES)
    try:
        return SentencePieceTokenizer(proto, chat_template, generation_config, config)
    except ValueError as error:
        action = "give a .model or .spm file, and beside it configs that belong to it, or a tokenizer.json"
        raise InputError.about(path, "not a SentencePiece model that can be used", str(error), action) from None


def _refuse_content(path: Path, config: dict[str, Any]) -> None:
    """KerasHub's config has no vocabulary in it; a path there would make its reader open that file."""
    for key in ("vocabulary", "merges", "proto"):
        if config.get(key) is not None:
            what = f"{key} must not stand in the configuration: it lies in assets/tokenizer"
            raise InputError.about(path, what, repr(config[key])[:80], "do not use this model, or remove the entry")


def _load_byte_pair(folder: Path, config: dict[str, Any]) -> BytePairTokenizer:
    path = folder / TOKENIZER
    if (config.get("config") or {}).get("add_prefix_space"):
        raise InputError.about(path, "a prefix space is not supported", "add_prefix_space: true", "use another preset")
    vocabulary_file, merges_file = (inside(folder, str(name)) for name in BYTE_PAIR_ASSETS)
    vocabulary = read_json(vocabulary_file, MAX_BYTES, MAX_VALUES)
    if not all(type(token_id) is int and token_id < MAX_IDS for token_id in vocabulary.values()):
        raise InputError.about(vocabulary_file, f"ids must be whole numbers below {MAX_IDS}", "another value", AGAIN)
    tokenizer_config = companions.read_tokenizer_config(folder)
    chat_template = companions.read_chat_template(folder, tokenizer_config)
    generation_config = companions.read_generation_config(folder)
    try:
        lines = read_bytes(merges_file, MAX_BYTES).decode("utf-8").split("\n")
        # Only the line's own end is cut off: a merge may contain any other kind of white space.
        rules = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version:")]
        if bad := next((rule for rule in rules if rule.count(" ") != 1), None):
            raise ValueError(f"merge rule {bad!r} is not a pair")
        merges = [(left, right) for left, right in (rule.split(" ") for rule in rules)]
        return BytePairTokenizer(vocabulary, merges, chat_template, generation_config, tokenizer_config)
    except ValueError as error:
        raise InputError.about(vocabulary_file.parent, "not a usable BPE tokenizer", str(error), AGAIN) from None
