"""What became of the documents of a split: counts for the log, and what to do where too little is left."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from llama_exp.errors import InputError, Problem
from llama_exp.limits.dataset import Overlong

log = logging.getLogger("llama_exp")

_MAX_LOST_SHARE = 0.01  # of the target tokens: more than that is a warning
_STAGES = ("documents", "empty", "overlong", "overlong_dropped", "masked", "tokens", "rows")


def log_counts(
    place: str, facts: Mapping[str, int], sequence_length: int, overlong: Overlong, cached: bool = False
) -> None:
    """Logs what `RowWriter.finish` counted.

    Args:
        place: data set and split.
        facts: the counts.
        sequence_length: tokens of a row.
        overlong: what was done with longer documents.
        cached: whether the rows were there already.
    """
    filled = facts["tokens"] / max(1, facts["rows"] * sequence_length)
    log.info(
        "dataset %s: %d documents -> %d rows of %d tokens (%.1f %% filled), %d of %d target tokens%s",
        *(place, facts["documents"], facts["rows"], sequence_length, 100 * filled),
        *(facts["target_tokens"], facts["source_target_tokens"], ", from the cache" if cached else ""),
    )
    share = 100 / max(1, facts["documents"])
    if facts["overlong"]:
        log.info(
            "dataset %s: %d documents (%.1f %%) are longer than %d tokens (overlong=%s)",
            *(place, facts["overlong"], facts["overlong"] * share, sequence_length, overlong.value),
        )
    for reason, meaning in (("empty", "hold no text"), ("masked", "have no target of the loss")):
        if facts[reason]:
            log.warning(
                "dataset %s: %d documents (%.1f %%) %s and are dropped",
                *(place, facts[reason], facts[reason] * share, meaning),
            )
    if facts["masked_pieces"]:
        log.warning(
            "dataset %s: %d parts of documents that were cut have no target of the loss and are dropped",
            *(place, facts["masked_pieces"]),
        )
    _warn_of_loss(place, facts, sequence_length, overlong)


def _warn_of_loss(place: str, facts: Mapping[str, int], sequence_length: int, overlong: Overlong) -> None:
    total = facts["source_target_tokens"]
    lost = total - facts["target_tokens"]
    if lost <= _MAX_LOST_SHARE * total:
        return
    log.warning(
        "dataset %s: %.1f %% of the target tokens (%d of %d) are not trained on: documents are longer than"
        " dataset.sequence_length=%d (overlong=%s). To keep them set %s",
        *(place, 100 * lost / total, lost, total, sequence_length, overlong.value, _keeping(facts)),
    )


def too_small(name: str, split: str, facts: Mapping[str, int], needed: int) -> InputError:
    """The InputError for a split of too few rows, with what makes them enough.

    Args:
        name: the data set's.
        split: train or validation.
        facts: what `RowWriter.finish` counted.
        needed: rows.
    """
    rows = facts["rows"]
    what = f"the {split} split has {f'only {rows} rows' if rows else 'no row'}" + (
        f", a batch takes {needed}" if needed > 1 else ""
    )
    return InputError(
        Problem(
            what=what,
            where=f"dataset {name}",
            found=", ".join(f"{stage.replace('_', ' ')} {facts[stage]}" for stage in _STAGES),
            action=_remedy(facts),
        )
    )


def _remedy(facts: Mapping[str, int]) -> str:
    """What to do, by the stage at which the documents were lost."""
    if facts["rows"]:
        return f"set trainer.batch_size={facts['rows']}, or give more text"
    if not facts["documents"]:
        return "give more documents: one of them has to validate, and one to train"
    if facts["documents"] == facts["empty"]:
        return "give documents with text: these hold nothing but white space"
    if facts["overlong"]:
        return f"set {_keeping(facts)}, as documents that are longer than a row were left out"
    return "give documents in which something counts in the loss (objective.loss_on=all: everything)"


def too_long(name: str, source: str, facts: Mapping[str, int], sequence_length: int) -> InputError:
    """The InputError for documents that are longer than a row, under `overlong=error`.

    Args:
        name: the data set's.
        source: of the first such document.
        facts: what `RowWriter.finish` counted, of both splits.
        sequence_length: tokens of a row.
    """
    action = _keeping(facts)
    if "split" not in action:
        action += " or dataset.overlong=truncate"
    return InputError(
        Problem(
            what="a document is longer than a row, and dataset.overlong is error",
            where=f"dataset {name}, record {source}",
            found=f"{facts['overlong']} documents of up to {facts['longest']} tokens,"
            f" dataset.sequence_length={sequence_length}",
            action=f"set {action}",
        )
    )


def _keeping(facts: Mapping[str, int]) -> str:
    """What keeps every target: to split plain text, or rows as long as the longest document."""
    if facts["plain"] == facts["documents"] - facts["empty"]:
        return "dataset.overlong=split"
    return f"dataset.sequence_length={facts['longest']}"
