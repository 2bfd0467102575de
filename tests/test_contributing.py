"""CONTRIBUTING.md names files and markers that exist."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PLACES = ("llama_exp/", "conf/", "tests/", "docs/")
QUOTED = sorted({name for name in re.findall(r"`([^`\n]+)`", TEXT) if name.startswith(PLACES)})
PATHS = [name for name in QUOTED if "<" not in name and "*" not in name]


def test_it_names_files():
    assert len(PATHS) > 20


@pytest.mark.parametrize("name", PATHS)
def test_each_file_is_there(name):
    assert (ROOT / name).exists()


def test_each_marker_has_its_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    markers = {line.partition(":")[0] for line in project["tool"]["pytest"]["ini_options"]["markers"]}
    assert markers - {"neutral"} <= set(re.findall(r"`pytest -m (\w+)`", TEXT))
