"""The claims of a page: a table of verdicts, and what each rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llama_exp.experiments.page.clean import Cleaner
from llama_exp.experiments.page.gather import Contents
from llama_exp.experiments.verdicts import NOTHING, name_verdict, show_answer
from llama_exp.limits.protocol import Half
from llama_exp.protocol import ClaimResult
from llama_exp.protocol.estimators import ESTIMATORS
from llama_exp.report.claims import show_expected, show_settings
from llama_exp.report.grouping import format_setting
from llama_exp.report.markdown import escape

_HEAD = ("claim", "in the paper", "published", "expected", "obtained", "interval", "verdict")


def write_verdicts(contents: Contents) -> str:
    """The table; those of the pre-trained half stand behind the others, with a mark."""
    lines = [f"| {' | '.join(_HEAD)} |", "|---|---|---:|---|---:|---:|---|"]
    lines += [f"| {' | '.join(_row(contents, result))} |" for result in contents.results]
    if any(is_pretrained(contents, result) for result in contents.results):
        lines += ["", "†: on a pre-trained model."]
    notes = dict.fromkeys(note for result in contents.results for note in result.experiment.notes)
    return "\n".join([*lines, *([""] if notes else []), *(f"- {escape(note)}" for note in notes)])


def is_pretrained(contents: Contents, result: ClaimResult) -> bool:
    """Whether runs on a pre-trained model count for a claim."""
    stages = [contents.stage_of(name) for name in result.claim.stages]
    return any(stage is not None and stage.half is Half.pretrained for stage in stages)


def _row(contents: Contents, result: ClaimResult) -> Iterator[str]:
    claim = result.claim
    mark = " †" if is_pretrained(contents, result) else ""
    yield f"[{escape(result.name)}](#{result.name}){mark}"
    yield escape(claim.where or NOTHING)
    yield NOTHING if claim.published is None else f"{claim.published:g}"
    yield escape(show_expected(claim.expected.low, claim.expected.high))
    yield from map(escape, show_answer(result))
    yield f"**{name_verdict(result)}**"


def write_claim(result: ClaimResult, picture: str | None, clean: Cleaner) -> str:
    """A claim's section. picture: name of its file beside the page; None: there is nothing to draw."""
    claim = result.claim
    parts = [f"### {result.name}", escape(claim.statement)]
    parts.append(f"**{name_verdict(result)}**: {escape(clean(result.reason))}")
    if picture is not None:
        parts.append(f"![{escape(result.name)}: {escape(claim.estimator)}]({picture})")
    notes = (f"- {escape(clean(note))}" for note in result.notes)
    parts.append("\n".join([*_list_facts(result), *notes]))
    return "\n\n".join(parts)


def _list_facts(result: ClaimResult) -> Iterator[str]:
    claim = result.claim
    yield f"- Computed by `{claim.estimator}`: {tell_estimator(claim.estimator)}"
    settings = {**claim.arguments, **({"filter": claim.filter} if claim.filter else {})}
    told = "; ".join(
        f"{key}: {show_settings(value) if isinstance(value, Mapping) else format_setting(value)}"
        for key, value in settings.items()
    )
    yield f"- With {escape(told) or 'nothing further'}, over the runs of stage {', '.join(claim.stages)}."
    if result.obtained is not None:
        unit = f" Unit: {escape(result.obtained.unit)}." if result.obtained.unit else ""
        yield f"- Runs in it: {len(result.runs)}. Interval: {escape(result.obtained.method)}.{unit}"


def tell_estimator(name: str, before: str = "Interval:") -> str:
    """An estimator's description as far as a word: what it is, its formula, and before `Source:` its interval too."""
    text = (ESTIMATORS[name].__doc__ or "").strip().partition(before)[0]
    return " ".join(text.split())
