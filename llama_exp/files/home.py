"""Whether the user has a home folder, which every library puts something into."""

from __future__ import annotations

from pathlib import Path

from llama_exp.errors import Problem, StorageError


def require_home() -> None:
    """Raises `StorageError` for a user whom neither HOME nor the system's list of users gives a home.

    So it is in a container that runs under a bare number. Libraries would make a folder called `~` in the working
    folder, each its own way; one variable helps all of them.
    """
    try:
        Path.home()
    except RuntimeError as error:
        action = "set HOME to a folder that this user may write"
        raise StorageError(Problem("this user has no home folder", "HOME", "not set", action)) from error
