"""A recorded run once more, and what came out beside what had.

    the recorded config as data -> what differs before anything is loaded
    data, tokenizer, preset, model -> what differs of them, and what can be expected
    the same steps -> rows, samples and weights compared -> verdict

A repetition is a run like others: it can be interrupted, and goes on where it was told to lie.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from llama_exp import preset, runtime
from llama_exp.config.check.recorded import check_recorded
from llama_exp.config.identity import config_hash
from llama_exp.config.quoting import plain_or_quoted
from llama_exp.config.run_home import HASH_LETTERS, REPEATED, home_of
from llama_exp.config.schema import Config
from llama_exp.console import logs
from llama_exp.errors import ConfigError, InputError, Interrupted, Preempted, Problem
from llama_exp.files.json_text import plain
from llama_exp.files.shown_path import show_path
from llama_exp.files.writing import write_json
from llama_exp.reproduction.original import Original, open_original, read_starts
from llama_exp.reproduction.places import Places
from llama_exp.reproduction.present import describe_present, load_present
from llama_exp.reproduction.shown import list_lines, name_causes, to_data
from llama_exp.reproduction.verdict import Verdict, judge, tolerate
from llama_exp.results import load_run
from llama_exp.results.differences import ABSENT, Difference, Effect, find_effect, find_loaded, find_static
from llama_exp.results.outcome import Outcome, compare_outcomes
from llama_exp.results.state import read_state
from llama_exp.run.folder import RunFolder
from llama_exp.run.repetition import Repetition

RESULT_FILE = "reproduction.json"
_THREADS, _CACHE = "runtime.threads", "runtime.cache_dir"
# What a repetition sets itself, so that it is no news; what `runtime` comes to, run.json says in other words.
_ITS_OWN = ("logger", "resume", "branch_from", "debug", "runtime.")


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    source: a run's folder, or an archive. folder: of the repetition; None: one is made. steps: at most so many; None:
    as many as the run has recorded. overrides: of `runtime`. trusted_modules: as in a config. data: where data files
    are looked for.
    """

    source: Path
    folder: Path | None = None
    steps: int | None = None
    overrides: tuple[str, ...] = ()
    trusted_modules: tuple[str, ...] = ()
    data: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """A repetition that is ready to begin.

    differences: what can be told before anything is loaded. steps: that are trained; None: all of the config.
    """

    original: Original
    config: Config
    steps: int | None
    differences: list[Difference]


def prepare(request: Request) -> Prepared:
    """Reads the record and compares it with what this machine would record.

    Raises:
        LlamaExpError: there is no such run, or its config cannot be run here as it is.
    """
    original = open_original(request.source)
    record = original.run.record
    working_folder = record.get("working_folder")
    places = Places(
        original.run.folder,
        original.packed,
        working_folder if isinstance(working_folder, str) else None,
        request.data,
    )
    overrides = [*request.overrides, *_own_overrides(request.overrides, record)]
    config = check_recorded(original.run.folder, overrides, request.trusted_modules, places.change)
    config = _at_recorded_revision(config, record)
    found = find_static(read_state(original.run), describe_present(config))
    found = [_as_default(entry) for entry in found if not _is_its_own(entry)]
    return Prepared(original, config, _choose_steps(request.steps, original, config), found)


def check(prepared: Prepared) -> list[Difference]:
    """All differences, those of data, preset and computation included; nothing is trained or written."""
    return [*prepared.differences, *find_loaded(prepared.original.run.record, load_present(prepared.config))]


def repeat(prepared: Prepared, request: Request) -> tuple[Verdict, Path]:
    """Trains again and compares.

    Returns:
        The verdict, and the folder of the repetition, which has it as reproduction.json.

    Raises:
        LlamaExpError: as a run.
    """
    from llama_exp.run.job import run_job

    original, config = prepared.original, prepared.config
    if not original.run.rows:
        what, status = "the run has no rows of metrics to compare with", f"it ended as: {original.run.status}"
        action = "look at what differs with --check, or run it again: llama-exp train --from <its folder>"
        raise InputError.about(original.run.folder / "metrics.jsonl", what, status, action)
    folder = request.folder or _make_name(config, original)
    _require_another(folder, original)
    if RunFolder.holds_run(folder):
        config = dataclasses.replace(config, resume="auto")
    found = list(prepared.differences)

    def on_ready(record: Mapping[str, Any]) -> None:
        found.extend(find_loaded(original.run.record, plain(record)))
        _tell(found, prepared)

    repetition = Repetition(prepared.steps, _command(request, folder), on_ready)
    try:
        run_job(config, list(request.overrides), folder, repetition=repetition)
    except (Preempted, Interrupted) as error:
        action = f"go on with: {repetition.command}"
        raise type(error)(*(dataclasses.replace(problem, action=action) for problem in error.problems)) from error
    repeated = load_run(folder)
    outcome = compare_outcomes(original.run, repeated, prepared.steps)
    verdict = judge(outcome, original.run.values)
    write_json(folder / RESULT_FILE, _to_data(prepared, found, outcome, verdict))
    return verdict, folder


