"""A page in files: the text, a picture for each claim, the verdicts as data, and the index over all of those."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_exp.config.schema.protocol import ProtocolConfig
from llama_exp.experiments.page.check import write_check
from llama_exp.experiments.page.claims import is_pretrained, write_claim, write_verdicts
from llama_exp.experiments.page.clean import Cleaner
from llama_exp.experiments.page.gather import DISCUSSION, Contents, gather
from llama_exp.experiments.page.history import count_seconds, write_commands, write_history
from llama_exp.experiments.page.index import write_index
from llama_exp.experiments.page.runs import write_runs
from llama_exp.experiments.request import Request
from llama_exp.experiments.verdicts import name_verdict, show_obtained
from llama_exp.files.json_text import plain
from llama_exp.files.writing import make_folder, write_json, write_text
from llama_exp.report.claims import show_expected
from llama_exp.report.markdown import escape
from llama_exp.report.pictures.claims import draw_claim

NOTE = "<!-- Made by `llama-exp experiment {name} --page` from the runs' own files. What people think: {file} -->"


def write_page(request: Request, pages: Path) -> Iterator[Path]:
    """Writes the files, each as it is named.

    Args:
        request: the experiment, as it was run.
        pages: their folder, made if needed; `discussion/<name>.md` in it is included.

    Raises:
        InputError: it was not run, or a record is damaged.
        StorageError: a file cannot be written.
    """
    contents = gather(request, pages)
    clean = Cleaner(contents.record.get("models") or {})
    make_folder(pages)
    pictures: dict[str, str] = {}
    for result in contents.results:
        if result.obtained is not None:
            path = pages / f"{contents.name}-{result.name}.png"
            draw_claim(result, path)
            pictures[result.name] = path.name
            yield path
    page, data = pages / f"{contents.name}.md", pages / f"{contents.name}.json"
    write_text(page, write_markdown(contents, pictures, clean))
    yield page
    write_json(data, summarize(contents, clean))
    yield data
    if not request.is_quick and not request.changes:
        yield write_index(pages, request.config_dir)


def write_markdown(contents: Contents, pictures: dict[str, str], clean: Cleaner) -> str:
    """The text. pictures: claim -> file beside the page."""
    protocol, file = contents.protocol, f"{DISCUSSION}/{contents.request.name}.md"
    claims = [write_claim(result, pictures.get(result.name), clean) for result in contents.results]
    absent = f"Nobody has written down yet what they think of it; it goes into {file}."
    parts = [
        NOTE.format(name=contents.request.name, file=file),
        f"# {escape(protocol.title or contents.request.name)}",
        _tell_source(protocol),
        _tell_variant(contents),
        write_verdicts(contents),
        "## Method",
        (protocol.method or "").strip() or "Not described.",
        "## What is different from the paper",
        "\n".join(f"- {line.strip()}" for line in protocol.differences) or "Nothing is said of it.",
        "## Claims",
        *claims,
        "## What we think of it",
        contents.discussion or absent,
        "## How it ran",
        write_history(contents),
        "## Run it again",
        write_commands(contents, clean),
        "## Check one number by hand",
        write_check(contents, clean),
        "## Runs",
        write_runs(contents, clean),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summarize(contents: Contents, clean: Cleaner) -> dict[str, Any]:
    """The verdicts as data, from which the index is made where the runs are not."""
    return plain(
        {
            "name": contents.request.name,
            "title": contents.protocol.title,
            "seconds": round(count_seconds(contents), 1),
            "claims": [
                {
                    "name": result.name,
                    "statement": result.claim.statement,
                    "is_pretrained": is_pretrained(contents, result),
                    "published": result.claim.published,
                    "expected": show_expected(result.claim.expected.low, result.claim.expected.high),
                    "obtained": show_obtained(result),
                    "value": None if result.obtained is None else result.obtained.value,
                    "low": None if result.obtained is None else result.obtained.low,
                    "high": None if result.obtained is None else result.obtained.high,
                    "verdict": name_verdict(result),
                    "reason": clean(result.reason),
                }
                for result in contents.results
            ],
        }
    )


def _tell_source(protocol: ProtocolConfig) -> str:
    source = protocol.source
    if source is None:
        return "It repeats nothing that was published."
    return f"After {escape(source.authors)} ({source.year}), [{escape(source.title)}]({source.url})."


def _tell_variant(contents: Contents) -> str:
    if contents.request.is_quick:
        return "**The quick variant: it shows that everything works, and its figures mean nothing.**"
    return ""
