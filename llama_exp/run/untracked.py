"""Source files that git does not know yet, as part of the patch that `git apply` takes. Imports no framework."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from llama_exp.errors import InputError
from llama_exp.files.json_file import open_regular

# What code and its settings are written in. Others may be data, or secrets such as `.env`.
SUFFIXES = frozenset({".py", ".pyi", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".sh", ".jinja", ".jinja2"})
MAX_FILE_BYTES = 1 << 18
MAX_BYTES = 1 << 21  # of all together
MAX_DIGESTED_BYTES = 1 << 24  # of a file that is too large for the patch
MAX_FILES = 500


def make_patch(root: Path, names: Iterable[str]) -> tuple[str, dict[str, str | None]]:
    """New files as git would write them into a patch.

    Args:
        root: of the repository.
        names: paths below it as `git status` has them; one that it quotes is passed over.

    Returns:
        The patch, "" of no file; and name -> SHA-256 of source files that are too large for it or no text (None: not
        even read).
    """
    patch, left_out = "", {}
    for number, name in enumerate(sorted(names)):
        if Path(name).suffix not in SUFFIXES or name.startswith('"'):
            continue
        content = None if number >= MAX_FILES else _read(root / name)
        text = None if content is None else _as_text(content)
        if text is not None and len(patch) + len(text) <= MAX_BYTES:
            patch += _new_file(name, text, is_program=bool((root / name).stat().st_mode & 0o100))
        else:
            left_out[name] = None if content is None else hashlib.sha256(content).hexdigest()
    return patch, left_out


def _read(path: Path) -> bytes | None:
    """The content; None: a link, nothing to read, or too large."""
    if path.is_symlink():
        return None
    try:
        with open_regular(path) as file:
            content = file.read(MAX_DIGESTED_BYTES + 1)
    except (InputError, OSError):
        return None
    return content if len(content) <= MAX_DIGESTED_BYTES else None


def _as_text(content: bytes) -> str | None:
    """The text, if a patch can hold it whole."""
    if len(content) > MAX_FILE_BYTES or b"\0" in content or b"\r" in content:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _new_file(name: str, text: str, is_program: bool) -> str:
    blob = hashlib.sha1(b"blob %d\0" % len(text.encode()) + text.encode(), usedforsecurity=False).hexdigest()
    head = f"diff --git a/{name} b/{name}\nnew file mode {'100755' if is_program else '100644'}\n"
    head += f"index {'0' * 40}..{blob}\n"
    if not text:
        return head
    lines = text.split("\n")
    ends = lines[-1] == ""
    lines = lines[:-1] if ends else lines
    added = "".join(f"+{line}\n" for line in lines) + ("" if ends else "\\ No newline at end of file\n")
    span = "+1" if len(lines) == 1 else f"+1,{len(lines)}"
    return f"{head}--- /dev/null\n+++ b/{name}{_tab(name)}\n@@ -0,0 {span} @@\n{added}"


def _tab(name: str) -> str:
    return "\t" if " " in name else ""  # as git ends a name with blanks
