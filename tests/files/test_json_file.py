"""JSON files that must be refused, with the place of the mistake; and files that are not where or what they seem."""

import json
import os

import pytest
from promptness import within

from llama_exp.errors import InputError
from llama_exp.files.json_file import inside, open_regular, read_json


def rejected(function, *args):
    with within(1), pytest.raises(InputError) as raised:
        function(*args)
    (problem,) = raised.value.problems
    assert all((problem.what, problem.where, problem.found, problem.action))
    return problem


@pytest.mark.parametrize(
    "document",
    [{}, {"a": [1, -2.5e-3, True, None, {"b": "NaN"}]}, {"\U0001f600": "\u00e9"}, {"a": {"x": 1}, "b": {"x": 1}}],
)
def test_json_is_read(tmp_path, document):
    path = tmp_path / "x.json"
    for ensure_ascii in (True, False):  # with and without surrogate pairs
        path.write_text(json.dumps(document, ensure_ascii=ensure_ascii), encoding="utf-8")
        assert read_json(path) == document


MISTAKES = {
    "cut off": (b'{"a": 1', "line 1, column 8"),
    "empty": (b"", "line 1, column 1"),
    "no comma": (b'{\n "a": 1\n "b": 2}', "line 3, column 2"),
    "text after": (b"{} x", "line 1, column 4"),
    "list": (b"[1]", "line 1, column 1: list"),
    "number": (b"1", "line 1, column 1: int"),
    "NaN": (b'{"NaN": 1,\n "a": NaN}', "line 2, column 7"),
    "infinity": (b'{"a":\n -Infinity}', "line 2, column 2"),
    "overflow": (b'{"b": 1e5, "a": 1e999}', "line 1, column 17"),
    "many digits": (b'{"b": 1,\n "a": ' + b"9" * 5000 + b"}", "line 2, column 7: 999999999999999999999999999999..."),
    "a file of digits": (b'{"a": -' + b"9" * 1_000_000 + b"}", "line 1, column 7: -9999"),
    "a fraction of many digits": (b'{"a": ' + b"9" * 500_000 + b"." + b"9" * 500_000 + b"}", "line 1, column 7: 9999"),
    "NaN behind digits": (b'{"a": 0.' + b"9" * 1_000_000 + b', "b": NaN}', "line 1, column 1000016"),
    "NaN behind numbers": (b'{"a": [' + b"1234567890," * 90_000 + b"NaN]}", "line 1, column 990008"),
    "a small exponent before": (b'{"a": 9e-99999, "b": -1.5E+999}', "line 1, column 22: -1.5E+999"),
    "duplicate": (b'{"a": {"b": 1},\n "b": {"c": 1,\n  "c" : 2}}', "line 3, column 3"),
    "duplicate, escaped": (b'{"a": 1, "\\u0061": 2}', "line 1, column 10"),
    "byte order mark": (b"\xef\xbb\xbf{}", "line 1, column 1"),
    "two-byte text": ('{"a": 1}'.encode("utf-16"), "line 1, byte 0"),
    "not UTF-8": (b'{\n"a": "\xff"}', "line 2, byte 8"),
    "half a character": (b'{"a": "\\ud800"}', "surrogate"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_other_json_is_refused_with_its_place(tmp_path, name):
    data, place = MISTAKES[name]
    (tmp_path / "x.json").write_bytes(data)
    problem = rejected(read_json, tmp_path / "x.json")
    assert place in problem.found and problem.where == str(tmp_path / "x.json")


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    os.truncate(path, 100 << 30)  # a hole: nothing on the disk
    assert "too large" in rejected(read_json, path).what
    path.write_text(json.dumps({"a": "x" * 2000}))
    assert "limit 100" in rejected(read_json, path, 100).found
    assert len(read_json(path, 3000)["a"]) == 2000


def make_loop(path):
    path.symlink_to(path)


NOT_FILES = {
    "missing": (lambda path: None, "No such file"),
    "folder": (lambda path: path.mkdir(), "a folder"),
    "pipe": (os.mkfifo, "a pipe"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "circle of links": (make_loop, "symbolic links"),
}


@pytest.mark.parametrize("name", NOT_FILES)
def test_what_is_no_file_is_refused_at_once(tmp_path, name):
    make, found = NOT_FILES[name]
    make(tmp_path / "x.json")
    (tmp_path / "other").touch()
    problem = rejected(read_json, tmp_path / "x.json")
    assert found in problem.found and problem.where == str(tmp_path / "x.json")
    if "No such" in found:
        assert "other" in problem.found  # what is there instead
    assert "\0" in rejected(open_regular, tmp_path / "a\0b").where


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights for a moment")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    path.chmod(0)
    os.seteuid(65534)
    try:
        problem = rejected(read_json, path)
    finally:
        os.seteuid(0)
    assert "Permission denied" in problem.found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_text("canary")
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "..", "a\0b"])
def test_a_name_that_leads_out_is_refused(folder, name):
    problem = rejected(inside, folder, name)
    assert "leads out" in problem.what and "canary" not in str(problem)


def test_links_may_stay_in_the_folder(folder):
    (folder / "file").write_text("x")
    (folder / "link").symlink_to("file")
    assert inside(folder, "link") == folder / "link"
    assert inside(folder, "missing") == folder / "missing"
    (folder.parent / "alias").symlink_to(folder)
    assert inside(folder.parent / "alias", "link").read_text() == "x"


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "/dev/zero", "inner/secret"])
def test_links_may_not_leave_it(folder, target):
    (folder / "inner").symlink_to("..")
    (folder / "link").symlink_to(target)
    problem = rejected(inside, folder, "link")
    assert "a link leads out" in problem.what and problem.where == str(folder / "link")


def test_the_hugging_face_cache_links_into_its_blobs(tmp_path):
    folder = tmp_path / "models--a--b" / "snapshots" / "rev"
    blobs = tmp_path / "models--a--b" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abc").write_text("x")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "abc").write_text("another model's")
    (folder / "config.json").symlink_to("../../blobs/abc")
    (folder / "weights").symlink_to("../../../blobs/abc")
    assert inside(folder, "config.json").read_text() == "x"
    rejected(inside, folder, "weights")
