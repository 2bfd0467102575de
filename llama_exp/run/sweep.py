"""A sweep on llama_exp's own command line: which folder it has, and its manifest from the check to the end.

    -m lora.rank=4,8                                   a new sweep, in a folder of its own
    -m lora.rank=4,8 resume=auto                       the newest sweep of the same points; without one, a new sweep
    -m lora.rank=4,8 resume=auto hydra.sweep.dir=...   the sweep in that folder
    resume=<sweep folder>                              the same, without the points: its record has them

Imports no framework.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llama_exp.config.check import Command, check_arguments
from llama_exp.config.check.sweep import SWEEP_DIR, Sweep
from llama_exp.config.hydra_main import run_hydra
from llama_exp.config.quoting import plain_or_quoted, quote
from llama_exp.errors import ConfigError, ExitCode, InputError, Problem
from llama_exp.files.redact import MASK, redact_arguments
from llama_exp.files.shown_path import show_path
from llama_exp.files.sweep_record import private_sweep_record
from llama_exp.files.writing import claim_folder, free_name
from llama_exp.limits.figures import name_figure, split_figure
from llama_exp.run import provenance
from llama_exp.run.resume import AUTO
from llama_exp.run.sweep_app import LlamaApp
from llama_exp.signals import Stopped
from llama_exp.sweeps.ending import Words
from llama_exp.sweeps.manifest import Manifest, opened
from llama_exp.sweeps.record import RECORD_FILE, Record, holds_sweep, identify, read_record
from llama_exp.sweeps.reports import tell_once
from llama_exp.sweeps.states import RETRY

# What a sweep may change when its record is gone on with: where and how it runs, and how it is watched.
_MAY_CHANGE = re.compile(r"[+~]*(runtime|logger|debug|hydra[./](launcher|sweeper))([.=@/].*)?")
_OF_THE_FOLDER = ("resume=", f"{SWEEP_DIR}=", "hydra.launcher.extend=", "hydra.launcher.on_failed=")
OBJECTIVE = "objective_metric"
log = logging.getLogger(__name__)


def read_command(arguments: Sequence[str]) -> Command:
    """The checked command; `resume=<sweep folder>` stands for the command that the folder's record has.

    From then on the working folder is the recorded one, because paths of the command are relative to it.

    Args:
        arguments: what follows the program's name.

    Raises:
        ConfigError: with every mistake that was found.
        InputError: the record of the sweep is damaged.
    """
    folder = _named_sweep(arguments)
    return check_arguments(arguments if folder is None else _recorded_arguments(folder, arguments))


def open_manifest(command: Command, arguments: Sequence[str]) -> tuple[Manifest | None, list[str]]:
    """The manifest of the command's sweep (None: a single job), and the arguments for Hydra.

    Args:
        command: checked.
        arguments: as they were typed, for the record.

    Raises:
        BusyError, ConfigError, InputError, StorageError: as `Manifest.open`.
    """
    sweep = command.sweep
    if sweep is None:
        return None, command.arguments
    folder = _choose_folder(sweep)
    if sweep.config.resume == AUTO and holds_sweep(folder):
        _require_objective(folder, sweep.config.objective_metric)
    facts, patch = provenance.collect(sys.argv)
    kept = ("command", "working_folder", "git", "packages", "python", "platform", "host")
    manifest = Manifest.open(
        folder,
        sweep.points,
        LlamaApp(),
        {
            **{key: facts[key] for key in kept},
            "arguments": redact_arguments(_without_folder(arguments)),
            "constants": redact_arguments(_without_folder(sweep.constants)),
            "patch": None if patch is None else hashlib.sha256(patch.encode("utf-8", "backslashreplace")).hexdigest(),
        },
        resume=sweep.config.resume == AUTO,
        extend=bool(sweep.launcher.get("extend")),
        on_failed=str(sweep.launcher.get("on_failed", RETRY)),
        space=sweep.space,
        words=make_words(folder, arguments, sweep.config.objective_metric),
    )
    if sweep.config.resume == AUTO:
        found = (
            "finds no sweep of these points: a new one begins in" if manifest.is_new else "goes on with the sweep in"
        )
        print(f"resume=auto {found} {show_path(folder)}", file=sys.stderr)
    return manifest, [*command.arguments, f"{SWEEP_DIR}={quote(str(folder))}"]


def run_sweep(manifest: Manifest, arguments: Sequence[str], job: Callable[..., Any]) -> ExitCode:
    """Lets Hydra run what is left of a sweep, tells what came of it, and returns the exit code of the command.

    Raises:
        SystemExit, Preempted, Interrupted: a launcher or a signal ended it, once it is told.
        Exception: Hydra or the sweep's folder failed.
    """
    if not manifest.is_search and not manifest.list_open():
        print(f"nothing is left to do in {show_path(manifest.folder)}", file=sys.stderr)
        return tell_once(manifest)
    token = opened.set(manifest)
    try:
        with private_sweep_record(manifest.folder):
            run_hydra(arguments, job)
    except SystemExit:
        tell_once(manifest)
        raise
    except Stopped as stop:  # under a launcher that knows no order in stopping
        tell_once(manifest)
        raise stop.told(f"the sweep in {show_path(manifest.folder)}") from stop
    finally:
        opened.reset(token)
    return tell_once(manifest)


def make_words(folder: Path, arguments: Sequence[str], objective_metric: str) -> Words:
    """How the end of a sweep in `folder` is told; a folder that was typed is named as it was typed."""
    program, named = provenance.training(sys.argv), f"resume={plain_or_quoted(show_path(folder))}"
    typed = [line for line in arguments if line.startswith("resume=") and line not in ("resume=auto", "resume=none")]
    go_on = shlex.join([*program, *(typed or [named])])
    figure, direction = split_figure(objective_metric)
    assert direction is not None, "checked with the command line"
    return Words(program, go_on, name_figure(figure), direction.value, figure)


def _require_objective(folder: Path, objective_metric: str) -> None:
    """Raises `ConfigError` where the sweep's jobs were compared by another figure: what they returned is that one."""
    before = read_record(folder).common.get(OBJECTIVE, objective_metric)
    if before != objective_metric:
        what = "the sweep compares its jobs by another figure, which is what they have returned"
        action = f"set {OBJECTIVE}={before}, or take another folder for a new sweep: hydra.sweep.dir=<folder>"
        raise ConfigError(Problem(what, OBJECTIVE, f"{objective_metric}, begun with {before}", action))


