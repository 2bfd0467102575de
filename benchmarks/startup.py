"""From the command to the end of the first training step, whole processes with compiled bytecode, and where it goes.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/startup.py     # LoRA rank 8 on query and value of 135M parameters, random weights, 2 x 256 tokens

Two tables. The first has the three libraries doing the same in processes of their own: start the interpreter, import,
build the model with its adapters, make the first step and a second one; what the first step takes beyond the second is
tracing and compiling. The second has `python train.py model=smollm2_135m preset.load_weights=false lora.rank=8 ...
trainer.max_steps=1`, timed by the lines that it prints: until the run folder is there (mistakes looked for,
configuration composed), until training starts (imports, data, model), the validation before the first step, the first
step, and the whole with what follows (another validation, a checkpoint, the adapter, the report). One run of each such
command comes before, uncounted: it tokenizes the data, and JAX keeps its compiled programs. Bytecode is compiled before
anything runs.
"""

from __future__ import annotations

import compileall
import importlib
import json
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from pathlib import Path

import contest
import numpy as np
import peers

BATCH_SIZE, LENGTH, RANK = 2, 256, 8
LIBRARY, COMMAND = "library", "train.py"
# <library> <library or train.py> <backend> <policy> <compiler>
CONTENDERS = [
    "llama_exp library tensorflow bfloat16 plain",
    "llama_exp library jax bfloat16 xla",
    "keras_hub library tensorflow bfloat16 plain",
    "keras_hub library jax bfloat16 xla",
    "transformers library torch bfloat16 plain",
    "llama_exp train.py tensorflow bfloat16 auto",
    "llama_exp train.py jax bfloat16 auto",
]
# The beginnings of the lines by which `train.py` tells where it is: the phase that ends there.
PHASE_ENDS = {
    "run folder": "composing",
    "with": "imports, data, model",
    "step 0/1  validation": "first validation",
    "step 1/1  loss": "first step",
}
LIBRARY_PHASES = ("interpreter", "import", "build", "compile", "step")


def library_child(library: str, backend: str, policy: str, compiler: str) -> dict:
    """Phases of one library in this process."""
    ends = [contest.seconds_since_start()]
    contest.use(backend)
    for name in peers.IMPORTS[library]:
        importlib.import_module(name)
    ends.append(contest.seconds_since_start())
    step = peers.STEPS[library](peers.MODELS[library](peers.SMOLLM2_135M, policy, RANK), compiler == "xla")
    ends.append(contest.seconds_since_start())
    batch = peers.random_batch(np.random.default_rng(0), peers.SMOLLM2_135M["vocabulary_size"], BATCH_SIZE, LENGTH)
    step(batch)
    total = contest.seconds_since_start()
    second_step = contest.seconds(lambda: step(batch))
    ends += [total - second_step, total]
    phases = dict(zip(LIBRARY_PHASES, np.diff([0.0, *ends]).tolist(), strict=True))
    return {"seconds": [total], "peak_mib": contest.peak_mib(), **phases}


def command_child(backend: str, policy: str) -> dict:
    """Phases of the command line, by the lines that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(contest.ROOT / "train.py"), "model=smollm2_135m", "preset.load_weights=false"]
        command += [f"lora.rank={RANK}", f"precision={policy}", "dataset=python_qa", f"runtime.backend={backend}"]
        command += [f"dataset.sequence_length={LENGTH}", f"trainer.batch_size={BATCH_SIZE}", "trainer.max_steps=1"]
        command += ["trainer.validation_batches=1", "trainer.sample_prompts=[]", f"hydra.run.dir={folder}/run"]
        start, lines, ends = time.perf_counter(), [], {}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                lines.append(line)
                phase = next((phase for begin, phase in PHASE_ENDS.items() if line.startswith(begin)), None)
                if phase is not None:
                    ends.setdefault(phase, time.perf_counter() - start)
        whole = time.perf_counter() - start
        if process.returncode or list(ends) != list(PHASE_ENDS.values()):
            sys.stderr.writelines(lines)
            raise RuntimeError(f"train.py ended with {process.returncode} after the phases {list(ends)}")
        rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    phases = dict(zip(ends, np.diff([0.0, *ends.values()]).tolist(), strict=True))
    peak_mib = max(row.get("peak_memory_bytes") or 0 for row in rows) / 2**20
    return {"seconds": [ends["first step"]], "whole": whole, "peak_mib": peak_mib, **phases}


def child(contender: str) -> dict:
    """Measures one contender."""
    library, kind, backend, policy, compiler = contender.split()
    return command_child(backend, policy) if kind == COMMAND else library_child(library, backend, policy, compiler)


def prepare(contenders: list[str]) -> None:
    """Compiles the bytecode of all packages and ours, and lets each command tokenize its data."""
    warnings.simplefilter("ignore", SyntaxWarning)
    for folder in (sysconfig.get_path("purelib"), contest.ROOT / "llama_exp"):
        compileall.compile_dir(folder, quiet=2)  # without its verdict: some packages carry files that never compile
    for name in contenders:
        if COMMAND in name.split():
            command_child(*name.split()[2:4])


def columns(phases: tuple[str, ...]) -> contest.Columns:
    """The whole time, and a column for each phase."""

    def seconds_of(phase):
        return lambda name, row: f"{row[phase]:.1f}"

    return {"first step after s": seconds_of("seconds"), **{phase: seconds_of(phase) for phase in phases}}


def main() -> None:
    """Prints both tables."""
    options = contest.parser(__doc__).parse_args()
    if options.child:
        contest.answer(child(options.child))
        return
    contenders = contest.chosen(CONTENDERS, options.only)
    prepare(contenders)
    results = contest.measure(contenders, options.rounds)
    for kind, phases in ((LIBRARY, LIBRARY_PHASES), (COMMAND, (*PHASE_ENDS.values(), "whole"))):
        if any(kind in name.split() for name in contenders):
            contest.report(results.select(kind), columns(phases))
    contest.end(results)


if __name__ == "__main__":
    main()
