"""Which tokens begin, end and pad a text, by what the files of a model say.

transformers' order (5.23), the first that says something:

    begin, end, pad   tokenizer_config.json (with special_tokens_map.json merged into it), the tokenizer's own file,
                      generation_config.json or config.json, the usual names where no file says anything
    stop              generation_config.json, where it says none config.json, else the end token

Where neither file names a stop token, transformers never stops; here the end token does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_exp.limits.dataset import ChatTemplate

KEYS = ("bos_token", "eos_token", "pad_token")
# What ends the assistant's turn, where it is another token than the one that ends a text.
TURN_ENDS = {ChatTemplate.chatml: "<|im_end|>", ChatTemplate.llama3: "<|eot_id|>"}


@dataclass(frozen=True)
class Ends:
    """Token ids.

    Attributes:
        bos: begins a text; None: there is none. `eos` (ends it) and `pad` alike.
        stop: each of them ends a text or a turn in generation.
    """

    bos: int | None
    eos: int | None
    pad: int | None
    stop: tuple[int, ...]

    def ids(self) -> dict[str, int | None]:
        """Ids by Hugging Face's names of the tokens."""
        return dict(zip(KEYS, (self.bos, self.eos, self.pad), strict=True))


def choose_ends(
    tokenizer_config: Mapping[str, Any],
    generation_config: Mapping[str, Any],
    token_id: Callable[[str], int | None],
    vocabulary_size: int,
    *,
    own: Mapping[str, int | None],
    usual: Mapping[str, int | None] | None = None,
    usual_stops: Sequence[int] = (),
) -> Ends:
    """The tokens that the files name.

    Args:
        tokenizer_config: content of `tokenizer_config.json`.
        generation_config: content of `generation_config.json`, or what stands in for it.
        token_id: the id of a token, None where there is no such token.
        vocabulary_size: ids are below it.
        own: what the tokenizer's own file says, by Hugging Face's names.
        usual: what to take where nothing says anything.
        usual_stops: stop tokens beside the end token where no file names any.

    Raises:
        ValueError: a token that is named is not in the vocabulary, or an id is outside of it.
    """

    def find(key: str) -> int | None:
        name = token_name(tokenizer_config.get(key), key)
        if name is not None:
            if (found := token_id(name)) is None:
                raise ValueError(f"tokenizer_config.json: {key} {name!r} is not in the vocabulary")
            return found
        if key not in tokenizer_config and own.get(key) is not None:
            return own[key]
        ids = read_ids(generation_config, f"{key}_id", vocabulary_size)
        return ids[0] if ids else (usual or {}).get(key)

    bos, eos, pad = (find(key) for key in KEYS)
    stops = read_ids(generation_config, "eos_token_id", vocabulary_size)
    if not stops:
        stops = [*([] if eos is None else [eos]), *usual_stops]
    return Ends(bos, eos, pad, tuple(dict.fromkeys(stops)))


def token_name(value: Any, key: str) -> str | None:
    """A token as `tokenizer_config.json` names it: as text, or written out with its flags; None: there is none."""
    if isinstance(value, dict):
        value = value.get("content")
    if not isinstance(value, str | None):
        raise ValueError(f"tokenizer_config.json: {key} {str(value)[:80]!r} is no token")
    return value


def read_ids(generation_config: Mapping[str, Any], key: str, vocabulary_size: int) -> list[int]:
    """The token ids of an entry such as `eos_token_id`, which may be one, a list or missing.

    A negative id means that there is none: the first files of Llama say so of the pad token.

    Raises:
        ValueError: it is neither, or an id is outside of the vocabulary.
    """
    found = generation_config.get(key)
    ids = found if isinstance(found, list) else [] if found is None else [found]
    for id_ in ids:
        if not isinstance(id_, int) or isinstance(id_, bool) or id_ >= vocabulary_size:
            where = "generation_config.json (else config.json)"
            raise ValueError(f"{where}: {key} {id_!r} is no id of a vocabulary of {vocabulary_size}")
    return [id_ for id_ in ids if id_ >= 0]


def stop_where_taught(tokenizer, chat_template: ChatTemplate | None) -> None:
    """Adds the ends of texts and turns that a run teaches to the stop tokens, which go along when it is saved.

    A base model's files name the end of a text only: what was trained on conversations would never stop.

    Args:
        tokenizer: of this package; one of the user's own says itself where it stops.
        chat_template: how conversations are written; None: there are none, or as the model's own files say.
    """
    if not hasattr(tokenizer, "generation_config"):
        return
    turn_end = None if chat_template not in TURN_ENDS else tokenizer.special_id(TURN_ENDS[chat_template])
    new = [id_ for id_ in (tokenizer.eos_id, turn_end) if id_ is not None and id_ not in tokenizer.stop_ids]
    if new:
        tokenizer.stop_ids = (*tokenizer.stop_ids, *dict.fromkeys(new))
        tokenizer.generation_config = {**tokenizer.generation_config, "eos_token_id": list(tokenizer.stop_ids)}
