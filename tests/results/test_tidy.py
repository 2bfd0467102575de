"""Runs as a table."""

import math

from made_runs import make_config, make_grid, make_run

from llama_exp.results import list_tidy_rows, load_runs, read_sweep


def test_one_row_a_run_and_one_column_a_fact(tmp_path):
    make_run(tmp_path / "a", make_config(seed=0, rank=4), 2.5)
    make_run(tmp_path / "b", make_config(seed=1, rank=8, runtime={"backend": "tensorflow"}), math.nan)
    rows = list_tidy_rows(load_runs([tmp_path]))
    assert [list(row) for row in rows] == [list(rows[0])] * 2
    assert [row["lora.rank"] for row in rows] == [4, 8]
    assert [row["runtime.backend"] for row in rows] == ["jax", "tensorflow"]
    assert [row["seed"] for row in rows] == [0, 1]
    assert rows[0]["validation.loss"] == 2.5
    assert math.isnan(rows[1]["validation.loss"])
    assert rows[0]["folder"] == str(tmp_path / "a")
    assert rows[0]["command"] == "python train.py lora.rank=4 seed=0"
    assert "trainer.max_steps" not in rows[0]  # the same in both


def test_a_run_without_a_value_has_none(tmp_path):
    make_run(tmp_path / "a", make_config(own={"key": 1}))
    make_run(tmp_path / "b", loss=None, summary={"evaluation": {"docs": {"accuracy": 0.5}}})
    one, other = list_tidy_rows(load_runs([tmp_path]))
    assert (one["own.key"], other["own.key"]) == (1, None)
    assert (one["validation.loss"], other["validation.loss"]) == (2.5, None)
    assert (one["evaluation.docs.accuracy"], other["evaluation.docs.accuracy"]) == (None, 0.5)
    assert list_tidy_rows([]) == []


def test_a_job_has_the_command_that_runs_it_alone(tmp_path):
    sweep = make_grid(tmp_path / "sweep", {(4, 1e-3, 0): 2.5, (8, 1e-3, 0): None})
    (row,) = list_tidy_rows(load_runs([sweep]))
    assert row["command"] == "llama-exp train experiment=some lora.rank=4 optimizer.learning_rate=0.001 seed=0"
    assert row["job"] == 0
    assert [place.number for _, place in read_sweep(sweep).places] == [0, 1]


def test_a_config_folder_of_the_users_own_is_part_of_the_command(tmp_path):
    for flag in ("--config-dir conf", "--config-dir=conf"):
        folder = tmp_path / flag.replace(" ", "_")
        make_grid(folder, {(4, 1e-3, 0): 2.5}, command=f"llama-exp train {flag} -m seed=0", constants=[])
        (row,) = list_tidy_rows(load_runs([folder]))
        assert row["command"].startswith("llama-exp train --config-dir=conf lora.rank=4")
