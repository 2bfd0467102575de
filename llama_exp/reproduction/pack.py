"""A run as one archive: what somebody else needs to see what was done, and to do it again.

    config.yaml  overrides.yaml          what was asked for
    run.json  sources.json  git.diff     what it ran on: versions, code, fingerprints of data, tokenizer and preset
    metrics.jsonl  evaluation.jsonl      what came out
    samples.md  summary.json             likewise
    adapter/                             with `adapter`
    data/<number>/                       with `data`: files that the config names
    README.md  MANIFEST.json             how to reproduce it; SHA-256 of every file

Left out: checkpoints, whole models, logs; and whose machine it was: names of hosts, the home folder, secrets.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError, Problem, StorageError
from llama_exp.files.archive import Entry, write_archive
from llama_exp.files.json_file import open_regular, read_record
from llama_exp.files.json_text import dump_json
from llama_exp.files.redact import redact
from llama_exp.results import RunResult
from llama_exp.results.outcome import WEIGHTS
from llama_exp.results.state import PATCH_FILE, SOURCES_FILE

TEXTS = ("config.yaml", "overrides.yaml", "metrics.jsonl", "evaluation.jsonl", "samples.md", "summary.json")
MAX_TEXT_BYTES = 1 << 26  # of one of these files
MAX_DATA_BYTES = 1 << 28  # of all data files
MAX_ADAPTER_BYTES = 1 << 30
_HOST_KEYS = frozenset({"host"})
# Folders that are so general that their names stand in ordinary text.
_SHORTEST_FOLDER = 4
_DATA_KEYS = (("dataset", "files"), ("tokenizer", "file"))


def pack(run: RunResult, path: Path, adapter: bool = False, data: bool = False) -> dict[str, int]:
    """Writes the archive; the same run gives the same bytes.

    Args:
        run: any run, also one that did not finish.
        path: the archive; it must not exist.
        adapter: whether the trained adapter goes in.
        data: whether the data files that the config names go in.

    Returns:
        Name in the archive -> bytes before packing.

    Raises:
        InputError: there is no adapter, or data files are gone or too large.
        StorageError: `path` exists or cannot be written.
    """
    if os.path.lexists(path):
        raise StorageError(Problem("is there already", "--to", str(path), "name another file, or remove it"))
    hide = _Hidden(run)
    entries: dict[str, Entry] = {name: hide(text).encode() for name, text in _read_texts(run.folder, TEXTS)}
    entries |= {name: redact(text).encode() for name, text in _read_texts(run.folder, [PATCH_FILE])}  # it must apply
    entries["run.json"] = hide(dump_json(_without_hosts(run.record), indent=2) + "\n").encode()
    entries |= {SOURCES_FILE: _sources(run.folder)} if (run.folder / SOURCES_FILE).exists() else {}
    entries |= _adapter(run) if adapter else {}
    packed, files = _data(run, hide) if data else ({}, {})
    entries |= files
    entries["README.md"] = _readme(run, path.name, packed).encode()
    facts = {"what": "a run of llama_exp", "schema": 1, "name": run.config.get("name"), "data": packed}
    write_archive(path, entries, facts)
    return {name: entry.stat().st_size if isinstance(entry, Path) else len(entry) for name, entry in entries.items()}


class _Hidden:
    """Takes the places of one machine out of a text."""

    def __init__(self, run: RunResult):
        working_folder = run.record.get("working_folder")
        places = {str(run.folder): run.folder.name, str(Path.home()): "~"}
        places |= {working_folder: "."} if isinstance(working_folder, str) else {}
        known = sorted((place for place in places if len(place) >= _SHORTEST_FOLDER), key=len, reverse=True)
        self._places = places
        self._pattern = re.compile("|".join(f"{re.escape(place)}(?![\\w.-])" for place in known)) if known else None

    def __call__(self, text: str) -> str:
        """The text with `.`, `~` and relative names, and without secrets."""
        text = redact(text)
        return text if self._pattern is None else self._pattern.sub(lambda match: self._places[match[0]], text)


def _read_texts(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        path = folder / name
        if path.exists():
            with open_regular(path) as file:
                content = file.read(MAX_TEXT_BYTES + 1)
            if len(content) > MAX_TEXT_BYTES:
                action = "remove from the run folder what does not belong there"
                raise InputError.about(path, "is too large to be packed", f"more than {MAX_TEXT_BYTES} bytes", action)
            yield name, content.decode("utf-8", "backslashreplace")


def _sources(folder: Path) -> bytes:
    return (dump_json(read_record(folder / SOURCES_FILE) or {}, indent=1) + "\n").encode()


def _without_hosts(record: Any) -> Any:
    if isinstance(record, Mapping):
        return {key: _without_hosts(value) for key, value in record.items() if key not in _HOST_KEYS}
    return [_without_hosts(value) for value in record] if isinstance(record, list) else record


def _adapter(run: RunResult) -> dict[str, Entry]:
    folder = run.folder / "adapter"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        action = (
            "leave --adapter out" if run.config.get("lora", {}).get("rank") else "leave --adapter out: no LoRA here"
        )
        raise InputError.about(folder, "the run has no adapter", "no such folder, or an empty one", action)
    _require_size(folder, files, MAX_ADAPTER_BYTES, "leave --adapter out, and send the folder by other means")
    return {f"adapter/{path.relative_to(folder).as_posix()}": path for path in files}


def _data(run: RunResult, hide: _Hidden) -> tuple[dict[str, list[str]], dict[str, Entry]]:
    """Recorded path, as the packed config has it -> names in the archive; and those files."""
    packed: dict[str, list[str]] = {}
    found: dict[str, Entry] = {}
    for pattern in _recorded_files(run):
        files = _find(pattern, run.record.get("working_folder"))
        if not files:
            action = "leave --data out, or put the file back where the config has it"
            raise InputError.about(run.folder / "config.yaml", "a data file is gone", pattern, action)
        names = [f"data/{len(found) + number}/{_plain(file.name)}" for number, file in enumerate(files)]
        packed[hide(pattern)] = names
        found |= dict(zip(names, files, strict=True))
    paths = [entry for entry in found.values() if isinstance(entry, Path)]
    _require_size(
        run.folder, paths, MAX_DATA_BYTES, "leave --data out; `reproduce --data <folder>` finds them elsewhere"
    )
    return packed, found


def _recorded_files(run: RunResult) -> Iterator[str]:
    for section, key in _DATA_KEYS:
        node = run.config.get(section)
        value = node.get(key) if isinstance(node, Mapping) else None
        yield from (entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str))


def _find(pattern: str, working_folder: object) -> list[Path]:
    """The files that a recorded path or pattern means, in the order in which a run reads them."""
    bases = ["", *([working_folder] if isinstance(working_folder, str) else [])]
    for base in bases:
        typed = os.path.join(base, os.path.expanduser(pattern))
        names = [typed] if os.path.isfile(typed) else sorted(glob.glob(typed, recursive=True))
        files = [Path(name) for name in names if os.path.isfile(name)]
        if files:
            return files
    return []


def _plain(name: str) -> str:
    """A file's name as an archive may have it; fingerprints hold names, so that one with other letters is refused."""
    if not name.isascii() or len(name) > 80 or ":" in name or "\\" in name:
        action = "leave --data out; `reproduce --data <folder>` finds the file elsewhere"
        raise InputError.about(name, "a data file's name is not plain ASCII, and cannot be packed", name, action)
    return name


