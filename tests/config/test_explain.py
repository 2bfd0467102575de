"""Explanations, compared with Hydra's own composition and with the lines of the files themselves."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from llama_exp.config.check import CONF, to_config
from llama_exp.config.explain import explain, text
from llama_exp.config.explain.settings import flatten_paths
from llama_exp.config.identity import to_dict
from llama_exp.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def choices(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def command_lines():
    """Every choice of every part at least once, and each experiment."""
    groups = (
        "model",
        "dataset",
        "trainer",
        "optimizer",
        "schedule",
        "tokenizer",
        "precision",
        "quantization",
        "logger",
    )
    most = max(len(choices(group)) for group in groups)
    for number in range(most):
        yield ["lora.rank=2", *(f"{group}={choices(group)[number % len(choices(group))]}" for group in groups)]
    yield from ([f"experiment={name}"] for name in choices("experiment"))


def explained(names, *arguments):
    labels = {line: f"argument {number}" for number, line in enumerate(arguments, start=1)}
    return explain(names, list(arguments), labels)


def by_key(names, *arguments):
    (point,) = explained(names, *arguments).points
    return {explanation.key: explanation for explanation in point.explanations}


def one(key, *arguments):
    return by_key([key], *arguments)[key]


def places(explanation):
    return [setting.place.text for setting in explanation.settings]


def hydras_own(arguments):
    """What Hydra composes."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=arguments)


def line_of(place):
    file, _, line = place.rpartition(":")
    return Path(file).read_text().splitlines()[int(line) - 1].strip()


def states_a_protocol(place):
    """Whether the file has values of several lines, and lines of several keys."""
    return "\nprotocol:\n" in Path(place.rpartition(":")[0]).read_text()


@functools.cache
def written_at(place):
    """Key and value that stand in a line of a file."""
    text = line_of(place)
    ((key, value),) = OmegaConf.to_container(OmegaConf.create(text), resolve=False).items()
    return key, value


