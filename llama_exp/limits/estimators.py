"""What a claim of the section `protocol` may say: estimators and their arguments, and the names of quantities.

`llama_exp.protocol.estimators` computes; here stands what each of them takes, so that a claim is checked before a run
begins. A quantity is a number of a run by its name:

    lora.rank                    a key of its config
    validation.loss              a figure, dotted path of summary.json
    mean grad_norm               a statistic of its training rows: mean, first, last, max, min
    first evaluation.docs.loss   the same of the rows of an evaluation
    parameters.all               see `COMPUTED`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_exp.limits.figures import Direction, split_figure

# Of the training rows of metrics.jsonl.
STATISTICS = ("mean", "first", "last", "max", "min")
# Numbers of the training rows that every run has.
ROW_KEYS = ("loss", "learning_rate", "grad_norm", "tokens", "seconds", "tokens_per_second", "peak_memory_bytes", "mfu")
# Quantity -> what it is. What neither the config nor a file of the run states.
COMPUTED = {
    "parameters.all": "parameters of the model, embeddings included, without adapters",
    "parameters.non_embedding": "those without the embeddings and the output matrix",
    "flops": "additions and multiplications of the run's own training, as the report's cost counts them",
    "flops.non_embedding": "6 x parameters.non_embedding x tokens trained, as Kaplan et al. 2020 count",
    "update.rank": "mean rank of what training changed in the linear layers, as `inspect --update-rank` counts it",
    "steps.trained": "steps that the run trained itself, without those of the checkpoint that it branched from",
}
# Figures of summary.json besides those of validation and evaluations.
OF_SUMMARY = ("steps", "tokens", "seconds")
OF, AGAINST = "of", "against"
ARMS = (OF, AGAINST)
BEST_OVER, BEST_BY, PAIR_BY, CONFIDENCE = "best_over", "best_by", "pair_by", "confidence"
# Arguments that every estimator takes -> what they are where nobody states them.
COMMON: dict[str, Any] = {PAIR_BY: [], CONFIDENCE: 0.95}
# Of those that may take each arm at its best setting.
AT_BEST: dict[str, Any] = {BEST_OVER: None, BEST_BY: "validation.loss"}
# Named by an estimator that looks for the best value of it, and so takes diverged runs for the worst.
RATE = "rate"
_RATE = {RATE: "optimizer.learning_rate"}
_ISOFLOP = {
    **{"size": "parameters.all", "y": "validation.loss"},
    **{"budget": "trainer.budget_flops", "compute": "trainer.budget_flops"},
}
_NEIGHBOURS = {"neighbours": 1}


@dataclass(frozen=True)
class Arguments:
    """What an estimator takes besides `COMMON`.

    quantities: name -> the quantity where nobody states one; None: somebody must. has_arms: whether it compares runs of
    `of` with those of `against`, both filters. counts: name -> the whole number where nobody states one, at least 1.
    may_take_best: whether it takes `AT_BEST`.
    """

    quantities: Mapping[str, str | None]
    has_arms: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    may_take_best: bool = True

    def list_names(self) -> list[str]:
        """All names, those that must be stated first."""
        names = [*self.quantities, *(ARMS if self.has_arms else ()), *self.counts]
        return [*names, *(AT_BEST if self.may_take_best else ()), *COMMON]


def split_statistic(quantity: str) -> tuple[str, str] | None:
    """Statistic and key of `mean grad_norm`; None for a quantity of another kind."""
    statistic, space, key = quantity.partition(" ")
    return (statistic, key) if space and statistic in STATISTICS else None


def split_direction(quantity: str) -> tuple[str, Direction | None]:
    """A quantity that may end in `:min` or `:max`, without it, and which way is good; None: nobody says it."""
    statistic, space, key = quantity.rpartition(" ")
    path, direction = split_figure(key)
    return f"{statistic}{space}{path}", direction


ESTIMATORS: dict[str, Arguments] = {
    "best_rate_drift": Arguments({"x": None, "y": None, **_RATE}, counts=_NEIGHBOURS, may_take_best=False),
    "best_rate_ratio": Arguments({"y": None, **_RATE}, has_arms=True, counts=_NEIGHBOURS, may_take_best=False),
    "isoflop_exponent": Arguments(_ISOFLOP, counts={"neighbours": 2}, may_take_best=False),
    "isoflop_prediction": Arguments(_ISOFLOP, counts={"neighbours": 2}, may_take_best=False),
    "log_log_slope": Arguments({"x": None, "y": None}),
    "mean_difference": Arguments({"y": None}, has_arms=True),
    "mean_figure": Arguments({"y": None}),
    "sensitivity_difference": Arguments(
        {"y": None, "start": "validation.first", **_RATE}, has_arms=True, may_take_best=False
    ),
    "steps_saved": Arguments({"steps": "steps.trained"}, has_arms=True, may_take_best=False),
    "update_rank_ratio": Arguments({"y": "update.rank"}, has_arms=True),
}
