"""The reproducibility statement: what the checklists of conferences ask for, as far as the records show it.

Seeds, selection, search range, error bars and what they mean, compute in all with what failed, hardware, versions, data
(the NeurIPS paper checklist; Bouthillier et al. 2021, arXiv:2103.03098). What no record shows is not claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_exp.console.live import format_seconds
from llama_exp.console.progress import format_bytes
from llama_exp.limits.figures import Direction
from llama_exp.report.contents import Comparisons, Figure, Group, Key, Paragraph, ReportedRun
from llama_exp.report.grouping import format_setting
from llama_exp.report.numbers import show_count
from llama_exp.report.spending import TotalCost, tell_branches
from llama_exp.results import RunResult, SweepResult

_SHOWN_LETTERS = 16  # of a fingerprint
_MOST_VALUES = 12


def write_statement(
    results: Sequence[RunResult],
    runs: Sequence[ReportedRun],
    groups: Sequence[Group],
    keys: Sequence[Key],
    figure: Figure,
    comparisons: Comparisons | None,
    total: TotalCost,
    sweeps: Sequence[SweepResult],
    confidence: float,
) -> tuple[Paragraph, ...]:
    """One paragraph for each thing that is asked for."""
    found = [
        ("Runs and seeds", _tell_seeds(results, runs, groups)),
        ("Selection", _tell_selection(results, figure)),
        ("Search range", _tell_range(keys, sweeps)),
        ("Error bars", _tell_error_bars(groups, figure, confidence)),
        ("Comparisons", "" if comparisons is None else _tell_comparisons(comparisons)),
        ("Compute", _tell_compute(total, runs)),
        ("Hardware", _tell_hardware(results)),
        ("Software", _tell_software(results)),
        ("Data", _tell_data(results)),
    ]
    return tuple(Paragraph(title, text) for title, text in found if text)


def _tell_seeds(results: Sequence[RunResult], runs: Sequence[ReportedRun], groups: Sequence[Group]) -> str:
    seeds = sorted({run.seed for run in runs if run.reason is None and run.seed is not None})
    sizes = sorted({len(group.runs) for group in groups if group.runs})
    parts = [f"{_count(len(runs), 'run')} of {_count(len(groups), 'config')}."]
    if sizes:
        each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        parts.append(f"Seeds per config: {each} ({_list(seeds)}).")
        parts.append("A seed decides the order of the examples and all that is drawn: weights to begin with, dropout.")
    reasons = [run for run in runs if run.reason is not None]
    if reasons:
        listed = "; ".join(f"run {run.number}: {run.reason}" for run in reasons[:_MOST_VALUES])
        more = f"; and {len(reasons) - _MOST_VALUES} more" if len(reasons) > _MOST_VALUES else ""
        parts.append(f"Not averaged, {_count(len(reasons), 'run')}: {listed}{more}.")
    return " ".join(parts)


def _tell_selection(results: Sequence[RunResult], figure: Figure) -> str:
    way = "lowest" if figure.direction is Direction.minimize else "highest"
    parts = [f"Configs are ranked by the {way} mean of {figure.path} over their seeds."]
    parts.append("The figure that ranks is the one that is shown, so that the best one is somewhat too good.")
    exports = _distinct(results, "trainer.export")
    if exports == ["last"]:
        parts.append("The weights are those after the last step.")
    elif exports == ["best"]:
        parts.append(f"The weights are those of each run's best {_list(_distinct(results, 'trainer.keep_best'))}.")
    if stops := _distinct(results, "trainer.stop_early"):
        parts.append(f"Runs were stopped early by {_list(stops)}.")
    return " ".join(parts)


def _tell_range(keys: Sequence[Key], sweeps: Sequence[SweepResult]) -> str:
    parts = [f"{key.path}: {_list([format_setting(value) for value in key.values])}" for key in keys]
    text = f"Values that were run: {'; '.join(parts)}." if parts else "All runs have one config."
    for sweep in sweeps:
        if sweep.space is not None:
            space = "; ".join(f"{key}={value}" for key, value in sweep.space.items())
            text += f" A search of {_count(len(sweep.places), 'trial')} drew from {space}."
    return text


def _tell_error_bars(groups: Sequence[Group], figure: Figure, confidence: float) -> str:
    sizes = [group.estimates[figure.path].n for group in groups if figure.path in group.estimates]
    if not sizes:
        return ""
    if max(sizes) < 2:
        return "There are none: every config was run with one seed, which shows nothing of the spread over seeds."
    text = (
        f"± is half of a {100 * confidence:.4g} % Student t interval of the mean over {_span(sizes)} seeds per config."
    )
    text += " It shows what another seed changes, on the same data split and machine, and nothing else."
    return text + (" Configs with one seed have no interval." if min(sizes) < 2 else "")


def _tell_comparisons(comparisons: Comparisons) -> str:
    sizes = [len(row.pairs) for row in comparisons.rows]
    exact = all(row.p_is_exact for row in comparisons.rows)
    how = "of all sign flips" if exact else "of sign flips, where there are more than 20 pairs a seeded sample of them"
    return (
        f"Paired by seed with the baseline {comparisons.baseline} ({_span(sizes)} pairs each); p-values are two-sided,"
        f" {how}, and corrected by Holm for {_count(len(sizes), 'comparison')}."
    )


def _tell_compute(total: TotalCost, runs: Sequence[ReportedRun]) -> str:
    least = "at least " if total.is_least else ""
    text = f"{least}{format_seconds(total.seconds)} of wall time in {_count(total.attempts, 'attempt')}"
    text = f"All {_count(total.runs, 'run')} together: {text}, {show_count(total.tokens)} tokens"
    text += "" if total.flops is None else f", {total.flops:.3g} floating point operations of training"
    text += (
        f". Of these, {_count(total.failed_attempts, 'attempt')} failed, after {format_seconds(total.failed_seconds)}."
    )
    left_out = sum(run.reason is not None for run in runs)
    if left_out:
        share = format_seconds(total.left_out_seconds)
        text += f" {_count(left_out, 'run')} that no average contains took {share}, which is included."
    if told := tell_branches(total):
        text += f" {told}"
    if total.unknown:
        text += f" The time of {_count(total.unknown, 'run')} is not known."
    return text + " Tokens and operations count each trained step once. Energy was not measured."


def _tell_hardware(results: Sequence[RunResult]) -> str:
    machines = []
    for record in (run.record for run in results):
        parts = [str(record.get("device") or record.get("cpu") or "unknown")]
        if isinstance(record.get("cores"), int):
            parts.append(f"{_count(record['cores'], 'core')} visible")
        if isinstance(record.get("threads"), int):
            parts.append(_count(record["threads"], "thread"))
        if isinstance(record.get("memory_bytes"), int):
            parts.append(format_bytes(record["memory_bytes"]))
        machines.append(", ".join(parts))
    return "; ".join(f"{text} ({_count(number, 'run')})" for text, number in _tally(machines)) + "."


def _tell_software(results: Sequence[RunResult]) -> str:
    told = []
    for record in (run.record for run in results):
        packages, git = _mapping(record.get("packages")), _mapping(record.get("git"))
        names = ("llama_exp", "keras", str(record.get("backend", "")), "numpy")
        parts = [f"{name} {packages[name]}" for name in dict.fromkeys(names) if packages.get(name)]
        commit = git.get("commit")
        changed = ", with uncommitted changes" if git.get("dirty") else ""
        parts += [f"commit {str(commit)[:12]}{changed}"] if commit else []
        parts += [f"Python {record['python']}"] if record.get("python") else []
        told.append(", ".join(parts) or "not recorded")
    return "; ".join(f"{text} ({_count(number, 'run')})" for text, number in _tally(told)) + "."


def _tell_data(results: Sequence[RunResult]) -> str:
    sentences = []
    for split in ("train", "validation"):
        prints = [_fingerprint(_mapping(run.record.get("dataset")).get(split)) for run in results]
        known = [text for text in prints if text is not None]
        if known:
            sentences.append(f"{split} rows: {'; '.join(_with_counts(known, len(results)))}")
    tokenizers = [text for run in results if (text := _fingerprint(run.record.get("tokenizer"))) is not None]
    if tokenizers:
        sentences.append(f"tokenizer: {'; '.join(_with_counts(tokenizers, len(results)))}")
    digests = [str(preset["digest"]) for run in results if (preset := _mapping(run.record.get("preset"))).get("digest")]
    if digests:
        sentences.append(f"weights to begin with: {'; '.join(_with_counts(digests, len(results)))}")
    return f"Fingerprints (SHA-256, first letters). {'. '.join(sentences)}." if sentences else ""


def _with_counts(texts: Sequence[str], total: int) -> list[str]:
    tally = _tally([text[:_SHOWN_LETTERS] for text in texts])
    return [text if number == total else f"{text} ({_count(number, 'run')})" for text, number in tally]


def _fingerprint(section: Any) -> str | None:
    found = _mapping(section).get("fingerprint")
    return None if found is None else str(found)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tally(texts: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def _distinct(results: Sequence[RunResult], key: str) -> list[Any]:
    return list(dict.fromkeys(str(run.values[key]) for run in results if run.values.get(key) is not None))


def _span(sizes: Sequence[int]) -> str:
    return str(min(sizes)) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"


def _list(values: Sequence[Any]) -> str:
    shown = ", ".join(map(str, values[:_MOST_VALUES]))
    return f"{shown}, ... ({len(values)} in all)" if len(values) > _MOST_VALUES else shown


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
