"""Chat messages as documents: only what the assistant says counts in the loss, with the token that ends its turn.

The templates are the models' own: Llama 2 (Meta's reference code, `chat_completion`), Llama 3 (its `ChatFormat`) and
ChatML (OpenAI).
"""

from __future__ import annotations

from collections.abc import Sequence

from llama_exp.dataset.records import BOS, EOS, Piece
from llama_exp.limits.dataset import ChatTemplate

ROLES = ("system", "user", "assistant")

Message = tuple[str, str]  # role, content


def render(template: ChatTemplate, messages: Sequence[Message]) -> tuple[Piece, ...]:
    """The pieces of a conversation.

    Args:
        template: Which of the models' own.
        messages: (role, content); an optional system message, then user and assistant in turn, starting with the user.
            A last turn without an answer is left out.

    Raises:
        ValueError: the roles do not alternate like that, or no turn is the assistant's.
    """
    turns = messages[1:] if messages and messages[0][0] == "system" else messages
    expected = [("user", "assistant")[number % 2] for number in range(len(turns))]
    if [role for role, _ in turns] != expected:
        roles = ", ".join(role for role, _ in messages)
        raise ValueError(f"roles must be: system (if any), then user, assistant, user, ...; they are: {roles}")
    if len(turns) < 2:
        raise ValueError("the conversation has no turn of the assistant")
    return _PIECES[template](messages[:-1] if len(turns) % 2 else messages)


def _chatml(messages: Sequence[Message]) -> tuple[Piece, ...]:
    pieces = [BOS]
    for number, (role, content) in enumerate(messages):
        answer = role == "assistant"
        pieces += [
            Piece("\n", counts=False) if number else Piece("", counts=False),
            Piece("<|im_start|>", counts=False, token="<|im_start|>"),
            Piece(f"{role}\n", counts=False),
            Piece(content, counts=answer),
            Piece("<|im_end|>", counts=answer, token="<|im_end|>"),
        ]
    return (*pieces, EOS)


def _llama3(messages: Sequence[Message]) -> tuple[Piece, ...]:
    pieces = [BOS]
    for role, content in messages:
        answer = role == "assistant"
        pieces += [
            Piece("<|start_header_id|>", counts=False, token="<|start_header_id|>"),
            Piece(role, counts=False),
            Piece("<|end_header_id|>", counts=False, token="<|end_header_id|>"),
            Piece("\n\n", counts=False),
            Piece(content.strip(), counts=answer),
            Piece("<|eot_id|>", counts=answer, token="<|eot_id|>"),
        ]
    return (*pieces, EOS)


def _llama2(messages: Sequence[Message]) -> tuple[Piece, ...]:
    system = ""
    if messages[0][0] == "system":
        system, messages = f"<<SYS>>\n{messages[0][1]}\n<</SYS>>\n\n", messages[1:]
    pieces = []
    for role, content in messages:
        if role == "user":
            pieces += [BOS, Piece(f"[INST] {(system + content).strip()} [/INST]", counts=False)]
            system = ""
        else:
            pieces += [Piece(f" {content.strip()} "), EOS]
    return tuple(pieces)


_PIECES = {ChatTemplate.chatml: _chatml, ChatTemplate.llama2: _llama2, ChatTemplate.llama3: _llama3}
