"""examples/from_python.ipynb: its form, and a kernel that runs it from top to bottom."""

import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "examples" / "from_python.ipynb"
NOTEBOOK = json.loads(FILE.read_text())
# What makes its runs short, in place of its own values.
SHORT = {
    "trainer.max_steps=200": "trainer.max_steps=6",
    "trainer.validate_every_steps=50": "trainer.validate_every_steps=3",
    "trainer.validation_batches=8": "trainer.validation_batches=1",
    "model.hidden_dim=128": "model.hidden_dim=32",
    "tokenizer=byte": 'tokenizer=byte\\",\\n", "    \\"trainer.sample_prompts=[]',
    "topics.values()": "list(topics.values())[:20]",
    "max_length=80": "max_length=12",
}


def is_setup(cell):
    return "setup" in cell["metadata"].get("tags", [])


def execute(folder, short=SHORT):
    """The notebook as a kernel of its own leaves it, without the cell that installs."""
    import nbformat
    from nbclient import NotebookClient

    text = FILE.read_text()
    for long, quick in short.items():
        assert long in text, f"the notebook no longer has {long}"
        text = text.replace(long, quick)
    notebook = nbformat.reads(text, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not is_setup(cell)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LLAMA_EXP_CACHE": str(folder / "cache")}
    environment.pop("KERAS_BACKEND", None)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources).execute(env=environment)
    return notebook


def outputs_of(notebook, beginning):
    """The outputs of the code cell that holds a text: (type of output, everything that it shows as text)."""
    (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and beginning in cell.source)
    return cell.outputs


def shown(outputs, kind):
    """What a reader sees of outputs in one form: `text` of streams, or a MIME type."""
    if kind == "text":
        return "".join(output["text"] for output in outputs if output.output_type == "stream")
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def test_it_is_a_notebook_without_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_it_installs_as_the_other_one_does():
    first = json.loads((ROOT / "examples" / "first_run.ipynb").read_text())
    (own,), (other,) = (list(filter(is_setup, cells["cells"])) for cells in (NOTEBOOK, first))
    assert own["source"] == other["source"]


@pytest.mark.process
def test_a_kernel_runs_it_from_top_to_bottom(tmp_path):
    notebook = execute(tmp_path)
    composed = shown(outputs_of(notebook, "config = compose("), "text/html")
    assert "<details open><summary><code>trainer</code>" in composed[0] and "max_steps: 6" in composed[0]
    mistakes = shown(outputs_of(notebook, "except ConfigError"), "text")
    assert "did you mean trainer.max_steps?" in mistakes and "lora.rank" in mistakes

    training = outputs_of(notebook, "result = train(config)")
    assert not [output for output in training if output.get("name") == "stderr"]
    line, result = shown(training, "text/html")
    assert re.search(r"6/6 ━+ loss \d\.\d+ · val \d\.\d+", line)
    assert "data:image/png;base64," in result and "finished" in result
    assert "run folder outputs/notebook/" in shown(training, "text")

    left = outputs_of(notebook, "result.plot()")
    assert shown(left, "text").startswith("[(0, ") and shown(left, "image/png")
    (table,) = shown(outputs_of(notebook, "load_sweep("), "text/html")
    assert table.count("<tr>") == 3 and "<th>validation.loss</th>" in table and "<td>1</td>" in table
    assert shown(outputs_of(notebook, "again.model"), "text").startswith("The ")
    command = json.loads(next((tmp_path / "outputs" / "notebook").glob("2*/run.json")).read_text())["command"]
    assert command.startswith("llama-exp train name=notebook runtime.backend=jax")
