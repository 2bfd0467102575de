"""`from llama_exp import ...`: four names, imported when they are asked for."""

import subprocess
import sys

import pytest

import llama_exp


@pytest.mark.process
def test_importing_the_package_imports_nothing_else_of_it():
    code = "import sys, llama_exp; print([m for m in sys.modules if m.startswith('llama_exp.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_names_are_those_of_the_room():
    from llama_exp import notebook

    for name in llama_exp.__all__:
        assert getattr(llama_exp, name) is getattr(notebook, name)
        assert name in dir(llama_exp)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        llama_exp.trian  # noqa: B018


def test_train_is_the_function_whatever_was_imported_before():
    """A module of this name would take its place as soon as anything imports it."""
    from llama_exp import train, train_command

    assert callable(train) and train is llama_exp.train
    assert callable(train_command.main) and callable(train_command.job)
