"""The console script `llama-exp`: from any folder, what `train.py` does in the repository, and what goes with it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import llama_exp
from llama_exp import signals

# Command -> the module whose `main(arguments)` does it, and what it does. A module is imported when it is asked for.
COMMANDS = {
    "train": (
        "llama_exp.train_command",
        "train or fine-tune; `train --help` lists parts, choices and values",
    ),
    "plan": ("llama_exp.commands.plan", "parameters, tokens, arithmetic and memory of what train would do"),
    "diff": ("llama_exp.commands.diff", "what differs between two runs, and from which step on"),
    "reproduce": ("llama_exp.commands.reproduce", "a run once more, and whether its results are the same"),
    "pack": ("llama_exp.commands.pack", "a run as one archive that reproduces elsewhere"),
    "explain": ("llama_exp.commands.explain", "which file and line, or argument, sets a key, and what it overrode"),
    "presets": ("llama_exp.commands.presets", "the pre-trained models that can be named, and which are here"),
    "convert": ("llama_exp.commands.convert", "a model into KerasHub's, Hugging Face's or llama.cpp's format"),
    "push": ("llama_exp.commands.push", "a model or an adapter to Hugging Face or Kaggle"),
    "merge": ("llama_exp.commands.merge", "a trained adapter into its model"),
    "evaluate": ("llama_exp.commands.evaluate", "losses on sets and scores on tasks, of a run or a model"),
    "generate": ("llama_exp.commands.generate", "continue a text"),
    "chat": ("llama_exp.commands.chat", "talk with an instruct model"),
    "experiment": ("llama_exp.commands.experiment", "a published claim in small, from one command to its verdict"),
    "report": ("llama_exp.commands.report", "what runs and sweeps have shown: ranking, intervals, comparisons, cost"),
    "inspect": ("llama_exp.commands.inspect", "what is in a run's weights: the rank of what training changed"),
    "sync": ("llama_exp.commands.sync", "a run, or a sweep's, to W&B, TensorBoard, a CSV table or MLflow"),
    "schema": ("llama_exp.commands.schema", "a JSON schema of the configuration, for editors"),
    "verify": ("llama_exp.commands.verify", "check a model's computation, layer by layer"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command (default: the process' own command line) and leaves the process with its exit code."""
    is_whole_process, arguments = arguments is None, sys.argv[1:] if arguments is None else list(arguments)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-sc", "--shell-completion"):  # what the script of `llama-exp train -sc install=bash` asks for
        if _completes_no_override():
            return
        command, rest = "train", arguments
    if command in ("-h", "--help"):
        print(usage())
    elif command == "--version":
        print(f"llama-exp {llama_exp.__version__}")
    elif command in ("train", "reproduce", "experiment") and is_whole_process:
        with signals.orderly():
            sys.exit(_run(command, rest))
    else:
        sys.exit(_run(command, rest))


def usage() -> str:
    """The help text."""
    lines = [f"  {name:<11}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: llama-exp <command> [options]",
            "",
            *lines,
            "",
            "  --help, --version; each command has its own --help",
            "",
            "examples:",
            "  llama-exp train model=llama3_2_1b dataset=python_qa lora.rank=8",
            "  llama-exp chat hf://HuggingFaceTB/SmolLM2-135M-Instruct",
            "  llama-exp merge outputs/default/2026-01-31_12-00-00_1a2b3c --to merged --format hf",
        ]
    )


def _completes_no_override() -> bool:
    """Completes the name of a command itself; of what follows the commands with overrides, Hydra gets the rest."""
    program, _, line = os.environ.get("COMP_LINE", "").partition(" ")
    command, is_complete, rest = line.lstrip().partition(" ")
    if not is_complete:
        print(" ".join(name for name in COMMANDS if name.startswith(command)))
        return True
    os.environ["COMP_LINE"] = f"{program} {rest}"  # Hydra would take the command for an override
    return command not in ("train", "plan", "explain")  # the shell completes names of files


def _run(command: str, arguments: list[str]) -> int:
    """The exit code of a command; what it raises is told in one place."""
    from llama_exp.console.failures import tell_failure
    from llama_exp.files.home import require_home
    from llama_exp.files.writing import restrict_umask

    restrict_umask()
    try:
        require_home()
        if command not in COMMANDS:
            raise _unknown(command)
        return importlib.import_module(COMMANDS[command][0]).main(arguments) or 0
    except (Exception, KeyboardInterrupt) as error:
        return tell_failure(error, debug=False)


def _unknown(command: str) -> Exception:
    from llama_exp.config.check.nearest import suggest
    from llama_exp.errors import ConfigError, Problem

    return ConfigError(Problem("no such command", "llama-exp", command, suggest(command, COMMANDS, "commands")))
