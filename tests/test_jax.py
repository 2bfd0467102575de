"""The backend-neutral tests once more on JAX, in a process of its own: Keras' backend is chosen once per process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "jax", reason="this process is that one")
def test_the_neutral_tests_pass_on_jax():
    options = ["-m", "neutral and not slow", "-n", "0", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(ROOT / "tests")]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    for name in [name for name in environment if name.startswith("PYTEST_XDIST")]:
        del environment[name]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    assert " passed" in finished.stdout and "no tests ran" not in finished.stdout
