"""Errors of Hydra and its plug-ins, told."""

import sys
import types

import pytest

from llama_exp.console.failures import explain_hydra
from llama_exp.errors import ConfigError


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
