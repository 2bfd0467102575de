"""One file over HTTP: resumed where it broke off, checked before it counts.

The client libraries' own downloads are not used for this. kagglehub 1.0.2 writes into the final place, trusts a file
whose size is right, unpacks what arrives as .zip, has no time limit and no lock; huggingface_hub 2.4.0 starts at zero
when a process died, and takes the name of the file in its cache from a header of the server.
"""

from __future__ import annotations

import hashlib
import logging
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator
from pathlib import Path

import requests

from llama_exp.files.digest import file_digest
from llama_exp.files.writing import write_blocks
from llama_exp.preset.download_errors import Server
from llama_exp.preset.selection import RemoteFile

# Seconds until a connection stands, and between two packets.
TIMEOUT = (5.0, 20.0)
# Between attempts that bring nothing new.
RETRY_WAITS = (0.5, 2.0)
BLOCK = 1 << 20
GOOGLE_HASH = "x-goog-hash"
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_log = logging.getLogger(__name__)

Ask = Callable[[int], requests.Response]


def download(server: Server, remote: RemoteFile, ask: Ask, part: Path, advance: Callable[[int], None]) -> str | None:
    """Brings `part`, which may hold the beginning, to the whole file.

    Args:
        server: for messages.
        remote: what is expected.
        ask: opens a stream of the file from a byte on; the answer may be the whole file all the same (status 200).
        part: written here; gone if its content turned out wrong.
        advance: is told of every number of bytes that arrive.

    Returns:
        The digest that the content was compared with; None where the server offers none, which leaves the size alone.

    Raises:
        InputError: the file is truncated or not what the server says it is.
        requests.RequestException: no connection, or refused.
    """
    if part.exists() and remote.size is not None and part.stat().st_size >= remote.size:
        same, digest = matches(remote, ask, part)
        if same:
            return digest
        part.unlink()
    digest, size = _attempts(remote, ask, part, advance)
    digest = remote.digest or digest
    _check(server, remote, part, digest, size)
    return digest


def again(call: Callable):
    """The result of `call`, tried again after passing failures: a broken connection, an error of the server."""
    waits = list(RETRY_WAITS)
    while True:
        try:
            return call()
        except Exception as error:  # the client libraries share no base class; what is not passing goes on
            if not waits or not _is_passing(error):
                raise
            time.sleep(waits.pop(0))


def matches(remote: RemoteFile, ask: Ask, path: Path) -> tuple[bool, str | None]:
    """Whether a file on disk is the server's, and the digest that says so (None: by size alone)."""
    if remote.size is not None and path.stat().st_size != remote.size:
        return False, None
    digest, size = remote.digest, remote.size
    if digest is None:
        with ask(0) as response:
            response.raise_for_status()
            digest, size = offered_digest(response), size if size is not None else _total(response, 0)
    if digest is not None:
        return digest_of(path, digest) == digest, digest
    return path.stat().st_size == size, None


def offered_digest(response: requests.Response) -> str | None:
    """The MD5 of Google's storage, as `md5:<hex>`; None where the header is absent or has only a CRC."""
    for entry in response.headers.get(GOOGLE_HASH, "").split(","):
        name, _, value = entry.strip().partition("=")
        if name == "md5":
            try:
                return f"md5:{b64decode(value, validate=True).hex()}"
            except Base64Error:
                return None
    return None


def digest_of(path: Path, like: str) -> str:
    """The digest of a file in the kind that `like` has."""
    kind = like.partition(":")[0]
    hasher = hashlib.new({"git-sha1": "sha1"}.get(kind, kind), usedforsecurity=False)
    if kind == "git-sha1":
        hasher.update(b"blob %d\0" % path.stat().st_size)
    return f"{kind}:{file_digest(path, hasher)}"


def _attempts(remote: RemoteFile, ask: Ask, part: Path, advance) -> tuple[str | None, int | None]:
    """Reads until the stream ends by itself; tries again while that brings more than was ever there."""
    waits, furthest = list(RETRY_WAITS), -1
    while True:
        try:
            return _stream(ask, part, advance)
        except (*BROKEN, requests.HTTPError) as error:
            if not _is_passing(error):
                raise
            there = part.stat().st_size if part.exists() else 0
            if there > furthest and furthest >= 0:
                waits = list(RETRY_WAITS)
            furthest = max(furthest, there)
            if not waits:
                raise
            _log.warning("%s broke off after %d bytes (%s); once more", remote.name, there, type(error).__name__)
            time.sleep(waits.pop(0))


def _stream(ask: Ask, part: Path, advance) -> tuple[str | None, int | None]:
    """One attempt; returns the digest offered and the whole size, None where the server does not say."""
    start = part.stat().st_size if part.exists() else 0
    with ask(start) as response:
        if response.status_code == 416:  # the part is longer than the file
            part.unlink()
            raise requests.ConnectionError("the part on disk does not belong to this file")
        response.raise_for_status()
        if start and not _continues(response, start):
            start = 0
        write_blocks(part, _arriving(response, advance), start)
        return offered_digest(response), _total(response, start)


def _arriving(response: requests.Response, advance: Callable[[int], None]) -> Iterator[bytes]:
    """The answer's blocks; each counts as soon as it is written, when the next is asked for."""
    for block in response.iter_content(BLOCK):
        yield block
        advance(len(block))


def _is_passing(error: Exception) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error, BROKEN) if status is None else status >= 500 or status == 408


def _continues(response: requests.Response, start: int) -> bool:
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _total(response: requests.Response, start: int) -> int | None:
    """Size of the whole file by the headers; None for an encoded body, whose length is another."""
    length = response.headers.get("Content-Length", "")
    if not length.isdigit() or response.headers.get("Content-Encoding", "identity") != "identity":
        return None
    return start + int(length)


def _check(server: Server, remote: RemoteFile, part: Path, digest: str | None, size: int | None) -> None:
    """A digest decides; without one the size must be the listed one."""
    there = part.stat().st_size
    again = "run the same command: this file is fetched anew; if it happens again, its host is at fault"
    if digest is None:
        expected = remote.size if remote.size is not None else size
        if expected is not None and there != expected:
            part.unlink()
            raise server.error(f"{remote.name} is truncated: {there} of {expected} bytes", again)
        return
    found = digest_of(part, digest)
    if found != digest:
        part.unlink()
        if remote.size is not None and there != remote.size:
            raise server.error(f"{remote.name} is truncated: {there} of {remote.size} bytes", again)
        raise server.error(f"{remote.name} is damaged or was replaced: its digest is {found}, expected {digest}", again)
