"""Adapters on disk: what we save we load, PEFT loads ours, we load PEFT's, and damage is named."""

import json

import numpy as np
import oracles
import pytest
from adapted import IDS, fill, hidden, make
from keras import ops

from llama_exp import lora
from llama_exp.errors import InputError, StorageError
from llama_exp.models import LlamaBackbone

pytestmark = pytest.mark.neutral


@pytest.mark.parametrize("targets", [["query", "mlp"], [r"transformer_layer_1/.*/(key|value)"]])
def test_saved_adapter_comes_back(tmp_path, targets):
    backbone = make()
    backbone.enable_lora(4, alpha=6, dropout=0.1, use_rslora=True, targets=targets)
    fill(backbone)
    lora.save_adapter(backbone, tmp_path / "adapter")
    fresh, prepared = make(), make()
    prepared.enable_lora(4, alpha=6, use_rslora=True, targets=targets)
    for other in (fresh, prepared):
        lora.load_adapter(other, tmp_path / "adapter")
        assert set(lora.adapter_variables(other)) == set(lora.adapter_variables(backbone))
        np.testing.assert_array_equal(hidden(other), hidden(backbone))
    assert fresh.lora_arguments == backbone.lora_arguments


@pytest.mark.parametrize("targets", [["all-linear"], [r"transformer_layer_1/.*/(query|value)"]])
def test_peft_loads_our_adapter(tmp_path, targets):
    import peft
    import torch

    backbone = make()
    model = oracles.transformers_model(backbone)
    backbone.enable_lora(4, alpha=6, use_rslora=True, targets=targets)
    fill(backbone)
    lora.save_adapter(backbone, tmp_path)
    with torch.no_grad():
        plain = model(input_ids=torch.tensor(IDS, dtype=torch.long)).logits.numpy()
        adapted = peft.PeftModel.from_pretrained(model, str(tmp_path)).eval()
        expected = adapted(input_ids=torch.tensor(IDS, dtype=torch.long)).logits.numpy()
    logits = ops.convert_to_numpy(backbone.token_embedding.project(backbone({"token_ids": IDS})))
    assert np.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(logits, expected, atol=oracles.TOLERANCE)


def test_we_load_an_adapter_of_peft(tmp_path):
    import peft
    import torch

    backbone = make()
    torch.manual_seed(0)
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(oracles.transformers_model(backbone), config).eval()
    adapted.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = adapted(input_ids=torch.tensor(IDS, dtype=torch.long)).logits.numpy()
    lora.load_adapter(backbone, tmp_path)
    assert len(lora.adapters(backbone)) == 4
    logits = ops.convert_to_numpy(backbone.token_embedding.project(backbone({"token_ids": IDS})))
    np.testing.assert_allclose(logits, expected, atol=oracles.TOLERANCE)


@pytest.fixture
def saved(tmp_path):
    backbone = make()
    backbone.enable_lora(4)
    fill(backbone)
    lora.save_adapter(backbone, tmp_path)
    return tmp_path


def change_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder, change):
    import safetensors.numpy

    path = folder / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}"), "cannot be read"),
        (lambda folder: change_config(folder, r=8), "pair of rank 8"),
        (lambda folder: change_config(folder, use_dora=True), "use_dora is not supported"),
        (lambda folder: change_config(folder, peft_type="LOHA"), "not LoRA"),
        (lambda folder: change_tensors(folder, lambda tensors: tensors.pop(KEY)), "pair of rank 4"),
        (
            lambda folder: change_tensors(folder, lambda tensors: tensors.update(x=tensors[KEY])),
            "no adapter of a Llama",
        ),
        (lambda folder: change_tensors(folder, lambda tensors: tensors.clear()), "no adapter"),
    ],
)
def test_damaged_adapters_are_refused(saved, damage, named):
    damage(saved)
    backbone = make()
    with pytest.raises(InputError, match=named):
        lora.load_adapter(backbone, saved)
    assert lora.adapters(backbone) == {}


def test_adapters_of_another_base_or_shape_are_refused(saved):
    with pytest.raises(InputError, match="other base weights"):
        lora.load_adapter(make(seed=1), saved)
    with pytest.raises(InputError, match="layers that the model lacks"):
        lora.load_adapter(LlamaBackbone(40, 1, 4, 32, 48, 2), saved)
    with pytest.raises(InputError, match="shapes do not fit"):
        lora.load_adapter(LlamaBackbone(40, 2, 4, 64, 48, 2), saved)
    prepared = make()
    prepared.enable_lora(4, alpha=1)
    with pytest.raises(InputError, match="does not fit the adapters"):
        lora.load_adapter(prepared, saved)


def test_a_base_in_another_precision_is_accepted_with_a_warning(saved, caplog):
    lora.load_adapter(make(dtype="bfloat16"), saved)
    assert "cannot be compared" in caplog.text


def test_a_failed_save_leaves_the_old_adapter(saved, monkeypatch):
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    backbone = make()
    backbone.enable_lora(2)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llama_exp.formats.peft.os.fsync", full)
    with pytest.raises(StorageError, match="adapter_model.safetensors"):
        lora.save_adapter(backbone, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == files


def test_saving_without_adapters_raises(tmp_path):
    with pytest.raises(ValueError, match="no adapters to save"):
        lora.save_adapter(make(), tmp_path)
