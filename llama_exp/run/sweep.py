"""The folder of a sweep: one of its own, also for two that start in the same second. Imports no framework."""

from __future__ import annotations

from collections.abc import Sequence

from llama_exp.config.check import Command, check_arguments
from llama_exp.files.writing import claim_folder


def check_and_claim(arguments: Sequence[str]) -> Command:
    """The checked command; the folder of a sweep that nobody named is made, for this process alone.

    Args:
        arguments: what follows the program's name.

    Raises:
        ConfigError: with every mistake that was found.
        StorageError: the folder cannot be made.
    """
    while True:
        command = check_arguments(arguments)
        if command.sweep_dir is None or not command.makes_sweep_dir or claim_folder(command.sweep_dir):
            return command
        # Another sweep of this second was quicker; the next check finds another name.
