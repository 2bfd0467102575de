"""The front end: every mistake at once, with the nearest name, quickly, without a framework."""

import copy
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from omegaconf.basecontainer import BaseContainer
from promptness import within

from llama_exp.architecture import LINEAR_NAMES
from llama_exp.config.check import check_arguments, config_hash, job, text_source, to_dict
from llama_exp.config.check.conversion import WrongType, convert
from llama_exp.config.check.nearest import find_nearest_key
from llama_exp.config.check.other_tools import PLUGINS
from llama_exp.config.check.resolvers import folder_name, share
from llama_exp.config.check.typed import list_keys
from llama_exp.errors import ConfigError, ExitCode
from llama_exp.limits.dataset import Overlong
from llama_exp.limits.precision import Policy
from llama_exp.limits.runtime import Backend, Jit

ROOT = Path(__file__).resolve().parents[2]


def problems(*arguments):
    """Where -> problem of a command line that must be refused; every problem answers all four questions."""
    with pytest.raises(ConfigError) as caught:
        check_arguments(arguments)
    assert caught.value.exit_code == ExitCode.CONFIG
    for problem in caught.value.problems:
        assert problem.what and problem.where and problem.found and problem.action
        assert len(str(problem).splitlines()) <= 6
    return {problem.where: problem for problem in caught.value.problems}


def config(*arguments):
    return check_arguments(arguments).config


# --- several mistakes at once


def test_three_mistakes_are_named_together():
    found = problems("lora.rnk=8", "model=lama2_7b", "optimizer.learning_rate=fast")
    assert set(found) == {"lora.rnk", "model", "optimizer.learning_rate"}
    assert "lora.rank" in found["lora.rnk"].action
    assert "llama2_7b?" in found["model"].action
    assert "a number" in found["optimizer.learning_rate"].action
    assert found["optimizer.learning_rate"].found == "optimizer.learning_rate=fast"


def test_every_kind_of_mistake_at_once():
    found = problems(
        "lr =1",
        "modle=x",
        "dataset=jsonll",
        "+zzz=1",
        "++trainer.lerning_rate=1",
        "hydra.rn.dir=x",
        "lora.rank=4,8",
        "trainer.max_steps=0",
        "model.hidden_dim=10",
        "schedule.warmup_steps=-1",
        "precision=float99",
    )
    expected = {"lr ", "modle", "dataset", "zzz", "trainer.lerning_rate", "hydra.rn.dir", "lora.rank"}
    expected |= {"trainer.max_steps", "model.hidden_dim", "schedule.warmup_steps", "precision"}
    assert set(found) == expected


@pytest.mark.parametrize(
    "typo, meant",
    [
        ("trainer.lerning_rate=1e-4", "optimizer.learning_rate"),
        ("optimizer.lr=1e-4", "optimizer.learning_rate"),
        ("lr=1e-4", "optimizer.learning_rate"),
        ("rank=8", "lora.rank"),
        ("trainer.epochs=3", "trainer.max_steps"),
        ("model.num_layer=3", "model.num_layers"),
        ("model.hidden_size=64", "model.hidden_dim"),
        ("modell=llama_tiny", "model"),
        ("seeed=1", "seed"),
        ("+trainer.batchsize=1", "trainer.batch_size"),
        ("++optimizer.weightdecay=1", "optimizer.weight_decay"),
        ("hydra.sweep.dirr=x", "hydra.sweep.dir"),
    ],
)
def test_nearest_key(typo, meant):
    (problem,) = problems(typo).values()
    assert problem.what == "no such key"
    assert f"did you mean {meant}?" in problem.action


def test_nothing_is_suggested_for_a_name_like_no_other():
    assert find_nearest_key("qqqqqqqq", list_keys()) is None


# --- overrides


@pytest.mark.parametrize("line", ["lora.rank", "lr =1", "lora.targets=[query", "name='a", "a=b=c"])
def test_syntax(line):
    (problem,) = problems(line).values()
    assert "grammar" in problem.what


def test_commas_without_multirun():
    (problem,) = problems("lora.rank=4,8").values()
    assert "add -m" in problem.action and "[4,8]" in problem.action


def test_plus_on_an_existing_key_and_deletion():
    found = problems("+seed=1", "~trainer.max_steps", "~lora", "+model=llama_15m", "model=null")
    assert found["seed"].action == "write seed=1"
    assert "write trainer.max_steps=<value>" in found["trainer.max_steps"].action
    assert "default" in found["lora"].action
    assert set(found) == {"seed", "trainer.max_steps", "lora", "model"}