def _choose_folder(sweep: Sweep) -> Path:
    """The folder of the sweep that goes on, or one for this sweep alone, which is made."""
    if not sweep.is_dated:
        return sweep.folder
    if sweep.config.resume == AUTO and (found := _find_sweep(sweep)) is not None:
        return found
    while not claim_folder(folder := free_name(sweep.folder)):
        pass  # another sweep of this second was quicker
    return folder


def _find_sweep(sweep: Sweep) -> Path | None:
    """The newest sweep beside the new one's folder with the same points; to extend one, with a part of them."""
    records = list(_read_records(sweep.folder.parent))
    points = {point.identity for point in sweep.points}
    identity = identify(sweep.space, points)
    same = [(record.started, str(folder)) for folder, record in records if record.identity == identity]
    if not same and sweep.launcher.get("extend") and sweep.space is None:
        same = [
            (record.started, str(folder))
            for folder, record in records
            if record.space is None and {entry.identity for entry in record.entries} <= points
        ]
    return Path(max(same)[1]) if same else None


def _read_records(root: Path) -> list[tuple[Path, Record]]:
    found = []
    for file in sorted(root.glob(f"*/{RECORD_FILE}")):
        try:
            found.append((file.parent, read_record(file.parent)))
        except InputError as error:
            log.warning("%s is no whole record; its sweep is left alone", error.problems[0].where)
    return found


def _named_sweep(arguments: Sequence[str]) -> Path | None:
    """The sweep that `resume` names."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        folder = Path(value.strip("'\"")).expanduser()
        if key == "resume" and value and holds_sweep(folder):
            return folder.absolute()
    return None


def _recorded_arguments(folder: Path, arguments: Sequence[str]) -> list[str]:
    """The arguments that the sweep in `folder` was begun with, and those of now that it may change."""
    changes = [line for line in arguments if not line.startswith("resume=") and line not in ("-m", "--multirun")]
    refused = [line for line in changes if not _MAY_CHANGE.fullmatch(line)]
    if refused:
        action = "leave it out, or give the sweep's whole command with resume=auto hydra.sweep.dir=" + str(folder)
        what = "cannot be given beside resume=<sweep folder>, whose record says what its jobs are"
        raise ConfigError(*(Problem(what, line.partition("=")[0], line, action) for line in redact_arguments(refused)))
    facts = read_record(folder).facts
    recorded, place = facts.get("arguments"), Path(str(facts.get("working_folder")))
    if not isinstance(recorded, list) or not all(isinstance(line, str) for line in recorded):
        raise InputError.about(
            folder / RECORD_FILE, "does not say how the sweep was started", "no list `arguments`", _ALL
        )
    if masked := [line for line in recorded if MASK in line]:
        raise ConfigError(Problem("holds a secret, which no record has", "resume", " ".join(masked), _ALL))
    try:
        os.chdir(place)
    except OSError as error:
        found = f"{place}: {error.strerror}"
        what = "the folder that the sweep was started in is gone, and paths of its command are relative to it"
        raise ConfigError(Problem(what, "resume", found, _ALL)) from error
    log.info("working folder: %s, as when the sweep began", place)
    keys = {line.lstrip("+~").partition("=")[0] for line in changes}
    kept = [line for line in recorded if line.lstrip("+~").partition("=")[0] not in keys]
    return [*kept, *changes, f"resume={AUTO}", f"{SWEEP_DIR}={quote(str(folder))}"]


_ALL = "give the sweep's whole command, with resume=auto and hydra.sweep.dir=<its folder>"


def _without_folder(arguments: Sequence[str]) -> list[str]:
    return [line for line in arguments if not line.startswith(_OF_THE_FOLDER)]
