"""How a reader checks a number of the page with a program of ten lines that knows nothing of this package."""

from __future__ import annotations

from collections.abc import Iterator

from llama_exp.config.schema.protocol import ClaimConfig
from llama_exp.experiments.page.claims import tell_estimator
from llama_exp.experiments.page.clean import Cleaner
from llama_exp.experiments.page.gather import Contents
from llama_exp.experiments.verdicts import show_answer
from llama_exp.limits.estimators import COMPUTED, CONFIDENCE, split_statistic
from llama_exp.protocol import ClaimResult
from llama_exp.protocol.prepare import list_filters, list_pair_keys, list_quantities, read_argument
from llama_exp.protocol.quantities import find_quantity
from llama_exp.report.claims import show_settings
from llama_exp.report.grouping import format_setting
from llama_exp.report.markdown import escape
from llama_exp.results.decisive import SEED

_MOST_ROWS = 60
_HOW = {
    "mean": "sum({0}) / len({0})",
    "first": "{0}[0]",
    "last": "{0}[-1]",
    "max": "max({0})",
    "min": "min({0})",
}
# Name in the program -> the line that reads its file.
_FILES = {
    "summary": 'summary = json.load(open(folder + "/summary.json"))',
    "rows": 'rows = [row for row in map(json.loads, open(folder + "/metrics.jsonl")) if row["split"] == "train"]',
}


def write_check(contents: Contents, clean: Cleaner) -> str:
    """The first claim that runs answer: a program that reads its numbers, what it prints, and the formula."""
    answered = [result for result in contents.results if result.obtained is not None]
    if not answered:
        return "No claim has a number."
    result = answered[0]
    keys, names = _list_keys(result), list(list_quantities(result.claim).values())
    table = "\n".join(_list_rows(contents, result, keys, names, clean))
    folders = [str(contents.request.folder / stage) for stage in result.claim.stages]
    value, interval = show_answer(result)
    return (
        f"`{result.name}` is {value}, its interval {escape(interval)}. This program needs nothing but PyYAML, starts in"
        f" the folder where the experiment was started, and prints for each run what the claim is computed from:"
        f"\n\n```text\n{_write_program(folders, keys, names)}\n```\n\n"
        f"The runs that count, here:\n\n{table}\n\n{_tell_formula(result.claim)}"
    )


def _tell_formula(claim: ClaimConfig) -> str:
    """How value and interval come from the runs: which arm is which, what pairs them, the estimator's own words."""
    arms = "".join(f" `{arm}` is {escape(show_settings(has))}." for arm, has in list_filters(claim).items() if has)
    pairs = f" Pairs share {escape(', '.join([SEED, *list_pair_keys(claim)]))}." if arms else ""
    told = tell_estimator(claim.estimator, before="Source:")
    level = f" The level of the interval is {100 * read_argument(claim, CONFIDENCE):g} percent."
    return f"`{claim.estimator}` of these: {told}{arms}{pairs}{level}"


def _list_keys(result: ClaimResult) -> list[str]:
    """The seed, and the config keys that say which arm a run is in, and which pair."""
    claim = result.claim
    asked = (key for has in list_filters(claim).values() for key in has)
    return list(dict.fromkeys([SEED, *list_pair_keys(claim), *asked, *claim.filter]))


def _list_rows(
    contents: Contents, result: ClaimResult, keys: list[str], names: list[str], clean: Cleaner
) -> Iterator[str]:
    columns = list(dict.fromkeys([*keys, *names]))
    yield f"| {' | '.join(map(escape, columns))} |"
    yield f"|{'---:|' * len(columns)}"
    for number in result.runs[:_MOST_ROWS]:
        run = contents.runs[number]
        found = {name: find_quantity(run, name) for name in names}
        cells = []
        for column in columns:
            value = found.get(column)
            cells.append(f"{value:.6g}" if value is not None else clean(format_setting(run.values.get(column))))
        yield f"| {' | '.join(map(escape, cells))} |"
    if len(result.runs) > _MOST_ROWS:
        yield f"\nand {len(result.runs) - _MOST_ROWS} more."


def _write_program(folders: list[str], keys: list[str], names: list[str]) -> str:
    printed = [*(_of_config(key) for key in keys), *(_of_run(name) for name in names if name not in keys)]
    shown = ", ".join(text for text in printed if text)
    files = [line for name, line in _FILES.items() if name in shown]
    patterns = ", ".join(f'"{folder}/*/config.yaml"' for folder in folders)
    return f"""import glob, json, yaml

for path in sorted(path for pattern in [{patterns}] for path in glob.glob(pattern)):
    folder = path.rpartition("/")[0]
    {f"{chr(10)}    ".join(["config = yaml.safe_load(open(path))", *files])}
    print({shown})"""


def _of_config(key: str) -> str:
    return "config" + "".join(f'["{part}"]' for part in key.split("."))


def _of_run(name: str) -> str | None:
    """The expression of a quantity; None for one that only this package counts."""
    if name in COMPUTED:
        return None
    if (parts := split_statistic(name)) is not None:
        values = f'[row["{parts[1]}"] for row in rows if "{parts[1]}" in row]'
        return _HOW[parts[0]].format(values)
    section = name.partition(".")[0]
    if section in ("validation", "evaluation") or "." not in name:
        return "summary" + "".join(f'["{part}"]' for part in name.split("."))
    return _of_config(name)
