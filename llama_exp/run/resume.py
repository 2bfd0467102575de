"""What `resume` means for a run: which folder goes on, from which checkpoint, and which changes it forbids.

    resume=none             a new run
    resume=auto             the newest unfinished run of the same configuration, from its newest checkpoint; else new
    resume=<run folder>     that run, from its newest checkpoint
    resume=<checkpoint>     that run, from that checkpoint; later ones are set aside as `step-*.abandoned-1`

Imports no framework.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.config.identity import RECIPE, flatten
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.files.json_file import MAX_RECORD_BYTES, read_json
from llama_exp.files.process import ALONE, Process
from llama_exp.files.writing import set_aside
from llama_exp.files.yaml_file import read_yaml
from llama_exp.run.folder import RunFolder
from llama_exp.run.unfinished import RECORD_FILE, find_unfinished

NEW, AUTO = "none", "auto"
CONFIG_FILE = "config.yaml"
# What a run may change when it goes on: how long, how often, how it is watched and where it runs.
MAY_CHANGE = re.compile(
    r"runtime\..*|logger\..*|name|resume|debug|trusted_modules.*|preset\.offline"
    r"|trainer\.(max_steps|\w+_every_steps|keep_checkpoints|validation_batches|sample_\w+|callbacks.*)"
    r"|recipe\.sampling\..*"
)
# What a key that a run's record lacks meant to the version that began it.
BEFORE_THE_KEY = {"model.initializer_range": 0.02, "model.embedding_initializer_range": 0.01}
_STEP = re.compile(r"step-(\d+)")
log = logging.getLogger(__name__)


def folder_of(resume: str, root: Path, config_hash: str) -> Path | None:
    """The folder of the run that goes on; None: a new run.

    Args:
        resume: the config's value.
        root: where runs of this name lie.
        config_hash: of the present config.
    """
    if resume == NEW:
        return None
    if resume == AUTO:
        return find_unfinished(root, config_hash)
    path = Path(resume).expanduser()
    return path.parent.parent if (path / "manifest.json").is_file() else path


def continues(resume: str, folder: Path) -> bool:
    """Whether the run in `folder` goes on.

    Raises:
        ConfigError: `resume` names a run, but `folder` is another one.
    """
    if resume == NEW:
        return False
    named = None if resume == AUTO else folder_of(resume, Path(), "")
    if named is not None and not (RunFolder.holds_run(folder) and folder.resolve() == named.resolve()):
        raise ConfigError(
            Problem(
                "a run goes on in its own folder, and this one is not that run's",
                "resume",
                f"{resume}; the run folder is {folder}",
                "leave out hydra.run.dir and -m, or give the folder of a run (it holds run.json)",
            )
        )
    return RunFolder.holds_run(folder)


def choose_checkpoint(resume: str, process: Process = ALONE) -> Path | None:
    """The checkpoint folder that `resume` names, after the writer set later ones aside; None: the newest will do."""
    if resume in (NEW, AUTO) or not (Path(resume).expanduser() / "manifest.json").is_file():
        return None
    chosen = Path(resume).expanduser()
    for later in sorted(chosen.parent.glob("step-*")) if process.is_writer else ():
        match, mine = _STEP.fullmatch(later.name), _STEP.fullmatch(chosen.name)
        if match and mine and int(match[1]) > int(mine[1]):
            log.warning("%s lies behind %s and is set aside", later, chosen.name)
            set_aside(later, "abandoned")
    return chosen


def check_unchanged(folder: Path, config: Mapping[str, Any]) -> None:
    """Compares the config with the one that the run was begun with, which is data: nothing in it is built.

    Raises:
        InputError: the recorded config is damaged.
        ConfigError: a key that decides the result differs; every such key is named.
    """
    if not (folder / CONFIG_FILE).exists():  # killed between run.json and config.yaml: nothing was trained differently
        return
    recorded = read_yaml(folder, CONFIG_FILE)
    before, now = flatten(recorded), flatten(config)
    if RECIPE not in recorded:  # begun before the record had it, with the numbers that it began with
        before |= {key: value for key, value in now.items() if key.startswith(f"{RECIPE}.")}
    before = {key: value for key, value in BEFORE_THE_KEY.items() if key in now} | before
    problems = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if MAY_CHANGE.fullmatch(key):
            log.info("%s: %s before, %s now", key, old, new)
        else:
            action = f"set {key}={old}, or begin a new run with resume=none"
            if key.startswith(f"{RECIPE}."):  # no key of a config: a version of this package decides it
                action = "go on with the version of llama_exp that began it (see its run.json), or give resume=none"
            problems.append(
                Problem("a run cannot change this when it goes on", key, f"{new}, begun with {old}", action)
            )
    if problems:
        raise ConfigError(*problems)


def check_adapter(folder: Path, source: str | None) -> None:
    """Compares the adapter of `lora.source` with the one that the run was begun with; see `lora_source`.

    Raises:
        InputError: it is gone, or another one; or `run.json` is damaged.
    """
    if source is None:
        return
    from llama_exp.lora import source as lora_source  # NumPy, which the check of a config does without

    recorded = read_json(folder / RECORD_FILE, MAX_RECORD_BYTES).get("lora")
    lora_source.require_unchanged(source, recorded if isinstance(recorded, Mapping) else None)


def check_quantization(folder: Path, stored: Mapping[str, Any]) -> None:
    """Compares how the preset is stored with what `run.json` says of the run's first start.

    Args:
        folder: the run's.
        stored: the preset's quantization, as a section of a config.

    Raises:
        InputError: it is stored in another way now; or `run.json` is damaged.
    """
    recorded = read_json(folder / "run.json", MAX_RECORD_BYTES).get("quantization")
    if not isinstance(recorded, Mapping) or recorded == stored:
        return
    differing = [key for key in stored if recorded.get(key) != stored[key]]
    was, now = (", ".join(f"{key}={section.get(key)}" for key in differing) for section in (recorded, stored))
    action = "give back the preset that run.json names, or begin a new run with resume=none"
    what = "the preset is stored in another way than when the run was begun"
    raise InputError(Problem(what, "preset.source", f"{now}, begun with {was}", action))
