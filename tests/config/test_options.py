"""Options and overrides that no run can mean, and what other tools call ours."""

import shlex

import pytest

import llama_exp
from llama_exp.config.check import check_arguments
from llama_exp.config.check.nearest import advise
from llama_exp.config.check.other_tools import NOTES, SYNONYMS
from llama_exp.config.check.typed import list_keys, list_sections
from llama_exp.errors import ConfigError


def problems(*arguments):
    with pytest.raises(ConfigError) as caught:
        check_arguments(arguments)
    for problem in caught.value.problems:
        assert problem.what and problem.where and problem.found and problem.action
    return {problem.where: problem for problem in caught.value.problems}


def test_version_is_ours(capsys):
    with pytest.raises(SystemExit) as stop:
        check_arguments(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"llama-exp {llama_exp.__version__}\n"


@pytest.mark.parametrize("arguments", [["--max_steps=5"], ["--max-steps", "5"], ["seed=1", "--max_steps", "5"]])
def test_a_key_typed_as_an_option(arguments):
    (problem,) = problems(*arguments).values()
    assert problem.what == "no such option" and problem.action.endswith("trainer.max_steps=5")


def test_options_and_keys_are_told_together():
    assert set(problems("--fp16", "lora.rnk=8", "--confg-dir", "x")) == {"--fp16", "lora.rnk", "--confg-dir"}
    assert "did you mean --config-dir?" in problems("--confg-dir", "x")["--confg-dir"].action
    assert "(not shown)" in str(problems("--api_key=canary")["--api_key"])


@pytest.mark.parametrize(
    "arguments", [["--cfg"], ["--cfg", "x"], ["--resolve"], ["--cfg", "job", "--info"], ["-m", "--run"]]
)
def test_options_that_cannot_be_meant(arguments):
    assert problems(*arguments)


def test_every_synonym_leads_somewhere():
    known = {*list_keys(), *list_sections()}
    assert {new.partition("=")[0] for new in SYNONYMS.values()} <= known
    assert NOTES.keys() <= SYNONYMS.keys()
    assert not SYNONYMS.keys() & {key.rpartition(".")[2] for key in list_keys()}, "a name of ours"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("per_device_train_batch_size", "trainer.batch_size"),
        ("num_train_epochs", "trainer.max_steps? There are no epochs"),
        ("warmup_ratio", "schedule.warmup_steps? A share of the run"),
        ("output_dir", "name? Runs go to"),
        ("lr_scheduler_type", "schedule=<choice>? Choices: constant"),
        ("bf16", "precision=mixed_bfloat16"),
        ("bfloat16", "precision=bfloat16"),
        ("fp16", "precision=mixed_float16"),
        ("lora_dropout", "lora.dropout"),
        ("lora_target_modules", "lora.targets"),
        ("packed", "dataset.packing"),
        ("model_name_or_path", "preset.source"),
        ("report_to", "logger.mode"),
    ],
)
def test_names_of_other_tools(typed, meant):
    for line in (f"{typed}=5", f"--{typed}=5", f"trainer.{typed}=5"):
        (problem,) = problems(line).values()
        assert f"did you mean {meant}" in problem.action, line


def test_a_section_and_key_joined_by_an_underscore():
    assert advise("lora_use_dora", list_keys()) == "lora.use_dora"


@pytest.mark.parametrize(
    "lines",
    [
        ["lora.rank=8", "lora.rank=16"],
        ["model=llama_tiny", "model=llama_15m"],
        ["seed=1", "++seed=1"],
        ["-m", "lora.rank=4,8", "lora.rank=16"],
    ],
)
def test_what_is_given_twice(lines):
    (problem,) = problems(*lines).values()
    assert problem.what == "is given more than once" and lines[-1].lstrip("+") in problem.found


@pytest.mark.parametrize("values", ["range(0,0)", "shuffle(range(0,0))", "glob(x*)", "range(0,1000000)"])
def test_sweeps_without_values_or_with_far_too_many(values):
    assert "values" in problems("-m", f"seed={values}")["seed"].what


