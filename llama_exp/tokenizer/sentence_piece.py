"""SentencePiece models, as Llama 2 has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2


class SentencePieceTokenizer:
    """A tokenizer over a serialized SentencePiece model.

    Args:
        proto: The bytes of a `.model` or `.spm` file.

    Raises:
        ValueError: the bytes are no SentencePiece model.
    """

    def __init__(self, proto: bytes):
        try:
            model = sentencepiece_model_pb2.ModelProto.FromString(proto)
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
        except Exception as error:  # protobuf and SentencePiece share no exception type
            raise ValueError(f"proto: not a SentencePiece model ({error})") from None
        model.normalizer_spec.add_dummy_prefix = False
        self._continuation = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
        self._proto = proto
        self.vocabulary_size = self._processor.vocab_size()
        self.bos_id = _known(self._processor.bos_id())
        self.eos_id = _known(self._processor.eos_id())
        self.pad_id = _known(self._processor.pad_id())
        self.stop_ids = () if self.eos_id is None else (self.eos_id,)
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

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids; the space that the model puts in front of a text is taken off."""
        ids = [int(id_) for id_ in token_ids]
        for id_ in ids:
            if not 0 <= id_ < self.vocabulary_size:
                raise ValueError(f"token_ids: {id_} is not in the vocabulary of {self.vocabulary_size}")
        if skip_special_tokens:
            return self._processor.decode(ids)
        names = {id_: token for token, id_ in self._special.items()}
        text, run = "", []
        for id_ in [*ids, None]:
            if id_ is None or id_ in names:
                text += self._processor.decode(run) + names.get(id_, "")
                run = []
            else:
                run.append(id_)
        return text

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


def _known(token_id: int) -> int | None:
    return None if token_id < 0 else token_id
