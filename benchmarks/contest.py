"""Contenders in turn, each in processes of its own; their medians, ratios and failures in one table.

A script names its contenders, `<library> <setting ...>`, and measures one of them in `child(contender) -> figures`. Its
process is the script itself with `--child <contender>` added; the figures are the last line that it prints, as JSON:
`seconds`, a list of times of the same work, and numbers of which the table shows medians, `peak_mib` among them.

    options = contest.parser(__doc__).parse_args()
    if options.child:
        contest.answer(child(options.child))
    else:
        results = contest.measure(contest.chosen(CONTENDERS, options.only), options.rounds)
        contest.report(results, {"tokens/s": lambda name, row: f"{TOKENS / row['seconds']:.0f}"})
        contest.end(results)

Contenders take turns, so that a busy machine hits all alike. Only the CPU is used, and its processes see this checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = "llama_exp"
HIDDEN = argparse.SUPPRESS  # the help of an option from `measure` to its processes
_STARTED = "CONTEST_STARTED"
# Rows of a product that lie a power of two apart share cache sets, which halves the rate of float32.
_PRODUCT_SIZE = 1152

Columns = Mapping[str, Callable[[str, dict], str]]


@dataclass
class Results:
    """What the processes left.

    rows: by contender, the median of all its `seconds` of all rounds, and the medians of its other numbers.
    failures: by contender, why its last failed process failed.
    """

    rows: dict[str, dict] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def select(self, word: str) -> Results:
        """The part of the contenders with this word in their names."""
        parts = ({name: part[name] for name in part if word in name.split()} for part in (self.rows, self.failures))
        return Results(*parts)


# --- in the process that measures


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="contenders whose name holds one of these, comma separated")
    parser.add_argument("--rounds", type=int, default=3, help="processes per contender")
    parser.add_argument("--child", help=HIDDEN)
    return parser


def chosen(contenders: Sequence[str], only: str) -> list[str]:
    """Those that `--only` asks for, in their order."""
    names = [name for name in contenders if any(part in name for part in only.split(","))]
    if not names:
        raise SystemExit(f"--only {only}: no contender has that in its name; there are\n  " + "\n  ".join(contenders))
    return names


def measure(contenders: Sequence[str], rounds: int, arguments: Iterable[str] = ()) -> Results:
    """All contenders in turn, `rounds` times, in processes with this process' command line and `arguments`."""
    runs: dict[str, list[dict]] = {name: [] for name in contenders}
    results = Results()
    for number in range(1, rounds + 1):
        for name in contenders:
            try:
                runs[name].append(_figures([sys.executable, *sys.argv, *arguments, "--child", name]))
                words = f"{statistics.median(runs[name][-1]['seconds']):.3f} s"
            except ChildProcessError as error:
                results.failures[name] = words = str(error)
            print(f"round {number} of {rounds}: {name}: {words}", file=sys.stderr, flush=True)
    results.rows = {name: medians(its) for name, its in runs.items() if its}
    return results


def medians(runs: Sequence[Mapping]) -> dict:
    """One row of the rounds' figures: lists are put together, then each figure's median is taken."""
    lists = [{key: value if isinstance(value, list) else [value] for key, value in run.items()} for run in runs]
    return {key: statistics.median([value for run in lists for value in run[key]]) for key in lists[0]}


def report(results: Results, columns: Columns, reference: str = OURS, ratio: str = "ours is faster by") -> None:
    """Prints the table, best first, and what it says of the other libraries.

    Args:
        results: of `measure`.
        columns: by title, the cell of a contender and its row. Ratio and peak memory are added.
        reference: what the ratios refer to: the best contender whose name begins so.
        ratio: title of the ratios.
    """
    from rich.console import Console
    from rich.table import Table

    basis = best(results.rows, reference)
    first, *others = columns
    table = Table()
    table.add_column("contender", no_wrap=True)
    for title in (first, ratio, *others, "peak MiB"):
        table.add_column(title, justify="right")
    for name, row in sorted(results.rows.items(), key=lambda item: item[1]["seconds"]):
        quotient = "" if basis is None else f"{row['seconds'] / results.rows[basis]['seconds']:.2f} x"
        cells = (columns[title](name, row) for title in others)
        table.add_row(name, columns[first](name, row), quotient, *cells, f"{row['peak_mib']:.0f}")
    console = Console(width=150, highlight=False, markup=False)
    console.print(table)
    for line in verdicts(results.rows):
        console.print(line, soft_wrap=True)


def end(results: Results) -> None:
    """Names the contenders that failed; with any, the process ends with 1."""
    for name, why in results.failures.items():
        print(f"FAILED {name}: {why}")
    if results.failures:
        sys.exit(1)


def best(rows: Mapping[str, dict], prefix: str) -> str | None:
    """The fastest contender whose name begins with `prefix`."""
    names = [name for name in rows if name.startswith(prefix)]
    return min(names, key=lambda name: rows[name]["seconds"], default=None)


def verdicts(rows: Mapping[str, dict]) -> list[str]:
    """A line for each other library: our best setting against its best."""
    ours = best(rows, OURS)
    others = dict.fromkeys(name.split()[0] for name in rows if not name.startswith(OURS))
    if ours is None:
        return []
    lines = []
    for library in others:
        theirs = best(rows, f"{library} ")
        ratio = rows[theirs]["seconds"] / rows[ours]["seconds"]
        settings = [name.partition(" ")[2] for name in (ours, theirs)]
        lines.append(f"our best ({settings[0]}): {ratio:.2f} times as fast as the best of {library} ({settings[1]})")
    return lines


def _figures(command: Sequence[str]) -> dict:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment[_STARTED] = repr(time.time())
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    try:
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        why = f"exit code {done.returncode}"
    except (IndexError, ValueError):
        why = "it printed no figures"
    print(done.stderr[-2000:], file=sys.stderr)
    raise ChildProcessError(f"{why}: {(done.stderr.strip().splitlines() or ['nothing on standard error'])[-1]}")


# --- in a contender's process


def use(backend: str) -> None:
    """Chooses Keras' backend; before Keras is imported."""
    os.environ["KERAS_BACKEND"] = backend


def seconds_since_start() -> float:
    """Seconds since this process was started, its interpreter's start included."""
    return time.time() - float(os.environ[_STARTED])


def seconds(function: Callable[[], object]) -> float:
    """What one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak_mib() -> float:
    """Largest resident set of this process so far, without what its parent had (getrusage's figure is inherited)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")


def product_rate(library: str, dtype: str) -> float:
    """Operations per second of a large matrix product in `dtype` in this process: the roof, the best of a few.

    Without XLA whatever the contender does: the roof is the machine's as far as the backend's own kernels reach it.
    """
    if library != "transformers":
        from llama_exp.trainer.metrics import gemm_flops_per_second

        return gemm_flops_per_second(dtype, jit=False)
    import torch

    a = torch.randn(_PRODUCT_SIZE, _PRODUCT_SIZE).to(getattr(torch, dtype))
    return 2 * _PRODUCT_SIZE**3 / min(seconds(lambda: torch.matmul(a, a)[0, 0].item()) for _ in range(12))


def answer(figures: Mapping) -> None:
    """Hands the figures to the process that measures."""
    print(json.dumps(figures))
