"""One revision of a model from a server into a client library's cache: each file checked before it appears there.

First the small files, so that a model which is no Llama is refused before its weights are fetched.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import requests

from llama_exp.errors import StorageError
from llama_exp.files.lock import held
from llama_exp.formats import read_architecture
from llama_exp.preset.download_errors import Server, explain, require_space
from llama_exp.preset.ledger import Ledger
from llama_exp.preset.selection import (
    CONFIG_FILE,
    RemoteFile,
    check_names,
    has_weights,
    is_whole,
    select_small_files,
    select_weight_files,
    weight_table,
)
from llama_exp.preset.transfer import download, matches

_log = logging.getLogger(__name__)


class Store(Protocol):
    """Where the files of one revision live in a cache, and how the server is asked for one.

    Attributes:
        server: whom to ask.
        folder: where the files appear under their names.
        ledger_path: this package's record of the revision, beside the cache's own files.
    """

    server: Server
    folder: Path
    ledger_path: Path

    def files(self) -> Iterable[RemoteFile]:
        """What the server has."""
        ...

    def ask(self, file: RemoteFile, start: int) -> requests.Response:
        """A stream of a file's bytes from `start` on, or of the whole file."""
        ...

    def find(self, file: RemoteFile) -> Path | None:
        """The file in the cache, whoever put it there; nothing is known of its content."""
        ...

    def keep(self, file: RemoteFile, path: Path) -> None:
        """Makes a checked file, which may still be a part's, appear in `folder`."""
        ...


def is_cached(store: Store, load_weights: bool) -> bool:
    """Whether everything was fetched, checked, and is unchanged; asks no server."""
    return Ledger(store.ledger_path, store.folder).is_whole(load_weights)


def describe_absence(store: Store, load_weights: bool, trusted: bool) -> str | None:
    """Why the cache does not have the revision; None: it has it.

    Args:
        store: the revision.
        load_weights: whether the weights are needed.
        trusted: whether files without a record count, because another program put them there whole.
    """
    ledger = Ledger(store.ledger_path, store.folder)
    if ledger.is_whole(load_weights):
        return None
    if changed := ledger.changed():
        return f"{', '.join(changed[:3])} was changed or deleted since it was checked"
    if trusted and is_whole(store.folder, load_weights):
        _log.info("%s was put there by another program and is not checked against the server", store.folder)
        return None
    return "only a part is there" if store.folder.exists() else "nothing is there"


def collect(store: Store, load_weights: bool) -> None:
    """Brings the revision into the cache, or the rest of it; one process at a time.

    Raises:
        InputError: by kind why it could not be had.
    """
    work = store.ledger_path.parent
    try:
        work.mkdir(parents=True, exist_ok=True)
        with held(store.ledger_path.with_suffix(".lock"), "another process is fetching this preset; waiting for it"):
            ledger = Ledger(store.ledger_path, store.folder)
            if ledger.is_whole(load_weights):
                return
            files = check_names(store.server, store.files())
            names = select_small_files(files)
            if CONFIG_FILE not in names:
                raise store.server.error(
                    f"it has no {CONFIG_FILE}, so it is neither a KerasHub preset nor a transformers checkpoint",
                    "give another model, or a folder or .gguf file on this machine",
                )
            _bring(store, ledger, [files[name] for name in names])
            names += _weights(store, ledger, files) if load_weights else []
            if ledger.weights:
                names += [name for name in ledger.names if name not in names]
            ledger.complete(names, load_weights or ledger.weights)
    except StorageError as error:  # the ledger's, whose advice is about run folders
        cause = error.__cause__
        raise explain(store.server, cause if isinstance(cause, Exception) else error, work) from None
    except (OSError, ValueError) as error:  # requests' are OSErrors too
        raise explain(store.server, error, work) from None


def _weights(store: Store, ledger: Ledger, files: Mapping[str, RemoteFile]) -> list[str]:
    """Fetches the weights, and a table of shards before them; returns their names."""
    if not has_weights(store.folder):  # the reader looks into those that are there, and they are not checked yet
        read_architecture(store.folder)
    table = weight_table(store.server, store.folder, files)
    names = []
    if table is not None:
        _bring(store, ledger, [files[table]])
        names.append(table)
    names += select_weight_files(store.server, store.folder, files)
    _bring(store, ledger, [files[name] for name in names])
    return names


def _bring(store: Store, ledger: Ledger, wanted: Sequence[RemoteFile]) -> None:
    """Fetches what is missing, unchecked and wrong, or changed since it was checked."""
    missing = []
    for file in wanted:
        if not ledger.has(file.name) and not _adopted(store, ledger, file):
            missing.append(file)
    parts = {file.name: _part(store, file) for file in missing}
    left = {file.name: (file.size or 0) - _size(parts[file.name]) for file in missing}
    require_space(store.server, store.ledger_path.parent, sum(max(0, bytes) for bytes in left.values()))
    for file in missing:
        part = parts[file.name]
        part.parent.mkdir(exist_ok=True)
        with _progress(file, _size(part)) as advance:
            digest = download(store.server, file, partial(store.ask, file), part, advance)
        store.keep(file, part)
        ledger.add(file.name, digest)
    if missing and not any(_part(store, missing[0]).parent.iterdir()):
        _part(store, missing[0]).parent.rmdir()


def _adopted(store: Store, ledger: Ledger, file: RemoteFile) -> bool:
    """Whether the cache has the file already, put there by another program or for another revision; wrong ones go."""
    path = store.find(file)
    if path is None:
        return False
    same, digest = matches(file, lambda start: store.ask(file, start), path)
    if not same:
        _log.warning("%s in the cache is not what the server has; it is fetched anew", path)
        path.unlink()
        return False
    store.keep(file, path)
    ledger.add(file.name, digest)
    return True


def _part(store: Store, file: RemoteFile) -> Path:
    return store.ledger_path.with_suffix(".parts") / f"{quote(file.name, safe='')}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _progress(file: RemoteFile, there: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line in a log."""
    from rich import progress
    from rich.console import Console

    size = f"{file.size:,} bytes" if file.size is not None else "size unknown"
    _log.info("fetching %s (%s%s)", file.name, size, f", {there:,} there" if there else "")
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(file.name, total=file.size, completed=there)
        yield lambda count: bar.advance(task, count)
