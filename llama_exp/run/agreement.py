"""What is asked of the parts of a run once they are known, and before anything is computed. Imports no framework."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from llama_exp import preset
from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config
from llama_exp.errors import ConfigError, Problem
from llama_exp.limits.model import find_overrun

MOST_DECAY = 0.01  # of a matrix in one step; half of it is gone after 70
log = logging.getLogger(__name__)


def tell_overrun(config: Config, context_length: int | None, scaling: float) -> None:
    """Says that rows are longer than what the preset was made for, unless the run stretches its positions.

    Args:
        config: the run's.
        context_length: tokens that the preset's files speak of; None: they do not.
        scaling: how many times further apart the preset has positions than the run.
    """
    source = config.preset.source
    length = preset.context_length(source) if context_length is None and source in preset.PRESETS else context_length
    row = to_dict(config.dataset).get("sequence_length")
    doubt = find_overrun(row, None if length is None else int(length * scaling)) if isinstance(row, int) else None
    if doubt is not None:
        log.warning("dataset.sequence_length=%d: %s", row, doubt)


def tell_nothing_to_adapt(rank: int) -> None:
    """Says that adapters stand beside random weights: it works, and is hardly what somebody wants."""
    log.warning(
        "lora.rank=%d on random weights, which stay as they are: the adapters have no trained model to adapt, and the "
        "run will write nonsense. Give one: preset.source=outputs/default/latest/model (after python train.py), or a "
        "preset (llama-exp presets)",
        rank,
    )


def tell_strong_decay(optimizer: Mapping[str, Any]) -> None:
    """Says that decay which does not know the learning rate is as large as one that is multiplied by it."""
    share = optimizer["weight_decay"]
    if optimizer.get("independent_weight_decay") and share > MOST_DECAY:
        log.warning(
            "optimizer.weight_decay=%g with independent_weight_decay=true takes %.0f %% of every matrix away at each "
            "step of the peak, more than training gives back. Before, it was multiplied by the learning rate: "
            "optimizer.weight_decay=%g does what it did",
            share,
            100 * share,
            share * optimizer["learning_rate"],
        )


def require_prompts(prompts: Sequence[str], tokenizer) -> None:
    """Fails if a sample would begin with nothing: with no token of its prompt, and none that begins a text."""
    empty = [prompt for prompt in prompts if tokenizer.begin_id is None and len(tokenizer.encode(prompt)) == 0]
    if empty:
        action = "give a prompt with at least one letter, or trainer.sample_prompts=[] for no samples"
        what = "a prompt gives no token, and this tokenizer has none to begin a text with"
        raise ConfigError(Problem(what, "trainer.sample_prompts", repr(empty[0]), action))
