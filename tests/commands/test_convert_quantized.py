"""`llama-exp convert --quantization`: a model rounded once is what it would be after rounding at every start."""

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import yaml
from daily import slow_on_jax
from promptness import within
from rich.console import Console
from small_models import make, make_run, with_adapters

from llama_exp import cli, formats
from llama_exp.architecture import LINEAR_NAMES, make_quantization
from llama_exp.commands import convert as command
from llama_exp.commands import export, generate, models
from llama_exp.config.check import CONF
from llama_exp.console import live
from llama_exp.formats.quantized import dequantize_checkpoint
from llama_exp.models import LlamaCausalLM
from llama_exp.quantization import describe, fit_checkpoint

ROOT = Path(__file__).resolve().parents[2]
GPTQ = ["--quantization", "int4", "--group-size", "16", "--gptq"]


def run(*arguments, code=0):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    assert stop.value.code == code


def convert(source, folder, *more, code=0, form="keras_hub"):
    run("convert", "--from", source, "--to", folder, "--format", form, *more, code=code)


def section(name, **changes):
    """`quantization=<name>` and its keys, as a config composes them."""
    files = [yaml.safe_load((CONF / "quantization" / f"{file}.yaml").read_text()) for file in ("none", name)]
    return {key: value for file in files for key, value in file.items() if key != "defaults"} | changes


def words(options):
    """A test's name of command-line options; None: pytest's own."""
    return " ".join(options) if isinstance(options, list) else None


def arrays_of(checkpoint):
    return {path: tensor.read(None) for path, tensor in checkpoint.tensors.items()}


def same(found, expected):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].dtype == array.dtype
        np.testing.assert_array_equal(found[path].view(np.uint8), array.view(np.uint8), err_msg=path)


def test_names_are_those_of_the_configuration():
    names = {path.stem for path in (CONF / "quantization").glob("*.yaml")}
    assert set(command.QUANTIZATIONS) == names - {"float8", "preset"}
    for name, options in command.QUANTIZATIONS.items():
        assert make_quantization(**options) == make_quantization(**section(name))


@pytest.mark.parametrize(
    ("model", "form", "name", "options", "changes"),
    [
        ("tied", "hf", "int8", [], {}),
        ("odd_widths", "keras_hub", "int8_weight_only", [], {}),
        ("odd_widths", "keras_hub", "int4", [], {}),
        ("tied", "hf", "int4", ["--group-size", "0"], {"group_size": 0}),
        (
            "tied",
            "hf",
            "int4",
            ["--group-size", "20", "--embeddings", "int4"],
            {"group_size": 20, "embeddings": "int4"},
        ),
        ("odd_widths", "keras_hub", "int4", ["--group-size", "16", "--gptq"], {"group_size": 16, "gptq": True}),
        ("tied", "hf", "int4", ["--int8-layers"], {"int8_layers": []}),
        ("tied", "hf", "int4", ["--int8-layers", "value", "query"], {"int8_layers": ["query", "value"]}),
    ],
    ids=words,
)
def test_it_is_what_a_model_gets_that_is_loaded_so(name, options, changes, model, form, tmp_path, capsys):
    make(tmp_path / "one", form=form, name=model, dtype=ml_dtypes.bfloat16)
    wanted = make_quantization(**section(name, **changes))
    with formats.open_checkpoint(tmp_path / "one") as checkpoint:
        expected = arrays_of(fit_checkpoint(checkpoint, wanted))
    convert(tmp_path / "one", tmp_path / "two", "--quantization", name, *options)
    output = capsys.readouterr().out
    assert describe(wanted) in output and f"preset.source={tmp_path / 'two'} lora.rank=8" in output
    with formats.open_checkpoint(tmp_path / "two") as checkpoint:
        assert checkpoint.quantization == wanted
        same(arrays_of(checkpoint), expected)
    convert(tmp_path / "two", tmp_path / "three", "--quantization", "none")  # as it is
    assert describe(wanted) in capsys.readouterr().out
    with formats.open_checkpoint(tmp_path / "three") as checkpoint:
        same(arrays_of(checkpoint), expected)
        floats = arrays_of(dequantize_checkpoint(checkpoint))
    convert(tmp_path / "three", tmp_path / "four", "--dtype", "float32", form="hf")
    with formats.open_checkpoint(tmp_path / "four") as checkpoint:
        same(arrays_of(checkpoint), {path: array.astype("float32") for path, array in floats.items()})