def say_expectation(differences: Sequence[Difference], prepared: Prepared) -> str:
    """What the results can be expected to be, in a sentence."""
    effect = find_effect(differences)
    if effect is Effect.science:
        return f"any: {name_causes(differences, effect)} can change what is computed"
    causes = name_causes(differences, Effect.rounding) or _find_changes_between_starts(prepared.original.run.record)
    if not causes:
        return "bit-identical"
    steps = prepared.steps or prepared.config.trainer.max_steps
    limits = (tolerate(step, "validation", prepared.original.run.values) for step in (0, steps))
    first, last = (f"{100 * limit:.1g} %" for limit in limits)
    return f"validation losses at most {first} apart at step 0, {last} at step {steps}, by rounding: {causes}"


def say_comparison(prepared: Prepared) -> str:
    """What of the recorded run can be compared."""
    run, steps = prepared.original.run, prepared.steps
    whole = prepared.config.trainer.max_steps
    if steps is None:
        return f"all {whole} steps, and the weights at the end"
    reason = "" if run.status == "finished" else f"; the run ended as: {run.status}"
    return f"{steps} of {whole} steps, on the schedule of all of them{reason}"


def _is_its_own(entry: Difference) -> bool:
    return entry.part == "config" and entry.name.startswith(_ITS_OWN)


def _as_default(entry: Difference) -> Difference:
    """A key that is younger than the record: its default does what was done without it, or else code differs too."""
    is_younger = entry.part == "config" and entry.before == ABSENT
    return dataclasses.replace(entry, effect=Effect.nothing) if is_younger else entry


def _own_overrides(overrides: Sequence[str], record: Mapping[str, Any]) -> list[str]:
    """The recorded number of threads, where 0 would mean this machine's; the cache of this machine."""
    keys = {line.lstrip("+~").partition("=")[0] for line in overrides}
    threads = record.get("threads")
    own = {_CACHE: runtime.default_cache_dir()}
    if isinstance(threads, int) and threads > 0:
        own[_THREADS] = str(threads)
    return [f"{key}={plain_or_quoted(value)}" for key, value in own.items() if key not in keys]


def _at_recorded_revision(config: Config, record: Mapping[str, Any]) -> Config:
    """The config with the revision of the preset that the run began with, where revisions can be named."""
    recorded = record.get("preset")
    if config.preset.source is None or not isinstance(recorded, Mapping):
        return config
    source = preset.at_revision(config.preset.source, recorded.get("origin"), recorded.get("revision"))
    return dataclasses.replace(config, preset=dataclasses.replace(config.preset, source=source))


def _choose_steps(asked: int | None, original: Original, config: Config) -> int | None:
    """How many steps are trained: not more than the record has rows of; None: all of the config."""
    whole = config.trainer.max_steps
    reached = max((row["step"] for row in original.run.rows), default=0)
    steps = min(asked or whole, reached or whole, whole)
    return None if steps >= whole else steps


def _make_name(config: Config, original: Original) -> Path:
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{config_hash(config)[:HASH_LETTERS]}"
    return home_of(config.name) / REPEATED / original.name / stamp


def _require_another(folder: Path, original: Original) -> None:
    if folder.resolve() == original.run.folder.resolve():
        action = "name another folder, or leave --to out"
        raise ConfigError(Problem("is the recorded run itself", "--to", str(folder), action))


def _command(request: Request, folder: Path) -> str:
    words = ["llama-exp", "reproduce", str(request.source), "--to", show_path(folder)]
    words += [] if request.steps is None else ["--steps", str(request.steps)]
    words += [] if request.data is None else ["--data", str(request.data)]
    words += [word for module in request.trusted_modules for word in ("--trust", module)]
    return shlex.join([*words, *request.overrides])


def _tell(differences: Sequence[Difference], prepared: Prepared) -> None:
    lines = list_lines(differences) or [("nothing", "code, versions, machine, data and model are as recorded")]
    logs.log_table("what differs from the recorded run", lines)
    rows = [("compared", say_comparison(prepared)), ("expected", say_expectation(differences, prepared))]
    logs.log_table("reproduction", rows)


def _find_changes_between_starts(record: Mapping[str, Any]) -> str:
    """What changed while the recorded run was stopped, in words; "": nothing that is recorded."""
    changes = [start.get("changed") for start in read_starts(record)[1:]]
    changed = {key for change in changes if isinstance(change, Mapping) for key in change}
    computing = sorted(key for key in changed if key.partition(".")[0] in ("packages", "cpu", "threads", "sources"))
    return f"the run itself went on with other {', '.join(computing[:4])}" if computing else ""


def _to_data(
    prepared: Prepared, differences: Sequence[Difference], outcome: Outcome, verdict: Verdict
) -> dict[str, Any]:
    first = outcome.parting.first
    return {
        "of": prepared.original.name,
        "ending": verdict.ending.value,
        "reasons": list(verdict.reasons),
        "expected": say_expectation(differences, prepared),
        "differences": to_data(differences),
        "rows_compared": outcome.parting.compared,
        "first_gap": first and dataclasses.asdict(first),
        "largest_gaps": {
            figure: dataclasses.asdict(gap)
            for figure in sorted({gap.figure for gap in outcome.parting.gaps})
            if (gap := outcome.parting.find_largest(figure)) is not None
        },
        "same_weights": outcome.same_weights,
        "same_samples": outcome.other_sample is None,
    }