def test_key_of_another_choice_is_explained():
    found = problems("dataset.builder=x", "tokenizer.file=x")
    assert "Tfds" in found["dataset.builder"].action
    assert "sentencepiece" in found["tokenizer.file"].action


def test_doubtful_choice_does_not_raise_false_alarms():
    assert set(problems("dataset=jsonll", "dataset.text_key=t", "dataset.files=[a]")) == {"dataset"}
    assert set(problems("experiment=python_qa_lor", "lora.rank=100000", "trainer.x=1")) == {"experiment", "trainer.x"}


def test_section_as_value_and_value_as_section():
    assert set(problems("seed.x=1")) == {"seed.x"}
    assert set(problems("lora=8")) == {"lora"}
    assert set(problems("trainer.callbacks=[a]")) == {"trainer.callbacks"}


# --- types


@pytest.mark.parametrize(
    "line",
    [
        "trainer.batch_size=abc",
        "trainer.batch_size=1.5",
        "trainer.batch_size=true",
        "trainer.batch_size=null",
        "trainer.batch_size=1e3",
        "trainer.batch_size=[1]",
        "optimizer.learning_rate=true",
        "model.tie_word_embeddings=1",
        "model.tie_word_embeddings=yes",
        "lora.targets=[[query]]",
        "lora.rank_pattern=4",
        "lora.rank_pattern={query: 1.5}",
        "lora.alpha_pattern={query: high}",
        "lora.use_dora=1",
        "dataset.packing=concatt",
        "dataset.packing=1",
        "runtime.backend=torch",
        "runtime.jit=1",
        "name=null",
        "debug=maybe",
    ],
)
def test_wrong_types(line):
    key = line.partition("=")[0]
    (problem,) = problems(line).values()
    assert (problem.where, problem.what, problem.found) == (key, "has the wrong type", line)


def test_right_types():
    made = config("optimizer.learning_rate=1", "runtime.jit=true", "name=7", "runtime.backend=jax", "lora.alpha=8")
    assert made.optimizer.learning_rate == 1.0 and isinstance(made.optimizer.learning_rate, float)
    assert made.runtime.jit is Jit.true and made.runtime.backend is Backend.jax and made.name == "7"
    assert isinstance(made.lora.alpha, float)


def test_patterns_are_open_to_new_names():
    """Hydra alone would want a `+` before names that no file has; the arguments it is given have it."""
    command = check_arguments(["lora.rank=8", "lora.rank_pattern={query: 16}", "lora.rank_pattern.value=4"])
    assert command.config.lora.rank_pattern == {"query": 16, "value": 4}
    assert "++lora.rank_pattern={query: 16}" in command.arguments
    made = config("lora.rank=8", "+lora.alpha_pattern.value=2", "lora.targets=[attention]", "lora.use_dora=true")
    assert made.lora.alpha_pattern == {"value": 2.0} and isinstance(made.lora.alpha_pattern["value"], float)
    assert config("-m", "lora.rank=8", "lora.rank_pattern={query: 2},{query: 3}").lora.rank_pattern == {"query": 2}


def test_convert_is_lossless():
    assert convert("8", int) == 8 and convert("1e-4", float) == 1e-4
    assert convert("drop", Overlong) is Overlong.drop and convert(None, int | None) is None
    for value, hint in [
        (1.0, int),
        ("a", float),
        (None, int),
        (2, bool),
        (1.5, str),
        ("DROP", Overlong),
        (10**400, float),
    ]:
        with pytest.raises(WrongType):
            convert(value, hint)


def test_environment_values_are_text(monkeypatch):
    monkeypatch.setenv("STEPS_OF_TEST", "12")
    assert config("trainer.max_steps=${oc.env:STEPS_OF_TEST}").trainer.max_steps == 12


# --- values


