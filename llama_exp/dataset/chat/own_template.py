"""Conversations as pieces by the Jinja template of a model: what it was trained on, learned from in the same form.

A user's text is text: the name of a special token that stands in a message is taken apart before the template sees it,
so that only the template's own names become tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_exp import recipe
from llama_exp.dataset.cache import content_key
from llama_exp.dataset.chat import sandbox
from llama_exp.dataset.chat.conversation import counts, without_open_turn
from llama_exp.dataset.records import Piece
from llama_exp.errors import InputError

NO_TEMPLATE = "the tokenizer has no chat template of a model"
NOT_SHOWN = "the chat template does not show what the assistant wrote"  # as `worker` says it
# Characters that Unicode keeps for such uses: no text has them.
_SEPARATORS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
_PREFIX_ACTION = (
    "use chat_template.jinja with {% generation %} around the assistant's words, or one conversation for each answer;"
    " or set dataset.chat_template to chatml, llama2 or llama3"
)


@dataclass(frozen=True)
class OwnTemplate:
    """A model's chat template, with what of its tokenizer it writes.

    text: Jinja. special_tokens: names of the special tokens. variables: bos_token and eos_token, where there are some.
    """

    text: str
    special_tokens: tuple[str, ...]
    variables: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of all that decides the pieces of a conversation."""
        return content_key(
            recipe=recipe.MODEL_CHATS,
            template=self.text,
            special_tokens=sorted(self.special_tokens),
            variables=dict(self.variables),
        )

    def render(self, conversations: Sequence[Mapping[str, Any]], sources: Sequence[str]) -> list[tuple[Piece, ...]]:
        """The pieces of each conversation.

        Args:
            conversations: `messages` as `read_messages` gives them; `tools` and `documents` where there are some.
            sources: where each comes from, for messages.

        Raises:
            InputError: the template refuses one of them, or does not show what the assistant wrote.
        """
        whole = json.dumps(conversations, ensure_ascii=False)
        separator = next(mark for mark in _SEPARATORS if mark not in whole)
        shown = [self._shown(conversation, separator) for conversation in conversations]
        answers = sandbox.run(
            {
                "template": self.text,
                "variables": dict(self.variables),
                "conversations": shown,
                "date": recipe.MODEL_CHATS["date"],
                "spans": True,
            }
        )
        rendered = []
        for conversation, source, answer in zip(conversations, sources, answers, strict=True):
            learned = self._learned(answer, conversation, source)
            rendered.append(tuple(self._pieces(answer["text"], learned, answer["by_prefix"], separator)))
        return rendered

    def _learned(self, answer: Mapping[str, Any], conversation: Mapping[str, Any], source: str) -> list[Sequence[int]]:
        """The spans of the text that count."""
        if "text" not in answer:
            action = _PREFIX_ACTION if answer["what"] == NOT_SHOWN else "check the messages of this record"
            raise sandbox.refusal(f"{answer['what']} (dataset.chat_template=model)", answer["found"], action, source)
        messages = without_open_turn(conversation["messages"])
        counted = [counts(message) for message in messages if message["role"] == "assistant"]
        spans = answer["spans"]
        if len(spans) != len(counted):
            if spans and all(counted):
                return spans
            found = f"{len(spans)} times {{% generation %}} for {len(counted)} messages of the assistant"
            raise sandbox.refusal(f"{NOT_SHOWN} (dataset.chat_template=model)", found, _PREFIX_ACTION, source)
        return [span for span, is_counted in zip(spans, counted, strict=True) if is_counted]

    def _shown(self, conversation: Mapping[str, Any], separator: str) -> dict[str, Any]:
        """What the template sees of a conversation: no weights, and special tokens' names taken apart."""
        messages = [
            {key: value for key, value in message.items() if key != "weight"}
            for message in without_open_turn(conversation["messages"])
        ]
        others = {key: value for key, value in conversation.items() if key != "messages"}
        return _apart({"messages": messages, **others}, self._names(), separator)

    def _pieces(self, text: str, learned: Sequence[Sequence[int]], by_prefix: bool, separator: str) -> Iterator[Piece]:
        end = 0
        for begin, after in learned:
            yield from self._split(text[end:begin], False, separator)
            answer = self._split(text[begin:after], True, separator)
            yield from _without_space_behind_the_turn(list(answer)) if by_prefix else answer
            end = after
        yield from self._split(text[end:], False, separator)

    def _split(self, text: str, counted: bool, separator: str) -> Iterator[Piece]:
        names = self._names()
        for part in names.split(text) if names.pattern else [text]:
            if names.pattern and names.fullmatch(part):
                yield Piece(part, counts=counted, token=part)
            elif part:
                yield Piece(part.replace(separator, ""), counts=counted)

    def _names(self) -> re.Pattern[str]:
        """Matches the name of a special token, the longest first; an empty pattern where there are none."""
        names = sorted(filter(None, self.special_tokens), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, names))})" if names else "")


def template_of(tokenizer: Any) -> OwnTemplate:
    """The chat template of a model's tokenizer.

    Raises:
        InputError: it has none.
    """
    if tokenizer.chat_template is None:
        raise InputError.about(
            "dataset.chat_template",
            NO_TEMPLATE,
            "chat_template=model",
            "train on a preset that has one (an instruct model), or give chatml, llama2 or llama3",
        )
    return OwnTemplate(tokenizer.chat_template, tuple(tokenizer.special_tokens), variables_of(tokenizer))


def variables_of(tokenizer: Any) -> dict[str, Any]:
    """What a template reads of its tokenizer: `bos_token` and `eos_token`, where there are some."""
    ids = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    return {name: tokenizer.decode([id_], skip_special_tokens=False) for name, id_ in ids.items() if id_ is not None}


def _without_space_behind_the_turn(answer: list[Piece]) -> list[Piece]:
    """White space behind the token that ends the assistant's turn is the template's, not the assistant's."""
    if len(answer) > 1 and answer[-2].token is not None and answer[-1].token is None and not answer[-1].text.strip():
        answer[-1] = Piece(answer[-1].text, counts=False)
    return answer


def _apart(value: Any, names: re.Pattern[str], separator: str) -> Any:
    """The same with a separator inside of each special token's name in a text; keys stay."""
    if isinstance(value, str) and names.pattern:
        return names.sub(lambda match: match[0][0] + separator + match[0][1:], value)
    if isinstance(value, Mapping):
        return {key: _apart(entry, names, separator) for key, entry in value.items()}
    if isinstance(value, list):
        return [_apart(entry, names, separator) for entry in value]
    return value
