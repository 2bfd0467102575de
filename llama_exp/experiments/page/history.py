"""How an experiment ran: machine, versions, time, interruptions, commands."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from llama_exp.console.live import format_seconds
from llama_exp.console.progress import format_bytes
from llama_exp.errors import ExitCode
from llama_exp.experiments.page.clean import Cleaner
from llama_exp.experiments.page.gather import Contents
from llama_exp.report.markdown import escape

_ENDS = {ExitCode.INTERRUPTED: "interrupted by Ctrl-C", ExitCode.PREEMPTED: "stopped by a signal"}


def write_history(contents: Contents) -> str:
    """Facts, one a line."""
    return "\n".join(f"- {line}" for line in _list_facts(contents))


def count_seconds(contents: Contents) -> float:
    """Wall time of all starts together; of a start that was killed, up to ten seconds before its end."""
    stages = _list_stages(contents.record)
    own = sum(_number(stage.get("seconds")) for stage in stages)
    trained = {stage.get("name") for stage in stages}
    return own + sum(seconds for name, seconds in contents.bases.items() if name not in trained)


def _list_facts(contents: Contents) -> Iterator[str]:
    yield f"Machine: {'; '.join(_distinct(contents, 'machine', _tell_machine))}."
    yield f"Versions: {'; '.join(_distinct(contents, 'versions', _tell_versions))}."
    yield f"Settings: {'; '.join(_list_settings(contents))}."
    stages = _list_stages(contents.record)
    yield f"Time: {format_seconds(count_seconds(contents))} of wall time{_tell_bases(contents, stages)}."
    used = [_number(stage.get("cpu_seconds")) for stage in stages if stage.get("cpu_seconds") is not None]
    if used:
        partly = " (starts that were killed not included)" if len(used) < len(stages) else ""
        yield f"Processor: {format_seconds(sum(used))} of all cores together{partly}."
    yield _tell_starts(contents.record["starts"])
    if contents.record.get("extra"):
        yield f"Run with further overrides: {escape(' '.join(map(str, contents.record['extra'])))}."


def _tell_starts(starts: list[Mapping[str, Any]]) -> str:
    ends = Counter(_name_end(start) for start in starts[:-1])
    if not ends:
        return "Run in one go, without an interruption."
    told = ", ".join(f"{number} of them {name}" for name, number in sorted(ends.items()))
    return f"Begun {len(starts)} times, each time by the same command: {told}; it went on from what was there."


def _name_end(start: Mapping[str, Any]) -> str:
    code = start.get("exit_code")
    if code is None:
        return "killed without warning"
    if isinstance(code, int) and code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return _ENDS.get(code, "to its end" if code == 0 else f"ended with exit code {code}")


def _tell_bases(contents: Contents, stages: list[Mapping[str, Any]]) -> str:
    trained = {stage.get("name") for stage in stages}
    shared = [name for name in contents.bases if name not in trained]
    if not shared:
        return ""
    seconds = format_seconds(sum(contents.bases[name] for name in shared))
    return f", {seconds} of them for {', '.join(shared)}, which another experiment had trained"


def _list_settings(contents: Contents) -> list[str]:
    """Backend, threads and precision that the runs had."""
    found = Counter(
        f"{run.values.get('runtime.backend')}, {_count(run.record.get('threads'), 'thread')},"
        f" {run.values.get('precision.policy')}"
        for run in contents.runs
    )
    return [f"{text} ({_count(number, 'run')})" for text, number in sorted(found.items())]


def _tell_machine(machine: Mapping[str, Any]) -> str:
    memory = machine.get("memory_bytes")
    size = f", {format_bytes(memory)} of memory" if isinstance(memory, int) else ""
    return f"{escape(str(machine.get('cpu')))}, {_count(machine.get('cores'), 'core')}{size}"


def _tell_versions(versions: Mapping[str, Any]) -> str:
    parts = [f"{name} {version}" for name, version in versions.items() if name not in ("commit", "dirty")]
    commit = str(versions.get("commit") or "")[:12]
    parts += [f"commit {commit}{' with uncommitted changes' if versions.get('dirty') else ''}"] if commit else []
    return escape(", ".join(parts))


def _distinct(contents: Contents, key: str, tell: Any) -> list[str]:
    return list(dict.fromkeys(tell(start.get(key) or {}) for start in contents.record["starts"]))


def write_commands(contents: Contents, clean: Cleaner) -> str:
    """The command of the whole, and those of its stages."""
    request, extra = contents.request, [str(line) for line in contents.record.get("extra") or ()]
    words = ["llama-exp", "experiment", request.name, *(["--quick"] if request.is_quick else [])]
    words += [] if request.config_dir is None else [f"--config-dir {request.config_dir}"]
    halves = {str(stage["half"]) for stage in contents.record["stages"].values()}
    if len(halves) > 1:
        models = [f"--preset {name}=<{name}>" for name in contents.record.get("models") or {}]
        words += ["--half both", *models]
    folder = str(request.folder)
    lines = [" ".join([*words, *extra]), "", f"llama-exp report {folder}"]
    stages = contents.record["stages"].items()
    own = [f"# {name}\n{clean(_as_typed(str(stage['command'])))}" for name, stage in stages]
    whole = f"```text\n{clean(chr(10).join(lines))}\n```"
    told = "The first runs everything, and goes on with what was cut; the second shows the verdicts and each run."
    by_hand = "\n\n".join(own)
    return f"{whole}\n\n{told} Its stages, by hand:\n\n```text\n{by_hand}\n```"


def _as_typed(command: str) -> str:
    """However the program was started, a reader has installed it."""
    _, has_it, rest = command.partition(" train ")
    return f"llama-exp train {rest}" if has_it else command


def _list_stages(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [stage for start in record["starts"] for stage in start["stages"]]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _count(number: object, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