@pytest.mark.parametrize(
    "line",
    [
        "optimizer.learning_rate=-1",
        "optimizer.learning_rate=0",
        "optimizer.learning_rate=nan",
        "optimizer.learning_rate=inf",
        "optimizer.beta_1=1.0",
        "optimizer.epsilon=0",
        "optimizer.weight_decay=-0.1",
        "optimizer.global_clipnorm=0",
        "trainer.batch_size=0",
        "trainer.max_steps=-1",
        "trainer.max_steps=99999999999",
        "trainer.keep_checkpoints=0",
        "trainer.sample_temperature=-1",
        "trainer.accumulation_steps=0",
        "trainer.validation_batches=0",
        "objective.chunk_tokens=0",
        "model.dropout=1.0",
        "model.num_layers=0",
        "model.rope_max_wavelength=0",
        "model.layer_norm_epsilon=nan",
        "dataset.sequence_length=0",
        "dataset.validation_fraction=0",
        "dataset.validation_fraction=1",
        "lora.rank=-1",
        "lora.alpha=0",
        "lora.alpha=nan",
        "lora.dropout=1",
        "lora.targets=[]",
        "lora.rank_pattern={query: 0}",
        "lora.alpha_pattern={query: 0}",
        "lora.alpha_pattern={query: inf}",
        "lora.rank_pattern={query: 99999999999}",
        "schedule.final_fraction=1.5",
        "precision.policy=float8",
        "seed=-1",
        "seed=4294967296",
        "runtime.threads=-1",
        "name=../up",
        "name=''",
        "name=a/b",
        "logger.project=''",
        "logger.entity=''",
    ],
)
def test_impossible_values(line):
    key = line.partition("=")[0]
    (problem,) = problems(line).values()
    assert problem.where == key and problem.found == line
    assert problem.action.startswith("give ")


ADAM = ("optimizer._target_=keras.optimizers.Adam", "~optimizer.independent_weight_decay")
MUP = ("model.parametrization=mup", "model.base_hidden_dim=64")
OWN_TEMPLATE = ("dataset=jsonl", "dataset.files=[a]", "dataset.chat_template=model")


@pytest.mark.parametrize(
    "where, lines, words",
    [
        (
            "model.num_key_value_heads",
            ["model.num_query_heads=8", "model.num_key_value_heads=6"],
            "num_key_value_heads is 4",
        ),
        ("model.hidden_dim", ["model.hidden_dim=190"], "nearest hidden_dim is 192"),
        ("model.hidden_dim", ["model.hidden_dim=18"], "nearest hidden_dim is 16"),
        ("model.rope_low_freq_factor", ["model.rope_frequency_adjustment_factor=8"], "all four"),
        (
            "model.rope_low_freq_factor",
            ["model=llama3_1_8b", "preset=none", "model.rope_low_freq_factor=4"],
            "1 and 4",
        ),
        ("lora.rank", ["lora.rank=129"], "at most 128"),
        ("lora.rank_pattern", ["lora.rank=4", "lora.rank_pattern={value: 129}"], "at most 128"),
        ("lora.rank_pattern", ["lora.rank=4", "lora.rank_pattern={quer: 8}"], "did you mean query?"),
        ("lora.rank_pattern", ["lora.rank=4", "lora.rank_pattern={key: 8}"], "add it to lora.targets"),
        ("lora.alpha_pattern", ["lora.rank=4", "lora.alpha_pattern={query: 8, .*: 3}"], "share no layer"),
        ("lora.rank_pattern", ["lora.rank_pattern={query: 8}"], "set lora.rank"),
        ("lora.targets", ["lora.rank=2", "lora.targets=[qery]"], "did you mean query?"),
        ("lora.targets", ["lora.rank=2", "lora.targets=[query,'(']"], "allowed"),
        ("schedule.warmup_steps", ["schedule.warmup_steps=1201"], "at most 1200"),
        ("schedule.decay_steps", ["schedule=wsd", "schedule.decay_steps=1141"], "at most 1140"),
        ("tokenizer._target_", ["tokenizer=preset"], "tokenizer=bpe"),
        ("tokenizer.vocabulary_size", ["tokenizer.vocabulary_size=4096"], "at most 512"),
        ("dataset.text_key", ["dataset=tfds", "dataset.builder=x", "dataset.prompt_key=q"], "text_key=null"),
        ("model.base_hidden_dim", ["model.parametrization=mup"], "the hidden_dim of the model whose learning rate"),
        ("optimizer._target_", [*MUP, *ADAM], "adamw or lion or sgd"),
        ("optimizer.global_clipnorm", [*MUP, "optimizer=sgd", "optimizer.global_clipnorm=1.0"], "set it to null"),
        ("optimizer._target_", [*MUP, "optimizer=muon"], "adamw or lion or sgd"),
        ("model.parametrization", [*MUP, "lora.rank=4"], "set model.parametrization=standard"),
        ("resume", ["resume=outputs/nowhere"], "auto"),
        ("dataset.chat_template", ["dataset=jsonl", "dataset.files=[a]", "dataset.chat_template=x"], "chatml"),
        ("dataset.chat_template", [*OWN_TEMPLATE], "set preset.source to an instruct model"),
        ("dataset.chat_template", [*OWN_TEMPLATE, "tokenizer=byte"], "tokenizer=auto"),
    ],
)
def test_impossible_pairs(where, lines, words):
    found = problems(*lines)
    assert set(found) == {where}
    assert words in found[where].action


