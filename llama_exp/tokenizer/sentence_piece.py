"""SentencePiece models, as Llama 2 has them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from llama_exp.tokenizer import generation_files as companions
from llama_exp.tokenizer import hugging_face_export
from llama_exp.tokenizer.ends import KEYS, choose_ends
from llama_exp.tokenizer.sentence_piece_config import apply_config, make_control
from llama_exp.tokenizer.special_tokens import decode_visibly, encode_with_special_tokens

MAX_PIECES = 1 << 20  # the largest published vocabularies have 256,000
MAX_PIECE_CHARACTERS = 1 << 10
# What the model itself cannot say.
_KEPT = (*KEYS, "add_bos_token", "legacy")


class SentencePieceTokenizer:
    """A tokenizer over a serialized SentencePiece model.

    Which tokens begin, end and pad a text: see `llama_exp.tokenizer.ends`.

    Args:
        proto: The bytes of a `.model` or `.spm` file.
        chat_template: Jinja text of the model's chat template.
        generation_config: Content of `generation_config.json`; its `eos_token_id` are the stop tokens.
        tokenizer_config: Content of the `tokenizer_config.json` beside it. Without `add_bos_token`, a text begins with
            the begin token, as Llama 2's, transformers 4's and llama.cpp's do (transformers 5.23 puts none).

    Raises:
        ValueError: the bytes are no SentencePiece model, an id of `generation_config` is outside, or
            `tokenizer_config` says what the model cannot do.
    """

    def __init__(
        self,
        proto: bytes,
        chat_template: str | None = None,
        generation_config: dict[str, Any] | None = None,
        tokenizer_config: dict[str, Any] | None = None,
    ):
        self._config = {key: value for key, value in (tokenizer_config or {}).items() if key in _KEPT}
        self.chat_template = chat_template
        self.generation_config = dict(generation_config or {})
        model = apply_config(_parsed(proto), tokenizer_config or {})
        _check(model)
        self._processor = _processor(model)
        self.vocabulary_size, self.holes = self._processor.vocab_size(), ()
        self._set_ends()
        if make_control(model, (self.bos_id, self.eos_id, self.pad_id, *self.stop_ids)):
            self._processor = _processor(model)
        unchanged = _parsed(proto).SerializeToString() == model.SerializeToString()
        self._proto = proto if unchanged else model.SerializeToString()
        model.normalizer_spec.add_dummy_prefix = False
        self._continuation = _processor(model)
        self._special = {
            self._processor.id_to_piece(id_): id_
            for id_ in range(self.vocabulary_size)
            if self._processor.is_control(id_)
        }
        self.fingerprint = hashlib.sha256(b"sentence_piece" + self._proto + self._difference()).hexdigest()

    def _set_ends(self) -> None:
        self._own = {key: _known(id_) for key, id_ in zip(KEYS, self._ids_of_model(), strict=True)}
        ends = choose_ends(self._config, self.generation_config, self.pieces().get, self.vocabulary_size, own=self._own)
        self.bos_id, self.eos_id, self.pad_id, self.stop_ids = ends.bos, ends.eos, ends.pad, ends.stop
        self.begin_id = None if self._config.get("add_bos_token") is False else self.bos_id

    def _ids_of_model(self) -> tuple[int, int, int]:
        return self._processor.bos_id(), self._processor.eos_id(), self._processor.pad_id()

    def _difference(self) -> bytes:
        """What the model itself does not say of the ends of a text, b"" where it says all."""
        config = self._config_to_save()
        return json.dumps(config, sort_keys=True).encode() if config else b""

    def _config_to_save(self) -> dict[str, Any]:
        own = {key: None if id_ is None else self._processor.id_to_piece(id_) for key, id_ in self._own.items()}
        names = {key: name for key, name in self.ends_by_name().items() if name != own[key]}
        flags = {"add_bos_token": self.begin_id is not None, "legacy": self._config.get("legacy") is not False}
        return names | {key: value for key, value in flags.items() if not value and self.bos_id is not None}

    @property
    def proto(self) -> bytes:
        """The serialized model."""
        return self._proto

    @property
    def adds_spaces_once(self) -> bool:
        """Whether a text gets a space in front at its very start only (`legacy: false`)."""
        return self._config.get("legacy") is False

    def ends_by_name(self) -> dict[str, str | None]:
        """`bos_token`, `eos_token`, `pad_token`, each None where there is none."""
        ids = dict(zip(KEYS, (self.bos_id, self.eos_id, self.pad_id), strict=True))
        return {key: None if id_ is None else self._processor.id_to_piece(id_) for key, id_ in ids.items()}

    def encode(self, text: str, continuation: bool = False) -> list[int]:
        """Token ids of a text; special tokens written in it are ordinary text."""
        return self.encode_batch([text], continuation)[0]

    def encode_batch(self, texts: Sequence[str], continuation: bool = False) -> list[list[int]]:
        """Token ids of each text; a continuation gets no space in front."""
        processor = self._continuation if continuation else self._processor
        return processor.encode(list(texts), out_type=int)

    def encode_with_special_tokens(self, text: str) -> list[int]:
        """Token ids of a text in which names such as </s> stand for the special tokens.

        Each part between them begins like a text of its own, as in Llama 2's own encoding of a chat; with
        `legacy: false` in the config only the first does.
        """
        later = self._encode_later if self._config.get("legacy") is False else None
        return encode_with_special_tokens(text, self._special, self.encode, later)

    def _encode_later(self, text: str) -> list[int]:
        return self.encode(text, continuation=True)

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids, without the space that the model puts in front of a text.

        What is no token shows as `[no token: 32000]`.
        """
        show = self._processor.decode if skip_special_tokens else self._decode_with_special_tokens
        return decode_visibly(token_ids, lambda id_: 0 <= id_ < self.vocabulary_size, show)

    def _decode_with_special_tokens(self, ids: list[int]) -> str:
        names = {id_: token for token, id_ in self._special.items()}
        text = ""
        for is_name, run in itertools.groupby(ids, key=names.__contains__):  # the model decodes ordinary ones together
            same = list(run)
            text += "".join(map(names.__getitem__, same)) if is_name else self._processor.decode(same)
        return text

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Names of the special tokens."""
        return tuple(self._special)

    def special_id(self, token: str) -> int | None:
        """The id of a control token such as </s>, or None where the model has none of that name."""
        return self._special.get(token)

    def save(self, folder: str | Path) -> None:
        """Writes `tokenizer.json` and `assets/tokenizer/` as KerasHub's Llama 2 presets have them."""
        assets = Path(folder) / "assets" / "tokenizer"
        assets.mkdir(parents=True, exist_ok=True)
        (assets / "vocabulary.spm").write_bytes(self._proto)
        config = {
            "module": "keras_hub.src.models.llama.llama_tokenizer",
            "class_name": "LlamaTokenizer",
            "config": {
                "name": "llama_tokenizer",
                "trainable": True,
                "dtype": {
                    "module": "keras",
                    "class_name": "DTypePolicy",
                    "config": {"name": "int32"},
                    "registered_name": None,
                },
                "config_file": "tokenizer.json",
                "proto": None,
                "sequence_length": None,
                "add_bos": False,
                "add_eos": False,
            },
            "registered_name": "keras_hub>LlamaTokenizer",
        }
        (Path(folder) / "tokenizer.json").write_text(json.dumps(config, indent=4), encoding="utf-8")
        companions.write_beside_keras_hub(Path(folder), self, self._config_to_save())

    def save_hugging_face(self, folder: str | Path) -> None:
        """Writes `tokenizer.model`, and the files from which transformers makes the same tokenizer.

        Raises:
            InputError: `tokenizer.json` cannot say what the model does; nothing is written.
        """
        model = sentencepiece_model_pb2.ModelProto.FromString(self._proto)
        unknown = {piece.piece: id_ for id_, piece in enumerate(model.pieces) if piece.type == piece.UNKNOWN}
        begin = None if self.begin_id is None else self._processor.id_to_piece(self.begin_id)
        spaces_once = self._config.get("legacy") is False
        document = hugging_face_export.sentence_piece_document(model, unknown | self._special, begin, spaces_once)
        hugging_face_export.write(Path(folder), self, document)
        (Path(folder) / hugging_face_export.SENTENCE_PIECE).write_bytes(self._proto)

    def pieces(self) -> dict[str, int]:
        """Piece -> id, the special ones included."""
        return {self._processor.id_to_piece(id_): id_ for id_ in range(self.vocabulary_size)}


