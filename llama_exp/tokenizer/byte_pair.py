"""Byte-level BPE, as Llama 3 has it.

Every byte is a token of its own, so every text has an encoding and `decode` gives back exactly what was encoded.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from llama_exp import recipe
from llama_exp.dataset.stretches import divide_blindly
from llama_exp.tokenizer import generation_files as companions
from llama_exp.tokenizer import hugging_face_export
from llama_exp.tokenizer.ends import KEYS, choose_ends
from llama_exp.tokenizer.special_tokens import decode_visibly, encode_with_special_tokens

log = logging.getLogger("llama_exp")

# Llama 3's (and tiktoken's cl100k_base) split of text into words: no merge crosses these borders.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

BEGIN, END, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"
# KerasHub's Llama3Tokenizer refuses a vocabulary without these.
REQUIRED_TOKENS = (BEGIN, END, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
SPECIAL_TOKENS = (*REQUIRED_TOKENS, PAD)
STOP_TOKENS = (END, "<|eot_id|>", "<|im_end|>")
PAD_TOKENS = (PAD, "<|finetune_right_pad_id|>")

# The split pattern keeps letters apart from "<|", so no merge can ever make such a token out of text.
SPECIAL_FORM = re.compile(r"<\|\w+\|>")


class BytePairTokenizer:
    """A byte-level BPE tokenizer over a vocabulary and merge rules.

    A word that is a token as a whole is that token, whether or not the merges lead there (as Meta's own tokenizer and
    Hugging Face's have it for Llama 3).

    Args:
        vocabulary: Token -> id. Tokens are in GPT-2's printable form of bytes; those of the form <|name|> are special.
        merges: Pairs of tokens, the first pair merges first.
        chat_template: Jinja text of the model's chat template.
        generation_config: Content of `generation_config.json`; its `eos_token_id` are the stop tokens, else the usual.
        tokenizer_config: `bos_token`, `eos_token`, `pad_token` where they are others than Llama 3's; see
            `llama_exp.tokenizer.ends`.

    Raises:
        ValueError: a byte or a part of a merge rule is missing from the vocabulary, ids repeat, or an id of
            `generation_config` is outside.
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        merges: Sequence[tuple[str, str]],
        chat_template: str | None = None,
        generation_config: dict[str, Any] | None = None,
        tokenizer_config: dict[str, Any] | None = None,
    ):
        missing = [token for token in byte_tokens() if token not in vocabulary]
        missing += [token for pair in merges for token in (*pair, "".join(pair)) if token not in vocabulary]
        if missing:
            raise ValueError(f"vocabulary: {len(missing)} tokens are missing, among them {missing[0]!r}: add them")
        if len(set(vocabulary.values())) != len(vocabulary) or min(vocabulary.values()) < 0:
            raise ValueError("vocabulary: ids must be different and not negative")
        self._vocabulary = dict(vocabulary)
        self._merges = [(left, right) for left, right in merges]
        self._special = {token: id_ for token, id_ in vocabulary.items() if SPECIAL_FORM.fullmatch(token)}
        self._special_ids = frozenset(self._special.values())
        self._encoder = self._made(self._ordinary(), ignore_merges=True)
        to_byte = {token: byte for byte, token in enumerate(byte_tokens())}
        self._bytes = {
            id_: token.encode() if token in self._special else bytes(to_byte[character] for character in token)
            for token, id_ in vocabulary.items()
        }
        self.vocabulary_size = max(vocabulary.values()) + 1
        self.holes = tuple(sorted(set(range(self.vocabulary_size)) - set(vocabulary.values())))
        self.chat_template = chat_template
        self.generation_config = dict(generation_config or {})
        self._set_ends(tokenizer_config or {})
        self.fingerprint = hashlib.sha256(
            json.dumps(
                [
                    "byte_pair with whole words",
                    sorted(self._vocabulary.items()),
                    self._merges,
                    *filter(None, [self._config_to_save()]),
                ]
            ).encode()
        ).hexdigest()

    def _set_ends(self, tokenizer_config: dict[str, Any]) -> None:
        named = [self._special[token] for token in STOP_TOKENS if token in self._special]
        pad = next((self._special[token] for token in PAD_TOKENS if token in self._special), None)
        self._own = {"bos_token": self._special.get(BEGIN), "eos_token": self._special.get(END), "pad_token": pad}
        ends = choose_ends(
            {key: tokenizer_config[key] for key in KEYS if key in tokenizer_config},
            self.generation_config,
            self._special.get,
            self.vocabulary_size,
            own=self._own,
            usual_stops=named,
        )
        self.bos_id, self.eos_id, self.pad_id, self.stop_ids = ends.bos, ends.eos, ends.pad, ends.stop
        self.begin_id = self.bos_id

    def _config_to_save(self) -> dict[str, Any]:
        """The ends of a text where they are others than Llama 3's."""
        names = {id_: token for token, id_ in self._special.items()}
        own = {key: None if id_ is None else names[id_] for key, id_ in self._own.items()}
        return {key: name for key, name in self.ends_by_name().items() if name != own[key]}

    def _ordinary(self) -> dict[str, int]:
        return {token: id_ for token, id_ in self._vocabulary.items() if token not in self._special}

    def _made(self, vocabulary: dict[str, int], ignore_merges: bool) -> tokenizers.Tokenizer:
        made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=self._merges, ignore_merges=ignore_merges))
        made.pre_tokenizer = _pre_tokenizer()
        return made

    def ends_by_name(self) -> dict[str, str | None]:
        """`bos_token`, `eos_token`, `pad_token`, each None where there is none."""
        names = {id_: token for token, id_ in self._special.items()}
        ids = dict(zip(KEYS, (self.bos_id, self.eos_id, self.pad_id), strict=True))
        return {key: None if id_ is None else names[id_] for key, id_ in ids.items()}

    def encode(self, text: str, continuation: bool = False) -> list[int]:
        """Token ids of a text; special tokens written in it are ordinary text."""
        return self.encode_batch([text], continuation)[0]

    def encode_batch(self, texts: Sequence[str], continuation: bool = False) -> list[list[int]]:
        """Token ids of each text; a continuation is encoded like any other text."""
        return [encoding.ids for encoding in self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_special_tokens(self, text: str) -> list[int]:
        """Token ids of a text in which names such as <|eot_id|> stand for the special tokens."""
        return encode_with_special_tokens(text, self._special, self.encode)

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids; bytes that are no UTF-8 (a character cut in two) become U+FFFD.

        What is no token shows as `[no token: 272]`.
        """
        skipped = self._special_ids if skip_special_tokens else frozenset()

        def decode(ids: list[int]) -> str:
            return b"".join(self._bytes[id_] for id_ in ids if id_ not in skipped).decode("utf-8", errors="replace")

        return decode_visibly(token_ids, self._bytes.__contains__, decode)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Names of the special tokens."""
        return tuple(self._special)

    def special_id(self, token: str) -> int | None:
        """The id of a special token, or None where the vocabulary has none of that name."""
        return self._special.get(token)

    def merges_reach_every_word(self) -> bool:
        """Whether the merges alone make each token that is a whole word; then it does not matter which comes first."""
        merges_only = self._made(self._ordinary(), ignore_merges=False)
        ordinary = {id_: content for id_, content in self._bytes.items() if id_ not in self._special_ids}
        texts = [content.decode("utf-8", errors="ignore") for content in ordinary.values()]
        return self.encode_batch(texts) == [
            encoding.ids for encoding in merges_only.encode_batch_fast(texts, add_special_tokens=False)
        ]

    def save(self, folder: str | Path) -> None:
        """Writes `tokenizer.json` and `assets/tokenizer/` as KerasHub's Llama 3 presets have them."""
        assets = Path(folder) / "assets" / "tokenizer"
        assets.mkdir(parents=True, exist_ok=True)
        vocabulary = dict(sorted(self._vocabulary.items(), key=lambda item: item[1]))
        (assets / "vocabulary.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        # KerasHub skips the version line, and without any line it cannot build its table of merges.
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self._merges)]
        (assets / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        config = {
            "module": "keras_hub.src.models.llama3.llama3_tokenizer",
            "class_name": "Llama3Tokenizer",
            "config": {
                "name": "llama3_tokenizer",
                "trainable": True,
                "dtype": {
                    "module": "keras",
                    "class_name": "DTypePolicy",
                    "config": {"name": "int32"},
                    "registered_name": None,
                },
                "config_file": "tokenizer.json",
                "sequence_length": None,
                "add_prefix_space": False,
                "unsplittable_tokens": [token for token in SPECIAL_TOKENS if token in self._special],
            },
            "registered_name": "keras_hub>Llama3Tokenizer",
        }
        (Path(folder) / "tokenizer.json").write_text(json.dumps(config, indent=4), encoding="utf-8")
        companions.write_beside_keras_hub(Path(folder), self, self._config_to_save())

    def save_hugging_face(self, folder: str | Path) -> None:
        """Writes the files from which transformers makes the same tokenizer."""
        hugging_face_export.write(Path(folder), self, self._document_text())

    @property
    def document(self) -> dict[str, Any]:
        """Content of the `tokenizer.json` that says the same."""
        return json.loads(self._document_text())

    def _document_text(self) -> str:
        whole = self._made(self._vocabulary, ignore_merges=True)
        return hugging_face_export.byte_pair_document(whole, self._special, self.ends_by_name()["bos_token"])


@functools.cache
def byte_tokens() -> tuple[str, ...]:
    """GPT-2's printable character for each byte 0..255: itself where it prints, else one from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return tuple(chr(byte) if byte in printable else chr(256 + hidden.index(byte)) for byte in range(256))


def train(texts: Iterable[str], vocabulary_size: int) -> BytePairTokenizer:
    """A BPE tokenizer of at most `vocabulary_size` tokens: bytes, then merges by frequency, then special tokens."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = _pre_tokenizer(recipe.BYTE_PAIR_TRAINING["max_word_characters"])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(SPECIAL_TOKENS),
        min_frequency=recipe.BYTE_PAIR_TRAINING["min_frequency"],
        initial_alphabet=list(byte_tokens()),
        show_progress=False,
    )
    trained.train_from_iterator(_bounded(texts), trainer)
    return from_merges([tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]])