def test_pairs_at_their_limits_are_possible():
    assert config("lora.rank=128").lora.rank == 128
    assert config("schedule=wsd", "schedule.decay_steps=1140").schedule.decay_steps == 1140
    assert config("model.hidden_dim=8", "lora.rank=0").model.hidden_dim == 8
    assert config("lora.rank=2", "lora.targets=[all-linear]").lora.targets == ["all-linear"]
    assert config("trainer.max_steps=1").schedule.warmup_steps == 0


def test_an_interpolated_value_is_blamed_on_its_source_only():
    assert set(problems("model.vocabulary_size=abc")) == {"model.vocabulary_size"}
    assert set(problems("trainer.max_steps=abc")) == {"trainer.max_steps"}


def test_interpolations_that_lead_nowhere(monkeypatch):
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    found = problems("seed=${sed}", "name=${oc.env:NO_SUCH_VARIABLE}", "trainer.max_steps=${unknown_resolver:1}")
    assert set(found) == {"seed", "name", "trainer.max_steps"}
    assert "NO_SUCH_VARIABLE" in found["name"].what
    assert set(problems("lora.rank=${trainer.batch_size}", "trainer.batch_size=${lora.rank}")) == {
        "lora.rank",
        "trainer.batch_size",
    }


def test_secrets_are_not_repeated(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "canary-canary-canary")
    found = problems(
        "+logger.api_key=canary2-canary2",
        "logger.wandb_api_key=canary3",
        "name=${oc.env:WANDB_API_KEY}/x",
        'trainer.api_key="canary4 canary5',
        "+dataset.mine={password: canary6, more: [",
        "+trainer.mine={password: 'canary7, canary8'}",
    )
    text = "\n".join(map(str, found.values()))
    assert "canary" not in text
    assert "WANDB_API_KEY" in found["logger.api_key"].action


def test_control_characters_are_spelled_out():
    (problem,) = problems("name='a\x1b[31mb'").values()
    assert "\x1b" not in str(problem)


# --- targets


@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.Popen", "builtins.eval", "functools.partial", "llama_expp.x", "keras_evil.X", "", "a b"]
    + ["keras.utils.get_file", "keras.saving.load_model", "kerasx.optimizers.Adam", "llama_exp..os"],
)
def test_foreign_targets_are_refused(target):
    (problem,) = problems(f"optimizer._target_='{target}'").values()
    assert problem.where == "optimizer._target_"


def test_nested_targets_are_refused_before_import(tmp_path):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    callback = "{_target_: llama_exp.console.progress.X, inner: [{_target_: evil_module.run}]}"
    found = problems(f"+trainer.callbacks.mine={callback}")
    assert set(found) == {"trainer.callbacks.mine.inner._target_"}
    assert "evil_module" not in sys.modules and not (tmp_path / "canary").exists()


def test_trusted_modules_open_the_gate():
    # json.decoder has no Lion: what a source does not say is asked of the imported class, later.
    made = config("trusted_modules=[json]", "optimizer._target_=json.decoder.Lion", "+optimizer.any=1")
    assert made.optimizer["_target_"] == "json.decoder.Lion" and made.optimizer["any"] == 1
    taken_out = ("~optimizer.epsilon", "~optimizer.independent_weight_decay")
    made = config("optimizer._target_=keras.optimizers.Lion", *taken_out)
    assert made.optimizer["_target_"] == "keras.optimizers.Lion"


def test_targets_of_ours_are_checked_against_their_section():
    assert "schedule" not in problems("optimizer._target_=llama_exp.schedule.cosine")
    found = problems("schedule._target_=llama_exp.schedule.cosin")
    assert "llama_exp.schedule.cosine" in found["schedule._target_"].action


def test_hydra_may_not_build_foreign_objects():
    assert set(problems("+hydra.callbacks.x._target_=os.system")) == {"hydra.callbacks.x._target_"}
    assert set(problems("+hydra.job_logging.handlers.x.()=os.system")) == {"hydra.job_logging.handlers.x.()"}


