"""Presets from Hugging Face: huggingface_hub's credentials, listing and cache, at one commit.

The listing at a commit tells size and digest of every file: SHA-256 of large ones, git's SHA-1 of small ones. The
cache is laid out as huggingface_hub does it, `blobs/` named by digest and `snapshots/<commit>/` of links to them, so
that other programs find what is here and the other way round.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import requests

from llama_exp.errors import InputError, Problem
from llama_exp.files.writing import move, replace_link, write_text
from llama_exp.preset.collect import collect, describe_absence, is_cached
from llama_exp.preset.download_errors import WHERE, NoConnection, Server, explain, not_cached, require_answer
from llama_exp.preset.resolved import Resolved
from llama_exp.preset.selection import RemoteFile
from llama_exp.preset.transfer import TIMEOUT, again, digest_of

FORM = "hf://user/repo[@revision]"
CREDENTIALS = "HF_TOKEN, or `hf auth login`"
MAIN = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_REVISION = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")
_DIGESTS = {"sha256": re.compile(r"[0-9a-f]{64}"), "git-sha1": re.compile(r"[0-9a-f]{40}")}
_log = logging.getLogger(__name__)


def fetch(source: str, load_weights: bool, offline: bool) -> Resolved:
    """The model in huggingface_hub's cache, downloaded if it is not there.

    Args:
        source: `hf://user/repo[@revision]`; a revision is a branch, a tag or a commit, without one `main`.
        load_weights: false: configuration and tokenizer only.
        offline: ask nobody; a branch is then what it was when it was last asked for.

    Raises:
        InputError: no such source, or by kind why it could not be had.
    """
    from huggingface_hub import constants

    repo, revision = _parsed(source)
    server = Server(
        name="Hugging Face",
        model=f"{repo}@{revision}",
        source=source,
        page=f"{constants.ENDPOINT}/{repo}",
        endpoint=constants.ENDPOINT,
        credentials=CREDENTIALS,
        cache_variable="HF_HOME",
        cache=Path(constants.HF_HUB_CACHE),
    )
    if offline or constants.HF_HUB_OFFLINE:
        return _from_cache(server, repo, revision, load_weights)
    if COMMIT.fullmatch(revision):
        store = _Store(server, repo, revision)
        if is_cached(store, load_weights):
            return store.resolved()
    try:
        require_answer(server)
        store = _Store(server, repo, *_listing(server, repo, revision))
    except NoConnection as error:
        commit = _known_commit(server, repo, revision)
        if commit is None or _Store(server, repo, commit).absence(load_weights) is not None:
            raise
        _log.warning("%s; commit %s is in the cache and is used", error.problems[0].what, commit)
        return _Store(server, repo, commit).resolved()
    collect(store, load_weights)
    store.remember(revision)
    return store.resolved()


class _Store:
    """One commit of a repository in huggingface_hub's cache."""

    def __init__(self, server: Server, repo: str, commit: str, siblings: Iterable = ()):
        self.server = server
        self._repo, self._commit, self._siblings = repo, commit, siblings
        self._home = _home(server, repo)
        self.folder = self._home / "snapshots" / commit
        self.ledger_path = self._home / ".llama_exp" / f"{commit}.json"

    def files(self) -> Iterator[RemoteFile]:
        """What the repository holds at the commit."""
        for entry in self._siblings:
            kind, value = ("sha256", entry.lfs.sha256) if entry.lfs else ("git-sha1", entry.blob_id)
            if value is not None and not _DIGESTS[kind].fullmatch(value):
                raise ValueError("a digest is none")
            yield RemoteFile(entry.rfilename, entry.size, f"{kind}:{value}" if value else None)

    def ask(self, file: RemoteFile, start: int) -> requests.Response:
        """A stream of the file from `start` on, as far as the server can do that."""
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self._repo, file.name, revision=self._commit, endpoint=constants.ENDPOINT)
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)

    def find(self, file: RemoteFile) -> Path | None:
        """The blob, which another revision or program may have fetched, or a plain file of the snapshot."""
        for path in (self._blob(file.digest) if file.digest else None, self.folder / file.name):
            if path is not None and path.is_file():
                return path
        return None

    def keep(self, file: RemoteFile, path: Path) -> None:
        """Moves a checked file among the blobs and links to it from the snapshot."""
        blobs, pointer = self._home / "blobs", self.folder / file.name
        for folder in (blobs, pointer.parent):
            folder.mkdir(parents=True, exist_ok=True)
        blob = path.resolve()
        if blob.parent != blobs.resolve():  # else it may have a mirror's name, and other snapshots link to it
            blob = self._blob(file.digest or digest_of(path, "sha256:"))
            move(path, blob)
        replace_link(pointer, os.path.relpath(blobs / blob.name, pointer.parent))

    def remember(self, revision: str) -> None:
        """Notes the commit that a branch or tag has, for days without a network."""
        path = self._home / "refs" / revision
        if COMMIT.fullmatch(revision) or (path.is_file() and path.read_text() == self._commit):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self._commit)

    def absence(self, load_weights: bool) -> str | None:
        """Why the commit cannot be used offline; None: it can. A link in a snapshot means a whole file."""
        return describe_absence(self, load_weights, trusted=True)

    def resolved(self) -> Resolved:
        """The snapshot as the result."""
        return Resolved(self.folder, f"hf://{self._repo}", self._commit)

    def _blob(self, digest: str) -> Path:
        return self._home / "blobs" / digest.partition(":")[2]


def _parsed(source: str) -> tuple[str, str]:
    name, at, revision = source.removeprefix("hf://").partition("@")
    parts = name.split("/")
    revision = revision if at else MAIN
    if len(parts) != 2 or not all(map(_NAME.fullmatch, parts)) or not _REVISION.fullmatch(revision):
        raise InputError(Problem("not a Hugging Face repository", WHERE, source, f"write {FORM}"))
    return name, revision


def _home(server: Server, repo: str) -> Path:
    return server.cache / f"models--{repo.replace('/', '--')}"


def _listing(server: Server, repo: str, revision: str) -> tuple[str, list]:
    """The commit that a revision is now, and the repository's files there."""
    from huggingface_hub import HfApi, errors

    api = HfApi(endpoint=server.endpoint)
    try:
        info = again(lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT[1]))
        if not COMMIT.fullmatch(info.sha or "") or (COMMIT.fullmatch(revision) and info.sha != revision):
            raise ValueError("another commit than asked for")
        return info.sha, info.siblings or []
    except (errors.HTTPError, OSError, ValueError, TypeError, KeyError) as error:
        raise explain(server, error, server.cache) from None


def _known_commit(server: Server, repo: str, revision: str) -> str | None:
    """The commit that a revision was when it was last asked for; None: it never was."""
    if COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (_home(server, repo) / "refs" / revision).read_text().strip()
    except (OSError, ValueError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def _from_cache(server: Server, repo: str, revision: str, load_weights: bool) -> Resolved:
    commit = _known_commit(server, repo, revision)
    if commit is None:
        raise not_cached(server, _home(server, repo), f"no commit is known for {revision}")
    store = _Store(server, repo, commit)
    if why := store.absence(load_weights):
        raise not_cached(server, store.folder, why)
    return store.resolved()
