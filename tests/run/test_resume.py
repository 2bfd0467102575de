"""Which run goes on, from which checkpoint, and what it may not change."""

import json
import os
import time

import pytest
import yaml

from llama_exp.config.check import check_arguments
from llama_exp.config.identity import config_hash, continuation_hash, to_record
from llama_exp.config.run_home import home_of
from llama_exp.errors import ConfigError, InputError
from llama_exp.run import resume

CONFIG = {
    "name": "a",
    "seed": 0,
    "lora": {"rank": 4},
    "model": {"num_layers": 2},
    "trainer": {"max_steps": 10, "keep_checkpoints": 2, "callbacks": {}},
    "runtime": {"threads": 0},
}


@pytest.fixture
def run(tmp_path):
    """The folder of a run that was cut after its checkpoint of step 4."""
    folder = tmp_path / "a" / "run"
    for step in (2, 4):
        checkpoint = folder / "checkpoints" / f"step-{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text("{}")
    record = {"config_hash": "h", "starts": [{"time": "2026-01-01T00:00:00+00:00"}]}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "summary.json").write_text('{"status": "running"}')
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def changed(**sections):
    return {key: ({**value, **sections[key]} if key in sections else value) for key, value in CONFIG.items()}


def test_the_folder_that_goes_on(run):
    root = run.parent
    assert resume.folder_of("none", root, "h") is None
    assert resume.folder_of("auto", root, "h") == run
    assert resume.folder_of("auto", root, "another") is None
    assert resume.folder_of(str(run), root, "") == run
    assert resume.folder_of(str(run / "checkpoints" / "step-00000002"), root, "") == run


def test_a_finished_run_does_not_go_on_by_itself(run):
    (run / "summary.json").write_text('{"status": "finished"}')
    assert resume.folder_of("auto", run.parent, "h") is None


def test_continues(run, tmp_path):
    assert not resume.continues("none", run)
    assert resume.continues("auto", run)
    assert not resume.continues("auto", tmp_path / "fresh")
    assert resume.continues(str(run), run)
    with pytest.raises(ConfigError, match="its own folder"):
        resume.continues(str(run), tmp_path / "fresh")
    with pytest.raises(ConfigError, match="holds run.json"):
        resume.continues(str(tmp_path), tmp_path)


def test_a_chosen_checkpoint_sets_later_ones_aside(run):
    checkpoints = run / "checkpoints"
    assert resume.choose_checkpoint("auto") is None
    assert resume.choose_checkpoint(str(run)) is None
    assert resume.choose_checkpoint(str(checkpoints / "step-00000002")) == checkpoints / "step-00000002"
    assert sorted(entry.name for entry in checkpoints.iterdir()) == ["step-00000002", "step-00000004.abandoned-1"]


def test_what_may_change(run):
    resume.check_unchanged(run, CONFIG)
    resume.check_unchanged(run, changed(trainer={"max_steps": 99}, runtime={"threads": 2}) | {"name": "b"})


def test_a_run_that_was_killed_before_its_config_was_written_goes_on(run):
    (run / "config.yaml").unlink()
    resume.check_unchanged(run, changed(lora={"rank": 8}))


def test_a_run_of_a_version_without_initializer_ranges_goes_on(run):
    now = CONFIG | {"model": {"num_layers": 2, "initializer_range": 0.02, "embedding_initializer_range": 0.01}}
    resume.check_unchanged(run, now)
    now["model"]["initializer_range"] = 0.03
    with pytest.raises(ConfigError, match="model.initializer_range") as caught:
        resume.check_unchanged(run, now)
    assert caught.value.problems[0].found == "0.03, begun with 0.02"


def test_what_may_not_change_is_named_all_at_once(run):
    with pytest.raises(ConfigError) as caught:
        resume.check_unchanged(run, changed(lora={"rank": 8}) | {"seed": 1})
    assert [problem.where for problem in caught.value.problems] == ["lora.rank", "seed"]
    assert caught.value.problems[0].found == "8, begun with 4" and "lora.rank=4" in caught.value.problems[0].action


# --- a run that is made longer


