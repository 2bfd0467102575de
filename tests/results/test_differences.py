"""What differs between two runs, and what of it can change a result."""

import pytest
from recorded_runs import SOURCES, make_recorded

from llama_exp.results import load_run
from llama_exp.results.differences import ABSENT, Effect, find_differences, find_effect
from llama_exp.results.state import read_state


@pytest.fixture
def compare(tmp_path):
    """The differences between a made-up run and a changed one."""

    def compared(**changes):
        one, other = tmp_path / "one", tmp_path / "other"
        states = [read_state(load_run(folder)) for folder in (make_recorded(one), make_recorded(other, **changes))]
        return find_differences(*states)

    return compared


def test_hosts_times_and_folders_are_no_difference(compare):
    record = {"host": "there", "working_folder": "/x", "starts": [{"time": "2027-01-01"}], "command": "x"}
    assert compare(record=record) == []


CASES = {
    "a value": ({"config": {"seed": 1}}, "config", "seed", "science"),
    "a number of an algorithm": (
        {"config": {"recipe": {"rows": {"version": 2}}}},
        "algorithms",
        "recipe.rows.version",
        "science",
    ),  # noqa: E501
    "the logger": ({"config": {"logger": {"mode": "online"}}}, "config", "logger.mode", "nothing"),
    "a place": ({"config": {"dataset": {"files": "b.txt"}}}, "config", "dataset.files", "nothing"),
    "data": (
        {"record": {"dataset": {"train": {"fingerprint": "0" * 64}}}},
        "data",
        "dataset.train.fingerprint",
        "science",
    ),  # noqa: E501
    "the tokenizer": ({"record": {"tokenizer": {"fingerprint": "0"}}}, "tokenizer", "tokenizer.fingerprint", "science"),
    "the preset": ({"record": {"preset": {"digest": "0"}}}, "preset", "preset.digest", "science"),
    "its place": ({"record": {"preset": {"path": "/y"}}}, "preset", "preset.path", "nothing"),
    "a computing package": ({"record": {"packages": {"numpy": "2.2"}}}, "versions", "numpy", "rounding"),
    "another package": ({"record": {"packages": {"rich": "15.0"}}}, "versions", "rich", "nothing"),
    "python": ({"record": {"python": "3.13.0"}}, "versions", "python", "nothing"),
    "a processor": ({"record": {"cpu": "B"}}, "machine", "cpu", "rounding"),
    "instructions": ({"record": {"instructions": ["avx2"]}}, "machine", "instructions", "rounding"),
    "cores": ({"record": {"cores": 64}}, "machine", "cores", "nothing"),
    "a variable": ({"record": {"environment": {"XLA_FLAGS": "--x"}}}, "machine", "XLA_FLAGS", "rounding"),
    "threads": ({"record": {"threads": 1}}, "runtime", "threads", "rounding"),
    "jit": ({"record": {"jit": False}}, "runtime", "jit", "rounding"),
    "code": ({"sources": SOURCES | {"models/norm.py": "2" * 16}}, "code", "models/norm.py", "science"),
    "code that only tells": (
        {"sources": SOURCES | {"console/live.py": "2" * 16}},
        "code",
        "console/live.py",
        "nothing",
    ),
    "a commit beside known sources": ({"record": {"git": {"commit": "b" * 40}}}, "code", "commit", "nothing"),
    "a commit without them": ({"record": {"git": {"commit": "b" * 40}}, "sources": None}, "code", "commit", "science"),
    "a patch without them": ({"patch": "+x", "sources": None}, "code", "uncommitted changes", "science"),
    "own classes": ({"record": {"own_modules": {"mine": "0"}}}, None, None, None),
}


@pytest.mark.parametrize("name", CASES)
def test_each_cause_has_its_name_and_its_effect(compare, name):
    changes, part, what, effect = CASES[name]
    found = compare(**changes)
    if part is None:  # only one of the runs recorded it
        assert found == []
        return
    assert [(entry.part, entry.name, entry.effect.name) for entry in found] == [(part, what, effect)]


def test_the_environment_of_threads_is_told_by_threads(compare):
    assert compare(record={"environment": {"TF_NUM_INTRAOP_THREADS": "1"}}) == []


def test_packages_are_compared_by_their_plain_names(compare):
    record = {"packages": {"PyYAML": None, "pyyaml": "6.0", "NumPy": None, "new_one": "1"}}
    (found,) = compare(record=record)
    assert (found.name, found.before, found.after) == ("new-one", ABSENT, "1")


def test_a_run_from_before_these_records_is_compared_by_what_it_has(compare):
    found = compare(record={"instructions": None, "jit": True}, sources=None)
    assert find_effect(found) in (Effect.nothing, Effect.rounding)


def test_the_effect_of_several_is_the_largest(compare):
    assert find_effect(compare(record={"threads": 1}, config={"seed": 1})) is Effect.science
    assert find_effect([]) is Effect.nothing
