"""The tokenizers that a config can name.

Each factory takes its config keys and, from the run: `texts` (a callable that gives the training texts), the resolved
`preset_folder` or None, `cache_dir`, and the `fingerprint` of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import tokenizers

from llama_exp import recipe
from llama_exp.dataset.cache import cached_folder, content_key
from llama_exp.errors import InputError, Problem
from llama_exp.limits import ImpossibleValue, raise_first
from llama_exp.limits.tokenizer import LIMITS, NO_PRESET, check_room
from llama_exp.tokenizer import assets
from llama_exp.tokenizer.assets import Tokenizer
from llama_exp.tokenizer.byte_pair import BytePairTokenizer, from_merges, train
from llama_exp.tokenizer.hugging_face import HuggingFaceTokenizer
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

Texts = Callable[[], Iterable[str]]


def auto(
    *, vocabulary_size: int, texts: Texts, preset_folder: str | None, cache_dir: str, fingerprint: str
) -> Tokenizer:
    """The preset's own tokenizer where there is a preset, else BPE trained on the data set."""
    if preset_folder is not None:
        return assets.load(preset_folder)
    return bpe(
        vocabulary_size=vocabulary_size, texts=texts, preset_folder=None, cache_dir=cache_dir, fingerprint=fingerprint
    )


def bpe(
    *, vocabulary_size: int, texts: Texts, preset_folder: str | None, cache_dir: str, fingerprint: str
) -> Tokenizer:
    """Byte-level BPE of at most `vocabulary_size` tokens, trained on the data set once and cached.

    Raises:
        ValueError: `vocabulary_size` has no room for the bytes and the special tokens.
    """
    LIMITS.require(vocabulary_size=vocabulary_size)
    raise_first(check_room(vocabulary_size))
    key = content_key(
        **recipe.BYTE_PAIR_TRAINING,
        library=tokenizers.__version__,
        texts=fingerprint,
        vocabulary_size=vocabulary_size,
    )

    def build(folder: Path) -> dict[str, int]:
        tokenizer = train(texts(), vocabulary_size)
        tokenizer.save(folder)
        return {"vocabulary_size": tokenizer.vocabulary_size}

    folder, _ = cached_folder(Path(cache_dir) / "tokenizers", f"bpe-{key[:32]}", build)
    return assets.load(folder)


def byte(*, texts: Texts, preset_folder: str | None, cache_dir: str, fingerprint: str) -> BytePairTokenizer:
    """One token per byte, plus the special tokens."""
    return from_merges([])


def preset(*, texts: Texts, preset_folder: str | None, cache_dir: str, fingerprint: str) -> Tokenizer:
    """The tokenizer of the preset.

    Raises:
        ValueError: the run has no preset.
    """
    if preset_folder is None:
        raise ImpossibleValue(NO_PRESET)
    return assets.load(preset_folder)


def sentencepiece(
    *, file: str, texts: Texts, preset_folder: str | None, cache_dir: str, fingerprint: str
) -> SentencePieceTokenizer:
    """The tokenizer of a SentencePiece model file."""
    return assets.load_sentence_piece(_existing(file))


def hf_json(
    *, file: str, texts: Texts, preset_folder: str | None, cache_dir: str, fingerprint: str
) -> HuggingFaceTokenizer:
    """The tokenizer of a Hugging Face `tokenizer.json`; its configs are read where they lie beside it."""
    return assets.load_hugging_face(_existing(file))


def _existing(file: str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(
            Problem(
                what="no such tokenizer file",
                where="tokenizer.file",
                found=file,
                action=f"check the path; relative paths start at {Path.cwd()}",
            )
        )
    return path
