"""What a class of somebody else's must have for a run to use it: told from its source, before anything is imported.

`llama_exp.config.instantiate` asks the imported class the same questions, for what a source does not say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from llama_exp.config.check.nearest import find_nearest_name
from llama_exp.config.check.typed import TARGET, is_allowed_target, show
from llama_exp.config.evaluation import SECTION as EVALUATION
from llama_exp.config.evaluation import list_nodes
from llama_exp.config.loggers import SECTION as LOGGER
from llama_exp.config.loggers import list_loggers
from llama_exp.config.outline import Outline, has_module, read_outline
from llama_exp.config.schema import SCHEMAS, Config
from llama_exp.errors import Problem
from llama_exp.limits.evaluation import TASK_METHODS
from llama_exp.limits.trainer import OWN_OBSERVERS, observer_problems

# Keys that speak to Hydra instead of the target.
HYDRA_KEYS = {TARGET, "_args_", "_partial_"}
WITH_TARGET = ("dataset", "tokenizer", "model", "optimizer", "schedule")
# What the run itself adds to the keys of a section when it builds the section's object.
ADDED_ARGUMENTS: Mapping[str, set[str]] = {
    "model": {"dtype", "quantization", "seed"},
    "tokenizer": {"texts", "preset_folder", "cache_dir", "fingerprint"},
    "schedule": {"learning_rate", "num_steps"},
    "optimizer": {"peak"},
    "logger": {"folder", "name", "group", "config"},
}
# Keys that the run reads from a section whatever its class: type and meaning.
NEEDED_KEYS = {
    "optimizer": ("learning_rate", float, "a number above 0: the schedule's peak"),
    "model": ("vocabulary_size", int, "an integer: its tokens"),
}
RATES_METHOD = "multiply_rates"  # of an optimizer: path of a variable -> factor on its learning rate
KERAS_OPTIMIZER = "keras.src.optimizers.base_optimizer.BaseOptimizer"
KERAS_CALLBACK = "keras.src.callbacks.callback.Callback"
# Keras' callback -> what does the same here.
INSTEAD = {
    "EarlyStopping": "trainer.stop_early=validation.loss, with trainer.patience and trainer.min_delta",
    "ModelCheckpoint": "trainer.checkpoint_every_steps, trainer.keep_checkpoints and trainer.keep_best",
    "BackupAndRestore": "every run can go on: resume=auto",
    "OrbaxCheckpoint": "trainer.checkpoint_every_steps and trainer.keep_checkpoints",
    "CSVLogger": "logger=[wandb,csv]",
    "History": "metrics.jsonl of the run folder has every row",
    "TensorBoard": "logger=[wandb,tensorboard]",
    "RemoteMonitor": "logger.mode=online",
    "ProgbarLogger": "every run has a bar",
    "TerminateOnNaN": "every run ends at a loss that is not finite, with exit code 5",
    "LearningRateScheduler": "schedule=cosine, linear, constant or wsd, or a schedule of your own",
    "ReduceLROnPlateau": "schedule=cosine, linear, constant or wsd, or a schedule of your own",
    "SwapEMAWeights": "use_ema=true of a Keras optimizer",
}
NO_KERAS_CALLBACK = "is a callback of Keras' fit(), which never calls it here"


def list_targets(config: Config) -> dict[str, Any]:
    """Config key -> section of every object that a run builds from a `_target_`."""
    sections = {name: getattr(config, name) for name in WITH_TARGET} | list_loggers(config.logger)
    sections |= list_nodes(config)
    return sections | {f"trainer.callbacks.{name}": node for name, node in config.trainer.callbacks.items()}


def find_added_arguments(where: str) -> set[str]:
    """The arguments that the run adds to the keys of a section."""
    return ADDED_ARGUMENTS.get(where.partition(".")[0], set())


def find_contract_problems(config: Config, unsound: set[str]) -> Iterator[Problem]:
    """The problems of every class that is not ours, as far as its source tells; not of sections in `unsound`."""
    sound = {section: getattr(config, section) for section in WITH_TARGET if section not in unsound}
    for section, node in (sound | ({} if LOGGER in unsound else list_loggers(config.logger))).items():
        if isinstance(node, dict):
            yield from _key_problems(section, node)
            yield from _class_problems(section, node, config.trusted_modules)
    if not unsound & {"optimizer", "lora"} and isinstance(config.optimizer, dict):
        yield from _rate_problems(config)
    for where, node in ({} if EVALUATION in unsound else list_nodes(config)).items():
        if isinstance(node, dict):
            yield from _class_problems(where, node, config.trusted_modules)
            yield from _task_problems(where, node, config.trusted_modules)
    callbacks = {} if "trainer" in unsound else config.trainer.callbacks
    for name, node in callbacks.items():
        where = f"trainer.callbacks.{name}"
        yield from _callback_problems(where, name, node, config.trusted_modules)


def _key_problems(section: str, node: Mapping[str, Any]) -> Iterator[Problem]:
    if section not in NEEDED_KEYS:
        return
    key, kind, meaning = NEEDED_KEYS[section]
    where = f"{section}.{key}"
    if key not in node:
        yield Problem("has no value", where, f"{node[TARGET]} without {key}", f"give +{where}=<{meaning}>")
        return
    value = node[key]
    accepted = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted) or not value > 0:
        yield Problem("is an impossible value", where, show(value), f"give {meaning}")


def _class_problems(where: str, node: Mapping[str, Any], trusted_modules: list[str]) -> Iterator[Problem]:
    target = node[TARGET]
    outline = _outline(target, trusted_modules)
    if outline is None:
        if isinstance(target, str) and is_allowed_target(target, trusted_modules) and not has_module(target):
            action = "correct the name; a module of your own must be installed or on PYTHONPATH"
            what = f"cannot be imported: no module named {target.partition('.')[0]}"
            yield Problem(what, f"{where}.{TARGET}", target, action)
        return
    if where == "optimizer" and outline.is_class and outline.is_whole and KERAS_OPTIMIZER not in outline.names:
        action = "choose a class of keras.optimizers, or derive yours from keras.optimizers.Optimizer"
        yield Problem("is no optimizer", f"{where}.{TARGET}", target, action)
    else:
        yield from _argument_problems(outline, node, where)


def _rate_problems(config: Config) -> Iterator[Problem]:
    """LoRA+ needs an optimizer that can give a variable a learning rate of its own."""
    target, ratio = config.optimizer[TARGET], config.lora.learning_rate_ratio
    outline = _outline(target, config.trusted_modules)
    if outline is None or not (outline.is_class and outline.is_whole):
        return  # asked of the imported class, later
    if config.lora.rank and ratio != 1 and RATES_METHOD not in outline.methods:
        yield rates_problem(target, f"lora.learning_rate_ratio={ratio:g}")


def rates_problem(target: str, found: str) -> Problem:
    """The problem of an optimizer that would lose the learning rates of single variables."""
    what = "has one learning rate for all variables, but this run gives some of them their own"
    action = f"choose optimizer=adamw, sgd, lion, adafactor or muon, or give your class {RATES_METHOD}(factors)"
    return Problem(what, f"optimizer.{TARGET}", f"{target}; {found}", f"{action} (docs/how_to/own_optimizer.md)")


def _task_problems(where: str, node: Mapping[str, Any], trusted_modules: list[str]) -> Iterator[Problem]:
    """A class of the user's own below evaluation.tasks has what a task needs."""
    outline = _outline(node[TARGET], trusted_modules) if where.startswith(f"{EVALUATION}.tasks.") else None
    if outline is not None and outline.is_class and outline.is_whole:
        missing = [name for name in TASK_METHODS if name not in outline.methods]
        if missing:
            action = f"give it {' and '.join(missing)} (docs/how_to/evaluate.md)"
            yield Problem("is no task", f"{where}.{TARGET}", node[TARGET], action)


