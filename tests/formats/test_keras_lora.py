"""KerasHub's `.lora.h5` as a file: which layer a number means, the exact equivalent, named damage. No framework."""

import os

import h5py
import ml_dtypes
import numpy as np
import pytest
from promptness import within
from tiny_configs import TINY_CONFIGS
from whole_adapter import read_adapter

from llama_exp.architecture import linear_shapes
from llama_exp.errors import InputError
from llama_exp.formats import open_adapter
from llama_exp.formats.keras_hub.lora import BLOCK, path_of

CONFIG = TINY_CONFIGS["grouped_query"]  # 2 blocks, N=4, D=32, F=40, K=2, H=8
RANK = 3
# Number of the first block's layer -> shapes of A and B, as KerasHub 0.32 writes them.
SHAPES = {
    3: ((40, RANK), (RANK, 32)),
    4: ((32, RANK), (RANK, 40)),
    5: ((32, RANK), (RANK, 40)),
    8: ((4, 8, RANK), (RANK, 32)),
    9: ((32, 2, RANK), (RANK, 8)),
    10: ((32, 2, RANK), (RANK, 8)),
    11: ((32, 4, RANK), (RANK, 8)),
}
NAMES = {
    3: "feedforward_output_dense",
    4: "feedforward_gate_dense",
    5: "feedforward_intermediate_dense",
    8: "self_attention/attention_output",
    9: "self_attention/value",
    10: "self_attention/key",
    11: "self_attention/query",
}


def tensors():
    """Every tensor of a file with adapters on all linear layers, by name."""
    generator = np.random.default_rng(0)
    found = {"lora/vars/rank": np.asarray(RANK, "int32")}
    for number, pair in SHAPES.items():
        for block in range(CONFIG["num_layers"]):
            for letter, shape in zip("ab", pair, strict=True):
                name = f"lora/{number + block * len(BLOCK)}/vars/lora_kernel_{letter}"
                found[name] = generator.normal(size=shape).astype("float32")
    return found


def write(path, values):
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            file[name] = value


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "adapter.lora.h5"
    write(path, tensors())
    return path


def refusal(path, **changes):
    with within(2), pytest.raises(InputError) as error:
        read_adapter(path, CONFIG | changes)
    assert all(all((p.what, p.where, p.found, p.action)) for p in error.value.problems)
    assert str(path) in str(error.value) and len(str(error.value)) < 2000
    return str(error.value)


def test_a_layers_number_is_its_place_in_kerass_order():
    """Depths and numbers as `Backbone._flatten_layers` of KerasHub 0.32 listed them."""
    for num_layers in (1, 2, 40):
        assert path_of(0, num_layers) == "token_embedding"
        assert path_of(1, num_layers) == "transformer_layer_0"
        assert {n: path_of(n, num_layers).partition("/")[2] for n in NAMES} == NAMES
        assert path_of(1 + 11 * num_layers, num_layers) == "sequence_output_layernorm"
        assert path_of(2 + 11 * num_layers, num_layers) is None
    assert path_of(22, 2) == "transformer_layer_1/self_attention/query"
    assert path_of(11 * 39 + 8, 40) == "transformer_layer_39/self_attention/attention_output"


def test_one_b_for_all_heads_is_a_block_diagonal_one(saved):
    stored, found = tensors(), read_adapter(saved, CONFIG)
    assert list(found) == list(linear_shapes(CONFIG))
    for path, (a_IR, b_RO, one_scale) in found.items():
        block, _, layer = path.partition("/")
        (number,) = (n + len(BLOCK) * int(block[-1]) for n, name in NAMES.items() if name == layer)
        a, b = (stored[f"lora/{number}/vars/lora_kernel_{letter}"] for letter in "ab")
        assert one_scale == 1.0 and a_IR.dtype == b_RO.dtype == np.float32
        if layer in ("self_attention/query", "self_attention/key", "self_attention/value"):
            expected = np.einsum("dnr,rh->dnh", a.astype("float64"), b.astype("float64")).reshape(len(a), -1)
            assert a_IR.shape[1] == RANK * a.shape[1]
        else:
            expected = a.reshape(-1, RANK).astype("float64") @ b.astype("float64")
            assert a_IR.shape[1] == RANK
        np.testing.assert_allclose(a_IR.astype("float64") @ b_RO.astype("float64"), expected, atol=1e-13)


