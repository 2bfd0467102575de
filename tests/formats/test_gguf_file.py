"""What a GGUF file may claim: right files as ggml's own package reads and writes them, wrong ones refused at once."""

import os
import struct
import tracemalloc

import gguf
import numpy as np
import pytest
from gguf_writer import ARRAY, STRING, Blocks, Typed, gguf_bytes, text
from hypothesis import given, settings
from hypothesis import strategies as st
from promptness import within

from llama_exp.errors import InputError
from llama_exp.formats.gguf import cursor
from llama_exp.formats.gguf.file import open_gguf

HUGE = struct.pack("<Q", 2**60)
METADATA = {
    "general.architecture": "llama",
    "a.flag": True,
    "a.number": 2.5,
    "a.count": 7,
    "a.words": ["", "one", "zwölf"],
    "a.numbers": np.arange(5, dtype="i8"),
}
TENSORS = {"x": np.arange(12, dtype="f4").reshape(3, 4), "y": np.arange(5, dtype="f2")}


def written(tmp_path, content):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    return path


def rejection(path):
    """The refusal of a file; it must come within a second and take little memory."""
    tracemalloc.start()
    try:
        with within(1), pytest.raises(InputError) as caught, open_gguf(path):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
    (problem,) = caught.value.problems
    assert problem.what and problem.where == str(path) and problem.found and problem.action
    return f"{problem.what} | {problem.found}"


@pytest.mark.parametrize("version", [2, 3])
def test_reads_what_was_written(tmp_path, version):
    with open_gguf(written(tmp_path, gguf_bytes(METADATA, TENSORS, version))) as file:
        assert file.text("general.architecture") == "llama"
        assert file.flag("a.flag") is True
        assert file.number("a.number") == 2.5 and file.number("a.count") == 7 == file.integer("a.count")
        assert file.strings("a.words") == METADATA["a.words"]
        np.testing.assert_array_equal(file.numbers("a.numbers"), np.arange(5))
        assert file.integer("none") is file.text("none") is file.strings("none") is file.numbers("none") is None
        assert list(file.tensors) == ["x", "y"]
        np.testing.assert_array_equal(file.read_rows(file.tensors["x"], 1, 3), TENSORS["x"][1:])
        np.testing.assert_array_equal(file.read_rows(file.tensors["y"], 0, 1), TENSORS["y"][None])


def test_every_scalar_type_is_read(tmp_path):
    values = {kind: struct.pack(f"<{letter}", 1) for kind, letter in cursor.FORMATS.items()}
    assert set(values) == {int(kind) for kind in gguf.GGUFValueType} - {STRING, ARRAY}
    metadata = {f"k{kind}": Typed(kind, content) for kind, content in values.items()}
    with open_gguf(written(tmp_path, gguf_bytes(metadata, {}))) as file:
        assert set(file.metadata.values()) == {1}


