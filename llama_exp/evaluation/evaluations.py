"""All evaluations of a run or of a command, and when they are due."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from llama_exp.evaluation.outcome import Outcome, Stopped
from llama_exp.evaluation.pace import Pace
from llama_exp.files.evaluation_file import write_items

OVERLAP = "overlap"  # figure of a row


class Member(Protocol):
    """One evaluation: a set, a task, or tasks of lm-evaluation-harness.

    Attributes:
        name: below `evaluation`. kind: a word. size: items in all, as `run` tells them to `watch`.
    """

    name: str
    kind: str
    size: int

    def fingerprint(self) -> str:
        """Of everything that is asked."""

    def run(self, watch: Callable[[float], None]) -> Outcome:
        """What the model as it is now answers; `watch` is called with the number of items that came, and may raise."""


class Evaluations:
    """Runs evaluations one after the other, and leaves a file of each item's results.

    Args:
        members: in order.
        every_steps: optimizer steps between two evaluations, besides the last step; None: that alone.
        folder: of the run; None: this process writes nothing.
        keeps: whether files of items that are there stay beside the new ones.
        at_start: whether also before the first step.
        overlaps: name -> share of the items that stand in the training rows too, None where they are too short to say.
    """

    def __init__(
        self,
        members: Sequence[Member],
        every_steps: int | None,
        folder: Path | None,
        keeps: bool = False,
        at_start: bool = False,
        overlaps: Mapping[str, float | None] | None = None,
    ):
        self._overlaps = overlaps or {}
        self._members, self._every_steps, self._at_start = list(members), every_steps, at_start
        self._folder, self._keeps = folder, keeps

    def is_due(self, step: int, is_last: bool) -> bool:
        """Whether the model is evaluated after `step` finished steps."""
        if not self._members:
            return False
        if is_last or step == 0:
            return is_last or self._at_start
        return self._every_steps is not None and step % self._every_steps == 0

    def run(
        self,
        step: int | None,
        stop: Callable[[], bool],
        tell_phase: Callable[[str], None],
        on_row: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> list[dict[str, Any]] | None:
        """The rows of all evaluations, as `evaluation.jsonl` has them.

        Args:
            step: finished steps; None: of no run.
            stop: asked between batches; true ends it.
            tell_phase: is told what happens and how far it is.
            on_row: called with each row as soon as it is there.

        Returns:
            The rows, or None where it was stopped in between.

        Raises:
            LlamaExpError: an evaluation fails; StorageError: the file of its items cannot be written.
        """
        rows = []
        for member in self._members:
            start = time.perf_counter()
            try:
                outcome = member.run(Pace(member.name, member.size, stop, tell_phase))
            except Stopped:
                return None
            rows.append(self._row(step, member, outcome, time.perf_counter() - start))
            on_row(rows[-1])
        return rows

    def _row(self, step: int | None, member: Member, outcome: Outcome, seconds: float) -> dict[str, Any]:
        file = None
        if self._folder is not None:
            file = write_items(self._folder, member.name, step, outcome.results, self._keeps)
        return {
            "step": step,
            "name": member.name,
            "kind": member.kind,
            **outcome.figures,
            **({OVERLAP: self._overlaps[member.name]} if member.name in self._overlaps else {}),
            "items": len(outcome.results),
            "tokens": outcome.tokens,
            "seconds": seconds,
            "fingerprint": member.fingerprint(),
            "file": file,
        }
