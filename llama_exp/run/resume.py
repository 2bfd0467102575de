"""What `resume` means for a run: which folder goes on, from which checkpoint, and which changes it forbids.

    resume=none             a new run
    resume=auto             the newest unfinished run of the same configuration, from its newest checkpoint; without one
                            a shorter run that trainer.max_steps makes longer; else new
    resume=<run folder>     that run, from its newest checkpoint
    resume=<checkpoint>     that run, from that checkpoint; later ones are set aside as `step-*.abandoned-1`

What the run read when it began is compared in recorded.py. Imports no framework.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.config.identity import (
    FOLLOWS_LENGTH,
    LENGTH,
    MAY_CHANGE,
    RECIPE,
    YOUNGER,
    config_hash,
    continuation_hash,
    flatten,
    is_same_share,
    list_unused,
    to_record,
)
from llama_exp.config.schema import Config
from llama_exp.console.progress import shorten
from llama_exp.errors import ConfigError, InputError, LlamaExpError, Problem
from llama_exp.files.process import ALONE, Process
from llama_exp.files.writing import set_aside
from llama_exp.files.yaml_file import read_yaml
from llama_exp.run.folder import RunFolder
from llama_exp.run.unfinished import find_shorter, find_unfinished, last_step

NEW, AUTO = "none", "auto"
CONFIG_FILE = "config.yaml"
# What a key that a run's record lacks meant to the version that began it.
BEFORE_THE_KEY = {
    "model.initializer_range": 0.02,
    "model.embedding_initializer_range": 0.01,
    **YOUNGER,
}
_ABSENT = object()
_LONGEST = 200  # characters of a value in a message
_STEP = re.compile(r"step-(\d+)")
log = logging.getLogger(__name__)


def find_folder(config: Config, root: Path) -> Path | None:
    """The folder of the run that goes on with this config; None: a new run.

    Args:
        config: the present one.
        root: where runs of its name lie.
    """
    folder = folder_of(config.resume, root, config_hash(config))
    if folder is not None or config.resume != AUTO or config.branch_from is not None:
        return folder  # a run that says where it begins takes no shorter run's place
    record = to_record(config)

    def may_go_on(candidate: Path) -> bool:
        try:
            return not list(_find_changes(candidate, record)[0])
        except LlamaExpError:
            return False

    hashes = config_hash(config), continuation_hash(config)
    return find_shorter(root, *hashes, config.trainer.max_steps, may_go_on)


def folder_of(resume: str, root: Path, config_hash: str) -> Path | None:
    """The folder that `resume` names, or the unfinished run of exactly this config; None: neither.

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
    chosen = _named_checkpoint(resume)
    if chosen is None:
        return None
    for later in sorted(chosen.parent.glob("step-*")) if process.is_writer else ():
        match, mine = _STEP.fullmatch(later.name), _STEP.fullmatch(chosen.name)
        if match and mine and int(match[1]) > int(mine[1]):
            log.warning("%s lies behind %s and is set aside", later, chosen.name)
            set_aside(later, "abandoned")
    return chosen


def check_length(resume: str, folder: Path, max_steps: int) -> None:
    """Compares the wanted length with what the run has reached.

    Raises:
        ConfigError: it got farther.
    """
    chosen = _named_checkpoint(resume)
    match = None if chosen is None else _STEP.fullmatch(chosen.name)
    reached = int(match[1]) if match else last_step(folder)
    if reached > max_steps:
        action = f"give at least {reached}, go on from an earlier checkpoint with resume=<checkpoint folder>, or begin"
        what, found = "the run got farther than this", f"{max_steps}, the run has a checkpoint of step {reached}"
        raise ConfigError(Problem(what, LENGTH, found, f"{action} a new run with resume=none"))


def check_unchanged(folder: Path, config: Mapping[str, Any]) -> None:
    """Compares the config with the one that the run was begun with, which is data: nothing in it is built.

    Raises:
        InputError: the recorded config is damaged.
        ConfigError: a key that decides the result differs; every such key is named.
    """
    problems, changes = _find_changes(folder, config)
    for key, (old, new) in changes.items():
        log.info("%s: %s before, %s now", key, old, new)
    if problems:
        raise ConfigError(*problems)
    if LENGTH in changes and "final_fraction" in config.get("schedule", {}):
        what = "the learning rate falls towards step %s now: from here on it is that of a run planned so long"
        log.warning(what, changes[LENGTH][1])


