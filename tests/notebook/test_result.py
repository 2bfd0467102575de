"""What a run, and a folder of runs, show in a notebook; on made-up folders."""

import builtins
import sys
import types

import pytest
from made_runs import make_config, make_grid, make_run

from llama_exp import load_run, load_sweep
from llama_exp.errors import InputError

FIGURES = {"validation": {"first": 4.0, "loss": 3.0, "perplexity": 20.1}, "seconds": 3.2}


@pytest.fixture
def run(tmp_path):
    return load_run(make_run(tmp_path / "a$b <i>", loss=3.0, summary=FIGURES))


def test_figures_have_dotted_names(run):
    assert run.figure("validation.loss") == 3.0 and run.figure("steps") == 20
    with pytest.raises(InputError, match="did you mean validation.loss"):
        run.figure("validation.lss")
    with pytest.raises(InputError, match="has no such figure"):
        run.figure("status")


def test_a_run_that_was_cut_off_has_no_figures(tmp_path):
    folder = make_run(tmp_path / "run", status="killed")
    (folder / "metrics.jsonl").unlink()
    cut = load_run(folder)
    assert cut.rows == [] and cut.status == "running" and "running" in cut._repr_html_()
    with pytest.raises(InputError, match="train the run to its end first"):
        cut.figure("validation.loss")
    assert cut.plot()._repr_png_().startswith(b"\x89PNG")


def test_it_shows_a_table_and_the_picture(run):
    page = run._repr_html_()
    assert "finished" in page and "3.0000" in page and "<i>" not in page and "data:image" not in page
    (run.folder / "loss.png").write_bytes(run.plot()._repr_png_())
    assert "data:image/png;base64," in run._repr_html_()
    (run.folder / "loss.png").write_bytes(b"<script>")
    assert "data:image" not in run._repr_html_()
    assert repr(run).startswith("Result(") and "validation loss 3.0000" in repr(run)


def test_the_picture_is_a_figure_that_shows_itself(run):
    from matplotlib.figure import Figure

    assert isinstance(run.plot(), Figure) and run.plot()._repr_png_().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_metrics_are_a_frame_where_pandas_is(run, monkeypatch):
    frames = types.SimpleNamespace(DataFrame=lambda rows: ("frame", rows))
    monkeypatch.setitem(sys.modules, "pandas", frames)
    assert run.metrics == ("frame", run.rows)


def test_without_pandas_it_says_what_to_do(run, monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **more):
        if name == "pandas":
            raise ImportError("No module named 'pandas'")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'llama_exp\[notebook\]', or use result.rows"):
        run.metrics  # noqa: B018
    assert run.rows[0]["split"] == "validation"


def test_damaged_rows_are_an_error_of_ours(run):
    (run.folder / "metrics.jsonl").write_text("{not json}\n" * 2)
    with pytest.raises(InputError):
        load_run(run.folder).rows  # noqa: B018


def test_runs_of_a_folder_are_a_table(tmp_path):
    for rank in (4, 8):
        make_run(tmp_path / "outputs" / f"run-{rank}", make_config(rank=rank), loss=3.0 / rank)
    table = load_sweep(tmp_path / "outputs")
    assert [(row["lora.rank"], row["validation.loss"]) for row in table] == [(4, 0.75), (8, 0.375)]
    page = table._repr_html_()
    assert "<th>lora.rank</th>" in page and "<td>0.375</td>" in page and "<th>command</th>" not in page
    assert [run.figure("steps") for run in table.runs] == [20, 20]


def test_jobs_of_a_sweep_are_a_table(tmp_path):
    table = load_sweep(make_grid(tmp_path / "sweep", {(8, 1e-3, 0): 2.0, (8, 1e-3, 1): None, (8, 1e-3, 2): 2.5}))
    assert [(row["job"], row["seed"]) for row in table] == [(0, 0), (2, 2)]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run and no sweep"):
        load_sweep(tmp_path)
    with pytest.raises(InputError, match="holds no run"):
        load_run(tmp_path)
