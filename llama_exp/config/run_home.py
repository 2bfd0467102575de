"""Where a run's folder lies unless the user says otherwise: outputs/<name>/<date_time>_<hash>."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

HASH_LETTERS = 8
REPEATED = "reproduced"  # below the folder of a name: repetitions of its runs, which are no further runs of it
# With a number where another run of the same second has the name.
RUN_NAME = re.compile(rf"\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{{{HASH_LETTERS}}}(-\d+)?")


def home_of(name: str) -> Path:
    """The folder of all runs of a name."""
    return Path("outputs") / name


def new_folder(name: str, config_hash: str) -> Path:
    """Where a run that begins now belongs; another start of this second may have the folder."""
    return home_of(name) / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{config_hash[:HASH_LETTERS]}"


def in_default_place(folder: Path, name: str) -> bool:
    """Whether a run folder is where, and called as, `${run_dir:}` has it."""
    return RUN_NAME.fullmatch(folder.name) is not None and folder.parent.absolute() == home_of(name).absolute()
