"""`llama-exp convert`: bit for bit, without a framework, whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from gguf_writer import gguf_bytes, llama_metadata, llama_tensors
from rich.console import Console
from sentencepiece import sentencepiece_model_pb2
from small_models import TEMPLATE, TOKENIZER, config, make, make_run
from small_tokenizers import sentence_piece_model
from tiny_configs import random_arrays

from llama_exp import cli, formats
from llama_exp.architecture import make_quantization
from llama_exp.commands import export, sources
from llama_exp.formats.checkpoint import Tensor
from llama_exp.formats.quantized import dequantize_checkpoint, quantize_checkpoint
from llama_exp.tokenizer import load
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, code=0):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    assert stop.value.code == code


def convert(source, folder, form, *more, code=0):
    run("convert", "--from", source, "--to", folder, "--format", form, *more, code=code)


def arrays_of(folder):
    with formats.open_checkpoint(folder) as checkpoint:
        return {path: tensor.read(None) for path, tensor in checkpoint.tensors.items()}, checkpoint.config


def same(found, expected):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].dtype == array.dtype
        np.testing.assert_array_equal(found[path].view(np.uint8), array.view(np.uint8), err_msg=path)


def test_a_runs_folder(tmp_path, capsys):
    """As `generate` and `merge` take it: its model; an adapter alone is no model."""
    arrays = make(tmp_path / "base")
    make_run(tmp_path / "run", tmp_path / "base")
    (tmp_path / "run/adapter").mkdir()
    convert(tmp_path / "run", tmp_path / "out", "hf", code=2)
    assert f"llama-exp merge {tmp_path / 'run'} --to" in capsys.readouterr().err
    make(tmp_path / "run/model")
    (tmp_path / "latest").symlink_to("run")
    convert(tmp_path / "latest", tmp_path / "out", "keras_hub")
    same(arrays_of(tmp_path / "out")[0], arrays)
    convert("no/such/run", tmp_path / "other", "hf", code=3)
    assert "--from: no such folder or file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["grouped_query", "llama_3_2", "odd_widths"])
def test_there_and_back_is_bit_for_bit(name, tmp_path, capsys):
    arrays = make(tmp_path / "one", name=name)
    convert(tmp_path / "one", tmp_path / "two", "hf")
    assert "every one read back and equal" in capsys.readouterr().out
    convert(tmp_path / "two", tmp_path / "three", "keras_hub", "--max-shard-size", "0.00001")
    output = capsys.readouterr().out
    assert f"llama-exp chat {tmp_path / 'three'}" in output and str(TOKENIZER.vocabulary_size) in output
    for folder in ("two", "three"):
        found, found_config = arrays_of(tmp_path / folder)
        same(found, arrays)
        assert {**found_config, "dropout": 0.0} == config(name)
        tokenizer = load(tmp_path / folder)
        assert (tokenizer.chat_template, tokenizer.generation_config) == (TEMPLATE, TOKENIZER.generation_config)
        assert tokenizer.encode("Hi é") == TOKENIZER.encode("Hi é")
    assert len(list((tmp_path / "three").glob("*.weights.h5"))) > 1
    assert json.loads((tmp_path / "two/config.json").read_text())["bos_token_id"] == TOKENIZER.bos_id


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_dtype_is_rounded_once(dtype, tmp_path):
    arrays = make(tmp_path / "one")
    convert(tmp_path / "one", tmp_path / "two", "hf", "--dtype", dtype)
    wanted = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    same(arrays_of(tmp_path / "two")[0], {path: array.astype(wanted) for path, array in arrays.items()})


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantized_weights(mode, tmp_path, capsys):
    """Kept in KerasHub's format; in the other one numbers again, if one says of which type."""
    make(tmp_path / "one")
    with formats.open_checkpoint(tmp_path / "one") as checkpoint:
        integers = quantize_checkpoint(checkpoint, make_quantization(mode))
        place = export.Target(tmp_path / "two", "keras_hub", None, 10, False)
        export.write(integers, TOKENIZER, place, Console(stderr=True), sources.find(str(tmp_path / "one")))
        expected = {path: tensor.read(None) for path, tensor in dequantize_checkpoint(integers).tensors.items()}
    convert(tmp_path / "two", tmp_path / "three", "hf", code=2)
    error = capsys.readouterr().err
    assert "--dtype" in error and mode in error and not (tmp_path / "three").exists()
    convert(tmp_path / "two", tmp_path / "three", "hf", "--dtype", "float32")
    same(arrays_of(tmp_path / "three")[0], expected)
    convert(tmp_path / "two", tmp_path / "four", "keras_hub")
    same(arrays_of(tmp_path / "four")[0], arrays_of(tmp_path / "two")[0])


