"""Which values of different parts are impossible together.

A rule runs only where every section it reads is sound by itself. What concerns one part alone is in `llama_exp.limits`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from llama_exp.architecture import (
    AS_STORED,
    FLOATS,
    SIZES,
    Quantization,
    linear_shapes,
    quantization_problems,
    stored_problems,
)
from llama_exp.architecture.parametrization import MUP_OPTIMIZERS, MupRates, Parametrization
from llama_exp.config.budget import find_other_length
from llama_exp.config.check.claims import find_claim_problems
from llama_exp.config.check.ranges import LIMITS
from llama_exp.config.evaluation import find_problems, list_evaluations, list_figures
from llama_exp.config.identity import to_dict
from llama_exp.config.loggers import list_loggers
from llama_exp.config.model_files import say_how_to_fit
from llama_exp.config.schema import Config, LoggerConfig, ModelConfig, ScheduleConfig, WsdScheduleConfig
from llama_exp.config.stored import known_quantization
from llama_exp.errors import ConfigError, Problem
from llama_exp.limits.dataset import ChatTemplate
from llama_exp.limits.figures import AT_THE_END, EVALUATION, OF_VALIDATION, find_undirected_figure, find_unknown_figure
from llama_exp.limits.lora import PATTERNS
from llama_exp.limits.model import find_nearest_divisor
from llama_exp.limits.precision import Policy
from llama_exp.limits.schedule import check_steps
from llama_exp.limits.tokenizer import NO_PRESET, check_room
from llama_exp.logger import find_missing_package, find_wandb_problems
from llama_exp.lora.targets import layer_problems
from llama_exp.preset.stored import read_stored

TRAINED_TOKENIZERS = ("llama_exp.tokenizer.auto", "llama_exp.tokenizer.bpe")
OBJECTIVE = "objective_metric"
PRESET_TOKENIZER = "llama_exp.tokenizer.preset"
OF_A_MODEL = ("llama_exp.tokenizer.auto", PRESET_TOKENIZER)
WITHOUT_TEMPLATE = tuple(f"llama_exp.tokenizer.{name}" for name in ("bpe", "byte", "sentencepiece"))


def lora_layers(config: Config) -> Iterator[Problem]:
    """Every target and every pattern names a layer, and no adapter is wider than its layer."""
    lora = config.lora
    if lora.rank > 0:
        patterns = {key: getattr(lora, key) for key in PATTERNS}
        yield from layer_problems(lora.rank, lora.targets, patterns, linear_shapes(vars(config.model)))


def architecture_of_preset(config: Config) -> Iterator[Problem]:
    """The model has the sizes of the weights that it loads, as far as they are known without a download."""
    source = config.preset.source
    stored = None if source is None or not config.preset.load_weights else read_stored(source)
    if stored is None:
        return
    differing = [key for key in SIZES if getattr(config.model, key) != stored.sizes[key]]
    if differing:
        found = ", ".join(f"{key}={getattr(config.model, key)} (preset: {stored.sizes[key]})" for key in differing)
        what = f"is another architecture than the preset {source} has"
        yield Problem(what, "model", found, say_how_to_fit(stored.sizes, vars(config.model), source))


def parametrization(config: Config) -> Iterator[Problem]:
    """Under muP the optimizer is one whose rates are known, and no adapter trains."""
    if config.model.parametrization is not Parametrization.mup:
        return
    plain = "set model.parametrization=standard"
    target = getattr(config.optimizer, "_target_", None) or to_dict(config.optimizer).get("_target_")
    if target not in MUP_OPTIMIZERS:
        known = " or ".join(name.rpartition(".")[2] for name in MUP_OPTIMIZERS)
        what = "is an optimizer whose learning rates muP's papers do not scale with the width"
        yield Problem(
            what, "optimizer._target_", f"{target} with model.parametrization=mup", f"choose {known}, or {plain}"
        )
    elif MUP_OPTIMIZERS[target] is MupRates.sgd and config.optimizer.global_clipnorm is not None:
        what = "clips gradients whose length follows the width: under SGD that is another learning rate at each width"
        found = f"global_clipnorm={config.optimizer.global_clipnorm} with model.parametrization=mup"
        yield Problem(what, "optimizer.global_clipnorm", found, f"set it to null, or {plain}")
    if config.lora.rank > 0:
        what = "is mup, which says nothing about adapters"
        found = f"parametrization=mup with lora.rank={config.lora.rank}"
        action = f"{plain}: it computes the same, with the weights of a muP run too"
        yield Problem(what, "model.parametrization", found, action)


def quantization_of_preset(config: Config) -> Iterator[Problem]:
    """Weights that are stored in a small type stay what they are."""
    stored, section = _stored(config), vars(config.quantization)
    if stored is not None and not any(quantization_problems(section)):
        yield from stored_problems(section, stored, str(config.preset.source))


def quantization_groups(config: Config) -> Iterator[Problem]:
    """Groups that somebody asks for fill every layer; a preset's are what they are."""
    group_size, model = config.quantization.group_size, config.model
    inputs = math.gcd(model.hidden_dim, model.intermediate_dim)
    if group_size and inputs % group_size and _stored(config) is None:
        yield Problem(
            "does not divide the inputs of every layer into equal groups",
            "quantization.group_size",
            f"group_size={group_size} with hidden_dim={model.hidden_dim}, intermediate_dim={model.intermediate_dim}",
            f"the nearest group_size is {find_nearest_divisor(group_size, inputs)}; 0 means one group",
        )


