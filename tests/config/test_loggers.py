"""The section `logger`: one, several or none, by Hydra's own list of choices, and what is said of mistakes."""

import pytest

from llama_exp.config.check import check_arguments, to_dict
from llama_exp.config.loggers import list_loggers, name_of
from llama_exp.config.schema import LoggerConfig, MlflowLoggerConfig, NamedLoggerConfig
from llama_exp.errors import ConfigError
from llama_exp.logger import needed

W_AND_B = ["_target_", "mode", "project", "entity", "tags", "log_model"]


@pytest.fixture(autouse=True)
def every_package(monkeypatch):
    monkeypatch.setattr(needed, "_PACKAGES", {})


def kinds(*lines):
    """Config key -> schema of the loggers that a command line chooses."""
    return {where: type(section) for where, section in list_loggers(check_arguments(lines).config.logger).items()}


def problems(*lines):
    with pytest.raises(ConfigError) as caught:
        check_arguments(lines)
    return {problem.where: problem for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("wandb", {"logger": LoggerConfig}),
        ("none", {}),
        ("tensorboard", {"logger.tensorboard": NamedLoggerConfig}),
        ("csv", {"logger.csv": NamedLoggerConfig}),
        ("mlflow", {"logger.mlflow": MlflowLoggerConfig}),
        ("[wandb,tensorboard]", {"logger": LoggerConfig, "logger.tensorboard": NamedLoggerConfig}),
        ("[csv,tensorboard]", {"logger.csv": NamedLoggerConfig, "logger.tensorboard": NamedLoggerConfig}),
        ("[tensorboard,wandb]", {"logger": LoggerConfig, "logger.tensorboard": NamedLoggerConfig}),
    ],
)
def test_choices(choice, expected):
    assert kinds(f"logger={choice}") == expected


def test_keys_of_each_stand_at_their_place():
    config = check_arguments(
        ["logger=[wandb,mlflow]", "logger.mode=disabled", "logger.mlflow.experiment=2025_11"]
    ).config
    section = to_dict(config.logger)
    assert list(section) == [*W_AND_B, "mlflow"]
    assert (section["mode"], section["mlflow"]["experiment"]) == ("disabled", "2025_11")


def test_a_saved_section_is_the_section_again(tmp_path):
    """config.yaml holds the section as it was; `--from` reads it back."""
    import yaml

    from llama_exp.config.identity import to_record

    config = check_arguments(["logger=[wandb,csv]", "logger.tags=[a]"]).config
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_record(config)))
    assert check_arguments(["--from", str(tmp_path)]).config.logger == config.logger


def test_an_experiment_may_choose_several(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /logger: [wandb, csv]\nlogger:\n  project: mine\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    config = check_arguments(["--config-dir", str(tmp_path), "experiment=mine"]).config
    assert config.logger["project"] == "mine" and "csv" in config.logger


def test_a_class_of_the_users_stands_beside_ours(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_logger.py").write_text(
        "class Own:\n    def __init__(self, path, folder, name, group, config): pass\n"
        "    def on_metrics(self, row): pass\n"
    )
    line = "+logger.own={_target_: own_logger.Own, path: a}"
    assert kinds(line, "trusted_modules=[own_logger]") == {"logger": LoggerConfig, "logger.own": dict}
    assert "logger.own._target_" in problems(line)
    wrong = problems("+logger.own={_target_: own_logger.Own, pth: a}", "trusted_modules=[own_logger]")
    assert "did you mean path" in wrong["logger.own.pth"].action


@pytest.mark.parametrize(
    ("lines", "where", "word"),
    [
        (["logger=wnadb"], "logger", "did you mean wandb?"),
        (["logger=[wandb,nothing]"], "logger", "choices: csv, mlflow, none, tensorboard, wandb"),
        (["logger=[wnadb,nothing]"], "logger", "choices: csv, mlflow, none, tensorboard, wandb"),
        (["logger=[]"], "logger", "logger=none switches it off"),
        (["~logger"], "logger", "logger=none switches it off"),
        (["logger.mod=online"], "logger.mod", "did you mean logger.mode?"),
        (["logger=mlflow", "logger.mlflow.experimnt=x"], "logger.mlflow.experimnt", "logger.mlflow.experiment?"),
        (["logger=tensorboard", "logger.mode=online"], "logger.mode", "logger=[wandb,...]"),
        (["logger=csv", "+logger.mode=online"], "logger.mode", "logger=[wandb,...]"),
        (["logger=mlflow", "logger.mlflow.experiment=''"], "logger.mlflow.experiment", "at least one entry"),
        (["logger=csv", "+logger.csv.path=x"], "logger.csv.path", "keys here: _target_"),
        (["+logger.csv={_target_: llama_exp.logger.CsvLoger}"], "logger.csv._target_", "CsvLogger"),
    ],
)
def test_mistakes(lines, where, word):
    assert word in problems(*lines)[where].action


def test_a_package_that_is_not_there_is_told_before_the_run(monkeypatch):
    monkeypatch.setattr(needed, "_PACKAGES", {"llama_exp.logger.CsvLogger": ("no_such_package", "llama_exp[csv]")})
    problem = problems("logger=[wandb,csv]")["logger.csv"]
    assert problem.what == "no_such_package is not installed" and "pip install 'llama_exp[csv]'" in problem.action


def test_a_variable_is_checked_where_it_counts(monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "team/project")
    assert "logger.project=" in problems()["WANDB_PROJECT"].action
    assert kinds("logger.project=mine") == {"logger": LoggerConfig}
    assert kinds("logger=none") == {}


def test_names_are_those_of_conf():
    assert name_of("llama_exp.logger.TensorBoardLogger") == "tensorboard"
