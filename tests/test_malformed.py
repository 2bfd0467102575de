"""Whole commands on models that are damaged or made to do harm: the exit code, the message, and nothing left behind.

What single files may hold is tested beside their readers (tests/formats, tests/tokenizer, tests/preset);
docs/reliability.md lists all of it.
"""

import io
import json
import os
import pickle
import re
import resource
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import small_models
from gguf_writer import gguf_bytes, llama_metadata, llama_tensors
from promptness import within
from small_tokenizers import sentence_piece_model
from tiny_configs import random_arrays

from llama_exp import cli
from llama_exp.errors import InputError, LlamaExpError
from llama_exp.formats import open_adapter, open_checkpoint, read_architecture
from llama_exp.preset import resolve
from llama_exp.tokenizer import load
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

ROOT = Path(__file__).resolve().parents[1]


def snapshot(folder):
    """Every name below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_message(text):
    """One problem: what and where, what was found, what to do; short, and without a traceback."""
    assert "Traceback" not in text
    lines = text.rstrip().splitlines()
    assert 3 <= len(lines) <= 6, text
    assert [line[:9] for line in lines if line.startswith("  ")][:2] == ["  found: ", "  fix:   "], text


# --- convert: every kind of damage ends in exit 3, with nothing at the target


def edit(name, **changes):
    def change(folder):
        document = json.loads((folder / name).read_text())
        target = document["config"] if "registered_name" in document else document
        target.update(changes)
        (folder / name).write_text(json.dumps(document))

    return change


def cut(name):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 1)


def remove(name):
    return lambda folder: (folder / name).unlink()


def into_pipe(name):
    def change(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def not_finite(folder):
    with h5py.File(folder / "model.weights.h5", "a") as file:
        file["layers/llama_layer_norm/vars/0"][0] = np.nan


def another_class(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("keras_hub>Llama3Backbone", "keras_hub>GemmaBackbone"))


DAMAGED = {
    "no config": ("keras_hub", remove("config.json"), "config.json"),
    "no weights": ("keras_hub", remove("model.weights.h5"), "neither model.weights.h5 nor"),
    "config cut": ("keras_hub", cut("config.json"), "line "),
    "huge": ("keras_hub", edit("config.json", hidden_dim=10**9), "hidden_dim=1000000000"),
    "text for a number": ("keras_hub", edit("config.json", num_layers="2"), "'2'"),
    "weights cut": ("keras_hub", cut("model.weights.h5"), "cannot be read"),
    "another class": ("keras_hub", another_class, "GemmaBackbone"),
    "pipe": ("keras_hub", into_pipe("model.weights.h5"), "not an ordinary file"),
    "not finite": ("keras_hub", not_finite, "llama_layer_norm/vars/0"),
    "half a tokenizer": ("keras_hub", remove("assets/tokenizer/merges.txt"), "merges.txt"),
    "safetensors cut": ("hf", cut("model.safetensors"), "truncated"),
    "fewer layers": ("hf", edit("config.json", num_hidden_layers=1), "the file has 2 layers, the configuration 1"),
    "biases": ("hf", edit("config.json", attention_bias=True), "attention_bias=True"),
    "another rope": ("hf", edit("config.json", rope_scaling={"type": "dynamic", "factor": 2.0}), "dynamic"),
    "tokenizer cut": ("hf", cut("tokenizer.json"), "tokenizer.json"),
    "gguf cut": ("gguf", cut("model.gguf"), "ends behind the end"),
}


def make(form, folder):
    """A model of a format; returns what a command is given."""
    if form != "gguf":
        small_models.make(folder, form)
        return folder
    folder.mkdir()
    config = small_models.config()
    content = gguf_bytes(llama_metadata(config), llama_tensors(config, random_arrays(config)))
    (folder / "model.gguf").write_bytes(content)
    return folder / "model.gguf"


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_model_is_not_converted(tmp_path, capsys, name):
    form, damage, expected = DAMAGED[name]
    source = make(form, tmp_path / "model")
    damage(tmp_path / "model")
    before = snapshot(tmp_path)
    other = "hf" if form == "keras_hub" else "keras_hub"
    with within(2), pytest.raises(SystemExit) as stop:
        cli.main(["convert", "--from", str(source), "--to", str(tmp_path / "new"), "--format", other])
    assert stop.value.code == 3
    text = capsys.readouterr().err
    assert expected in text
    assert_message(text)
    assert snapshot(tmp_path) == before


# --- archives (S04) and other files that could unpack or run (S09, S11)


def tar_of(*members, data=b""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(data) if not changes else 0
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(*members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def link(target, kind=tarfile.SYMTYPE):
    return {"type": kind, "linkname": target}


ARCHIVES = {
    "parent.tar": lambda: tar_of(("../canary", {}), data=b"x"),
    "absolute.tar": lambda: tar_of(("/tmp/llama_exp_canary", {}), data=b"x"),
    "symlink.tar": lambda: tar_of(("config.json", link("/etc/passwd"))),
    "hardlink.tar": lambda: tar_of(("config.json", link("../canary", tarfile.LNKTYPE))),
    "chain.tar": lambda: tar_of(("a", link("..")), ("a/b", link("..")), ("a/b/canary", {}), data=b"x"),
    "device.tar": lambda: tar_of(("config.json", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5})),
    "pipe.tar": lambda: tar_of(("config.json", {"type": tarfile.FIFOTYPE})),
    "setuid.tar": lambda: tar_of(("run", {"mode": 0o4755 | stat.S_ISUID})),
    "case.tar": lambda: tar_of(("config.json", {}), ("Config.json", {}), data=b"{}"),
    "members.zip": lambda: zip_of(*((f"{number}", b"") for number in range(5000))),
    "ratio.zip": lambda: zip_of(("config.json", bytes(1 << 24))),
    "name.tar": lambda: tar_of(("x" * 300, {}), data=b"x"),
    "nul.zip": lambda: zip_of(("config.json\0.txt", b"{}")),
    "parent.zip": lambda: zip_of(("../canary", b"x")),
}
DOORS = {"preset": resolve, "model": read_architecture, "adapter": lambda path: open_adapter(path, {}).__enter__()}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_refused_whole(tmp_path, monkeypatch, name, door):
    folder = tmp_path / "inner"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (tmp_path / "canary").write_text("untouched")
    path = folder / name
    path.write_bytes(ARCHIVES[name]())
    with pytest.raises(InputError) as raised:
        DOORS[door](str(path))
    (problem,) = raised.value.problems
    assert all((problem.what, problem.where, problem.found, problem.action))
    assert name in problem.where + problem.found
    if door == "preset":
        assert "archives are not unpacked" in problem.what
    assert os.listdir(folder) == [name] and (tmp_path / "canary").read_text() == "untouched"
    assert not os.path.exists("/tmp/llama_exp_canary")


class Trap:
    """Makes a folder called trapped when somebody unpickles it."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def pickled_array():
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


