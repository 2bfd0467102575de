"""The name that somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from llama_exp.config.check.other_tools import NOTES, SYNONYMS

CUTOFF = 0.6


def find_nearest_name(name: str, names: Iterable[str]) -> str | None:
    """The most similar of `names`, or None if none is similar."""
    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=CUTOFF)
    return matches[0] if matches else None


def _ratio(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def find_nearest_key(key: str, keys: Iterable[str]) -> str | None:
    """The dotted path of `keys` that `key` most probably stands for: same section first, then same last name."""
    keys = list(keys)
    section, _, leaf = key.rpartition(".")
    if (joined := leaf.replace("_", ".", 1)) in keys:  # lora_dropout
        return joined

    def likeness(candidate: str) -> float:
        candidate_section, _, candidate_leaf = candidate.rpartition(".")
        by_leaf = _ratio(leaf, candidate_leaf)
        if candidate_section != section:
            # A wrong or missing section costs little; one that is merely misspelt costs less.
            by_leaf *= 0.85 + 0.1 * _ratio(section, candidate_section)
        return by_leaf

    best = max(keys, key=likeness, default=None)
    return best if best is not None and likeness(best) >= CUTOFF else None


def advise(key: str, keys: Iterable[str]) -> str | None:
    """What to write instead of a key that there is not: a key of `keys`, or a choice such as `schedule=cosine`."""
    name = key.rpartition(".")[2]
    return SYNONYMS.get(name) or find_nearest_key(key, keys)


def ask_whether(match: str, key: str) -> str:
    """The sentence that proposes `match` for `key`, with what is different about it here."""
    note = NOTES.get(key.rpartition(".")[2])
    return f"did you mean {match}?" + (f" {note}" if note else "")


def suggest(name: str, names: Iterable[str], what: str) -> str:
    """An action sentence: the nearest name if there is one, and all names if they are few."""
    names = sorted(names)
    match = find_nearest_name(name, names)
    known = f"{what}: {', '.join(names)}"
    return f"did you mean {match}? {known}" if match else known