def test_a_tokenizer_that_the_other_format_cannot_hold(tmp_path, capsys, monkeypatch):
    """A SentencePiece model with a piece of its user's: told before the weights are written, and what to do instead."""
    model = sentencepiece_model_pb2.ModelProto.FromString(sentence_piece_model())
    model.pieces[300].type = model.pieces[300].USER_DEFINED
    make(tmp_path / "one", tokenizer=SentencePieceTokenizer(model.SerializeToString()), vocabulary_size=320)
    monkeypatch.setattr(export.hugging_face, "write", lambda *_, **__: pytest.fail("the weights were written"))
    convert(tmp_path / "one", tmp_path / "two", "hf", code=3)
    error = capsys.readouterr().err
    assert repr(model.pieces[300].piece) in error and "user-defined" in error and "--format keras_hub" in error
    assert names(tmp_path) == ["one"]


def context_length_of(folder):
    with formats.open_checkpoint(folder) as checkpoint:
        return checkpoint.context_length


@pytest.mark.parametrize("name", ["grouped_query", "llama_3_2"])
def test_the_context_length_goes_along(name, tmp_path):
    make(tmp_path / "none", form="hf", name="grouped_query")
    make(tmp_path / "one", form="hf", name=name)
    path = tmp_path / "one/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 3000}))
    convert(tmp_path / "one", tmp_path / "two", "keras_hub")
    convert(tmp_path / "two", tmp_path / "three", "keras_hub", "--dtype", "bfloat16")
    convert(tmp_path / "three", tmp_path / "four", "hf")
    assert [context_length_of(tmp_path / folder) for folder in ("one", "two", "three", "four")] == [3000] * 4
    assert json.loads((tmp_path / "four/config.json").read_text())["max_position_embeddings"] == 3000
    convert(tmp_path / "none", tmp_path / "five", "keras_hub")
    convert(tmp_path / "five", tmp_path / "six", "hf")
    assert context_length_of(tmp_path / "five") is context_length_of(tmp_path / "six") is None


def test_gguf_is_a_source_too(tmp_path):
    architecture = config() | {"vocabulary_size": 48}
    arrays = random_arrays(architecture)
    content = gguf_bytes(llama_metadata(architecture), llama_tensors(architecture, arrays))
    (tmp_path / "model.gguf").write_bytes(content)
    convert(tmp_path / "model.gguf", tmp_path / "two", "hf")
    found, found_config = arrays_of(tmp_path / "two")
    same(found, arrays)
    assert found_config == architecture
    assert json.loads((tmp_path / "two/config.json").read_text())["max_position_embeddings"] == 128


