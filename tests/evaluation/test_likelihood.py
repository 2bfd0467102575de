"""Log-likelihoods of continuations: equal to NumPy's, to the plain forward pass, and for every kind of weights."""

import numpy as np
import oracles
import pytest
import scipy.special
from daily import slow_on_jax

from llama_exp.evaluation.likelihood import LogLikelihood
from llama_exp.models import LlamaBackbone, LlamaCausalLM

pytestmark = pytest.mark.neutral

TINY = {
    "vocabulary_size": 61,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 2,
}
LONG = list(range(20, 40))
LENGTH = 24
# Contexts of two buckets, shared by one to five continuations, apart from each other; single tokens among them.
PAIRS = [
    ([3], [7, 1]),
    (LONG, [5]),
    ([9, 8, 7], [4, 4, 4, 4, 4, 4, 4]),
    (LONG, [5, 60, 2]),
    ([3], [44]),
    (LONG, [11, 12]),
    (LONG, [13]),
    (LONG, [5, 60, 2]),
]


@pytest.fixture(scope="module")
def model():
    backbone = LlamaBackbone(**TINY)
    oracles.randomize(backbone, seed=3)
    return LlamaCausalLM(backbone)


def expected(log_probabilities, context, continuation):
    """Sum and greediness out of the log-probabilities (S, V) after each token of the whole sequence."""
    rows = log_probabilities[len(context) - 1 : -1]
    chosen = rows[np.arange(len(continuation)), continuation]
    return chosen.sum(), bool((rows.argmax(-1) == continuation).all())


def plain(model, context, continuation):
    """The same from one pass over the whole sequence."""
    ids = [*context, *continuation]
    padded = np.array([ids + [0] * (LENGTH - len(ids))])  # behind, where nobody sees it; one shape is compiled once
    logits = np.asarray(model({"token_ids": padded}), np.float64)[0, : len(ids)]
    return expected(scipy.special.log_softmax(logits, axis=-1), context, continuation)


def require_equal(found, wanted, tolerance=1e-4):
    np.testing.assert_allclose([score for score, _ in found], [score for score, _ in wanted], rtol=0, atol=tolerance)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]


def test_scores_are_those_of_numpy(model):
    weights = oracles.arrays(model.backbone)
    wanted = []
    for context, continuation in PAIRS:
        ids = np.array([[*context, *continuation]])
        config = model.backbone.get_config()
        logits = oracles.numpy_logits(config, weights, oracles.numpy_hidden(config, weights, ids))[0]
        wanted.append(expected(scipy.special.log_softmax(logits, axis=-1), context, continuation))
    require_equal(LogLikelihood(model, 3)(PAIRS), wanted)


def test_the_likeliest_continuation_is_greedy(model):
    prompt = np.array(LONG, np.int32)
    continuation = model.generate(prompt, max_length=len(LONG) + 5)[len(LONG) :].tolist()
    other = [*continuation[:-1], (continuation[-1] + 1) % 61]
    scores = LogLikelihood(model, 4)([(LONG, continuation), (LONG, other)])
    assert [greedy for _, greedy in scores] == [True, False]


@slow_on_jax
def test_quantized_weights_with_adapters_too():
    backbone = LlamaBackbone(**TINY)
    oracles.randomize(backbone, seed=4)
    backbone.quantize("int8", quantize_activations=False)
    backbone.enable_lora(rank=2, targets=["all-linear"])
    generator = np.random.default_rng(0)
    for variable in backbone.trainable_variables:
        variable.assign(generator.normal(0, 0.3, variable.shape).astype("float32"))
    model = LlamaCausalLM(backbone)
    require_equal(LogLikelihood(model, 3)(PAIRS), [plain(model, *pair) for pair in PAIRS])


def test_weights_are_read_at_each_call(model):
    likelihood = LogLikelihood(model, 3)
    before, old = likelihood(PAIRS[:2]), model.backbone.layer_norm.scale.numpy().copy()
    model.backbone.layer_norm.scale.assign(old * 1.5)
    try:
        after = likelihood(PAIRS[:2])
        require_equal(after, [plain(model, *pair) for pair in PAIRS[:2]])
    finally:
        model.backbone.layer_norm.scale.assign(old)
    assert before != after


def test_a_context_is_read_once(model):
    likelihood, read = LogLikelihood(model, 8), []
    inner = likelihood._read
    likelihood._read = lambda token_ids, *rest: read.extend(token_ids) or inner(token_ids, *rest)
    likelihood([(LONG, [token]) for token in range(8)])
    assert len(read) == 1


def test_rolling_scores_each_token_once(model):
    """Windows of 4: what each token sees is spelled out."""
    text = [5, 6, 7, 8, 9, 10]
    seen = [([0], [5, 6, 7, 8]), ([6, 7, 8], [9, 10])]
    wanted = sum(plain(model, *pair)[0] for pair in seen)
    found = LogLikelihood(model, 2).rolling([text, [], [5]], begin_id=0, max_length=4)
    assert found == pytest.approx([wanted, 0.0, plain(model, [0], [5])[0]], abs=1e-4)


@pytest.mark.parametrize("pair", [([], [1]), ([1], []), ([1], [61]), ([-1], [1])], ids=str)
def test_impossible_pairs(model, pair):
    with pytest.raises(ValueError, match=r"pairs\[1\]"):
        LogLikelihood(model, 2)([([1], [2]), pair])


def test_none_and_watching(model):
    likelihood, seen = LogLikelihood(model, 3), []
    assert likelihood([]) == []
    likelihood(PAIRS, seen.append)
    assert sum(seen) == len(PAIRS)
    with pytest.raises(ValueError, match="batch_size"):
        LogLikelihood(model, 0)
