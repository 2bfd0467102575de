"""A path as a person types it."""

from __future__ import annotations

from pathlib import Path


def show_path(path: Path) -> str:
    """The path relative to the working folder where it lies inside; otherwise as it is."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the working folder is gone
        return str(path)
