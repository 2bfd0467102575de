"""KerasHub presets that are damaged or made to do harm: refused by name, with nothing read, filled or left hanging."""

import json
import os
import resource
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import audit
import h5py
import numpy as np
import pytest
from promptness import within
from tiny_configs import TINY_CONFIGS, as_tensors, random_arrays

from llama_exp.errors import InputError
from llama_exp.formats import open_checkpoint
from llama_exp.formats.keras_hub import checkpoint as keras_hub

CONFIG = TINY_CONFIGS["grouped_query"]
ROOT = Path(__file__).resolve().parents[2]
QUERY = "layers/llama_transformer_decoder/_self_attention_layer/_query_dense/vars/0"
SHAPE = (32, 4, 8)
CANARY = 12345.678


@pytest.fixture
def preset(tmp_path):
    return written(tmp_path / "preset")


def written(folder, max_shard_bytes=None):
    folder.mkdir()
    keras_hub.write(folder, CONFIG, as_tensors(random_arrays(CONFIG)), max_shard_bytes=max_shard_bytes)
    return folder


def read_all(folder):
    with open_checkpoint(folder) as checkpoint:
        return {path: tensor.read(None) for path, tensor in checkpoint.tensors.items()}


def rejected(folder):
    """The message; in no time, with all four parts, and without running anything."""
    audit.seen.clear()
    with within(2), pytest.raises(InputError) as raised:
        read_all(folder)
    assert audit.seen == []
    text = str(raised.value)
    assert str(folder) in text and str(CANARY) not in text
    for problem in raised.value.problems:
        assert all((problem.what, problem.where, problem.found, problem.action))
    return text


def replace(file, path, **dataset):
    if path in file:
        del file[path]
    file.create_dataset(path, **dataset)


def make_virtual(file):
    target = h5py.VirtualLayout(shape=SHAPE, dtype="f4")
    target[:] = h5py.VirtualSource("other.h5", "x", shape=SHAPE)
    del file[QUERY]
    file.create_virtual_dataset(QUERY, target)


def make_virtual_of_itself(file):
    target = h5py.VirtualLayout(shape=SHAPE, dtype="f4")
    target[:] = h5py.VirtualSource(".", "layers/reversible_embedding/vars/0", shape=SHAPE)
    del file[QUERY]
    file.create_virtual_dataset(QUERY, target)


def make_link(link):
    def change(file):
        del file[QUERY]
        file[QUERY] = link

    return change


def make_group_link(file):
    del file["layers/llama_layer_norm"]
    file["layers/llama_layer_norm"] = h5py.ExternalLink("other.h5", "/")


def make_cycle(file):
    file["layers/again"] = file["layers"]


def make_missing(file):
    del file[QUERY]


def make_deep(file):
    file.create_dataset("a/" * 50 + "b", data=[1.0])


def make_foreign_filter(file):
    del file[QUERY]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(SHAPE)
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # zstd, a plug-in
    space = h5py.h5s.create_simple(SHAPE)
    h5py.h5d.create(file.id, QUERY.encode(), h5py.h5t.IEEE_F32LE, space, properties)


