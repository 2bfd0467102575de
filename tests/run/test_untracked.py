"""New source files as part of a patch."""

import hashlib
import subprocess

import pytest

from llama_exp.run import untracked
from llama_exp.run.untracked import make_patch

FILES = {
    "new.py": "one = 1\ntwo = 2\n",
    "no end.py": "x = 'ö'",
    "below/one line.yaml": "a: 1\n",
    "empty.py": "",
    "blank.py": "\n\n\n",
    "run.sh": "#!/bin/sh\n",
}


@pytest.fixture
def repository(tmp_path):
    for command in (
        ["init", "-q"],
        ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_git_makes_the_same_files_of_it(repository, tmp_path_factory):
    for name, text in FILES.items():
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(text)
    (repository / "run.sh").chmod(0o755)
    patch, left_out = make_patch(repository, FILES)
    assert left_out == {}
    clone = tmp_path_factory.mktemp("clone")
    (clone / "a.diff").write_text(patch)
    subprocess.run(["git", "init", "-q"], cwd=clone, check=True)
    subprocess.run(["git", "apply", "--index", "a.diff"], cwd=clone, check=True, capture_output=True)
    assert {name: (clone / name).read_text() for name in FILES} == FILES
    assert (clone / "run.sh").stat().st_mode & 0o100 and not (clone / "new.py").stat().st_mode & 0o100


def test_it_is_what_git_itself_would_write(repository):
    (repository / "new.py").write_text(FILES["new.py"])
    patch, _ = make_patch(repository, ["new.py"])
    subprocess.run(["git", "add", "-N", "."], cwd=repository, check=True)
    git = ["git", "diff", "--full-index", "--src-prefix=a/", "--dst-prefix=b/"]
    assert patch == subprocess.run(git, cwd=repository, check=True, capture_output=True, text=True).stdout


def test_data_and_secrets_are_left_alone(repository):
    for name in (".env", "data.jsonl", "weights.h5", "notes"):
        (repository / name).write_text("canary")
    (repository / "link.py").symlink_to("/etc/hostname")
    assert make_patch(repository, [".env", "data.jsonl", "weights.h5", "notes"]) == ("", {})
    assert make_patch(repository, ["link.py", "gone.py"]) == ("", {"link.py": None, "gone.py": None})


def test_what_no_patch_can_hold_has_a_digest(repository, monkeypatch):
    monkeypatch.setattr(untracked, "MAX_FILE_BYTES", 10)
    contents = {"large.py": b"x" * 11, "windows.py": b"a\r\n", "bytes.py": b"\xff"}
    for name, content in contents.items():
        (repository / name).write_bytes(content)
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert make_patch(repository, contents) == ("", expected)


def test_all_together_are_bounded(repository, monkeypatch):
    monkeypatch.setattr(untracked, "MAX_BYTES", 15)
    for name in ("a.py", "b.py"):
        (repository / name).write_text("x" * 10)
    patch, left_out = make_patch(repository, ["a.py", "b.py"])
    assert "+++ b/a.py" in patch and list(left_out) == ["b.py"]