@pytest.fixture
def a_plugin(monkeypatch):
    """A sweeper that somebody installed: what its module does when Hydra imports it."""
    check_arguments(["seed=1"])  # Hydra's own are there before: they register once in a process
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", copy.deepcopy(store.repo))
    sampler = {"_target_": "bought.samplers.Best", "seed": None}
    node = {"_target_": "hydra_plugins.bought_sweeper.Sweeper", "defaults": [{"sampler": "best"}]}
    store.store(group="hydra/sweeper/sampler", name="best", node=sampler, provider="bought")
    store.store(group="hydra/sweeper", name="bought", node=node, provider="bought")
    ray = {"_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher", "ray": {"remote": {}}}
    store.store(group="hydra/launcher", name="ray", node=ray, provider="bought")
    job.list_plugin_targets.cache_clear()
    yield
    job.list_plugin_targets.cache_clear()


def test_hydra_may_build_what_an_installed_plugin_names(a_plugin):
    made = check_arguments(["hydra/sweeper=bought", "seed=7", "hydra.sweeper.sampler.seed=1"])
    assert made.config.seed == 7
    line = "hydra.sweeper.sampler._target_"
    assert set(problems("hydra/sweeper=bought", f"{line}=bought.samplers.Other")) == {line}
    assert set(problems("hydra/sweeper=bought", f"{line}=os.system")) == {line}


def test_jobs_of_a_launcher_that_uses_its_processes_again_share_backend_and_threads(a_plugin):
    line = ["-m", "runtime.threads=1,2", "hydra/launcher=ray"]
    assert set(problems(*line)) == {"runtime.threads"}
    check_arguments([*line, "+hydra.launcher.ray.remote.max_calls=1"])


@pytest.mark.parametrize(
    "line, package",
    [
        ("hydra/launcher=joblib", "'llama_exp[joblib]'"),
        ("hydra/launcher=submitit_local", "'llama_exp[slurm]'"),
        ("hydra/launcher=submitit_slurm", "'llama_exp[slurm]'"),
        ("hydra/launcher=ray", "'llama_exp[ray]'"),
        ("hydra/sweeper=optuna", "hydra-optuna-sweeper"),
    ],
)
def test_a_plugin_that_is_missing_is_named_and_its_keys_are_not(line, package, tmp_path):
    group, _, name = line.partition("=")
    found = problems(line, f"{group.replace('/', '.')}.any=1", "-m", "seed=0,1")
    assert set(found) == {group} and package in found[group].action
    of_own = tmp_path / group / "cluster.yaml"
    of_own.parent.mkdir(parents=True)
    of_own.write_text(f"defaults: [{name}]\n")
    found = problems("--config-dir", str(tmp_path), f"{group}=cluster")
    assert package in found[f"{group}/{name}"].action


def test_each_extra_that_a_message_names_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {match[1] for text in PLUGINS.values() if (match := re.fullmatch(r"'llama_exp\[(\w+)\]'", text))}
    assert named == {"joblib", "slurm", "ray"} and named <= set(extras)


def test_a_launcher_s_process_takes_over_what_hydra_knows():
    """As joblib, submitit and Ray do it: the state of here meets Hydra's own plug-ins there."""
    check_arguments(["seed=1"])
    instances, resolvers = dict(Singleton._instances), BaseContainer._resolvers
    state = Singleton.get_state()
    try:
        Singleton.set_state(state)
        assert SourcesRegistry.instance().resolve("file").load_config is text_source.FileConfigSource.load_config
    finally:
        Singleton._instances, BaseContainer._resolvers = instances, resolvers


# --- the user's own files


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_own_choices_through_config_dir(tmp_path):
    write(tmp_path, "model/mine.yaml", "defaults: [llama_tiny, _self_]\nnum_layers: 3\n")
    write(tmp_path, "experiment/mine.yaml", "# @package _global_\ndefaults: [{override /model: mine}]\nseed: 7\n")
    made = config("--config-dir", str(tmp_path), "experiment=mine")
    assert (made.model.num_layers, made.seed) == (3, 7)


