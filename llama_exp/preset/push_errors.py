"""Why a model could not be sent, in words. Shows no text of the server: it can hold secrets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llama_exp.errors import InputError, Problem
from llama_exp.files.redact import printable
from llama_exp.preset.download_errors import Server, require_answer, shown

WHERE = "TO"
_NOWHERE = Path()
_AGAIN = "run the same command again: what has arrived is not sent twice"


@dataclass(frozen=True)
class Destination:
    """Where a model goes, for messages.

    Attributes:
        name: Kaggle or Hugging Face.
        target: as the user wrote it.
        page: address of the model's page.
        endpoint: address of the programming interface.
        tokens: address of the page where tokens are made.
        credentials: where the client looks for them.
    """

    name: str
    target: str
    page: str
    endpoint: str
    tokens: str
    credentials: str

    def error(self, what: str, action: str) -> InputError:
        """The failure of this destination: `what` went wrong, and what to do."""
        return InputError(Problem(f"{self.name}: {what}", WHERE, printable(self.target), action))

    def require_answer(self) -> None:
        """Fails within seconds if there is no network."""
        server = Server(self.name, self.target, self.target, self.page, self.endpoint, self.credentials, "", _NOWHERE)
        try:
            require_answer(server)
        except InputError:
            raise self.no_connection("no answer") from None

    def no_token(self) -> InputError:
        """Nothing on this machine says who sends."""
        action = f"make a token that may write at {self.tokens} and give it as {self.credentials}"
        return self.error("there are no credentials", action)

    def no_connection(self, reason: str) -> InputError:
        """No network, a host that is silent, or a connection that broke too often."""
        action = f"look for a network or a proxy, then {_AGAIN}"
        return self.error(f"no connection to {self.endpoint}: {reason}", action)


def explain(destination: Destination, error: BaseException) -> InputError:
    """The failure in words, whatever library it comes from; to be raised `from None`."""
    status = _status(error)
    if status is not None:
        return explain_refusal(destination, status)
    if isinstance(error, ValueError | TypeError | KeyError | AttributeError):
        action = "look for a proxy or a login page in between, or update the client library"
        kind = type(error).__name__
        return destination.error(f"the answer is not what this version understands ({kind})", action)
    return destination.no_connection(shown(error))


def explain_refusal(destination: Destination, status: int) -> InputError:
    """What an HTTP status means here."""
    make = f"make one that may write at {destination.tokens}, and give it as {destination.credentials}"
    if status == 401:
        return destination.error("the token is not valid (401)", make)
    if status == 403:
        what = "the account or its token may not write there (403)"
        return destination.error(what, f"choose a name under your own account, or {make}")
    if status == 404:
        what = "there is no such user, organization, repository or revision (404)"
        return destination.error(what, f"check the spelling; {destination.page} is where it would be")
    if status == 409:
        return destination.error("somebody else changed it at the same moment (409)", _AGAIN)
    if status == 413:
        return destination.error("the files are too large for the server (413)", "split them with --max-shard-size")
    if status == 429:
        return destination.error("too many requests (429)", f"wait some minutes, then {_AGAIN}")
    if status >= 500:
        return destination.error(f"the server has a failure of its own ({status})", f"wait, then {_AGAIN}")
    action = f"check the name on {destination.page}, and that the model card is what the server accepts"
    return destination.error(f"the server refuses the request ({status})", action)


def _status(error: BaseException | None) -> int | None:
    """The HTTP status that an error, or one that led to it, carries."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        code = getattr(error, "error_code", None)  # kagglehub's, for a refusal in a whole answer
        for found in (status, code):
            if isinstance(found, int) and found >= 400:
                return found
        error = error.__cause__ or error.__context__
    return None
