"""`llama-exp convert|merge --format gguf`: the folder, what it says, and what is refused."""

import json

import gguf
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import ModelCard
from small_models import TEMPLATE, TOKENIZER, make, make_run, with_adapters

from llama_exp import cli, formats
from llama_exp.formats.gguf import export
from llama_exp.formats.quantized import dequantize_checkpoint
from llama_exp.lora import merge
from llama_exp.models import LlamaCausalLM
from llama_exp.tokenizer import load
from llama_exp.tokenizer.chat_template import BUILT_IN

GGUF = ("--format", "gguf")
LENGTH = ("--context-length", "64")


def run(*arguments, code=0):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    assert stop.value.code == code


def arrays_of(path):
    with formats.open_checkpoint(path) as checkpoint:
        return {key: tensor.read(None) for key, tensor in checkpoint.tensors.items()}, checkpoint.context_length


def test_a_preset(tmp_path, capsys):
    arrays = make(tmp_path / "one", dtype=ml_dtypes.bfloat16)
    run("convert", "--from", tmp_path / "one", "--to", tmp_path / "out", *GGUF, *LENGTH)
    told = capsys.readouterr().out
    file = tmp_path / "out/model-BF16.gguf"
    assert sorted(path.name for path in file.parent.iterdir()) == ["Modelfile", "README.md", file.name]
    assert "the file read back and equal" in told and f"llama-exp chat {file}" in told
    found, length = arrays_of(file)
    assert length == 64 and all(
        np.array_equal(found[key], array.astype(found[key].dtype)) for key, array in arrays.items()
    )
    tokenizer = load(file)
    assert tokenizer.chat_template == TEMPLATE and tokenizer.encode("Hi é 123") == TOKENIZER.encode("Hi é 123")
    assert gguf.GGUFReader(file).fields["general.name"].contents() == "one"
    assert ModelCard.load(file.parent / "README.md").data.library_name == "gguf"
    run("convert", "--from", file, "--to", tmp_path / "back", "--format", "hf")  # and back
    assert np.array_equal(
        arrays_of(tmp_path / "back")[0]["token_embedding/embeddings"], found["token_embedding/embeddings"]
    )


@pytest.mark.parametrize("name", ["Q8_0", "q4_0", "Q4_1", "f16", "float16"])
def test_types_by_either_name(name, tmp_path, capsys):
    make(tmp_path / "one")
    run("convert", "--from", tmp_path / "one", "--to", tmp_path / "out", *GGUF, *LENGTH, "--dtype", name)
    shown = {"float16": "F16"}.get(name, name.upper())
    assert (tmp_path / f"out/model-{shown}.gguf").is_file()
    told = capsys.readouterr().out
    assert ("2 matrices are F16 instead: their rows of 40 values" in told) == (shown != "F16")


def test_a_runs_adapter_with_the_template_that_it_was_taught(tmp_path, capsys):
    """Merged bit for bit; from a base that has another template; in every format."""
    make(tmp_path / "base")
    model = with_adapters(LlamaCausalLM.from_preset(tmp_path / "base", dtype="float32"))
    make_run(tmp_path / "run", tmp_path / "base", model, sequence_length=48, chat_template="llama3")
    for form in ("gguf", "hf"):
        run("merge", tmp_path / "run", "--to", tmp_path / form, "--format", form)
    merge(model.backbone)
    found, length = arrays_of(tmp_path / "gguf/model-F32.gguf")
    assert length == 48  # of its rows: nothing else is known
    for variable in model.backbone.weights:
        np.testing.assert_array_equal(found[variable.path], np.asarray(variable), err_msg=variable.path)
    for path in ("gguf/model-F32.gguf", "hf"):
        assert load(tmp_path / path).chat_template in BUILT_IN.values()
    modelfile = (tmp_path / "gguf/Modelfile").read_text()
    assert "<|start_header_id|>assistant" in modelfile and "num_ctx 48" in modelfile
    card = ModelCard.load(tmp_path / "gguf/README.md")
    assert "lora" in card.data.tags and "with the LoRA adapter of a run" in card.text


