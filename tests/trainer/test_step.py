"""One step: accumulation, guard, clipping's norm, loss scaling, frozen weights."""

import keras
import numpy as np
import pytest
from keras import ops

from llama_exp.architecture import INPUT_KEYS
from llama_exp.models.backbone import LlamaBackbone
from llama_exp.optimizer import adamw
from llama_exp.trainer.step import TrainStep, seed_states

pytestmark = pytest.mark.neutral

V, S = 64, 8
JAX = keras.backend.backend() == "jax"
BOTH = [True] if JAX else [False, True]  # without XLA, JAX runs operation by operation: right, but minutes


def model(kind=LlamaBackbone, **changes):
    keras.utils.set_random_seed(1)
    options = {"num_layers": 1, "num_query_heads": 4, "hidden_dim": 16, "intermediate_dim": 32}
    options |= {"vocabulary_size": V, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return kind(**options | changes)


def optimizer(learning_rate=0.01):
    return adamw(
        learning_rate=learning_rate, weight_decay=0.1, beta_1=0.9, beta_2=0.95, epsilon=1e-6, global_clipnorm=1.0
    )


def batch(num_micro_batches, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    shape = (num_micro_batches, batch_size, S)
    lengths = rng.integers(1, S + 1, shape[:2])  # uneven counts
    counted = np.arange(S) < lengths[..., None]
    return {
        "token_ids": rng.integers(0, V, shape).astype("int32"),
        "position_ids": np.broadcast_to(np.arange(S, dtype="int32"), shape).copy(),
        "segment_ids": counted.astype("int32"),
        "padding_mask": counted.astype("int32"),
        "labels": rng.integers(0, V, shape).astype("int32"),
        "loss_mask": counted.astype("float32"),
    }


def reshaped(examples, *leading):
    return {key: value.reshape(*leading, S) for key, value in examples.items()}


def weights(backbone):
    return {variable.path: ops.convert_to_numpy(variable).copy() for variable in backbone.weights}


def trained(examples, steps=2, **changes):
    backbone = model(**changes)
    step = TrainStep(backbone, optimizer(), chunk_tokens=16, jit=JAX)
    return [step(examples) for _ in range(steps)], weights(backbone)


def test_four_micro_batches_of_one_equal_one_of_four():
    examples = batch(4, 1)
    results, ours = trained(examples)
    others, theirs = trained(reshaped(examples, 1, 4))
    for result, other in zip(results, others, strict=True):
        assert result.loss == pytest.approx(other.loss, rel=1e-6)
        assert result.grad_norm == pytest.approx(other.grad_norm, rel=1e-5)
    for path, value in ours.items():
        np.testing.assert_allclose(value, theirs[path], atol=1e-6, err_msg=path)


@pytest.mark.parametrize("shape", [(4, 1), (1, 4)])
def test_the_z_loss_is_a_mean_over_counted_tokens_too_and_stands_beside_the_loss(shape):
    examples, coefficient = reshaped(batch(4, 1), *shape), 0.01
    backbone = model()
    flat = reshaped(examples, 4)
    hidden = backbone({key: flat[key] for key in INPUT_KEYS})
    logits = np.asarray(ops.convert_to_numpy(backbone.token_embedding.project(hidden)), "float64")
    squares, mask = np.log(np.exp(logits).sum(-1)) ** 2, flat["loss_mask"]
    plain = TrainStep(model(), optimizer(), chunk_tokens=16, jit=JAX)(examples)
    result = TrainStep(backbone, optimizer(), chunk_tokens=16, jit=JAX, z_loss=coefficient)(examples)
    assert result.loss == pytest.approx(plain.loss, rel=1e-6) and plain.z_loss is None
    assert result.z_loss == pytest.approx(coefficient * (squares * mask).sum() / mask.sum(), rel=1e-5)
    assert result.grad_norm != plain.grad_norm


def test_loss_is_the_mean_over_counted_tokens_of_the_whole_step():
    examples = batch(2, 2)
    backbone = model()
    inputs = [{key: examples[key][i] for key in INPUT_KEYS} for i in range(2)]
    hidden = ops.concatenate([backbone(each) for each in inputs])
    logits = np.asarray(ops.convert_to_numpy(backbone.token_embedding.project(hidden)), "float64").reshape(-1, V)
    rows = np.arange(len(logits))
    losses = np.log(np.exp(logits).sum(1)) - logits[rows, examples["labels"].reshape(-1)]
    mask = examples["loss_mask"].reshape(-1)
    result = TrainStep(backbone, optimizer(), chunk_tokens=5, jit=JAX)(examples)
    assert result.loss == pytest.approx((losses * mask).sum() / mask.sum(), rel=1e-5)
    assert result.applied and result.loss_scale == 1.0 and result.learning_rate == pytest.approx(0.01)


def test_steps_learn_and_dropout_draws_anew():
    backbone = model(dropout=0.2)
    (state,) = seed_states(backbone)
    before = ops.convert_to_numpy(state).copy()
    step = TrainStep(backbone, optimizer(), chunk_tokens=16, jit=JAX)
    losses = [step(batch(2, 2)).loss for _ in range(15)]
    assert losses[-1] < 0.9 * losses[0]
    assert not np.array_equal(before, ops.convert_to_numpy(state))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_non_finite_step_writes_nothing(accumulation):
    backbone, adam = model(), optimizer()
    step = TrainStep(backbone, adam, chunk_tokens=16, jit=JAX)
    step(batch(accumulation, 2))
    scale = backbone.layer_norm.scale
    scale.assign(np.full(scale.shape, np.nan, "float32"))
    before, state = weights(backbone), [ops.convert_to_numpy(v).copy() for v in adam.variables]
    result = step(batch(accumulation, 2))
    assert not result.finite and not result.applied
    for path, value in weights(backbone).items():
        np.testing.assert_array_equal(value, before[path])
    for variable, value in zip(adam.variables, state, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


class Steep(LlamaBackbone):
    """Hidden states are multiplied by a variable that is 0, but whose gradient has a norm beyond float32."""

    def __init__(self, **options):
        super().__init__(**options)
        self.layer_norm.scale.assign(np.zeros(self.hidden_dim))

    def call(self, inputs, training=False):
        return super().call(inputs, training=training) * 1e25


def test_a_finite_loss_with_a_non_finite_gradient_norm_writes_nothing():
    backbone = model(kind=Steep)
    step = TrainStep(backbone, optimizer(), chunk_tokens=16, jit=JAX)
    before = weights(backbone)
    result = step(batch(1, 2))
    assert np.isfinite(result.loss) and not np.isfinite(result.grad_norm) and not result.applied
    for path, value in weights(backbone).items():
        np.testing.assert_array_equal(value, before[path])


def test_an_all_masked_step_has_loss_zero():
    examples = batch(1, 2)
    examples["loss_mask"][:] = 0
    result = TrainStep(model(), optimizer(), chunk_tokens=16, jit=JAX)(examples)
    assert result.loss == 0.0 and result.grad_norm == 0.0


def test_frozen_weights_stay_and_have_no_moments():
    backbone = model()
    for layer in (backbone.token_embedding, backbone.transformer_layers[0]):
        layer.trainable = False
    before, adam = weights(backbone), optimizer()
    TrainStep(backbone, adam, chunk_tokens=16, jit=JAX)(batch(2, 2))
    after = weights(backbone)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {variable.path for variable in backbone.trainable_variables}
    assert len(adam.variables) == 2 + 2 * len(changed)


def test_loss_scaling_skips_overflows_and_lowers_the_scale():
    backbone = model(dtype="mixed_float16")
    scaled = keras.optimizers.LossScaleOptimizer(optimizer(), initial_scale=2.0**40)
    step = TrainStep(backbone, scaled, chunk_tokens=16, jit=JAX)
    before = weights(backbone)
    first = step(batch(1, 2))
    assert np.isfinite(first.loss) and not first.applied and first.loss_scale == 2.0**40
    for path, value in weights(backbone).items():
        np.testing.assert_array_equal(value, before[path])
    results = [step(batch(1, 2)) for _ in range(30)]
    assert results[0].loss_scale == 2.0**39
    applied = [result for result in results if result.applied]
    assert applied and int(ops.convert_to_numpy(scaled.iterations)) == len(applied)
    (reference,), _ = trained(batch(1, 2), steps=1)
    assert applied[0].grad_norm == pytest.approx(reference.grad_norm, rel=0.02)


@pytest.mark.parametrize("jit", BOTH)
def test_same_seed_same_bits(jit):
    def run():
        backbone = model(dropout=0.1)
        step = TrainStep(backbone, optimizer(), chunk_tokens=16, jit=jit)
        return [step(batch(2, 4, seed)) for seed in range(4)], weights(backbone)

    (results, ours), (others, theirs) = run(), run()
    assert results == others
    for path, value in ours.items():
        np.testing.assert_array_equal(value, theirs[path])


@pytest.mark.parametrize("remat", ["attention", "block"])
def test_rematerialized_blocks_give_the_same_update(remat):
    def run(remat):
        backbone = model(num_layers=2)
        backbone.remat = remat
        step = TrainStep(backbone, optimizer(), chunk_tokens=16, jit=JAX)
        return [step(batch(1, 4, seed)) for seed in range(3)], weights(backbone)

    (results, ours), (others, theirs) = run(remat), run("none")
    assert [r.loss for r in results] == pytest.approx([r.loss for r in others], rel=1e-6)
    for path, value in ours.items():
        np.testing.assert_allclose(value, theirs[path], atol=2e-6, err_msg=path)