HALF = np.zeros(SHAPE, "f4")
BROKEN_TENSORS = {
    "missing": (make_missing, f"{QUERY} (transformer_layer_0/self_attention/query/kernel)"),
    "unexpected": (lambda f: f.create_dataset("layers/extra/vars/0", data=[1.0]), "layers/extra/vars/0"),
    "shape": (lambda f: replace(f, QUERY, shape=(32, 8, 4), dtype="f4"), "shape (32, 8, 4) instead of (32, 4, 8)"),
    "scalar": (lambda f: replace(f, QUERY, data=1.0), "shape () instead of (32, 4, 8)"),
    "empty": (lambda f: replace(f, QUERY, data=h5py.Empty("f4")), "shape None instead of (32, 4, 8)"),
    "huge": (lambda f: replace(f, QUERY, shape=(10**6, 10**6), dtype="f4", chunks=(64, 64)), "instead of (32, 4, 8)"),
    "3.9 GiB of nothing": (lambda f: replace(f, QUERY, shape=(1046898278,), dtype="f4"), "instead of (32, 4, 8)"),
    "int8": (lambda f: replace(f, QUERY, data=np.ones(SHAPE, "i1")), "type int8 instead of a float type"),
    "text": (lambda f: replace(f, QUERY, shape=SHAPE, dtype="S4"), "instead of a float type"),
    "objects": (lambda f: replace(f, QUERY, shape=SHAPE, dtype=h5py.string_dtype()), "type object instead"),
    "complex": (lambda f: replace(f, QUERY, data=np.ones(SHAPE, "c8")), "type complex64 instead"),
    "two bytes": (lambda f: replace(f, QUERY, data=np.zeros(SHAPE, "V2")), "instead of a float type"),
    "virtual": (make_virtual, "values lie in another file"),
    "virtual, of itself": (make_virtual_of_itself, "values lie in another file"),
    "external": (
        lambda f: replace(f, QUERY, shape=SHAPE, dtype="f4", external=[("other.bin", 0, 4096)]),
        "values lie in another file",
    ),
    "external link": (make_link(h5py.ExternalLink("other.h5", "x")), "ExternalLink"),
    "external link of a group": (make_group_link, "ExternalLink"),
    "external link in the legacy layout": (
        lambda f: f.create_group("model_weights").__setitem__("dense", h5py.ExternalLink("other.h5", "/")),
        "ExternalLink",
    ),
    "soft link": (make_link(h5py.SoftLink("/layers/reversible_embedding/vars/0")), "SoftLink"),
    "dangling link": (make_link(h5py.SoftLink("/nowhere")), "SoftLink"),
    "cycle": (make_cycle, "not laid out like weights"),
    "deep": (make_deep, "not laid out like weights"),
    "no values": (lambda f: replace(f, QUERY, shape=SHAPE, dtype="f4"), "does not hold all of its values"),
    "no chunks": (lambda f: replace(f, QUERY, shape=SHAPE, dtype="f4", chunks=(8, 4, 8)), "does not hold all"),
    "chunks larger than the tensor": (
        lambda f: replace(f, QUERY, data=HALF, chunks=(1 << 10, 1 << 7, 1 << 7), maxshape=(None,) * 3),
        "larger than itself",
    ),
    "foreign filter": (make_foreign_filter, "HDF5 filters [32015]"),
    "NaN": (lambda f: replace(f, QUERY, data=np.full(SHAPE, np.nan, "f4")), f"{QUERY}: the tensor is not finite"),
    "infinity in chunks": (
        lambda f: replace(f, QUERY, data=np.full(SHAPE, -np.inf, "f4"), chunks=(8, 4, 8), compression="gzip"),
        f"{QUERY}: the tensor is not finite",
    ),
}


@pytest.mark.parametrize("name", BROKEN_TENSORS)
def test_a_broken_tensor_is_refused_by_name(preset, name):
    with h5py.File(preset / "other.h5", "w") as other:
        other["x"] = np.full(SHAPE, CANARY, "f4")
    (preset / "other.bin").write_bytes(np.full(SHAPE, CANARY, "f4").tobytes())
    change, expected = BROKEN_TENSORS[name]
    with h5py.File(preset / "model.weights.h5", "a") as file:
        change(file)
    assert expected in rejected(preset)


