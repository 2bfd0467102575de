"""One line of a JSON lines file: read as strictly as a model's files, and which of three forms of record it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.dataset import files
from llama_exp.dataset.chat import built_in
from llama_exp.dataset.chat.conversation import WrongConversation, read_messages, read_objects, show
from llama_exp.errors import InputError
from llama_exp.files.json_file import parse_text
from llama_exp.limits.dataset import ChatTemplate

ONE_OBJECT = "each line must be one JSON object"
# Names that other programs give to a prompt and its completion, to a text.
_PAIRS = (
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("problem", "solution"),
)
_TEXTS = ("content", "body", "document", "article")


@dataclass(frozen=True)
class RecordReader:
    """Reads lines of a file.

    text_key, prompt_key, completion_key, messages_key: the names that the file uses. template: how messages become
    text; the built-in ones say here already what they cannot write.
    """

    text_key: str
    prompt_key: str
    completion_key: str
    messages_key: str
    template: ChatTemplate

    def read(self, line: bytes, path: Path, number: int) -> dict[str, Any]:
        """The content of a line: {"text"}, {"prompt", "completion"} or {"messages"} with tools and documents.

        Args:
            line: its bytes.
            path: its file, for messages.
            number: of the line, from 1.

        Raises:
            InputError: the line is no record, with file, line and what is wrong.
        """
        where = f"{path}:{number}"
        item = _parse(files.decode_line(line, path, number), where)
        form = self._form(item, where)
        try:
            if form == "messages":
                return self._conversation(item)
            keys = {"text": self.text_key} if form == "text" else self._pair()
            return {name: _string(item, key) for name, key in keys.items()}
        except WrongConversation as error:
            action = error.action or "text, prompt and completion are strings, messages a list of {role, content}"
            raise InputError.about(where, "a value of the wrong form", str(error), action) from None

    def _pair(self) -> dict[str, str]:
        return {"prompt": self.prompt_key, "completion": self.completion_key}

    def _form(self, item: Mapping[str, Any], where: str) -> str:
        forms = {"text": (self.text_key,), "pair": tuple(self._pair().values()), "messages": (self.messages_key,)}
        present = [form for form, keys in forms.items() if all(key in item for key in keys)]
        if len(present) == 1:
            return present[0]
        wanted = "; or ".join(" and ".join(repr(key) for key in keys) for keys in forms.values())
        what = "more than one form of record" if present else "a record without any of the known keys"
        action = f"one of these is needed: {wanted}"
        if not present:
            action = _suggestion(item) or f"{action} (set dataset.*_key to the names that your file uses)"
        raise InputError.about(where, what, f"keys present: {', '.join(map(repr, item)) or 'none'}", action)

    def _conversation(self, item: Mapping[str, Any]) -> dict[str, Any]:
        messages = read_messages(item[self.messages_key], self.messages_key)
        others = {key: read_objects(item.get(key), key) for key in ("tools", "documents")}
        stated = {key: value for key, value in others.items() if value is not None}
        if self.template is not ChatTemplate.model:
            for key, value in stated.items():
                found = f"{self.template.value} does not write {key}={show(value)}"
                raise WrongConversation(found, f"set dataset.chat_template=model, or remove {key!r} from the record")
            built_in.render(self.template, messages)  # says what this form cannot write
        return {"messages": messages, **stated}


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return parse_text(where, text)
    except InputError as error:
        (problem,) = error.problems
        what, found = problem.what.replace("the file", "the line"), problem.found.removeprefix("line 1, ")
        raise InputError.about(where, what, found, ONE_OBJECT) from None


def _string(item: Mapping[str, Any], key: str) -> str:
    if not isinstance(item[key], str):
        raise WrongConversation(f"{key!r} must be a string, not {type(item[key]).__name__}: {show(item[key])}")
    return item[key]


def _suggestion(item: Mapping[str, Any]) -> str:
    """The keys to set for a record in the shape of another program's; empty where it is in none that is known."""
    for key, value in item.items():
        if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
            action = f"set dataset.messages_key={key if key.isidentifier() else json.dumps(key)}"
            if all({"from", "value"} <= entry.keys() for entry in value):
                action += " and rename in each message 'from' to 'role' (human: user, gpt: assistant) and 'value' to"
                action += " 'content'"
            return action
    for prompt, completion in _PAIRS:
        if prompt in item and completion in item:
            unread = "; its key 'input' is not read: write it into the prompt" if item.get("input") else ""
            unread = "" if "input" in (prompt, completion) else unread
            return f"set dataset.prompt_key={prompt} and dataset.completion_key={completion}{unread}"
    return next((f"set dataset.text_key={key}" for key in _TEXTS if isinstance(item.get(key), str)), "")
