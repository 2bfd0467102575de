"""Adapters between this package, PEFT and KerasHub: the same outputs in every direction."""

import json

import h5py
import numpy as np
import oracles
import pytest
from adapted import IDS, fill, hidden, make
from daily import with_others
from gradients import loss_and_gradients
from keras import ops
from whole_adapter import read_adapter

from llama_exp import lora
from llama_exp.architecture import OPTIONS
from llama_exp.errors import InputError, StorageError
from llama_exp.lora import source as lora_source
from llama_exp.lora import targets as lora_targets
from llama_exp.models import LlamaBackbone
from llama_exp.models import build as model

pytestmark = pytest.mark.neutral


def logits(backbone):
    return ops.convert_to_numpy(backbone.token_embedding.project(backbone({"token_ids": IDS})))


def torch_logits(model):
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS, dtype=torch.long)).logits.numpy()


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {"targets": ["query", "mlp"], "rank_pattern": {"query": 2}, "alpha_pattern": {"mlp": 1.5}},
        {"targets": [r"transformer_layer_1/.*/(key|value)"]},
    ],
)
def test_saved_adapter_comes_back(tmp_path, arguments, use_dora):
    arguments |= {"rank": 4, "alpha": 6, "use_rslora": True, "use_dora": use_dora}
    backbone = make()
    backbone.enable_lora(**arguments, dropout=0.1)
    fill(backbone)
    lora.save_adapter(backbone, tmp_path / "adapter")
    fresh, prepared = make(), make()
    prepared.enable_lora(**arguments)
    for other in (fresh, prepared):
        lora.load_adapter(other, tmp_path / "adapter")
        assert set(lora.adapter_variables(other)) == set(lora.adapter_variables(backbone))
        np.testing.assert_array_equal(hidden(other), hidden(backbone))
    assert fresh.lora_arguments == backbone.lora_arguments


@pytest.mark.parametrize("use_dora", [False, True])
def test_an_adapter_from_its_file_learns_on_over_the_same_base(tmp_path, use_dora):
    """Keras' own files would give back a merged kernel and A = B = 0, which has no gradient ever again."""
    backbone = make()
    backbone.enable_lora(4, use_dora=use_dora)
    fill(backbone)
    digest = lora.save_adapter(backbone, tmp_path)
    again = make()
    lora.load_adapter(again, tmp_path)
    found, expected = lora.adapter_variables(again), lora.adapter_variables(backbone)
    for path, variable in expected.items():
        values = ops.convert_to_numpy(variable.value)
        assert np.abs(values).max() > 0
        np.testing.assert_array_equal(ops.convert_to_numpy(found[path].value), values)
    assert lora.base_digest(again) == digest == lora.base_digest(make())
    _, gradients = loss_and_gradients(
        lambda: ops.mean(ops.square(again({"token_ids": IDS}, training=True) - 1.0)), again
    )
    assert set(gradients) == set(expected)
    for path, gradient in gradients.items():
        assert np.linalg.norm(gradient) > 0, path


# --- PEFT


@pytest.mark.oracle
@pytest.mark.parametrize(
    "arguments",
    [
        {"targets": ["all-linear"]},
        {"targets": [r"transformer_layer_1/.*/(query|value)"]},
        {
            "targets": ["attention"],
            "rank_pattern": {"query": 7, "transformer_layer_0/.*/key": 2},
            "alpha_pattern": {"value": 2.5},
        },
    ],
)
@pytest.mark.parametrize("use_dora", [False, True])
def test_peft_loads_our_adapter(tmp_path, arguments, use_dora):
    import peft

    backbone = make()
    other = oracles.transformers_model(backbone)
    plain = torch_logits(other)
    backbone.enable_lora(4, alpha=6, use_rslora=True, use_dora=use_dora, **arguments)
    fill(backbone)
    lora.save_adapter(backbone, tmp_path)
    expected = torch_logits(peft.PeftModel.from_pretrained(other, str(tmp_path)).eval())
    assert np.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(logits(backbone), expected, atol=oracles.TOLERANCE)


PATTERNS = {
    "rank_pattern": {"v_proj": 5, r"^model\.layers\.1\..*q_proj": 2, "layers.0.mlp.down_proj": 1},
    "alpha_pattern": {"q_proj": 3, r"layers\.1\.mlp\.down_proj": 7},
}