def test_a_bomb_of_packed_zeros_is_refused_before_it_is_unpacked(tmp_path):
    """A gigabyte in a megabyte, with the shape that its configuration asks for."""
    config = CONFIG | {"vocabulary_size": 1 << 18, "hidden_dim": 1 << 10, "num_layers": 1, "tie_word_embeddings": True}
    folder = tmp_path / "preset"
    folder.mkdir()
    with h5py.File(folder / "model.weights.h5", "w") as file:
        for path, tensor in keras_hub.keras_hub_weights.layout(config).items():
            shape = tensor.file_shape
            if np.prod(shape) < 1 << 24:
                file[path] = np.zeros(shape, "f4")
            else:
                chunk = (1 << 14, shape[1])
                made = file.create_dataset(path, shape=shape, dtype="f4", chunks=chunk, compression="gzip")
                packed = zlib.compress(np.zeros(chunk, "f4").tobytes(), 9)
                for first in range(0, shape[0], chunk[0]):
                    made.id.write_direct_chunk((first, 0), packed)
    document = keras_hub.config_document(config, "LlamaBackbone", "float32")
    (folder / "config.json").write_text(json.dumps(document))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "unpack to 1073741824" in rejected(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_four_gigabytes_that_nobody_wrote_are_refused_before_they_are_filled_in(preset):
    """HDF5 makes up what a file does not hold; here it would be as large as the configuration asks for."""
    document = json.loads((preset / "config.json").read_text())
    document["config"]["vocabulary_size"] = 1 << 24
    (preset / "config.json").write_text(json.dumps(document))
    shape = (1 << 24, CONFIG["hidden_dim"])
    with h5py.File(preset / "model.weights.h5", "a") as file:
        replace(file, "layers/reversible_embedding/vars/0", shape=shape, dtype="f8", fillvalue=1.0)
        replace(file, "layers/reversible_embedding/vars/1", shape=shape[::-1], dtype="f8", fillvalue=1.0)
    assert (preset / "model.weights.h5").stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "does not hold all of its values" in rejected(preset)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf"}])
@pytest.mark.parametrize("dtype", ["f4", ">f8", "f2"])
def test_chunks_and_other_float_types_load(preset, dtype, options):
    with h5py.File(preset / "model.weights.h5", "a") as file:
        value = file[QUERY][()].astype(dtype)
        replace(file, QUERY, data=value, chunks=(5, 4, 3), **options)
    loaded = read_all(preset)["transformer_layer_0/self_attention/query/kernel"]
    assert loaded.dtype == value.dtype.newbyteorder("=")
    np.testing.assert_array_equal(loaded, value.reshape(32, 32))


def test_a_file_with_a_user_block_loads(preset, monkeypatch):
    """HDF5 allows other things in front of a file; the offsets then count from somewhere else."""
    expected = read_all(preset)
    source = preset / "model.weights.h5"
    source.rename(preset / "old")
    with h5py.File(preset / "old") as old, h5py.File(source, "w", userblock_size=512) as new:
        old.copy("layers", new)
    for path, value in read_all(preset).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.mark.parametrize("keep", [0, 1, 100, 2000, 0.5, -1])
def test_a_truncated_file_is_refused(preset, keep):
    path = preset / "model.weights.h5"
    size = path.stat().st_size
    os.truncate(path, int(size * keep) if isinstance(keep, float) else (keep if keep >= 0 else size + keep))
    rejected(preset)


@pytest.mark.parametrize("data", [b"\0" * 5000, b"PK\x03\x04" + b"x" * 5000, b"\x89HDF\r\n\x1a\n" + b"\xff" * 5000])
def test_a_file_that_is_not_hdf5_is_refused(preset, data):
    (preset / "model.weights.h5").write_bytes(data)
    assert "cannot be read" in rejected(preset)


FLIPS = """
import sys
from pathlib import Path
import numpy as np
from llama_exp.errors import InputError
from llama_exp.formats import open_checkpoint

folder = Path(sys.argv[1])
path = folder / "model.weights.h5"
original, refused = path.read_bytes(), 0
for seed in range(100):
    rng = np.random.default_rng(seed)
    data = bytearray(original)
    for position in rng.integers(0, len(data) if seed % 2 else 16384, 4):  # headers lie in the first pages
        data[position] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    try:
        with open_checkpoint(folder) as checkpoint:
            [tensor.read(None) for tensor in checkpoint.tensors.values()]
    except InputError:
        refused += 1
print(refused)
"""


@pytest.mark.process
def test_flipped_bytes_never_end_in_a_crash(preset):
    command = [sys.executable, "-c", FLIPS, str(preset)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 20 < int(done.stdout) <= 100


# --- files ------------------------------------------------------------------------------------------------------


def test_missing_files_are_named_with_what_is_there(preset):
    (preset / "model.weights.h5").unlink()
    text = rejected(preset)
    assert "neither model.weights.h5 nor model.weights.json" in text and "metadata.json" in text
    (preset / "config.json").unlink()
    assert "the folder has no config.json" in rejected(preset)
    for path in preset.iterdir():
        path.unlink()
    assert "an empty folder" in rejected(preset)
    preset.rmdir()
    assert "there is no model" in rejected(preset)
    preset.write_text("text")
    assert "the file is not a model" in rejected(preset)


def loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize("name", ["model.weights.h5", "config.json"])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (os.mkfifo, "not an ordinary file"),
        (lambda path: path.symlink_to("/dev/zero"), "leads out"),
        (lambda path: path.symlink_to("/etc/passwd"), "leads out"),
        (lambda path: path.symlink_to(path.parent.parent / "canary"), "leads out"),
        (lambda path: path.symlink_to("gone"), "No such file"),
        (lambda path: path.mkdir(), "not an ordinary file"),
        (loop, "cannot be read"),
    ],
)
def test_what_is_no_file_of_the_folder_is_refused_at_once(preset, name, make, expected):
    shutil.copy(preset / name, preset.parent / "canary")
    (preset / name).unlink()
    make(preset / name)
    assert expected in rejected(preset)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights for a moment")
