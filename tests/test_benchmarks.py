"""The benchmarks' harness, on contenders that sleep or fail instead of training; the peers are not needed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if 'if __name__ == "__main__":' in path.read_text())
FAKE = """
import contest, os, signal

CONTENDERS = ["llama_exp slow", "llama_exp fast", "other plain", "other best", "broken import", "broken killed"]
SECONDS = {"llama_exp slow": [3.0, 5.0], "llama_exp fast": [2.0, 1.0, 2.0], "other plain": [9.0], "other best": [3.0]}

def child(name):
    print("noise on standard output")
    if name == "broken import":
        import a_module_that_is_not_there
    if name == "broken killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if contest.seconds_since_start() > 60 or os.environ["CUDA_VISIBLE_DEVICES"] != "":
        raise RuntimeError("the process was not started by measure")
    return {"seconds": SECONDS[name], "first": 7.0, "peak_mib": contest.peak_mib()}

parser = contest.parser("Fake.")
parser.add_argument("--word")
options = parser.parse_args()
if options.child:
    assert options.word == "handed on"
    contest.answer(child(options.child))
else:
    results = contest.measure(contest.chosen(CONTENDERS, options.only), options.rounds, ["--word", "handed on"])
    figures = {"1/s": lambda name, row: 1 / row["seconds"], "first": lambda name, row: row["first"]}
    contest.report(results, {title: lambda *its, of=of: f"{of(*its):.2f}" for title, of in figures.items()})
    contest.end(results)
"""


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("contest", "peers", "train"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("contest", "peers", "train"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    script = tmp_path_factory.mktemp("fake") / "fake.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n{FAKE}")

    def run(*arguments):
        return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)

    return run


def table_of(output):
    """Cells by contender."""
    lines = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in output.splitlines() if line[:1] == "│"]
    return {cells[0]: cells[1:] for cells in lines}


@pytest.mark.process
def test_table_ratios_and_failures(fake):
    done = fake("--rounds", "2")
    table = table_of(done.stdout)
    assert list(table) == ["llama_exp fast", "other best", "llama_exp slow", "other plain"]  # best first
    assert [cells[:3] for cells in table.values()] == [
        ["0.50", "1.00 x", "7.00"],
        ["0.33", "1.50 x", "7.00"],
        ["0.25", "2.00 x", "7.00"],
        ["0.11", "4.50 x", "7.00"],
    ]
    assert all(float(cells[3]) > 1 for cells in table.values())
    assert "our best (fast): 1.50 times as fast as the best of other (best)" in done.stdout
    assert "FAILED broken import: exit code 1: ModuleNotFoundError: No module named 'a_module_" in done.stdout
    assert "FAILED broken killed: exit code -9" in done.stdout
    assert done.returncode == 1  # whoever runs it in a script learns of the failures
    order = [line.split(": ")[1] for line in done.stderr.splitlines() if line.startswith("round")]
    assert order[:6] == order[6:] and order[0] == "llama_exp slow" and order[5] == "broken killed"  # in turn


@pytest.mark.process
def test_only_chooses_and_refuses_what_is_not_there(fake):
    done = fake("--rounds", "1", "--only", "other,slow")
    assert list(table_of(done.stdout)) == ["other best", "llama_exp slow", "other plain"] and done.returncode == 0
    done = fake("--only", "nobody")
    assert done.returncode == 1 and "no contender has that in its name" in done.stderr and "other best" in done.stderr


@pytest.mark.process
def test_without_ours_there_is_no_ratio(fake):
    done = fake("--rounds", "1", "--only", "other best")
    assert table_of(done.stdout)["other best"][:2] == ["0.33", ""] and "our best" not in done.stdout


def test_medians_pool_the_rounds(benchmarks):
    import contest

    runs = [{"seconds": [1.0, 2.0], "peak_mib": 10.0}, {"seconds": [9.0], "peak_mib": 30.0}]
    assert contest.medians(runs) == {"seconds": 2.0, "peak_mib": 20.0}


def test_peak_memory_grows_with_what_is_touched(benchmarks):
    import contest

    before = contest.peak_mib()
    size = int(before) + 64
    np.ones(size << 20, np.uint8)
    assert contest.peak_mib() >= size


def test_sizes_of_the_models(benchmarks):
    import peers

    norms = (2 * 30 + 1) * 576
    assert peers.block_parameters(peers.SMOLLM2_135M) + peers.table_parameters(peers.SMOLLM2_135M) == 134515008 - norms


def test_supervised_batches_hold_every_token_once(benchmarks, tmp_path):
    import train

    lengths = np.array([3, 256, 9])
    mask = (np.arange(256) < lengths[:, None]).astype(np.int32)
    rows = {"labels": mask * np.arange(1, 4)[:, None], "padding_mask": mask}
    np.savez(tmp_path / "single.npz", **rows)
    np.savez(tmp_path / "packed.npz", **rows)
    for library, widths in (("llama_exp", [256, 256]), ("keras_hub", [256, 256]), ("transformers", [256, 9])):
        batches = train.supervised_batches(library, 2, tmp_path)
        assert [batch["labels"].shape for batch in batches] == [(2, width) for width in widths]
        assert sum(batch["padding_mask"].sum() for batch in batches) == lengths.sum()
        assert sum(batch["labels"].sum() for batch in batches) == rows["labels"].sum()


@pytest.mark.process
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_tells_what_is_compared_and_the_command(script):
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and f"python benchmarks/{script.name}" in done.stdout, done.stderr


def test_the_scripts_are_found():
    assert {"train", "decode", "quantize", "startup", "load", "sweep", "faults"} <= {path.stem for path in SCRIPTS}