def read_recorded(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The flat config that a run was begun with, with the values of keys that it was begun without.

    Args:
        folder: the run's.
        config: the present one, whose keys these are.

    Raises:
        InputError: the recorded config is damaged.
    """
    recorded, now = _read_config(folder, config), flatten(config)
    before = flatten(recorded)
    if RECIPE not in recorded:  # begun before the record had it, with the numbers that it began with
        before |= {key: value for key, value in now.items() if key.startswith(f"{RECIPE}.")}
    younger = {key: value for key, value in BEFORE_THE_KEY.items() if key in now}
    # Another choice of a part has keys of its own.
    others = [section for section in config if before.get(f"{section}._target_") != now.get(f"{section}._target_")]
    return {key: value for key, value in younger.items() if key.partition(".")[0] not in others} | before


def list_checkpoints(folder: Path) -> dict[int, Path]:
    """Step -> folder of the checkpoints of a run, valid or not."""
    found = {path: _STEP.fullmatch(path.name) for path in (folder / "checkpoints").glob("step-*")}
    return {int(match[1]): path for path, match in found.items() if match}


def _find_changes(folder: Path, config: Mapping[str, Any]) -> tuple[list[Problem], dict[str, tuple[Any, Any]]]:
    """The changes that are forbidden, and those that are not: key -> (value before, value now)."""
    if not (folder / CONFIG_FILE).exists():  # killed between run.json and config.yaml: nothing was trained differently
        return [], {}
    before, now = read_recorded(folder, config), flatten(config)
    unused_before = set(list_unused(before))
    unused = {key for key in list_unused(now) if key not in before or key in unused_before}
    lengths = (before.get(LENGTH), now.get(LENGTH))
    problems, changes = [], {}
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key, _ABSENT), now.get(key, _ABSENT)
        if old == new or key in unused:
            continue
        if MAY_CHANGE.fullmatch(key) or (
            FOLLOWS_LENGTH.fullmatch(key)
            and lengths[0] != lengths[1]
            and is_same_share(old, lengths[0], new, lengths[1])
        ):
            changes[key] = (_shown(old), _shown(new))
        else:
            problems.append(_forbidden(key, old, new))
    return problems, changes


def _read_config(folder: Path, config: Mapping[str, Any]) -> dict:
    action = "put back a whole copy of the file, or begin a new run with resume=none"
    try:
        recorded = read_yaml(folder, CONFIG_FILE)
    except InputError as error:
        (problem,) = error.problems
        raise InputError.about(problem.where, problem.what, problem.found, action) from error
    sections = [name for name, section in config.items() if isinstance(section, Mapping) and name != RECIPE]
    damaged = [name for name in sections if not isinstance(recorded.get(name), Mapping)]
    if damaged:
        found = f"nothing that can be used for {', '.join(damaged)}"
        raise InputError.about(folder / CONFIG_FILE, "the config of the run is damaged", found, action)
    return recorded


def _forbidden(key: str, old: object, new: object) -> Problem:
    action = f"set {key}={_shown(old)}, or begin a new run with resume=none"
    if key.startswith(f"{RECIPE}.") or _ABSENT in (old, new):
        # No key of this config, or none of that one: the version of this package decides it.
        action = "go on with the version of llama_exp that began it (see its run.json), or give resume=none"
    found = f"{_shown(new)}, begun with {_shown(old)}"
    where = key or '""'  # of a damaged file
    return Problem("a run cannot change this when it goes on", where, found, action)


def _shown(value: object) -> object:
    if isinstance(value, str):
        return shorten(value, _LONGEST)
    return "nothing" if value is _ABSENT else value


def _named_checkpoint(resume: str) -> Path | None:
    if resume in (NEW, AUTO) or not (Path(resume).expanduser() / "manifest.json").is_file():
        return None
    return Path(resume).expanduser()
