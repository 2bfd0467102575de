"""Tokens and operations that a run has spent on training, and the size of its model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llama_exp.architecture import EMBEDDINGS, REVERSE_EMBEDDINGS, count_flops_per_token, variable_shapes
from llama_exp.errors import InputError
from llama_exp.lora.source import ranks
from llama_exp.results.run import RunResult

_MOST_BLOCKS = 10_000  # a damaged record may state more than any memory holds the names of


def find_origin(run: RunResult) -> Mapping[str, Any]:
    """The run and the checkpoint that a run began with (`branch_from`), as run.json has them; {}: with none.

    Keys: `folder`, `checkpoint`, `step`, `digest`, `config_hash`, and `tokens` and `seconds` that had led there.
    """
    origin = run.record.get("branch")
    return origin if isinstance(origin, Mapping) else {}


def find_branched(run: RunResult, figure: str) -> Any:
    """What a run took over from the checkpoint that it branched from: `step`, `tokens`, `seconds`; of others 0."""
    number = find_origin(run).get(figure)
    return number if isinstance(number, int | float) and not isinstance(number, bool) else 0


def count_tokens(run: RunResult) -> int | None:
    """Tokens that the run itself trained; None: neither summary nor rows say it."""
    counts = [run.summary.get("tokens"), *(row.get("tokens") for row in run.rows)]
    known = [count for count in counts if isinstance(count, int)]
    return max(known) - find_branched(run, "tokens") if known else None


def count_flops(run: RunResult) -> float | None:
    """Additions and multiplications for these tokens, as the plan counts them; None: they are not known.

    So it is for a model or a data set of the user's own.
    """
    tokens, per_token = count_tokens(run), _find_flops_per_token(run.config)
    return None if per_token is None or tokens is None else float(per_token) * tokens


def count_model(config: Mapping[str, Any], with_embeddings: bool) -> int | None:
    """Parameters of the model of a run's config, without adapters; None for one of the user's own.

    Args:
        config: nested.
        with_embeddings: whether the embeddings and the output matrix count.
    """
    try:
        model: Any = config.get("model")
        shapes = variable_shapes(model) if model["num_layers"] <= _MOST_BLOCKS else {}
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    left_out = () if with_embeddings else (EMBEDDINGS, REVERSE_EMBEDDINGS)
    return sum(math.prod(shape) for path, shape in shapes.items() if path not in left_out) or None


def _find_flops_per_token(config: Mapping[str, Any]) -> int | None:
    model, lora, dataset = config.get("model"), config.get("lora"), config.get("dataset")
    try:
        if model["num_layers"] > _MOST_BLOCKS:  # type: ignore[index]
            return None
        return count_flops_per_token(model, ranks(lora, model), dataset["sequence_length"])  # type: ignore[arg-type,index]
    except (InputError, KeyError, TypeError, ValueError):  # InputError: the adapter that it began with is gone
        return None