def _bounded(texts: Iterable[str]) -> Iterator[str]:
    """The training texts in stretches, of which the trainer takes 256 at once, without long words beyond a number."""
    limits = recipe.BYTE_PAIR_TRAINING
    long_word = re.compile(rf" ?[^\W_]{{{limits['long_word_characters']},}}")
    seen = left_out = 0
    for text in divide_blindly(texts):
        found = sum(map(len, long_word.findall(text)))
        if seen < limits["long_words_characters"]:
            yield text
        else:
            yield long_word.sub("", text) if found else text
            left_out += found
        seen += found
    if left_out:
        message = "the tokenizer is trained without the last %d of %d characters in words of %d letters and more"
        log.info(message, left_out, seen, limits["long_word_characters"])


def from_merges(merges: Sequence[tuple[str, str]]) -> BytePairTokenizer:
    """The tokenizer whose byte b has id b; merged tokens follow in order, then the special tokens."""
    vocabulary = {token: byte for byte, token in enumerate(byte_tokens())}
    for first, second in merges:
        vocabulary.setdefault(first + second, len(vocabulary))
    for token in SPECIAL_TOKENS:
        vocabulary[token] = len(vocabulary)
    return BytePairTokenizer(vocabulary, merges)


def _pre_tokenizer(max_word_characters: int | None = None) -> pre_tokenizers.PreTokenizer:
    """Text -> words in bytes; letters, marks and blanks of a word end after a number of characters, if one is given."""
    pattern = SPLIT_PATTERN
    if max_word_characters is not None:
        pattern = pattern.replace("+", f"{{1,{max_word_characters}}}").replace("*", f"{{0,{max_word_characters}}}")
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
