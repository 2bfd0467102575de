"""`llama-exp merge`: what `lora.merge` does to a built model, without building it."""

import json

import h5py
import ml_dtypes
import numpy as np
import pytest
from oracles import TOLERANCE
from small_models import TOKENIZER, config, make, make_run, with_adapters

from llama_exp import cli, formats, lora
from llama_exp.commands import generate, models
from llama_exp.formats.keras_hub.lora import BLOCK
from llama_exp.models import LlamaCausalLM
from llama_exp.tokenizer import load

pytestmark = pytest.mark.neutral


def run(*arguments, code=0):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    assert stop.value.code == code


def adapted(folder, policy="float32", **arguments):
    """A model with adapters that change it."""
    return with_adapters(LlamaCausalLM.from_preset(folder, dtype=policy), **arguments)


def arrays_of(folder):
    with formats.open_checkpoint(folder) as checkpoint:
        return {path: tensor.read(None) for path, tensor in checkpoint.tensors.items()}


def variables(model):
    return {v.path: np.asarray(v.numpy()) for v in model.backbone.weights}


def same(found, expected):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].dtype == array.dtype
        np.testing.assert_array_equal(found[path].view(np.uint8), array.view(np.uint8), err_msg=path)


@pytest.mark.parametrize(
    ("form", "arguments"),
    [("keras_hub", {}), ("hf", {"use_rslora": True}), ("keras_hub", {"use_dora": True, "rank_pattern": {"mlp": 2}})],
)
def test_it_is_lora_merge_bit_for_bit(form, arguments, tmp_path, capsys):
    make(tmp_path / "base")
    (tmp_path / "base/metadata.json").write_text(json.dumps({"context_length": 3000}))
    model = adapted(tmp_path / "base", targets=["all-linear"], alpha=7.0, **arguments)
    make_run(tmp_path / "run", tmp_path / "base", model)
    run("merge", tmp_path / "run", "--to", tmp_path / "merged", "--format", form)
    output = capsys.readouterr().out
    assert "14 layers" in output and f"llama-exp chat {tmp_path / 'merged'}" in output
    lora.merge(model.backbone)
    same(arrays_of(tmp_path / "merged"), variables(model))
    with formats.open_checkpoint(tmp_path / "merged") as checkpoint:
        assert checkpoint.context_length == 3000
    assert load(tmp_path / "merged").fingerprint == TOKENIZER.fingerprint or form == "hf"


def test_a_bfloat16_base(tmp_path):
    """The sum is rounded once; the order of the products' sum may change its last bit."""
    make(tmp_path / "base", dtype=ml_dtypes.bfloat16)
    model = adapted(tmp_path / "base", "bfloat16")
    make_run(tmp_path / "run", tmp_path / "base", model, policy="bfloat16")
    run("merge", tmp_path / "run", "--to", tmp_path / "merged")
    lora.merge(model.backbone)
    same(arrays_of(tmp_path / "merged"), variables(model))
    run("merge", tmp_path / "run", "--to", tmp_path / "wide", "--dtype", "float32")
    found = arrays_of(tmp_path / "wide")
    for path, array in variables(model).items():
        assert found[path].dtype == np.float32
        np.testing.assert_array_equal(found[path].astype(ml_dtypes.bfloat16), array)