def test_ranks_are_known_before_anything_is_read(saved, monkeypatch):
    monkeypatch.setattr("llama_exp.formats.keras_hub.lora.make_tensor", None)
    with open_adapter(saved, CONFIG) as adapter:
        assert (adapter.format, adapter.rank, adapter.alpha, adapter.use_rslora) == ("keras_hub", 3, 3.0, False)
        ends = {path.rpartition("/")[2]: rank for path, rank in adapter.ranks.items()}
    assert ends["query"] == 12 and ends["key"] == ends["value"] == 6 and ends["attention_output"] == 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_types_are_read_as_float32(saved, dtype):
    numpy_dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    exact = read_adapter(saved, CONFIG)
    with h5py.File(saved, "w") as file:
        for name, value in tensors().items():
            file.create_dataset(name, data=value if value.dtype.kind == "i" else value.astype(numpy_dtype))
            if dtype == "bfloat16" and value.dtype.kind != "i":
                file[name].attrs["dtype"] = "bfloat16"
    for path, (a_IR, b_RO, _) in read_adapter(saved, CONFIG).items():
        np.testing.assert_array_equal(a_IR, exact[path][0].astype(numpy_dtype).astype("float32"))
        np.testing.assert_array_equal(b_RO, exact[path][1].astype(numpy_dtype).astype("float32"))


A11, B11 = "lora/11/vars/lora_kernel_a", "lora/11/vars/lora_kernel_b"
QUERY = "transformer_layer_0/self_attention/query"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.update({"lora/vars/rank": np.asarray(4, "int32")}), f"{QUERY}: lora_kernel_a (32, 4, 3) instead"),
        (lambda t: t.update({"lora/vars/rank": np.asarray(0, "int32")}), "rank = 0"),
        (lambda t: t.update({"lora/vars/rank": np.asarray(-1, "int32")}), "rank = -1"),
        (lambda t: t.update({"lora/vars/rank": np.asarray(3.0)}), "float64"),
        (lambda t: t.update({"lora/vars/rank": np.asarray([3])}), "(1,)"),
        (lambda t: t.pop("lora/vars/rank"), "lora/vars/rank"),
        (lambda t: t.pop(B11), f"{QUERY}: no lora_kernel_b"),
        (lambda t: t.update({A11: t[B11], B11: t[A11]}), f"{QUERY}: lora_kernel_a (3, 8) instead of (32, 4, 3), the"),
        (lambda t: t.update({A11: t[A11] * np.inf}), A11),
        (lambda t: t.update({A11: t[A11].astype("int32")}), f"{A11}: type int32"),
        (lambda t: t.update({A11: np.asarray(b"text")}), "lora_kernel_a () instead"),
        (lambda t: t.update({"lora/24/vars/lora_kernel_a": t[A11]}), "lora/24"),
        (lambda t: t.update({"lora/999999999/vars/lora_kernel_a": t[A11]}), "lora/999999999"),
        (lambda t: t.update({"lora/0/vars/lora_kernel_a": t[A11]}), "lora/0, which is token_embedding"),
        (
            lambda t: t.update({"lora/7/vars/lora_kernel_a": t[A11]}),
            "lora/7, which is transformer_layer_0/self_attention",
        ),
        (lambda t: t.update({"lora/011/vars/lora_kernel_a": t[A11]}), "lora/011"),
        (lambda t: t.update({"lora/11/vars/lora_kernel_c": t[A11]}), "lora_kernel_c"),
        (lambda t: t.update({"layers/x/vars/0": t[A11]}), "layers/x/vars/0"),
        (lambda t: t.update({"lora/11/vars/x/y/z": t[A11]}), "lora/11/vars/x/y/z"),
        (lambda t: [t.pop(name) for name in list(t) if name != "lora/vars/rank"], "no adapter"),
    ],
)
def test_damage_is_named(saved, change, named):
    values = tensors()
    change(values)
    write(saved, values)
    assert named in refusal(saved)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_layers": 1}, "layers 0 to 12"),
        ({"hidden_dim": 64}, "lora_kernel_a (32, 4, 3) instead of (64, 4, 3)"),
        ({"num_query_heads": 2, "num_key_value_heads": 2}, "lora_kernel_a (32, 4, 3) instead of (32, 2, 3)"),
        ({"num_key_value_heads": 4}, "lora_kernel_a (32, 2, 3) instead of (32, 4, 3)"),
        ({"intermediate_dim": 41}, "lora_kernel_b (3, 40) instead of (3, 41)"),
    ],
)
def test_another_base_is_refused(saved, changes, named):
    assert named in refusal(saved, **changes)


