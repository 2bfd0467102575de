"""What a finished run may give back: the optimizer's part of its checkpoints, two thirds of them in full training.

A checkpoint without it has its weights still, and says so; no run goes on from it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.whole_folder import whole_folder
from llama_exp.trainer.checkpoint import FOLDER
from llama_exp.trainer.contents import STRIPPED
from llama_exp.trainer.manifest import Invalid, verified_manifest, write_manifest
from llama_exp.trainer.tensor_file import read_tensors, write_tensors

OPTIMIZER = "optimizer.safetensors"
_log = logging.getLogger(__name__)


def free_optimizer(checkpoints: Path) -> int:
    """Writes every valid checkpoint anew without its optimizer, the newest first; returns how many bytes are free now.

    A disk that cannot be written ends it with a warning: the run has finished.
    """
    folders = [path for path in checkpoints.iterdir() if FOLDER.fullmatch(path.name)] if checkpoints.is_dir() else []
    freed = 0
    for folder in sorted(folders, key=lambda path: path.name, reverse=True):
        try:
            manifest = verified_manifest(folder)
            if OPTIMIZER in manifest["files"]:
                _strip(folder, manifest)
                freed += manifest["files"][OPTIMIZER]["bytes"]
        except (Invalid, InputError) as reason:
            _log.warning("%s is damaged, and left as it is: %s", folder, reason)
        except OSError as error:
            _log.warning("the optimizer's state in %s could not be removed: %s", folder, error)
            return freed
    return freed


def _strip(folder: Path, manifest: dict[str, Any]) -> None:
    kept = [name for name in manifest["files"] if name != OPTIMIZER]
    with whole_folder(folder) as draft:
        files = {name: write_tensors(draft / name, read_tensors(folder / name)) for name in kept}
        write_manifest(draft, {**manifest, "files": files, "state": {**manifest["state"], STRIPPED: True}})
