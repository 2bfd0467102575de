"""What a run read when it began, as `run.json` says, compared with what it would read when it goes on.

    data, tokenizer, preset, adapter    another one: exit code 3; the same steps on other data are no continuation
    code                                another one: a warning; it may compute the same

Nothing is compared that the record does not have: a run that was cut before it was written began with nothing.
Imports no framework.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp import preset
from llama_exp.errors import ExitCode, InputError, Problem
from llama_exp.files.json_file import read_record
from llama_exp.files.metrics_file import read_metrics
from llama_exp.files.yaml_file import read_yaml
from llama_exp.run.unfinished import RECORD_FILE, last_step, load_run_record, read_run_record

SHOWN_LETTERS = 16  # of a fingerprint: enough to tell two apart, and to read
NEW_RUN = "or begin a new run with resume=none"
# How a run can have ended that was stopped only after a checkpoint was written.
_LEAVES_A_CHECKPOINT = ("finished", "preempted", "interrupted", "pruned")
log = logging.getLogger(__name__)


def check_data(folder: Path, dataset: Mapping[str, Mapping[str, Any]], tokenizer: Mapping[str, Any]) -> None:
    """Compares the rows of each split and the tokenizer with those of the run's first start.

    Args:
        folder: the run's.
        dataset: split -> facts with the `fingerprint` of its rows, as `run.json` has them.
        tokenizer: facts with its `fingerprint`.

    Raises:
        InputError: one problem for the data and one for the tokenizer, with both fingerprints.
    """
    record = read_run_record(folder) or {}
    before = {split: _fingerprint(_section(record, "dataset").get(split)) for split in dataset}
    now = {split: _fingerprint(facts) for split, facts in dataset.items()}
    changed = [split for split in dataset if before[split] not in (None, now[split])]
    problems = []
    if changed:
        found = "; ".join(f"{split} with fingerprint {now[split]}, begun with {before[split]}" for split in changed)
        what = "the data, as rows of tokens, is not what the run was begun with"
        problems.append(Problem(what, "dataset", found, f"give back the data as it was then, {NEW_RUN}"))
    old, new = _fingerprint(record.get("tokenizer")), _fingerprint(tokenizer)
    if old not in (None, new):
        what = "the tokenizer is not the one that the run was begun with"
        action = f"give back its files, or the text that it was trained on, {NEW_RUN}"
        problems.append(Problem(what, "tokenizer", f"fingerprint {new}, begun with {old}", action))
    if problems:
        raise InputError(*problems)


def preset_source(folder: Path, source: str) -> str:
    """The preset to load: of a run that goes on, in the revision that it was begun with."""
    recorded = _section(read_run_record(folder) or {}, "preset")
    return preset.at_revision(source, recorded.get("origin"), recorded.get("revision"))


def check_preset(folder: Path, facts: Mapping[str, Any]) -> None:
    """Compares the preset, as `run.json` describes it, with that of the run's first start.

    Raises:
        InputError: another revision, or other weights.
    """
    recorded = _section(read_run_record(folder) or {}, "preset")
    for key in ("revision", "digest"):
        old, new = recorded.get(key), facts.get(key)
        if old not in (None, new):
            what = "the preset is not the one that the run was begun with"
            action = f"give back the preset that run.json names, {NEW_RUN}"
            raise InputError(Problem(what, "preset.source", f"{key} {new}, begun with {old}", action))


def check_adapter(folder: Path, source: str | None) -> None:
    """Compares the adapter of `lora.source` with the one that the run was begun with; see `lora_source`.

    Raises:
        InputError: it is gone, or another one; or `run.json` is damaged.
    """
    if source is None:
        return
    from llama_exp.lora import source as lora_source  # NumPy, which the check of a config does without

    recorded = load_run_record(folder).get("lora")
    lora_source.require_unchanged(source, recorded if isinstance(recorded, Mapping) else None)


def check_quantization(folder: Path, stored: Mapping[str, Any]) -> None:
    """Compares how the preset is stored with what `run.json` says of the run's first start.

    Args:
        folder: the run's.
        stored: the preset's quantization, as a section of a config.

    Raises:
        InputError: it is stored in another way now; or `run.json` is damaged.
    """
    if not (folder / RECORD_FILE).exists():  # of a process that only looks
        return
    recorded = load_run_record(folder).get("quantization")
    if not isinstance(recorded, Mapping) or recorded == stored:
        return
    differing = [key for key in stored if recorded.get(key) != stored[key]]
    was, now = (", ".join(f"{key}={section.get(key)}" for key in differing) for section in (recorded, stored))
    what = "the preset is stored in another way than when the run was begun"
    action = f"give back the preset that run.json names, {NEW_RUN}"
    raise InputError(Problem(what, "preset.source", f"{now}, begun with {was}", action))


def check_progress(folder: Path) -> None:
    """Sees to it that a run which got somewhere does not start from scratch; says so where it has to.

    Raises:
        InputError: the checkpoints that it had are gone, or `metrics.jsonl` is damaged.
    """
    checkpoints = folder / "checkpoints"
    if checkpoints.exists() and not checkpoints.is_dir():
        action = f"move it away and put the folder of the run's checkpoints there, {NEW_RUN}"
        raise InputError.about(checkpoints, "is where the run's checkpoints belong, and no folder", "a file", action)
    reached = max((row["step"] for row in read_metrics(folder / "metrics.jsonl")), default=0)
    if last_step(folder) >= 0 or any(checkpoints.glob("step-*.corrupt-*")):  # which whoever reads them tells
        return
    summary = read_record(folder / "summary.json") or {}
    status = summary.get("status")
    had_one = reached > _steps_to_the_first(folder) or (reached > 0 and status in _LEAVES_A_CHECKPOINT)
    # On a full disk a run goes on past its first checkpoints, which it could not write.
    if had_one and summary.get("exit_code") != ExitCode.STORAGE:
        what, found = "the checkpoints of the run are gone", f"none, and metrics.jsonl is at step {reached}"
        raise InputError.about(checkpoints, what, found, f"put the folder back, {NEW_RUN}")
    log.warning("%s has no checkpoint (it ended as: %s): the run begins again at step 0", folder, status or "unknown")


def check_optimizer(folder: Path) -> None:
    """Sees to it that a finished run which gave its optimizer's state back is not gone on with.

    Raises:
        InputError: the newest checkpoint has weights alone.
    """
    from llama_exp.trainer.contents import STRIPPED, without_optimizer  # loads NumPy

    newest = folder / "checkpoints" / f"step-{max(last_step(folder), 0):08d}"
    manifest = read_record(newest / "manifest.json") or {}
    if _section(manifest, "state").get(STRIPPED):
        raise without_optimizer(newest)


def find_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Key -> [value before, value now] for what differs, one level into nested sections."""
    changes: dict[str, Any] = {}
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            for name in sorted(value.keys() | old.keys()):
                if value.get(name) != old.get(name):
                    changes[f"{key}.{name}"] = [old.get(name), value.get(name)]
        elif value != old:
            changes[key] = [old, value]
    return changes


