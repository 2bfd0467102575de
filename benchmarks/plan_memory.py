"""Peak memory that `llama-exp plan` predicts, beside what a run of the same command line takes, on a CPU.

    python benchmarks/plan_memory.py                    # the seven workloads: a quarter of an hour, 18 GB of memory
    python benchmarks/plan_memory.py --only W1,W2       # those whose name holds one of these words
    python benchmarks/plan_memory.py --others           # settings that the model of memory was not fitted to

Each is `python train.py` in a process of its own, on random weights and tokens of this Python's own documentation, with
all that a short run does: validation, a checkpoint, the export. Measured is the largest resident set of the process,
frameworks and export included, which is what the system kills for. Predicted is what `plan` says for the same line.
Peaks repeat to about 3 %.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llama_exp.config.check import check_arguments
from llama_exp.run.machine import cpu_name
from llama_exp.run.plan import make_plan

ROOT = Path(__file__).resolve().parents[1]
SHORT = "trainer.max_steps=4 trainer.validation_batches=2 trainer.sample_prompts=[] logger=none"
PRETRAIN = "model=llama_15m dataset.sequence_length=256 trainer.batch_size=8"
LORA = "model=smollm2_135m lora.rank=8 dataset.sequence_length=256 trainer.batch_size=2"
SEVEN = (
    "model=llama2_7b preset.load_weights=false lora.rank=8 precision=bfloat16 dataset=python_qa "
    "dataset.sequence_length=128 trainer.batch_size=1"
)
WORKLOADS = {
    "W1: 15M from scratch, 8 x 256": PRETRAIN,
    "W2: LoRA on 135M, 2 x 256": LORA,
    "15M from scratch on JAX, 8 x 256": f"{PRETRAIN} runtime.backend=jax",
    "packed pairs: LoRA on 135M, 2 x 256": f"{LORA} dataset=python_qa precision=mixed_bfloat16",
    "LoRA on 7B, int4, 1 x 128": f"{SEVEN} quantization=int4 quantization.group_size=128 quantization.int8_layers=[]",
    "LoRA on 7B, int8, 1 x 128": f"{SEVEN} quantization=int8",
    "LoRA on 7B, bfloat16, 1 x 128": SEVEN,
}
OTHERS = {
    "the default run": "",
    "the default run on JAX": "runtime.backend=jax",
    "15M, 16 x 256": "model=llama_15m dataset.sequence_length=256 trainer.batch_size=16",
    "15M, 8 x 256, remat=block": f"{PRETRAIN} trainer.remat=block",
    "15M, 8 x 256, chunks of 256": f"{PRETRAIN} objective.chunk_tokens=256",
    "LoRA on 135M, 2 x 256, bfloat16": f"{LORA} precision=bfloat16",
    "LoRA on 135M, 2 x 256, int8": f"{LORA} quantization=int8",
    "LoRA on 135M, 2 x 256, JAX": f"{LORA} runtime.backend=jax",
}


def measure(arguments: list[str]) -> int:
    """Bytes of the largest resident set of a run of this command line, from its first to its last moment."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, str(ROOT / "train.py"), *arguments, f"hydra.run.dir={folder}/run"]
        with subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}:\n{log.read()[-2000:]}")
        return usage.ru_maxrss * 1024


def main() -> None:
    """Measures what was asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="workloads whose name holds one of these, comma separated")
    parser.add_argument("--others", action="store_true", help="the settings that nothing was fitted to")
    options = parser.parse_args()
    table = Table("run", "predicted", "measured", "predicted / measured")
    for name, line in (OTHERS if options.others else WORKLOADS).items():
        if not any(word in name for word in options.only.split(",")):
            continue
        arguments = [*line.split(), *SHORT.split()]
        planned = make_plan(check_arguments(arguments).config)
        assert planned is not None
        predicted, measured = planned.peak_bytes, measure(arguments)
        parts = ", ".join(f"{part} {size / 1e6:.0f}" for part, size in planned.memory_bytes.items() if size)
        print(f"{name}: {predicted / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB ({parts})", flush=True)
        table.add_row(name, f"{predicted / 1e9:.2f} GB", f"{measured / 1e9:.2f} GB", f"{predicted / measured:.2f}")
    Console(width=120).print(cpu_name(), table)


if __name__ == "__main__":
    main()
