"""Recorded paths on this machine."""

import pytest

from llama_exp.errors import ConfigError, InputError
from llama_exp.reproduction.places import Places


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to start in, beside the one where the run was started and one with data."""
    for name in ("here", "then", "data/below", "run/data/0"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def find(here, path, data=None, packed=()):
    places = Places(here / "run", dict(packed), str(here / "then"), data and here / data)
    return places.change({"dataset": {"files": [path], "document": "file"}})["dataset"]["files"]


def test_a_path_that_holds_here_stays_as_it_was_recorded(here):
    for place in ("here", "then"):
        (here / place / "a.txt").write_text("")
    assert find(here, "a.txt") == ["a.txt"]
    assert find(here, str(here / "then" / "a.txt")) == [str(here / "then" / "a.txt")]


def test_a_relative_path_holds_in_the_folder_of_the_run(here):
    (here / "then" / "a.txt").write_text("")
    assert find(here, "a.txt") == [str(here / "then" / "a.txt")]
    assert find(here, "*.txt") == [str(here / "then" / "*.txt")]


def test_a_folder_that_the_user_names_comes_first(here):
    for place in ("here", "data", "data/below"):
        (here / place / "a.txt").write_text("")
    assert find(here, "a.txt", "data") == [str(here / "data" / "a.txt")]
    assert find(here, "below/a.txt", "data") == [str(here / "data" / "below/a.txt")]
    assert find(here, "/gone/a.txt", "data") == [str(here / "data" / "a.txt")]


def test_what_the_archive_holds_comes_before_everything(here):
    (here / "here" / "a.txt").write_text("")
    packed = {"a.txt": ["data/0/a.txt"], "*.md": ["data/0/a.md", "data/1/b.md"]}
    assert find(here, "a.txt", packed=packed) == [str(here / "run/data/0/a.txt")]
    assert find(here, "*.md", packed=packed) == [str(here / "run/data/0/a.md"), str(here / "run/data/1/b.md")]


def test_what_is_nowhere_is_told_with_what_to_do(here):
    with pytest.raises(InputError, match=r"(?s)dataset.files: .*not on this machine.*gone.txt.*--data <folder>"):
        find(here, "gone.txt")


def test_other_values_stay(here):
    values = {"seed": 1, "preset": {"source": "hf://a/b"}, "tokenizer": {"file": None}, "dataset": "not a section"}
    assert Places(here, {}, None, None).change(values) == values


def test_a_text_stays_a_text(here):
    (here / "then" / "t.json").write_text("")
    places = Places(here, {}, str(here / "then"), None)
    assert places.change({"tokenizer": {"file": "t.json"}}) == {"tokenizer": {"file": str(here / "then" / "t.json")}}


def test_a_folder_of_data_exists(here):
    with pytest.raises(ConfigError, match="--data"):
        Places(here, {}, None, here / "gone")
