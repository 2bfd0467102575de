"""The same step on Keras' other backend, in a process of its own: a process has one backend.

    python -m llama_exp.verification.other_backend FILE OVERRIDES...

writes loss and gradients to FILE.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llama_exp.config.schema import Config
from llama_exp.console.failures import tell_failure
from llama_exp.errors import ExitCode
from llama_exp.files.temporary import temporary_folder
from llama_exp.limits.runtime import Backend
from llama_exp.verification.subject import build_subject, compose

_LOSS = "loss"
_REMEDIES = {"jax": "pip install 'llama_exp[jax]'", "tensorflow": "pip install tensorflow"}


def name_other(config: Config) -> str:
    """The backend that the config does not name."""
    (other,) = set(Backend) - {config.runtime.backend}
    return other.value


def find_obstacle(name: str) -> str | None:
    """Why a backend cannot be used here, and what to do; None: it can."""
    return None if importlib.util.find_spec(name) else f"{name} is not installed: {_REMEDIES[name]}"


def measure_there(name: str, overrides: Sequence[str]) -> Any:
    """What the configured step computes on a backend, or in words why it refuses the configuration.

    Args:
        name: of the backend.
        overrides: that the config is composed of.

    Raises:
        RuntimeError: the other process failed, with its last words.
    """
    from llama_exp.trainer.probe import Measured

    lines = [line for line in overrides if not line.startswith("runtime.backend=")]
    with temporary_folder() as folder:
        file = folder / "measured.npz"
        command = [sys.executable, "-m", __name__, str(file), *lines, f"runtime.backend={name}"]
        environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode in (ExitCode.CONFIG, ExitCode.INPUT):
            return f"{name} refuses it: {done.stderr.strip().splitlines()[0]}"
        if done.returncode:
            raise RuntimeError(f"the step on {name} ended with exit code {done.returncode}\n{done.stderr[-2000:]}")
        with np.load(file) as arrays:
            gradients = {key: arrays[key] for key in arrays.files if key != _LOSS}
            return Measured(float(arrays[_LOSS]), gradients)


def main(file: Path, arguments: Sequence[str]) -> ExitCode:
    """Measures the configured step and writes it."""
    from llama_exp.verification.invariances import open_bench

    try:
        subject = build_subject(compose(arguments, "llama-exp verify invariances"), lambda phase: None)
        measured = open_bench(subject).measure(subject.rows)
        arrays: dict[str, Any] = {_LOSS: np.float64(measured.loss), **measured.gradients}
        np.savez(file, **arrays)
    except Exception as error:
        return tell_failure(error, debug=False)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