def quantization_trains(config: Config) -> Iterator[Problem]:
    """Quantized weights do not train; adapters on top of them do."""
    if config.quantization.mode not in (FLOATS, AS_STORED) and config.lora.rank == 0:
        other = "quantization=none" if _stored(config) is None else "choose a preset with floating-point weights"
        yield Problem(
            "is 0, but quantized weights do not train: only adapters on top of them do",
            "lora.rank",
            f"lora.rank=0 with quantization.mode={config.quantization.mode}",
            f"set lora.rank=8, or {other}",
        )


def _stored(config: Config) -> Quantization | None:
    """How the preset's weights are stored, where that is known and not in floating point."""
    known = known_quantization(config)
    return known if isinstance(known, Quantization) else None


def quantization_precision(config: Config) -> Iterator[Problem]:
    """Sums of products with stored numbers fit into the compute type."""
    mode = config.quantization.mode
    if mode in ("int8", "float8") and config.precision.policy is Policy.mixed_float16:
        yield Problem(
            f"sums of {mode} products exceed float16's largest number",
            "precision.policy",
            f"mixed_float16 with quantization.mode={mode}",
            "choose precision=mixed_bfloat16 or float32, or quantization=int4",
        )


def steps(config: Config) -> Iterator[Problem]:
    """Warm-up and decay fit into the run."""
    schedule = config.schedule
    if isinstance(schedule, ScheduleConfig):
        decay_steps = schedule.decay_steps if isinstance(schedule, WsdScheduleConfig) else 0
        yield from check_steps(schedule.warmup_steps, decay_steps, config.trainer.max_steps)


def token_budget(config: Config) -> Iterator[Problem]:
    """A budget decides the number of steps alone; here the ones that need no sizes of a model."""
    if config.trainer.budget_flops is None or not isinstance(config.model, ModelConfig):
        yield from _other_length(config)


def flop_budget(config: Config) -> Iterator[Problem]:
    """Likewise one whose steps cost what the model's sizes say."""
    if config.trainer.budget_flops is not None:
        yield from _other_length(config)


def _other_length(config: Config) -> Iterator[Problem]:
    try:
        problem = find_other_length(config)
    except ConfigError as error:
        yield from error.problems
    else:
        yield from () if problem is None else (problem,)


def tokenizer(config: Config) -> Iterator[Problem]:
    """A tokenizer is loaded from somewhere, or trained with room for every byte."""
    target = getattr(config.tokenizer, "_target_", None)
    if target == PRESET_TOKENIZER and config.preset.source is None:
        yield NO_PRESET
    elif target in TRAINED_TOKENIZERS and config.preset.source is None:
        yield from check_room(config.tokenizer.vocabulary_size)


