"""What the end of a sweep tells, out of its manifest."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from llama_exp.errors import ExitCode
from llama_exp.sweeps.ending import Report, tell_end
from llama_exp.sweeps.manifest import Manifest


def tell_once(manifest: Manifest) -> ExitCode:
    """Tells what came of all jobs, unless somebody has told it already; the exit code that the sweep ends with."""
    reports = list(make_reports(manifest))
    if manifest.is_told:
        return ExitCode.SWEEP if any(report.state.value == "failed" for report in reports) else ExitCode.OK
    manifest.is_told = True
    return tell_end(reports, manifest.folder, manifest.words)


def make_reports(manifest: Manifest) -> Iterator[Report]:
    """One for each job, also of those that an earlier invocation ran."""
    constants = manifest.facts.get("constants") or []
    for number, status in manifest.find_statuses().items():
        entry = manifest.entries[number]
        yield Report(
            number,
            entry.overrides,
            [*constants, *entry.overrides],
            manifest.folder_of(entry),
            status.state,
            status.attempts,
            status.cause,
            status.exit_code,
            status.value,
            _seconds(status.started, status.ended),
        )


def _seconds(started: str | None, ended: str | None) -> float | None:
    if started is None or ended is None:
        return None
    try:
        return (datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(started)).total_seconds()
    except ValueError:
        return None
