"""How many optimizer steps a budget of arithmetic or of tokens buys. Imports no framework.

    trainer.budget_flops      whole steps, of FLOP per token x tokens per step each
    trainer.budget_tokens     whole steps, of tokens per step each

FLOP per token are `architecture.count_flops_per_token`, the number that a plan, a report and MFU have. Tokens per step
are all positions of the rows, padding too: they are computed like others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_exp.architecture import count_flops_per_token
from llama_exp.config.identity import LENGTH, to_dict
from llama_exp.config.schema import Config, ModelConfig
from llama_exp.errors import ConfigError, Problem
from llama_exp.limits import LARGEST
from llama_exp.limits.trainer import BUDGETS

FLOPS, TOKENS = BUDGETS
UNITS = {FLOPS: "FLOP", TOKENS: "tokens"}


@dataclass(frozen=True)
class Budget:
    """What a run may spend on training.

    key: of section `trainer`. amount: FLOP or tokens. cost_per_token: FLOP per token; 1 for a budget of tokens.
    tokens_per_step: positions of all rows of an optimizer step.
    """

    key: str
    amount: float
    cost_per_token: int
    tokens_per_step: int

    @property
    def cost_per_step(self) -> int:
        """FLOP or tokens of one optimizer step."""
        return self.cost_per_token * self.tokens_per_step

    @property
    def steps(self) -> int:
        """Whole optimizer steps that it buys."""
        return int(self.amount) // self.cost_per_step

    def formula(self) -> str:
        """How the number of steps comes about, in one line."""
        each = f"{self.tokens_per_step:,} tokens per step"
        if self.key == FLOPS:
            each = f"({self.cost_per_token:,} FLOP per token x {each})"
        return f"{self.steps} = {self.amount:g} {UNITS[self.key]} / {each}, rounded down"

    def spent(self, steps: int) -> dict[str, Any]:
        """What so many steps use of it, as `summary.json` has it: `amount`, `unit`, `steps`, `used`."""
        return {"amount": self.amount, "unit": UNITS[self.key], "steps": steps, "used": steps * self.cost_per_step}


def find_budget(config: Config) -> Budget | None:
    """The budget of a typed config; None: it has none. Raises as `make_budget`."""
    return make_budget(vars(config.trainer), config.dataset, config.model, config.lora)


def make_budget(trainer: Mapping[str, Any], dataset: Any, model: Any, lora: Any) -> Budget | None:
    """The budget that a trainer section states; None: it states none.

    Args:
        trainer: its values; of these `budget_flops`, `budget_tokens`, `batch_size` and `accumulation_steps` count.
        dataset: typed section; `sequence_length` counts.
        model: typed section, read for `budget_flops` only.
        lora: likewise.

    Raises:
        ConfigError: it states two, buys no step or more than can be counted, or nobody knows what a step costs.
        InputError: the ranks of adapters are read from a `lora.source` that is none or does not fit.
        ValueError: a budget, batch or size is impossible, which the checks of their own keys tell.
    """
    stated = [key for key in BUDGETS if trainer[key] is not None]
    if not stated:
        return None
    if len(stated) > 1:
        raise ConfigError(both_stated(trainer))
    (key,) = stated
    row_length = to_dict(dataset).get("sequence_length")
    if not isinstance(row_length, int):
        raise ConfigError(_unknown_cost(key, "dataset", "a data set without sequence_length", "trainer.max_steps"))
    if key == FLOPS and not isinstance(model, ModelConfig):
        raise ConfigError(_unknown_cost(key, "model", "a model of your own class", f"trainer.{TOKENS}"))
    cost = 1 if key == TOKENS else _count_flops(to_dict(model), to_dict(lora), row_length)
    budget = Budget(key, trainer[key], cost, trainer["batch_size"] * trainer["accumulation_steps"] * row_length)
    if budget.cost_per_step <= 0 or not 0 < budget.amount < math.inf:
        raise ValueError("a step that costs nothing, or a budget that is no amount")
    if not 1 <= budget.steps <= LARGEST:
        raise ConfigError(_out_of_reach(budget))
    return budget


def _count_flops(sizes: dict[str, Any], adapters: dict[str, Any], row_length: int) -> int:
    from llama_exp.lora.source import ranks  # it loads NumPy, which all other commands do without

    return count_flops_per_token(sizes, ranks(adapters, sizes), row_length)


def both_stated(trainer: Mapping[str, Any]) -> Problem:
    """The problem of a trainer section with two budgets."""
    found = ", ".join(f"{key}={trainer[key]:g}" for key in BUDGETS)
    action = " or ".join(f"trainer.{key}=null" for key in BUDGETS)
    return Problem("two budgets, and each gives another number of steps", f"trainer.{FLOPS}", found, f"set {action}")


def find_other_length(config: Config) -> Problem | None:
    """The problem of `trainer.max_steps` that is not what the budget buys; None: it is, or there is no budget."""
    budget, max_steps = find_budget(config), config.trainer.max_steps
    if budget is None or budget.steps == max_steps:
        return None
    return Problem(
        f"the length is stated twice: trainer.{budget.key} buys another number of steps",
        LENGTH,
        f"max_steps={max_steps} with {budget.key}={budget.amount:g}, which buys {budget.steps}",
        f"leave {LENGTH} out, or set trainer.{budget.key}=null; where a file has both, {LENGTH}={budget.steps}",
    )


def _unknown_cost(key: str, section: str, found: str, other: str) -> Problem:
    what = f"nobody knows what a step costs: trainer.{key} needs one of this package's sections `{section}`"
    return Problem(what, f"trainer.{key}", found, f"set trainer.{key}=null and give {other} instead")


def _out_of_reach(budget: Budget) -> Problem:
    unit, where = UNITS[budget.key], f"trainer.{budget.key}"
    found = f"{budget.key}={budget.amount:g}; a step takes {budget.cost_per_step} {unit}"
    if budget.steps < 1:
        return Problem("buys less than one optimizer step", where, found, f"give at least {budget.cost_per_step}")
    most = LARGEST * budget.cost_per_step
    return Problem("buys more optimizer steps than can be counted", where, found, f"give at most {most}")
