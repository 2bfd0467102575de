"""`llama-exp verify parity`: a right model passes, a wrong one is caught at the layer that is wrong."""

import numpy as np
import pytest
from small_models import make, make_run, with_adapters

from llama_exp import cli, formats
from llama_exp.verification import parity

pytestmark = pytest.mark.neutral


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    return stop.value.code


@pytest.mark.parametrize(
    ("form", "name", "options"),
    [
        ("keras_hub", "llama_3_2", ["--tokens", "40"]),
        ("hf", "linear_scaling", []),
        ("hf", "grouped_query", ["--precision", "bfloat16"]),
        ("keras_hub", "odd_widths", ["--precision", "mixed_float16"]),
    ],
)
def test_a_model_that_is_right(form, name, options, tmp_path, capsys):
    make(tmp_path / "one", form, name=name)
    assert run("verify", "parity", tmp_path / "one", *options) == 0
    output = capsys.readouterr().out
    assert "equal within" in output and "transformer_layer_1" in output and "logits" in output


CHANGES = {
    "transformer_layer_1/self_attention/value/kernel": "transformer_layer_1",
    "transformer_layer_0/feedforward_layernorm/scale": "transformer_layer_0",
    "token_embedding/embeddings": "token_embedding",
    "sequence_output_layernorm/scale": "sequence_output_layernorm",
    "token_embedding/reverse_embeddings": "logits",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    from llama_exp.models import LlamaCausalLM

    folder = tmp_path_factory.mktemp("models") / "one"
    make(folder)
    return LlamaCausalLM.from_preset(folder), folder


@pytest.mark.parametrize(("path", "layer"), CHANGES.items())
def test_a_wrong_weight_is_found_where_it_is(path, layer, small):
    model, folder = small
    variable = next(variable for variable in model.backbone.weights if variable.path == path)
    right = variable.numpy()
    token_ids = np.random.default_rng(0).integers(0, 256, (1, 8))
    try:
        variable.assign(right * 1.02)
        with formats.open_checkpoint(folder) as checkpoint:
            differences = parity.compare(model, checkpoint, token_ids, np.dtype("float32"))
    finally:
        variable.assign(right)
    assert parity.first_deviation(differences, 1e-4).layer == layer
    assert parity.first_deviation(differences, 1.0) is None


def test_a_deviation_is_told_and_exits_1(tmp_path, capsys):
    make(tmp_path / "one")
    assert run("verify", "parity", tmp_path / "one", "--tolerance", "1e-12") == 1
    output = capsys.readouterr().out
    assert "is the first to deviate" in output and "tolerance 1e-12" in output


def test_what_is_not_finite_is_beyond_every_tolerance():
    nan, inf = float("nan"), float("inf")
    for relative in (nan, inf):
        assert parity.first_deviation([parity.Difference("a", relative, relative)], 1e9).layer == "a"


def test_the_last_layer_is_what_the_backbone_returns(small):
    from keras import ops

    from llama_exp.models.layer_outputs import layer_outputs

    model, _ = small
    token_ids = np.arange(12, dtype="int32").reshape(2, 6)
    outputs = layer_outputs(model, token_ids)
    expected = ops.convert_to_numpy(model.backbone({"token_ids": token_ids}))
    np.testing.assert_array_equal(outputs["sequence_output_layernorm"], expected)


def test_a_run_is_verified_with_its_adapter(small, tmp_path, capsys):
    from llama_exp.models import LlamaCausalLM

    _, folder = small
    make_run(tmp_path / "run", folder, with_adapters(LlamaCausalLM.from_preset(folder)))
    assert run("verify", "parity", tmp_path / "run") == 0
    assert run("verify", "parity", tmp_path / "run", "--precision", "bfloat16") == 0
    capsys.readouterr()


def test_usage(capsys):
    assert run("verify", "partiy", "x") == 2
    assert "did you mean parity" in capsys.readouterr().err
    assert run("verify", "parity", "/nowhere") == 3
    assert run("verify", "--help") == 0
