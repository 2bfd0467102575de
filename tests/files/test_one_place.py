"""`files/` is the only place that touches the disk in earnest: what decides over a power cut or a race stands there."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "llama_exp"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {"fcntl", "tempfile"}
CALLS = {"os.replace", "os.rename", "os.renames", "os.fsync", "os.link", "os.symlink", "shutil.move"}
CALLS |= {"hashlib.file_digest", "fcntl.flock", "fcntl.lockf"}
METHODS = {"rename", "symlink_to", "hardlink_to", "flock", "fsync", "file_digest"}
# Where else, and why it must be.
EXCEPTIONS = {
    ("runtime.py", "tempfile"): "a file without a name for what libraries print during an import; nothing is kept",
}


def findings(tree):
    """Every use of the disk's sharp tools in a module, by its name in the lists above."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            yield from names & (MODULES | CALLS)
        elif isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name in CALLS or node.attr in METHODS:
                yield name
        elif isinstance(node, ast.Call) and is_path_replace(node):
            yield "Path.replace"


def is_path_replace(call):
    """`path.replace(target)`: texts are replaced with two arguments, dataclasses and times with names."""
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "replace"
        and len(call.args) == 1
        and not call.keywords
        and ast.unparse(call.func.value) != "dataclasses"
    )


def outside_of_files():
    for path in FILES:
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith("files/"):
            yield from ((place, name) for name in findings(ast.parse(path.read_text())))


def test_nobody_else_replaces_renames_locks_syncs_or_hashes_files():
    assert set(outside_of_files()) - set(EXCEPTIONS) == set()


def test_every_exception_is_still_needed():
    assert set(EXCEPTIONS) <= set(outside_of_files())
    assert all(len(reason.split()) > 5 for reason in EXCEPTIONS.values())


def test_each_of_the_tools_is_used_in_one_module():
    """One way for a file, one for a folder, one lock, one digest."""
    used = {}
    for path in sorted((PACKAGE / "files").glob("*.py")):
        for name in findings(ast.parse(path.read_text())):
            used.setdefault(name, set()).add(path.name)
    assert used["fcntl.flock"] == {"lock.py"}
    assert used["os.replace"] == {"writing.py"}
    assert used["hashlib.file_digest"] == {"digest.py"}
    assert used["os.fsync"] == {"writing.py", "appended_file.py"}


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.replace(a, b)",
        "from os import fsync",
        "path.rename(other)",
        "draft.replace(path)",
        "import fcntl",
        "from tempfile import mkdtemp",
        "import hashlib\nhashlib.file_digest(file, 'sha256')",
    ],
)
def test_the_scan_sees_them(code):
    assert list(findings(ast.parse(code)))


@pytest.mark.parametrize("code", ["text.replace('a', 'b')", "dataclasses.replace(x, a=1)", "hashlib.sha256(b'x')"])
def test_the_scan_sees_nothing_else(code):
    assert not list(findings(ast.parse(code)))
