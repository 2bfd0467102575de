"""Plain text files: what a document is, encodings, patterns."""

import logging
import os
import subprocess
import sys

import pytest

from llama_exp.dataset import TextFiles
from llama_exp.errors import InputError

TEXT = "one\ntwo\n\n \nthree\n\n\nfour\nfive\nsix"


def opened(tmp_path, *names, **options):
    defaults = {"document": "paragraph", "encoding_errors": "strict", "sequence_length": 64, "packing": "concat"}
    defaults |= {"overlong": "split", "validation_fraction": 0.5}
    dataset = TextFiles(files=[str(tmp_path / name) for name in names], **defaults | options)
    dataset.open(tmp_path / "cache")
    return dataset


def found(dataset):
    """Text and source of each document, its parts joined."""
    documents = []
    for example in dataset.generate():
        if example["part"] in ("", "first"):
            documents.append((example["text"], example["source"]))
        else:
            text, source = documents.pop()
            documents.append((text + example["text"], source))
    return documents


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("file", [(TEXT, 1)]),
        ("paragraph", [("one\ntwo", 1), ("three", 5), ("four\nfive\nsix", 8)]),
        ("line", [("one", 1), ("two", 2), ("three", 5), ("four", 8), ("five", 9), ("six", 10)]),
    ],
)
def test_documents(tmp_path, document, expected):
    (tmp_path / "a.txt").write_text(TEXT)
    dataset = opened(tmp_path, "a.txt", document=document)
    assert found(dataset) == [(text, f"a.txt:{line}") for text, line in expected]


def test_byte_order_mark_line_ends_and_nul(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree \x00 zero\n\n\nend")
    assert [text for text, _ in found(opened(tmp_path, "a.txt"))] == ["one\ntwo\nthree \0 zero", "end"]


def test_a_long_line_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 10_000_000)
    ((text, _),) = found(opened(tmp_path, "a.txt", document="line"))
    assert len(text) == 10_000_000


def test_bytes_that_are_no_utf_8_are_named(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"fine\nbad \xff\xfe here\n")
    with pytest.raises(InputError) as caught:
        opened(tmp_path, "bad.txt")
    (problem,) = caught.value.problems
    assert problem.where == f"{tmp_path}/bad.txt:2"
    assert "0xff" in problem.found and "dataset.encoding_errors=replace" in problem.action


def test_or_replaced_and_counted(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "llama_exp")
    (tmp_path / "bad.txt").write_bytes("fine \ufffd\nbad \xff".encode("latin-1", "replace") + b"\xff\xfe here\n")
    dataset = opened(tmp_path, "bad.txt", encoding_errors="replace", document="file")
    assert "\ufffd" in found(dataset)[0][0]
    assert "3 stretches of bytes that are not UTF-8" in caplog.text


def test_patterns_go_into_folders_and_name_each_file_once(tmp_path):
    for name in ("b.txt", "sub/a.txt", "sub/deep/c.txt", "no.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    dataset = opened(tmp_path, "**/*.txt", "b.txt")
    assert [text for text, _ in found(dataset)] == ["b.txt", "sub/a.txt", "sub/deep/c.txt"]


def test_changed_files_are_read_again_and_unchanged_ones_are_not(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("first")
    first = opened(tmp_path, "a.txt")
    (tmp_path / "a.txt").write_text("second")
    second = opened(tmp_path, "a.txt")
    assert found(second) == [("second", "a.txt:1")]
    assert second.fingerprint != first.fingerprint
    (tmp_path / "a.txt").write_text("first")
    monkeypatch.setattr(TextFiles, "generate", lambda self: pytest.fail("generated again"))
    assert opened(tmp_path, "a.txt").fingerprint == first.fingerprint


@pytest.mark.parametrize("name", ["missing.txt", "*.nothing", "folder"])
def test_no_file_names_the_pattern(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as caught:
        opened(tmp_path, name)
    assert name in caught.value.problems[0].found
    assert caught.value.problems[0].where == "dataset.files"


def test_no_pattern_at_all(tmp_path):
    with pytest.raises(ValueError, match="dataset.files.*at least one entry"):
        opened(tmp_path)


FULL_DISK = """
import resource, sys, tensorflow_datasets, test_text_files, pathlib
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
test_text_files.opened(pathlib.Path(sys.argv[1]), "a.txt", document="line")
"""


@pytest.mark.process
def test_a_full_disk_is_a_storage_error(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"line {number} {hash(number * 7)}" for number in range(9000)))
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "StorageError: runtime.cache_dir: the cache cannot be written" in result.stderr


def test_files_without_text_are_an_empty_set(tmp_path):
    (tmp_path / "a.txt").write_text(" \n\n \n")
    with pytest.raises(InputError, match="the data set is empty"):
        opened(tmp_path, "a.txt")
    assert not list((tmp_path / "cache").rglob("*.array_record*"))


@pytest.mark.parametrize(("key", "value"), [("document", "page"), ("encoding_errors", "ignore")])
def test_impossible_choices_name_their_key(tmp_path, key, value):
    with pytest.raises(ValueError, match=f"dataset.{key}.*{key}='{value}'"):
        opened(tmp_path, "a.txt", **{key: value})