LENGTHS = {
    "follow": ({"warmup_steps": 60, "decay_steps": 240}, {"warmup_steps": 120, "decay_steps": 480}, []),
    "rounded": ({"warmup_steps": 61, "decay_steps": 241}, {"warmup_steps": 122, "decay_steps": 483}, []),
    "stay": ({"warmup_steps": 60, "decay_steps": 240}, {"warmup_steps": 60, "decay_steps": 240}, []),
    "other": ({"warmup_steps": 60, "decay_steps": 240}, {"warmup_steps": 10, "decay_steps": 500}, ["decay", "warmup"]),
    "peak": ({"warmup_steps": 60, "final": 0.1}, {"warmup_steps": 120, "final": 0.2}, ["final"]),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_steps_of_the_schedule_follow_the_length_or_stay(run, caplog, name):
    old, new, refused = LENGTHS[name]
    begun = changed(trainer={"max_steps": 1200}) | {"schedule": {"final_fraction": 0.1, **old}}
    (run / "config.yaml").write_text(yaml.safe_dump(begun))
    longer = changed(trainer={"max_steps": 2400}) | {"schedule": {"final_fraction": 0.1, **new}}
    if refused:
        with pytest.raises(ConfigError) as caught:
            resume.check_unchanged(run, longer)
        assert [problem.where.removesuffix("_steps") for problem in caught.value.problems] == [
            f"schedule.{key}" for key in refused
        ]
    else:
        resume.check_unchanged(run, longer)
        assert "falls towards step 2400 now" in caplog.text


def test_the_schedule_of_a_run_of_the_same_length_stays(run):
    section = {"schedule": {"warmup_steps": 0}}
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG | section))
    with pytest.raises(ConfigError, match="warmup_steps"):
        resume.check_unchanged(run, CONFIG | {"schedule": {"warmup_steps": 1}})


@pytest.mark.parametrize("schedule", ["cosine", "constant", "linear", "wsd"])
@pytest.mark.parametrize("steps", [(1200, 2400), (100, 1000), (7, 4000), (3, 4)])
def test_a_longer_run_of_every_schedule_of_conf_may_go_on(tmp_path, schedule, steps):
    before, after = (config_of(f"schedule={schedule}", f"trainer.max_steps={number}") for number in steps)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_record(before)))
    resume.check_unchanged(tmp_path, to_record(after))


def test_a_run_is_not_cut_short(run):
    resume.check_length("auto", run, 4)
    resume.check_length(str(run / "checkpoints" / "step-00000002"), run, 3)
    for named in ("auto", str(run)):
        with pytest.raises(
            ConfigError, match=r"trainer\.max_steps.*\n.*3, the run has a checkpoint of step 4\n.*least 4"
        ):
            resume.check_length(named, run, 3)


def config_of(*arguments):
    return check_arguments(arguments).config


