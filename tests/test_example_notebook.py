"""examples/first_run.ipynb: its form, and its cells in order, as a notebook runs them."""

import json
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
from whole_runs import last_wins

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = json.loads((ROOT / "examples" / "first_run.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
# What makes a training command short, in place of the notebook's own values.
SHORT = (
    "trainer.max_steps=6 trainer.validate_every_steps=6 trainer.validation_batches=1 trainer.sample_tokens=4 "
    "dataset.sequence_length=32 optimizer.learning_rate=0.01"
)
INSTALL = "pip install -q -c constraints.txt -e ."


def is_setup(cell):
    """Whether a cell prepares the machine, which the tests' own already is."""
    return "setup" in cell["metadata"].get("tags", [])


def test_it_is_a_notebook_without_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in CODE:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_it_installs_as_readme_says():
    """From the clone's folder, which the cell looks for; the address of a clone is the reader's to fill in."""
    [setup] = filter(is_setup, CODE)
    lines = [line.strip() for line in setup["source"]]
    assert lines[0].startswith("# !git clone <repository>") and lines[-1] == f"!{INSTALL}"
    assert INSTALL.replace(" -q", "") in (ROOT / "README.md").read_text()


class Session:
    """Runs cells as a notebook does: one namespace, `!` for the shell, `{name}` in it for a variable."""

    def __init__(self, folder):
        self.folder = folder
        self.names = {}
        programs = folder / "bin"
        programs.mkdir()
        script = programs / "llama-exp"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llama_exp "$@"\n')
        script.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
        self.environment = {
            **kept,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LLAMA_EXP_CACHE": str(folder / "cache"),
        }

    def run(self, cell):
        """What the shell commands of a cell print."""
        plain, printed = [], []
        for line in "".join(cell["source"]).splitlines():
            if line.startswith("!"):
                exec("\n".join(plain), self.names)
                plain = []
                printed.append(self.shell(line[1:]))
            else:
                plain.append(line)
        exec("\n".join(plain), self.names)
        return "".join(printed)

    def shell(self, line):
        """Standard output of a command line, training shortened."""
        line = line.format(**self.names)
        if line.startswith("llama-exp train") and "--cfg" not in line:
            line = shlex.join(last_wins(shlex.split(f"{line} {SHORT}")))
        done = subprocess.run(
            ["sh", "-c", line], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture
def shown(monkeypatch):
    """What cells display, in a stand-in for IPython."""
    things = []
    display = types.ModuleType("IPython.display")
    display.Image = lambda path: Path(path).read_bytes()
    display.Markdown, display.display = str, things.append
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return things


@pytest.mark.process
@pytest.mark.slow  # tests/test_python_notebook.py runs the other notebook every day
def test_its_cells_run_in_order(tmp_path, monkeypatch, shown, capsys):
    monkeypatch.chdir(tmp_path)
    session = Session(tmp_path)
    exec("from pathlib import Path", session.names)  # of the setup cell
    printed = [session.run(cell) for cell in CODE if not is_setup(cell)]
    assert "rank: 8" in printed[0] and "parameters" in printed[1]
    picture, samples = shown
    assert picture.startswith(b"\x89PNG") and "Continuation:" in samples
    assert "config.yaml" in capsys.readouterr().out
    assert "Return the" in printed[-1]
    losses = [row["loss"] for row in session.names["rows"] if row["split"] == "validation"]
    assert losses[-1] < losses[0]
