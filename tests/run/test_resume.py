"""Which run goes on, from which checkpoint, and what it may not change."""

import json
import os
import time

import pytest
import yaml

from llama_exp.errors import ConfigError, InputError
from llama_exp.run import resume

CONFIG = {
    "name": "a",
    "seed": 0,
    "lora": {"rank": 4},
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


def test_a_runs_adapter_is_looked_for_before_it_goes_on(run):
    resume.check_adapter(run, None)
    with pytest.raises(InputError, match=r"lora\.source"):
        resume.check_adapter(run, str(run / "nowhere"))
    (run / "adapter.h5").write_bytes(b"x")
    resume.check_adapter(run, str(run / "adapter.h5"))  # cut before run.json named it
    for content in ('{"lora": {"sha256": "0"}}', "[]"):
        (run / "run.json").write_text(content)
        with pytest.raises(InputError, match=r"another than the one|run\.json"):
            resume.check_adapter(run, str(run / "adapter.h5"))
    resume.check_adapter(run, None)


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
    now = CONFIG | {"model": {"initializer_range": 0.02, "embedding_initializer_range": 0.01}}
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
    "no text": (b"a: \xff\xfe", "invalid"),
    "impossible date": (b"a: 2026-99-99", "month"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_config_is_refused_as_damaged(run, monkeypatch, name):
    monkeypatch.chdir(run)
    content, found = HOSTILE[name]
    (run / "config.yaml").write_bytes(content)
    before, started = sorted(os.listdir(run)), time.monotonic()
    with pytest.raises(InputError) as caught:
        resume.check_unchanged(run, CONFIG)
    (problem,) = caught.value.problems
    assert time.monotonic() - started < 2
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
