"""A run as one archive: enough to do it again, nothing of whose machine it was."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml
from recorded_runs import make_recorded

from llama_exp import cli
from llama_exp.errors import InputError, StorageError
from llama_exp.reproduction.original import open_original
from llama_exp.reproduction.pack import pack
from llama_exp.results import load_run


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that trained on two files of a folder below the home."""
    home = tmp_path / "home" / "somebody"
    (home / "work" / "texts").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("a.txt", "b.txt"):
        (home / "work" / "texts" / name).write_text(name)
    (home / "own.json").write_text("{}")
    record = {"working_folder": str(home / "work"), "host": "secret-host", "starts": [{"host": "secret-host"}]}
    record["command"] = f"python train.py hydra.run.dir={home}/work/run"
    config = {"dataset": {"files": ["texts/*.txt"]}, "tokenizer": {"file": str(home / "own.json")}}
    patch = "diff --git a/x b/x\n"
    return load_run(
        make_recorded(home / "work" / "run", config=config, record=record, patch=patch, samples="# Samples\n")
    )


def contents(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read().decode() for member in tar}


def test_everything_that_tells_what_was_done_is_inside(run, tmp_path):
    pack(run, tmp_path / "x.tar.gz")
    expected = {"config.yaml", "run.json", "sources.json", "git.diff", "metrics.jsonl", "samples.md", "summary.json"}
    assert set(contents(tmp_path / "x.tar.gz")) == expected | {"README.md", "MANIFEST.json"}


def test_whose_machine_it_was_is_not_inside(run, tmp_path):
    pack(run, tmp_path / "x.tar.gz", data=True)
    text = "".join(contents(tmp_path / "x.tar.gz").values())
    assert "secret-host" not in text and "somebody" not in text and str(tmp_path) not in text
    record = json.loads(contents(tmp_path / "x.tar.gz")["run.json"])
    assert record["working_folder"] == "." and record["command"].endswith("hydra.run.dir=run")


def test_no_secret_is_inside(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "canary-0123456789")
    for name in ("samples.md", "git.diff"):
        (run.folder / name).write_text("canary-0123456789")
    pack(run, tmp_path / "x.tar.gz")
    assert "canary" not in "".join(contents(tmp_path / "x.tar.gz").values())


def test_the_same_run_makes_the_same_bytes(run, tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        pack(run, tmp_path / name / "run.tar.gz", data=True)
    assert (tmp_path / "x/run.tar.gz").read_bytes() == (tmp_path / "y/run.tar.gz").read_bytes()


def test_data_goes_in_under_the_recorded_path(run, tmp_path, monkeypatch):
    pack(run, tmp_path / "x.tar.gz", data=True)
    found = contents(tmp_path / "x.tar.gz")
    assert [found[f"data/{n}"] for n in ("0/a.txt", "1/b.txt", "2/own.json")] == ["a.txt", "b.txt", "{}"]
    monkeypatch.chdir(tmp_path)
    original = open_original(Path("x.tar.gz"))
    recorded = yaml.safe_load(found["config.yaml"])
    assert original.packed["texts/*.txt"] == ["data/0/a.txt", "data/1/b.txt"]
    assert recorded["tokenizer"]["file"] == "~/own.json" and original.packed["~/own.json"] == ["data/2/own.json"]
    assert (original.run.folder / "data/0/a.txt").read_text() == "a.txt"
    assert original.run.rows == run.rows and original.run.values["seed"] == 0


def test_the_adapter_goes_in_on_request(run, tmp_path):
    (run.folder / "adapter").mkdir()
    (run.folder / "adapter" / "adapter_config.json").write_text("{}")
    pack(run, tmp_path / "x.tar.gz", adapter=True)
    assert "adapter/adapter_config.json" in contents(tmp_path / "x.tar.gz")


def test_what_is_asked_for_and_not_there_is_told(run, tmp_path):
    with pytest.raises(InputError, match="no adapter"):
        pack(run, tmp_path / "x.tar.gz", adapter=True)
    (run.folder.parent / "texts" / "a.txt").unlink()
    (run.folder.parent / "texts" / "b.txt").unlink()
    with pytest.raises(InputError, match=r"(?s)data file is gone.*texts/\*.txt.*leave --data out"):
        pack(run, tmp_path / "x.tar.gz", data=True)
    assert not (tmp_path / "x.tar.gz").exists()


def test_large_data_is_refused_with_another_way(run, tmp_path, monkeypatch):
    monkeypatch.setattr("llama_exp.reproduction.pack.MAX_DATA_BYTES", 5)
    with pytest.raises(InputError, match=r"(?s)too large.*reproduce --data"):
        pack(run, tmp_path / "x.tar.gz", data=True)


def test_nothing_is_overwritten(run, tmp_path):
    (tmp_path / "x.tar.gz").write_text("mine")
    with pytest.raises(StorageError, match="there already"):
        pack(run, tmp_path / "x.tar.gz")
    assert (tmp_path / "x.tar.gz").read_text() == "mine"


def test_a_manifest_that_names_other_files_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pack(run, tmp_path / "x.tar.gz")
    found = contents(tmp_path / "x.tar.gz")
    manifest = json.loads(found.pop("MANIFEST.json")) | {"data": {"texts/*.txt": ["../../etc/passwd"]}}
    with tarfile.open(tmp_path / "y.tar.gz", "w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for name, text in {"MANIFEST.json": json.dumps(manifest), **found}.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    with pytest.raises(InputError, match="not inside"):
        open_original(Path("y.tar.gz"))


def test_the_command_says_what_is_inside(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["pack", str(run.folder)])
    assert stop.value.code == 0 and (tmp_path / "run.tar.gz").exists()
    assert "llama-exp reproduce run.tar.gz" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["gone"], 3, "holds no run"),
        (["{run}", "--to", "x.zip"], 2, "end it in .tar.gz"),
        (["{run}", "--adapter"], 3, "no adapter"),
        (["{run}", "--to", "gone/x.tar.gz/y.tar.gz"], 0, ""),
    ],
)
def test_bad_input(run, tmp_path, monkeypatch, capsys, arguments, code, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["pack", *(word.format(run=run.folder) for word in arguments)])
    assert stop.value.code == code and told in capsys.readouterr().err


def test_a_record_of_almost_nothing_is_packed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("name: None\n")
    (folder / "run.json").write_text('{"packages": [], "git": 3, "host": "secret"}')
    (folder / "summary.json").write_text('{"weights": "w", "validation": "NaN"}')
    pack(load_run(folder), tmp_path / "x.tar.gz")
    found = contents(tmp_path / "x.tar.gz")
    assert found["config.yaml"] == "name: None\n" and "secret" not in found["run.json"]
