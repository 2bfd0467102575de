"""Finds by reading the sources which names of other packages are in use that are not public."""

import ast
import importlib.util
import re
import sys
from importlib import metadata

# Modules whose names their packages document; a package's own top level always counts.
PUBLIC_MODULES = {
    "huggingface_hub.constants",
    "huggingface_hub.errors",
    "huggingface_hub.utils",
    "hydra.core.hydra_config",
    "hydra.errors",
    "hydra.types",
    "hydra.utils",
    "jax.numpy",
    "jinja2.ext",
    "jinja2.sandbox",
    "keras.ops",
    "keras.quantizers",
    "llvmlite.ir",
    "lm_eval.api.model",
    "lm_eval.models.utils",
    "lm_eval.tasks",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "matplotlib.ticker",
    "mlflow.entities",
    "mlflow.tracking",
    "numba.extending",
    "numba.types",
    "omegaconf.errors",
    "optuna.distributions",
    "optuna.importance",
    "optuna.pruners",
    "optuna.samplers",
    "optuna.storages",
    "optuna.storages.journal",
    "optuna.study",
    "optuna.trial",
    "requests.adapters",
    "rich.box",
    "rich.console",
    "rich.live",
    "rich.progress",
    "rich.table",
    "rich.text",
    "safetensors.numpy",
    "sentencepiece.sentencepiece_model_pb2",
    "tokenizers.decoders",
    "tokenizers.models",
    "tokenizers.normalizers",
    "tokenizers.pre_tokenizers",
    "tokenizers.processors",
    "tokenizers.trainers",
}
PUBLIC_METHODS = {"_replace", "_asdict", "_fields", "_make"}  # of named tuples
_PRIVATE = re.compile(r"_[a-zA-Z]\w*[a-zA-Z0-9]|_[a-zA-Z]")  # neither __dunder__ nor _keyword_
_PRIVATE_PATH = re.compile(r"(?!llama_exp\.)[a-z]\w*(\.\w+)*\._[a-z]\w*(\.\w+)*(?<!_)")
_EXPERIMENTAL = re.compile(r"x_[a-z_]{3,}")  # wandb's settings that it may change at any time


def foreign_imports(tree):
    """(dotted module, name or None) of each import that is neither the standard library's nor our own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for module, name in found:
            if module.partition(".")[0] not in {*sys.stdlib_module_names, "llama_exp", "hydra_plugins"}:
                yield module, name


def defined_names(trees):
    """Private names that our own sources define: functions, classes, variables, attributes, arguments."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names |= {node.attr} if getattr(node.value, "id", None) in ("self", "cls") else set()
    return names


def private_uses(tree, inherited):
    """What a file uses of others that is not public: dotted names, `.attribute` or `argument=`.

    Args:
        inherited: private names that any of our files defines. They may be read of `self`; of other objects only those
            that the file itself defines.
    """
    yield from _private_imports(tree)
    own = defined_names([tree])
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_foreign(node, own, inherited):
            yield f".{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg and _EXPERIMENTAL.fullmatch(node.arg):
            yield f"{node.arg}="
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _PRIVATE_PATH.fullmatch(node.value):
            yield node.value


def _private_imports(tree):
    for module, name in foreign_imports(tree):
        dotted, root = f"{module}.{name}" if name else module, module.partition(".")[0]
        is_module = module == root and name is not None and importlib.util.find_spec(dotted) is not None
        documented = {dotted} if is_module else {module, dotted}
        if not documented & (PUBLIC_MODULES | {root}) or (name and _PRIVATE.fullmatch(name)):
            yield dotted


def _is_foreign(node, own, inherited):
    """Whether an attribute is private and none that our own classes define."""
    if not _PRIVATE.fullmatch(node.attr):
        return node.attr == "src"  # keras.src and its like
    receiver = node.value
    if isinstance(receiver, ast.Call) and getattr(receiver.func, "id", None) == "super":
        return True
    if getattr(receiver, "id", None) in ("self", "cls"):
        return isinstance(node.ctx, ast.Load) and node.attr not in inherited
    is_ours = node.attr in own and not isinstance(node.ctx, ast.Store)
    return not is_ours and node.attr not in PUBLIC_METHODS


def overridden(cls):
    """Private methods of other packages' classes that a class of ours replaces: `Base._method`."""
    for base in cls.__mro__[1:]:
        if base.__module__.partition(".")[0] in {*sys.stdlib_module_names, "llama_exp"}:
            continue
        for name in vars(cls).keys() & vars(base).keys():
            if _PRIVATE.fullmatch(name) and callable(vars(base)[name]):
                yield f"{base.__name__}.{name}"


def distributions_of(module):
    """Names, as pip normalizes them, of the installed distributions that bring a top-level module."""
    return {_normalized(name) for name in metadata.packages_distributions().get(module, [])}


def required_name(requirement):
    """The normalized name of a requirement such as `hydra-core>=1.3,<1.4`."""
    return _normalized(re.match(r"[\w.-]+", requirement)[0])


def _normalized(name):
    return re.sub(r"[-_.]+", "-", name).lower()