@pytest.mark.neutral
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_commands_load_the_same_model(mode, tmp_path):
    """Of a source in bfloat16: also the same policy, although scales are float32."""
    make(tmp_path / "one", dtype=ml_dtypes.bfloat16)
    convert(tmp_path / "one", tmp_path / "two", "--quantization", mode)
    one, two = (
        models.load(generate._parser().parse_args([*map(str, arguments)]))[0].backbone
        for arguments in ([tmp_path / "one", "--quantization", mode], [tmp_path / "two"])
    )
    assert (one.quantization, one.compute_dtype) == (two.quantization, two.compute_dtype)
    assert one.compute_dtype == "bfloat16"
    expected = {variable.path: np.asarray(variable.numpy()) for variable in one.weights}
    same({variable.path: np.asarray(variable.numpy()) for variable in two.weights}, expected)


@slow_on_jax
@pytest.mark.neutral
def test_adapters_of_one_fit_the_other(tmp_path):
    """Trained over integers that were made at the start, merged into those that were made once; and the other way."""
    make(tmp_path / "one")
    convert(tmp_path / "one", tmp_path / "two", *GPTQ)
    model = with_adapters(LlamaCausalLM.from_preset(tmp_path / "two", dtype="float32"))
    stated = section("int4", group_size=16, gptq=True)
    make_run(tmp_path / "run_one", tmp_path / "one", model, quantization=stated)
    make_run(tmp_path / "run_two", tmp_path / "two", model, quantization=section("preset"))
    run("merge", tmp_path / "run_one", "--to", tmp_path / "merged_one")
    run("merge", tmp_path / "run_two", "--to", tmp_path / "merged_two", "--dtype", "float32")
    with (
        formats.open_checkpoint(tmp_path / "merged_one") as one,
        formats.open_checkpoint(tmp_path / "merged_two") as two,
    ):
        same(arrays_of(two), arrays_of(one))


@pytest.mark.oracle
def test_keras_hub_loads_it(tmp_path):
    """But cannot save again what it loaded, its own quantized presets included: no reader of ours depends on that."""
    import keras
    import keras_hub
    from keras import ops

    make(tmp_path / "one", num_layers=1)
    convert(tmp_path / "one", tmp_path / "two", *GPTQ)
    document = json.loads((tmp_path / "two" / "config.json").read_text())
    dtype = keras.saving.deserialize_keras_object(document["config"]["dtype"])
    theirs = keras_hub.models.Backbone.from_preset(str(tmp_path / "two"), dtype=dtype)
    stored = {variable.path: ops.convert_to_numpy(variable.value) for variable in theirs.weights}
    with formats.open_checkpoint(tmp_path / "two") as checkpoint:
        for path, array in arrays_of(checkpoint).items():
            assert np.array_equal(stored[path].reshape(array.shape), array), path
    with pytest.raises(ValueError, match="Invalid dtype: object"):
        theirs.save_to_preset(str(tmp_path / "three"))


@pytest.mark.parametrize(
    ("form", "options", "told"),
    [
        ("keras_hub", ["--quantization", "float8"], ["--quantization: ", "float8 weights", "each start"]),
        ("keras_hub", ["--quantization", "int44"], ["invalid choice", "did you mean int4?"]),
        ("keras_hub", ["--gptq"], ["--gptq: only int4", "--quantization none"]),
        ("keras_hub", ["--quantization", "int8", "--embeddings", "int4"], ["--embeddings: only int4", "int8"]),
        ("keras_hub", ["--quantization", "int4", "--group-size", "-1"], ["--group-size: -1 must be 0"]),
        ("keras_hub", ["--quantization", "int4", "--int8-layers", *LINEAR_NAMES], ["leaves nothing to be int4"]),
        ("keras_hub", ["--quantization", "int4", "--group-size", "1000000"], ["--group-size: 1000000 must be 0"]),
        ("keras_hub", ["--quantization", "int4", "--dtype", "bfloat16"], ["--dtype: ", "bfloat16 with", "leave one"]),
        ("hf", ["--quantization", "int4"], ["--format: ", "hf with --quantization int4", "--format keras_hub"]),
        (
            "hf",
            ["--quantization", "int8", "--gptq", "--group-size", "16", "--int8-layers", "--dtype", "float32"],
            ["--gptq: ", "--group-size: ", "--int8-layers: ", "--dtype: ", "--format: "],
        ),
    ],
    ids=words,
)
def test_what_contradicts_itself_is_told_at_once(form, options, told, tmp_path, capsys):
    with within(1):
        convert(tmp_path / "nowhere", tmp_path / "two", *options, code=2, form=form)
    error = capsys.readouterr().err
    assert all(text in error for text in told), error
    assert list(tmp_path.iterdir()) == []


