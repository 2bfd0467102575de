"""Our updates beside those of torch.optim and of Keras, where these compute the same in float32."""

import keras
import numpy as np
import pytest
from updates import SHAPES, gradients, make, train, values, variables

RATE = 0.05


def ours(name, num_steps=4, **changes):
    return train(make(name, RATE, **{"weight_decay": 0.0} | changes), variables(), num_steps)


@pytest.mark.neutral
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("sgd", lambda: keras.optimizers.SGD(RATE, momentum=0.9)),  # their b has the rate in it: the same if it stays
        ("lion", lambda: keras.optimizers.Lion(RATE, beta_1=0.9, beta_2=0.99)),
    ],
)
def test_keras_own(name, theirs):
    for a, b in zip(ours(name), train(theirs(), variables(), 4), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.neutral
def test_keras_muon_does_the_same_to_float32_matrices():
    theirs = keras.optimizers.Muon(RATE, weight_decay=None, adam_weight_decay=None, adam_beta_2=0.95, epsilon=1e-8)
    for a, b in zip(ours("muon"), train(theirs, variables(), 4), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def of_torch(make_optimizer, paths, num_steps=4):
    import torch

    weights = dict(zip(SHAPES, values(variables()), strict=True))
    tensors = [torch.nn.Parameter(torch.tensor(weights[path], dtype=torch.float32)) for path in paths]
    optimizer = make_optimizer(tensors)
    for step in range(num_steps):
        for path, tensor in zip(paths, tensors, strict=True):
            tensor.grad = torch.tensor(dict(zip(SHAPES, gradients(step), strict=True))[path])
        optimizer.step()
    return {path: tensor.detach().numpy() for path, tensor in zip(paths, tensors, strict=True)}


def compare(found, theirs, atol):
    found = dict(zip(SHAPES, found, strict=True))
    for path, array in theirs.items():
        np.testing.assert_allclose(found[path], array, atol=atol)


@pytest.mark.oracle
@pytest.mark.parametrize("nesterov", [False, True])
def test_torch_sgd(nesterov):
    torch = pytest.importorskip("torch")
    theirs = of_torch(lambda p: torch.optim.SGD(p, RATE, momentum=0.9, nesterov=nesterov), list(SHAPES))
    compare(ours("sgd", nesterov=nesterov), theirs, 1e-6)


@pytest.mark.oracle
def test_torch_adafactor():
    torch = pytest.importorskip("torch")
    theirs = of_torch(lambda p: torch.optim.Adafactor(p, lr=RATE, eps=(None, 1e-3), weight_decay=0.1), list(SHAPES))
    matrices = {path: array for path, array in theirs.items() if array.ndim == 2}  # torch decays vectors too
    compare(ours("adafactor", weight_decay=0.1), matrices, 1e-5)


@pytest.mark.oracle
def test_torch_muon_which_multiplies_in_bfloat16():
    torch = pytest.importorskip("torch")
    matrices = [path for path, shape in SHAPES.items() if len(shape) == 2 and "embedding" not in path]
    options = {"weight_decay": 0.1, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}
    theirs = of_torch(lambda p: torch.optim.Muon(p, lr=RATE, **options), matrices)
    rms = 0.2 * RATE * 4  # four steps; bfloat16 has 8 bits, which five products make worse
    compare(ours("muon", weight_decay=0.1), theirs, 0.05 * rms * np.sqrt(6))
