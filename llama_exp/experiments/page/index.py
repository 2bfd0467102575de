"""The index of the pages: every experiment of this package with its verdicts, run or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.experiments.catalogue import Entry, list_experiments
from llama_exp.experiments.verdicts import NOT_RUN
from llama_exp.files.json_file import read_json
from llama_exp.files.writing import write_text
from llama_exp.report.markdown import escape

INDEX = "index.md"
HEAD = """\
<!-- Made by `llama-exp experiment NAME --page`. -->

# Experiments

Published claims, each in small on real data, each stated in YAML before it ran. One command runs an experiment, goes on
with it after an interruption, and ends with a verdict on each claim:

```text
llama-exp experiment NAME
```

*confirmed*: the whole interval lies where the claim expects it; *contradicted*: all of it lies outside; *not seen*:
neither, or the runs do not answer. † stands for a pre-trained model. [Your own experiment](your_own.md)."""


def write_index(pages: Path, config_dir: str | None) -> Path:
    """Writes it from the data beside the pages; returns its path.

    Args:
        pages: the folder of the pages.
        config_dir: the user's own folder of choices, whose experiments are listed too.

    Raises:
        InputError: a page's data is damaged.
        StorageError: it cannot be written.
    """
    path = pages / INDEX
    write_text(path, render_index(list_experiments(config_dir), pages))
    return path


def render_index(entries: list[Entry], pages: Path) -> str:
    """The text: a table of verdicts, and a line for each experiment that was not run."""
    found = {entry.name: _read_data(pages / f"{entry.name}.json") for entry in entries}
    rows = [row for name, data in found.items() if data is not None for row in _list_rows(name, data)]
    parts = [HEAD]
    if rows:
        head = (
            "| experiment | claim | published | expected | obtained | verdict | time |\n|---|---|---:|---|---|---|---:|"
        )
        parts.append("\n".join([head, *rows]))
    left = [entry for entry in entries if found[entry.name] is None]
    if left:
        lines = [f"- `{entry.name}`: {escape(_title_of(entry))}, {NOT_RUN} yet" for entry in left]
        parts.append("\n".join(lines))
    if not entries:
        parts.append("There is none yet.")
    return "\n\n".join(parts) + "\n"


def _list_rows(name: str, data: Mapping[str, Any]) -> Iterator[str]:
    for number, claim in enumerate(data["claims"]):
        mark = " †" if claim["is_pretrained"] else ""
        cells = [
            f"[{escape(str(data['title']))}]({name}.md)" if number == 0 else "",
            escape(f"{claim['statement']}{mark}"),
            "–" if claim["published"] is None else f"{claim['published']:g}",
            escape(str(claim["expected"])),
            escape(str(claim["obtained"])),
            f"[{claim['verdict']}]({name}.md#{claim['name']})",
            f"{data['seconds'] / 60:.0f} min" if number == 0 else "",
        ]
        yield f"| {' | '.join(cells)} |"


def _title_of(entry: Entry) -> str:
    return str(entry.protocol.title) if entry.protocol is not None and entry.protocol.title else entry.name


def _read_data(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    data = read_json(path)
    try:
        list(_list_rows("", data))
    except (KeyError, TypeError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
        raise InputError.about(path, "is no data of a page", found, "write the page again, with --page") from error
    return data