def test_a_preset_that_may_not_be_read_is_refused(preset):
    (preset / "model.weights.h5").chmod(0)
    for folder in (preset, *preset.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        text = rejected(preset)
    finally:
        os.seteuid(0)
    assert "Permission denied" in text


def test_a_file_that_is_exchanged_after_the_check_is_not_read(preset):
    """What was checked is what is read: the handle stays, whatever the name leads to now."""
    expected = read_all(preset)
    with open_checkpoint(preset) as checkpoint:
        other = preset.parent / "other"
        with h5py.File(other, "w") as file:
            file["x"] = np.full((100, 100), CANARY)
        os.replace(other, preset / "model.weights.h5")
        for path, tensor in checkpoint.tensors.items():
            np.testing.assert_array_equal(tensor.read(None), expected[path], err_msg=path)


# --- shards -----------------------------------------------------------------------------------------------------

OUTSIDE = [
    "../x.weights.h5",
    "/etc/x.weights.h5",
    "a/b.weights.h5",
    "model.h5",
    3,
    None,
    ".weights.h5",
    "x\0.weights.h5",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_shard_outside_of_the_folder_is_refused(preset, name):
    (preset / "model.weights.h5").rename(preset.parent / "x.weights.h5")
    (preset / "model.weights.json").write_text(json.dumps({"weight_map": {"/a": [name]}}))
    text = rejected(preset)
    assert "shard's name" in text and repr(name) in text


@pytest.mark.parametrize(
    "weight_map", [None, [], {}, "model.weights.h5", {"/a": {"b": "c"}}, {"/a": [["model_00000.weights.h5"]]}]
)
def test_an_index_of_another_form_is_refused(tmp_path, weight_map):
    folder = written(tmp_path / "preset", 20_000)
    (folder / "model.weights.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "model.weights.json" in rejected(folder)


def edit_index(folder, change):
    document = json.loads((folder / "model.weights.json").read_text())
    change(document["weight_map"])
    (folder / "model.weights.json").write_text(json.dumps(document))


def test_shards_that_are_missing_repeated_or_too_many_are_named(tmp_path):
    folder = written(tmp_path / "preset", 20_000)
    expected = read_all(folder)
    edit_index(folder, lambda entries: entries.update({key: [name] for key, name in entries.items()}))
    assert read_all(folder).keys() == expected.keys()  # lists of names, which Keras writes too
    shutil.copy(folder / "model_00001.weights.h5", folder / "model_copy.weights.h5")
    text = rejected(folder)
    assert "weights that the index does not name" in text and "model_copy.weights.h5" in text
    edit_index(folder, lambda entries: entries.update({"/again": "model_copy.weights.h5"}))
    text = rejected(folder)
    assert "in two files" in text and "model_copy.weights.h5" in text
    (folder / "model_copy.weights.h5").unlink()
    assert "model_copy.weights.h5" in rejected(folder)
    edit_index(folder, lambda entries: entries.pop("/again"))
    (folder / "model_00001.weights.h5").rename(tmp_path / "model_00001.weights.h5")
    text = rejected(folder)
    assert "a shard is missing" in text and "model_00001.weights.h5" in text
    (folder / "model_00001.weights.h5").symlink_to(tmp_path / "model_00001.weights.h5")
    assert "a link leads out" in rejected(folder)


def test_two_sets_of_weights_in_one_folder_are_refused(tmp_path):
    folder = written(tmp_path / "preset", 20_000)
    shutil.copy(written(tmp_path / "other") / "model.weights.h5", folder)
    assert "weights that the index does not name" in rejected(folder)