def began(folder, config, step, status="running"):
    """A run of this config that is at a step."""
    (folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    hashes = {"config_hash": config_hash(config), "continuation_hash": continuation_hash(config)}
    (folder / "run.json").write_text(json.dumps({**hashes, "starts": [{"time": "2026-01-01T00:00:00+00:00"}]}))
    (folder / "summary.json").write_text(json.dumps({"status": status, "steps": step}))
    (folder / "config.yaml").write_text(yaml.safe_dump(to_record(config)))
    return folder


EARLY = "trainer.stop_early=validation.loss"
AUTO = {
    "finished, longer now": ([], 1200, "finished", ["trainer.max_steps=2400"], True),
    "cut off, longer now": (["schedule=wsd"], 300, "running", ["schedule=wsd", "trainer.max_steps=2400"], True),
    "cut off, told more often": ([], 300, "failed", ["trainer.log_every_steps=1"], True),
    "finished, told more often": ([], 1200, "finished", ["trainer.log_every_steps=1"], False),
    "shorter, not reached": ([], 300, "running", ["trainer.max_steps=600"], True),
    "shorter than reached": ([], 900, "running", ["trainer.max_steps=600"], False),
    "ended early, the same": ([EARLY], 300, "finished", [EARLY], False),
    "ended early, more patience": ([EARLY], 300, "finished", [EARLY, "trainer.patience=9"], True),
    "ended early, to the end now": ([EARLY], 300, "finished", [], True),
    "another seed": ([], 300, "running", ["trainer.max_steps=2400", "seed=1"], False),
    "another warm-up": ([], 300, "running", ["trainer.max_steps=2400", "schedule.warmup_steps=7"], False),
}


@pytest.mark.parametrize("name", AUTO)
def test_auto_finds_the_run_that_is_made_longer(tmp_path, name):
    begun, step, status, now, found = AUTO[name]
    folder = began(tmp_path / "run", config_of(*begun), step, status)
    assert resume.find_folder(config_of(*now, "resume=auto"), tmp_path) == (folder if found else None)


def test_auto_prefers_the_run_of_exactly_this_length(tmp_path):
    began(tmp_path / "shorter", config_of(), 1200, "finished")
    exact = began(tmp_path / "exact", config_of("trainer.max_steps=2400"), 300)
    assert resume.find_folder(config_of("trainer.max_steps=2400", "resume=auto"), tmp_path) == exact


def test_auto_finds_the_job_of_a_sweep_where_conf_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = check_arguments(["-m", "seed=0,1", "lora.rank=4"])
    job = began(command.sweep.folder / "1_seed-1", config_of("seed=1", "lora.rank=4"), 300)
    one = config_of("seed=1", "lora.rank=4", "resume=auto")
    assert resume.find_folder(one, home_of(one.name)) == job
    assert resume.find_folder(config_of("seed=2", "lora.rank=4", "resume=auto"), home_of(one.name)) is None


# --- the config of a run that somebody else made is data (S03)

ALIASES = [f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}" for i in range(1, 12)]
MERGES = [f"a{i}: &a{i} {{<<: [{', '.join(9 * [f'*a{i - 1}'])}]}}" for i in range(1, 12)]
HOSTILE = {
    "object": (b"x: !!python/object/apply:os.mkdir [canary]", "constructor for the tag"),
    "module": (b"x: !!python/module:os", "constructor for the tag"),
    "name": (b"x: !!python/name:os.system", "constructor for the tag"),
    "new object": (b"!!python/object/new:os.mkdir {args: [canary]}", "constructor for the tag"),
    "aliases": ("\n".join(["a0: &a0 {x: 1}", *ALIASES]).encode(), "aliases"),
    "merged aliases": ("\n".join(["a0: &a0 {x: 1}", *MERGES]).encode(), "aliases"),
    "circle": (b"a: &a [*a]", "recursion"),
    "deep": (b"a: " + b"[" * 20_000, "recursion"),
    "list": (b"[1]", "a list instead of a mapping"),
    "empty": (b"", "a NoneType instead of a mapping"),
    "several": (b"a: 1\n---\nb: 2", "single document"),
    "large": (b"#" * (1 << 20) + b"\na: 1", "more than 1048576 bytes"),
    "another file": (b"a: b", "nothing that can be used for lora, model, trainer, runtime"),
    "half": (b"seed: 0\nlora: {rank: 4}\nmodel: {num_layers: 2}\ntrainer: 5", "for trainer, runtime"),
    "no text": (b"a: \xff\xfe", "invalid"),
    "impossible date": (b"a: 2026-99-99", "month"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_config_is_refused_as_damaged(run, monkeypatch, name):
    monkeypatch.chdir(run)
    content, found = HOSTILE[name]
    (run / "config.yaml").write_bytes(content)
    before, started = sorted(os.listdir(run)), time.thread_time()
    with pytest.raises(InputError) as caught:
        resume.check_unchanged(run, CONFIG)
    (problem,) = caught.value.problems
    assert time.thread_time() - started < 2
    assert found in problem.found and problem.where == str(run / "config.yaml") and problem.action
    assert len(str(problem)) < 1000 and sorted(os.listdir(run)) == before


def test_a_config_elsewhere_is_refused(run, tmp_path):
    (tmp_path / "secret").write_text("canary: 1")
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads out"):
        resume.check_unchanged(run, CONFIG)
    (run / "config.yaml").unlink()
    os.mkfifo(run / "config.yaml")
    with pytest.raises(InputError, match="not an ordinary file"):
        resume.check_unchanged(run, CONFIG)


def test_what_hydra_would_obey_is_a_difference_like_others(run, monkeypatch):
    monkeypatch.delenv("CANARY", raising=False)
    hydra = {"job": {"env_set": {"CANARY": "x"}}, "searchpath": ["file:///"]}
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"hydra": hydra}))
    with pytest.raises(ConfigError) as caught:
        resume.check_unchanged(run, CONFIG)
    assert [problem.where for problem in caught.value.problems] == ["hydra.job.env_set.CANARY", "hydra.searchpath"]
    assert "CANARY" not in os.environ
