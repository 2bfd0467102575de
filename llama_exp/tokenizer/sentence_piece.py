"""SentencePiece models, as Llama 2 has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from llama_exp.tokenizer import generation_files as companions
from llama_exp.tokenizer import hugging_face_export
from llama_exp.tokenizer.special_tokens import encode_with_special_tokens

MAX_PIECES = 1 << 20  # the largest published vocabularies have 256,000
MAX_PIECE_CHARACTERS = 1 << 10


class SentencePieceTokenizer:
    """A tokenizer over a serialized SentencePiece model.

    Args:
        proto: The bytes of a `.model` or `.spm` file.
        chat_template: Jinja text of the model's chat template.
        generation_config: Content of `generation_config.json`; its `eos_token_id` adds to the stop tokens.

    Raises:
        ValueError: the bytes are no SentencePiece model, or an id of `generation_config` is outside.
    """

    def __init__(self, proto: bytes, chat_template: str | None = None, generation_config: dict[str, Any] | None = None):
        try:
            model = sentencepiece_model_pb2.ModelProto.FromString(proto)
        except Exception as error:  # protobuf's own base class is not part of its interface
            raise ValueError(f"proto: not a SentencePiece model ({error})") from None
        _check(model)
        self._processor = _processor(proto)
        model.normalizer_spec.add_dummy_prefix = False
        self._continuation = _processor(model.SerializeToString())
        self._proto = proto
        self.vocabulary_size = self._processor.vocab_size()
        self.bos_id = self.begin_id = _known(self._processor.bos_id())
        self.eos_id = _known(self._processor.eos_id())
        self.pad_id = _known(self._processor.pad_id())
        self.chat_template = chat_template
        self.generation_config = dict(generation_config or {})
        stops = companions.read_ids(self.generation_config, "eos_token_id", self.vocabulary_size)
        self.stop_ids = tuple(dict.fromkeys([*([] if self.eos_id is None else [self.eos_id]), *stops]))
        self._special = {
            self._processor.id_to_piece(id_): id_
            for id_ in range(self.vocabulary_size)
            if self._processor.is_control(id_)
        }
        self.fingerprint = hashlib.sha256(b"sentence_piece" + proto).hexdigest()

    def encode(self, text: str, continuation: bool = False) -> list[int]:
        """Token ids of a text; special tokens written in it are ordinary text."""
        return self.encode_batch([text], continuation)[0]

    def encode_batch(self, texts: Sequence[str], continuation: bool = False) -> list[list[int]]:
        """Token ids of each text; a continuation gets no space in front."""
        processor = self._continuation if continuation else self._processor
        return processor.encode(list(texts), out_type=int)

    def encode_with_special_tokens(self, text: str) -> list[int]:
        """Token ids of a text in which names such as </s> stand for the special tokens.

        Each part between them begins like a text of its own, as in Llama 2's own encoding of a chat.
        """
        return encode_with_special_tokens(text, self._special, self.encode)

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids; the space that the model puts in front of a text is taken off."""
        ids = [int(id_) for id_ in token_ids]
        for id_ in ids:
            if not 0 <= id_ < self.vocabulary_size:
                raise ValueError(f"token_ids: {id_} is not in the vocabulary of {self.vocabulary_size}")
        if skip_special_tokens:
            return self._processor.decode(ids)
        names = {id_: token for token, id_ in self._special.items()}
        text = ""
        run: list[int] = []  # of ordinary tokens, which the model decodes together
        for id_ in ids:
            if id_ in names:
                text += self._processor.decode(run) + names[id_]
                run = []
            else:
                run.append(id_)
        return text + self._processor.decode(run)

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
        companions.write(Path(folder), self.chat_template, self.generation_config)

    def save_hugging_face(self, folder: str | Path) -> None:
        """Writes `tokenizer.model`, and the files from which transformers makes the same tokenizer.

        Raises:
            InputError: `tokenizer.json` cannot say what the model does; nothing is written.
        """
        model = sentencepiece_model_pb2.ModelProto.FromString(self._proto)
        unknown = {piece.piece: id_ for id_, piece in enumerate(model.pieces) if piece.type == piece.UNKNOWN}
        begin = None if self.bos_id is None else self._processor.id_to_piece(self.bos_id)
        document = hugging_face_export.sentence_piece_document(model, unknown | self._special, begin)
        hugging_face_export.write(Path(folder), self, document)
        (Path(folder) / hugging_face_export.SENTENCE_PIECE).write_bytes(self._proto)

    def pieces(self) -> dict[str, int]:
        """Piece -> id, the special ones included."""
        return {self._processor.id_to_piece(id_): id_ for id_ in range(self.vocabulary_size)}


def _processor(proto: bytes) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=proto)
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
