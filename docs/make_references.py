"""Writes docs/reference/: configuration, commands, exit codes, and the tables of the Python API.

python docs/make_references.py          write the pages
python docs/make_references.py --check  exit 1 if one is not current (a test does this too)
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.cli import COMMANDS, usage
from llama_exp.config.check import check_arguments, to_dict
from llama_exp.config.check.conversion import describe_type
from llama_exp.config.reference import Key, Part, choices, meaning_of, parts, single_values

FOLDER = Path(__file__).resolve().parent / "reference"
NOTE = "<!-- Made by docs/make_references.py from the package: change it there. -->\n\n"
COLUMNS = "100"


def configuration() -> str:
    """Every part, choice and key."""
    defaults = to_dict(check_arguments([]).config)
    lines = [
        NOTE + "# Configuration\n",
        "Every part, its choices and its keys. A choice is a file in `conf/<part>/`: `model=llama_15m` takes one. A",
        "key is set by its dotted name: `optimizer.learning_rate=1e-4`. `llama-exp train --cfg job` prints the result.",
        "",
        "A default is that of the plain command, `python train.py`. A key without one belongs to other choices of its",
        "part: `python train.py schedule=wsd --cfg job` shows which keys a choice has, and their values there.",
        "",
        "In an editor with YAML support, `llama-exp schema --write llama_exp.schema.json` and this line near the top",
        "of a file of yours complete keys, show this text and mark mistakes. In an experiment or a sweep it stands",
        "below `# @package _global_`, which must be the first line:",
        "",
        "```yaml",
        "# yaml-language-server: $schema=llama_exp.schema.json",
        "```",
        "",
        "## Single values\n",
        *_table(single_values(), defaults),
    ]
    for part in parts():
        lines += ["", *_section(part, defaults[part.name])]
    for group in ("experiment", "sweep"):
        lines += ["", f"## {group}\n", *_choices(group, choices(group))]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """The help of every command."""
    lines = [NOTE + "# Commands\n", "```text", usage(), "```"]
    for name in COMMANDS:
        lines += ["", f"## {name}\n", "```text", _help(name).rstrip(), "```"]
    return "\n".join(line.rstrip() for line in "\n".join(lines).splitlines()) + "\n"


PAGES = {"configuration.md": configuration, "commands.md": commands}


def main() -> int:
    """Writes or compares the pages; returns the exit code."""
    stale = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if "--check" not in sys.argv:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path.name))
    if stale:
        print(f"not current: {', '.join(stale)}; run: python docs/make_references.py", file=sys.stderr)
    return 1 if stale else 0


def _section(part: Part, defaults: Mapping[str, Any]) -> list[str]:
    return [
        f"## {part.name}\n",
        part.docstring,
        "",
        *_choices(part.name, part.choices),
        "",
        *_table(part.keys, defaults, f"{part.name}."),
    ]


def _choices(group: str, named: dict[str, str]) -> list[str]:
    rows = [f"| `{group}={name}` | {_cell(text)} |" for name, text in named.items()]
    return ["| choice | what it is |", "|---|---|", *rows]


def _table(keys: dict[str, Key], defaults: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Rows of keys; a default is that of the plain command, and a key that it does not have shows none."""
    rows = [
        f"| `{prefix}{name}` | {_cell(describe_type(key.hint))} "
        f"| {_default(name, defaults)} | {_cell(meaning_of(key))} |"
        for name, key in keys.items()
    ]
    return ["| key | type | default | meaning |", "|---|---|---|---|", *rows] if rows else []


def _default(name: str, defaults: Mapping[str, Any]) -> str:
    if name not in defaults:
        return ""
    value = "~/.cache/llama_exp" if name == "cache_dir" else defaults[name]  # whatever this machine's variables say
    return f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    """Text in a table, without characters that Markdown takes for a link, a tag or a column."""
    for character, written in (("|", "\\|"), ("\n", " "), ("<", "&lt;"), ("[", "\\["), ("*", "\\*")):
        text = text.replace(character, written)
    return text


def _help(command: str) -> str:
    """What `llama-exp <command> --help` prints, at a fixed width."""
    from llama_exp import cli

    os.environ["COLUMNS"] = COLUMNS
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main([command, "--help"])
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


if __name__ == "__main__":
    sys.exit(main())
