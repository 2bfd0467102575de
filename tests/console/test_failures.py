"""The table of a sweep's failed jobs, and errors of Hydra and its plug-ins."""

import sys
import types

import pytest

from llama_exp.console.failures import Failures, explain_hydra
from llama_exp.errors import ConfigError, InputError


def test_the_table_says_once_what_all_jobs_have(tmp_path, capsys):
    failures = Failures(tmp_path, ("trainer.max_steps=20", "name=x"))
    for number, seed in ((0, 1), (2, 3)):
        overrides = [f"seed={seed}", "trainer.max_steps=20", "name=x"]
        failures.add(number, overrides, InputError.about("file", "is gone", "nothing"), 3)
    assert failures.show() == 2
    told = capsys.readouterr().err
    assert told.count("trainer.max_steps=20") == 1 and "all with trainer.max_steps=20 name=x" in told
    assert "seed=1" in told and "seed=3" in told
    assert failures.read()[0]["overrides"] == ["seed=1", "trainer.max_steps=20", "name=x"], "the record is whole"


def raised_in(module, error):
    """`error`, raised by a function of a module of that name."""
    made = types.ModuleType(module)
    exec("def fail(error):\n    raise error\n", made.__dict__)
    with pytest.raises(type(error)) as caught:
        made.fail(error)
    return caught.value


@pytest.mark.parametrize("error", [ValueError("no such sampler"), KeyError("direction"), TypeError()])
def test_an_error_of_a_plug_in_is_told(error):
    explained = explain_hydra(raised_in("hydra_plugins.some_sweeper", error))
    assert isinstance(explained, ConfigError) and explained.__cause__ is error


def test_an_error_of_ours_stays_a_bug():
    error = raised_in("llama_exp.somewhere", ValueError("a bug"))
    assert explain_hydra(error) is error
    assert "hydra_plugins" not in sys.modules or explain_hydra(KeyboardInterrupt())
