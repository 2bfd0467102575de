"""A folder to the Hugging Face Hub, by huggingface_hub's own upload: one commit, large files first."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from llama_exp.errors import InputError
from llama_exp.preset.outgoing import Outgoing
from llama_exp.preset.push_errors import Destination, explain

FORM = "hf://user/repo"
CREDENTIALS = "HF_TOKEN, or `hf auth login`"
_NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")


class Options(NamedTuple):
    """How to send.

    private: whether a repository that is made is private; one that is there must be then. revision: branch; None: main.
    message: of the commit.
    """

    private: bool
    revision: str | None
    message: str


def destination(target: str) -> Destination:
    """Where `hf://user/repo` leads.

    Raises:
        InputError: it is no such name.
    """
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    repo = target.removeprefix("hf://")
    tokens = f"{endpoint}/settings/tokens"
    found = Destination("Hugging Face", target, f"{endpoint}/{repo}", endpoint, tokens, CREDENTIALS)
    parts = repo.split("/")
    if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise found.error("not the name of a repository", f"write {FORM}; a revision is given as --revision")
    return found


def push(outgoing: Outgoing, place: Destination, options: Options, tell: Callable[[str], None]) -> str:
    """Sends the files; makes the repository, and the revision, where there are none.

    Args:
        outgoing: what to send.
        place: of `destination`.
        options: how.
        tell: shows a line.

    Returns:
        Address of the commit.

    Raises:
        InputError: there is no token, no network, or the server refuses.
    """
    from huggingface_hub import HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise place.error("the environment says HF_HUB_OFFLINE", "unset it to send something")
    token = get_token()
    if token is None:
        raise place.no_token()
    place.require_answer()
    try:
        return _push(HfApi(endpoint=place.endpoint, token=token), outgoing, place, options, tell)
    except InputError:
        raise
    except Exception as error:  # httpx', huggingface_hub's, hf_xet's
        raise explain(place, error) from None


def _push(api, outgoing: Outgoing, place: Destination, options: Options, tell: Callable[[str], None]) -> str:
    repo = place.target.removeprefix("hf://")
    is_private = _visibility(api, repo)
    if is_private is None:
        api.create_repo(repo, private=options.private)
        tell(f"made {place.page}, {'private' if options.private else 'public'}")
    elif options.private and not is_private:
        what = "the repository is there already and everybody can read it"
        raise place.error(what, f"make it private on {place.page}/settings, choose another name, or drop --private")
    if options.revision is not None:
        api.create_branch(repo, branch=options.revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo,
        folder_path=outgoing.folder,
        commit_message=options.message,
        revision=options.revision,
        allow_patterns=[_literal(name) for name in outgoing.sizes],  # what was looked at, and nothing that came since
    )
    return commit.commit_url


def _visibility(api, repo: str) -> bool | None:
    """Whether a repository is private; None: there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return bool(api.repo_info(repo).private)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:  # of a token that is not valid
            raise
        return None


def _literal(name: str) -> str:
    """The pattern of huggingface_hub that only this name matches."""
    return re.sub(r"([*?[])", r"[\1]", name)