@pytest.mark.parametrize("arguments", list(command_lines()), ids=" ".join)
def test_every_leaf_is_explained_and_agrees_with_hydra(arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = explained(None, *arguments)
    (point,) = found.points
    cfg = hydras_own(arguments)
    raw = dict(flatten_paths(OmegaConf.to_container(cfg, resolve=False)))
    by_name = {explanation.key: explanation for explanation in point.explanations}
    stated = {".".join(path) for path in raw}
    assert stated <= by_name.keys()
    for key in by_name.keys() - stated:  # what a stage or a claim leaves out
        assert key.startswith(("protocol.stages.", "protocol.claims.")) and not by_name[key].settings
    for path, value in raw.items():
        explanation = by_name[".".join(path)]
        newest = explanation.settings[0]
        assert (newest.path, newest.value) == (path, value)
        for setting in explanation.settings:
            if setting.place.config is None or setting.value == {}:  # logger/none.yaml has no key
                continue
            if states_a_protocol(setting.place.text):
                assert setting.path[-1] in line_of(setting.place.text), setting
            else:
                key, written = written_at(setting.place.text)
                # Not path[-1]: what was null may have keys now.
                assert (key, written) == (setting.path[-1], setting.value), setting
    if not found.problems:
        config = dict(flatten_paths(to_dict(to_config(cfg))))
        assert {".".join(path): value for path, value in config.items()} == {
            name: explanation.value for name, explanation in by_name.items()
        }


# --- what a command line can say


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder of the user's own, beside which the commands are typed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "lab").mkdir(parents=True)
    (tmp_path / "my" / "model").mkdir()
    (tmp_path / "my" / "model" / "mine.yaml").write_text(
        "defaults:\n  - llama_15m\n  - override /trainer@_global_.trainer: quick\n  - _self_\n\nnum_layers: 7\n"
    )
    (tmp_path / "my" / "lab" / "a.yaml").write_text(
        "# @package _global_\n"
        "shared: &x\n  log_every_steps: 3\n"
        "trainer:\n  <<: *x\n  batch_size: ${oc.env:MY_BATCH,6}\n"
        "lora: {rank: 4, targets: [query],\n  alpha: 9}\n"
        "debug: on\nname: 2025_11\n"
    )
    return tmp_path


LAB = ("--config-dir", "my", "+lab=a", "~shared")


def test_files_of_the_users_own(lab):
    found = by_key(["trainer", "lora", "model", "name", "debug"], "model=mine", *LAB)
    conf = str(CONF)
    assert places(found["model.num_layers"]) == [
        "my/model/mine.yaml:6",
        f"{conf}/model/llama_15m.yaml:7",
        f"{conf}/model/llama_tiny.yaml:4",
    ]
    assert found["model.num_layers"].settings[0].place.chosen_by == "argument 1: model=mine"
    assert places(found["trainer.log_every_steps"])[0] == "my/lab/a.yaml:3"  # through the merge key
    assert found["trainer.validate_every_steps"].settings[0].place.chosen_by == "my/model/mine.yaml:3"
    assert places(found["lora.alpha"])[0] == "my/lab/a.yaml:8" and places(found["lora.rank"])[0] == "my/lab/a.yaml:7"
    assert (places(found["debug"])[0], found["debug"].value) == ("my/lab/a.yaml:9", True)
    assert (places(found["name"])[0], found["name"].value) == ("my/lab/a.yaml:10", "2025_11")


def test_the_environment(lab, monkeypatch):
    unset = one("trainer.batch_size", *LAB)
    assert (unset.value, unset.note) == (6, "filled in: ${oc.env:MY_BATCH,6}; in the environment MY_BATCH is not set")
    monkeypatch.setenv("MY_BATCH", "11")
    found = one("trainer.batch_size", *LAB)
    assert found.value == 11 and "MY_BATCH is set" in found.note


@pytest.mark.parametrize(
    ("key", "arguments", "value", "settings"),
    [
        ("lora.rank", ["lora.rank=3"], 3, ["argument 1", "lora/default.yaml:2"]),
        ("lora.rank", ["++lora.rank=3"], 3, ["argument 1", "lora/default.yaml:2"]),
        ("lora.rank", ["lora={rank: 3}"], 3, ["argument 1", "lora/default.yaml:2"]),
        ("lora.alpha", ["lora={rank: 3}"], 16.0, ["lora/default.yaml:3"]),
        ("lora.targets", ["lora.targets=[key]"], ["key"], ["argument 1", "lora/default.yaml:7"]),
        ("lora.targets.1", [], "value", ["lora/default.yaml:7"]),
        ("lora.targets", ["lora.targets.1=key"], ["query", "key"], ["argument 1", "lora/default.yaml:7"]),
        ("lora.rank_pattern.query", ["lora.rank=2", "lora.rank_pattern={query: 8}"], 8, ["argument 2"]),
        ("logger.csv._target_", ["logger=[csv,wandb]"], "llama_exp.logger.CsvLogger", ["logger/csv.yaml:3"]),
        ("name", ["name=2025_11_28"], "2025_11_28", ["argument 1", "config.yaml:"]),
        ("preset.source", ["preset=null"], None, ["preset/none.yaml:2"]),
        ("dataset.files", ["dataset=jsonl", "dataset.files=a.jsonl"], ["a.jsonl"], ["argument 2", "jsonl.yaml:9"]),
    ],
)
def test_each_way_of_an_override(key, arguments, value, settings):
    found = one(key, *arguments)
    assert found.value == value
    assert len(found.settings) == len(settings)
    assert all(word in place for word, place in zip(settings, places(found), strict=True)), places(found)


def test_a_key_that_was_taken_out_and_added_anew():
    assert places(one("trainer.callbacks.a.b", "+trainer.callbacks.a={b: 1}")) == [
        "argument 1: +trainer.callbacks.a={b: 1}"
    ]
    again = one("optimizer.beta_1", "~optimizer.beta_1", "+optimizer.beta_1=0.5")
    assert places(again) == ["argument 2: +optimizer.beta_1=0.5"] and again.value == 0.5
    with pytest.raises(ConfigError, match=r"taken out of the configuration\n  found: argument 1: ~optimizer.epsilon"):
        explained(["optimizer.epsilon"], "~optimizer.epsilon")


def test_interpolations_down_to_their_sources():
    found = one("schedule.warmup_steps", "trainer.max_steps=${trainer.validate_every_steps}", "trainer=quick")
    assert found.value == 5
    (steps,) = found.reads
    assert (steps.key, steps.value) == ("trainer.max_steps", 100)
    (source,) = steps.reads
    assert source.key == "trainer.validate_every_steps" and "trainer/quick.yaml" in places(source)[0]
    relative = one("trainer.log_every_steps", "trainer.log_every_steps=${.batch_size}")
    assert [read.key for read in relative.reads] == ["trainer.batch_size"] and relative.value == 8
    circle = explained(["seed"], "seed=${trainer.batch_size}", "trainer.batch_size=${seed}")
    assert [problem.where for problem in circle.problems] == ["seed", "trainer.batch_size"]


def test_what_a_preset_stores():
    found = by_key(["quantization"], "model=llama2_7b", "preset.source=llama2_7b_en_int8", "lora.rank=2")
    mode = found["quantization.mode"]
    assert mode.value == "int8" and "as the preset stores" in mode.note
    assert [read.key for read in mode.reads] == ["preset.source"]
    assert [read.key for read in found["quantization.quantize_activations"].reads] == [
        "quantization.mode",
        "preset.source",
    ]


def test_a_link_to_the_latest_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "default" / "run").mkdir(parents=True)
    (tmp_path / "outputs" / "default" / "latest").symlink_to("run")
    found = one("preset.source", "preset.source=outputs/default/latest/model")
    assert found.value == "outputs/default/run/model" and found.note == "outputs/default/latest/model leads there today"


