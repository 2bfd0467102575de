"""What every source yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Resolved:
    """A preset on this machine.

    Attributes:
        path: folder in KerasHub's or transformers' format, or a `.gguf` file.
        origin: where it comes from: the handle or repository without revision, or the absolute local path.
        revision: commit (Hugging Face) or version number (Kaggle), which fixes the content; None for a local preset.
    """

    path: Path
    origin: str
    revision: str | None
