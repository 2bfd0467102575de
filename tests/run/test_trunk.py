"""Which state a new run may begin with: made-up runs with checkpoints of a few numbers, no training."""

import json

import numpy as np
import pytest
import yaml

from llama_exp.config.check import check_arguments
from llama_exp.config.identity import to_record
from llama_exp.errors import ConfigError, ExitCode, InputError
from llama_exp.run import resume
from llama_exp.run.trunk import find_trunk
from llama_exp.trainer import Checkpoints

WSD = ["schedule=wsd", "schedule.warmup_steps=10", "trainer.max_steps=100", "schedule.decay_steps=20"]


def make_config(*lines):
    named = {line.partition("=")[0]: line for line in [*WSD, *lines]}
    return check_arguments(list(named.values())).config


def make_run(folder, steps=(40, 60, 80, 100), *lines, state=None):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_record(make_config(*lines))))
    (folder / "run.json").write_text(json.dumps({"starts": [{"time": "2026-01-01"}], "config_hash": "a" * 64}))
    checkpoints = Checkpoints(folder / "checkpoints", keep=99, config_hash="a" * 64, facts={})
    for step in steps:
        progress = {"step": step, "validated_step": step, "tokens": 10 * step, "seconds": 1.0}
        contents = {"progress": progress, "observers": {}, "seeds": []} | (state or {})
        checkpoints.save(step, {"trainable": {"w": np.ones(2, "float32")}}, contents, "")
    return folder


def find(place, *lines):
    place.mkdir(exist_ok=True)
    return find_trunk(make_config(f"branch_from={place}", *lines))


def refusal(place, *lines, error=ConfigError):
    with pytest.raises(error) as refused:
        find(place, *lines)
    assert all(p.what and p.where and p.found and p.action for p in refused.value.problems)
    return refused.value


@pytest.mark.parametrize(
    ("lines", "step"),
    [
        ((), 100),  # the same run once more: all of it is there
        (("trainer.max_steps=80",), 60),  # its decay begins at 60
        (("trainer.max_steps=90",), 60),
        (("trainer.max_steps=60", "schedule.decay_steps=20"), 40),
        (("schedule.decay_steps=30",), 60),
        (("schedule.decay_steps=10",), 80),  # the other run's decay begins at 80
        (("schedule.decay_shape=sqrt",), 80),
        (("trainer.max_steps=200",), 80),
        (("schedule.final_fraction=0.3",), 80),
    ],
)
def test_the_newest_checkpoint_that_both_runs_come_to(tmp_path, lines, step):
    run = make_run(tmp_path / "trunk")
    found = find(run, *lines)
    assert (found.step, found.run, found.checkpoint.name) == (step, run, f"step-{step:08d}")


def test_a_constant_rate_is_the_trunk_of_every_decay(tmp_path):
    run = make_run(tmp_path / "trunk")
    config = check_arguments(["schedule=constant", *WSD[1:3], f"branch_from={run}"]).config
    assert find_trunk(config).step == 80
    run = make_run(tmp_path / "constant")
    (run / "config.yaml").write_text(yaml.safe_dump(to_record(config)))
    assert find(run, "trainer.max_steps=80").step == 60


def test_a_checkpoint_that_is_named_is_taken_or_refused(tmp_path):
    run = make_run(tmp_path / "trunk")
    assert find(run / "checkpoints" / "step-00000040", "schedule.decay_steps=30").step == 40
    (problem,) = refusal(run / "checkpoints" / "step-00000080", "schedule.decay_steps=30").problems
    assert "agree up to update 70" in problem.found and "checkpoints of 80" in problem.found


def test_no_checkpoint_is_early_enough(tmp_path):
    (problem,) = refusal(make_run(tmp_path / "trunk"), "trainer.max_steps=50").problems
    assert "agree up to update 30" in problem.found and "40, 60, 80, 100" in problem.found
    assert "trainer.keep_checkpoints" in problem.action
    (problem,) = refusal(make_run(tmp_path / "other", ()), "trainer.max_steps=50").problems
    assert "checkpoints of no step" in problem.found


