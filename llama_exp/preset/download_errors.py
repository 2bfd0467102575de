"""Why a preset could not be had, in words: what is wrong, the value, and the ways out. Shows no server text or query.

What a server answers, and the signed addresses that it forwards to, can hold secrets. So messages are made of the
status alone.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from llama_exp.errors import InputError, Problem
from llama_exp.files.redact import printable, redact

WHERE = "preset.source"
# A dropped packet must not cost minutes: a host that has not answered in this time counts as out of reach.
ANSWER_SECONDS = 2.5
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}
_QUERY = re.compile(r"\?[^\s'\")>]*")
_LONGEST = 200
_NETWORK = (ConnectionError, TimeoutError)


class NoConnection(InputError):
    """The server did not answer: what is cached may serve instead."""


@dataclass(frozen=True)
class Server:
    """Whom a preset is asked from, for messages.

    Attributes:
        name: Kaggle or Hugging Face.
        model: what is asked for, as the server calls it.
        source: the user's `preset.source`.
        page: the model's page, where its licence is.
        endpoint: address of the programming interface.
        credentials: where the client looks for them.
        cache_variable: environment variable that moves the cache.
        cache: the cache's folder.
    """

    name: str
    model: str
    source: str
    page: str
    endpoint: str
    credentials: str
    cache_variable: str
    cache: Path

    def error(self, what: str, action: str) -> InputError:
        """The failure of this source: `what` went wrong, and what to do."""
        return InputError(Problem(f"{self.name} ({self.model}): {what}", WHERE, printable(self.source), action))


def explain(server: Server, error: Exception, folder: Path) -> InputError:
    """The failure in words, whatever library it comes from; `folder` is where the download was going.

    To be raised `from None`: a traceback would show what the message leaves out.
    """
    code = next((link.errno for link in _chain(error) if isinstance(link, OSError) and link.errno is not None), None)
    if code in NO_SPACE:
        return no_space(server, folder, None)
    if code in NOT_WRITABLE or (type(error).__module__ == "builtins" and not isinstance(error, _NETWORK) and code):
        return server.error(
            f"the download cannot be written to {folder}: {os.strerror(code)}",
            f"make the folder writable, or set {server.cache_variable}=<another folder>",
        )
    response = getattr(error, "response", None)
    if response is not None and response.status_code >= 400:
        return explain_refusal(server, response.status_code, response.headers.get("X-Error-Code", ""))
    if isinstance(error, ValueError | TypeError | KeyError):
        return server.error(
            f"the answer of {server.endpoint} is not what this version understands ({type(error).__name__})",
            "check for a proxy or login page in between, update the client library, or give a local copy: "
            "preset.source=<folder>",
        )
    return no_connection(server, shown(error))


def explain_refusal(server: Server, status: int, code: str = "") -> InputError:
    """What an HTTP status means here; `code` is Hugging Face's X-Error-Code."""
    local = "or give a local copy: preset.source=<folder>"
    if status == 403 or code == "GatedRepo":
        return server.error(
            f"the download is forbidden ({status}): the licence is not accepted, or the account may not see the model",
            f"accept the licence on {server.page} and give that account's credentials ({server.credentials}), {local}",
        )
    if status == 401:
        return server.error(
            "credentials are missing or wrong (401), or there is no such model",
            f"check the name on {server.page} and give credentials: {server.credentials}, {local}",
        )
    if status == 404:
        missing = {"RevisionNotFound": "revision", "EntryNotFound": "file", "RepoNotFound": "model"}
        return server.error(
            f"there is no such {missing.get(code, 'model, version or file')} (404)",
            f"check the spelling and the versions on {server.page}, {local}",
        )
    if status == 429:
        return server.error(
            "too many requests (429)", "wait some minutes and run the same command; what has arrived is kept"
        )
    if status >= 500:
        return server.error(
            f"the server has an error of its own ({status}), also when asked again",
            f"run the same command later (what has arrived is kept), {local}",
        )
    return server.error(f"the server refuses the request ({status})", f"check the name on {server.page}, {local}")


def no_connection(server: Server, reason: str) -> NoConnection:
    """No network, a host that is silent, or a connection that broke too often."""
    error = server.error(
        f"no connection to {server.endpoint}: {reason}",
        f"one of: (1) a network, and credentials where the licence asks for them ({server.credentials}); (2) a local "
        f"copy, preset.source=<folder>; (3) a cache filled elsewhere, {server.cache_variable} (here {server.cache}) "
        "with preset.offline=true. Or preset=none: random weights",
    )
    return NoConnection(*error.problems)


def no_space(server: Server, folder: Path, needed: int | None) -> InputError:
    """The disk is full, or would be."""
    import shutil

    free = shutil.disk_usage(_existing(folder)).free
    amount = f"needs {needed:,} bytes and " if needed is not None else ""
    return server.error(
        f"the disk is too full: the download {amount}{folder} has {free:,} bytes free",
        f"free some space, or set {server.cache_variable}=<a folder on a larger disk>; what has arrived is kept",
    )


def require_space(server: Server, folder: Path, needed: int) -> None:
    """Fails if `needed` more bytes do not fit on the disk of `folder`."""
    import shutil

    if needed > shutil.disk_usage(_existing(folder)).free:
        raise no_space(server, folder, needed)


def not_cached(server: Server, folder: Path, why: str) -> InputError:
    """Offline, and the cache does not have it."""
    return server.error(
        f"offline, and the cache does not have it: {why}; looked in {folder}",
        f"run once with preset.offline=false and a network (HF_HUB_OFFLINE unset), point {server.cache_variable} to a "
        "cache that has it, or give a local copy: preset.source=<folder>",
    )


def require_answer(server: Server) -> None:
    """Fails if the host swallows packets; every other failure is left to the client, which knows it better."""
    import requests

    outcome: list[Exception] = []
    answered = threading.Event()

    def ask() -> None:
        try:
            requests.head(server.endpoint, timeout=ANSWER_SECONDS, allow_redirects=False)
        except (requests.RequestException, OSError) as error:
            outcome.append(error)
        answered.set()

    # A thread, because no timeout covers the name lookup; a daemon, because it may outlive the answer.
    threading.Thread(target=ask, daemon=True).start()
    if not answered.wait(ANSWER_SECONDS) or any(isinstance(error, requests.Timeout) for error in outcome):
        raise no_connection(server, f"no answer within {ANSWER_SECONDS} s")
    if any(isinstance(error, requests.ConnectionError | socket.gaierror) for error in outcome):
        raise no_connection(server, shown(outcome[0]))


def _chain(error: BaseException | None):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def shown(error: BaseException) -> str:
    """Kind and innermost reason of an error, without the queries of addresses and without secrets."""
    reason = printable(redact(_QUERY.sub("?...", " ".join(str(list(_chain(error))[-1]).split()))))
    reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
