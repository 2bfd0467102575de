"""Code of the standard library: what is left out of it, and that it shares no document with the prose."""

import ast
import textwrap

from llama_exp.dataset import PythonCode, stdlib

OPTIONS = {"sequence_length": 64, "packing": "concat", "overlong": "split", "validation_fraction": 0.1}
SOURCE = '''
"""Of the module."""
import os


# A comment.
def one(a, b=2):
    """Of the function.

    Two lines.
    """
    def inner():
        "only a docstring"
    return {'text': "kept: no docstring"}  # another


class Two(dict):
    """Of the class."""

    def method(self):
        """Of the method."""
        "a text that would be the docstring then"
        return self


async def three():
    pass
'''
EXPECTED = {
    "m.one": "def one(a, b=2):\n\n    def inner():\n        pass\n    return {'text': 'kept: no docstring'}",
    "m.Two": "class Two(dict):\n\n    def method(self):\n        return self",
    "m.three": "async def three():\n    pass",
}


def test_docstrings_and_comments_are_left_out(monkeypatch):
    monkeypatch.setattr(stdlib, "_trees", lambda: iter([("m", ast.parse(SOURCE))]))
    assert dict(stdlib.find_code()) == EXPECTED


def test_documents_are_long_enough_and_no_copies(monkeypatch, tmp_path):
    codes = [f"def f{number}():\n    return '{'x' * 120}'" for number in range(40)]
    found = [(f"m.f{number}", code) for number, code in enumerate([*codes, codes[0], "class C:\n    pass"])]
    monkeypatch.setattr(stdlib, "find_code", lambda: iter(found))
    monkeypatch.setattr(stdlib, "digest", lambda: "d1")
    dataset = PythonCode(**OPTIONS)
    dataset.open(tmp_path)
    assert sorted([*dataset.texts("train"), *dataset.texts("validation")]) == sorted(codes)


def test_the_librarys_own_code_is_code_and_no_prose():
    """Of `textwrap`, which every Python has: it can be compiled, and its own docstrings are not in it."""
    code = {name: text for name, text in stdlib.find_code() if name.startswith("textwrap.")}
    assert {"textwrap.TextWrapper", "textwrap.dedent"} <= code.keys()
    for text in code.values():
        compile(text, "textwrap", "exec")
    assert "Remove any common leading whitespace" in textwrap.dedent.__doc__
    assert "Remove any common leading whitespace" not in "".join(code.values())