def _parsed(proto: bytes):
    try:
        return sentencepiece_model_pb2.ModelProto.FromString(proto)
    except Exception as error:  # protobuf's own base class is not part of its interface
        raise ValueError(f"proto: not a SentencePiece model ({error})") from None


def _processor(model) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    except Exception as error:  # the library raises RuntimeError, OSError and others
        raise ValueError(f"proto: not a SentencePiece model ({error})") from None


def _check(model) -> None:
    """Refuses what the library would follow out of its memory, or take minutes for; ValueError says what."""
    pieces = [piece.piece for piece in model.pieces]
    if not 0 < len(pieces) <= MAX_PIECES:
        raise ValueError(f"proto: {len(pieces)} pieces, must be 1 to {MAX_PIECES}")
    if len(set(pieces)) != len(pieces) or "" in pieces:
        raise ValueError("proto: a piece is empty or stands twice")
    if longest := next((piece for piece in pieces if len(piece) > MAX_PIECE_CHARACTERS), None):
        raise ValueError(f"proto: the piece {longest[:20]!r}... has {len(longest)} characters")
    for spec in (model.normalizer_spec, model.denormalizer_spec):
        if spec.precompiled_charsmap and not _is_closed(spec.precompiled_charsmap):
            raise ValueError("proto: the table of character replacements points out of itself")


def _is_closed(table: bytes) -> bool:
    """Whether no path through a table of character replacements leads out of it.

    The table is a length in bytes, a double-array trie of 32-bit units, and texts that end in NUL. A unit has a value
    (31 bits), or an offset (bits 10 to 30, times 256 with bit 9) to its children and a mark (bit 8) that the child of
    label 0 is a value: the place of a text.
    """
    size = int.from_bytes(table[:4], "little")
    texts = table[4 + size :]
    if size == 0 or size % 4 or len(table) < 4 + size or not texts.endswith(b"\0"):
        return False
    units = np.frombuffer(table, "<u4", size // 4, offset=4).astype(np.int64)
    children = np.arange(len(units)) ^ ((units >> 10) << ((units & 512) >> 6))
    is_inner = units >> 31 == 0
    reached = np.minimum(children, len(units) - 1)
    values = units[reached] & 0x7FFFFFFF
    has_value = is_inner & (units >> 8 & 1 == 1)
    return bool(np.all((children | 255)[is_inner] < len(units)) and np.all(values[has_value] < len(texts)))


def _known(token_id: int) -> int | None:
    return None if token_id < 0 else token_id