def test_mistakes_in_own_files_name_the_file(tmp_path):
    write(tmp_path, "model/mine.yaml", "defaults: [llama_tiny, _self_]\nnum_layer: 3\n")
    text = "# @package _global_\ntrainer: {batch_size: many}\nlora: {rank: -1}\nextra: 1\n"
    write(tmp_path, "experiment/mine.yaml", text)
    found = problems(f"--config-dir={tmp_path}", "experiment=mine", "model=mine", "seed=x")
    assert set(found) == {"model.num_layer", "trainer.batch_size", "lora.rank", "extra", "seed"}
    assert found["model.num_layer"].found.endswith("model/mine.yaml")
    assert found["trainer.batch_size"].found.startswith("many, in ")
    assert found["lora.rank"].found.endswith("experiment/mine.yaml")
    assert "num_layers" in found["model.num_layer"].action


def test_a_key_that_the_own_file_lacks(tmp_path):
    write(tmp_path, "precision/mine.yaml", "{}\n")
    found = problems(f"--config-dir={tmp_path}", "precision=mine")
    assert found["precision.policy"].what == "has no value"
    found = problems(f"--config-dir={tmp_path}", "precision=mine", "precision.policy=float32")
    assert found["precision.policy"].action == "write +precision.policy=float32"
    made = config(f"--config-dir={tmp_path}", "precision=mine", "+precision.policy=float32")
    assert made.precision.policy is Policy.float32


def test_own_root_config(tmp_path):
    write(tmp_path, "mine.yaml", "defaults: [config, _self_]\nseed: 5\nsede: 6\n")
    found = problems(f"--config-dir={tmp_path}", "--config-name=mine")
    assert "seed" in found["sede"].action
    write(tmp_path, "mine.yaml", "defaults: [config, _self_]\nseed: 5\n")
    assert config(f"--config-dir={tmp_path}", "--config-name=mine").seed == 5


def test_an_own_file_that_changes_is_read_again(tmp_path):
    """Also where the text has the same length, and nothing but its content tells the two apart."""
    for seed in (5, 6):
        write(tmp_path, "experiment/mine.yaml", f"# @package _global_\nseed: {seed}\n")
        assert config(f"--config-dir={tmp_path}", "experiment=mine").seed == seed
    (tmp_path / "experiment" / "mine.yaml").unlink()
    assert "experiment" in problems(f"--config-dir={tmp_path}", "experiment=mine")


@pytest.mark.parametrize(
    "content",
    [
        "seed:\n\t- 1\n",
        "seed: 1\nseed: 2\n",
        b"name: \xff\xfe\n",
        "seed: [1\n",
        "- 1\n- 2\n",
        "x" * 1_000_001,
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a [*a]\n",
        "a: " + "[" * 5000 + "]" * 5000,
        "a:\n " + "- " * 5000 + "1\n",
        "".join(" " * depth + "a:\n" for depth in range(1000)),
        "defaults: [{override /model: nowhere}]\n",
        "defaults: [nowhere]\n",
        "seed: ${a\n",
    ],
    ids=[
        "tab",
        "duplicate",
        "bytes",
        "open",
        "list",
        "large",
        "bomb",
        "cycle",
        "deep",
        "dashes",
        "indented",
        "option",
        "default",
        "grammar",
    ],
)
def test_broken_files(tmp_path, content):
    header = b"" if isinstance(content, bytes) else "# @package _global_\n"
    write(tmp_path, "experiment/broken.yaml", header + content)
    with within(1):
        found = problems(f"--config-dir={tmp_path}", "experiment=broken", "lora.rnk=8")
    assert len(found) >= 1
    if "lora.rnk" not in found:  # refused before anything is loaded
        assert any("broken.yaml" in where for where in found)


def test_missing_folders_and_names(tmp_path):
    assert set(problems("--config-dir", str(tmp_path / "no"))) == {"--config-dir"}
    assert set(problems("--config-path", str(tmp_path / "no"))) == {"--config-path"}
    assert problems("--config-path", str(tmp_path))
    assert problems("--config-name", "nope")


def test_rerun_from_a_pickle_is_refused():
    assert "pickle" in problems("--experimental-rerun", "x")["--experimental-rerun"].what


# --- sweeps


def test_every_point_of_a_sweep_is_checked():
    found = problems("-m", "lora.rank=4,129", "trainer.max_steps=20")
    assert "lora.rank=129" in found["lora.rank"].what
    found = problems("-m", "model=llama_tiny,lama2", "optimizer.learning_rate=1e-3,fast", "+zzz=1,2")
    assert {"model", "optimizer.learning_rate", "zzz"} <= set(found)
    assert "learning_rate=fast" in found["optimizer.learning_rate"].found


