"""Conversations as pieces in three forms of our own: only what the assistant says counts, with the end of its turn.

The forms are the models' own: Llama 2 (Meta's reference code, `chat_completion`), Llama 3 (its `ChatFormat`, tool
calls as in Llama 3.1) and ChatML (OpenAI; tool calls as Hermes 2 Pro writes them). A `developer` is a `system`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_exp.dataset.chat.conversation import Message, WrongConversation, counts, show, without_open_turn
from llama_exp.dataset.records import BOS, EOS, Piece
from llama_exp.limits.dataset import ChatTemplate

USE_OWN = "set dataset.chat_template=model, whose template may have a form for it"
# What may follow a role. A call of a tool is followed by its answers.
_CALL = "assistant's tool call"
_NEXT = {"": ("user",), "user": ("assistant", _CALL), "assistant": ("user",), _CALL: ("tool",)}
_NEXT["tool"] = ("tool", "assistant", _CALL)


def render(template: ChatTemplate, messages: Sequence[Message]) -> tuple[Piece, ...]:
    """The pieces of a conversation.

    Args:
        template: which form; not `model`.
        messages: as `read_messages` gives them: an optional system message, then user and assistant in turn, starting
            with the user; a call of tools is followed by their answers. What follows the assistant's last is left out.

    Raises:
        WrongConversation: the roles do not follow each other like that, or a message says what the form cannot write.
    """
    messages = [{**message, "role": "system"} if message["role"] == "developer" else message for message in messages]
    _require_turns(messages)
    for number, message in enumerate(messages):
        _require_written(message, f"message {number}", template)
    return _PIECES[template](without_open_turn(messages))


def _require_turns(messages: Sequence[Message]) -> None:
    roles = [_CALL if message.get("tool_calls") else message["role"] for message in messages]
    before = ""
    for role in roles[1:] if roles[:1] == ["system"] else roles:
        if role not in _NEXT[before]:
            found = f"roles must be: system (if any), then user, assistant, user, ...; they are: {', '.join(roles)}"
            raise WrongConversation(found, "bring the messages into this order, or set dataset.chat_template=model")
        before = role
    if not {"assistant", _CALL} & set(roles):
        raise WrongConversation("the conversation has no turn of the assistant")


def _require_written(message: Message, where: str, template: ChatTemplate) -> None:
    """Nothing of a message is left out in silence."""
    for key in ("reasoning_content", *(("name",) if message["role"] != "tool" else ())):
        if key in message:
            raise WrongConversation(f"{where}: {template.value} does not write {key}={show(message[key])}", USE_OWN)
    calls = message.get("tool_calls", ())
    if template is ChatTemplate.llama2 and (calls or message["role"] == "tool"):
        raise WrongConversation(f"{where}: llama2 has no form for calls of tools", USE_OWN)
    if template is ChatTemplate.llama3 and (len(calls) > 1 or (calls and message.get("content", "").strip())):
        found = f"{where}: llama3 has a form for one call and nothing else in a message: {show(calls)}"
        raise WrongConversation(found, USE_OWN)


def _chatml(messages: Sequence[Message]) -> tuple[Piece, ...]:
    pieces = [BOS]
    for number, message in enumerate(messages):
        role, answer = message["role"], counts(message)
        if role == "tool" and messages[number - 1]["role"] == "tool":
            pieces[-1:] = [Piece(f"\n{_tool_response(message)}", counts=False), pieces[-1]]  # before the turn's end
            continue
        content = _tool_response(message) if role == "tool" else _chatml_content(message)
        pieces += [
            Piece("\n", counts=False) if number else Piece("", counts=False),
            Piece("<|im_start|>", counts=False, token="<|im_start|>"),
            Piece(f"{role}\n", counts=False),
            Piece(content, counts=answer),
            Piece("<|im_end|>", counts=answer, token="<|im_end|>"),
        ]
    return (*pieces, _end(messages))


def _chatml_content(message: Message) -> str:
    calls = [_json({**call["function"]}) for call in message.get("tool_calls", ())]
    written = [f"<tool_call>\n{call}\n</tool_call>" for call in calls]
    content = message.get("content", "")
    return "\n".join([content, *written] if content or not written else written)


def _tool_response(message: Message) -> str:
    return f"<tool_response>\n{message['content']}\n</tool_response>"


def _llama3(messages: Sequence[Message]) -> tuple[Piece, ...]:
    pieces = [BOS]
    for message in messages:
        role, answer = message["role"], counts(message)
        content = message.get("content", "").strip()
        if message.get("tool_calls"):
            function = message["tool_calls"][0]["function"]
            content = _json({"name": function["name"], "parameters": function["arguments"]})
        pieces += [
            Piece("<|start_header_id|>", counts=False, token="<|start_header_id|>"),
            Piece("ipython" if role == "tool" else role, counts=False),
            Piece("<|end_header_id|>", counts=False, token="<|end_header_id|>"),
            Piece("\n\n", counts=False),
            Piece(content, counts=answer),
            Piece("<|eot_id|>", counts=answer, token="<|eot_id|>"),
        ]
    return (*pieces, _end(messages))


def _llama2(messages: Sequence[Message]) -> tuple[Piece, ...]:
    system = ""
    if messages[0]["role"] == "system":
        system, messages = f"<<SYS>>\n{messages[0]['content']}\n<</SYS>>\n\n", messages[1:]
    pieces = []
    for message in messages:
        content = message["content"]
        if message["role"] == "user":
            pieces += [BOS, Piece(f"[INST] {(system + content).strip()} [/INST]", counts=False)]
            system = ""
        else:
            pieces += [Piece(f" {content.strip()} ", counts=counts(message)), _end([message])]
    return tuple(pieces)


def _end(messages: Sequence[Message]) -> Piece:
    """The end of the document, which is learned if the last answer is."""
    return EOS if counts(messages[-1]) else Piece("", counts=False, token="eos")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


_PIECES = {ChatTemplate.chatml: _chatml, ChatTemplate.llama2: _llama2, ChatTemplate.llama3: _llama3}