@pytest.mark.parametrize("line", ["schedule.warmup_steps=11", "optimizer.learning_rate=1e-2"])
def test_other_rates_from_the_first_update_on(tmp_path, line):
    refused = refusal(make_run(tmp_path / "trunk"), line)
    assert "agree up to update 0" in str(refused) or "optimizer.learning_rate" in str(refused)


def test_every_key_that_decides_is_named_with_both_values(tmp_path):
    run = make_run(tmp_path / "trunk")
    refused = refusal(
        run, "seed=7", "model.dropout=0.1", "trainer.log_every_steps=3", "name=other", "objective.z_loss=1e-4"
    )
    told = {problem.where: problem for problem in refused.problems}
    of_dropout = {key for key in told if key.startswith("recipe.dropout.")}  # the numbers of its algorithm
    assert set(told) == {"seed", "model.dropout", "objective.z_loss"} | of_dropout and of_dropout
    assert told["seed"].found == "7, the other run has 0" and "seed=0" in told["seed"].action
    assert refused.exit_code == ExitCode.CONFIG


def test_a_folder_of_runs_gives_the_one_of_the_same_seed(tmp_path):
    sweep = tmp_path / "sweep"
    for seed in range(3):
        make_run(sweep / f"{seed}_seed={seed}", (40, 60), f"seed={seed}")
    make_run(sweep / "3_seed=1,longer", (40, 60, 80), "seed=1", "trainer.max_steps=300")
    assert find(sweep, "seed=2").run.name == "2_seed=2"
    assert find(sweep, "seed=1").run.name == "3_seed=1,longer"  # got farther
    (problem,) = refusal(sweep, "seed=9").problems
    assert "seed: 9, the other run has" in problem.found and "4 runs" in problem.found


def test_a_damaged_run_in_a_folder_is_passed_over_and_alone_it_is_told(tmp_path, caplog):
    sweep = tmp_path / "sweep"
    make_run(sweep / "0", (40,))
    (make_run(sweep / "1", (60,)) / "config.yaml").write_text("{")
    assert find(sweep).run.name == "0" and "1 cannot be branched from" in caplog.text
    assert "config.yaml" in str(refusal(sweep / "1", error=InputError))


def test_damaged_checkpoints(tmp_path, caplog):
    run = make_run(tmp_path / "trunk")
    newest = run / "checkpoints" / "step-00000080"
    (newest / "trainable.safetensors").write_bytes(b"")
    assert find(run, "schedule.decay_steps=10").step == 60 and "damaged" in caplog.text
    assert "trainable.safetensors" in str(refusal(newest, "schedule.decay_steps=10", error=InputError))


def test_a_run_that_kept_no_optimizer(tmp_path):
    run = make_run(tmp_path / "trunk", (40,), state={"stripped": True})
    assert "trainer.keep_optimizer" in str(refusal(run, error=InputError))


def test_where_a_figure_decides_both_measure_alike(tmp_path):
    lines = ["trainer.keep_best=validation.loss", "trainer.validate_every_steps=20"]
    run = make_run(tmp_path / "trunk", (40, 50, 60), *lines)
    assert find(run, *lines).step == 60
    (problem,) = refusal(run, lines[0], "trainer.validate_every_steps=10").problems
    assert problem.where == "trainer.validate_every_steps"
    last = make_run(tmp_path / "last", (50,), *lines)  # measured at 50 because it ended there
    assert "step" in str(refusal(last, *lines))


def test_no_run_is_there(tmp_path):
    assert "no folder of runs" in str(refusal(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="branch_from"):
        find_trunk(make_config(f"branch_from={tmp_path / 'nowhere'}"))


def test_an_unfinished_run_of_fewer_steps_is_not_made_longer_instead(tmp_path):
    make_run(tmp_path / "short", (40,), "trainer.max_steps=40")
    config = make_config("resume=auto")
    record = {"starts": [{"time": "t"}], "config_hash": "b", "continuation_hash": resume.continuation_hash(config)}
    (tmp_path / "short" / "run.json").write_text(json.dumps(record))
    assert resume.find_folder(config, tmp_path) == tmp_path / "short"
    branching = make_config("resume=auto", f"branch_from={tmp_path / 'short'}")
    assert resume.find_folder(branching, tmp_path) is None
