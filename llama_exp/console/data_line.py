"""How much of the data a run uses, in words."""

from __future__ import annotations

from collections.abc import Mapping


def data_line(use: Mapping[str, float]) -> str:
    """One line about what `llama_exp.run.data_use.measure` counted."""
    kept, total = int(use["target_tokens"]), int(use["source_target_tokens"])
    share = "all" if kept == total else f"{kept / max(1, total):.1%}"
    parts = [f"{kept:,} of {total:,} target tokens ({share}) in {int(use['rows']):,} rows"]
    epochs = use["epochs"]
    if epochs < 1:
        parts.append(f"the steps see {epochs:.1%} of them")
    else:
        parts.append(f"the steps see each {epochs:.1f} times")
    return "; ".join(parts)
