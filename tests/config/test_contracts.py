"""What classes of Keras and of the user's own must have, told before anything is imported."""

import sys

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.config.check.contracts import INSTEAD
from llama_exp.config.instantiate import check_targets
from llama_exp.config.outline import has_module, read_outline
from llama_exp.errors import ConfigError

SOURCE = """
import keras
from abc import ABC, abstractmethod

raise SystemExit("this module may not be run")

class Metrics:
    def on_metrics(self, row): ...

class Typo:
    def on_metric(self, row): ...

class Silent:
    def close(self): ...

class Half(Metrics):
    def state(self): ...

class Base(ABC):
    @abstractmethod
    def on_start(self, facts): ...

class Unfinished(Base):
    pass

class OfKeras(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None): ...

class Momentum(keras.optimizers.Optimizer):
    def __init__(self, learning_rate, momentum=0.9, **options):
        super().__init__(learning_rate=learning_rate, **options)

class NoOptimizer:
    def __init__(self, learning_rate): ...

def make(learning_rate, *, size, name="x", **rest): ...
"""

LION = ("optimizer._target_=keras.optimizers.Lion", "~optimizer.epsilon", "~optimizer.independent_weight_decay")


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """The name of a module that ends the process when it is imported."""
    name = f"contracts_of_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    assert name not in sys.modules


def problems(*arguments):
    with pytest.raises(ConfigError) as caught:
        check_arguments(arguments)
    return caught.value.problems


def callback(module, name, more=""):
    return [f"trusted_modules=[{module}]", f"trainer.callbacks={{mine: {{_target_: {module}.{name}{more}}}}}"]


def test_a_callback_has_the_methods_that_it_uses(module):
    assert check_arguments(callback(module, "Metrics")).config.trainer.callbacks["mine"]


@pytest.mark.parametrize(
    ("name", "what", "words"),
    [
        ("Typo", "has methods that nobody calls", "on_metrics"),
        ("Silent", "is no callback", "on_start"),
        ("Unfinished", "is no callback", "on_start"),
        ("Half", "state and restore come together", "add the other one"),
        ("OfKeras", "is a callback of Keras' fit()", "own_callback.md"),
    ],
)
def test_callbacks_that_nobody_would_hear_of(module, name, what, words):
    (problem,) = problems(*callback(module, name))
    assert problem.what.startswith(what) and words in problem.action
    assert problem.where == "trainer.callbacks.mine._target_"


def test_arguments_of_a_callback(module):
    (problem,) = problems(*callback(module, "Metrics", ", path: x"))
    assert problem.where == "trainer.callbacks.mine.path" and "has no such argument" in problem.what


@pytest.mark.parametrize("name", sorted(INSTEAD))
def test_callbacks_of_keras(name):
    (problem,) = problems(f"trainer.callbacks={{mine: {{_target_: keras.callbacks.{name}}}}}")
    assert INSTEAD[name] in problem.action and problem.found == f"keras.callbacks.{name}"


def test_every_callback_of_keras_has_an_answer():
    import keras

    names = {name for name in dir(keras.callbacks) if name[:1].isupper()}
    assert names - {"Callback", "CallbackList", "LambdaCallback"} == INSTEAD.keys()


@pytest.mark.parametrize("value", ["3", "{x: 3}", "null"])
def test_a_callback_names_a_class(value):
    (problem,) = problems(f"trainer.callbacks={{mine: {value}}}")
    assert problem.what == "names no class"


def test_names_that_are_taken(module):
    lines = callback(module, "Metrics")
    (problem,) = problems(lines[0], lines[1].replace("mine:", "metrics:"))
    assert "every run has" in problem.what


