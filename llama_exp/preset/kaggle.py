"""Presets from Kaggle: kagglehub's credentials, protocol and cache; file by file, so that no archive is unpacked.

Kaggle lists names and sizes. The storage behind it sends an MD5 with each file (`x-goog-hash`), except for files
that were uploaded in pieces: those have only a CRC and are checked by size alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

from llama_exp.errors import InputError, Problem
from llama_exp.files.writing import move
from llama_exp.preset.collect import collect, describe_absence, is_cached
from llama_exp.preset.download_errors import (
    WHERE,
    NoConnection,
    Server,
    explain,
    explain_refusal,
    not_cached,
    require_answer,
)
from llama_exp.preset.resolved import Resolved
from llama_exp.preset.selection import RemoteFile
from llama_exp.preset.transfer import TIMEOUT, again

FORM = "kaggle://user/model/keras/variant[/version]"
CREDENTIALS = "KAGGLE_USERNAME and KAGGLE_KEY, or KAGGLE_API_TOKEN, or ~/.kaggle/kaggle.json"
PAGE_SIZE = 100
MAX_PAGES = 100
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_log = logging.getLogger(__name__)


def fetch(source: str, handle: str, load_weights: bool, offline: bool) -> Resolved:
    """The preset in kagglehub's cache, downloaded if it is not there.

    Args:
        source: what the user wrote, for messages.
        handle: `kaggle://user/model/framework/variant[/version]`; without version the newest.
        load_weights: false: configuration and tokenizer only.
        offline: ask nobody; without version the newest one that is cached.

    Raises:
        InputError: no handle, or by kind why it could not be had.
    """
    model = _parsed(source, handle)
    server = _server(source, model)
    if offline:
        return _from_cache(server, model, load_weights)
    client = _Client(server)
    try:
        if not model.is_versioned():
            model = _newest(server, model, client, load_weights)
        store = _Store(server, model, client)
        if not is_cached(store, load_weights):
            client.require_answer()
            collect(store, load_weights)
        return _resolved(store)
    finally:
        client.close()


class _Store:
    """One version in kagglehub's cache: `models/<user>/<model>/<framework>/<variant>/<version>/`."""

    def __init__(self, server: Server, model, client: _Client | None = None):
        from kagglehub import cache

        self.server = server
        self.model = model
        self.folder = Path(cache.get_cached_path(model))
        self.ledger_path = self.folder.parent / ".llama_exp" / f"{model.version}.json"
        self._cache = cache.Cache()
        self._client = client

    def _asking(self) -> _Client:
        if self._client is None:
            raise RuntimeError("a store without a client only looks into the cache")
        return self._client

    def files(self) -> Iterator[RemoteFile]:
        """What the server has; it tells sizes, but no digests."""
        for file in self._asking().files(self.model):
            yield RemoteFile(file.name, file.size if file.size > 0 else None)

    def ask(self, file: RemoteFile, start: int) -> requests.Response:
        """A stream of the file from `start` on if its storage can do that."""
        return self._asking().stream(self.model, file.name, start)

    def find(self, file: RemoteFile) -> Path | None:
        """The file, finished or not: kagglehub writes it in place."""
        path = self.folder / file.name
        return path if path.is_file() else None

    def keep(self, file: RemoteFile, path: Path) -> None:
        """Moves a checked file to its place, where kagglehub finds it too."""
        place = self.folder / file.name
        if path != place:
            place.parent.mkdir(parents=True, exist_ok=True)
            move(path, place)
        self._cache.mark_as_complete(self.model, file.name)

    def absence(self, load_weights: bool) -> str | None:
        """Why the version cannot be used offline; None: it can."""
        return describe_absence(self, load_weights, trusted=self._cache.load_from_cache(self.model) is not None)