# --- what else HDF5 can do


def with_virtual(file, outside):
    layout = h5py.VirtualLayout(shape=(32, 4, 3), dtype="float32")
    layout[:] = h5py.VirtualSource(str(outside), "x", shape=(32, 4, 3))
    file.create_virtual_dataset(A11, layout)


def with_gap(file, _):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    space = h5py.h5s.create_simple((32, 4, 3))
    h5py.h5d.create(file["lora/11/vars"].id, b"lora_kernel_a", h5py.h5t.IEEE_F32LE, space, properties)


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (lambda file, outside: file.__setitem__(A11, h5py.ExternalLink(str(outside), "x")), "ExternalLink"),
        (lambda file, outside: file.__setitem__(A11, h5py.SoftLink("/lora/22/vars/lora_kernel_a")), "SoftLink"),
        (lambda file, outside: file.__setitem__("lora/11/loop", file["lora"]), "not laid out"),
        (with_virtual, "another file"),
        (
            lambda file, outside: file.create_dataset(
                A11, (32, 4, 3), "float32", external=[(str(outside), 0, h5py.h5f.UNLIMITED)]
            ),
            "another file",
        ),
        (
            lambda file, outside: file.create_dataset(A11, (32, 4, 3), "float32", compression="gzip"),
            "does not hold all",
        ),
        (
            lambda file, outside: file.create_dataset(A11, (32, 4, 2**40), "float32", chunks=(32, 4, 64)),
            "(32, 4, 1099511627776) instead",
        ),
        (lambda file, outside: file.create_dataset(A11, data=h5py.Empty("float32")), "lora_kernel_a () instead"),
        (with_gap, "does not hold all"),
    ],
)
def test_values_elsewhere_and_bombs_are_refused(saved, tmp_path, plant, named):
    outside = tmp_path / "canary.h5"
    with h5py.File(outside, "w") as file:
        file["x"] = np.ones((32, 4, 3), "float32")
    with h5py.File(saved, "a") as file:
        del file[A11]
        plant(file, outside)
    assert named in refusal(saved)


def test_endless_groups_are_refused(saved, monkeypatch):
    monkeypatch.setattr("llama_exp.formats.hdf5_file.MAX_OBJECTS", 200)
    read_adapter(saved, CONFIG)
    with h5py.File(saved, "a") as file:
        for number in range(200):
            file.create_group(f"many/{number}")
    assert "not laid out" in refusal(saved)


def test_files_that_unpack_to_far_more_are_refused(saved, monkeypatch):
    with h5py.File(saved, "w") as file:
        for name, value in tensors().items():
            file.create_dataset(name, data=value, **({"compression": "gzip"} if value.ndim else {}))
    assert len(read_adapter(saved, CONFIG)) == 14
    monkeypatch.setattr("llama_exp.formats.hdf5_file.MAX_UNPACKING", 0)
    monkeypatch.setattr("llama_exp.formats.hdf5_file.FREE_UNPACKING_BYTES", 100)
    assert "unpacks to far more" in refusal(saved)


def test_what_is_no_hdf5_file_is_refused(tmp_path):
    for content, named in ((b"PK\x03\x04", "not HDF5"), (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "cannot be read")):
        (tmp_path / "x.lora.h5").write_bytes(content)
        assert named in refusal(tmp_path / "x.lora.h5")
    os.mkfifo(tmp_path / "pipe.lora.h5")
    assert "not an ordinary file" in refusal(tmp_path / "pipe.lora.h5")


@pytest.mark.parametrize("seed", range(3))
def test_mutated_and_truncated_files_are_read_or_refused(saved, seed):
    generator = np.random.default_rng(seed)
    original = saved.read_bytes()
    num_refused = 0
    for _ in range(60):
        data = bytearray(original)
        for position in generator.integers(0, len(original), 40):
            data[position] = generator.integers(256)
        saved.write_bytes(bytes(data[: generator.integers(1, len(data) + 1)] if seed == 0 else data))
        try:
            read_adapter(saved, CONFIG)
        except InputError:
            num_refused += 1
    assert num_refused > 0
