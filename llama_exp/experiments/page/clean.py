"""Texts of this machine as a page may have them: no path of it, and no user's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

# An absolute path up to its last name; `https://...` and a part of a relative path are none.
_PATH = re.compile(r"(?<![\w.:/~-])/(?:[^\s/'\"=,;()\[\]]+/)+")


class Cleaner:
    """Takes places of this machine out of texts.

    Args:
        models: name -> source of each model that the user gave.
    """

    def __init__(self, models: Mapping[str, str]):
        self._models = {source: f"<{name}>" for name, source in models.items() if source}
        self._cwd = str(Path.cwd())

    def __call__(self, text: str) -> str:
        """The text without them."""
        for source, name in sorted(self._models.items(), key=lambda item: -len(item[0])):
            text = text.replace(source, name)
        text = text.replace(f"{self._cwd}/", "").replace(self._cwd, ".")
        return _PATH.sub(".../", text)
