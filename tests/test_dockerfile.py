"""The Dockerfile: its steps in order, below a temporary folder; an image where there is an engine."""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Records what pip is asked for; only the project itself, which needs no network, is installed, into $TARGET.
PIP = f"""#!/bin/sh
echo "$@" >> "$PIP_LOG"
case " $* " in
  *" --no-deps "*)
    shift
    exec "{sys.executable}" -m pip install --no-index --no-build-isolation --target "$TARGET" "$@" ;;
esac
"""


def steps():
    """(instruction, text) in order."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(" ", 1)) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def of(instruction):
    """The texts of one instruction."""
    return [text for name, text in steps() if name == instruction]


def copied():
    """Names that COPY takes from the repository."""
    return [name for text in of("COPY") for name in text.split()[:-1]]


def ignored(path):
    """Whether .dockerignore keeps a path out of the build."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for place in [path, *path.parents][:-1]:
        for pattern in patterns:
            anywhere = pattern.startswith("**/")
            if fnmatch.fnmatch(place.name if anywhere else str(place), pattern.removeprefix("**/")):
                return True
    return False


def test_what_is_copied_is_there_and_not_ignored():
    assert copied()
    for name in copied():
        assert (ROOT / name).exists(), name
        for path in [ROOT / name, *(ROOT / name).rglob("*")]:
            if "__pycache__" not in path.parts:
                assert not ignored(path.relative_to(ROOT)), path
    assert ignored(Path("tests/test_dockerfile.py")) and ignored(Path("llama_exp/models/__pycache__"))


def test_the_base_is_the_python_that_the_constraints_are_for():
    [base] = of("FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", base)[1]
    assert f"Python {version}" in (ROOT / "constraints.txt").read_text().splitlines()[0]
    assert PROJECT["requires-python"] == f">={version}"


@pytest.mark.process
def test_its_steps_lead_to_an_installed_command(tmp_path):
    programs, target, log = (tmp_path / name for name in ("programs", "installed", "pip.log"))
    programs.mkdir()
    (programs / "pip").write_text(PIP)
    (programs / "pip").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TARGET": str(target), "PIP_LOG": str(log)}
    folder = tmp_path
    for instruction, text in steps():
        text = re.sub(r"(?<![\w.])/(opt|work|cache)\b", rf"{tmp_path}/\1", text)
        if instruction == "WORKDIR":
            folder = Path(text)
            folder.mkdir(parents=True, exist_ok=True)
        elif instruction == "COPY":
            copy(text.split(), folder)
        elif instruction == "ENV":
            environment |= dict([text.split("=", 1)])
        elif instruction == "RUN":
            done = subprocess.run(["sh", "-ec", text], cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{text}\n{done.stderr}"
    needs = (tmp_path / "opt" / "llama_exp" / "needs.txt").read_text().splitlines()
    assert needs == PROJECT["dependencies"]
    assert log.read_text().splitlines()[0] == "install --no-cache-dir -c constraints.txt -r needs.txt"
    assert start(folder, target, environment).startswith("usage: llama-exp")


def copy(words, folder):
    """What COPY does: files into the folder, a folder's content into a folder."""
    for name in words[:-1]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / words[-1], ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / words[-1])


def start(folder, target, environment):
    """What the container would print without arguments."""
    [entry], [arguments] = map(json.loads, of("ENTRYPOINT")), map(json.loads, of("CMD"))
    needs = [str(target), sysconfig.get_path("purelib")]
    environment = environment | {"PYTHONPATH": os.pathsep.join(needs)}
    command = [sys.executable, target / "bin" / entry[0], *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
def test_an_engine_builds_it():
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode != 0:
        pytest.skip("no Docker engine runs here")
    subprocess.run([docker, "build", "--tag", "llama_exp:test", ROOT], check=True)
    shown = subprocess.run([docker, "run", "--rm", "llama_exp:test"], check=True, capture_output=True, text=True)
    assert shown.stdout.startswith("usage: llama-exp")
