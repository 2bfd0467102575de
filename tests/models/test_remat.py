"""Rematerialization and dropout: the same numbers, the same masks, less memory, no gradients nobody asked for."""

import keras
import numpy as np
import oracles
import pytest
from gradients import loss_and_gradients
from keras import ops

from llama_exp.limits.trainer import Remat
from llama_exp.models import LlamaBackbone

pytestmark = pytest.mark.neutral

IDS = np.random.default_rng(0).integers(0, 40, (2, 8)).astype("int32")


def make(dropout=0.0, remat="none", lora_dropout=None, dtype="float32", use_dora=False):
    backbone = LlamaBackbone(40, 2, 4, 32, 48, 2, dropout=dropout, dtype=dtype)
    oracles.randomize(backbone)
    if lora_dropout is not None:
        backbone.enable_lora(rank=2, dropout=lora_dropout, targets=["all-linear"], use_dora=use_dora)
        oracles.randomize(backbone)
    if backbone.seed_generator is not None:
        backbone.seed_generator.state.assign(np.array([11, 0]))
    backbone.remat = remat
    return backbone


def run(backbone):
    def loss():
        return ops.mean(ops.square(ops.cast(backbone({"token_ids": IDS}, training=True), "float32")))

    return loss_and_gradients(loss, backbone)


@pytest.mark.parametrize("remat", ["attention", "block"])
@pytest.mark.parametrize(
    ("dropout", "lora_dropout", "use_dora"),
    [(0.0, None, False), (0.3, None, False), (0.3, 0.3, False), (0.3, 0.3, True)],
)
def test_remat_gives_the_same_loss_and_gradients(dropout, lora_dropout, use_dora, remat):
    loss, gradients = run(make(dropout, "none", lora_dropout, use_dora=use_dora))
    remat_loss, remat_gradients = run(make(dropout, remat, lora_dropout, use_dora=use_dora))
    assert float(loss) == pytest.approx(float(remat_loss), rel=1e-6)
    assert set(gradients) == set(remat_gradients) and len(gradients) == (42 if use_dora else 28 if lora_dropout else 20)
    for path, gradient in gradients.items():
        assert np.abs(gradient).max() > 0, path
        np.testing.assert_allclose(remat_gradients[path], gradient, atol=1e-6, rtol=1e-5, err_msg=path)


def test_remat_reads_full_precision_variables_under_a_mixed_policy():
    """Norm scales and adapters stay float32; reading them in the compute dtype would move the loss by about 1e-3."""
    losses = {float(run(make(remat=remat, lora_dropout=0.0, dtype="mixed_bfloat16"))[0]) for remat in Remat}
    assert len(losses) == 1


def test_dropout_only_in_training_and_new_in_each_step():
    backbone = make(dropout=0.5)
    inputs = {"token_ids": IDS}
    still = [ops.convert_to_numpy(backbone(inputs, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    moving = [ops.convert_to_numpy(backbone(inputs, training=True)) for _ in range(2)]
    assert np.abs(moving[0] - moving[1]).max() > 1e-2 and np.abs(moving[0] - still[0]).max() > 1e-2
    backbone.seed_generator.state.assign(np.array([11, 0]))
    np.testing.assert_array_equal(ops.convert_to_numpy(backbone(inputs, training=True)), moving[0])


def test_dropout_masks_differ_between_places():
    """Same input, same rate: every place in every block must draw its own mask."""
    from llama_exp.models.dropout import DropoutSeeds, block_seed

    seed = keras.random.SeedGenerator(3).next()
    x = ops.ones((64,))
    masks = set()
    for block in range(3):
        seeds = DropoutSeeds(block_seed(seed, block))
        masks |= {ops.convert_to_numpy(seeds.dropout(x, 0.5)).tobytes() for _ in range(4)}
    assert len(masks) == 12
    kept = ops.convert_to_numpy(DropoutSeeds(block_seed(seed, 0)).dropout(ops.ones((10000,)), 0.2))
    assert set(np.unique(kept)) == {0.0, np.float32(1.25)} and kept.mean() == pytest.approx(1.0, abs=0.03)
