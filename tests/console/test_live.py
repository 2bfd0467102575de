"""The live line and bars of single parts: one display at a time, and none without a terminal."""

import io

import pytest
from rich.console import Console

from llama_exp.console import live
from llama_exp.console.live import format_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.4, "0:07"), (83, "1:23"), (600, "10:00"), (3600, "1:00:00"), (90061, "1 day, 1:01:01")],
)
def test_clock(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_bar_of_steps(monkeypatch, capsys, is_terminal):
    shown = io.StringIO()
    monkeypatch.setattr(live, "is_terminal", lambda: is_terminal)
    monkeypatch.setattr(live, "terminal", lambda: Console(file=shown, force_terminal=True))
    with live.steps_bar("rounding", 3) as advance:
        for _ in range(3):
            advance()
    assert ("rounding" in shown.getvalue() and "3/3" in shown.getvalue()) == is_terminal
    assert "".join(capsys.readouterr()) == ""


def test_a_bar_is_shown_in_a_line_that_is_open(monkeypatch):
    line = live.LiveLine(lambda width, ascii_only: "")
    monkeypatch.setattr(live, "_open_lines", [line])
    line.show_phase("building the model")
    with live.steps_bar("rounding", 2) as advance:
        assert line.phase == "rounding"
        advance()
        assert line.phase == "rounding 1/2"
    assert line.phase == "building the model"


def test_amounts_in_a_line_that_is_open(monkeypatch):
    line = live.LiveLine(lambda width, ascii_only: "")
    monkeypatch.setattr(live, "_open_lines", [line])
    for total, shown in ((4_000_000, "tokenizing 50%"), (None, "tokenizing 2.0 MB"), (0, "tokenizing 100%")):
        with live.amount_bar("tokenizing", total) as advance:
            advance(1_500_000)
            advance(500_000)
            assert line.phase == shown
    assert line.phase is None