@pytest.mark.oracle
@pytest.mark.parametrize(
    "arguments",
    [
        {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"]},
        {"r": 4, "lora_alpha": 6, "target_modules": ["k_proj", "o_proj", "up_proj"], "use_rslora": True},
        {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"], **PATTERNS},
        {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"], "use_rslora": True, **PATTERNS},
        {"r": 2, "lora_alpha": 2, "target_modules": "all-linear", "rank_pattern": {"o_proj": 3}},
        {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"], "use_dora": True},
        {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"], "use_dora": True, **PATTERNS},
        {"r": 2, "lora_alpha": 8, "target_modules": r".*\.1\..*gate_proj", "init_lora_weights": "gaussian"},
        {"r": 2, "lora_alpha": 1, "target_modules": ["q_proj", "gate_proj"], "layers_to_transform": [1]},
        {"r": 2, "lora_alpha": 1, "target_modules": ["v_proj"], "exclude_modules": ["layers.0.self_attn.v_proj"]},
    ],
)
def test_adapters_go_from_peft_to_us_and_back(tmp_path, arguments):
    import peft
    import torch

    backbone = make()
    torch.manual_seed(0)
    adapted = peft.get_peft_model(oracles.transformers_model(backbone), peft.LoraConfig(lora_dropout=0.25, **arguments))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    adapted = adapted.eval()
    adapted.save_pretrained(tmp_path / "theirs")
    expected, plain = torch_logits(adapted), logits(backbone)
    lora.load_adapter(backbone, tmp_path / "theirs")
    np.testing.assert_allclose(logits(backbone), expected, atol=oracles.TOLERANCE)
    assert np.abs(expected - plain).max() > 0.1 and backbone.lora_arguments["dropout"] == 0.25
    lora.save_adapter(backbone, tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(oracles.transformers_model(make()), str(tmp_path / "ours")).eval()
    np.testing.assert_array_equal(torch_logits(again), expected)


# --- KerasHub


def of_keras_hub(backbone, path, rank=3, targets=None):
    """KerasHub's model with the weights of `backbone` and random adapters, which are saved in `path`."""
    other = oracles.keras_hub_backbone(backbone)
    other.enable_lora(rank, targets)
    generator = np.random.default_rng(1)
    for variable in other.trainable_variables:
        variable.assign(generator.normal(size=tuple(variable.shape)) * 0.1)
    other.save_lora_weights(str(path))
    return other


LINEARS = [*lora_targets.ATTENTION, *lora_targets.MLP]


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("sizes", "rank", "targets"),
    with_others(
        [((40, 3, 4, 32, 48, 1), 2, LINEARS)],
        [
            ((40, 2, 4, 32, 48, 2), 3, None),  # KerasHub's default: query and value
            ((40, 1, 2, 16, 24, 2), 1, ["key", "attention_output", "feedforward_output_dense"]),
        ],
    ),
)
def test_outputs_are_those_of_keras_hub(tmp_path, sizes, rank, targets):
    backbone = LlamaBackbone(*sizes)
    oracles.randomize(backbone)
    plain = hidden(backbone)
    theirs = of_keras_hub(backbone, tmp_path / "x.lora.h5", rank, targets)
    mask = np.ones_like(IDS)
    expected = ops.convert_to_numpy(theirs({"token_ids": IDS, "padding_mask": mask}))
    lora.load_adapter(backbone, tmp_path / "x.lora.h5")
    wanted = targets or ["query", "value"]
    assert {path.rpartition("/")[2] for path in lora.adapters(backbone)} == set(wanted)
    assert np.abs(expected - plain).max() > 0.05
    np.testing.assert_allclose(hidden(backbone), expected, atol=oracles.EXACT_TOLERANCE)
    # As a folder of PEFT's it says the same, rank for rank.
    lora.save_adapter(backbone, tmp_path / "peft")
    again = LlamaBackbone(*sizes)
    oracles.randomize(again)
    lora.load_adapter(again, tmp_path / "peft")
    np.testing.assert_array_equal(hidden(again), hidden(backbone))
    assert again.lora_arguments == backbone.lora_arguments


@pytest.mark.oracle
def test_the_layers_of_every_number(tmp_path):
    """KerasHub's own file of a model of three blocks, layer by layer: no two of its layers are confused."""
    backbone = LlamaBackbone(40, 3, 2, 32, 32, 2, dropout=0.1)  # many layers of equal shapes
    other = oracles.keras_hub_backbone(backbone)
    other.enable_lora(1, LINEARS)
    values = {}
    for number, layer in enumerate(layer for layer in other._flatten_layers() if getattr(layer, "lora_enabled", False)):
        values[layer.path] = number + 1
        layer.lora_kernel_a.assign(np.full(tuple(layer.lora_kernel_a.shape), number + 1))
    other.save_lora_weights(str(tmp_path / "x.lora.h5"))
    found = read_adapter(tmp_path / "x.lora.h5", backbone.get_config())
    assert {path: int(a_IR.max()) for path, (a_IR, _, _) in found.items()} == values and len(values) == 21


@pytest.mark.oracle
def test_peft_computes_what_keras_hub_did(tmp_path):
    import peft

    backbone = make()
    of_keras_hub(backbone, tmp_path / "x.lora.h5", 2, ["query", "value", "attention_output"])
    lora.load_adapter(backbone, tmp_path / "x.lora.h5")
    lora.save_adapter(backbone, tmp_path / "peft")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["r"] == 2 and config["rank_pattern"] == {"q_proj": 8, "v_proj": 4}
    adapted = peft.PeftModel.from_pretrained(oracles.transformers_model(make()), str(tmp_path / "peft")).eval()
    np.testing.assert_allclose(logits(backbone), torch_logits(adapted), atol=oracles.TOLERANCE)


@pytest.mark.oracle
def test_adapters_of_keras_hub_need_the_ranks_that_are_equal_to_theirs(tmp_path):
    path = tmp_path / "x.lora.h5"
    backbone = make()
    of_keras_hub(backbone, path, 2, ["attention_output"])
    backbone.enable_lora(2, targets=["attention_output"])
    lora.load_adapter(backbone, path)
    with h5py.File(path) as file:
        stored = file["lora/8/vars/lora_kernel_a"][()].reshape(32, 2)
    first = lora.adapters(backbone)["transformer_layer_0/self_attention/attention_output"]
    np.testing.assert_array_equal(ops.convert_to_numpy(first.lora_a.value), stored)
    prepared = make()
    prepared.enable_lora(2, alpha=4, targets=["query", "attention_output"])
    with pytest.raises(InputError) as error:
        lora.load_adapter(prepared, path)
    message = str(error.value)
    assert "has 2 layers, the model adapts 4" in message and "set lora.targets=[attention_output]" in message
    assert (
        "not in the file: transformer_layer_0/self_attention/query" in message
        and "(2, 1.0) (model: (2, 2.0))" in message
    )
    assert ops.convert_to_numpy(lora.adapters(prepared)[first.path.rpartition("/")[0]].lora_b.value).max() == 0


# --- what does not fit


@pytest.fixture
def saved(tmp_path):
    backbone = make()
    backbone.enable_lora(4)
    fill(backbone)
    lora.save_adapter(backbone, tmp_path)
    return tmp_path


def test_adapters_of_another_base_or_shape_are_refused(saved):
    for backbone, named in (
        (make(seed=1), "other base weights"),
        (LlamaBackbone(40, 1, 4, 32, 48, 2), "layers that the model lacks"),
        (LlamaBackbone(40, 2, 4, 64, 48, 2), "do not fit the model"),
    ):
        with pytest.raises(InputError, match=named):
            lora.load_adapter(backbone, saved)
        assert lora.adapters(backbone) == {} and backbone.lora_arguments is None
    for arguments, named in (
        ({"alpha": 1}, "not those of the model's adapters"),
        ({"rank_pattern": {"value": 2}}, "value: \\(4, 1.0\\) \\(model: \\(2, 2.0\\)\\)"),
        ({"use_dora": True}, "LoRA \\(model: DoRA"),
    ):
        prepared = make()
        prepared.enable_lora(**{"rank": 4, "alpha": 4} | arguments)
        with pytest.raises(InputError, match=named):
            lora.load_adapter(prepared, saved)
        assert all(not ops.convert_to_numpy(layer.lora_b.value).any() for layer in lora.adapters(prepared).values())


def test_a_base_in_another_precision_is_accepted_with_a_warning(saved, caplog):
    lora.load_adapter(make(dtype="bfloat16"), saved)
    assert "cannot be compared" in caplog.text


def test_a_failed_save_leaves_the_old_adapter(saved, monkeypatch):
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    backbone = make()
    backbone.enable_lora(2)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="adapter_model.safetensors"):
        lora.save_adapter(backbone, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == files


def test_saving_without_adapters_raises(tmp_path):
    with pytest.raises(ValueError, match="no adapters to save"):
        lora.save_adapter(make(), tmp_path)


# --- the model of a run


@pytest.mark.oracle
def test_a_run_starts_from_keras_hubs_adapter(tmp_path):
    backbone = make()
    theirs = of_keras_hub(backbone, tmp_path / "x.lora.h5")
    backbone.save_to_preset(tmp_path / "preset")
    section = {"rank": 3, "alpha": 3.0, "dropout": 0.2, "use_rslora": False, "targets": ["query", "value"]}
    section |= {"use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "source": str(tmp_path / "x.lora.h5")}
    arguments = {"policy": "float32", "preset_dir": tmp_path / "preset", "remat": "none", "seed": 1}
    arguments["quantization"] = dict.fromkeys(OPTIONS) | {"mode": "none"}

    def factory(**added):
        return LlamaBackbone(40, 2, 4, 32, 48, 2, **added)

    built = model.build(factory, lora=section, **arguments)
    expected = ops.convert_to_numpy(theirs({"token_ids": IDS, "padding_mask": np.ones_like(IDS)}))
    np.testing.assert_allclose(hidden(built), expected, atol=oracles.EXACT_TOLERANCE)
    assert {v.path for v in built.trainable_variables} == set(lora.adapter_variables(built))
    count = sum(int(np.prod(v.shape)) for v in built.trainable_variables)
    assert count == lora_source.count_lora_parameters(built.get_config(), section)
    assert {layer.dropout for layer in lora.adapters(built).values()} == {0.2}
    with pytest.raises(InputError, match="a scale of 1, so alpha is the rank"):
        model.build(factory, lora=section | {"alpha": 16.0}, **arguments)