def _outline(target: Any, trusted_modules: list[str]) -> Outline | None:
    if not isinstance(target, str) or not is_allowed_target(target, trusted_modules):
        return None  # told by the types
    return read_outline(target)


def _argument_problems(outline: Outline, node: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if "_args_" in node or node.get("_partial_"):
        return
    added = find_added_arguments(where)
    # Keras' optimizers take any name, and refuse it later.
    is_open = outline.is_open and KERAS_OPTIMIZER not in outline.names
    names = outline.parameters
    for key in node:
        if key not in names and key not in HYDRA_KEYS and not is_open:
            match = None if key in _keys_of_ours(where) else find_nearest_name(key, names)
            action = f"did you mean {match}? " if match else f"take it out (~{where}.{key}); "
            action += f"arguments: {', '.join(sorted(names - added)) or 'none'}"
            yield Problem(f"{node[TARGET]} has no such argument", f"{where}.{key}", show(node[key]), action)
    missing = sorted(outline.required - set(node) - added)
    if missing:
        action = f"set {', '.join(f'{where}.{name}' for name in missing)}"
        yield Problem(f"{node[TARGET]} needs more arguments", where, f"without {', '.join(missing)}", action)


def _keys_of_ours(section: str) -> set[str]:
    """Keys that the files of conf/ state for a section: one that another class lacks is no slip of the finger."""
    schemas = [schema for target, schema in SCHEMAS.items() if target.startswith(f"llama_exp.{section}.")]
    return {field.name for schema in schemas for field in dataclasses.fields(schema)}


def _callback_problems(where: str, name: str, node: Any, trusted_modules: list[str]) -> Iterator[Problem]:
    if name in OWN_OBSERVERS:
        action = f"choose another name than {', '.join(OWN_OBSERVERS)}"
        yield Problem("is the name of an observer that every run has", where, name, action)
    if not isinstance(node, dict) or TARGET not in node:
        action = f"give {where}={{_target_: your.Class, ...}}"
        yield Problem("names no class", where, show(node), action)
        return
    target = node[TARGET]
    outline = _outline(target, trusted_modules)
    if outline is not None and KERAS_CALLBACK in outline.names:
        yield keras_problem(where, target)
        return
    yield from _class_problems(where, node, trusted_modules)
    if outline is not None and outline.is_class and outline.is_whole:
        yield from observer_problems(outline.methods, f"{where}.{TARGET}", target)


def keras_problem(where: str, target: str) -> Problem:
    """The problem of a callback that only Keras' own loop would call."""
    instead = INSTEAD.get(target.rpartition(".")[2], "write a class with the methods that you use")
    action = f"take it out; {instead} (docs/how_to/own_callback.md)"
    return Problem(NO_KERAS_CALLBACK, f"{where}.{TARGET}", target, action)