def test_a_quantized_model_becomes_floating_point(tmp_path, capsys):
    make(tmp_path / "base")
    run(
        "convert",
        "--from",
        tmp_path / "base",
        "--to",
        tmp_path / "q",
        "--format",
        "keras_hub",
        "--quantization",
        "int8",
    )
    run("convert", "--from", tmp_path / "q", "--to", tmp_path / "out", *GGUF, *LENGTH, code=2)
    told = capsys.readouterr().err
    assert "--dtype" in told and "Q8_0" in told
    run("convert", "--from", tmp_path / "q", "--to", tmp_path / "out", *GGUF, *LENGTH, "--dtype", "F32")
    with formats.open_checkpoint(tmp_path / "q") as checkpoint:
        meant = {key: tensor.read(None) for key, tensor in dequantize_checkpoint(checkpoint).tensors.items()}
    found, _ = arrays_of(tmp_path / "out/model-F32.gguf")
    assert all(np.array_equal(found[key], array) for key, array in meant.items())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((*GGUF,), 2, "--context-length 4096"),
        ((*GGUF, *LENGTH, "--quantization", "int8"), 2, "give --dtype Q8_0 in place"),
        ((*GGUF, *LENGTH, "--max-shard-size", "1"), 2, "a GGUF file is a single one"),
        ((*GGUF, *LENGTH, "--dtype", "Q5_K"), 2, "invalid choice"),
        ((*GGUF, "--context-length", "0"), 2, "must be at least 1"),
        (("--format", "hf", "--dtype", "Q8_0"), 2, "only a GGUF file has such blocks"),
        (("--format", "keras_hub", *LENGTH), 2, "is for GGUF files only"),
    ],
)
def test_mistakes_leave_nothing(arguments, code, words, tmp_path, capsys):
    make(tmp_path / "one")
    run("convert", "--from", tmp_path / "one", "--to", tmp_path / "out", *arguments, code=code)
    told = capsys.readouterr().err
    assert words in told and "fix:" in told and not (tmp_path / "out").exists()


def test_a_tokenizer_that_llama_cpp_has_not(tmp_path, capsys):
    make(tmp_path / "one", "hf")
    document = json.loads((tmp_path / "one/tokenizer.json").read_text())
    document["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "one/tokenizer.json").write_text(json.dumps(document))
    run("convert", "--from", tmp_path / "one", "--to", tmp_path / "out", *GGUF, *LENGTH, code=3)
    assert "changes the text" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_replaced_only_if_one_says_so(tmp_path, capsys):
    make(tmp_path / "one")
    for dtype, more, code in (("F16", (), 0), ("Q8_0", (), 4), ("Q8_0", ("--overwrite",), 0)):
        options = (*GGUF, *LENGTH, "--dtype", dtype, *more)
        run("convert", "--from", tmp_path / "one", "--to", tmp_path / "out", *options, code=code)
    assert "--overwrite" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").glob("*.gguf")] == ["model-Q8_0.gguf"]


def test_a_disk_that_gives_back_something_else(tmp_path, capsys, monkeypatch):
    make(tmp_path / "one")
    real = export.write

    def damaging(path, *arguments):
        size = real(path, *arguments)
        content = bytearray(path.read_bytes())
        content[-50] ^= 1
        path.write_bytes(content)
        return size

    monkeypatch.setattr(export, "write", damaging)
    run("convert", "--from", tmp_path / "one", "--to", tmp_path / "out", *GGUF, *LENGTH, "--dtype", "Q8_0", code=4)
    assert "not what was written" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_licence_of_the_same_weights_goes_along(tmp_path):
    make(tmp_path / "one")
    (tmp_path / "one/README.md").write_text("---\nlicense: mit\n---\n# theirs\n")
    run("convert", "--from", tmp_path / "one", "--to", tmp_path / "out", "--format", "hf")
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card.data.license == "mit" and "README.md of `one`" in card.text
    assert (tmp_path / "one/README.md").read_text().endswith("# theirs\n")
    (tmp_path / "one/README.md").write_text("---\n: [broken\n---\n")
    run("convert", "--from", tmp_path / "one", "--to", tmp_path / "other", "--format", "hf")
    assert "license" not in ModelCard.load(tmp_path / "other/README.md").data.to_dict()
