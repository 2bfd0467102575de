"""One change at a time: does `llama-exp reproduce` name it before training, and how does it end?

    pip install -c constraints.txt -e ".[jax]"
    python benchmarks/reproduce.py                      # on JAX, about five minutes on two cores
    python benchmarks/reproduce.py --backend tensorflow

Each row is a process of its own, as a user starts it, from a copy of the package: edits meanwhile would be named too.
A run of the default configuration, and one on a text file, are cut to 20 steps; then each is reproduced

    unchanged                       must end bit-identical
    from an archive elsewhere       likewise, in another folder, the data file inside the archive
    with one record changed         must name the data
    with one line of code changed   in a copy of the package: must name the file
    with one version changed        numpy of another number before the installed one on the path: must name numpy
    with another number of threads  must name them

The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHORT = ["trainer.max_steps=20", "trainer.log_every_steps=5", "trainer.validate_every_steps=10", "logger=none"]
RECORD = "Record 7 says seven."
PATCHED = "models/norm.py"
SAME, CHANGED = "package", "changed_package"
MINUTES = 10


@dataclass(frozen=True)
class Case:
    """What is changed, and what the command must say.

    words: of `llama-exp reproduce`. expected: what the line `expected` must hold. endings: how it may end. package:
    below the place, the folder that llama_exp is imported from. path: a folder of packages before it. folder: where the
    command is given.
    """

    name: str
    words: list[str]
    expected: str
    endings: tuple[str, ...]
    package: str = SAME
    path: str | None = None
    folder: str = "."


def main() -> None:
    """Runs the cases and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="jax", choices=["jax", "tensorflow"])
    parser.add_argument("--only", metavar="WORD", default="", help="cases whose name has the word")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reproduce-") as name:
        place = Path(name)
        prepare(place, options.backend)
        wrong = 0
        print(
            f"| {options.backend}: changed | expected | ended | exit code | right |\n|---|---|---|---|---|", flush=True
        )
        for case in (case for case in list_cases() if options.only in case.name):
            expected, ending, code = try_case(place, case)
            right = case.expected in expected and ending in case.endings
            wrong += not right
            print(f"| {case.name} | {expected} | {ending} | {code} | {'yes' if right else 'NO'} |", flush=True)
    sys.exit(int(wrong > 0))


def prepare(place: Path, backend: str) -> None:
    """The two runs, the archive, the changed text, package and version."""
    for package in (SAME, CHANGED):
        for name in ("llama_exp", "conf", "hydra_plugins"):
            shutil.copytree(ROOT / name, place / package / name, ignore=shutil.ignore_patterns("__pycache__"))
    with open(place / CHANGED / "llama_exp" / PATCHED, "a") as file:
        file.write("# one line more\n")
    text = "\n\n".join(f"Record {n} says {'seven' if n == 7 else n}." for n in range(400))
    for folder, content in (("texts", text), ("changed", text.replace(RECORD, "Record 7 says eight."))):
        (place / folder).mkdir()
        (place / folder / "text.txt").write_text(content)
    train = ["train", f"runtime.backend={backend}", *SHORT]
    own = ["dataset=text_files", "dataset.files=[texts/text.txt]", "dataset.document=paragraph"]
    require(start(place, [*train, "hydra.run.dir=default"]))
    require(start(place, [*train, *own, "dataset.sequence_length=64", "hydra.run.dir=own"]))
    require(start(place, ["pack", "own", "--data", "--to", "elsewhere/own.tar.gz"]))
    (place / "version" / "numpy-9.9.9.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: numpy\nVersion: 9.9.9\n"
    (place / "version" / "numpy-9.9.9.dist-info" / "METADATA").write_text(metadata)


def list_cases() -> list[Case]:
    """Every change, with what must be said of it."""
    same, near = "bit-identical", ("bit-identical", "within tolerance")
    other = str(1 if (os.cpu_count() or 1) > 1 else 2)
    return [
        Case("nothing", ["default"], same, (same,)),
        Case("nothing, own text", ["own"], same, (same,)),
        Case("nothing, an archive elsewhere", ["own.tar.gz"], same, (same,), folder="elsewhere"),
        Case("one record", ["own", "--data", "changed"], "data (dataset.train.fingerprint", ("different",)),
        Case("one line of code", ["default"], f"code ({PATCHED})", near, package=CHANGED),
        Case("one version", ["default"], "versions (numpy)", near, path="version"),
        Case("threads", ["default", f"runtime.threads={other}"], "runtime (threads)", near),
    ]


def try_case(place: Path, case: Case) -> tuple[str, str, int]:
    """What it expected before training, how it ended, and its exit code."""
    done = start(place, ["reproduce", *case.words], case)
    before, _, _ = done.stderr.partition("\nstep  0/")  # what was told before training
    told = next((line for line in before.splitlines() if line.strip().startswith("expected")), "")
    ending = next((line for line in done.stdout.splitlines() if line.startswith("reproduction")), done.stderr[-300:])
    return told.strip().removeprefix("expected").strip(), ending.removeprefix("reproduction").strip(), done.returncode


def start(place: Path, words: list[str], case: Case | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, in the surroundings of a case."""
    folder, package, path = (".", SAME, None) if case is None else (case.folder, case.package, case.path)
    variables = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    folders = [*([] if path is None else [place / path]), place / package]
    variables["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    command = [sys.executable, "-m", "llama_exp", *words]
    return subprocess.run(
        command, cwd=place / folder, env=variables, capture_output=True, text=True, timeout=60 * MINUTES, check=False
    )


def require(done: subprocess.CompletedProcess[str]) -> None:
    """Ends the script if a command failed."""
    if done.returncode:
        sys.exit(f"{done.args}: exit code {done.returncode}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