def test_hydras_own_keys():
    found = by_key(["hydra.launcher.n_jobs", "hydra.sweep.dir"])
    assert "launcher/processes.yaml:5" in places(found["hydra.launcher.n_jobs"])[0]
    assert found["hydra.sweep.dir"].value.startswith("outputs/default/sweeps/")


def test_what_the_files_of_an_experiment_set():
    assert set(by_key(["experiment"], "experiment=python_qa_lora")) == {"name", "lora.rank", "lora.targets"}


# --- sweeps


def shown(names, *arguments):
    return "\n".join(text.list_key_lines(explained(names, *arguments)))


def test_the_points_of_a_sweep(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = ["lora.rank", "schedule.warmup_steps", "trainer.max_steps", "seed"]
    found = explained(names, "-m", "lora.rank=4,8", "trainer=default,quick")
    assert found.num_points == len(found.points) == 4
    values = [[explanation.value for explanation in point.explanations[:2]] for point in found.points]
    assert values == [[4, 60], [4, 20], [8, 60], [8, 20]]
    lines = "\n".join(text.list_key_lines(found))
    assert "lora.rank = 4 | 8\n  set by      argument 2: lora.rank=4,8\n" in lines
    assert "trainer.max_steps = 400, at trainer=quick\n  set by      conf/trainer/quick.yaml:6" in lines
    assert lines.count("seed = 0\n") == 1


def test_a_sweep_of_a_file_and_one_that_is_too_large_to_look_at_whole(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert "set by      conf/sweep/lora_rank.yaml:7: lora.rank=4,8,16,32" in shown(["lora.rank"], "sweep=lora_rank")
    found = explained(["lora.rank"], "sweep=lora_grid", "-m", "model.num_layers=2,3")
    assert (found.num_points, len(found.points)) == (36, 1 + 2 + 2 + 1 + 1)
    assert {point.explanations[0].value for point in found.points} == {4, 8, 16}


def test_keys_that_only_some_points_have(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = shown(["dataset.messages_key"], "-m", "dataset=python_docs,jsonl")
    assert "dataset.messages_key = (no such key), at dataset=python_docs" in lines
    assert "dataset.messages_key = messages, at dataset=jsonl\n  set by      conf/dataset/jsonl.yaml" in lines


def test_a_search(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = shown(["optimizer.weight_decay", "lora.rank"], "sweep=search")
    assert "optimizer.weight_decay = choice(0.0, 0.01, 0.1)\n  set by      conf/sweep/search.yaml:15" in lines


def test_a_sweep_whose_points_cannot_be_listed():
    found = explained(["lora.rank"], "-m", "lora.rank=range(1,5,0)")
    assert found.points == [] and found.problems[0].where == "lora.rank"


# --- what is wrong


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lora.rnk", "did you mean lora.rank?"),
        ("model.num_layer", "did you mean model.num_layers?"),
        ("optimiser", "did you mean optimizer?"),
        ("dropout_rate", "did you mean"),
        ("hydra.swep.dir", "did you mean hydra.sweep.dir?"),
        ("lora.targets.7", "no such key"),
        ("experiment", "none is chosen"),
        ("", "no such key"),
        ("模型", "llama-exp explain --all shows every key"),
    ],
)
def test_a_key_that_there_is_not(name, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        explained([name])


def test_a_refused_command_line_is_explained_all_the_same():
    found = explained(["trainer.max_steps", "dataset.files"], "experiment=llama2_7b_lora")
    steps, files = found.points[0].explanations
    assert (steps.value, files.value) == (1875, "???")
    assert [problem.where for problem in found.problems] == ["dataset.files"]


def test_what_does_not_compose(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "broken.yaml").write_text("a: [1\n")
    for arguments in (
        ["--config-dir", str(tmp_path / "none")],
        ["--config-dir", str(tmp_path), "+lab=broken"],
        ["--cfg", "job"],
    ):
        with pytest.raises(ConfigError):
            explained(["seed"], *arguments)


def test_secrets_are_masked(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "abcdefghijkl")
    lines = shown(["trainer.callbacks"], "+trainer.callbacks.a={api_key: hidden123, b: '${oc.env:MY_API_KEY}'}")
    assert "hidden123" not in lines and "abcdefghijkl" not in lines and "***" in lines


@pytest.mark.process
def test_under_a_second_and_without_a_framework():
    code = """
import sys
from llama_exp import cli
try:
    cli.main(sys.argv[1:])
finally:
    names = ("keras", "tensorflow", "jax", "torch", "wandb", "numpy")
    print([name for name in names if name in sys.modules], file=sys.stderr)
"""
    before = os.times()
    arguments = ["explain", "--all", "model=llama3_2_3b", "-m", "lora.rank=4,8,16,32"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0 and done.stderr.strip().endswith("[]"), done.stderr
    # The child's own time: the machine may be busy with other things.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1
