"""The guard around Hydra's instantiate: what may be imported, which arguments a target has."""

import functools
import sys
import textwrap

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.config.instantiate import check_targets, instantiate
from llama_exp.config.schema import TextFilesConfig
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.limits.dataset import Packing

MODULE = """
    import os
    from os import system
    from pathlib import Path

    from llama_exp.errors import InputError, Problem

    class Base:
        def __init__(self, *, beta=0.9):
            self.beta = beta

    class Open(Base):
        def __init__(self, rate, **kwargs):
            super().__init__(**kwargs)
            self.rate = rate

    class Closed:
        def __init__(self, rate, inner=None, items=(), text=""):
            self.rate, self.inner, self.items, self.text = rate, inner, items, text

    class Greedy:
        def __init__(self, rate=1, **kwargs):
            if kwargs:
                raise ValueError(f"not recognized: {kwargs}")

    class Broken:
        def __init__(self):
            raise KeyError("a bug")

    class Missing:
        def __init__(self):
            raise InputError(Problem("gone", "there", "nothing", "look"))

    def function(rate):
        return rate * 2
"""


@pytest.fixture(autouse=True)
def lab(tmp_path, monkeypatch):
    """A module of the user's own, importable and named lab_module."""
    (tmp_path / "lab_module.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("lab_module", None)


def build(node, **kwargs):
    return instantiate(node, ["lab_module"], "optimizer", **kwargs)


def refused(node, trusted=("lab_module",), **kwargs):
    with pytest.raises(ConfigError) as caught:
        instantiate(node, list(trusted), "optimizer", **kwargs)
    return {problem.where: problem for problem in caught.value.problems}


def test_builds_with_data_and_objects():
    built = build({"_target_": "lab_module.Closed", "items": [1, {"a": 2}]}, rate=object)
    assert built.rate is object and built.items == [1, {"a": 2}] and type(built.items) is list
    assert type(built.items[1]) is dict


def test_objects_pass_unchanged_and_win_over_the_section():
    big = {"x": [object()]}
    assert build({"_target_": "lab_module.Closed", "rate": 1}, rate=big).rate is big


def test_nested_targets_are_built_first():
    node = {"_target_": "lab_module.Closed", "rate": 1, "inner": {"_target_": "lab_module.Base", "beta": 0.5}}
    assert build(node).inner.beta == 0.5


def test_sections_give_enum_members_as_their_value():
    section = TextFilesConfig(_target_="lab_module.Closed", packing=Packing.best_fit)
    fields = {"_target_": section._target_, "rate": section.packing}
    assert build(fields).rate == "best_fit"


def test_partial():
    made = build({"_target_": "lab_module.function", "_partial_": True}, rate=3)
    assert isinstance(made, functools.partial) and made() == 6


def test_values_are_not_interpolated_again(monkeypatch):
    monkeypatch.setenv("CANARY", "secret")
    for text in ("${oc.env:CANARY}", "cost ${x}", r"\${a}", "plain", "${"):
        assert build({"_target_": "lab_module.Closed", "rate": 1, "text": text}).text == text


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "builtins.exec",
        "functools.partial",
        "operator.attrgetter",
        "pdb.Pdb._getval",
        "importlib.import_module",
        "pickle.loads",
        "yaml.unsafe_load",
        "lab_module.Closed",
        "llama_exp_evil.x",
        "keras.utils.get_file",
        "keras.saving.load_model",
        "keras.config.enable_unsafe_deserialization",
        "llama_exp.config.check.command_line.Path",
        "llama_exp.cli.sys.exit",
        "llama_exp.files.json_file.json.loads",
        "llama_exp.files.writing.os.system",
        "os",
        "",
        "..",
        None,
        3,
        ["os.system"],
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_foreign_targets(target, nested, monkeypatch):
    monkeypatch.setenv("HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE", "os.system:os.remove")
    node = {"_target_": target}
    if nested:
        node = {
            "_target_": "llama_exp.errors.Problem",
            "what": [{"deep": node}],
            "where": "",
            "found": "",
            "action": "",
        }
    (problem,) = refused(node, trusted=()).values()
    assert "_target_" in problem.where and "configuration" in problem.what
    assert "lab_module" not in sys.modules


@pytest.mark.parametrize("name", ["Lambda", "TFSMLayer", "TorchModuleWrapper"])
def test_keras_classes_that_run_code(name):
    pytest.importorskip("keras")
    assert "may not be called" in refused({"_target_": f"keras.layers.{name}"})["optimizer._target_"].what


def test_keras_classes():
    keras = pytest.importorskip("keras")
    built = instantiate({"_target_": "keras.optimizers.Lion", "learning_rate": 0.5}, [], "optimizer")
    assert isinstance(built, keras.optimizers.Lion)
    found = refused({"_target_": "keras.optimizers.AdamW", "lerning_rate": 1})
    assert "learning_rate" in str(found["optimizer"]) or "learning_rate" in str(found["optimizer.lerning_rate"])


def test_unknown_and_missing_arguments_are_named_before_the_call():
    found = refused({"_target_": "lab_module.Closed", "rte": 1, "itms": []})
    assert "did you mean rate?" in found["optimizer.rte"].action
    assert "did you mean items?" in found["optimizer.itms"].action
    assert "rate" in found["optimizer"].found
    assert "optimizer.rate" in refused({"_target_": "lab_module.Closed"})["optimizer"].action
    assert "rate" not in build({"_target_": "lab_module.Closed"}, rate=1).text


def test_arguments_of_base_classes_count():
    assert build({"_target_": "lab_module.Open", "rate": 1, "beta": 0.1}).beta == 0.1
    assert "did you mean beta?" in refused({"_target_": "lab_module.Open", "rate": 1, "bta": 1})["optimizer.bta"].action


def test_refusals_of_the_target():
    found = refused({"_target_": "lab_module.Greedy", "rat": 1})["optimizer"]
    assert "not recognized" in found.what and "did you mean rate?" in found.action
    with pytest.raises(KeyError, match="a bug"):
        build({"_target_": "lab_module.Broken"})
    with pytest.raises(InputError, match="gone"):
        build({"_target_": "lab_module.Missing"})
    with pytest.raises(KeyError, match="a bug"):
        build({"_target_": "lab_module.Closed", "rate": {"_target_": "lab_module.Broken"}})
    with pytest.raises(InputError, match="gone"):
        build({"_target_": "lab_module.Closed", "rate": {"_target_": "lab_module.Missing"}})


def test_names_that_do_not_exist():
    assert "cannot be imported" in refused({"_target_": "lab_module.Nothing"})["optimizer._target_"].what
    assert "cannot be imported" in refused({"_target_": "lab_module.sub.X"})["optimizer._target_"].what
    found = refused({"_target_": "no_such_module.X"}, trusted=["no_such_module"])
    assert "PYTHONPATH" in found["optimizer._target_"].action


def test_trust_is_by_component():
    assert refused({"_target_": "lab_module.function", "rate": 1}, trusted=["lab_mod", "lab_module.functio"])
    assert instantiate({"_target_": "lab_module.function", "rate": 1}, ["lab_module.function"], "x") == 2
    assert instantiate({"_target_": "lab_module.function", "rate": 1}, ["lab_module."], "x") == 2


def test_check_targets_collects_from_all_sections():
    sections = {
        "optimizer": {"_target_": "lab_module.Closed", "rte": 1},
        "schedule": {"_target_": "lab_module.Closed"},
        "logger": {"_target_": "os.system"},
        "lora": {"rank": 1},
        "trainer.callbacks.mine": {"_target_": "lab_module.Base", "beta": 1, "x": {"_target_": "os.system"}},
    }
    with pytest.raises(ConfigError) as caught:
        check_targets(sections, ["lab_module"], {"optimizer": {"rate"}, "schedule": {"rate"}})
    assert {problem.where for problem in caught.value.problems} == {
        "optimizer.rte",
        "logger._target_",
        "trainer.callbacks.mine.x",
        "trainer.callbacks.mine._target_",
        "trainer.callbacks.mine.x._target_",
    }
    check_targets({"optimizer": {"_target_": "lab_module.Closed"}}, ["lab_module"], {"optimizer": {"rate"}})


def test_typed_error_survives_as_a_problem():
    assert isinstance(refused({"_target_": "os.system"})["optimizer._target_"], Problem)


def test_a_section_of_the_users_own_goes_from_the_command_line_to_the_object():
    line = [
        "trusted_modules=[lab_module]",
        "schedule._target_=lab_module.Open",
        "+schedule.rate=2",
        "+schedule.beta=0.3",
    ]
    with pytest.raises(ConfigError) as caught:
        check_arguments(line)
    assert {problem.where for problem in caught.value.problems} == {"schedule.warmup_steps", "schedule.final_fraction"}
    config = check_arguments([*line, "~schedule.warmup_steps", "~schedule.final_fraction"]).config
    assert build(config.schedule).beta == 0.3