class _Client:
    """kagglehub's client with time limits, which its own requests lack; opened when it is first needed."""

    def __init__(self, server: Server):
        self._server = server
        self._open = None
        self._answered = False

    def require_answer(self) -> None:
        """Fails soon if there is no network."""
        if not self._answered:
            require_answer(self._server)
            self._answered = True

    def newest(self, model) -> int:
        """The number of the newest version."""
        from kagglesdk.models.types.model_api_service import ApiGetModelInstanceRequest

        request = _request(ApiGetModelInstanceRequest, model)
        number = again(lambda: self._call("get_model_instance", request)).version_number
        if number < 1:
            raise ValueError("no version number")
        return number

    def files(self, model) -> Iterator:
        """Every entry of the list of files, page by page."""
        from kagglesdk.models.types.model_api_service import ApiListModelInstanceVersionFilesRequest

        request = _request(ApiListModelInstanceVersionFilesRequest, model)
        request.version_number = model.version
        request.page_size = PAGE_SIZE
        for _ in range(MAX_PAGES):
            page = again(lambda: self._call("list_model_instance_version_files", request))
            yield from page.files or ()
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
        raise ValueError("the list of files does not end")

    def stream(self, model, name: str, start: int) -> requests.Response:
        """One file's stream; the storage that Kaggle forwards to is asked for the rest alone."""
        from kagglesdk.models.types.model_api_service import ApiDownloadModelInstanceVersionRequest

        request = _request(ApiDownloadModelInstanceVersionRequest, model)
        request.version_number = model.version
        request.path = name
        response = self._call("download_model_instance_version", request)
        if not start or not response.history:
            return response
        response.close()
        headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
        return requests.get(response.url, headers=headers, stream=True, timeout=TIMEOUT)

    def close(self) -> None:
        """Closes the connections."""
        if self._open is not None:
            self._open.__exit__(None, None, None)

    def _call(self, name: str, request):
        client = self._opened()
        try:
            return getattr(client.models.model_api_client, name)(request)
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code < 400:  # the status stands in the body
                raise explain_refusal(self._server, int(error.response.json()["code"])) from error
            raise
        except (TypeError, KeyError, AttributeError) as error:  # kagglesdk's, when it fills its objects
            raise ValueError("not an answer of Kaggle's") from error

    def _opened(self):
        if self._open is None:
            from kagglehub.clients import build_kaggle_client

            try:
                self._open = build_kaggle_client().__enter__()
            except ValueError as error:
                what = "the file with Kaggle's credentials cannot be understood"
                raise self._server.error(what, f"correct it, or give credentials otherwise: {CREDENTIALS}") from error
            session = self._open.http_client()._session
            session.headers["Accept-Encoding"] = "identity"
            for scheme in ("https://", "http://"):
                session.mount(scheme, _Patient())
        return self._open


class _Patient(HTTPAdapter):
    """Gives requests without a time limit one."""

    def send(self, request, timeout=None, **options):
        """As `HTTPAdapter.send`."""
        return super().send(request, timeout=timeout or TIMEOUT, **options)


def _parsed(source: str, handle: str):
    from kagglehub.handle import parse_model_handle

    name = handle.removeprefix("kaggle://")
    parts = name.split("/")
    try:
        if len(parts) not in (4, 5) or not all(map(_PART.fullmatch, parts)):
            raise ValueError(f"{len(parts)} parts" if len(parts) not in (4, 5) else "a part is no name")
        model = parse_model_handle(name)
        if len(parts) == 5 and not model.is_versioned():
            raise ValueError("versions count from 1")
        model.framework_enum()
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(Problem(f"not a Kaggle model handle: {reason}", WHERE, source, f"write {FORM}")) from None
    return model


def _server(source: str, model) -> Server:
    from kagglehub.config import CACHE_FOLDER_ENV_VAR_NAME, get_cache_folder
    from kagglesdk import kaggle_env

    return Server(
        name="Kaggle",
        model=str(model),
        source=source,
        page=model.with_version(0).to_url(),
        endpoint=kaggle_env.get_endpoint(kaggle_env.get_env()),
        credentials=CREDENTIALS,
        cache_variable=CACHE_FOLDER_ENV_VAR_NAME,
        cache=Path(get_cache_folder()),
    )


def _request(kind: Callable, model):
    request = kind()
    request.owner_slug, request.model_slug = model.owner, model.model
    request.framework, request.instance_slug = model.framework_enum(), model.variation
    return request


def _newest(server: Server, model, client: _Client, load_weights: bool):
    """The handle with its newest version; without a network the newest in the cache."""
    try:
        client.require_answer()
        return model.with_version(client.newest(model))
    except NoConnection as error:
        versions = _cached_versions(server, model, load_weights)
        if not versions:
            raise
        _log.warning("%s; version %d is the newest in the cache and is used", error.problems[0].what, versions[-1])
        return model.with_version(versions[-1])
    except (OSError, ValueError) as error:  # requests' are OSErrors too
        raise explain(server, error, server.cache) from None


def _cached_versions(server: Server, model, load_weights: bool) -> list[int]:
    """Numbers of the versions that can be used without a network, the newest last."""
    folder = _Store(server, model.with_version(1)).folder.parent
    numbers = [int(path.name) for path in folder.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(
        number for number in numbers if _Store(server, model.with_version(number)).absence(load_weights) is None
    )


def _from_cache(server: Server, model, load_weights: bool) -> Resolved:
    if not model.is_versioned():
        versions = _cached_versions(server, model, load_weights)
        if not versions:
            raise not_cached(server, _Store(server, model.with_version(1)).folder.parent, "no version is there whole")
        model = model.with_version(versions[-1])
    store = _Store(server, model)
    if why := store.absence(load_weights):
        raise not_cached(server, store.folder, why)
    return _resolved(store)


def _resolved(store: _Store) -> Resolved:
    model = store.model
    origin = f"kaggle://{model.owner}/{model.model}/{model.framework}/{model.variation}"
    return Resolved(store.folder, origin, str(model.version))
