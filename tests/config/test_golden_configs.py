"""The resolved configs are those of the golden files, to the letter."""

import golden_dumps
import pytest

CHOICES = golden_dumps.config_choices()
RENEW = "if that is meant: python tests/renew_goldens.py, and a line in CHANGELOG.md"


@pytest.mark.parametrize("name", CHOICES)
def test_a_resolved_config_is_its_golden_file(name):
    assert golden_dumps.config_text(CHOICES[name]) == golden_dumps.path_of(name).read_text(), RENEW


@pytest.mark.parametrize("name", golden_dumps.EXPLAINED)
def test_an_explanation_is_its_golden_file(name):
    assert golden_dumps.explained_text(name) == golden_dumps.path_of(name).read_text(), RENEW


def test_forty_keys_are_explained_by_their_line():
    assert sum(len(keys.split()) for keys, _ in golden_dumps.EXPLAINED.values()) >= 40


def test_the_golden_files_are_those_of_the_choices():
    """One per experiment, one per pre-trained model, the default; none is left of what is gone."""
    found = {path.stem for path in golden_dumps.FOLDER.iterdir()}
    assert found == {*CHOICES, *golden_dumps.EXPLAINED, *golden_dumps.VARIABLES, golden_dumps.REPORT}, RENEW
    assert len(CHOICES) >= 12 and len(golden_dumps.VARIABLES) == 9
