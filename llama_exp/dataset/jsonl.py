"""JSON lines: text, prompt and completion, or chat messages."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from llama_exp import recipe
from llama_exp.dataset import files
from llama_exp.dataset.builder_dataset import BuilderDataset
from llama_exp.dataset.cache import content_key
from llama_exp.dataset.chat import built_in
from llama_exp.dataset.chat.own_template import OwnTemplate, template_of
from llama_exp.dataset.json_record import RecordReader
from llama_exp.dataset.records import Record, document, pair
from llama_exp.limits import choose
from llama_exp.limits.dataset import LIMITS, ChatTemplate

_RENDERED_AT_ONCE = 512  # conversations, in one process


class Jsonl(BuilderDataset):
    """One JSON object a line; blank lines are skipped.

    A record has one of: `text_key` (a string, all of it counts in the loss); `prompt_key` and `completion_key` (two
    strings, joined as they are, only the completion counts); `messages_key` (a list of {"role", "content"}, only the
    assistant's turns count). Other keys are not read, but for `tools` and `documents` beside messages.

    Args:
        files: A path or glob pattern, or several.
        text_key: As above; so are the next three.
        prompt_key: As above.
        completion_key: As above.
        messages_key: As above.
        chat_template: How messages become text; `model`: as the tokenizer's own template says, see `use_tokenizer`.
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
        self._own_template: OwnTemplate | None = None

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
            chat_template=self.chat_template.value,  # says which lines can be written
        )

    def generate(self) -> Iterator[dict[str, str]]:
        """The records in the order of files and lines; `source` is file:line."""
        keys = (self.text_key, self.prompt_key, self.completion_key, self.messages_key)
        reader = RecordReader(*keys, template=self.chat_template)
        for path in files.resolve(self.files):
            try:
                with open(path, "rb") as lines:
                    for number, line in enumerate(lines, start=1):
                        if line.strip() and line.strip() != b"\xef\xbb\xbf":
                            record = json.dumps(reader.read(line, path, number))
                            yield {"record": record, "source": f"{path.name}:{number}"}
            except OSError as error:
                raise files.explain_unreadable(error) from None

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Under `chat_template=model`, takes the template of the tokenizer's model, which is then in the fingerprint.

        Raises:
            InputError: the tokenizer has none.
        """
        if self.chat_template is ChatTemplate.model:
            self._own_template = template_of(tokenizer)

    @property
    def fingerprint(self) -> str:
        """As `Dataset` says; with the model's own template, once `use_tokenizer` has told it."""
        if self._own_template is None:
            return super().fingerprint
        return content_key(documents=super().fingerprint, chat_template=self._own_template.fingerprint)

    def documents(self) -> Iterator[tuple[str, Record]]:
        """Every record with its split."""
        if self.chat_template is not ChatTemplate.model:
            yield from super().documents()
            return
        if self._own_template is None:
            raise ValueError("jsonl: call use_tokenizer(tokenizer) first: the template of its model makes the text")
        documents = super().documents()
        while batch := list(itertools.islice(documents, _RENDERED_AT_ONCE)):
            yield from self._rendered(batch, self._own_template)

    def record(self, example: dict[str, str]) -> Record:
        """Text, pair or conversation; with a model's own template, a conversation is without pieces yet."""
        content, source = json.loads(example["record"]), example["source"]
        if "text" in content:
            return document(source, content["text"])
        if "prompt" in content:
            return pair(source, content["prompt"], content["completion"])
        own = self.chat_template is ChatTemplate.model
        pieces = () if own else built_in.render(self.chat_template, content["messages"])
        return Record(source, pieces, example["record"])

    def _rendered(self, batch: list[tuple[str, Record]], template: OwnTemplate) -> Iterator[tuple[str, Record]]:
        waiting = [record for _, record in batch if not record.pieces]
        conversations = [json.loads(record.group) for record in waiting]
        made = iter(template.render(conversations, [record.source for record in waiting]) if waiting else ())
        for split, record in batch:
            yield split, record if record.pieces else dataclasses.replace(record, pieces=next(made))
