"""All that a page says, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.config.schema.protocol import ProtocolConfig, StageConfig
from llama_exp.errors import InputError
from llama_exp.experiments.record import read_record
from llama_exp.experiments.request import Request
from llama_exp.experiments.verdicts import load_experiment
from llama_exp.files.json_file import read_record as read_if_whole
from llama_exp.protocol import ClaimResult, judge
from llama_exp.results import RunResult

DISCUSSION = "discussion"


@dataclass(frozen=True)
class Contents:
    """Of an experiment that has runs.

    request: with the folder. protocol: that the newest run states. record: of experiment.json. runs: all. results: of
    the claims; their numbers are indices of `runs`. bases: stage -> seconds of its shared run, which another experiment
    may have trained. discussion: what people think of it, Markdown; None: nobody has written it.
    """

    request: Request
    protocol: ProtocolConfig
    record: Mapping[str, Any]
    runs: list[RunResult]
    results: list[ClaimResult]
    bases: Mapping[str, float]
    discussion: str | None

    @property
    def name(self) -> str:
        """Of the page's files."""
        return self.request.folder.name

    def runs_of(self, stage: str) -> list[RunResult]:
        """The runs of a stage, by number."""
        return [run for run in self.runs if run.values.get("protocol.stage") == stage]

    def stage_of(self, name: str) -> StageConfig | None:
        """What the protocol states of a stage."""
        return self.protocol.stages.get(name)


def gather(request: Request, pages: Path) -> Contents:
    """What is there of an experiment.

    Args:
        request: what it is.
        pages: folder of the pages, with the discussions below it.

    Raises:
        InputError: it was not run, or a record is damaged.
    """
    folder = request.folder
    record, runs = read_record(folder), load_experiment(folder)
    results = judge(runs)
    own = [result.experiment for result in results]
    if record is None or not own:
        found = "no experiment.json" if record is None else f"{len(runs)} runs, none of which states a claim"
        action = f"run it first: llama-exp experiment {request.name}{' --quick' if request.is_quick else ''}"
        raise InputError.about(folder, "holds no experiment that was run", found, action)
    protocol = own[0].protocol
    bases = {
        name: _seconds_of(Path(str(stage["folder"])))
        for name, stage in record["stages"].items()
        if name in protocol.stages and protocol.stages[name].cached
    }
    return Contents(request, protocol, record, runs, results, bases, _read_discussion(request, pages))


def _seconds_of(folder: Path) -> float:
    seconds = (read_if_whole(folder / "summary.json") or {}).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _read_discussion(request: Request, pages: Path) -> str | None:
    path = pages / DISCUSSION / f"{request.name}.md"
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.about(path, "cannot be read", str(error), "save it as UTF-8 text") from error
    return text or None
