"""Which source files a run is computed by: of this package, and of classes of the user's own.

Their digests name changed code where there is no git: in an installed package, in a copy. Imports no framework.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from llama_exp.files.digest import file_digest

DIGEST_LETTERS = 16  # of a file's; enough to tell two apart
PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def list_sources(package: Path = PACKAGE) -> dict[str, str]:
    """Python file, relative to the package -> beginning of its SHA-256; as they are when this is first asked."""
    files = sorted(package.rglob("*.py"))
    return {path.relative_to(package).as_posix(): file_digest(path)[:DIGEST_LETTERS] for path in files}


def digest_sources(sources: Mapping[str, str]) -> str:
    """Hexadecimal SHA-256 of all of them, names included."""
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()


def list_own_modules(targets: Iterable[str]) -> dict[str, str]:
    """Module -> beginning of its file's SHA-256, for the imported modules that the user's own classes come from.

    Args:
        targets: dotted names as `_target_` has them; those of this package and of Keras are passed over.
    """
    found = {}
    for target in targets:
        module = _find_module(target)
        file = getattr(sys.modules.get(module), "__file__", None)
        if module.partition(".")[0] not in ("", "llama_exp", "keras") and file is not None and Path(file).is_file():
            found[module] = file_digest(Path(file))[:DIGEST_LETTERS]
    return dict(sorted(found.items()))


def _find_module(target: str) -> str:
    """The longest beginning of a dotted name that is an imported module; "": none is."""
    parts = target.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in sys.modules), "")