def test_reads_what_ggmls_package_writes(tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_token_list(["a", "b", "ü"])
    writer.add_token_scores([0.5, -1.0, 2.0])
    writer.add_key_value("n", 2**40, gguf.GGUFValueType.UINT64)
    for name, tensor in TENSORS.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_gguf(path) as file:
        assert file.strings("tokenizer.ggml.tokens") == ["a", "b", "ü"]
        np.testing.assert_array_equal(file.numbers("tokenizer.ggml.scores"), np.float32([0.5, -1, 2]))
        assert file.integer("n") == 2**40
        assert file.tensors["y"].offset % 64 == 0
        np.testing.assert_array_equal(file.read_rows(file.tensors["x"], 0, 3), TENSORS["x"])


def test_ggmls_package_reads_what_the_tests_write(tmp_path):
    reader = gguf.GGUFReader(written(tmp_path, gguf_bytes(METADATA | {"general.alignment": 64}, TENSORS)))
    assert reader.get_field("a.words").contents() == METADATA["a.words"]
    x, y = reader.tensors
    np.testing.assert_array_equal(x.data, TENSORS["x"])
    np.testing.assert_array_equal(y.data, TENSORS["y"])


def array_of(kind, count, content=b""):
    return Typed(ARRAY, struct.pack("<I", kind) + count + content)


ONE = struct.pack("<Q", 1)
MATRIX = np.zeros((2, 32), "f4")
WRONG = {
    "empty": (b"", "not a GGUF file"),
    "not GGUF": (b"PK\x03\x04" + bytes(60), "begins with b'PK"),
    "head cut": (b"GGUF" + bytes(8), "not a GGUF file"),
    "version 1": (gguf_bytes({}, {}, version=1), "version of GGUF is not supported | 1"),
    "version 4": (gguf_bytes({}, {}, version=4), "version of GGUF is not supported | 4"),
    "version 0": (gguf_bytes({}, {}, version=0), "version of GGUF is not supported | 0"),
    "big-endian": (gguf_bytes({}, {}, version=3 << 24), "big-endian"),
    "2^60 keys": (gguf_bytes({}, {}, num_keys=2**60), "number of keys is impossible | 1152921504606846976"),
    "2^60 tensors": (gguf_bytes({}, {}, num_tensors=2**60), "number of tensors is impossible"),
    "one key too many": (gguf_bytes({"a": 1}, {}, num_keys=2), "name of key 1 has an impossible length | 0"),
    "one tensor too many": (
        gguf_bytes({}, {"x": MATRIX}, num_tensors=2),
        "name of tensor 1 has an impossible length | 0",
    ),
    "key of 2^60 bytes": (gguf_bytes({}, {})[:16] + ONE + HUGE + bytes(40), "name of key 0 has an impossible length"),
    "string of 2^63 bytes": (gguf_bytes({"a": Typed(8, struct.pack("<Q", 2**63))}, {}), "a does not fit into the file"),
    "string cut": (gguf_bytes({"a": Typed(8, struct.pack("<Q", 99) + b"x")}, {}), "does not fit into the file | 99"),
    "string not UTF-8": (gguf_bytes({"a": Typed(8, text(b"\xff"))}, {}), "a is not UTF-8"),
    "key not UTF-8": (gguf_bytes([(b"\xff", 1)], {}), "name of key 0 is not UTF-8"),
    "key twice": (gguf_bytes([("a", 1), ("a", 2)], {}), "a key is there twice | a"),
    "unknown type": (gguf_bytes({"a": Typed(13, bytes(8))}, {}), "a has an unknown type | 13"),
    "flag of 2": (gguf_bytes({"a": Typed(7, b"\x02")}, {}), "a must be true (1) or false (0) | 2"),
    "array of 2^60": (gguf_bytes({"a": array_of(4, HUGE)}, {}), "number of items of a is impossible"),
    "strings, 2^60": (gguf_bytes({"a": array_of(STRING, HUGE)}, {}), "number of items of a is impossible"),
    "string in array of 2^60": (gguf_bytes({"a": array_of(STRING, ONE, HUGE)}, {}), "does not fit into the file"),
    "array of unknown": (gguf_bytes({"a": array_of(99, ONE, bytes(9))}, {}), "items of a have an unknown type | 99"),
    "nested array": (gguf_bytes({"a": array_of(ARRAY, ONE, bytes(99))}, {}), "a is an array of arrays"),
    "alignment 0": (gguf_bytes({"general.alignment": 0}, TENSORS), "alignment must be a power of two | 0"),
    "alignment 48": (gguf_bytes({"general.alignment": 48}, TENSORS), "alignment must be a power of two | 48"),
    "alignment a text": (gguf_bytes({"general.alignment": "32"}, TENSORS), "alignment must be a power of two | '32'"),
    "tensor twice": (gguf_bytes({}, [("x", MATRIX), ("x", MATRIX)]), "a tensor is there twice | x"),
    "no dimension": (gguf_bytes({}, {"x": Blocks(0, (), bytes(4))}), "impossible number of dimensions | 0"),
    "five dimensions": (gguf_bytes({}, {"x": Blocks(0, (1,) * 5, bytes(4))}), "impossible number of dimensions | 5"),
    "dimension 0": (gguf_bytes({}, {"x": Blocks(0, (0, 4), bytes(4))}), "x has an impossible shape | (0, 4)"),
    "half a block": (gguf_bytes({}, {"x": Blocks(2, (2, 16), bytes(18))}), "impossible shape | (2, 16), blocks of 32"),
    "product overflows": (gguf_bytes({}, {"x": Blocks(0, (2**33,) * 2, bytes(64))}), "x does not lie in the file"),
    "product is 2^64": (gguf_bytes({}, {"x": Blocks(0, (2**32,) * 2, bytes(64))}), "x does not lie in the file"),
    "known type": (gguf_bytes({}, {"x": Blocks(10, (256,), bytes(84))}), "type of tensor x is not supported | Q2_K"),
    "unknown tensor type": (gguf_bytes({}, {"x": Blocks(4, (32,), bytes(84))}), "x is not supported | number 4"),
    "offset behind the end": (gguf_bytes({}, {"x": Blocks(0, (4,), bytes(16), 4096)}), "x does not lie in the file"),
    "offset of 2^63": (gguf_bytes({}, {"x": Blocks(0, (4,), bytes(16), 2**63)}), "x does not lie in the file"),
    "misaligned": (gguf_bytes({}, {"x": Blocks(0, (4,), bytes(64), 16)}), "x does not lie in the file | offset 16"),
    "overlap": (
        gguf_bytes({}, {"x": MATRIX, "y": Blocks(0, (4,), bytes(64), 32)}),
        "tensor y overlaps x",
    ),
    "truncated": (gguf_bytes({}, {"x": MATRIX})[:-1], "tensor x ends behind the end of the file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused_by_name(tmp_path, name):
    content, expected = WRONG[name]
    assert expected in rejection(written(tmp_path, content))


def test_a_sparse_file_does_not_make_lengths_true(tmp_path):
    """A string of 2^35 bytes that lie in the file, as a hole, is still too long."""
    path = written(tmp_path, gguf_bytes({"a": Typed(8, struct.pack("<Q", 2**35))}, {}))
    os.truncate(path, 2**36)
    assert "a is too long" in rejection(path)
    path = written(tmp_path, gguf_bytes({"a": array_of(STRING, struct.pack("<Q", 2**33))}, {}))
    os.truncate(path, 2**36)
    assert "number of items of a is impossible" in rejection(path)


def test_what_is_no_ordinary_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none"):
        with pytest.raises(InputError), open_gguf(path):
            pass


def test_every_cut_is_refused_or_leaves_a_right_file(tmp_path):
    content = gguf_bytes(METADATA, TENSORS)
    path = tmp_path / "m.gguf"
    for length in range(len(content) - 22):  # the last tensor has 10 bytes of its 32
        path.write_bytes(content[:length])
        with pytest.raises(InputError), open_gguf(path):
            pass
    path.write_bytes(content[: len(content) - 22])
    with open_gguf(path) as file:
        assert len(file.tensors) == 2


@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_refused_or_readable(tmp_path_factory, changes):
    content = bytearray(gguf_bytes(METADATA, TENSORS))
    for place, byte in changes:
        content[place % len(content)] = byte
    path = written(tmp_path_factory.getbasetemp(), bytes(content))
    try:
        with open_gguf(path) as file:
            for tensor in file.tensors.values():
                assert file.read_rows(tensor, 0, 1).shape == (1, tensor.shape[-1])
    except InputError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("getter", "key", "expected"),
    [
        ("integer", "a.number", "a.number must be a whole number"),
        ("integer", "a.flag", "a.flag must be a whole number"),
        ("number", "a.flag", "a.flag must be a number"),
        ("number", "a.nan", "a.nan must be finite"),
        ("text", "a.count", "a.count must be a string"),
        ("flag", "a.count", "a.count must be true or false"),
        ("strings", "a.numbers", "a.numbers must be an array of strings"),
        ("strings", "a.count", "a.count must be an array of strings"),
        ("strings", "a.damaged", "a.damaged: item 1 is not UTF-8"),
        ("numbers", "a.words", "a.words must be an array of numbers"),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path, getter, key, expected):
    damaged = array_of(STRING, struct.pack("<Q", 2), text("a") + text(b"\xfe"))
    metadata = METADATA | {"a.nan": float("nan"), "a.damaged": damaged}
    with open_gguf(written(tmp_path, gguf_bytes(metadata, {}))) as file:
        with pytest.raises(InputError, match=expected):
            getattr(file, getter)(key)


def test_a_large_vocabulary_is_read_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(cursor, "_READ_BYTES", 50)
    words = [f"word {i}" * (i % 7) for i in range(500)]
    with open_gguf(written(tmp_path, gguf_bytes({"a": words, "b": words[:3]}, TENSORS))) as file:
        assert file.strings("a") == words and file.strings("b") == words[:3]
