"""What a `tokenizer.json` is changed into before the tokenizers library runs it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import tokenizers

from llama_exp.tokenizer.added_tokens import AddedToken


def processor(text: str) -> tokenizers.Tokenizer:
    """The library's tokenizer; ValueError where it is none."""
    try:
        made = tokenizers.Tokenizer.from_str(text)
        made.no_padding()
        made.no_truncation()
        made.encode("a b")  # some mistakes show only now
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics, which are no Exception
        raise ValueError(f"not a tokenizer.json of the tokenizers library ({error})") from None
    return made


def with_added_tokens(text: str, added: Iterable[AddedToken]) -> tuple[str, tokenizers.Tokenizer]:
    """The text of a tokenizer that has the added tokens too, and the library's tokenizer of it.

    Args:
        text: content of a `tokenizer.json`; it comes back as it is where it has the tokens.
        added: in the order in which new ones get their ids.

    Raises:
        ValueError: the text is no tokenizer, or a token would get another id than is stated for it.
    """
    text, made = _with_stated_ids(text)
    known = {token.content for token in made.get_added_tokens_decoder().values()}
    missing = [token for token in added if token.content not in known]
    made.add_tokens([_library_token(token) for token in missing])
    for token in added:
        found = made.token_to_id(token.content)
        if token.id is not None and found != token.id:
            what = f"added_tokens_decoder says that {token.content!r} is {token.id}, in tokenizer.json it is {found}"
            raise ValueError(f"tokenizer_config.json: {what}")
    return (made.to_str() if missing else text), made


def _library_token(token: AddedToken) -> tokenizers.AddedToken:
    flags = dict.fromkeys(token.flags, True)
    return tokenizers.AddedToken(token.content, special=token.special, normalized=not token.special, **flags)


def _with_stated_ids(text: str) -> tuple[str, tokenizers.Tokenizer]:
    """The same tokenizer, in which every added token has the id that stands beside it.

    The library counts on from the vocabulary's size; where the vocabulary has holes, that is another token's id.
    """
    document, made = json.loads(text), processor(text)
    added = document.get("added_tokens") or []
    wrong = [token for token in added if made.token_to_id(token["content"]) != token["id"]]
    if not wrong:
        return text, made
    vocabulary = document["model"].get("vocab")
    taken = set(vocabulary.values()) if isinstance(vocabulary, dict) else set()
    if not isinstance(vocabulary, dict) or any(token["id"] in taken for token in wrong):
        first = wrong[0]
        raise ValueError(f"the added token {first['content']!r} has an id that it cannot have: {first['id']}")
    document["model"]["vocab"] = vocabulary | {token["content"]: token["id"] for token in wrong}
    text = json.dumps(document, ensure_ascii=False)
    return text, processor(text)


def without_special_tokens(document: Mapping[str, Any], names: Iterable[str]) -> Mapping[str, Any]:
    """The same tokenizer, in which no text becomes one of the special tokens; ids stay what they are.

    The library keeps a special token's name from being cut out of a text, but the model below still finds it where it
    is one of the model's own pieces. So the pieces get names that nobody can type, new in each process.
    """
    model = document["model"]
    special = {name for name in names if len(name) > 1}  # one character may be all that stands for itself in a text
    vocabulary = model.get("vocab") or {}
    pieces = {entry[0] for entry in vocabulary} if isinstance(vocabulary, list) else set(vocabulary)
    added = document.get("added_tokens") or []
    if not special & pieces and all(token["special"] for token in added if token["content"] in special):
        return document
    hidden = {name: f"{uuid.uuid4().hex}{uuid.uuid4().hex}" for name in special & pieces}
    changed: dict[str, Any]
    if isinstance(vocabulary, list):
        changed = {"vocab": [[hidden.get(piece, piece), score] for piece, score in vocabulary]}
    else:
        changed = {"vocab": {hidden.get(piece, piece): id_ for piece, id_ in vocabulary.items()}}
    if model.get("unk_token") in hidden:
        changed["unk_token"] = hidden[model["unk_token"]]
    if "merges" in model:
        changed["merges"] = [merge for merge in model["merges"] if not _touches(merge, hidden)]
    kept = [token | {"special": token["content"] in special or token["special"]} for token in added]
    kept = [token for token in kept if token["content"] not in hidden]
    return {**document, "model": {**model, **changed}, "added_tokens": kept, "post_processor": None}


def _touches(merge: Any, hidden: Mapping[str, str]) -> bool:
    """Whether a merge makes or uses one of the hidden pieces."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in hidden or right in hidden or left + right in hidden


def without_leading_space(document: Mapping[str, Any]) -> dict[str, Any]:
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

    changed = {key: change(document.get(key)) for key in ("normalizer", "pre_tokenizer")}
    if isinstance(changed["normalizer"], dict) and changed["normalizer"].get("type") == "Prepend":
        changed["normalizer"] = None
    return {**document, **changed}