PICKLES = {
    "model.pkl": lambda: pickle.dumps(Trap()),
    "model.pt": lambda: zip_of(("archive/data.pkl", pickle.dumps(Trap()))),
    "optimizer.bin": lambda: pickle.dumps({"state": Trap()}, 2),
    "weights.npy": pickled_array,
    "weights.npz": lambda: zip_of(("a.npy", pickled_array())),
}


@pytest.mark.parametrize("name", PICKLES)
def test_nothing_is_ever_unpickled(tmp_path, monkeypatch, name):
    """Under its own name, and in the place of every file that is read."""
    monkeypatch.chdir(tmp_path)
    content = PICKLES[name]()
    (tmp_path / name).write_bytes(content)
    for door in DOORS.values():
        with pytest.raises(InputError):
            door(str(tmp_path / name))
    for form in ("keras_hub", "hf", "gguf"):
        model = make(form, tmp_path / form)
        files = [path for path in (tmp_path / form).rglob("*") if path.is_file()]
        for path in files:
            original = path.read_bytes()
            path.write_bytes(content)
            if path.name not in ("metadata.json", "special_tokens_map.json"):  # for people, and never read
                with pytest.raises(InputError):
                    read_whole(model)
            path.write_bytes(original)
    assert not (tmp_path / "trapped").exists()


def read_whole(path):
    with open_checkpoint(path) as checkpoint:
        for tensor in checkpoint.tensors.values():
            tensor.read(None)
    return load(path)


# --- memory (S09)