def test_bad_combination_names_its_point():
    found = problems("-m", "model=llama_tiny,llama_15m", "lora.rank=4,200")
    assert "model=llama_tiny lora.rank=200" in found["lora.rank"].what


def test_sweep_from_a_file():
    command = check_arguments(["sweep=lora_rank"])
    assert command.sweep is not None and command.config.lora.rank == 4
    assert "lora.rank=300" in problems("sweep=lora_rank", "lora.rank=4,300")["lora.rank"].what


def test_sweep_over_required_values(tmp_path):
    files = [str(tmp_path / name) for name in "ab"]
    assert check_arguments(["-m", "dataset=text_files", f"dataset.files=[{files[0]}],[{files[1]}]"]).sweep


def test_what_cannot_be_swept():
    assert set(problems("-m", "runtime.backend=jax,tensorflow", "hydra/launcher=basic")) == {"runtime.backend"}
    assert set(problems("-m", "hydra.job.chdir=true,false")) == {"hydra.job.chdir"}
    assert set(problems("-m", "lora.rank=interval(1,2)")) == {"lora.rank"}


# --- identity


def test_hash_ignores_what_cannot_change_the_result():
    base = config_hash(config())
    same = [
        "runtime.threads=3",
        "logger.mode=disabled",
        "name=x",
        "resume=auto",
        "debug=true",
        "optimizer.epsilon=1e-08",
    ]
    assert config_hash(config(*same)) == base
    for other in ["seed=1", "lora.rank=1", "trainer.max_steps=3", "preset.source=x", "model=llama_15m"]:
        assert config_hash(config(other)) != base
    assert len(base) == 64


def test_to_dict_is_plain_data():
    plain = to_dict(config())
    assert plain["dataset"]["packing"] == "concat" and plain["runtime"]["jit"] == "auto"
    assert plain["schedule"]["warmup_steps"] == 60


def test_resolvers():
    assert share(0.05, 400) == 20 and share(0.05, 3) == 0
    assert folder_name("lora.rank=4,seed=1") == "lora.rank-4_seed-1"
    assert folder_name("") == "defaults" and "/" not in folder_name("a=../../b")
    long = folder_name("x=" + "y" * 200)
    assert len(long) <= 60 and long != folder_name("x=" + "y" * 201)


# --- the process