def test_keras_optimizers_are_compared_with_their_keys():
    found = {problem.where for problem in problems("optimizer._target_=keras.optimizers.SGD")}
    keys = ("beta_1", "beta_2", "epsilon", "independent_weight_decay")
    assert found == {f"optimizer.{key}" for key in keys}
    left_out = [f"~{where}" for where in sorted(found)]
    made = check_arguments(["optimizer._target_=keras.optimizers.SGD", *left_out, "+optimizer.momentum=0.9"]).config
    assert made.optimizer["momentum"] == 0.9 and "beta_1" not in made.optimizer


def test_a_key_of_ours_that_a_class_lacks_is_to_be_taken_out():
    (problem,) = problems(*LION[:2])
    assert problem.where == "optimizer.independent_weight_decay"
    assert problem.action.startswith("take it out (~optimizer.independent_weight_decay)")


def test_optimizers_of_ones_own(module):
    keys = ("beta_1", "beta_2", "epsilon", "independent_weight_decay")
    lines = [f"trusted_modules=[{module}]", *(f"~optimizer.{key}" for key in keys)]
    assert check_arguments([*lines, f"optimizer._target_={module}.Momentum", "+optimizer.momentum=0.5"]).config
    (problem,) = problems(*lines, f"optimizer._target_={module}.NoOptimizer")
    assert problem.what == "is no optimizer"
    (problem,) = problems(*lines, f"optimizer._target_={module}.Momentum", "+optimizer.momentun=0.5")
    assert "did you mean momentum?" in problem.action


@pytest.mark.parametrize(
    "line", ["~optimizer.learning_rate", "optimizer.learning_rate=fast", "optimizer.learning_rate=0"]
)
def test_an_optimizer_states_its_peak(line):
    (problem,) = problems(*LION, line)
    assert problem.where == "optimizer.learning_rate" and "the schedule's peak" in problem.action


def test_a_module_that_is_not_there():
    (problem,) = problems("trusted_modules=[nosuchmodule]", "optimizer._target_=nosuchmodule.Lion")
    assert "no module named nosuchmodule" in problem.what and "PYTHONPATH" in problem.action


def test_keys_of_our_own_classes_cannot_be_left_out():
    (problem,) = problems("~optimizer.beta_1")
    assert (problem.where, problem.what) == ("optimizer.beta_1", "has no value")


# --- what a source says


def test_outlines(module):
    outline = read_outline(f"{module}.Half")
    assert outline.names == (f"{module}.Half", f"{module}.Metrics") and outline.is_whole
    assert outline.methods == {"state", "on_metrics"} and not outline.parameters and not outline.is_open
    function = read_outline(f"{module}.make")
    assert (function.parameters, function.required) == ({"learning_rate", "size", "name"}, {"learning_rate", "size"})
    assert function.is_open and not function.is_class
    assert read_outline(f"{module}.Nothing") is None and read_outline("nosuchmodule.X") is None
    assert has_module(f"{module}.x") and not has_module("nosuchmodule")


@pytest.mark.parametrize("name", ["SGD", "Lion", "AdamW", "Adafactor", "Muon"])
def test_outlines_agree_with_the_imported_class(name):
    """`inspect` is asked by `check_targets`, over the same keys."""
    import inspect

    import keras

    outline = read_outline(f"keras.optimizers.{name}")
    located = getattr(keras.optimizers, name)
    assert set(inspect.signature(located).parameters) - {"kwargs"} <= outline.parameters
    assert outline.methods >= {name for name in vars(located) if inspect.isfunction(vars(located)[name])}


def test_an_imported_class_is_asked_too(monkeypatch):
    """What no source told: here a class that a call makes."""
    import types

    made = types.ModuleType("made_by_a_call")
    made.Typo = type("Typo", (), {"on_metric": None, "__module__": "made_by_a_call"})
    monkeypatch.setitem(sys.modules, "made_by_a_call", made)
    node = {"trainer.callbacks.mine": {"_target_": "made_by_a_call.Typo"}}
    with pytest.raises(ConfigError, match="nobody calls"):
        check_targets(node, ["made_by_a_call"], {})
