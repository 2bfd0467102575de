"""Checkpoints survive crashes, damage, full disks and copying, and never hold a NaN. No framework involved."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from llama_exp.errors import InputError, NumericalError, StorageError
from llama_exp.files.digest import size_and_digest
from llama_exp.files.process import Process
from llama_exp.trainer import Checkpoints, load
from llama_exp.trainer.manifest import MANIFEST, write_manifest
from llama_exp.trainer.tensor_file import read_tensors, write_tensors


def tensors(step=40):
    rng = np.random.default_rng(step)
    return {
        "trainable": {"a/kernel": rng.normal(size=(7, 5)).astype("float32")},
        "optimizer": {"iteration": np.int64(step), "m": rng.normal(size=(7, 5)).astype(ml_dtypes.bfloat16)},
    }


def checkpoints(folder, keep=2):
    return Checkpoints(folder / "checkpoints", keep=keep, config_hash="abc", facts={"threads": 2, "keras": "3"})


def filled(folder, steps=(20, 40), keep=2):
    ours = checkpoints(folder, keep)
    for step in steps:
        ours.save(step, tensors(step), {"step": step, "nested": {"x": [1, 2.5, None]}}, base_digest="base")
    return ours


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def equal(found, step):
    for group, arrays in tensors(step).items():
        for name, array in arrays.items():
            assert found.tensors[group][name].dtype == np.asarray(array).dtype
            np.testing.assert_array_equal(found.tensors[group][name], array)
    return True


def test_round_trip(tmp_path):
    found = filled(tmp_path).newest()
    assert equal(found, 40)
    assert (found.step, found.base_digest, found.config_hash) == (40, "base", "abc")
    assert found.state == {"step": 40, "nested": {"x": [1, 2.5, None]}}
    assert found.facts == {"threads": 2, "keras": "3"}
    assert names(tmp_path) == ["step-00000020", "step-00000040"]
    files = sorted(path.name for path in found.folder.iterdir())
    assert files == ["manifest.json", "optimizer.safetensors", "trainable.safetensors"]
    assert equal(load(found.folder), 40)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "int64", "uint32", "bool", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_tensor_file(tmp_path, dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2).astype(np.dtype(dtype))
    written = write_tensors(tmp_path / "x", {"b": array, "a/name": array.T})
    read = read_tensors(tmp_path / "x")
    assert written == size_and_digest(tmp_path / "x")
    assert read["b"].dtype == array.dtype and read["b"].shape == shape
    np.testing.assert_array_equal(read["b"], array)
    np.testing.assert_array_equal(read["a/name"], array.T)


def test_only_the_newest_are_kept(tmp_path):
    filled(tmp_path, steps=(10, 20, 30, 40, 50), keep=2)
    assert names(tmp_path) == ["step-00000040", "step-00000050"]


def test_damaged_ones_do_not_count_as_kept(tmp_path):
    filled(tmp_path, steps=(10, 20))
    (tmp_path / "checkpoints/step-00000020/manifest.json").write_text("{}")
    filled(tmp_path, steps=(30,))
    assert names(tmp_path) == ["step-00000010", "step-00000020", "step-00000030"]
    filled(tmp_path, steps=(40,))
    assert names(tmp_path) == ["step-00000030", "step-00000040"]


def test_nothing_there(tmp_path):
    assert checkpoints(tmp_path).newest() is None
    (tmp_path / "checkpoints").mkdir()
    assert checkpoints(tmp_path).newest() is None
    with pytest.raises(ValueError, match="keep_checkpoints=0"):
        checkpoints(tmp_path, keep=0)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data[: {"empty": 0, "half": len(data) // 2, "short": len(data) - 1}.get(how, len(data))]))


@pytest.mark.parametrize("how", ["flipped", "empty", "half", "short", "missing"])
@pytest.mark.parametrize("file", ["trainable.safetensors", "optimizer.safetensors", "manifest.json"])
def test_damage_falls_back(tmp_path, caplog, file, how):
    ours = filled(tmp_path)
    damage(tmp_path / "checkpoints/step-00000040" / file, how)
    with caplog.at_level(logging.WARNING):
        found = ours.newest()
    assert found.step == 20 and equal(found, 20)
    assert names(tmp_path) == ["step-00000020", "step-00000040.corrupt-1"]
    assert file in caplog.text and "corrupt-1" in caplog.text and "step 20" in caplog.text
    if how == "flipped" and file != "manifest.json":
        assert caplog.text.count("sha256") == 2


@pytest.mark.parametrize("text", ["[]", "null", "[" * 100_000, '{"sha256": 1}', '{"files": []}'])
def test_a_manifest_of_another_form_is_no_checkpoint(tmp_path, text):
    filled(tmp_path, steps=(40,))
    path = tmp_path / "checkpoints/step-00000040/manifest.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no valid checkpoint"):
        load(path.parent)


def test_every_flipped_bit_of_the_manifest_is_noticed(tmp_path):
    filled(tmp_path, steps=(40,))
    path = tmp_path / "checkpoints/step-00000040/manifest.json"
    good = path.read_bytes()
    harmless = 0
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        try:
            found = load(path.parent)
        except InputError:
            continue
        harmless += 1  # white space between entries
        assert equal(found, 40) and found.state["step"] == 40
    assert harmless < len(good) // 4


def test_all_damaged_is_an_error_every_time(tmp_path):
    ours = filled(tmp_path)
    for step in (20, 40):
        damage(tmp_path / f"checkpoints/step-000000{step}/optimizer.safetensors", "half")
    for _ in range(2):
        with pytest.raises(InputError, match="resume=none") as error:
            ours.newest()
        assert "step-00000020" in str(error.value) and "step-00000040" in str(error.value)


def test_explicit_folder_that_is_missing_lists_the_others(tmp_path):
    filled(tmp_path)
    with pytest.raises(InputError, match="step-00000020, step-00000040"):
        load(tmp_path / "checkpoints/step-00000030")


def test_leftovers_are_ignored_and_only_ours_are_removed(tmp_path):
    ours = filled(tmp_path, steps=(20,))
    for name in ("step-00000099.tmp-0123abcd", "step-00000020.corrupt-1", "step-00000098", "mine.tmp-0123abcd"):
        (tmp_path / "checkpoints" / name).mkdir()
    shutil.rmtree(tmp_path / "checkpoints/step-00000098")
    assert ours.newest().step == 20
    ours.save(40, tensors(40), {}, base_digest="base")
    assert names(tmp_path) == ["mine.tmp-0123abcd", "step-00000020", "step-00000020.corrupt-1", "step-00000040"]


def test_moved_copied_and_touched(tmp_path):
    filled(tmp_path)
    os.utime(tmp_path / "checkpoints/step-00000020", (2**31, 2**31))
    os.utime(tmp_path / "checkpoints/step-00000040", (0, 0))
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "elsewhere/checkpoints")
    assert checkpoints(tmp_path / "elsewhere").newest().step == 40


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_non_finite_state_is_refused_at_save(tmp_path, value, dtype):
    ours = filled(tmp_path)
    bad = tensors(60)
    bad["optimizer"]["m"] = np.array([1, value], dtype=np.dtype(dtype))
    with pytest.raises(NumericalError, match="optimizer variable m .*step 60(.|\n)*step 40"):
        ours.save(60, bad, {}, base_digest="base")
    assert names(tmp_path) == ["step-00000020", "step-00000040"]


def resealed(folder, **changes):
    """Writes a manifest that is consistent with the files as they are now."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    del manifest["sha256"]
    manifest["files"] = {name: size_and_digest(folder / name) for name in manifest["files"]}
    (folder / MANIFEST).unlink()
    write_manifest(folder, manifest)


