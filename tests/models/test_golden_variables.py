"""The variables of a tiny model, plain, with LoRA and with DoRA, in floats and integers, are those of golden files."""

import golden_dumps
import pytest


@pytest.mark.parametrize("name", golden_dumps.VARIABLES)
def test_variables_are_those_of_the_golden_file(name):
    """To mean a change: python tests/renew_goldens.py, and a line in CHANGELOG.md."""
    assert golden_dumps.variables_text(name) == golden_dumps.path_of(name).read_text()
