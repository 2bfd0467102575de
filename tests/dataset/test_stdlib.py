"""The standard library's documentation, read without importing it."""

import ast
import itertools

import pytest

from llama_exp.dataset import stdlib


@pytest.fixture(scope="module")
def items():
    return {item.name: item for item in stdlib.find_documented()}


def function(source):
    (node,) = ast.parse(source).body
    inside_class = isinstance(node, ast.ClassDef)
    return next(item for item in stdlib._definitions([node], "m", False) if item.kind in ("function", "method")), (
        inside_class
    )


@pytest.mark.parametrize(
    ("source", "signature", "parameters"),
    [
        ("def f(a, b=1, *c, d, e=None, **g): 'doc'", "(a, b=1, *c, d, e=None, **g)", "a b=1 d e=None"),
        ("def f(a: int, b: str = 'x', /) -> None: 'doc'", "(a, b='x', /)", "a b='x'"),
        ("async def f(): 'doc'", "()", ""),
        ("class C:\n def f(self, a=1): 'doc'", "(a=1)", "a=1"),
        ("class C:\n def f(self=None, a=1): 'doc'", "(a=1)", "a=1"),
        ("class C:\n def f(self, /, a): 'doc'", "(a)", "a"),
        ("class C:\n @staticmethod\n def f(a, b=2): 'doc'", "(a, b=2)", "a b=2"),
        ("class C:\n @classmethod\n def f(cls, *, a): 'doc'", "(*, a)", "a"),
        ("class C:\n def f(*args): 'doc'", "(*args)", ""),
    ],
)
def test_signatures_are_read_from_the_source(source, signature, parameters):
    item, inside_class = function(source)
    assert item.signature == signature
    assert " ".join(name + (f"={default}" if default else "") for name, default in item.parameters) == parameters
    assert item.kind == ("method" if inside_class else "function")


def test_definitions_under_conditions_are_found_and_inner_functions_are_not():
    source = (
        "if x:\n def a(): 'A'\nelse:\n try:\n  def b(): 'B'\n except E:\n  def c(): 'C'\n"
        "def d():\n 'D'\n def e(): 'E'\n"
    )
    found = [item.name for item in stdlib._definitions(ast.parse(source).body, "m", False)]
    assert found == ["m.a", "m.b", "m.c", "m.d"]


def test_source_files_and_built_ins_are_covered(items):
    assert items["textwrap.wrap"].signature == "(text, width=70, **kwargs)"
    assert items["textwrap.wrap"].docstring.startswith("Wrap a single paragraph of text")
    assert items["str.split"].signature == "(sep=None, maxsplit=-1)"
    assert items["str.split"].parameters == (("sep", "None"), ("maxsplit", "-1"))
    assert items["json"].kind == "module"
    assert items["json.decoder.JSONDecoder"].kind == "class"
    assert not [name for name in items if name.split(".")[0] in ("test", "idlelib", "hypothesis", "pytest", "numpy")]


def test_nothing_depends_on_the_process(items):
    assert not [item for item in items.values() if " at 0x" in item.signature]
    again = [item.name for item in itertools.islice(stdlib.find_documented(), 50)]
    assert again == list(items)[:50]


def test_topics_are_prose():
    topics = dict(stdlib.read_topics())
    assert "topics.assert" in topics
    assert "statement" in topics["topics.assert"]


def test_a_python_without_topics_gives_none(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(stdlib.importlib, "import_module", missing)
    assert list(stdlib.read_topics()) == []


def test_digest_follows_version_and_sources(monkeypatch, tmp_path):
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").write_text("'doc'")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "json.py").write_text("'not ours'")
    (tmp_path / "unknown_module.py").write_text("'not ours'")
    monkeypatch.setattr(stdlib.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    assert stdlib._sources() == {"json": tmp_path / "json" / "__init__.py"}
    first = stdlib.digest()
    assert stdlib.digest() == first
    (tmp_path / "json" / "__init__.py").write_text("'other'")
    second = stdlib.digest()
    monkeypatch.setattr(stdlib, "python_name", lambda: "cpython9.9.9")
    assert len({first, second, stdlib.digest()}) == 3


def test_sources_that_are_no_python_are_passed_over(monkeypatch, tmp_path):
    (tmp_path / "json.py").write_text("{{ template }} is no module")
    (tmp_path / "csv.py").write_text("'the csv module'")
    monkeypatch.setattr(stdlib.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    assert [item.docstring for item in stdlib.find_documented() if item.kind == "module"] == ["the csv module"]


def test_half_a_surrogate_pair_is_no_unicode():
    assert stdlib.is_unicode("é😀")
    assert not stdlib.is_unicode("\ud83d")