def test_non_finite_state_is_refused_at_load(tmp_path, caplog):
    ours = filled(tmp_path)
    folder = tmp_path / "checkpoints/step-00000040"
    (folder / "trainable.safetensors").unlink()
    write_tensors(folder / "trainable.safetensors", {"a/kernel": np.full((7, 5), np.nan, "float32")})
    resealed(folder)
    assert ours.newest().step == 20
    assert "a/kernel is not finite" in caplog.text


def test_a_newer_format_is_refused_and_left_alone(tmp_path):
    ours = filled(tmp_path)
    resealed(tmp_path / "checkpoints/step-00000040", schema=99)
    with pytest.raises(InputError, match="schema 99"):
        ours.newest()
    assert names(tmp_path) == ["step-00000020", "step-00000040"]


@pytest.mark.parametrize("call", ["mkdir", "write", "fsync", "rename"])
def test_a_full_disk_leaves_the_old_ones(tmp_path, monkeypatch, call):
    ours = filled(tmp_path)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StorageError, match="No space left.*bytes needed.*free"):
            ours.save(60, tensors(60), {}, base_digest="base")
    assert names(tmp_path) == ["step-00000020", "step-00000040"]
    ours.save(60, tensors(60), {}, base_digest="base")
    assert ours.newest().step == 60


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(StorageError, match="could not be written"):
        checkpoints(tmp_path).save(1, tensors(1), {}, base_digest="base")


