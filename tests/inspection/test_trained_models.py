"""The weights that inspection takes for the start and the end of a run are those that the model itself had."""

import json

import numpy as np
import pytest
from weighted_runs import LORA, MODEL, NONE, QUERY, SEED, make_run, start_arrays, write_model

from llama_exp import lora
from llama_exp.inspection import Options, measure_update
from llama_exp.models import LlamaBackbone
from llama_exp.models.build import build
from llama_exp.results import load_run

pytestmark = pytest.mark.neutral
ARGUMENTS = {key: value for key, value in MODEL.items() if key != "_target_"}


def run_of(policy, section, preset=None, lora_section=LORA):
    """The backbone of a run of this config, as `run.building` asks for it."""
    return build(
        lambda **added: LlamaBackbone(**ARGUMENTS, **added),
        policy=policy,
        preset_dir=preset,
        quantization=section,
        lora=lora_section,
        remat="none",
        seed=SEED,
    )


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_a_run_that_has_not_trained_has_changed_nothing(tmp_path, policy):
    """From random weights, which are nowhere kept: those that the layers drew, to the bit."""
    run = make_run(tmp_path / "run", policy=policy)
    run_of(policy, NONE).save_to_preset(run / "model")
    update = measure_update(load_run(run)).update
    assert len(update.matrices) == 15 and all(matrix.norm == 0.0 for matrix in update.matrices)
    assert all(matrix.base_norm > 0 for matrix in update.matrices)


@pytest.mark.parametrize(("policy", "mode"), [("float32", "none"), ("bfloat16", "none"), ("float32", "int8")])
def test_dora_over_the_base_that_the_model_had(tmp_path, policy, mode):
    """Rounded or quantized as the run's: its digest is the framework's own, and merging gives the same difference."""
    preset = write_model(tmp_path / "preset", start_arrays(9))
    section = NONE | {"mode": mode}
    adapted = LORA | {"rank": 3, "alpha": 6.0, "use_dora": True}
    backbone = run_of(policy, section, preset, adapted)
    generator = np.random.default_rng(0)
    for variable in backbone.trainable_variables:
        variable.assign(generator.normal(0, 0.3, variable.shape).astype("float32"))
    run = make_run(tmp_path / "run", preset=preset, lora=adapted, policy=policy, quantization=section)
    record = json.loads((run / "run.json").read_text())
    record["preset"]["digest"] = lora.save_adapter(backbone, run / "adapter")
    (run / "run.json").write_text(json.dumps(record))
    (found,) = (matrix for matrix in measure_update(load_run(run)).update.matrices if matrix.path == QUERY)
    layer = backbone.linear_layers()[QUERY]
    eye = np.eye(MODEL["hidden_dim"], dtype="float32")
    with_adapter = np.asarray(layer(eye), "float32")
    layer.adapter = None
    expected = np.linalg.svd(with_adapter - np.asarray(layer(eye), "float32"), compute_uv=False)
    tolerance = 1e-5 if policy == "float32" and mode == "none" else 3e-2  # products of bfloat16, rounded activations
    np.testing.assert_allclose(found.values[:3], expected[:3], rtol=tolerance)
    assert measure_update(load_run(run), Options(relative=True)).update.matrices[0].relative_norm > 0
