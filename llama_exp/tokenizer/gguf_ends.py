"""Which tokens begin and end a text in a GGUF file, by llama.cpp's rules (`src/llama-vocab.cpp` of 2026).

Keys of the file come first; then names, because many converters left the keys out. A token that ends generation is a
control token whatever type the file gives it.
"""

from __future__ import annotations

import numpy as np

from llama_exp.formats.gguf.file import GgufFile

# Types of tokens; GGUF and SentencePiece number them alike.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_IDS = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "padding_token_id"}
_SENTENCE_PIECE_IDS = {"bos_token": 1, "eos_token": 2}  # where a file of that kind does not say it
_STOP_KEYS = ("eot_token_id", "eom_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id")
_END = "<|end|>"
STOP_NAMES = (
    "<|eot_id|>",
    "<|im_end|>",
    _END,
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
)
# Where code is filled in, one of each kind ends it: the key's token, else the first of these names.
_FILL_NAMES = {
    "fim_pad_token_id": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep_token_id": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep_token_id": ("<|file_sep|>",),
}
# Sets of stop tokens that mean: the last one ends only a part of a turn.
_NO_STOPS = (
    ({"<|return|>", "<|call|>"}, _END),
    ({"<|call|>", "<|flush|>"}, _END),
    ({"<|calls|>", "<|flush|>"}, _END),
    ({"<|tool_response>"}, "</s>"),
)


def special_ids(file: GgufFile, count: int, sentence_piece: bool) -> dict[str, int]:
    """Ids of begin, end and pad token by Hugging Face's names of them, those that there are.

    Args:
        file: open.
        count: of tokens; an id outside is refused.
        sentence_piece: whether the tokens are a SentencePiece model's, whose begin and end have ids of their own.
    """
    stated = {name: _id(file, key, count) for name, key in _IDS.items()}
    own = {name: id_ for name, id_ in _SENTENCE_PIECE_IDS.items() if sentence_piece and id_ < count}
    return own | {name: id_ for name, id_ in stated.items() if id_ is not None}


def stop_ids(file: GgufFile, tokens: list[str], eos_id: int | None) -> list[int]:
    """The tokens that end generation, the end token first."""
    ids = {token: id_ for id_, token in enumerate(tokens)}
    keys = {key: _id(file, key, len(tokens)) for key in _STOP_KEYS}
    for key, names in _FILL_NAMES.items():
        if keys[key] is None:
            keys[key] = next((ids[name] for name in names if name in ids), None)
    found = [eos_id, *keys.values(), *(ids[name] for name in STOP_NAMES if name in ids)]
    stops = [id_ for id_ in dict.fromkeys(found) if id_ is not None]
    named = {tokens[id_] for id_ in stops}
    dropped = {last for others, last in _NO_STOPS if others <= named}
    return [id_ for id_ in stops if tokens[id_] not in dropped]


def control_types(types: np.ndarray, control: list[int]) -> np.ndarray:
    """Types of tokens, in which the given ones are control tokens, unless one of them stands for the unknown."""
    changed = types.copy()
    changed[[id_ for id_ in control if types[id_] != UNKNOWN]] = CONTROL
    return changed


def _id(file: GgufFile, key: str, count: int) -> int | None:
    id_ = file.integer(f"tokenizer.ggml.{key}")
    if id_ is not None and not 0 <= id_ < count:
        file.reject(f"tokenizer.ggml.{key} is not in the vocabulary", f"{id_} of {count}")
    return id_
