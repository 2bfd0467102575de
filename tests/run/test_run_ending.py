"""What the end of a run says: figures of the weights that it leaves, and the one that a sweep compares."""

import math

from llama_exp.console.progress import end_table
from llama_exp.limits.trainer import KeepOptimizer
from llama_exp.run import ending
from llama_exp.run.folder import RunFolder
from llama_exp.trainer.counters import Counters

FIGURES = {"validation": {"loss": 2.0, "perplexity": 7.4}, "evaluation": {"docs": {"accuracy": 0.5}}}
BEST = {"figure": "validation.loss", "step": 4, "value": 2.0}


def result(**end):
    return Counters(step=6).result(**{"exported_step": 4, "figures": FIGURES, "stopped": "enough", "best": BEST} | end)


def test_the_summary_has_the_figures_of_the_weights_that_are_left(tmp_path, capsys):
    folder = RunFolder.create(tmp_path / "run")
    folder.begin({}, [], ["train.py"], "hash")
    for step, loss in ((0, 5.0), (4, 2.0), (6, 3.0)):
        folder.metrics.on_metrics({"step": step, "split": "validation", "loss": loss, "perplexity": math.exp(loss)})
    summary = folder.finish(**ending.describe(result()))
    folder.close()
    validation = summary["validation"]
    assert (validation["last"], validation["loss"], validation["perplexity"]) == (3.0, 2.0, 7.4)
    assert summary["evaluation"] == {"docs": {"accuracy": 0.5}}
    assert (summary["exported_step"], summary["stopped_early"], summary["best"]) == (4, "enough", BEST)
    assert ending.find_objective("validation.loss", summary) == 2.0
    assert ending.find_objective("evaluation.docs.accuracy:max", summary) == 0.5
    end_table(summary, tmp_path, {})


def test_a_run_that_chose_nothing_says_nothing_of_it():
    entries = ending.describe(result(stopped=None, best=None, exported_step=6, figures={}))
    assert entries == {"exported_step": 6}


def test_a_figure_that_is_not_there_is_told(caplog):
    assert ending.find_objective("evaluation.docs.loss", {"evaluation": {}}) is None
    assert "has no evaluation.docs.loss" in caplog.text


def test_the_optimizer_is_kept_unless_somebody_says_otherwise(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("llama_exp.trainer.stripping.free_optimizer", lambda folder: calls.append(folder) or 0)
    ending.free(KeepOptimizer.always, tmp_path)
    assert calls == []
    ending.free(KeepOptimizer.until_finished, tmp_path)
    assert calls == [tmp_path]
