"""Explanations as lines of text.

One key:                                              A part:

    lora.rank = 8                                         lora.rank = 8    conf/lora/small.yaml:4, instead of 0
      set by      conf/lora/small.yaml:4                  lora.alpha = 16  conf/lora/default.yaml:3
      instead of  0, conf/lora/default.yaml:2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_exp.config.check.typed import MISSING, show
from llama_exp.config.explain.command import Explained
from llama_exp.config.explain.explanation import ABSENT, Explanation
from llama_exp.config.explain.settings import DELETED, Setting
from llama_exp.files.redact import MASK, is_secret_name

WIDEST_KEY = 56  # of a column; a longer line pushes the next column away
PROGRAM = "the program itself"
NEW_LINE = "\n"


def list_key_lines(explained: Explained) -> Iterator[str]:
    """Each key with everything that is known of it; of a sweep, what all points have in common once."""
    for number in range(len(explained.points[0].explanations)):
        groups = _group(explained, number)
        blocks = [(_value_text(explanation), list(_body(explanation))) for explanation, _ in groups]
        key = groups[0][0].key
        if len(groups) == 1 or all(body == blocks[0][1] for _, body in blocks):
            values = " | ".join(dict.fromkeys(value for value, _ in blocks))
            yield f"{key} = {explained.space[key] if _is_searched(explained, key) else values}"
            yield from blocks[0][1]
            continue
        for (value, body), (_, points) in zip(blocks, groups, strict=True):
            others = [point for _, other in groups if other is not points for point in other]
            yield f"{key} = {value}, at {' '.join(_tell_apart(points, others)) or 'other points'}"
            yield from body


def list_part_lines(explained: Explained) -> list[str]:
    """One line for each key: value, place, and what was overridden."""
    rows = []
    for number in range(len(explained.points[0].explanations)):
        groups = _group(explained, number)
        values = " | ".join(dict.fromkeys(_value_text(explanation) for explanation, _ in groups))
        key, newest = groups[0][0].key, groups[0][0]
        shown = explained.space[key] if _is_searched(explained, key) else values
        rows.append((f"{key} = {shown}", _short_place(newest)))
    width = min(WIDEST_KEY, max((len(left) for left, _ in rows), default=0))
    return [f"{left:<{width}}   {right}" for left, right in rows]


def list_file_lines(explained: Explained) -> list[str]:
    """Each file that has a say in the keys, with where it was chosen."""
    files: dict[str, str] = {}
    for setting in (
        setting
        for point in explained.points
        for explanation in point.explanations
        for setting in explanation.settings[::-1]
    ):
        if setting.place.config is not None and setting.place.chosen_by is not None:
            files[setting.place.text.partition(":")[0]] = setting.place.chosen_by
    width = max(map(len, files), default=0)
    return [f"  {file:<{width}}   chosen by {chosen_by}" for file, chosen_by in files.items()]


def _group(explained: Explained, number: int) -> list[tuple[Explanation, list[tuple[str, ...]]]]:
    """The different explanations of a key, each with the overrides of the points that have it."""
    groups: list[tuple[Explanation, list[tuple[str, ...]]]] = []
    for point in explained.points:
        explanation = point.explanations[number]
        for other, points in groups:
            if other == explanation:
                points.append(point.overrides)
                break
        else:
            groups.append((explanation, [point.overrides]))
    return groups


def _is_searched(explained: Explained, key: str) -> bool:
    return explained.num_points is None and key in explained.space


def _tell_apart(points: Sequence[tuple[str, ...]], others: Sequence[tuple[str, ...]]) -> list[str]:
    """As few overrides as tell points from others: all of them have these, and none of the others has."""
    lines = [line for line in points[0] if all(line in point for point in points)]
    for line in list(lines):
        rest = [other for other in lines if other != line]
        if not any(set(rest) <= set(point) for point in others):
            lines = rest
    return lines


def _body(explanation: Explanation) -> Iterator[str]:
    if explanation.value is ABSENT:
        return
    newest, *older = explanation.settings or (None,)
    yield _row("set by", _place(newest))
    if explanation.note is not None:
        yield from (_row("", show(line)) for line in explanation.note.splitlines())
    yield from (_row("reads", line) for read in explanation.reads for line in _list_reads(read, ""))
    yield from (_row("instead of", f"{_setting(setting, explanation.key)}, {setting.place.text}") for setting in older)


def _row(label: str, content: str) -> str:
    return f"  {label:<12}{content}"


def _list_reads(read: Explanation, indent: str) -> Iterator[str]:
    place = read.settings[0].place.text if read.settings else PROGRAM
    yield f"{indent}{read.key} = {_value_text(read)}, {place}"
    for below in read.reads:
        yield from _list_reads(below, indent + "  ")


def _place(setting: Setting | None) -> str:
    if setting is None:
        return PROGRAM
    chosen_by = setting.place.chosen_by
    return setting.place.text if chosen_by is None else f"{setting.place.text}, chosen by {chosen_by}"


def _short_place(explanation: Explanation) -> str:
    if explanation.value is ABSENT:
        return "some points do not have it"
    newest, *older = explanation.settings or (None,)
    place = PROGRAM if newest is None else newest.place.text
    note = "" if explanation.note is None else f", {show(explanation.note.replace(NEW_LINE, '; '))}"
    return place + note + "".join(f", instead of {_setting(setting, explanation.key)}" for setting in older[:1])


def _value_text(explanation: Explanation) -> str:
    return _text(explanation.value, explanation.key)


def _setting(setting: Setting, key: str) -> str:
    """What a setting says; one of something else than the key with its own name."""
    own = ".".join(setting.path)
    return _text(setting.value, key) if own == key else f"{own} = {_text(setting.value, own)}"


def _text(value: Any, key: str) -> str:
    if value is DELETED or value is ABSENT:
        return "taken out" if value is DELETED else "(no such key)"
    if isinstance(value, str) and value == MISSING:
        return "(no value yet)"
    if is_secret_name(key) and value is not None:
        return MASK
    return show(_flow(value)) if isinstance(value, list | Mapping) else show(value)


def _flow(value: Any) -> str:
    """A value as YAML writes it on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return show(value)
