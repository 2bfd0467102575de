"""What a run will need, from its config alone: parameters, tokens, arithmetic, memory, disk. Imports no framework.

Memory is in `llama_exp.run.plan_memory`, what to change where it is too much in `llama_exp.run.plan_changes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from llama_exp.architecture import count_flops_per_token, count_parameters
from llama_exp.config.budget import Budget, find_budget
from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config, ModelConfig
from llama_exp.console.progress import say_spent
from llama_exp.lora.source import count_lora_parameters, ranks
from llama_exp.run.plan_memory import FRAMEWORKS, VARIABLE_BYTES, count_memory_bytes, count_repeated_flops
from llama_exp.run.plan_state import count_state_bytes, count_trainable
from llama_exp.run.room import count_disk_bytes


@dataclass(frozen=True)
class Plan:
    """The size of a run.

    flops_per_token: additions and multiplications of forward and backward pass per trained token.
    repeated_flops_per_token: what `trainer.remat` computes a second time, which is not in the former.
    memory_bytes: component -> bytes at the peak, of the whole process.
    disk_bytes: component -> bytes that the run folder will hold at its peak; see `run.room`.
    budget: that its steps were counted from; None: they were stated.
    """

    num_parameters: int
    num_trainable_parameters: int
    tokens_per_step: int
    total_tokens: int
    flops_per_token: int
    repeated_flops_per_token: int
    memory_bytes: dict[str, int]
    disk_bytes: dict[str, int]
    budget: Budget | None

    @property
    def peak_bytes(self) -> int:
        """Of the whole process, frameworks included."""
        return sum(self.memory_bytes.values())

    @property
    def array_bytes(self) -> int:
        """Of the run's own arrays: what an accelerator holds."""
        return self.peak_bytes - self.memory_bytes[FRAMEWORKS]

    @property
    def work_per_token(self) -> int:
        """All arithmetic per trained token."""
        return self.flops_per_token + self.repeated_flops_per_token


def make_plan(config: Config) -> Plan | None:
    """The plan of a run; None where a class of the user's own decides its size."""
    sequence_length = to_dict(config.dataset).get("sequence_length")
    if not isinstance(config.model, ModelConfig) or not isinstance(sequence_length, int):
        return None
    model, lora = to_dict(config.model), to_dict(config.lora)
    num_base, num_adapter = count_parameters(model), count_lora_parameters(model, lora)
    tokens_per_step = config.trainer.batch_size * config.trainer.accumulation_steps * sequence_length
    return Plan(
        num_parameters=num_base + num_adapter,
        num_trainable_parameters=count_trainable(model, lora),
        tokens_per_step=tokens_per_step,
        total_tokens=tokens_per_step * config.trainer.max_steps,
        flops_per_token=count_flops_per_token(model, ranks(lora, model), sequence_length),
        repeated_flops_per_token=count_repeated_flops(model, sequence_length, config.trainer.remat),
        memory_bytes=count_memory_bytes(config, model, sequence_length, num_base, num_adapter),
        disk_bytes=count_disk_bytes(
            config,
            num_base,
            num_adapter,
            VARIABLE_BYTES[config.precision.policy.value],
            count_state_bytes(config, model),
        ),
        budget=find_budget(config),
    )


def rows(plan: Plan) -> list[tuple[str, str]]:
    """The plan as labels and texts, for a table."""
    share = plan.num_trainable_parameters / plan.num_parameters
    total_flops = plan.flops_per_token * plan.total_tokens
    budget = [] if plan.budget is None else [("budget", say_spent(plan.budget.spent(plan.budget.steps)))]
    return [
        ("parameters", f"{plan.num_parameters:,}, of which {plan.num_trainable_parameters:,} train ({share:.3%})"),
        ("tokens", f"{plan.tokens_per_step:,} per step, {plan.total_tokens:,} in all"),
        ("arithmetic", f"{_short(plan.flops_per_token)}FLOP per token, {_short(total_flops)}FLOP in all"),
        *budget,
        ("memory", _total(plan.memory_bytes)),
        ("disk", _total(plan.disk_bytes)),
    ]


def show(plan: Plan, console: Console, answers: Sequence[tuple[str, str]]) -> None:
    """Prints the plan as a small table, with further rows about machine and data."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for label, text in [*rows(plan), *answers]:
        table.add_row(label, text)
    console.print(table, highlight=False)


def _total(parts: Mapping[str, int]) -> str:
    texts = [f"{component} {format_size(size)}" for component, size in parts.items() if size]
    return f"about {format_size(sum(parts.values()))}: {', '.join(texts)}"


def format_size(size: int) -> str:
    """Bytes as a person reads them."""
    return f"{size / 2**30:,.2f} GiB" if size >= 2**27 else f"{size / 2**20:,.1f} MiB"


def _short(count: float) -> str:
    for prefix in ("", "k", "M", "G", "T", "P"):
        if count < 1000:
            return f"{count:.3g} {prefix}"
        count /= 1000
    return f"{count:,.0f} E"
