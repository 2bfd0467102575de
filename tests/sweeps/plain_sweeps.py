"""Sweeps of a Hydra application that knows nothing of llama_exp, and the processes they leave."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APP = """
import os, pathlib, signal, sys, time
import hydra

@hydra.main(version_base=None, config_name=None)
def main(cfg):
    here = pathlib.Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)
    (here / "pids").write_text(f"{os.getpid()} {os.getppid()}")
    if cfg.x == cfg.get("bad", cfg.x):
        exec(pathlib.Path("do.py").read_text(), {**globals(), "here": here, "cfg": cfg})
    (here / "done").write_text(str(time.time()))
    return cfg.x * 2

main()
"""
# A job that goes on until it is told to stop, and then needs a moment for its checkpoint.
SAVES = """
def save(number, frame):
    (here / 'saved').write_text(str(number)); os._exit(75 if number == 15 else 130)
for number in (2, 15): signal.signal(number, save)
(here / 'ready').touch(); time.sleep(60)
"""
STAYS = """
for number in (2, 15): signal.signal(number, signal.SIG_IGN)
(here / 'ready').touch(); time.sleep(60)
"""


class Sweep:
    """One sweep in a folder."""

    def __init__(self, folder, *overrides, do="pass"):
        (folder / "app.py").write_text(APP)
        self.folder = folder / "sweep"
        self.command = [sys.executable, "app.py", "-m", "hydra/launcher=processes", f"hydra.sweep.dir={self.folder}"]
        self.command += overrides
        (folder / "do.py").write_text(do)
        self.process = subprocess.Popen(
            self.command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.told = ""

    def end(self):
        """Its exit code, once it has ended."""
        self.told, _ = self.process.communicate(timeout=60)
        return self.process.returncode

    def await_files(self, name, count):
        """Until so many jobs have a file."""
        await_true(lambda: len(self.jobs_with(name)) >= count, f"{count} jobs with {name}")

    def jobs_with(self, name):
        """Numbers of the jobs that have a file."""
        return sorted(int(path.parent.name) for path in self.folder.glob(f"*/{name}"))

    def pids(self):
        """Job and server of each job that began."""
        return [tuple(map(int, path.read_text().split())) for path in self.folder.glob("*/pids") if path.read_text()]

    def send(self, number):
        """What a terminal does with Ctrl-C: the signal goes to all processes of the command."""
        os.killpg(self.process.pid, number)

    def kill_all(self):
        """For the end of a test."""
        self.process.stdout.close()
        for pid in {self.process.pid, *(pid for pair in self.pids() for pid in pair)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def require_nothing_left(self, seconds=5):
        """Neither a job nor a server runs."""
        for pid in {pid for pair in self.pids() for pid in pair}:
            await_true(lambda pid=pid: not is_running(pid), f"the end of {pid}", seconds)


def is_running(pid):
    """Whether a process computes; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def await_true(condition, what, seconds=20):
    """Waits for something that another process does."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s for {what}"
        time.sleep(0.02)