def test_integers_are_not_rounded_again(tmp_path, capsys):
    make(tmp_path / "one")
    convert(tmp_path / "one", tmp_path / "two", "--quantization", "int8")
    convert(tmp_path / "two", tmp_path / "three", "--quantization", "int4", code=2)
    error = capsys.readouterr().err
    assert "quantized already" in error and "int8 weights" in error and "leave --quantization out" in error
    assert not (tmp_path / "three").exists()


def test_a_target_that_cannot_be_written_is_told_before_anything_is_rounded(tmp_path, capsys, monkeypatch):
    make(tmp_path / "one")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(export, "fit_checkpoint", lambda *_: pytest.fail("rounded in vain"))
    convert(tmp_path / "one", tmp_path / "file" / "two", *GPTQ, code=4)
    usage = export.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(export.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    convert(tmp_path / "one", tmp_path / "two", *GPTQ, code=4)
    assert "too full" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--quantization", "int8"], ["--quantization", "int4"], GPTQ], ids=words)
def test_a_weight_that_is_not_finite_leaves_nothing(options, tmp_path, capsys):
    make(tmp_path / "one", form="hf")
    path = tmp_path / "one/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32("nan").tobytes()
    path.write_bytes(content)
    convert(tmp_path / "one", tmp_path / "two", *options, code=3)
    assert "not finite" in capsys.readouterr().err and not (tmp_path / "two").exists()


def test_how_it_was_rounded_is_read_back_too(tmp_path, capsys, monkeypatch):
    make(tmp_path / "one")
    reopen = formats.open_checkpoint

    @contextlib.contextmanager
    def forgetful(path):
        with reopen(path) as checkpoint:
            stored = checkpoint.quantization and dataclasses.replace(
                checkpoint.quantization, asymmetric_activations=False
            )
            yield dataclasses.replace(checkpoint, quantization=stored)

    monkeypatch.setattr(export.formats, "open_checkpoint", forgetful)
    convert(tmp_path / "one", tmp_path / "two", "--quantization", "int8", code=4)
    assert "asymmetric activations" in capsys.readouterr().err and not (tmp_path / "two").exists()


def test_progress_of_rounding_is_shown_on_a_terminal(tmp_path, monkeypatch):
    make(tmp_path / "one")
    shown = io.StringIO()
    monkeypatch.setattr(live, "is_terminal", lambda: True)
    monkeypatch.setattr(live, "terminal", lambda: Console(file=shown, force_terminal=True))
    convert(tmp_path / "one", tmp_path / "two", *GPTQ)
    assert "rounding" in shown.getvalue() and "129/129" in shown.getvalue()  # 127 tokens and 2 blocks


@pytest.mark.process
@pytest.mark.parametrize(("options", "code"), [(GPTQ, 0), (["--gptq"], 2)], ids=["gptq", "error"])
def test_no_framework(options, code, tmp_path):
    make(tmp_path / "one")
    program = (
        "import sys\nfrom llama_exp import cli\n"
        "try:\n    cli.main(sys.argv[1:])\nexcept SystemExit as stop:\n    print('code', stop.code)\n"
        "print([name for name in ('keras', 'tensorflow', 'jax', 'torch', 'wandb') if name in sys.modules])"
    )
    arguments = ["convert", "--from", tmp_path / "one", "--to", tmp_path / "two", "--format", "keras_hub", *options]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-2:] == [f"code {code}", "[]"], done.stderr
