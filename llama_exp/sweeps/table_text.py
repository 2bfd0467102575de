"""The live table as lines of text that fit the terminal.

    sweep ━━━━━━━━━─────── 5 of 40 done · 1 failed · 2 running · 32 waiting · 12:30 · ETA 1:23:45 · outputs/...
    job  overrides     state              step    loss     val  tokens/s     time      ETA
      0  lora.rank=4   finished        300/300  2.8912  2.9033     12.3k     1:23
      1  lora.rank=8   failed    ValueError: ...
      2  lora.rank=16  ━━━━━━━─────    180/300  3.0000  3.1000     12.3k     0:50     0:33
    32 waiting

On a small screen groups shrink to one line each, the waiting first, then the finished.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from llama_exp.console.live import format_seconds
from llama_exp.console.progress import bar_text, format_number
from llama_exp.sweeps.board import Board, Row, find_best, format_value, list_numbers
from llama_exp.sweeps.jobs import State

Line = tuple[str, str]  # the text and how it looks, in rich's words
_STATE_WIDTH = 12
_BAR_WIDTH = 20
_NARROWEST = 48  # columns of the overrides, before another column is left out
_GAP = "  "
_COLUMNS = ("job", "overrides", "state", "step", "loss", "val", "tokens/s", "time", "ETA")
_DROPPED_FIRST = ("tokens/s", "time", "val", "ETA", "step", "loss")
_LOOKS = {State.running: "bold", State.failed: "red", State.finished: "green", State.pending: "dim"}
_TOLD = (State.failed, State.running, State.interrupted, State.preempted, State.pruned, State.pending)


@dataclass(frozen=True)
class Style:
    """How much a terminal can show."""

    columns: int
    lines: int
    ascii_only: bool


def draw(board: Board, folder: str, direction: str | None, style: Style) -> list[Line]:
    """At most `style.lines` lines of at most `style.columns` columns.

    Args:
        board: the jobs.
        folder: the sweep's folder, as a person types it.
        direction: which values are better, `minimize` or `maximize`; None: nobody says.
        style: the terminal.
    """
    groups = _group(board)
    shown = _choose(groups, style.lines - 2)
    rows = sorted((row for _, row in shown if row is not None), key=lambda row: row.job.number)
    table = _table(rows, style)
    short = [(_short_line(board, groups[state], state, direction), "dim") for state, row in shown if row is None]
    lines = [(_title(board, folder, style), "bold"), *table, *short]
    return [(fit(text, style), look) for text, look in lines[: max(style.lines, 1)]]


def fit(text: str, style: Style) -> str:
    """The text, cut where the terminal ends."""
    if style.ascii_only:
        text = text.encode("ascii", "backslashreplace").decode()
    if cell_len(text) <= style.columns:
        return text
    end = ".." if style.ascii_only else "…"
    cut = Text(text)
    cut.truncate(max(0, style.columns - len(end)), overflow="crop")
    return cut.plain + end[: style.columns]


def cell_len(text: str) -> int:
    """Columns that a text takes on a terminal: of a Chinese character two."""
    return Text(text).cell_len


def _group(board: Board) -> dict[State, list[Row]]:
    """Rows by state, in the order in which they stay on a small screen."""
    order = (State.running, State.failed, State.interrupted, State.preempted, State.pruned, State.finished)
    groups: dict[State, list[Row]] = {state: [] for state in (*order, State.pending)}
    for row in board.rows.values():
        groups[row.state].append(row)
    return groups


def _choose(groups: dict[State, list[Row]], room: int) -> list[tuple[State, Row | None]]:
    """What is shown: a row each, or None for a whole group in one line, so that all fit into `room` lines."""
    present = [state for state, rows in groups.items() if rows]
    short = next((short for short in _short_groups(present) if _count(groups, short) <= room), present[1:])
    chosen: list[tuple[State, Row | None]] = [(state, None) for state in present if state in short]
    for state in (state for state in present if state not in short):
        left = room - len(chosen)
        cut = groups[state] if len(groups[state]) <= left else groups[state][: max(0, left - 1)]
        chosen += [(state, row) for row in cut]
        if len(cut) < len(groups[state]):  # only the group that matters most is ever cut
            chosen.insert(0, (state, None))
    return chosen


def _short_groups(present: Sequence[State]) -> Iterator[Sequence[State]]:
    """Which groups take one line, in the order in which it is tried; the first of all never does."""
    yield ()
    yield from ((state,) for state in (State.pending, State.finished) if state in present[1:])
    yield from (present[-count:] for count in range(2, len(present)))


def _count(groups: dict[State, list[Row]], short: Sequence[State]) -> int:
    return sum(1 if state in short else len(rows) for state, rows in groups.items() if rows)


def _title(board: Board, folder: str, style: Style) -> str:
    counts = board.counts()
    done = counts[State.finished] + counts[State.pruned]
    parts = [f"{done} of {board.total} done"]
    parts += [f"{counts[state]} {_word(state)}" for state in _TOLD if counts[state]]
    parts.append(format_seconds(board.seconds))
    left = board.left()
    if left is not None and (counts[State.running] or counts[State.pending]):
        parts.append(f"ETA {format_seconds(left)}")
    separator = " | " if style.ascii_only else " · "
    bar = bar_text(done / max(1, board.total), _BAR_WIDTH, style.ascii_only)
    text = separator.join(parts)
    for whole in (f"sweep {bar} {text}{separator}{folder}", f"sweep {bar} {text}"):
        if cell_len(whole) <= style.columns:
            return whole
    return text


def _short_line(board: Board, rows: Sequence[Row], state: State, direction: str | None) -> str:
    """A group in one line."""
    if state is State.pending:
        return f"{board.counts()[state]} waiting"
    text = f"{_word(state)}: {list_numbers(row.job.number for row in rows)}"
    best = find_best({row.job.number: row.value for row in rows}, direction) if state is State.finished else None
    if best is None:
        return text
    return f"{text}; best: job {best}, {format_value(board.rows[best].value)}, {board.rows[best].text}"


def _word(state: State) -> str:
    return "waiting" if state is State.pending else state.value


def _table(rows: Sequence[Row], style: Style) -> Iterator[Line]:
    """The header and a line for each row; columns without a value are left out, and those that do not fit."""
    if not rows:
        return
    cells = {row.job.number: _cells(row, style) for row in rows}
    names = [name for name in _COLUMNS if name == "job" or any(own.get(name) for own in cells.values())]
    widths = {name: max(len(name), *(cell_len(own.get(name, "")) for own in cells.values())) for name in names}
    if _sum(widths) > style.columns:
        _shorten_keys(cells)
        widths["overrides"] = max(len("overrides"), *(cell_len(own["overrides"]) for own in cells.values()))
    narrowest = min(widths["overrides"], _NARROWEST)
    for name in _DROPPED_FIRST:
        if _sum(widths) - widths["overrides"] + narrowest > style.columns:
            widths.pop(name, None)
    room = style.columns - (_sum(widths) - widths["overrides"])
    widths["overrides"] = max(1, min(widths["overrides"], room))
    yield _join({name: name for name in widths}, widths, style), "dim"
    for row in rows:
        line = _join(cells[row.job.number], widths, style)
        if row.cause is not None:
            before = {name: widths[name] for name in ("job", "overrides", "state")}
            line = _join(cells[row.job.number], before, style) + _GAP + row.cause
        yield line, _LOOKS.get(row.state, "yellow")


def _shorten_keys(cells: Mapping[int, dict[str, str]]) -> None:
    """Writes `rank=8` for `lora.rank=8` in all rows, if no other key ends in the same word."""
    keys = {key for own in cells.values() for key in re.findall(r"(?:^|(?<= ))([\w.+/~@-]+)(?==)", own["overrides"])}
    last = Counter(key.rpartition(".")[2] for key in keys)
    for own in cells.values():
        for key in keys:
            word = key.rpartition(".")[2]
            if last[word] == 1:
                own["overrides"] = re.sub(rf"(^|(?<= )){re.escape(key)}=", f"{word}=", own["overrides"])


def _sum(widths: dict[str, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _join(cells: dict[str, str], widths: dict[str, int], style: Style) -> str:
    parts = []
    for name, width in widths.items():
        text = fit(cells.get(name, ""), Style(width, 1, style.ascii_only))
        gap = " " * (width - cell_len(text))
        parts.append(text + gap if name in ("overrides", "state") else gap + text)
    return _GAP.join(parts)


def _cells(row: Row, style: Style) -> dict[str, str]:
    glimpse = row.glimpse
    value = row.value if glimpse.validation_loss is None and row.value is not None else glimpse.validation_loss
    cells = {"job": str(row.job.number), "overrides": row.text, "state": _state(row, style)}
    if glimpse.step is not None:
        cells["step"] = str(glimpse.step) if glimpse.steps is None else f"{glimpse.step}/{glimpse.steps}"
    cells["loss"] = format_value(glimpse.loss)
    cells["val"] = format_value(value)
    cells["tokens/s"] = "" if glimpse.tokens_per_second is None else format_number(glimpse.tokens_per_second)
    cells["time"] = "" if row.state is State.pending else format_seconds(row.seconds)
    if row.state is State.running and glimpse.seconds_left is not None:
        cells["ETA"] = format_seconds(glimpse.seconds_left)
    return cells


def _state(row: Row, style: Style) -> str:
    glimpse = row.glimpse
    if row.state is not State.running:
        return _word(row.state)
    if glimpse.phase is not None or glimpse.step is None or not glimpse.steps:
        return glimpse.phase or "running"
    return bar_text(glimpse.step / glimpse.steps, _STATE_WIDTH, style.ascii_only)
