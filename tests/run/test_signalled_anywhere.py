"""Signals at random moments of a whole run, from the start of its process to the end.

Right is one of four endings, and in each the same command goes on to the bits of a run that nothing stopped:

    its exit code (75, for SIGINT 130)   the summary, if there is one, says preempted (interrupted)
    0                                    the signal came when everything was written; the summary says finished
    the signal itself                    before the first line of the command, while Python starts; nothing is there
    it came too late                     the process had ended

`LLAMA_EXP_SIGNAL_SEED` and `LLAMA_EXP_SIGNAL_BACKEND` choose other moments and the other backend.
"""

import hashlib
import json
import os
import random
import signal
import time

import pytest
from whole_runs import rows, start

pytestmark = [pytest.mark.process, pytest.mark.slow]

SEED = os.environ.get("LLAMA_EXP_SIGNAL_SEED", "11")
BACKEND = os.environ.get("LLAMA_EXP_SIGNAL_BACKEND", "jax")
RUN = [f"runtime.backend={BACKEND}", "runtime.threads=1", "model.num_layers=1", "logger.mode=disabled", "resume=auto"]
RUN += ["trainer.max_steps=24", "trainer.checkpoint_every_steps=10", "name=signalled"]
ENDINGS = {"SIGTERM": (75, "preempted"), "SIGUSR1": (75, "preempted"), "SIGHUP": (75, "preempted")}
ENDINGS |= {"SIGINT": (130, "interrupted")}


def begin(home, folder):
    """A process whose data cache is new; what JAX compiles is shared, so that the moments fall on everything else."""
    folder.mkdir(exist_ok=True)
    if not (folder / "text.txt").exists():
        (folder / "text.txt").write_text("\n\n".join(f"line {n} tells a short tale number {n * n}" for n in range(60)))
    environment = {"LLAMA_EXP_CACHE": str(folder / "cache"), "JAX_COMPILATION_CACHE_DIR": str(home / "jax")}
    return start(folder, *RUN, **environment)


def run_folders(folder):
    root = folder / "outputs" / "signalled"
    return sorted(path for path in root.glob("*") if path.is_dir() and not path.is_symlink())


def statuses(folder):
    summaries = (path / "summary.json" for path in run_folders(folder))
    return [json.loads(path.read_text())["status"] for path in summaries if path.exists()]


def final_state(folder):
    (run,) = (path for path in run_folders(folder) if (path / "model").exists())
    last = max((run / "checkpoints").glob("step-????????"))
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in last.glob("*.safetensors")}
    return last.name, digests, rows(run)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Where, how long and with which result a run goes that nothing stops."""
    home = tmp_path_factory.mktemp("signalled")
    for name in ("compiling", "straight"):
        started = time.monotonic()
        process = begin(home, home / name)
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0, errors
    return home, time.monotonic() - started, final_state(home / "straight")


@pytest.mark.parametrize("number", range(20))
@pytest.mark.parametrize("name", ENDINGS)
def test_it_ends_in_order_and_goes_on(straight, name, number):
    home, seconds, expected = straight
    delay = random.Random(f"{SEED}-{name}-{number}").uniform(0, seconds)
    folder = home / f"{name}-{number}"
    process = begin(home, folder)
    time.sleep(delay)
    process.send_signal(getattr(signal, name))
    output, errors = process.communicate(timeout=120)
    code, status = ENDINGS[name]
    found = process.returncode, statuses(folder)
    print(f"{name} after {delay:.2f} of {seconds:.2f} s: exit code {found[0]}, {found[1] or 'no run folder'}")
    right = [(code, []), (code, [status]), (0, ["finished"]), (-getattr(signal, name), [])]
    assert found in right, errors
    assert found[0] >= 0 or not run_folders(folder)
    assert "Traceback" not in errors or found[0] < 0, errors
    if found[0] != 0:
        process = begin(home, folder)
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0 and statuses(folder)[-1] == "finished", errors
    assert final_state(folder) == expected