def chat_template(config: Config) -> Iterator[Problem]:
    """The chat template of a model comes with the model's tokenizer."""
    name, target = getattr(config.dataset, "chat_template", None), getattr(config.tokenizer, "_target_", None)
    has_model = config.preset.source is not None and config.preset.load_weights
    if name is ChatTemplate.model and (target in WITHOUT_TEMPLATE or (target in OF_A_MODEL and not has_model)):
        source = f"preset.source={config.preset.source} and {str(target).rpartition('.')[2]} as the tokenizer"
        yield Problem(
            "takes the chat template that comes with a model's tokenizer, and this run uses none of a model",
            "dataset.chat_template",
            f"chat_template=model with {source}",
            "set preset.source to an instruct model and tokenizer=auto, or give chatml, llama2 or llama3",
        )


def vocabulary(config: Config) -> Iterator[Problem]:
    """The model has a row for each token."""
    size = getattr(config.tokenizer, "vocabulary_size", 0)
    if size > config.model.vocabulary_size:
        yield Problem(
            "exceeds model.vocabulary_size: the last tokens would have no embedding",
            "tokenizer.vocabulary_size",
            f"{size} with model.vocabulary_size={config.model.vocabulary_size}",
            f"give at most {config.model.vocabulary_size}, or raise model.vocabulary_size",
        )


def resume(config: Config) -> Iterator[Problem]:
    """A run can only be resumed from where there is something."""
    if config.resume not in ("none", "auto") and not Path(config.resume).expanduser().is_dir():
        yield Problem(
            "is neither none nor auto, and no such folder exists",
            "resume",
            config.resume,
            "give none, auto, or a run or checkpoint folder (outputs/<name>/<run>)",
        )


def figures(config: Config) -> Iterator[Problem]:
    """Figures that decide something are figures of this run."""
    of_evaluations = list_figures(config)
    told = {figure.rpartition(".")[0] for figure in of_evaluations}
    own = [name for name in list_evaluations(config) if f"{EVALUATION}.{name}" not in told]
    known = (*OF_VALIDATION, *of_evaluations)
    objective = config.objective_metric
    unknown = list(find_unknown_figure(objective, OBJECTIVE, (*known, *AT_THE_END), own))
    yield from unknown or find_undirected_figure(objective, OBJECTIVE)
    for key in ("keep_best", "stop_early"):
        figure = getattr(config.trainer, key)
        if figure is not None:
            yield from find_unknown_figure(figure, f"trainer.{key}", known, own)


def loggers(config: Config) -> Iterator[Problem]:
    """W&B online has a key, others their package: found out now, not when data, preset and model are there."""
    for where, section in list_loggers(config.logger).items():
        if isinstance(section, LoggerConfig):
            yield from find_wandb_problems(vars(section))
        else:
            yield from find_missing_package(getattr(section, "_target_", ""), where)


def evaluation(config: Config) -> Iterator[Problem]:
    """Sets and tasks have names, and tasks of ours templates and files."""
    yield from find_problems(config.evaluation)


RULES: tuple[tuple[tuple[str, ...], Callable[[Config], Iterator[Problem]]], ...] = (
    (("model", "lora"), lora_layers),
    (("model", "preset"), architecture_of_preset),
    (("model", "optimizer", "lora"), parametrization),
    (("quantization", "preset"), quantization_of_preset),
    (("quantization", "preset", "model"), quantization_groups),
    (("quantization", "preset", "lora"), quantization_trains),
    (("quantization", "precision"), quantization_precision),
    (("schedule", "trainer"), steps),
    (("trainer", "dataset"), token_budget),
    (("trainer", "dataset", "model", "lora"), flop_budget),
    (("preset", "tokenizer"), tokenizer),
    (("dataset", "preset", "tokenizer"), chat_template),
    (("tokenizer", "model"), vocabulary),
    (("resume",), resume),
    ((OBJECTIVE, "trainer", "evaluation"), figures),
    (("logger",), loggers),
    (("evaluation",), evaluation),
    (("protocol",), find_claim_problems),
)


def find_impossible_pairs(config: Config, unsound: set[str]) -> Iterator[Problem]:
    """Problems of all rules whose sections are sound: of each part of ours, then across parts."""
    for name, limits in LIMITS.items():
        section = getattr(config, name, None)
        if name not in unsound and dataclasses.is_dataclass(section):
            yield from limits.pair_problems(vars(section))
    for sections, rule in RULES:
        if unsound & set(sections) or ("model" in sections and not isinstance(config.model, ModelConfig)):
            continue
        yield from rule(config)