def tell_other_code(before: Mapping[str, Any], now: Mapping[str, Any], is_patched_otherwise: bool) -> None:
    """Warns where the source of this package is another than at the run's last start.

    Args:
        before: facts of `provenance.collect`, as the last start recorded them.
        now: the same of this start.
        is_patched_otherwise: whether the uncommitted changes are others than then.
    """
    old, new = _section(before, "git"), _section(now, "git")
    if old.get("commit") not in (None, new.get("commit")):
        text = "the code is at commit %s, the run was last started with %s: not surely the same run"
        log.warning(text, new.get("commit"), old["commit"])
    elif is_patched_otherwise:
        log.warning("the code has other uncommitted changes than at the last start: not surely the same run")


def _steps_to_the_first(folder: Path) -> float:
    """Behind which step the run had a checkpoint."""
    if not (folder / "config.yaml").exists():
        return math.inf
    stated = _section(read_yaml(folder, "config.yaml"), "trainer").get("checkpoint_every_steps")
    return stated if isinstance(stated, int) else math.inf


def _section(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = record.get(name)
    return section if isinstance(section, Mapping) else {}


def _fingerprint(facts: object) -> str | None:
    found = facts.get("fingerprint") if isinstance(facts, Mapping) else None
    return found[:SHOWN_LETTERS] if isinstance(found, str) else None
