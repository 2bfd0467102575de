"""Digests of the files that a run is computed by."""

import sys

from llama_exp.run.sources import PACKAGE, digest_sources, list_own_modules, list_sources


def test_every_file_of_the_package_is_listed():
    listed = list_sources()
    assert listed.keys() == {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert "models/attention.py" in listed and all(len(digest) == 16 for digest in listed.values())


def test_one_changed_line_changes_one_file_and_the_whole(tmp_path):
    for package in ("one", "other"):
        (tmp_path / package / "below").mkdir(parents=True)
        (tmp_path / package / "a.py").write_text("x = 1\n")
        (tmp_path / package / "below" / "b.py").write_text("y = 1\n")
    (tmp_path / "other" / "below" / "b.py").write_text("y = 2\n")
    one, other = list_sources(tmp_path / "one"), list_sources(tmp_path / "other")
    assert {name for name in one if one[name] != other[name]} == {"below/b.py"}
    assert digest_sources(one) != digest_sources(other)
    assert digest_sources(one) == digest_sources(dict(reversed(one.items())))


def test_own_classes_have_the_digest_of_their_file(tmp_path, monkeypatch):
    (tmp_path / "own_reproducible_module.py").write_text("class A: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own_reproducible_module  # noqa: F401

    targets = ["own_reproducible_module.A", "llama_exp.dataset.Jsonl", "keras.optimizers.Adam", "absent.B", "sys.C"]
    found = list_own_modules(targets)
    assert list(found) == ["own_reproducible_module"] and len(found["own_reproducible_module"]) == 16
    del sys.modules["own_reproducible_module"]
