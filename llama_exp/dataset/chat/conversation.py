"""A conversation as a user wrote it, checked key by key, and made one form for every way of writing it as text.

The form is OpenAI's, which transformers has taken over: a list of messages, each with a role and a content; tools that
the assistant may call; its calls and the answers to them. What is null is not there. What has no meaning here is
refused by its name and value, so that nothing of a user's file is dropped in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool")
# What a message may have beside role and content, and the roles that may have it; None: all.
KEYS: dict[str, tuple[str, ...] | None] = {
    "role": None,
    "content": None,
    "weight": None,
    "name": None,
    "tool_calls": ("assistant",),
    "tool_call_id": ("tool",),
    "reasoning_content": ("assistant",),
}
NOT_LEARNED = 'a message that must not be learned has "weight": 0'
_LONGEST_SHOWN = 60

Message = dict[str, Any]


class WrongConversation(ValueError):
    """What is wrong with a conversation; `action` says what to do, None: nothing in particular."""

    def __init__(self, found: str, action: str | None = None):
        super().__init__(found)
        self.action = action


def read_messages(value: Any, key: str) -> list[Message]:
    """The messages of a record, each with `role` and, where it says something, `content` (one text).

    A message may also have `weight` (0 or 1), `name`, `reasoning_content`, `tool_call_id`, and `tool_calls`: a list of
    {"id", "type": "function", "function": {"name", "arguments"}}, the arguments as an object.

    Args:
        value: what stands in the record.
        key: under which key, for messages.

    Raises:
        WrongConversation: it is no such list.
    """
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise WrongConversation(f"{key!r} must be a list of objects")
    messages = [_read_message(message, f"{key}[{number}]") for number, message in enumerate(value)]
    if not any(message["role"] == "assistant" for message in messages):
        raise WrongConversation("the conversation has no turn of the assistant")
    return messages


def read_objects(value: Any, key: str) -> list[dict] | None:
    """The tools or documents of a record; None: it has none.

    Raises:
        WrongConversation: it is no list of objects.
    """
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise WrongConversation(f"{key}={show(value)} must be a list of objects")
    return value


def without_open_turn(messages: list[Message]) -> list[Message]:
    """The messages up to the assistant's last."""
    last = max(number for number, message in enumerate(messages) if message["role"] == "assistant")
    return messages[: last + 1]


def counts(message: Mapping[str, Any]) -> bool:
    """Whether the assistant shall learn to say this message."""
    return message["role"] == "assistant" and message.get("weight", 1) != 0


def show(value: Any) -> str:
    """A value as JSON, cut short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _read_message(message: dict, where: str) -> Message:
    stated = {key: value for key, value in message.items() if value is not None}
    if "role" not in stated and {"from", "value"} <= stated.keys():
        raise WrongConversation(
            f"{where} has the keys 'from' and 'value'",
            "rename them: 'from' to 'role' (human: user, gpt: assistant), 'value' to 'content'",
        )
    role = stated.get("role")
    if role not in ROLES:
        raise WrongConversation(f"{where}: role {show(role)} is none of {', '.join(ROLES)}")
    for key, value in stated.items():
        _require_known(key, value, role, where)
    made: Message = {"role": role}
    if "content" in stated:
        made["content"] = _text(stated["content"], f"{where}.content")
    if stated.get("tool_calls"):
        made["tool_calls"] = _calls(stated["tool_calls"], f"{where}.tool_calls")
    for key in ("name", "tool_call_id", "reasoning_content"):
        if key in stated:
            made[key] = _string(stated[key], f"{where}.{key}")
    if "weight" in stated:
        made["weight"] = _weight(stated["weight"], role, f"{where}.weight")
    if not made.keys() & {"content", "tool_calls"}:
        raise WrongConversation(
            f"{where} has no content (role {role}; keys: {', '.join(map(repr, message))})",
            "each message needs a text in 'content', the assistant's 'tool_calls' may stand in its place",
        )
    return made


def _require_known(key: str, value: Any, role: str, where: str) -> None:
    if key not in KEYS:
        action = f"remove it or rename it; a message may have {', '.join(KEYS)}; {NOT_LEARNED}"
        raise WrongConversation(f"{where} has the unknown key {key!r}: {show(value)}", action)
    roles = KEYS[key]
    if roles is not None and role not in roles and value != []:
        raise WrongConversation(f"{where}: {key}={show(value)} belongs to a message of {roles[0]}, not of {role}")


def _text(content: Any, where: str) -> str:
    """A text, or the texts of a list of parts, one after the other."""
    if not isinstance(content, list):
        return _string(content, where)
    texts = []
    for number, part in enumerate(content):
        is_text = isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        if not is_text or {key for key, value in part.items() if value is not None} != {"type", "text"}:
            action = 'a part is {"type": "text", "text": ...}: a Llama reads no pictures or sounds'
            raise WrongConversation(f"{where}[{number}] is no text: {show(part)}", action)
        texts.append(part["text"])
    return "".join(texts)


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise WrongConversation(f"{where} must be a string, not {show(value)}")
    return value


def _weight(value: Any, role: str, where: str) -> int:
    if isinstance(value, bool) or value not in (0, 1):
        raise WrongConversation(f"{where} is {show(value)}", "give 0 (not learned) or 1 (learned)")
    if value and role != "assistant":
        action = "only what the assistant says is learned: leave the weight out; objective.loss_on=all counts all text"
        raise WrongConversation(f"{where} is {show(value)} in a message of {role}", action)
    return int(value)


def _calls(calls: Any, where: str) -> list[dict]:
    if not isinstance(calls, list):
        raise WrongConversation(f"{where} must be a list, not {show(calls)}")
    return [_call(call, f"{where}[{number}]") for number, call in enumerate(calls)]


def _call(call: Any, where: str) -> dict:
    function = call.get("function") if isinstance(call, dict) and call.get("type", "function") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        action = 'a call is {"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}'
        raise WrongConversation(f"{where} is {show(call)}", action)
    for key, value in [*call.items(), *function.items()]:
        if key not in ("id", "type", "index", "function", "name", "arguments") and value is not None:
            raise WrongConversation(f"{where} has the unknown key {key!r}: {show(value)}")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):  # OpenAI has them as text, templates expect the object
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise WrongConversation(f"{where}: the arguments {show(arguments)} are not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise WrongConversation(f"{where}: the arguments {show(arguments)} are no object")
    made = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"id": call["id"], **made} if isinstance(call.get("id"), str) else made
