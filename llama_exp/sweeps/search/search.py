"""The loop of a search: asks for trials, runs them in a pool, stops those that are not worth it, tells the study."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from optuna.trial import FrozenTrial, TrialState

from llama_exp import signals
from llama_exp.sweeps.jobs import Job, Outcome, State
from llama_exp.sweeps.search.options import Options
from llama_exp.sweeps.search.pruning import Pruning
from llama_exp.sweeps.search.study import Study, find_stopped_step
from llama_exp.sweeps.search.trials import judge

LOOK_SECONDS = 0.5  # between two looks at the validation rows of running trials


class Jobs(Protocol):
    """What a search needs of a pool; see `llama_exp.sweeps.pool.Pool`."""

    @property
    def free_slots(self) -> int:
        """How many jobs may be started."""

    @property
    def running(self) -> list[Job]:
        """The jobs that were started and have not ended."""

    def start(self, job: Job) -> None:
        """Gives a job a free slot."""

    def stop(self, number: int, state: State, reason: str | None = None) -> None:
        """Asks a job to stop."""

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that ended, as soon as there are any."""


class Search:
    """A search over a study, whose trials run in a pool.

    Args:
        study: new, or as an earlier invocation left it.
        pool: runs the jobs.
        make_job: the job of a trial, noted in the sweep's manifest if it is new there.
        find_outcome: what is known of a trial's job that an earlier invocation started; None: it can go on.
        options: of the search.
        stop_all: asks all running jobs to stop, for a signal that this process got.
        stop_on_failure: whether no further trial is asked for after one has failed.
        figure: what running trials are compared by, see `Pruning`.
    """

    def __init__(
        self,
        study: Study,
        pool: Jobs,
        make_job: Callable[[FrozenTrial], Job],
        find_outcome: Callable[[int], Outcome | None],
        options: Options,
        stop_all: Callable[[signals.signal.Signals], None],
        stop_on_failure: bool = False,
        figure: str = "validation.loss",
    ):
        self._study, self._pool, self._make_job, self._options = study, pool, make_job, options
        self._find_outcome, self._stop_all, self._stop_on_failure = find_outcome, stop_all, stop_on_failure
        self._pruning = Pruning(study, figure)
        self._waiting: deque[Job] = deque()
        self._stopped: set[int] = set()  # numbers of the trials that were asked to stop
        self._is_ending = False

    def run(self) -> None:
        """Returns when as many trials as wanted have ended, or a signal has stopped those that ran."""
        self._take_up()
        while True:
            received = signals.received()
            if received is not None and not self._is_ending:
                self._is_ending = True
                self._stop_all(received)
            self._fill()
            if not self._pool.running:
                return
            for job, outcome in self._pool.wait(LOOK_SECONDS):
                self._end(job, outcome)
            for job in self._pool.running:
                self._look(job)

    def _take_up(self) -> None:
        """Trials that ran when an earlier invocation ended: told what came of them, or continued."""
        for trial in [trial for trial in self._study.trials if trial.state is TrialState.RUNNING]:
            job, outcome = self._make_job(trial), self._find_outcome(trial.number)
            if outcome is None and find_stopped_step(trial) is not None:
                outcome = Outcome(State.pruned)  # decided, and then killed before the job had heard of it
            if outcome is None:
                self._waiting.append(job)
            else:
                self._end(job, outcome)

    def _fill(self) -> None:
        """Gives every free slot a job."""
        while self._pool.free_slots and not self._is_ending:
            if self._waiting:
                self._pool.start(self._waiting.popleft())
            elif self._study.num_left:
                self._pool.start(self._make_job(self._study.ask()))
            else:
                return

    def _look(self, job: Job) -> None:
        if job.number not in self._stopped and self._pruning.look(job):
            self._stopped.add(job.number)
            self._pool.stop(job.number, State.pruned, "the search expects nothing of it")

    def _end(self, job: Job, outcome: Outcome) -> None:
        verdict = judge(outcome, job.folder, self._options)
        if verdict is None:
            return
        if verdict.state is not TrialState.PRUNED:
            self._pruning.note_rest(job)
        self._study.tell(job.number, verdict.state, verdict.values, verdict.cause)
        if verdict.state is TrialState.FAIL and self._stop_on_failure:
            self._is_ending = True