FRAMEWORKS = ("keras", "tensorflow", "jax", "torch", "wandb", "tensorflow_datasets", "numpy", "matplotlib")


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.process
@pytest.mark.parametrize(
    "arguments, code",
    [
        (["lora.rnk=8", "model=lama2_7b", "optimizer.learning_rate=fast"], 2),
        (["model=llama2_7b", "lora.rank=8", "--cfg", "job"], 0),
        (["--help"], 0),
        (["--info", "searchpath"], 0),
        (["-sc", "install=bash"], 0),
    ],
)
def test_no_framework_before_the_frontier(arguments, code):
    script = f"""
import sys
from llama_exp.train_command import main
try:
    main(sys.argv[1:])
    code = 0
except SystemExit as stop:
    code = stop.code or 0
loaded = [name for name in {FRAMEWORKS!r} if name in sys.modules]
assert not loaded, loaded
sys.exit(code)
"""
    done = run(script, *arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "HYDRA_FULL_ERROR" not in done.stderr


@pytest.mark.process
def test_the_failing_command_takes_less_than_a_second():
    arguments = ["lora.rnk=8", "model=lama2_7b", "optimizer.learning_rate=fast"]
    before = os.times()
    done = subprocess.run([sys.executable, "train.py", *arguments], cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 2
    for words in ("lora.rank", "llama2_7b", "a number"):
        assert words in done.stderr
    # The child's own time: the machine may be busy with other things.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1


# --- quantization


@pytest.mark.parametrize(
    "lines, where, action",
    [
        (["quantization=int8"], "lora.rank", "set lora.rank=8, or quantization=none"),
        (
            ["quantization.mode=int4", "lora.rank=4"],
            "quantization.group_size",
            "choose quantization=int4, which has all",
        ),
        (["quantization=float8"], "lora.rank", "set lora.rank=8, or quantization=none"),
        (["quantization.mode=fp4", "lora.rank=4"], "quantization.mode", "one of none, preset, int8, int4, float8"),
        (
            ["quantization=int4", "lora.rank=4", "quantization.quantize_activations=true"],
            "quantization.quantize_activations",
            "choose quantization=int8",
        ),
        (
            ["quantization=int8", "lora.rank=4", "quantization.group_size=64"],
            "quantization.group_size",
            "choose quantization=int4",
        ),
        (["quantization=int8", "lora.rank=4", "quantization.embeddings=int8"], "quantization.embeddings", "=null"),
        (
            ["quantization=int8", "lora.rank=4", "quantization.gptq=true"],
            "quantization.gptq",
            "choose quantization=int4",
        ),
        (["quantization=int8", "lora.rank=4", "quantization.int8_layers=[]"], "quantization.int8_layers", "=null"),
        (
            ["quantization=int4", "lora.rank=4", "quantization.int8_layers=[mlp]"],
            "quantization.int8_layers",
            "query, key",
        ),
        (
            ["quantization=int4", "lora.rank=4", f"quantization.int8_layers=[{','.join(LINEAR_NAMES)}]"],
            "quantization.int8_layers",
            "not all of them (that is quantization=int8_weight_only)",
        ),
        (["quantization=int4", "lora.rank=4", "quantization.embeddings=fp4"], "quantization.embeddings", "int8, int4"),
        (
            ["quantization=int4", "lora.rank=4", "quantization.float_activations=[query]"],
            "quantization.float_activations",
            "choose quantization=int8",
        ),
        (
            ["quantization=int8_weight_only", "lora.rank=4", "quantization.float_activations=[query]"],
            "quantization.float_activations",
            "choose quantization=int8",
        ),
        (
            ["quantization=int8_weight_only", "lora.rank=4", "quantization.asymmetric_activations=true"],
            "quantization.asymmetric_activations",
            "choose quantization=int8",
        ),
        (
            ["quantization=int8", "lora.rank=4", "quantization.float_activations=[mlp]"],
            "quantization.float_activations",
            "names out of query, key",
        ),
        (["quantization.group_size=64"], "quantization.group_size", "only int4"),
        (
            ["quantization=int4", "lora.rank=4", "quantization.group_size=100"],
            "quantization.group_size",
            "the nearest group_size is 64; 0 means one group",
        ),
        (["quantization=int4", "lora.rank=4", "quantization.group_size=-1"], "quantization.group_size", "at least 0"),
        (
            ["quantization=int8", "lora.rank=4", "precision=mixed_float16"],
            "precision.policy",
            "choose precision=mixed_bfloat16 or float32, or quantization=int4",
        ),
        (
            ["quantization=float8", "lora.rank=4", "precision=mixed_float16"],
            "precision.policy",
            "choose precision=mixed_bfloat16 or float32, or quantization=int4",
        ),
        (
            ["quantization=float8", "lora.rank=4", "quantization.quantize_activations=true"],
            "quantization.quantize_activations",
            "choose quantization=int8",
        ),
        (["quantization=float8", "lora.rank=4", "quantization.group_size=32"], "quantization.group_size", "int4"),
        (["quantization=float8", "lora.rank=4", "quantization.embeddings=int8"], "quantization.embeddings", "int4"),
        (
            ["quantization=float8", "lora.rank=4", "quantization.float_activations=[]"],
            "quantization.float_activations",
            "choose quantization=int8",
        ),
    ],
)
def test_quantization(lines, where, action):
    found = problems(*lines)
    assert set(found) == {where}
    assert action in str(found[where])


@pytest.mark.parametrize(
    "lines",
    [
        ["quantization=int8"],
        ["quantization=int8_weight_only", "precision=mixed_bfloat16"],
        ["quantization=int4", "precision=mixed_float16"],
        ["quantization=preset", "preset=llama2_7b_en_int8", "model=llama2_7b"],
        ["quantization=int4", "quantization.group_size=64"],
        ["quantization=int4", "quantization.group_size=0"],
        ["quantization=int4", "quantization.embeddings=int4"],
        ["quantization=int4", "quantization.int8_layers=[]"],
        ["quantization=int4", "quantization.int8_layers=[feedforward_output_dense,value]"],
        ["quantization=int8", "quantization.float_activations=[]"],
        ["quantization=int8", "quantization.asymmetric_activations=false"],
        ["quantization=int8", "quantization.float_activations=[query,token_embedding]"],
        ["quantization=int4", "model=smollm2_135m", "lora.targets=[query]"],
        ["quantization=float8", "precision=bfloat16"],
    ],
)
def test_quantization_that_is_possible(lines):
    assert config(*lines, "lora.rank=2").quantization.mode in ("int8", "int4", "float8")
