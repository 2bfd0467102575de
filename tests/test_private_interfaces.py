"""Names in use that their owners may change in any release: where, why, and that the installed release still has them.

A new use fails `test_each_use_is_listed` until it stands in tests/private_table.py; look first for a public way to the
same. The owner's next minor release fails `test_the_next_minor_release_is_excluded` until it was looked at.
"""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from private_table import OWN, TABLE
from private_uses import defined_names, distributions_of, foreign_imports, overridden, private_uses, required_name

import llama_exp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "llama_exp"
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules that an extra brings.
EXTRA_OF = {name: name for name in ("jax", "mlflow", "tensorboard")}
EXTRA_OF |= {"cmaes": "search", "optuna": "search", "pandas": "notebook"}
EXTRA_OF |= {"lm_eval": "eval", "datasets": "eval"}
NEEDS_LM_EVAL = {f"llama_exp.evaluation.harness_{name}" for name in ("model", "results", "tasks", "writing")}

EXPECTED = [(find, expected) for private in TABLE for find, expected in private.expected.items()]
BOUNDED = sorted({private.distribution for private in TABLE} - {"python"})


def test_each_use_is_listed():
    inherited = defined_names(TREES.values())
    uses = {(name, file) for file, tree in TREES.items() for name in private_uses(tree, inherited)}
    files = {name: {file for use, file in uses if use == name} for name, _ in uses}
    listed = {name for private in TABLE for name in private.names}
    assert {name for name in files if name not in listed | OWN} == set(), "use the public interface, or list it"
    assert (listed | OWN) - files.keys() == set(), "no longer in use: take it out"
    for private in TABLE:
        assert set().union(*(files[name] for name in private.names)) == private.files, private.names


@pytest.mark.parametrize(("find", "expected"), EXPECTED)
def test_each_is_as_expected(find, expected):
    thing = find()
    if isinstance(expected, str) and callable(thing):
        assert ", ".join(inspect.signature(thing).parameters) == expected
    else:
        assert isinstance(thing, expected)


def test_no_private_method_is_replaced_unawares():
    """A subclass that happens to choose the name of a base's private method breaks what the base does."""
    replaced, has_lm_eval = set(), importlib.util.find_spec("lm_eval") is not None
    for module in pkgutil.walk_packages(llama_exp.__path__, "llama_exp."):
        if module.name in ("llama_exp.__main__", "llama_exp.backend._jax", *([] if has_lm_eval else NEEDS_LM_EVAL)):
            continue
        for cls in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(cls) and cls.__module__ == module.name:
                replaced |= {name.rpartition(".")[2] for name in overridden(cls)}
    documented = {"_info", "_split_generators", "_generate_examples"}  # what a builder of TFDS is to define
    documented |= {"_loglikelihood_tokens"} if has_lm_eval else set()  # what a `TemplateLM` is to define
    assert replaced == {"_backend_update_step", "_clip_gradients", "_apply_weight_decay"} | documented


@pytest.mark.parametrize("distribution", BOUNDED)
def test_the_next_minor_release_is_excluded(distribution):
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(EXTRA_OF.get(distribution), [])]
    [requirement] = [line for line in lines if required_name(line) == distribution]
    major, minor = metadata.version(distribution).split(".")[:2]
    assert re.search(r"<([\d.]+)", requirement)[1] == f"{major}.{int(minor) + 1}", requirement


def test_every_import_is_declared():
    """What only another package needs today may be gone with its next release."""
    declared = {required_name(line) for line in PROJECT["dependencies"]}
    for module in sorted({name.partition(".")[0] for tree in TREES.values() for name, _ in foreign_imports(tree)}):
        extra = PROJECT["optional-dependencies"].get(EXTRA_OF.get(module), [])
        if extra and importlib.util.find_spec(module) is None:
            continue  # of an extra that is not installed here nobody can tell what brings it
        assert distributions_of(module) & {*declared, *map(required_name, extra)}, module


def test_every_need_is_pinned():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {required_name(line) for line in lines}
    needs = [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
    assert {required_name(line) for line in needs} - {"llama-exp"} <= pinned
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0].lower())


# --- the scan itself


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("from hydra._internal.utils import get_args_parser", {"hydra._internal.utils.get_args_parser"}),
        ("import keras.src.backend", {"keras.src.backend"}),
        ("import keras\nkeras.src.ops", {".src"}),
        ("from kagglehub import cache", {"kagglehub.cache"}),
        ("from keras import _private", {"keras._private"}),
        ("node._value()", {"._value"}),
        ("layer._tracker = None", {"._tracker"}),
        ("self._inherited()\nself._ours()", {"._inherited"}),
        ("super()._ours()", {"._ours"}),
        ("wandb.Settings(x_disable_meta=True)", {"x_disable_meta="}),
        ("NAME = 'hydra._internal.core_plugins.A'", {"hydra._internal.core_plugins.A"}),
        ("import os, keras\nfrom hydra.utils import instantiate\nfrom keras import ops\na._replace(b=1)", set()),
        ("class A:\n  def _own(self, other): return other._own, other.__dict__, 'preset._target_'", set()),
    ],
)
def test_the_scan_sees_private_names(source, uses):
    assert set(private_uses(ast.parse(source), {"_ours"})) == uses
