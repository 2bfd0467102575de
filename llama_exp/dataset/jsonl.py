"""JSON lines: text, prompt and completion, or chat messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llama_exp import recipe
from llama_exp.dataset import chat, files
from llama_exp.dataset.builder_dataset import BuilderDataset
from llama_exp.dataset.cache import content_key
from llama_exp.dataset.records import Record, document, pair
from llama_exp.errors import InputError, Problem
from llama_exp.limits import choose
from llama_exp.limits.dataset import LIMITS, ChatTemplate


class Jsonl(BuilderDataset):
    """One JSON object a line; blank lines are skipped.

    A record has one of: `text_key` (a string, all of it counts in the loss); `prompt_key` and `completion_key` (two
    strings, joined as they are, only the completion counts); `messages_key` (a list of {"role", "content"}, only the
    assistant's turns count).

    Args:
        files: A path or glob pattern, or several.
        text_key: As above; so are the next three.
        prompt_key: As above.
        completion_key: As above.
        messages_key: As above.
        chat_template: How messages become text.
        **options: See `Dataset`.
    """

    name = "jsonl"
    fields = ("record", "source")

    def __init__(
        self,
        *,
        files: str | Sequence[str],
        text_key: str,
        prompt_key: str,
        completion_key: str,
        messages_key: str,
        chat_template: ChatTemplate | str,
        **options: Any,
    ):
        super().__init__(**options)
        keys = {"text_key": text_key, "prompt_key": prompt_key, "completion_key": completion_key}
        self.files = [files] if isinstance(files, str) else list(files)
        LIMITS.require(files=self.files, messages_key=messages_key, **keys)
        self.text_key, self.prompt_key, self.completion_key = text_key, prompt_key, completion_key
        self.messages_key = messages_key
        self.chat_template = choose(ChatTemplate, chat_template, "dataset.chat_template")

    @property
    def record_options(self) -> dict[str, Any]:
        """Messages are stored as such; the template makes text of them."""
        return {"chat_template": self.chat_template.value}

    def look(self) -> None:
        """Fails if a pattern names no file, or a file that is no text."""
        files.resolve(self.files)

    def source_key(self) -> str:
        """SHA-256 of the files' bytes, names and the keys."""
        paths = files.resolve(self.files)
        return content_key(
            **recipe.JSONL,
            names=[path.name for path in paths],
            digests=files.digest_files(paths),
            keys=[self.text_key, self.prompt_key, self.completion_key, self.messages_key],
        )

    def generate(self) -> Iterator[dict[str, str]]:
        """The records in the order of files and lines; `source` is file:line."""
        for path in files.resolve(self.files):
            try:
                with open(path, "rb") as lines:
                    for number, line in enumerate(lines, start=1):
                        if line.strip() and line.strip() != b"\xef\xbb\xbf":
                            yield {"record": self._parse(line, path, number), "source": f"{path.name}:{number}"}
            except OSError as error:
                raise files.explain_unreadable(error) from None

    def record(self, example: dict[str, str]) -> Record:
        """Text, pair or conversation."""
        content, source = json.loads(example["record"]), example["source"]
        if "text" in content:
            return document(source, content["text"])
        if "prompt" in content:
            return pair(source, content["prompt"], content["completion"])
        return Record(source, chat.render(self.chat_template, content["messages"]), example["record"])

    def _parse(self, line: bytes, path: Path, number: int) -> str:
        """The content of one line as JSON with the keys text, prompt and completion, or messages."""

        def wrong(what: str, found: str, action: str) -> InputError:
            return InputError(Problem(what=what, where=f"{path}:{number}", found=found, action=action))

        try:
            item = json.loads(files.decode_line(line, path, number))
        except (ValueError, RecursionError) as error:
            raise wrong("not JSON", f"{error}", "each line must be one JSON object") from None
        if not isinstance(item, dict):
            raise wrong("not a JSON object", type(item).__name__, "each line must be one JSON object") from None
        forms = {
            "text": (self.text_key,),
            "prompt and completion": (self.prompt_key, self.completion_key),
            "messages": (self.messages_key,),
        }
        present = [form for form, keys in forms.items() if all(key in item for key in keys)]
        if len(present) != 1:
            what = "more than one form of record" if present else "a record without any of the known keys"
            wanted = "; or ".join(" and ".join(repr(key) for key in keys) for keys in forms.values())
            action = f"one of these is needed: {wanted} (set dataset.*_key to the names that your file uses)"
            raise wrong(what, f"keys present: {', '.join(map(repr, item)) or 'none'}", action)
        try:
            content = self._content(item, present[0])
            json.dumps(content, ensure_ascii=False).encode()
            if present[0] == "messages":
                chat.render(self.chat_template, content["messages"])
        except UnicodeEncodeError:
            action = "write the character itself or the whole surrogate pair"
            raise wrong("half a surrogate pair", "an escape such as \\ud83d alone", action) from None
        except ValueError as error:
            action = "text, prompt and completion are strings, messages a list of {role, content}"
            raise wrong("a value of the wrong form", str(error), action) from None
        return json.dumps(content)

    def _content(self, item: dict[str, Any], form: str) -> dict[str, Any]:
        if form == "text":
            return {"text": _string(item, self.text_key)}
        if form == "messages":
            return {"messages": _messages(item[self.messages_key], self.messages_key)}
        return {"prompt": _string(item, self.prompt_key), "completion": _string(item, self.completion_key)}


def _string(item: dict[str, Any], key: str) -> str:
    if not isinstance(item[key], str):
        raise ValueError(f"{key!r} must be a string, not {type(item[key]).__name__}")
    return item[key]


def _messages(messages: Any, key: str) -> list[tuple[str, str]]:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError(f"{key!r} must be a list of objects")
    for message in messages:
        if message.get("role") not in chat.ROLES or not isinstance(message.get("content"), str):
            roles = ", ".join(chat.ROLES)
            raise ValueError(f"each of {key!r} needs a role ({roles}) and a string content, not {sorted(message)}")
    return [(message["role"], message["content"]) for message in messages]