CRASHES = [("kill", 1, 60), ("kill", 2, 60), ("power", 1, 60), ("power", 2, 60), ("power", 2, 40)]


@pytest.mark.process
@pytest.mark.parametrize(("mode", "keep", "step"), CRASHES)
def test_crash_at_every_call_of_a_save(tmp_path, mode, keep, step):
    program = Path(__file__).with_name("crash_at_every_call.py")
    places = os.pathsep.join(map(str, (program.parents[2], program.parents[1])))
    environment = os.environ | {"PYTHONPATH": places}
    result = subprocess.run(
        [sys.executable, program, tmp_path, mode, str(keep), str(step)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert int(result.stdout) > 20


# --- one process writes


def of_the_second(folder):
    return Checkpoints(folder / "checkpoints", keep=1, config_hash="abc", facts={}, process=Process(rank=1, size=2))


def test_who_is_not_the_writer_saves_nothing_but_checks_the_same(tmp_path):
    assert of_the_second(tmp_path).save(60, tensors(60), {}, base_digest="base").name == "step-00000060"
    assert list(tmp_path.iterdir()) == []
    filled(tmp_path)
    of_the_second(tmp_path).save(60, tensors(60), {}, base_digest="base")
    assert names(tmp_path) == ["step-00000020", "step-00000040"]  # and removes none beyond `keep`
    bad = {"trainable": {"a": np.array([np.nan], "float32")}}
    with pytest.raises(NumericalError, match="step 40"):
        of_the_second(tmp_path).save(60, bad, {}, base_digest="base")


def test_who_is_not_the_writer_leaves_damaged_ones_where_they_are(tmp_path):
    ours = filled(tmp_path)
    damage(tmp_path / "checkpoints/step-00000040/optimizer.safetensors", "half")
    assert of_the_second(tmp_path).newest().step == 20
    assert names(tmp_path) == ["step-00000020", "step-00000040"]
    damage(tmp_path / "checkpoints/step-00000020/optimizer.safetensors", "half")
    with pytest.raises(InputError, match="no checkpoint is valid"):
        of_the_second(tmp_path).newest()
    assert names(tmp_path) == ["step-00000020", "step-00000040"]
    with pytest.raises(InputError, match="no checkpoint is valid"):
        ours.newest()
    assert names(tmp_path) == ["step-00000020.corrupt-1", "step-00000040.corrupt-1"]


def test_a_step_that_is_saved_again_takes_the_place_of_the_old_one(tmp_path):
    ours = filled(tmp_path)
    ours.save(40, tensors(41), {"again": True}, base_digest="base")
    found = ours.newest()
    assert found.step == 40 and found.state == {"again": True} and equal(found, 41)
    assert names(tmp_path) == ["step-00000020", "step-00000040"]
