"""The files from which transformers makes the same tokenizer: `tokenizer.json` and what lies beside it.

A SentencePiece model becomes BPE with bytes as fallback. SentencePiece joins the neighbours whose union has the highest
score; a table of merges says the same when every split of every piece stands in it, in the order of the pieces' scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from llama_exp.errors import InputError, Problem
from llama_exp.tokenizer import generation_files as companions
from llama_exp.tokenizer.sentence_piece_config import find_change

TOKENIZER, SENTENCE_PIECE = "tokenizer.json", "tokenizer.model"
SPACE = "▁"  # U+2581, SentencePiece's visible space


def write(folder: Path, tokenizer, document: str) -> None:
    """Writes `tokenizer.json`, its configs, the chat template and the generation config.

    Args:
        folder: created if need be.
        tokenizer: whose special tokens, chat template and generation config they are.
        document: text of `tokenizer.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER).write_text(document, encoding="utf-8")
    ids = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
    names = {key: name for key, name in tokenizer.ends_by_name().items() if name is not None}
    config: dict[str, Any] = {
        **names,
        "add_bos_token": tokenizer.begin_id is not None,  # for who reads the tokenizer.model beside it
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        # The class that takes tokenizer.json as it is; LlamaTokenizer makes one of its own from the vocabulary.
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    stops = {"eos_token_id": list(tokenizer.stop_ids)} if len(tokenizer.stop_ids) > 1 else {}
    stated = {f"{key}_id": id_ for key, id_ in ids.items() if id_ is not None} | stops
    generation = companions.with_stops(tokenizer) or stated
    contents = {
        companions.TOKENIZER_CONFIG: config,
        companions.SPECIAL_TOKENS_MAP: names,
        companions.GENERATION_CONFIG: generation,
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def byte_pair_document(encoder: tokenizers.Tokenizer, special: Mapping[str, int], begin: str | None) -> str:
    """Text of `tokenizer.json` for byte-level BPE.

    Args:
        encoder: vocabulary, merges and split; the special tokens are in the vocabulary.
        special: special token -> id.
        begin: put in front of a text, where it is one of `special`.
    """
    tokenizer = tokenizers.Tokenizer.from_str(encoder.to_str())
    tokenizer.decoder = decoders.ByteLevel()
    _add_special_tokens(tokenizer, special, begin)
    return tokenizer.to_str(pretty=True)


def sentence_piece_document(model, special: Mapping[str, int], begin: str | None, spaces_once: bool = False) -> str:
    """Text of `tokenizer.json` for a SentencePiece BPE model.

    Args:
        model: a `ModelProto`.
        special: special token -> id, the unknown token included.
        begin: put in front of a text; None: nothing is.
        spaces_once: behind a special token no space is put in front, as at the start of a text.

    Raises:
        InputError: the model has something that a table of merges cannot say.
    """
    kinds = type(model.pieces[0])
    if reason := _inexpressible(model, kinds):
        what = "transformers' tokenizer.json cannot say what this SentencePiece model does"
        action = (
            "keep the model in KerasHub's format (--format keras_hub), which takes the SentencePiece model as it is"
        )
        raise InputError(Problem(what, SENTENCE_PIECE, reason, action))
    vocabulary = {piece.piece: id_ for id_, piece in enumerate(model.pieces)}
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type == kinds.NORMAL}
    unknown = next(piece.piece for piece in model.pieces if piece.type == kinds.UNKNOWN)
    merges = _merges(scores)
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=any(piece.type == kinds.BYTE for piece in model.pieces),
        )
    )
    prefixed = model.normalizer_spec.add_dummy_prefix
    if prefixed and spaces_once:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    else:
        prefix = [normalizers.Prepend(SPACE)] if prefixed else []
        tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    _add_special_tokens(tokenizer, special, begin)
    return tokenizer.to_str(pretty=True)


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every way to join a piece from two others, best score first."""
    found = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                found.append((-score, piece, left, right))
    return [(left, right) for _, _, left, right in sorted(found)]


def _inexpressible(model, kinds) -> str | None:
    """Why a table of merges cannot say what the model does; None if it can."""
    trainer = model.trainer_spec
    if trainer.model_type != type(trainer).BPE:
        return "its model is not BPE"
    if change := find_change(model):
        return change
    if odd := next((piece for piece in model.pieces if piece.type in (kinds.USER_DEFINED, kinds.UNUSED)), None):
        return f"its piece {odd.piece[:40]!r} is {'user-defined' if odd.type == kinds.USER_DEFINED else 'unused'}"
    return None


def _add_special_tokens(tokenizer: tokenizers.Tokenizer, special: Mapping[str, int], begin: str | None) -> None:
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(token, normalized=False) for token, _ in sorted(special.items(), key=lambda x: x[1])]
    )
    if begin is not None and begin in special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, special[begin])]
        )