@pytest.mark.parametrize(
    "line",
    [
        "+hydra.sweeper.params=8",
        "hydra.sweeper.params=[1]",
        "+hydra.sweeper.params={seed: [1]}",
        "+hydra.sweeper.params.a=1",
    ],
)
def test_grids_at_the_wrong_place(line):
    (problem,) = problems("-m", line).values()
    assert problem.where.startswith("hydra.sweeper.params") and "write -m <key>=" in problem.action


def test_what_shows_a_sweep_shows_its_first_job(capsys):
    command = check_arguments(["-m", "seed=5,6", "name=x", "--cfg", "job", "--resolve"])
    assert command.arguments[-2:] == ["name=x", "seed=5"] and "-m" not in command.arguments
    assert "--multirun" not in command.arguments and command.sweep is None
    assert "seed=5 (1 more)" in capsys.readouterr().err


def test_null_means_none():
    plain = check_arguments([]).config
    for line in ("experiment=null", "sweep=null", "preset=null", "~experiment"):
        assert check_arguments([line]).config == plain
    quantized = check_arguments(["quantization=null"])
    assert quantized.config.quantization.mode == "none" and "quantization=none" in quantized.arguments
    assert "logger=none" in problems("logger=null")["logger"].action
    assert "every run needs" in problems("hydra/launcher=null")["hydra/launcher"].what


def test_threads_have_a_limit():
    assert check_arguments(["runtime.threads=1024"]).config.runtime.threads == 1024
    assert "1024" in problems("runtime.threads=100000")["runtime.threads"].action


@pytest.mark.parametrize("comment", ["", "# my experiment\n# @package _global_\n"])
@pytest.mark.parametrize("group", ["experiment", "sweep"])
def test_an_experiment_without_its_package_line(tmp_path, comment, group):
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(f"{comment}name: mine\ntrainer: {{max_steps: 5}}\n")
    (problem,) = problems("--config-dir", str(tmp_path), f"{group}=mine").values()
    assert problem.action == "make this the first line of the file: # @package _global_"
    assert problem.where.endswith(f"{group}/mine.yaml") and problem.found == f"{group}: name, trainer"
    text = (tmp_path / group / "mine.yaml").read_text()
    (tmp_path / group / "mine.yaml").write_text(f"# @package _global_\n{text}")
    assert check_arguments(["--config-dir", str(tmp_path), f"{group}=mine"]).config.name == "mine"


@pytest.mark.parametrize(
    ("lines", "fix"),
    [
        (["model=llama3_2_1b", "preset=llama2_7b_en"], "model=llama2_7b"),
        (["preset=llama3.2_instruct_3b"], "model=llama3_2_3b"),
        (["preset=vicuna_1.5_7b_en"], "model=vicuna_1_5_7b"),
        (["preset.source=llama3_8b_en_int8", "lora.rank=2"], "model=llama3_8b or model=llama3_instruct_8b"),
    ],
)
def test_a_preset_of_another_architecture_is_one_message(lines, fix):
    (problem,) = problems(*lines).values()
    assert problem.where == "model" and f"choose {fix}, or" in problem.action
    kept = [line for line in lines if not line.startswith("model=")]
    assert check_arguments([*kept, shlex.split(fix)[0]])


@pytest.mark.parametrize(
    ("line", "possible"),
    [
        ("logger.project=team/proj", False),
        ("logger.project=a#b", False),
        (f"logger.project={'x' * 129}", False),
        (f"logger.project={'x' * 128}", True),
        ("logger.entity=a:b", False),
        ("logger.tags=['']", False),
        (f"logger.tags=[{'x' * 65}]", False),
        (f"logger.tags=[{'x' * 64}, b c]", True),
    ],
)
def test_names_that_wandb_takes(line, possible):
    if possible:
        assert check_arguments([line]).config
    else:
        assert "give" in problems(line)[line.partition("=")[0]].action


def test_these_limits_are_wandbs_own():
    from wandb import Settings
    from wandb.errors import UsageError

    assert Settings(project="x" * 128, run_tags=["x" * 64])
    for wrong in (
        {"project": "x" * 129},
        {"project": "a/b"},
        {"project": "a:b"},
        {"run_tags": ["x" * 65]},
        {"run_tags": [""]},
    ):
        with pytest.raises((UsageError, ValueError)):
            Settings(**wrong)
