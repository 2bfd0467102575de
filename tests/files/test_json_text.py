"""Values as strict JSON: one form for each, none for what has none, no secrets."""

import datetime
import enum
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_exp.files.json_file import parse_json
from llama_exp.files.json_text import dump_json


class Colour(enum.Enum):
    red = "red"


def refuse_constants(name):
    raise ValueError(name)


def test_json_is_strict():
    value = {
        "nan": float("nan"),
        "infinities": (float("inf"), -np.inf),
        "numpy": [np.float32(0.5), np.int64(3), np.bool_(True), np.array(2.0)],
        "path": Path("/a/b"),
        "enum": Colour.red,
        "time": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "set": {2, 1},
        3: None,
    }
    assert json.loads(dump_json(value), parse_constant=refuse_constants) == {
        "nan": "NaN",
        "infinities": ["Infinity", "-Infinity"],
        "numpy": [0.5, 3, True, 2.0],
        "path": "/a/b",
        "enum": "red",
        "time": "2026-01-02T00:00:00+00:00",
        "set": [1, 2],
        "3": None,
    }


@given(st.text())
def test_json_of_any_text_is_one_ascii_line(text):
    line = dump_json({"name": text})
    assert line.isascii() and len(line.splitlines()) == 1


def test_json_refuses_what_it_has_no_form_for():
    with pytest.raises(TypeError, match="object"):
        dump_json({"a": object()})
    with pytest.raises(TypeError, match="ndarray"):
        dump_json(np.zeros(3))


def test_json_masks_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", 'quote"canary')
    assert json.loads(dump_json({"a": 'x quote"canary', "api_key": "short"})) == {"a": "x ***", "api_key": "***"}


def test_strict_readers_take_the_record_of_an_undecodable_path():
    path = Path(os.fsdecode(b"/runs/caf\xe9"))
    assert parse_json(Path("x"), dump_json({"folder": path}).encode()) == {"folder": "/runs/caf\\udce9"}
