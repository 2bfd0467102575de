"""`outputs/<name>/latest`: a symbolic link to the run of this name whose training began last.

The name stands for another run tomorrow. So whatever is recorded or hashed holds the folder it stands for today:
`without_latest`. The jobs of a sweep do not move it: side by side, chance would decide which of them is the newest.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from llama_exp.files.writing import replace_link

LATEST = "latest"
_log = logging.getLogger(__name__)


def point_latest_to(folder: Path) -> None:
    """Makes `latest`, beside the run folder, a relative link to it; where that fails a log line says so."""
    link = folder.parent / LATEST
    if os.path.lexists(link) and not link.is_symlink():
        _log.info("%s is somebody's own, so it does not become a link to this run", link)
        return
    try:
        replace_link(link, folder.name)
    except OSError as error:  # a file system without symbolic links
        _log.info("%s is not made: %s", link, error.strerror or error)


def is_latest(path: Path) -> bool:
    """Whether a path is such a link."""
    return path.name == LATEST and path.is_symlink()


def without_latest(path: str) -> str:
    """The same place without a link called `latest` on the way; any other text stays as it is.

    `outputs/default/latest/model` becomes `outputs/default/2026-01-31_12-00-00_0123abcd/model`.
    """
    if LATEST not in path.split("/"):
        return path
    found = Path()
    try:
        for part in Path(path).expanduser().parts:
            step = found / part
            found = found / os.readlink(step) if is_latest(step) else step
    except (OSError, RuntimeError, ValueError):  # no such place, which is told by whoever opens it
        return path
    return str(found) if found != Path(path).expanduser() else path
