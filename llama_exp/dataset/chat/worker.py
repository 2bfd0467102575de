"""What runs in the process of `sandbox`: a model's Jinja template over conversations, as transformers runs it.

Where a text shall be learned from, the answer says which stretches of it the assistant wrote. A template with
`{% generation %}` says it itself. Of another one it is found by prefix: a message of the assistant is what the text up
to it, with the announcement of the assistant's turn, lacks to the text with it. That needs a template that never
changes what it wrote before; the one that does is refused.
"""

from __future__ import annotations

import datetime
import json
import re
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

# As transformers looks for the mark.
GENERATION = re.compile(r"\{\%-?\s*generation\s*-?\%\}")
# What a message's reasoning is called, the name that templates read first.
REASONING = ("reasoning_content", "thinking", "reasoning")
_SHOWN = 30  # characters of either text where two part
Spans = list[tuple[int, int]]


class _NoPrefix(ValueError):
    """A template changes what it wrote before, or hides what the assistant wrote."""


def serve() -> None:
    """Answers one request from standard input, as JSON, to standard output: the process that `sandbox.run` starts."""
    request = json.load(sys.stdin)
    limits = request["limits"]
    resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"], limits["seconds"]))
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"], limits["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    json.dump(answer(request), sys.stdout)


def answer(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each conversation its text, or what is wrong.

    Args:
        request: `template`; `variables` that every conversation has; `conversations`, each with `messages` and what
            else it has; `date`, ISO, that the template takes for today, if it is there; `spans`, whether to say what
            the assistant wrote; `limits`, see `sandbox`.

    Returns:
        {"text"}; with `spans` also "spans", (begin, end) of what the assistant wrote, and "by_prefix", whether that is
        one for each of its messages, found by prefix. Where something is wrong: {"what", "found"}.
    """
    limits = request["limits"]
    marks = Marks()
    make = _text_and_spans if request.get("spans") else _text_alone
    found: list[dict[str, Any]] = []
    template: jinja2.Template | None = None
    for conversation in request["conversations"]:
        try:
            template = template or _environment(marks, request.get("date")).from_string(request["template"])
            made = make(_Renderer(template, marks, request, conversation))
        except Exception as error:  # a template may make Python raise anything: an index, a type, a range too large
            found.append(_describe(error, limits))
            continue
        if len(made["text"]) > limits["characters"]:
            size = f"{len(made['text'])} characters, limit {limits['characters']}"
            made = {"what": "the chat template writes too much", "found": size}
        found.append(made)
    return found


class Marks:
    """Where `{% generation %}` stood in the text that is being written."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begins another text."""
        self.blocks: list[str] = []
        self.spans: Spans = []
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        """Takes what stands between the marks, which follows the blocks so far."""
        begin = sum(map(len, self.blocks))
        self.spans.append((begin, begin + len(text)))
        self.texts.append(text)


class _Renderer:
    """One conversation, of which parts can be rendered."""

    def __init__(self, template: jinja2.Template, marks: Marks, request: Mapping, conversation: Mapping):
        self._template, self._marks, self.source = template, marks, request["template"]
        self.messages = [_as_transformers(message) for message in conversation["messages"]]
        self._variables = {
            "tools": None,
            "documents": None,
            **request["variables"],
            **{key: value for key, value in conversation.items() if key != "messages"},
        }

    def text(self, count: int | None = None, **changes: Any) -> str:
        """The text of the first `count` messages; its marks are in `marks`."""
        self._marks.clear()
        for block in self._template.generate(messages=self.messages[:count], **{**self._variables, **changes}):
            self._marks.blocks.append(block)
        return "".join(self._marks.blocks)

    def marked(self) -> tuple[Spans, list[str]]:
        """Places and texts between the marks of the last text."""
        return list(self._marks.spans), list(self._marks.texts)


def _as_transformers(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without what is null, its reasoning under both names that templates read."""
    made = {key: value for key, value in message.items() if value is not None}
    reasoning = next((made[name] for name in REASONING if name in made), None)
    return made if reasoning is None else {"thinking": reasoning, **made, "reasoning_content": reasoning}


def _text_alone(renderer: _Renderer) -> dict[str, Any]:
    return {"text": renderer.text()}


def _text_and_spans(renderer: _Renderer) -> dict[str, Any]:
    text = renderer.text(add_generation_prompt=False)
    if GENERATION.search(renderer.source):
        spans, texts = renderer.marked()
        if any(text[begin:end] != own for (begin, end), own in zip(spans, texts, strict=True)):
            raise _NoPrefix("a {% generation %} inside of a macro, a filter or a set, where its place is not known")
        return {"text": text, "spans": spans, "by_prefix": False}
    numbers = [number for number, message in enumerate(renderer.messages) if message["role"] == "assistant"]
    return {"text": text, "spans": [_span(renderer, number, text) for number in numbers], "by_prefix": True}


def _span(renderer: _Renderer, number: int, text: str) -> tuple[int, int]:
    before = renderer.text(number, add_generation_prompt=True)
    after = renderer.text(number + 1, add_generation_prompt=False)
    for prefix, whole, meaning in (
        (before, after, f"what announces message {number} is not what comes before it"),
        (after, text, f"the text up to message {number} is another one once messages follow"),
    ):
        if not whole.startswith(prefix):
            at = next((at for at, (a, b) in enumerate(zip(prefix, whole, strict=False)) if a != b), len(whole))
            parts = f"{prefix[at : at + _SHOWN]!r} against {whole[at : at + _SHOWN]!r}"
            raise _NoPrefix(f"{meaning}: after {at} characters {parts}")
    return len(before), len(after)


def _describe(error: Exception, limits: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(error, _NoPrefix):
        return {"what": "the chat template does not show what the assistant wrote", "found": str(error)}
    if isinstance(error, jinja2.TemplateSyntaxError):
        return {"what": "the chat template is not valid Jinja", "found": f"line {error.lineno}: {error.message}"}
    if isinstance(error, jinja2.sandbox.SecurityError):
        return {"what": "the chat template does what templates must not", "found": str(error)[:300]}
    if isinstance(error, jinja2.TemplateError):
        return {"what": "the chat template refuses the conversation", "found": str(error)[:300]}
    if isinstance(error, MemoryError):
        found = f"more than {limits['memory_bytes'] >> 20} MiB"
        return {"what": "the chat template takes too much memory", "found": found}
    return {"what": "the chat template fails", "found": f"{type(error).__name__}: {error}"[:300]}


def _environment(marks: Marks, date: str | None) -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """Jinja with what transformers offers to templates."""

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks the assistant's words for training; the text is the same without it."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

        def _write(self, caller: Callable[[], str]) -> str:
            text = caller()
            marks.note(text)
            return text

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    today = datetime.datetime.fromisoformat(date) if date else datetime.datetime.now()
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = today.strftime
    environment.globals["dict"] = _Dictionaries()
    environment.globals["namespace"] = _Namespace
    return environment


class _Dictionaries:
    """`dict` for templates: it can be called, and has nothing of the type to climb out with."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """`namespace` for templates: it takes no name that begins with an underscore."""

    def __init__(self, /, *args: Any, **kwargs: Any):
        values = dict(*args, **kwargs)
        for name in values:
            _require_open_name(name)
        super().__init__(values)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_open_name(name)
        super().__setitem__(name, value)


def _require_open_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.sandbox.SecurityError(f"a namespace takes no name such as {name!r}")


def _raise_exception(message: str):
    raise jinja2.TemplateError(message)


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