def test_pefts_own_folder_has_no_digest_and_fits_any_base(tmp_path):
    make(tmp_path / "base")
    model = adapted(tmp_path / "base")
    lora.save_adapter(model.backbone, tmp_path / "adapter")
    make(tmp_path / "other", form="hf", seed=9)
    arguments = ["merge", "--from", tmp_path / "other", "--adapter", tmp_path / "adapter", "--to", tmp_path / "merged"]
    run(*arguments, code=3)
    path = tmp_path / "adapter/adapter_model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = {"format": "pt"}
    text = json.dumps(header).encode().ljust(size)
    assert len(text) == size
    path.write_bytes(content[:8] + text + content[8 + size :])
    run(*arguments)
    base = arrays_of(tmp_path / "other")
    found = arrays_of(tmp_path / "merged")
    deltas = {path: layer.scale * layer.lora_a @ layer.lora_b for path, layer in lora.adapters(model.backbone).items()}
    for path, array in base.items():
        layer = path.removesuffix("/kernel")
        expected = array + np.asarray(deltas[layer]) if layer in deltas else array
        np.testing.assert_allclose(found[path], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("quantization", ["int8", "int4", "float8"])
def test_a_run_on_quantized_weights(quantization, tmp_path, capsys):
    """The base is what the stored numbers stand for, and its digest is that of these numbers."""
    make(tmp_path / "base")
    options = generate._parser().parse_args([str(tmp_path / "base"), "--quantization", quantization])
    model, _ = models.load(options)
    assert model.backbone.quantization.mode == quantization
    with_adapters(model)
    make_run(tmp_path / "run", tmp_path / "base", model, quantization={"mode": quantization})
    run("merge", tmp_path / "run", "--to", tmp_path / "merged")
    loaded, _ = models.load(generate._parser().parse_args([str(tmp_path / "run")]))
    assert lora.base_digest(loaded.backbone) == lora.base_digest(model.backbone)
    lora.merge(model.backbone)
    found = arrays_of(tmp_path / "merged")
    for path, array in variables(model).items():
        np.testing.assert_allclose(found[path], array, rtol=1e-6, atol=1e-7, err_msg=path)
    run("verify", "parity", tmp_path / "run", "--tolerance", "0.2")
    capsys.readouterr()


QUANTIZATIONS = [
    ({"mode": "int8", "quantize_activations": False}, "int8 weights"),
    ({"mode": "int4"}, "int4 weights, a scale per 32 inputs, int8 embeddings, int8 key and value"),
    ({"mode": "int4", "group_size": 8, "embeddings": "int4", "int8_layers": []}, "int4 weights, a scale per 8 inputs"),
    ({"mode": "float8"}, "float8 weights"),
]


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize(("quantization", "words"), QUANTIZATIONS)
def test_a_merged_qlora_run_computes_what_was_trained(quantization, words, use_dora, tmp_path, capsys):
    make(tmp_path / "base")
    model = LlamaCausalLM.from_preset(tmp_path / "base", dtype="float32")
    model.backbone.quantize(**quantization)
    with_adapters(model, use_dora=use_dora)
    make_run(tmp_path / "run", tmp_path / "base", model, quantization=quantization)
    run("merge", tmp_path / "run", "--to", tmp_path / "merged")
    shown = capsys.readouterr()
    assert f"none any more: {words} became floating point" in shown.out
    found = LlamaCausalLM.from_preset(tmp_path / "merged", dtype="float32")
    assert found.backbone.quantization is None
    ids = np.random.default_rng(0).integers(0, 200, (2, 7)).astype("int32")
    batch = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    trained, merged, base = (
        np.asarray(one(batch)) for one in (model, found, LlamaCausalLM.from_preset(tmp_path / "base", dtype="float32"))
    )
    # Scales are applied to kernels here and to products there, so that float32 rounds in other places.
    np.testing.assert_allclose(merged, trained, rtol=0, atol=TOLERANCE)
    assert np.abs(merged - base).max() > 100 * TOLERANCE  # the adapters say something


def keras_hub_adapter(path):
    """KerasHub's file of adapters on query and value; see `formats.keras_lora` for its numbers of layers."""
    architecture, generator = config(), np.random.default_rng(3)
    hidden, heads, groups = (architecture[key] for key in ("hidden_dim", "num_query_heads", "num_key_value_heads"))
    shapes = {9: ((hidden, groups, 3), (3, hidden // heads)), 11: ((hidden, heads, 3), (3, hidden // heads))}
    with h5py.File(path, "w") as file:
        file["lora/vars/rank"] = np.asarray(3, "int32")
        for block in range(architecture["num_layers"]):
            for number, pair in shapes.items():
                for letter, shape in zip("ab", pair, strict=True):
                    name = f"lora/{number + block * len(BLOCK)}/vars/lora_kernel_{letter}"
                    file[name] = generator.normal(0, 0.3, shape).astype("float32")


@pytest.mark.parametrize("form", ["keras_hub", "hf"])
def test_an_adapter_of_keras_hub(form, tmp_path, capsys):
    """Equal to `lora.merge` on the built model, and to the products of the file's own matrices."""
    arrays = make(tmp_path / "base", form=form)
    keras_hub_adapter(tmp_path / "x.lora.h5")
    arguments = ["--from", tmp_path / "base", "--adapter", tmp_path / "x.lora.h5", "--to", tmp_path / "merged"]
    run("merge", *arguments, "--format", form)
    assert f"{2 * config()['num_layers']} layers of {tmp_path / 'x.lora.h5'}" in capsys.readouterr().out
    model = LlamaCausalLM.from_preset(tmp_path / "base", dtype="float32")
    lora.load_adapter(model.backbone, tmp_path / "x.lora.h5")
    lora.merge(model.backbone)
    found = arrays_of(tmp_path / "merged")
    for path, array in variables(model).items():
        np.testing.assert_allclose(found[path], array, rtol=1e-6, atol=1e-6, err_msg=path)
    with h5py.File(tmp_path / "x.lora.h5") as file:
        a_DNR, b_RH = (file[f"lora/11/vars/lora_kernel_{letter}"][:] for letter in "ab")
    path = "transformer_layer_0/self_attention/query/kernel"
    expected = arrays[path] + np.einsum("dnr,rh->dnh", a_DNR, b_RH).reshape(arrays[path].shape)
    np.testing.assert_allclose(found[path], expected, rtol=1e-6, atol=1e-6)


def test_another_base_is_refused(tmp_path, capsys):
    make(tmp_path / "base")
    make_run(tmp_path / "run", tmp_path / "base", adapted(tmp_path / "base"))
    before = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "base").rename(tmp_path / "original")
    make(tmp_path / "base", seed=1)
    run("merge", tmp_path / "run", "--to", tmp_path / "merged", code=3)
    assert "trained on other base weights" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "original"])


def test_what_overflows_is_refused(tmp_path, capsys):
    make(tmp_path / "base")
    model = adapted(tmp_path / "base")
    for variable in model.backbone.trainable_variables:
        variable.assign(variable * 0 + 300.0)
    make_run(tmp_path / "run", tmp_path / "base", model)
    run("merge", tmp_path / "run", "--to", tmp_path / "merged", "--dtype", "float16", code=3)
    assert "too large for its type" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["--to x", "--from a --to x", "--adapter a --to x", "r --from a --to x"])
def test_usage_errors(line, capsys):
    run("merge", *line.split(), code=2)
    assert "give a run's folder, or both --from and --adapter" in capsys.readouterr().err


def test_the_targets_of_runs_are_safe(tmp_path, capsys):
    make(tmp_path / "base")
    make_run(tmp_path / "run", tmp_path / "base", adapted(tmp_path / "base"))
    for target in (tmp_path / "base", tmp_path / "run/adapter", tmp_path / "run"):
        run("merge", tmp_path / "run", "--to", target, "--overwrite", code=4)
    capsys.readouterr()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/run.json").write_text("{}")
    (tmp_path / "full/config.yaml").write_text((tmp_path / "run/config.yaml").read_text())
    (tmp_path / "full/model").symlink_to(tmp_path / "base")
    run("merge", tmp_path / "full", "--to", tmp_path / "merged", code=3)
    assert "no adapter to merge" in capsys.readouterr().err
