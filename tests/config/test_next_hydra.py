"""The config part of the suite under the next releases of Hydra and OmegaConf, in an environment of their own.

Needs a package index. What they announce to end later is listed here with what to do then; a new announcement fails.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEXT = ("hydra-core>=1.4.0rc1,<1.5", "omegaconf>=2.4.0rc1,<2.5")
# Measures this machine, and is measured by the suite itself.
SPEED = "tests/config/test_check.py::test_the_failing_command_takes_less_than_a_second"
# Beginning of the warning -> how to follow it once the bound in pyproject.toml moves up to that release.
ANNOUNCED = {
    "The version_base parameter is deprecated": "drop version.setbase: 1.4 has only one set of defaults",
    "register_new_resolver() is deprecated": "OmegaConf.register_resolver",
    "hydra.utils.instantiate() resolved": "instantiate(..., _execution_whitelist_=[target]) in config/instantiate.py, "
    "which has decided by then that the target may be called",
}


def call(*command, **options):
    """The finished process."""
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=900, cwd=ROOT, **options
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter that finds the next releases first, and everything else where this one does."""
    environment = tmp_path_factory.mktemp("next") / "environment"
    assert call(sys.executable, "-m", "venv", "--without-pip", environment).returncode == 0
    python = environment / "bin" / "python"
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    done = call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--pre", *NEXT)
    if "No matching distribution" in done.stderr:
        pytest.skip(f"pip finds no {' and '.join(NEXT)} here")
    assert done.returncode == 0, done.stderr
    (packages / "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.slow
def test_the_config_part_passes(python):
    versions = "import hydra, omegaconf; print(hydra.__version__, omegaconf.__version__)"
    hydra, omegaconf = call(python, "-c", versions).stdout.split()
    assert hydra.startswith("1.4.") and omegaconf.startswith("2.4.")
    expected = [option for message in ANNOUNCED for option in ("-W", f"ignore:{message}")]
    left_out = [f"--ignore={Path(__file__)}", f"--deselect={SPEED}"]
    tests = ["tests/config", *left_out, "-n", "0", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = call(python, "-m", "pytest", *tests, "-W", "error", *expected, env=environment)
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.slow
def test_a_command_line_composes_and_says_nothing_new(python):
    environment = {**os.environ, "PYTHONWARNINGS": "always"}
    done = call(python, ROOT / "train.py", "lora.rank=8", "--cfg", "job", env=environment)
    assert done.returncode == 0 and "rank: 8" in done.stdout, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "Warning: " in line]
    assert all(any(message in line for message in ANNOUNCED) for line in warnings), warnings