def _require_size(where: Path, files: list[Path], limit: int, action: str) -> None:
    size = sum(path.stat().st_size for path in files)
    if size > limit:
        raise InputError.about(where, "is too large to be packed", f"{size} bytes, limit {limit}", action)


def _readme(run: RunResult, archive: str, packed: Mapping[str, list[str]]) -> str:
    figures, weights = (_section(run.summary, name) for name in ("validation", WEIGHTS))
    packages, git = (_section(run.record, name) for name in ("packages", "git"))
    names = ("llama_exp", "keras", "tensorflow", "jax", "numpy")
    versions = ", ".join(f"{name} {packages[name]}" for name in names if packages.get(name))
    facts = {
        "status": run.status,
        "steps": run.summary.get("steps"),
        "validation loss": figures.get("last"),
        "seconds": run.summary.get("seconds"),
        "processor": run.record.get("cpu"),
        "backend, threads": f"{run.record.get('backend')}, {run.record.get('threads')}",
        "versions": versions,
        "commit": git.get("commit"),
        "trained weights (SHA-256)": weights.get("trained"),
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in facts.items() if value is not None)
    return _README.format(archive=archive, table=table, data=_PACKED if packed else _NOT_PACKED)


def _section(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = record.get(name)
    return section if isinstance(section, Mapping) else {}


_README = """# A run of llama_exp

| what | value |
|---|---|
{table}
Reproduce it, in any folder with llama_exp installed:

```bash
llama-exp reproduce {archive} --check       # what differs here, before anything is trained
llama-exp reproduce {archive}               # train again and compare
llama-exp reproduce {archive} --steps 20    # a quick look
```

It ends bit-identical or within tolerance (exit code 0), or different (8). {data}
`run.json` has every installed package, `git.diff` what differed from the commit: `git checkout <commit>`, then
`git apply git.diff`. MANIFEST.json has the SHA-256 of every file.
"""
_PACKED = "The data files are inside.\n"
_NOT_PACKED = """Data files are not inside. If the config names
any, they are looked for where it says, or under `--data <folder>`, and compared by fingerprint.
"""
