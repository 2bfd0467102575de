"""What came of a sweep, told at its end: what finished, what failed and why, what is left, and what to type next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.console.live import format_seconds
from llama_exp.console.logs import say
from llama_exp.errors import ExitCode
from llama_exp.files.redact import redact_arguments
from llama_exp.files.shown_path import show_path
from llama_exp.sweeps.board import find_best, format_value, list_numbers
from llama_exp.sweeps.jobs import LEFT, State
from llama_exp.sweeps.output import find_log

_MOST_ROWS = 50  # of finished jobs; more of them is what a program should read
_ORDER = (State.finished, State.pruned, State.failed, State.interrupted, State.preempted, State.running, State.pending)


@dataclass(frozen=True)
class Report:
    """What became of one job.

    number, folder: its place in the sweep, stable over attempts. overrides: those that differ between the jobs;
    all_overrides: as Hydra has them. cause: one line, None if it finished. exit_code: None if a signal ended it, or it
    has not ended. seconds: of the last attempt.
    """

    number: int
    overrides: Sequence[str]
    all_overrides: Sequence[str]
    folder: Path
    state: State
    attempts: int = 1
    cause: str | None = None
    exit_code: int | None = None
    value: Any = None
    seconds: float | None = None


@dataclass(frozen=True)
class Words:
    """How a sweep is told.

    program: what starts one job: `python train.py`. go_on: the command that does what is left. objective: what a job
    returns: `validation loss`. direction: which values are better, `minimize` or `maximize`; None: nobody says.
    figure: the objective's path in `summary.json`, which rows of running jobs have too.
    """

    program: Sequence[str]
    go_on: str
    objective: str = "value"
    direction: str | None = None
    figure: str = "validation.loss"


def tell_end(reports: Sequence[Report], sweep: Path, words: Words) -> ExitCode:
    """Tells what came of all jobs, and returns the exit code: `SWEEP` if any failed.

    Args:
        reports: one for each job, also of those that an earlier invocation ran.
        sweep: its folder.
        words: how it is told.
    """
    say("\n".join(end_lines(reports, sweep, words)))
    return ExitCode.SWEEP if any(report.state is State.failed for report in reports) else ExitCode.OK


def end_lines(reports: Sequence[Report], sweep: Path, words: Words) -> Iterator[str]:
    """What `tell_end` says, line by line."""
    counts = Counter(report.state for report in reports)
    told = ", ".join(f"{counts[state]} {_word(state)}" for state in _ORDER if counts[state])
    yield f"sweep {show_path(sweep)}: {told or 'no jobs'}"
    yield from _finished(reports, words)
    failed = [report for report in reports if report.state is State.failed]
    for group in _alike(failed):
        yield from _failed(group, sweep, words)
    left = [report for report in reports if report.state in LEFT]
    if left:
        yield f"left: job {list_numbers(report.number for report in left)}; go on with"
        yield f"  {words.go_on}"
    elif failed:
        yield "try the failed ones again:"
        yield f"  {words.go_on}"


def _word(state: State) -> str:
    return "waiting" if state is State.pending else state.value


def _finished(reports: Sequence[Report], words: Words) -> Iterator[str]:
    """A line for each job that has a result, the best one marked."""
    done = [report for report in reports if report.state in (State.finished, State.pruned)]
    best = find_best(
        {report.number: report.value for report in done if report.state is State.finished}, words.direction
    )
    shown = done if len(done) <= _MOST_ROWS else [report for report in done if report.number == best]
    rows = [("job", "overrides", words.objective, "time")]
    for report in shown:
        mark = " best" if report.number == best else " pruned" if report.state is State.pruned else ""
        seconds = "" if report.seconds is None else format_seconds(report.seconds)
        rows.append((str(report.number), _text(report), format_value(report.value), seconds + mark))
    if len(rows) > 1:
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for number, text, value, rest in rows:
            yield f"  {number:>{widths[0]}}  {text:<{widths[1]}}  {value:>{widths[2]}}  {rest}".rstrip()
    if len(shown) < len(done):
        yield f"  and {len(done) - len(shown)} more, in sweep.jsonl"


def _alike(failed: Sequence[Report]) -> list[list[Report]]:
    """Failures by their cause; what only differs by the job's own folder is the same."""
    groups: dict[tuple[str, int | None], list[Report]] = {}
    for report in failed:
        cause = (report.cause or "").replace(str(report.folder), "<folder>")
        groups.setdefault((cause.replace(show_path(report.folder), "<folder>"), report.exit_code), []).append(report)
    return list(groups.values())


def _failed(group: Sequence[Report], sweep: Path, words: Words) -> Iterator[str]:
    """A cause, the jobs that have it, and the commands that show and repeat the first of them."""
    first = group[0]
    code = "" if first.exit_code is None else f" (exit code {first.exit_code})"
    cause = (first.cause or "no cause is known") + code
    if len(group) == 1:
        yield f"job {first.number} failed{_attempts(first)}: {_text(first)}: {cause}"
    else:
        yield f"the same error in {len(group)} jobs: {cause}"
        yield from (f"  job {report.number}{_attempts(report)}: {_text(report)}" for report in group)
    alone = "" if len(group) == 1 else f" job {first.number}"
    yield f"  see{alone}: {shlex.join(['less', show_path(find_log(sweep, first.number, first.folder))])}"
    yield f"  repeat{alone}: {repeat_command(first, words.program)}"


def repeat_command(report: Report, program: Sequence[str]) -> str:
    """The command that runs the job once more by itself: from its folder's own record, or by its overrides."""
    if (report.folder / "config.yaml").exists():
        return shlex.join([*program, "--from", show_path(report.folder)])
    return shlex.join([*program, *redact_arguments(report.all_overrides)])


def _attempts(report: Report) -> str:
    return "" if report.attempts == 1 else f" {report.attempts} times"


def _text(report: Report) -> str:
    return " ".join(redact_arguments(report.overrides)) or "no overrides"
