"""`${budget_steps:1200}` in `trainer.max_steps`: the steps that the run's budget buys; without a budget 1200.

    read_budget    of a composed config, whose values may still be wrong
    list_reads     the keys that the number of steps comes from

Imports no framework.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from llama_exp.architecture import SIZES
from llama_exp.config.budget import FLOPS, Budget, make_budget
from llama_exp.config.check.typed import TARGET, convert, find_schemas, get_hints
from llama_exp.config.schema import LoraConfig, ModelConfig, TrainerConfig
from llama_exp.limits.trainer import BUDGETS

CALL = "${budget_steps:"
_BUDGETS = tuple(f"trainer.{key}" for key in BUDGETS)
_PER_STEP = ("batch_size", "accumulation_steps")
_OF_A_STEP = (*(f"trainer.{key}" for key in _PER_STEP), "dataset.sequence_length")
_OF_THE_MODEL = tuple(f"model.{key}" for key in SIZES)
_RANK = "lora.rank"
_OF_RANKS = (_RANK, "lora.targets", "lora.rank_pattern", "lora.source")
_OF_LORA = tuple(f"lora.{key}" for key in get_hints(LoraConfig))


def budget_steps(otherwise: int | str, *, _root_: DictConfig) -> int:
    """What `trainer.max_steps` is; what comes from the environment is text."""
    budget = read_budget(_root_)
    return int(otherwise) if budget is None else budget.steps


def read_budget(cfg: DictConfig) -> Budget | None:
    """The budget of a composed config; raises as `make_budget`, and ValueError for a value of a wrong type."""
    trainer = _typed(cfg, "trainer", TrainerConfig, BUDGETS)
    if all(value is None for value in trainer.values()):
        return None  # nothing else is read, so that nothing else can be wrong
    trainer |= _typed(cfg, "trainer", TrainerConfig, _PER_STEP)
    length = OmegaConf.select(cfg, "dataset.sequence_length")
    dataset = {} if length is None else {"sequence_length": convert(length, int)}
    model = lora = None
    if trainer[FLOPS] is not None and OmegaConf.select(cfg, f"model.{TARGET}") in find_schemas("model"):
        model = ModelConfig(**_typed(cfg, "model", ModelConfig, SIZES))
        lora = LoraConfig(**_typed(cfg, "lora", LoraConfig, get_hints(LoraConfig)))
    return make_budget(trainer, dataset, model, lora)


def list_reads(cfg: DictConfig, briefly: bool = False) -> tuple[str, ...]:
    """The keys that the number of steps comes from.

    Args:
        cfg: composed.
        briefly: of adapters only what says their ranks.
    """
    values = {key: OmegaConf.select(cfg, key, throw_on_resolution_failure=False) for key in (*_BUDGETS, _RANK)}
    flops, tokens = (values[key] for key in _BUDGETS)
    if flops is None and tokens is None:
        return _BUDGETS
    if flops is None:
        return (*_BUDGETS, *_OF_A_STEP)
    of_ranks = _OF_RANKS if values[_RANK] else (_RANK,)
    return (*_BUDGETS, *_OF_A_STEP, *_OF_THE_MODEL, *(of_ranks if briefly else _OF_LORA))


def _typed(cfg: DictConfig, section: str, schema: type, keys: Any) -> dict[str, Any]:
    hints = get_hints(schema)
    found = {key: OmegaConf.select(cfg, f"{section}.{key}") for key in keys}
    plain = {
        key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in found.items()
    }
    return {key: convert(value, hints[key]) for key, value in plain.items()}
