"""A folder to Kaggle, by kagglehub's own upload: a new model instance, or a new version of one that is there."""

from __future__ import annotations

import re
from collections.abc import Callable

from llama_exp.preset.outgoing import Outgoing
from llama_exp.preset.push_errors import Destination, explain

FORM = "kaggle://user/model/framework/variation"
CREDENTIALS = "KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def destination(target: str) -> Destination:
    """Where `kaggle://user/model/framework/variation` leads.

    Raises:
        InputError: it is no such handle.
    """
    from kagglesdk import kaggle_env

    environment = kaggle_env.get_env()
    web = kaggle_env.get_web_endpoint(environment)
    handle = target.removeprefix("kaggle://")
    endpoint = kaggle_env.get_endpoint(environment)
    found = Destination("Kaggle", target, f"{web}/models/{handle}", endpoint, f"{web}/settings", CREDENTIALS)
    parts = handle.split("/")
    if len(parts) != 4 or not all(map(_PART.fullmatch, parts)):
        raise found.error("not the handle of a model", f"write {FORM}; Kaggle counts the versions itself")
    _require_framework(found, handle)
    return found


def push(outgoing: Outgoing, place: Destination, message: str, tell: Callable[[str], None]) -> str:
    """Sends the files; makes the model, which is private then, and the instance where there are none.

    Args:
        outgoing: what to send.
        place: of `destination`.
        message: notes of the version.
        tell: shows a line.

    Returns:
        Address of the model.

    Raises:
        InputError: there are no credentials, no network, or the server refuses.
    """
    import kagglehub
    from kagglehub.config import get_kaggle_credentials
    from kagglehub.exceptions import BackendError

    try:
        credentials = get_kaggle_credentials()
    except ValueError:
        what = "the file with Kaggle's credentials cannot be understood"
        raise place.error(what, f"correct it, or give credentials otherwise: {CREDENTIALS}") from None
    if credentials is None:
        raise place.no_token()
    place.require_answer()
    handle = place.target.removeprefix("kaggle://")
    tell("Kaggle makes new models private; its page changes that")
    try:
        kagglehub.model_upload(handle, str(outgoing.folder), version_notes=message)
    except BackendError as error:
        if error.error_code is None:  # its text may hold anything
            what = "the server took the files and then refused the model"
            action = f"look at {place.page}: is the name free, and the account confirmed?"
            raise place.error(what, action) from None
        raise explain(place, error) from None
    except Exception as error:  # requests', kagglesdk's
        raise explain(place, error) from None
    return place.page


def _require_framework(found: Destination, handle: str) -> None:
    from kagglehub.handle import parse_model_handle

    try:
        parse_model_handle(handle).framework_enum()
    except (ValueError, KeyError):
        action = "write one that Kaggle has: keras, transformers, gguf, pyTorch, jax, other"
        raise found.error(f"Kaggle knows no framework {handle.split('/')[2]}", action) from None
