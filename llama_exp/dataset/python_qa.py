"""Questions about the standard library with answers from its docstrings, for supervised fine-tuning."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from llama_exp import recipe
from llama_exp.dataset import stdlib
from llama_exp.dataset.builder_dataset import BuilderDataset
from llama_exp.dataset.cache import content_key
from llama_exp.dataset.records import Record, pair
from llama_exp.dataset.stdlib import Documented

_PURPOSE_QUESTIONS = {
    "module": (
        "What is the Python module `{name}` for?",
        "What does the module `{name}` provide?",
        "Describe the module `{name}`.",
    ),
    "class": ("What is the class `{name}`?", "What does the class `{name}` represent?", "Describe the class `{name}`."),
    "function": (
        "What does `{name}{signature}` do?",
        "What is the function `{name}` for?",
        "Explain `{name}{signature}`.",
        "Describe the Python function `{name}`.",
    ),
    "method": (
        "What does `{name}{signature}` do?",
        "What does the method `{name}` do?",
        "Explain `{name}{signature}`.",
        "Describe the Python method `{name}`.",
    ),
}
_SIGNATURE_QUESTIONS = (
    "What is the signature of `{name}`?",
    "How is `{name}` called?",
    "How do I call `{name}`?",
)
_PARAMETER_QUESTIONS = (
    "What are the parameters of `{name}`?",
    "Which parameters does `{name}` take?",
    "Which arguments can I pass to `{name}`?",
)
# A line of code, a table, a heading or a signature is no sentence.
_NO_PROSE = re.compile(r">>>|::|---|===|\*\*\*|->|\|  |^\s*[-*+] |^\w+(\.\w+)*\([^)]*\)$|__main__|@\w+$", re.MULTILINE)


class PythonQA(BuilderDataset):
    """What things in the standard library are for, and how they are called.

    Everything about one object falls on the same side of the split.
    """

    name = "python_qa"
    fields = ("prompt", "completion", "source")

    def source_key(self) -> str:
        """SHA-256 of the Python version and all sources."""
        return content_key(**recipe.PYTHON_QA, sources=stdlib.digest())

    def generate(self) -> Iterator[dict[str, str]]:
        """One to three pairs for each public object with a readable docstring."""
        seen = set()
        for item in stdlib.find_documented():
            if any(part.startswith("_") for part in item.name.split(".")):
                continue
            for question, answer in _pairs(item):
                if question not in seen and stdlib.is_unicode(question + answer):
                    seen.add(question)
                    yield {
                        "prompt": f"Question: {question}\nAnswer:",
                        "completion": f" {answer}",
                        "source": item.name,
                    }

    def record(self, example: dict[str, str]) -> Record:
        """Only the answer counts in the loss."""
        return pair(example["source"], example["prompt"], example["completion"], group=example["source"])

    def _named(self, key: str) -> str:
        return f"{stdlib.python_name()}_{key}"


def _pairs(item: Documented) -> Iterator[tuple[str, str]]:
    answer = _first_sentence_paragraph(item.docstring)
    signature = item.signature if len(item.signature) <= recipe.PYTHON_QA["max_signature_characters"] else ""
    if answer is None:
        return
    purpose = _chosen(_PURPOSE_QUESTIONS[item.kind], item.name)
    yield purpose.format(name=item.name, signature=signature), answer
    if signature:
        yield _chosen(_SIGNATURE_QUESTIONS, item.name).format(name=item.name), f"Call it as `{item.name}{signature}`."
    if item.parameters:
        yield _chosen(_PARAMETER_QUESTIONS, item.name).format(name=item.name), _parameters(item)


def _first_sentence_paragraph(docstring: str) -> str | None:
    """The docstring's first paragraph on one line, as a sentence; None where it is no readable prose."""
    paragraph = re.split(r"\n\s*\n", docstring.strip())[0]
    text = " ".join(paragraph.replace("``", "`").split())
    shortest, longest = (recipe.PYTHON_QA[f"{end}_answer_characters"] for end in ("min", "max"))
    readable = shortest <= len(text) <= longest and len(text.split()) >= 4 and not _NO_PROSE.search(paragraph)
    if not readable or text.endswith(":") or not (text[0].isupper() or text[0] == "`"):
        return None
    return text if text[-1] in ".!?" else f"{text}."


def _parameters(item: Documented) -> str:
    described = [f"`{name}`" + (f" (default `{default}`)" if default else "") for name, default in item.parameters]
    if len(described) == 1:
        return f"`{item.name}` takes one parameter: {described[0]}."
    return f"`{item.name}` takes {len(described)} parameters: {', '.join(described[:-1])} and {described[-1]}."


def _chosen(forms: tuple[str, ...], name: str) -> str:
    return forms[hashlib.sha256(name.encode()).digest()[0] % len(forms)]