def test_a_model_without_tokenizer(tmp_path, capsys):
    arrays = make(tmp_path / "one", tokenizer=None)
    convert(tmp_path / "one", tmp_path / "two", "hf")
    assert "llama-exp generate" in capsys.readouterr().out
    same(arrays_of(tmp_path / "two")[0], arrays)
    assert not (tmp_path / "two/tokenizer.json").exists()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_there_is_not_replaced_unless_it_is_a_model_and_one_says_so(tmp_path, capsys):
    make(tmp_path / "one")
    arrays = make(tmp_path / "other", seed=5)
    before = names(tmp_path / "one")
    convert(tmp_path / "other", tmp_path / "one", "hf", code=4)
    assert "--overwrite" in capsys.readouterr().err and names(tmp_path / "one") == before
    convert(tmp_path / "other", tmp_path / "one", "hf", "--overwrite")
    same(arrays_of(tmp_path / "one")[0], arrays)
    (tmp_path / "one/thesis.tex").write_text("years of work")
    convert(tmp_path / "other", tmp_path / "one", "keras_hub", "--overwrite", code=4)
    assert "thesis.tex" in capsys.readouterr().err and (tmp_path / "one/thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    convert(tmp_path / "other", tmp_path / "empty", "hf")


def test_the_source_is_never_the_target(tmp_path, capsys):
    make(tmp_path / "models/one")
    for target in (tmp_path / "models/one", tmp_path / "models"):
        convert(tmp_path / "models/one", target, "hf", "--overwrite", code=4)
        assert "where the model comes from" in capsys.readouterr().err
    assert arrays_of(tmp_path / "models/one")


def test_a_damaged_source_leaves_nothing(tmp_path, capsys):
    make(tmp_path / "one", form="hf")
    path = tmp_path / "one/model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    convert(tmp_path / "one", tmp_path / "two", "keras_hub", code=3)
    assert "model.safetensors" in capsys.readouterr().err
    assert names(tmp_path) == ["one"]


def test_what_is_read_back_is_compared(tmp_path, capsys, monkeypatch):
    """A disk that loses a bit: the folder does not appear."""
    make(tmp_path / "one")
    reopen = formats.open_checkpoint

    def tampered(path):
        class Changed:
            def __enter__(self):
                self.inner = reopen(path)
                checkpoint = self.inner.__enter__()
                if ".tmp-" in Path(path).name:
                    name = "transformer_layer_1/feedforward_gate_dense/kernel"
                    tensor = checkpoint.tensors[name]
                    flipped = lambda dtype: -tensor.read(dtype)  # noqa: E731
                    checkpoint.tensors[name] = Tensor(tensor.shape, tensor.dtype, tensor.origin, flipped)
                return checkpoint

            def __exit__(self, *error):
                return self.inner.__exit__(*error)

        return Changed()

    monkeypatch.setattr(export.formats, "open_checkpoint", tampered)
    convert(tmp_path / "one", tmp_path / "two", "hf", code=4)
    message = capsys.readouterr().err
    assert "not what was written" in message and "transformer_layer_1/feedforward_gate_dense/kernel" in message
    assert names(tmp_path) == ["one"]


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, capsys, monkeypatch):
    make(tmp_path / "one")
    usage = export.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(export.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    convert(tmp_path / "one", tmp_path / "two", "hf", code=4)
    assert "too full" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "x"], "--to"),
        (["--from", "x", "--to", "y", "--format", "huggingface"], "invalid choice"),
        (["--from", "x", "--to", "y", "--format", "hf", "--dtyp", "float32"], "did you mean --dtype"),
        (["--from", "x", "--to", "y", "--format", "hf", "--dtype", "float61"], "did you mean float16"),
        (["--from", "x", "--to", "y", "--format", "hf", "--max-shard-size", "-1"], "must be above 0"),
    ],
)
def test_usage_errors(arguments, message, capsys):
    run("convert", *arguments, code=2)
    error = capsys.readouterr().err
    assert message in error and "llama-exp convert --help" in error


def test_no_source(tmp_path, capsys):
    convert(tmp_path / "nowhere", tmp_path / "two", "hf", code=3)
    assert "nowhere" in capsys.readouterr().err


MEASURED = """
import resource, sys
from llama_exp import cli
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    cli.main(sys.argv[1:])
except SystemExit as stop:
    assert stop.code == 0
import llama_exp.commands.convert
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print([name for name in ("keras", "tensorflow", "jax", "torch", "wandb") if name in sys.modules])
"""


@pytest.mark.process
@pytest.mark.parametrize(("form", "other"), [("keras_hub", "hf"), ("hf", "keras_hub")])
def test_no_framework_and_little_memory(form, other, tmp_path):
    """132 MiB of weights; the largest tensor has 16 MiB."""
    arrays = make(
        tmp_path / "one", form=form, hidden_dim=1024, intermediate_dim=4096, num_query_heads=8, num_key_value_heads=4
    )
    total, largest = sum(a.nbytes for a in arrays.values()) >> 20, max(a.nbytes for a in arrays.values()) >> 20

    def peak(source):
        arguments = ["convert", "--from", str(source), "--to", str(tmp_path / f"to_{source.name}"), "--format", other]
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        *_, memory, frameworks = done.stdout.splitlines()
        assert frameworks == "[]"
        return int(memory)

    make(tmp_path / "small", form=form)
    more = peak(tmp_path / "one") - peak(tmp_path / "small")
    assert total > 100 and more < 3 * largest, f"{more} MiB more for {total} MiB of weights, largest {largest} MiB"
