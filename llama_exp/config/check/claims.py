"""What is wrong with the claims that a protocol states, before anything runs.

Stages of one protocol may differ in all other sections, evaluations among them, so that names of evaluations are taken
as they are: a run that lacks one is told of in the report.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from llama_exp.config.check.nearest import find_nearest_name, suggest
from llama_exp.config.check.typed import list_keys, show
from llama_exp.config.identity import flatten, to_dict
from llama_exp.config.schema import Config
from llama_exp.config.schema.protocol import ClaimConfig
from llama_exp.errors import Problem
from llama_exp.limits import is_number, is_whole
from llama_exp.limits.estimators import (
    ARMS,
    BEST_BY,
    BEST_OVER,
    COMPUTED,
    CONFIDENCE,
    ESTIMATORS,
    OF_SUMMARY,
    PAIR_BY,
    ROW_KEYS,
    STATISTICS,
    Arguments,
    split_direction,
    split_statistic,
)
from llama_exp.limits.evaluation import NAME, NAME_WORDS
from llama_exp.limits.figures import AT_THE_END, EVALUATION, OF_VALIDATION

_FIGURES = (*OF_VALIDATION, *AT_THE_END, *OF_SUMMARY)


def find_claim_problems(config: Config) -> Iterator[Problem]:
    """Every problem of every claim."""
    protocol = config.protocol
    keys = {*list_keys(), *flatten(to_dict(config))} if protocol.claims else set()
    for name, claim in protocol.claims.items():
        if not NAME.fullmatch(name):
            yield Problem("is no possible name", "protocol.claims", repr(name), f"give {NAME_WORDS}")
        yield from find_problems_of_claim(name, claim, protocol.stages, keys)


def find_problems_of_claim(
    name: str, claim: ClaimConfig, stages: Collection[str], keys: Collection[str]
) -> Iterator[Problem]:
    """Every problem of one claim.

    Args:
        name: of the claim.
        claim: typed.
        stages: names of those that the protocol states.
        keys: of the config, dotted.
    """
    yield from _ClaimCheck(f"protocol.claims.{name}", claim, keys).find_problems(stages)


class _ClaimCheck:
    """Checks one claim. where: its config key. keys: all config keys that there are."""

    def __init__(self, where: str, claim: ClaimConfig, keys: Collection[str]):
        self._where = where
        self._claim = claim
        self._keys = keys

    def find_problems(self, stages: Collection[str]) -> Iterator[Problem]:
        claim = self._claim
        if not claim.stages:
            yield self._problem("names no stage", "stages", claim.stages, f"choose among {', '.join(stages) or 'none'}")
        for stage in claim.stages:
            if stage not in stages:
                yield _unknown("names no stage", f"{self._where}.stages", stage, stages, "protocol.stages")
        if not claim.statement.strip():
            yield self._problem("is empty", "statement", claim.statement, "say in a sentence what is claimed")
        if claim.published is not None and not math.isfinite(claim.published):
            yield self._problem("is no number", "published", claim.published, "give a number, or null")
        yield from self._find_in_expected()
        yield from self._find_in_filter("filter", claim.filter)
        if claim.estimator not in ESTIMATORS:
            yield _unknown("names no estimator", f"{self._where}.estimator", claim.estimator, ESTIMATORS, "estimators")
        else:
            yield from self._find_in_arguments(ESTIMATORS[claim.estimator])

    def _find_in_expected(self) -> Iterator[Problem]:
        low, high = self._claim.expected.low, self._claim.expected.high
        found = f"low={show(low)} high={show(high)}"
        if low is None and high is None:
            action = "give low, high, or both: the range in which the claim holds"
            yield self._problem("is open on both sides, which any result confirms", "expected", None, action, found)
        elif any(end is not None and not math.isfinite(end) for end in (low, high)):
            yield self._problem("has an end that is no number", "expected", None, "leave an open end out", found)
        elif low is not None and high is not None and low > high:
            action = f"write low={show(high)} high={show(low)}"
            yield self._problem("ends before it begins, so that no result is in it", "expected", None, action, found)

    def _find_in_arguments(self, known: Arguments) -> Iterator[Problem]:
        stated = self._claim.arguments
        for name in stated:
            if name not in known.list_names():
                where, what = f"{self._where}.arguments", f"is no argument of {self._claim.estimator}"
                yield _unknown(what, where, name, known.list_names(), "it takes")
        for name, default in known.quantities.items():
            if name in stated or default is None:
                yield from self._find_in_quantity(f"arguments.{name}", stated.get(name))
        for name in ARMS if known.has_arms else ():
            if not stated.get(name):
                action = f"set it to a filter such as {{lora.rank: 0}}: {self._claim.estimator} compares two arms"
                yield self._problem("has no value", f"arguments.{name}", stated.get(name), action)
            else:
                yield from self._find_in_filter(f"arguments.{name}", stated[name])
        for name in known.counts:
            if name in stated and not is_whole(stated[name], 1):
                yield self._problem("is impossible", f"arguments.{name}", stated[name], "give an integer of at least 1")
        yield from self._find_in_common(known, stated)

    def _find_in_common(self, known: Arguments, stated: Mapping[str, Any]) -> Iterator[Problem]:
        """What several estimators take."""
        if known.may_take_best and stated.get(BEST_OVER) is not None:
            yield from self._find_in_key(f"arguments.{BEST_OVER}", stated[BEST_OVER])
        if known.may_take_best and BEST_BY in stated:
            if not isinstance(stated[BEST_BY], str) or split_direction(stated[BEST_BY])[1] is None:
                action = f"give one such as validation.loss, or say it: {stated[BEST_BY]}:min or {stated[BEST_BY]}:max"
                what = "does not say which of its values are good ones"
                yield self._problem(what, f"arguments.{BEST_BY}", stated[BEST_BY], action)
            else:
                yield from self._find_in_quantity(f"arguments.{BEST_BY}", split_direction(stated[BEST_BY])[0])
        if CONFIDENCE in stated and not (is_number(stated[CONFIDENCE]) and 0 < stated[CONFIDENCE] < 1):
            action = "give a number above 0 and below 1, such as 0.95"
            yield self._problem("is impossible", f"arguments.{CONFIDENCE}", stated[CONFIDENCE], action)
        pair_by = stated.get(PAIR_BY, [])
        if not isinstance(pair_by, list):
            yield self._problem("is no list", f"arguments.{PAIR_BY}", pair_by, "give a list of config keys")
            return
        for key in pair_by:
            yield from self._find_in_key(f"arguments.{PAIR_BY}", key)

    def _find_in_filter(self, name: str, node: Any) -> Iterator[Problem]:
        if not isinstance(node, dict):
            yield self._problem("is no filter", name, node, "give config keys with a value, or a list of values, each")
            return
        for key, value in node.items():
            yield from self._find_in_key(name, key)
            if isinstance(value, dict) or value == []:
                action = "give the value that runs have, or a list of several"
                yield self._problem(f"has no value that {key} can be compared with", name, value, action)

    def _find_in_key(self, name: str, key: Any) -> Iterator[Problem]:
        if not isinstance(key, str) or key not in self._keys:
            action = _ask(key, self._keys) or "give a key of docs/reference/configuration.md"
            yield self._problem("is no key of the config", name, key, action)

    def _find_in_quantity(self, name: str, text: Any) -> Iterator[Problem]:
        if text is None:
            action = "set it to a quantity such as validation.loss, lora.rank or 'mean grad_norm'"
            yield self._problem("has no value", name, text, action)
        elif not isinstance(text, str) or not self._is_quantity(text):
            known = [*COMPUTED, *_FIGURES, *(f"{word} {key}" for word in STATISTICS for key in ROW_KEYS), *self._keys]
            action = (
                f"{_ask(text, known)} give a key of the config, a figure of summary.json ({', '.join(OF_VALIDATION)},"
                f" {EVALUATION}.<name>.<figure>), {'|'.join(STATISTICS)} and one of {', '.join(ROW_KEYS)},"
                f" {EVALUATION}.<name>.<figure>; or one of"
                f" {', '.join(COMPUTED)}"
            )
            yield self._problem("is no quantity of a run", name, text, action.strip())

    def _is_quantity(self, text: str) -> bool:
        if (statistic := split_statistic(text)) is not None:
            return statistic[1] in ROW_KEYS or _is_of_evaluation(statistic[1])
        return text in COMPUTED or text in _FIGURES or text in self._keys or _is_of_evaluation(text)

    def _problem(self, what: str, name: str, value: Any, action: str, found: str | None = None) -> Problem:
        return Problem(what, f"{self._where}.{name}", show(value) if found is None else found, action)


def _is_of_evaluation(text: str) -> bool:
    return text.startswith(f"{EVALUATION}.") and text.count(".") > 1


def _ask(name: Any, names: Collection[str]) -> str:
    """`did you mean <the nearest>?`; nothing where none is near."""
    match = find_nearest_name(str(name), names)
    return "" if match is None else f"did you mean {match}?"


def _unknown(what: str, where: str, name: Any, names: Collection[str], kind: str) -> Problem:
    return Problem(what, where, show(name), suggest(str(name), names, kind) if names else f"{kind}: none")
