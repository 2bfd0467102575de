"""Hugging Face's `tokenizer.json`, run by the tokenizers library."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from llama_exp.tokenizer import generation_files as companions
from llama_exp.tokenizer import keras_hub_form
from llama_exp.tokenizer.byte_pair import PAD_TOKENS, STOP_TOKENS
from llama_exp.tokenizer.generation_files import TOKENIZER_CONFIG
from llama_exp.tokenizer.hugging_face_export import SENTENCE_PIECE, TOKENIZER

_BOS_TOKENS = ("<|begin_of_text|>", "<s>")
_EOS_TOKENS = ("<|end_of_text|>", "</s>", "<|endoftext|>", "<|im_end|>")

logger = logging.getLogger(__name__)


class HuggingFaceTokenizer:
    """A tokenizer over the text of a `tokenizer.json`.

    The token that begins and the one that ends a document come from `tokenizer_config` (`bos_token`, `eos_token`), then
    from `generation_config` (`bos_token_id`, `eos_token_id`, whose list also gives the stop tokens), then from the
    usual names among the added tokens.

    Args:
        text: Content of `tokenizer.json`.
        tokenizer_config: Content of `tokenizer_config.json`, or {}.
        generation_config: Content of `generation_config.json`, or {}.
        chat_template: Jinja text of the model's chat template; None: what `tokenizer_config` has.
        sentence_piece_model: Content of the `tokenizer.model` beside it, kept for those who read that.

    Raises:
        ValueError: the text is no tokenizer, or a named token is not in its vocabulary.
    """

    def __init__(
        self,
        text: str,
        tokenizer_config: dict[str, Any],
        generation_config: dict[str, Any],
        chat_template: str | None = None,
        sentence_piece_model: bytes | None = None,
    ):
        self._text, self._tokenizer_config = text, tokenizer_config
        self._sentence_piece_model = sentence_piece_model
        self.generation_config = dict(generation_config)
        self.chat_template = companions.read_template(tokenizer_config) if chat_template is None else chat_template
        self._encoder = _processor(text)
        self._encoder.encode_special_tokens = True  # in text they are characters; only we add special tokens
        document = json.loads(text)
        joined = _without_leading_space(document)
        self._continuation = self._encoder if joined == document else _processor(json.dumps(joined))
        self._continuation.encode_special_tokens = True
        self.vocabulary_size = max(self._encoder.get_vocab(with_added_tokens=True).values()) + 1
        added = self._encoder.get_added_tokens_decoder()
        self._special = {token.content: id_ for id_, token in added.items() if token.special}
        stops = self._ids("eos_token_id")
        self.bos_id = self._find("bos_token", self._ids("bos_token_id"), _BOS_TOKENS)
        self.begin_id = self.bos_id if self._begins() else None
        self.eos_id = self._find("eos_token", stops, _EOS_TOKENS)
        self.pad_id = self._find("pad_token", self._ids("pad_token_id"), PAD_TOKENS)
        names = [self._special[token] for token in STOP_TOKENS if token in self._special]
        ends = [] if self.eos_id is None else [self.eos_id]
        self.stop_ids = tuple(dict.fromkeys([*ends, *stops, *names]))
        self.fingerprint = hashlib.sha256(
            json.dumps(["hugging_face", text, self.begin_id, self.bos_id, self.eos_id, self.pad_id]).encode()
        ).hexdigest()

    def encode(self, text: str, continuation: bool = False) -> list[int]:
        """Token ids of a text; special tokens written in it are ordinary text."""
        return self.encode_batch([text], continuation)[0]

    def encode_batch(self, texts: Sequence[str], continuation: bool = False) -> list[list[int]]:
        """Token ids of each text; a continuation gets no space in front, whatever the tokenizer does else."""
        encoder = self._continuation if continuation else self._encoder
        return [encoding.ids for encoding in encoder.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_special_tokens(self, text: str) -> list[int]:
        """Token ids of a text in which names such as <|im_end|> stand for the special tokens."""
        return self._chat_encoder.encode(text, add_special_tokens=False).ids

    @functools.cached_property
    def _chat_encoder(self) -> tokenizers.Tokenizer:
        return _processor(self._text)

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids, as the file's own decoder gives it."""
        ids = [int(id_) for id_ in token_ids]
        for id_ in ids:
            if id_ < 0 or self._encoder.id_to_token(id_) is None:
                raise ValueError(f"token_ids: {id_} is not in the vocabulary of {self.vocabulary_size}")
        return self._encoder.decode(ids, skip_special_tokens=skip_special_tokens)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Names of the special tokens."""
        return tuple(self._special)

    def special_id(self, token: str) -> int | None:
        """The id of a special token, or None where the file has none of that name."""
        return self._special.get(token)

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer as KerasHub has it; where it has no such class, Hugging Face's files, with a warning."""
        document = json.loads(self._text)
        reasons = []
        for other in (
            keras_hub_form.byte_pair(document, self.chat_template, self.generation_config),
            keras_hub_form.sentence_piece(
                document, self._sentence_piece_model, self.chat_template, self.generation_config
            ),
        ):
            if isinstance(other, str):
                reasons.append(other)
            elif other.begin_id != self.begin_id:
                reasons.append("texts do not begin with its begin token")
            else:
                other.save(folder)
                return
        logger.warning(
            "KerasHub has no class for this tokenizer (not Llama 3's: %s; not Llama 2's: %s); its tokenizer.json is "
            "kept as it is, which KerasHub cannot read",
            *reasons,
        )
        self.save_hugging_face(folder)

    def save_hugging_face(self, folder: str | Path) -> None:
        """Writes the files as they were read, under Hugging Face's names."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER).write_text(self._text, encoding="utf-8")
        if self._sentence_piece_model is not None:
            (folder / SENTENCE_PIECE).write_bytes(self._sentence_piece_model)
        if self._tokenizer_config:
            content = json.dumps(self._tokenizer_config, indent=2, ensure_ascii=False)
            (folder / TOKENIZER_CONFIG).write_text(content, encoding="utf-8")
        known = companions.read_template(self._tokenizer_config)
        companions.write(folder, None if self.chat_template == known else self.chat_template, self.generation_config)

    def _begins(self) -> bool:
        """Whether a text begins with `bos_token`: as `add_bos_token` says, else as the post-processor does it."""
        stated = self._tokenizer_config.get("add_bos_token")
        if isinstance(stated, bool):
            return stated
        return self.bos_id is not None and self._encoder.encode("").ids[:1] == [self.bos_id]

    def _ids(self, key: str) -> list[int]:
        return companions.read_ids(self.generation_config, key, self.vocabulary_size)

    def _find(self, key: str, generation_ids: list[int], names: Sequence[str]) -> int | None:
        named = self._tokenizer_config.get(key)
        if isinstance(named, dict):  # an AddedToken written out
            named = named.get("content")
        if named is not None:
            token_id = self._encoder.token_to_id(named) if isinstance(named, str) else None
            if token_id is None:
                raise ValueError(f"{TOKENIZER_CONFIG}: {key} {named!r} is not in the vocabulary")
            return token_id
        if generation_ids:
            return generation_ids[0]
        return next((self._special[name] for name in names if name in self._special), None)


def _processor(text: str) -> tokenizers.Tokenizer:
    try:
        processor = tokenizers.Tokenizer.from_str(text)
        processor.no_padding()
        processor.no_truncation()
        processor.encode("a b")  # some mistakes show only now
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics, which are no Exception
        raise ValueError(f"not a tokenizer.json of the tokenizers library ({error})") from None
    return processor


def _without_leading_space(content: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer without the space (or U+2581) that it would put in front of a text."""

    def change(part: Any) -> Any:
        if isinstance(part, list):
            return [change(item) for item in part if not (isinstance(item, dict) and item.get("type") == "Prepend")]
        if not isinstance(part, dict):
            return part
        part = {key: change(value) for key, value in part.items()}
        if part.get("type") == "Metaspace":
            part.update(prepend_scheme="never")
            part.pop("add_prefix_space", None)
        if part.get("type") == "ByteLevel":
            part.update(add_prefix_space=False)
        return part

    changed = {key: change(content.get(key)) for key in ("normalizer", "pre_tokenizer")}
    if isinstance(changed["normalizer"], dict) and changed["normalizer"].get("type") == "Prepend":
        changed["normalizer"] = None
    return {**content, **changed}
