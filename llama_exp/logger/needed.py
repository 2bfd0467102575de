"""What a logger needs, asked before the training: its package, for W&B a key and sound variables. Imports none."""

from __future__ import annotations

import contextlib
import importlib.util
import netrc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llama_exp.errors import Problem
from llama_exp.limits.logger import LoggerMode
from llama_exp.logger.variables import find_variable_problems, settle_mode

# Target -> the package that it imports, and what to give to pip. W&B's comes with ours.
_PACKAGES = {
    "llama_exp.logger.TensorBoardLogger": ("tensorboard", "llama_exp[tensorboard]"),
    "llama_exp.logger.MlflowLogger": ("mlflow", "llama_exp[mlflow]"),
}


def find_missing_package(target: str, where: str) -> Iterator[Problem]:
    """A problem if the package of a logger is not installed; `where`: its config key."""
    package, install = _PACKAGES.get(target, (None, None))
    if package is not None and importlib.util.find_spec(package) is None:
        action = f"pip install '{install}', or leave the logger out (docs/how_to/loggers.md)"
        yield Problem(f"{package} is not installed", where, target, action)


def find_wandb_problems(stated: Mapping[str, Any]) -> Iterator[Problem]:
    """The problems of W&B's variables, and of mode `online`.

    Args:
        stated: `mode`, `project`, `entity`, `tags`; None where the variables decide.
    """
    problems = list(find_variable_problems(stated))
    yield from problems
    if not problems:
        yield from find_credential_problems(settle_mode(stated.get("mode")))


def find_credential_problems(mode: LoggerMode) -> Iterator[Problem]:
    """Why mode `online` cannot work: no API key, or wandb is not installed.

    W&B itself would ask for the key at a terminal, when the first row arrives: by then nobody may sit there.
    """
    if mode is not LoggerMode.online:
        return
    if importlib.util.find_spec("wandb") is None:
        action = "pip install wandb, or logger.mode=offline, or logger.mode=disabled"
        yield Problem("wandb is not installed", "logger.mode", "online", action)
    elif not _has_key():
        action = "run `wandb login` once, or set the environment variable WANDB_API_KEY, or use logger.mode=offline"
        yield Problem("W&B has no API key", "logger.mode", "online", action)


def _has_key() -> bool:
    """Whether wandb will find credentials: in the environment, or in the netrc file for the server's host."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        hosts = set(netrc.netrc(path).hosts)
        if base_url := os.environ.get("WANDB_BASE_URL"):
            return urlsplit(base_url).netloc in hosts
        return any(host.endswith(("wandb.ai", "coreweave.com")) for host in hosts)
    return False
