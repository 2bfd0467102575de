"""What stands beside a `tokenizer.model`, written into the model: obeyed whole, or refused by name.

Every key that transformers' `tokenizer_config.json` may have is in one of three lists: used, irrelevant (it does not
change ids of one text), or refused unless it has a value that means "not used". A key in none is refused, because
nobody knows what it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from llama_exp.tokenizer.added_tokens import AddedToken, read_added_tokens

_KINDS = sentencepiece_model_pb2.ModelProto.SentencePiece
_ORDINARY = (_KINDS.NORMAL, _KINDS.USER_DEFINED, _KINDS.UNUSED)
_USED = frozenset(
    {
        "add_bos_token",
        "add_prefix_space",
        "added_tokens_decoder",
        "additional_special_tokens",
        "chat_template",
        "extra_special_tokens",
        "legacy",
    }
)
_IRRELEVANT = frozenset(
    {
        # A document ends with the end token whatever this says, and a prompt never does.
        "add_eos_token",
        # Rows longer or shorter than a model's, and what is put into them.
        "max_len",
        "max_length",
        "model_max_length",
        "pad_to_multiple_of",
        "pad_token_type_id",
        "padding",
        "padding_side",
        "stride",
        "truncation",
        "truncation_side",
        "truncation_strategy",
        # How transformers finds and calls its class.
        "auto_map",
        "backend",
        "device_map",
        "from_slow",
        "init_inputs",
        "is_local",
        "local_files_only",
        "model_input_names",
        "name_or_path",
        "processor_class",
        "special_tokens_map_file",
        "tokenizer_class",
        "tokenizer_file",
        "transformers_version",
        "trust_remote_code",
        "use_fast",
        "verbose",
        "vocab_file",
        # Text behind tokens: ours is the model's own.
        "clean_up_tokenization_spaces",
        "spaces_between_special_tokens",
        # A system message nobody asked for is never added.
        "use_default_system_prompt",
        # Llama Code's filling-in, which is asked for by its tokens.
        "fill_token",
        "suffix_first",
    }
)
_REFUSED: dict[str, tuple] = {
    "do_lower_case": (False, None),
    "keep_accents": (True, None),
    "remove_space": (False, None),
    "sp_model_kwargs": ({}, None),
    "split_special_tokens": (False, None),
}


def apply_config(model, tokenizer_config: Mapping[str, Any]):
    """A SentencePiece model, changed to do what the config beside it says.

    Special tokens become control pieces, which no text turns into; other added tokens are found in a text. New ones
    are appended.

    Args:
        model: a `ModelProto`, which is changed.
        tokenizer_config: content of `tokenizer_config.json`, in the form of `generation_files.read_tokenizer_config`.

    Returns:
        The same model.

    Raises:
        ValueError: the config says what a SentencePiece model cannot do, or something that is not known.
    """
    _require_known(tokenizer_config)
    _add(model, read_added_tokens(tokenizer_config))
    if tokenizer_config.get("add_prefix_space") is not None:
        model.normalizer_spec.add_dummy_prefix = tokenizer_config["add_prefix_space"]
    return model


def make_control(model, ids: Iterable[int | None]) -> bool:
    """Makes control pieces of those that begin, end or pad a text, so that no text turns into them.

    Args:
        model: a `ModelProto`, which is changed.
        ids: None entries are left out. A piece of one character stays: it may be all that stands for itself in a text.

    Returns:
        Whether anything changed.
    """
    pieces = [model.pieces[id_] for id_ in ids if id_ is not None]
    found = [piece for piece in pieces if piece.type in _ORDINARY and len(piece.piece) > 1]
    for piece in found:
        piece.type = _KINDS.CONTROL
    return bool(found)


def find_change(model) -> str | None:
    """What a SentencePiece model does to a text beside splitting it, in words; None: spaces become marks, no more."""
    normalizer = model.normalizer_spec
    if normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces or not normalizer.escape_whitespaces:
        return f"its normalizer {normalizer.name[:40]!r} changes the text before it is split"
    if model.trainer_spec.treat_whitespace_as_suffix:
        return "it puts the space behind a text"
    return None


def _require_known(config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if key in ("add_bos_token", "add_prefix_space", "legacy") and not isinstance(value, bool | None):
            raise ValueError(f"tokenizer_config.json: {key} {str(value)[:80]!r} must be true or false")
        if key.endswith("_token") and isinstance(value, str | dict | None):
            continue
        if key in _REFUSED and value not in _REFUSED[key]:
            raise ValueError(f"tokenizer_config.json: {key} {str(value)[:80]!r} is not supported")
        if key not in _USED | _IRRELEVANT | set(_REFUSED):
            raise ValueError(f"tokenizer_config.json: {key[:80]!r} is not known: remove it if it changes no ids")


def _add(model, added: Iterable[AddedToken]) -> None:
    ids = {piece.piece: id_ for id_, piece in enumerate(model.pieces)}
    for token in added:
        if token.flags:
            raise ValueError(f"tokenizer_config.json: {token.content!r} has {', '.join(token.flags)}, not supported")
        id_ = ids.setdefault(token.content, len(model.pieces))
        if token.id not in (None, id_):
            what = f"added_tokens_decoder says that {token.content!r} is {token.id}, tokenizer.model makes it {id_}"
            raise ValueError(f"tokenizer_config.json: {what}")
        kind = _KINDS.CONTROL if token.special else _KINDS.USER_DEFINED
        if id_ == len(model.pieces):
            model.pieces.add(piece=token.content, score=0.0, type=kind)
            model.trainer_spec.vocab_size = len(model.pieces)
        elif model.pieces[id_].type in _ORDINARY:
            model.pieces[id_].type = kind
