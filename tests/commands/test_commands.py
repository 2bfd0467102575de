"""The table of commands: each can be imported without a framework, explains itself, and fails in one form."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from llama_exp import cli
from llama_exp.commands import models
from llama_exp.errors import InputError, Problem

OWN = sorted(set(cli.COMMANDS) - {"train"})


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return stop.value.code


@pytest.mark.parametrize("command", OWN)
def test_help_explains_with_an_example(command, capsys):
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    assert f"usage: llama-exp {command}" in text and "examples:" in text
    assert text.count(f"llama-exp {command}") >= 3
    assert max(map(len, text.splitlines())) <= 120


def test_the_usage_names_every_command(capsys):
    cli.main(["--help"])
    text = capsys.readouterr().out
    for name, (_, line) in cli.COMMANDS.items():
        assert f"  {name} " in text and line in text


@pytest.mark.process
def test_no_command_imports_a_framework():
    modules = ", ".join(module for module, _ in cli.COMMANDS.values())
    code = f"import sys, {modules}; print([name for name in {('keras', 'tensorflow', 'jax', 'torch', 'wandb')} if name in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_command_has_a_neighbour(capsys):
    assert run("covnert", "--from", "x") == 2
    error = capsys.readouterr().err
    assert "no such command" in error and "did you mean convert" in error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError(Problem("what is wrong", "where", "found", "do this")), 3, "what is wrong"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyError("a bug"), 1, "Traceback"),
    ],
)
def test_every_failure_is_told_in_one_place(error, code, message, capsys, monkeypatch):
    from llama_exp.commands import convert

    def fail(arguments):
        raise error

    monkeypatch.setattr(convert, "main", fail)
    assert run("convert") == code
    assert message in capsys.readouterr().err


def test_a_tokenizer_of_another_model_is_refused():
    """Its last tokens have no embeddings; what stands there instead depends on the backend."""
    backbone, source = types.SimpleNamespace(vocabulary_size=300), types.SimpleNamespace(path=Path("model"))
    model = types.SimpleNamespace(backbone=backbone, tokenizer=types.SimpleNamespace(vocabulary_size=300))
    models.require_tokenizer(model, source)
    model.tokenizer.vocabulary_size = 301
    with pytest.raises(InputError, match="301 tokens, 300 embeddings"):
        models.require_tokenizer(model, source)
    model.tokenizer = None
    with pytest.raises(InputError, match="no tokenizer"):
        models.require_tokenizer(model, source)