def in_little_memory(function, spare_bytes):
    """Exit code of a process that may take so much more memory than this one: 0 refused, 1 read, 2 too little memory.

    The libraries' threads and arenas do not matter: the child has this process' as they are.
    """
    child = os.fork()
    if child == 0:
        code = 9
        try:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + spare_bytes, resource.RLIM_INFINITY))
            function()
            code = 1
        except InputError:
            code = 0
        except MemoryError:
            code = 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def json_bomb(unit, num_bytes=15 << 20):
    """Few bytes of text for much memory: an empty list takes 3 and 64."""
    return b'{"weight_map": {"a": [' + unit * (num_bytes // len(unit)) + b"0]}}"


def safetensors_bomb():
    header = json_bomb(b"[],")
    return len(header).to_bytes(8, "little") + header


BOMBS = {
    "index of shards, lists": ("keras_hub", "model.weights.json", lambda: json_bomb(b"[],")),
    "index of shards, objects": ("hf", "model.safetensors.index.json", lambda: json_bomb(b'{"a":0},')),
    "header of safetensors": ("hf", "model.safetensors", safetensors_bomb),
    "tokenizer.json": ("hf", "tokenizer.json", lambda: json_bomb(b"[],", 60 << 20)),
    "tokenizer_config.json": ("hf", "tokenizer_config.json", lambda: json_bomb(b"[],")),
    "npz as weights": ("hf", "model.safetensors", lambda: zip_of(("a.npy", bytes(1 << 28)))),
    "zip as weights": ("keras_hub", "model.weights.h5", lambda: zip_of(("x.h5", bytes(1 << 28)))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_does_not_fill_the_memory(tmp_path, name):
    form, file, content = BOMBS[name]
    make(form, tmp_path / "model")
    (tmp_path / "model" / file).write_bytes(content())
    if file.endswith(".index.json"):
        (tmp_path / "model/model.safetensors").unlink()
    started = time.monotonic()
    assert in_little_memory(lambda: read_whole(tmp_path / "model"), 200 << 20) == 0
    assert time.monotonic() - started < 5


def test_the_limit_of_memory_would_show():
    assert in_little_memory(lambda: bytearray(256 << 20), 200 << 20) == 2
    assert in_little_memory(lambda: bytearray(100 << 20), 200 << 20) == 1


# --- any value at any place of the small files: a message or a model, never a traceback

VALUES = [None, True, -1, 2**70, 1e308, "", "/etc/passwd", [], ["x"], {}, {"a": 1}]


def places(document, place=()):
    """Every place in a JSON document; of long objects and lists only the first few."""
    yield place
    children = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(children)[:12] if isinstance(document, dict) else list(children)[:1]:
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from list(places(value, (*place, key)))[1:]


def replaced(document, place, value):
    if not place:
        return value
    copy = json.loads(json.dumps(document))
    node = copy
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    return copy


def models_with_sentence_piece(folder, form):
    tokenizer = SentencePieceTokenizer(sentence_piece_model(), small_models.TEMPLATE, {"eos_token_id": [2]})
    small_models.make(folder, form, tokenizer=tokenizer, vocabulary_size=tokenizer.vocabulary_size)


@pytest.mark.parametrize("form", ["keras_hub", "hf"])
@pytest.mark.parametrize("write", [small_models.make, models_with_sentence_piece])
def test_any_value_at_any_place_is_read_or_refused(tmp_path, form, write):
    folder = tmp_path / "model"
    write(folder, form)
    refused = 0
    for number, path in enumerate(sorted(folder.rglob("*.json"))):
        text = path.read_text()
        document = json.loads(text)
        for place_number, place in enumerate(places(document)):
            # Every place gets two of the values, and every value its turn.
            for value in (VALUES * 2)[(3 * place_number + number) % len(VALUES) :][:2]:
                path.write_text(json.dumps(replaced(document, place, value)))
                for read in (read_architecture, load):
                    try:
                        read(folder)
                    except LlamaExpError as error:
                        assert isinstance(error, InputError) and str(folder) in str(error)
                        refused += 1
        path.write_text(text)
    assert refused > 30


# --- train, from the outside


def train(folder, *arguments):
    """A run in a process of its own, which no framework is needed for: it ends before."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE": "os.mkdir:os.system"},
    )
    assert time.monotonic() - started < 20
    lines = done.stderr.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("  found:")) - 1
    return done.returncode, "\n".join(lines[first:])


@pytest.mark.process
def test_a_run_does_not_start_from_an_archive(tmp_path):
    (tmp_path / "preset.tar").write_bytes(ARCHIVES["parent.tar"]())
    code, text = train(tmp_path, "preset.source=preset.tar")
    assert code == 3 and "preset.source: archives are not unpacked" in text
    assert_message(text)
    assert not (tmp_path / "canary").exists() and not (tmp_path.parent / "canary").exists()


@pytest.mark.process
def test_a_run_names_the_nearest_preset(tmp_path):
    code, text = train(tmp_path, "preset.source=llama3_8b_enn")
    assert code == 3 and "did you mean llama3_8b_en?" in text
    assert_message(text)


@pytest.mark.process
def test_a_run_calls_nothing_that_an_override_names(tmp_path):
    code, text = train(tmp_path, "optimizer._target_=os.mkdir", "+optimizer.path=canary")
    assert code == 2 and "optimizer._target_: may not be imported" in text
    assert not (tmp_path / "canary").exists() and not (tmp_path / "outputs").exists()


@pytest.mark.process
def test_a_run_goes_on_from_data_only(tmp_path):
    """What Hydra would do with such a file: set variables, look for configs elsewhere, build a log handler."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"config_hash": "h", "starts": [{"time": "2026-01-01"}]}))
    hydra = {
        "job": {"env_set": {"CANARY": "1"}},
        "searchpath": ["file:///etc"],
        "job_logging": {"handlers": {"a": {"()": "os.mkdir", "path": "canary"}}},
    }
    (run / "config.yaml").write_text(json.dumps({"hydra": hydra, "model": {"_target_": "os.mkdir", "path": "canary"}}))
    before = snapshot(tmp_path)
    code, text = train(tmp_path, f"resume={run}")
    assert code == 3 and f"{run}/config.yaml: " in text and "fix:" in text
    assert snapshot(tmp_path) == before


# --- the list of all this


def test_every_test_that_the_documentation_names_exists():
    named = re.findall(r"`([a-z_/]+\.py)::([a-z_0-9]+)`", (ROOT / "docs/reliability.md").read_text())
    assert len(named) > 80
    assert [
        f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ] == []
