"""Sources on this machine, and sources that cannot be meant."""

import os
import socket
import subprocess
import sys

import pytest
from promptness import within

from llama_exp.errors import ExitCode, InputError
from llama_exp.preset import PRESETS, Resolved, resolve


def fails(source):
    with within(1), pytest.raises(InputError) as raised:
        resolve(str(source))
    assert raised.value.exit_code == ExitCode.INPUT
    (problem,) = raised.value.problems
    assert problem.where == "preset.source" and problem.found == str(source)
    assert problem.what and problem.action
    return f"{problem.what}\n{problem.action}"


def test_a_folder_and_a_gguf_file_are_taken_as_they_stand(tmp_path, monkeypatch):
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "config.json").write_text("{}")
    (tmp_path / "model.GGUF").write_bytes(b"GGUF")
    folder = tmp_path / "preset"
    assert resolve(str(folder)) == Resolved(folder, str(folder), None)
    assert resolve(str(tmp_path / "model.GGUF")).path == tmp_path / "model.GGUF"
    monkeypatch.chdir(tmp_path)
    assert resolve("preset").origin == str(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/preset").path == folder


def test_links_to_them_are_fine(tmp_path):
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to("preset")
    assert resolve(str(tmp_path / "link")).path == tmp_path / "link"


def test_a_link_to_a_run_folder_leads_to_its_model(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    (tmp_path / "latest").symlink_to("run")
    assert resolve(str(tmp_path / "latest" / "model")).path == tmp_path / "latest" / "model"
    assert "did you mean" in fails(tmp_path / "latest")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("llama2_7ben", "did you mean llama2_7b_en?"),
        ("llama3_8b_enn", "did you mean llama3_8b_en?"),
        ("gs://bucket/model", "kaggle://, hf://"),
        ("kaggle://a/b", "kaggle://user/model/keras/variant"),
        ("kaggle://a/b/keras/c/d/e", "kaggle://user/model/keras/variant"),
        ("kaggle://a/b/keras/c/newest", "Invalid version number: newest"),
        ("kaggle://a/b/keras/c/0", "versions count from 1"),
        ("kaggle://a/b/nosuchframework/c", "not a Kaggle model handle"),
        ("kaggle://a/../keras/c/1", "a part is no name"),
        ("kaggle:///b/keras/c", "a part is no name"),
        ("hf://a", "hf://user/repo"),
        ("hf://a/b/c", "hf://user/repo"),
        ("hf://../b", "hf://user/repo"),
        ("hf://a/b@", "hf://user/repo"),
        ("hf://a/b@../../x", "hf://user/repo"),
        ("hf://a/b--c", "hf://user/repo"),
        ("no/such/folder", "no such folder or file"),
        ("nosuchmodel", "neither a built-in preset nor an existing folder or file"),
        ("nul\0byte", "neither a built-in preset"),
        ("x" * 5000, "cannot be reached"),
    ],
)
def test_a_source_that_cannot_be_meant(source, expected):
    assert expected in fails(source)


def test_folders_without_a_configuration_say_what_they_hold(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "it is empty" in fails(tmp_path / "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    assert "no config.json: it holds notes.txt" in fails(tmp_path / "other")
    (tmp_path / "other" / "preset").mkdir()
    (tmp_path / "other" / "preset" / "config.json").touch()
    assert f"did you mean {tmp_path / 'other' / 'preset'}?" in fails(tmp_path / "other")
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "model.gguf").touch()
    assert f"give one of them: {tmp_path / 'gguf' / 'model.gguf'}" in fails(tmp_path / "gguf")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.TGZ", "a.tar.zst", "a.7z"])
def test_archives_are_not_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    assert "archives are not unpacked" in fails(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "model.safetensors", "pytorch_model.bin"])
def test_other_files_are_no_presets(tmp_path, name):
    (tmp_path / name).touch()
    assert "this file is no preset" in fails(tmp_path / name)


def test_pipes_devices_sockets_and_loops_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    assert "pipe, device or socket" in fails(tmp_path / "pipe.gguf")
    assert "pipe, device or socket" in fails("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.gguf"))
        assert "pipe, device or socket" in fails(tmp_path / "s.gguf")
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic links" in fails(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "the link leads nowhere" in fails(tmp_path / "dangling")
    (tmp_path / "file").touch()
    assert "cannot be reached: Not a directory" in fails(tmp_path / "file" / "below")


@pytest.fixture
def unreadable(tmp_path):
    """A folder with a folder and a file that this process may not read; root becomes somebody else for the test."""
    is_root = os.geteuid() == 0
    modes = {folder: folder.stat().st_mode & 0o7777 for folder in (tmp_path, *tmp_path.parents)} if is_root else {}
    for folder, mode in modes.items():
        folder.chmod(mode | 0o055)
    (tmp_path / "folder").mkdir(mode=0)
    (tmp_path / "model.gguf").touch(mode=0)
    if is_root:
        os.setresuid(65534, 65534, 0)
    yield tmp_path
    if is_root:
        os.setresuid(0, 0, 0)
    for folder, mode in modes.items():
        folder.chmod(mode)


def test_what_may_not_be_read_says_so(unreadable):
    assert "cannot be read" in fails(unreadable / "folder")
    assert "may not be read" in fails(unreadable / "model.gguf")


def test_int8_presets_are_presets_like_others(monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    for name in ("llama2_7b_en", "llama3_8b_en_int8"):
        with pytest.raises(InputError) as raised:
            resolve(name, offline=True)
        assert PRESETS[name].handle.removeprefix("kaggle://") in str(raised.value) and "offline" in str(raised.value)


@pytest.mark.process
def test_no_framework_and_no_client_is_imported():
    code = (
        "import sys; from llama_exp import preset\n"
        "from llama_exp.errors import InputError\n"
        "try: preset.resolve('llama2_7ben')\n"
        "except InputError: pass\n"
        "names = ('keras', 'tensorflow', 'jax', 'kagglehub', 'huggingface_hub', 'requests', 'numpy')\n"
        "print([name for name in names if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
