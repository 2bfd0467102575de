"""Runs jobs in processes of their own, several at a time; tells what is to be seen of them while they run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from hydra.types import HydraContext, TaskFunction
from omegaconf import OmegaConf

from llama_exp.console.logs import say
from llama_exp.sweeps import ends, memory
from llama_exp.sweeps.app import App
from llama_exp.sweeps.channel import Inbox
from llama_exp.sweeps.child import Seat, Work
from llama_exp.sweeps.jobs import Glimpse, Job, Outcome, State
from llama_exp.sweeps.options import Options
from llama_exp.sweeps.servers import Server, Servers
from llama_exp.sweeps.slots import Slot, cores_each, make_slots

TICK = 0.2  # seconds between two looks at clock and memory
SHOWN_EVERY = 1.0  # seconds between two looks into the jobs' folders
GRACE = 10.0  # seconds for a checkpoint of a job whose time is over
SIGNALS = {
    State.interrupted: signal.SIGINT,
    State.preempted: signal.SIGTERM,
    State.failed: signal.SIGTERM,
    State.pruned: signal.SIGUSR2,
}


class Observer(Protocol):
    """What is told of jobs."""

    def on_start(self, job: Job, pid: int) -> None:
        """A process runs it."""

    def on_end(self, job: Job, outcome: Outcome) -> None:
        """The attempt is over."""

    def on_tick(self, running: Sequence[tuple[Job, Glimpse, float]]) -> None:
        """Once a second: the running jobs, how far each is, and its seconds so far."""


@dataclass
class _Place:
    """A job that has a slot: it waits for its turn, then it runs.

    needed: bytes of memory, None if nobody knows. inbox: once it is sent to its server. pid, started: once it runs.
    held: bytes at the last look. kills: of the kernel before it began. asked, reason: the state that it was stopped
    for, and why. deadline: when it is killed after that.
    """

    job: Job
    slot: Slot
    environment: dict[str, str]
    server: Server
    needed: int | None
    inbox: Inbox | None = None
    pid: int | None = None
    started: float = 0.0
    held: int = 0
    kills: int = 0
    asked: State | None = None
    reason: str | None = None
    deadline: float | None = None


class Pool:
    """The running jobs of a sweep. Use it in a `with` block; behind it nothing runs any more.

    Args:
        task_function, hydra_context: Hydra's.
        options: the launcher's keys.
        app: answers questions about jobs.
        observers: are told what happens.
        output: the folder of the files that get what jobs print, `<number>.log`.

    Attributes:
        cores: each job's share.
    """

    def __init__(
        self,
        task_function: TaskFunction,
        hydra_context: HydraContext,
        options: Options,
        app: App,
        observers: Sequence[Observer],
        output: Path,
    ):
        ignores_hangups = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._work = Work(task_function, hydra_context, frozenset(sys.modules), ignores_hangups)
        self._options, self._app, self._observers, self._output = options, app, observers, output
        self._slots = make_slots(options.n_jobs, options.devices)
        self.cores = cores_each(len(self._slots))
        self._guard = memory.Guard.make(options.memory_limit_gb)
        self._places: dict[int, _Place] = {}  # by number, in the order of `start`
        self._ended: list[tuple[Job, Outcome]] = []
        self._last_start = self._last_look = -float("inf")

    def __enter__(self) -> Pool:
        self._servers = Servers(self._work, self._app)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for place in self._places.values():  # none, unless an error leaves the block
            self._signal(place, signal.SIGKILL)
        self._servers.close()

    @property
    def free_slots(self) -> int:
        """How many jobs may be started."""
        return len(self._slots) - len(self._places)

    @property
    def running(self) -> list[Job]:
        """The jobs that were started and have not ended."""
        return [place.job for place in self._places.values()]

    def start(self, job: Job) -> None:
        """Gives a job a free slot; it begins when its server is ready, its turn has come and its memory is free."""
        used = {place.slot.number for place in self._places.values()}
        slot = next(slot for slot in self._slots if slot.number not in used)
        needs = self._app.find_needs(job.cfg, self.cores)
        environment = {**needs.environment, **_stated_variables(job)}
        server = self._servers.get(environment)
        self._places[job.number] = _Place(job, slot, environment, server, needs.memory_bytes)

    def stop(self, number: int, state: State, reason: str | None = None, patience: float | None = None) -> None:
        """Asks a job to stop, which it may take its time for; `wait` tells when it did.

        Args:
            number: the job's.
            state: what it will have become.
            reason: the cause that its outcome states.
            patience: seconds after which it is killed; None: whoever asked waits.
        """
        place = self._places[number]
        if place.asked is not None:
            return
        place.asked, place.reason = state, reason
        place.deadline = None if patience is None else time.monotonic() + patience
        if place.inbox is None:
            self._end(place, Outcome(state, reason))
        else:
            self._signal(place, SIGNALS[state])

    def wait(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that ended, as soon as there are any; none, if none does in this time."""
        until = time.monotonic() + seconds
        while True:
            self._begin_waiting()
            left = until - time.monotonic()
            for server, message in self._servers.hear(max(0.0, min(TICK, left))):
                self._take(server, message)
            self._watch()
            if self._ended or left <= 0:
                ended, self._ended = self._ended, []
                return ended

    # --- a job's way

    def _begin_waiting(self) -> None:
        """Sends jobs to their servers, in order; the first that has to wait lets nobody pass."""
        for place in [place for place in self._places.values() if place.inbox is None]:
            if place.server.trouble is not None:
                self._end(place, Outcome(State.failed, place.server.trouble))
                continue
            now = time.monotonic()
            is_due = now >= self._last_start + self._options.start_delay_seconds
            if not (place.server.is_ready and is_due and self._has_memory(place)):
                return
            output = self._output / f"{place.job.number}.log"
            seat = Seat(place.job, place.slot.cores, place.slot.environment, output)
            place.kills = memory.count_kernel_kills()
            place.inbox = self._servers.run(place.server, seat)
            self._last_start = place.started = now

    def _has_memory(self, place: _Place) -> bool:
        others = [(other.needed, other.held) for other in self._places.values() if other.inbox is not None]
        if self._guard.fits(place.needed, others):
            return True
        if not others and place.needed is not None:
            needed = memory.show_gib(place.needed)
            limit = memory.show_gib(self._guard.limit or 0)
            say(f"job {place.job.number} starts alone: it needs about {needed}, and there are {limit}")
        return not others

    def _take(self, server: Server, message: tuple[Any, ...]) -> None:
        """Something that a server said."""
        if message[0] == "started":
            place = self._places[message[1]]
            place.pid = message[2]
            for observer in self._observers:
                observer.on_start(place.job, message[2])
        elif message[0] == "ended":
            place = self._places[message[1]]
            self._end(place, self._outcome(place, message[2]))
        elif message[0] == "gone":
            self._lose(server)

    def _outcome(self, place: _Place, status: int) -> Outcome:
        assert place.inbox is not None
        reason = place.reason
        is_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if reason is None and is_killed and memory.count_kernel_kills() > place.kills:
            reason = f"out of memory: the kernel killed it, it held {memory.show_gib(place.held)}"
        return ends.decide(status, place.inbox.read(), place.asked, reason)

    def _end(self, place: _Place, outcome: Outcome) -> None:
        if place.inbox is not None:
            self._servers.forget(place.inbox)
        del self._places[place.job.number]
        self._ended.append((place.job, outcome))
        for observer in self._observers:
            observer.on_end(place.job, outcome)

    def _lose(self, server: Server) -> None:
        """A server died, and with it its jobs; what they had started may be left."""
        for place in [place for place in self._places.values() if place.server is server]:
            if place.inbox is None and server.trouble is None:
                place.server = self._servers.get(place.environment)
            elif place.inbox is not None:
                if place.pid is not None:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(place.pid, signal.SIGKILL)
                state, cause = place.asked or State.failed, place.reason or "was killed with the server that forked it"
                self._end(place, Outcome(state, cause))

    # --- watching

    def _watch(self) -> None:
        """Clock and memory of the running jobs, and how far they are."""
        running = [place for place in self._places.values() if place.pid is not None]
        now, limit = time.monotonic(), self._options.job_timeout_seconds
        for place in running:
            if limit is not None and now - place.started > limit:
                reason = f"took more than {limit:g} s (job_timeout_seconds)"
                self.stop(place.job.number, State.failed, reason, GRACE)
            if place.deadline is not None and now > place.deadline:
                self._signal(place, signal.SIGKILL)
        pids = {place.pid: place for place in running if place.pid is not None}
        is_due = now >= self._last_look + SHOWN_EVERY
        if is_due or self._guard.may_be_short(memory.count_resident(pids)):
            self._weigh(pids)
        if is_due:
            self._last_look = now
            seen = [(place.job, self._app.look(place.job.folder), now - place.started) for place in running]
            for observer in self._observers:
                observer.on_tick(seen)

    def _weigh(self, pids: dict[int, _Place]) -> None:
        """Kills the job that holds most, if all together hold more than there is."""
        held = memory.resident_bytes(pids)
        for pid, size in held.items():
            pids[pid].held = size
        if any(place.deadline == 0 for place in pids.values()):
            return  # what the last one held is not free yet
        culprit = self._guard.find_culprit(held)
        if culprit is not None:
            place = pids[culprit]
            place.asked, place.reason = State.failed, f"out of memory: held {memory.show_gib(place.held)}"
            place.deadline = 0
            self._signal(place, signal.SIGKILL)

    def _signal(self, place: _Place, number: signal.Signals) -> None:
        place.server.channel.send("signal", place.job.number, number)


def _stated_variables(job: Job) -> dict[str, str]:
    """`hydra.job.env_set`, which libraries may read when they are imported."""
    stated: Any = OmegaConf.to_container(job.cfg.hydra.job.env_set, resolve=True)
    return {str(name): str(value) for name, value in stated.items()}
