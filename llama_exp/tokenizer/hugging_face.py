"""Hugging Face's `tokenizer.json`, run by the tokenizers library."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from llama_exp.tokenizer import generation_files as companions
from llama_exp.tokenizer import keras_hub_form
from llama_exp.tokenizer.added_tokens import read_added_tokens
from llama_exp.tokenizer.byte_pair import PAD_TOKENS, STOP_TOKENS
from llama_exp.tokenizer.ends import KEYS, choose_ends
from llama_exp.tokenizer.hugging_face_document import (
    processor,
    with_added_tokens,
    without_leading_space,
    without_special_tokens,
)
from llama_exp.tokenizer.hugging_face_export import SENTENCE_PIECE, TOKENIZER
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer
from llama_exp.tokenizer.special_tokens import decode_visibly

# What a file without any configs beside it most likely means.
_USUAL = {
    "bos_token": ("<|begin_of_text|>", "<s>"),
    "eos_token": ("<|end_of_text|>", "</s>", "<|endoftext|>", "<|im_end|>"),
    "pad_token": PAD_TOKENS,
}
# transformers' class of this name has these where its config does not name any.
_LLAMA_CLASSES = ("LlamaTokenizer", "LlamaTokenizerFast")
_LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

logger = logging.getLogger(__name__)


class HuggingFaceTokenizer:
    """A tokenizer over the text of a `tokenizer.json`.

    Which tokens begin, end and pad a text: see `llama_exp.tokenizer.ends`. Whether one stands in front of a text is
    said by the file's post-processor alone, as in transformers.

    Args:
        text: Content of `tokenizer.json`.
        tokenizer_config: Content of `tokenizer_config.json`, or {}; the tokens that it adds are added.
        generation_config: Content of `generation_config.json`, or {}.
        chat_template: Jinja text of the model's chat template; None: what `tokenizer_config` has.
        sentence_piece_model: Content of the `tokenizer.model` beside it, kept for those who read that.

    Raises:
        ValueError: the text is no tokenizer, or a named token or id is not in its vocabulary.
    """

    def __init__(
        self,
        text: str,
        tokenizer_config: dict[str, Any],
        generation_config: dict[str, Any],
        chat_template: str | None = None,
        sentence_piece_model: bytes | None = None,
    ):
        added = read_added_tokens(tokenizer_config)
        self._text, self._whole = with_added_tokens(text, added)
        self._tokenizer_config = tokenizer_config
        self._sentence_piece_model = sentence_piece_model
        self.generation_config = dict(generation_config)
        self.chat_template = companions.read_template(tokenizer_config) if chat_template is None else chat_template
        vocabulary = self._whole.get_vocab(with_added_tokens=True)
        self.vocabulary_size = max(vocabulary.values()) + 1
        self.holes = tuple(sorted(set(range(self.vocabulary_size)) - set(vocabulary.values())))
        document = json.loads(self._text)
        named = [token.content for token in added if token.special]
        in_file = self._whole.get_added_tokens_decoder().values()
        self._special = {
            name: vocabulary[name] for name in (*(token.content for token in in_file if token.special), *named)
        }
        self._set_ends()
        self._set_encoders(document)
        self.fingerprint = hashlib.sha256(
            json.dumps(["hugging_face", self._text, self.begin_id, self.bos_id, self.eos_id, self.pad_id]).encode()
        ).hexdigest()

    def _set_ends(self) -> None:
        config = self._tokenizer_config
        is_bare = not config and not self.generation_config
        own = _LLAMA_TOKENS if config.get("tokenizer_class") in _LLAMA_CLASSES else {}
        usual = {
            key: next((self._special[name] for name in names if name in self._special), None)
            for key, names in _USUAL.items()
        }
        ends = choose_ends(
            config,
            self.generation_config,
            self._whole.token_to_id,
            self.vocabulary_size,
            own={key: self._special.get(name) for key, name in own.items()},
            usual=usual if is_bare else {},
            usual_stops=[self._special[name] for name in STOP_TOKENS if name in self._special] if is_bare else (),
        )
        self.bos_id, self.eos_id, self.pad_id, self.stop_ids = ends.bos, ends.eos, ends.pad, ends.stop
        self.begin_id = self._front()
        for id_ in (*ends.ids().values(), *ends.stop, self.begin_id):
            name = None if id_ is None else self._whole.id_to_token(id_)
            if id_ is not None and name is not None:
                self._special.setdefault(name, id_)

    def _front(self) -> int | None:
        """The token that the post-processor puts in front of a text; None: it puts none there."""
        texts = itertools.chain("a", self._whole.get_vocab(with_added_tokens=False))
        text = next((text for text in texts if self._whole.encode(text, add_special_tokens=False).ids), "")
        encoding = self._whole.encode(text)
        marked = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        front = list(itertools.takewhile(lambda pair: pair[1], marked))
        if len(front) > 1:
            raise ValueError(
                f"post_processor: it puts {len(front)} tokens in front of a text, here one can stand there"
            )
        return front[0][0] if front else None

    def _set_encoders(self, document: dict[str, Any]) -> None:
        """For texts and for continuations; in both, special tokens are characters: only we add special tokens."""
        plain = without_special_tokens(document, self._special)
        self._encoder = self._whole if plain == document else processor(json.dumps(plain))
        joined = without_leading_space(plain)
        self._continuation = self._encoder if joined == plain else processor(json.dumps(joined))
        for encoder in (self._encoder, self._continuation):
            encoder.encode_special_tokens = True

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
        return processor(self._text)

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids, as the file's own decoder gives it; what is no token shows as `[no token: 272]`."""

        def decode(ids: list[int]) -> str:
            return self._whole.decode(ids, skip_special_tokens=skip_special_tokens)

        return decode_visibly(token_ids, self._has_token, decode)

    def _has_token(self, id_: int) -> bool:
        return 0 <= id_ < self.vocabulary_size and self._whole.id_to_token(id_) is not None

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Names of the special tokens."""
        return tuple(self._special)

    def special_id(self, token: str) -> int | None:
        """The id of a special token, or None where the file has none of that name."""
        return self._special.get(token)

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer as KerasHub has it; where it has no such class, Hugging Face's files, with a warning."""
        reasons = []
        generation_config = companions.with_stops(self)
        ends = self.ends_by_name()
        for other in (
            keras_hub_form.byte_pair(self.document, self.chat_template, generation_config, ends),
            self._sentence_piece(),
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

    @property
    def document(self) -> dict[str, Any]:
        """Content of the `tokenizer.json`, with the tokens that its configs add."""
        return json.loads(self._text)

    def as_sentence_piece(self) -> SentencePieceTokenizer | str:
        """The same tokenizer over the SentencePiece model beside it, or why there is none."""
        other = self._sentence_piece()
        if not isinstance(other, str) and (other.begin_id is None) != (self.begin_id is None):
            config = {**self.ends_by_name(), "add_bos_token": self.begin_id is not None}
            return SentencePieceTokenizer(other.proto, self.chat_template, companions.with_stops(self), config)
        return other

    def _sentence_piece(self) -> SentencePieceTokenizer | str:
        proto, generation_config = self._sentence_piece_model, companions.with_stops(self)
        ends = self.ends_by_name()
        return keras_hub_form.sentence_piece(self.document, proto, self.chat_template, generation_config, ends)

    def ends_by_name(self) -> dict[str, str | None]:
        """`bos_token`, `eos_token`, `pad_token`, each None where there is none."""
        ids = dict(zip(KEYS, (self.bos_id, self.eos_id, self.pad_id), strict=True))
        return {key: None if id_ is None else self._whole.id_to_token(id_) for key, id_ in ids.items()}

    def save_hugging_face(self, folder: str | Path) -> None:
        """Writes the files as they were read, under Hugging Face's names."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER).write_text(self._text, encoding="utf-8")
        if self._sentence_piece_model is not None:
            (folder / SENTENCE_PIECE).write_bytes(self._sentence_piece_model)
        known = companions.read_template(self._tokenizer_config)
        template = None if self.chat_template == known else self.chat_template
        names = {key: name for key, name in self.ends_by_name().items() if name is not None}
        companions.write(folder, template, companions.with_stops(self), self._tokenizer_config or names)
