"""The pictures of a report: claims, learning curves, effects of keys, differences to the baseline, coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from llama_exp.protocol import ClaimResult
from llama_exp.report.contents import Report
from llama_exp.report.pictures.claims import draw_claim, label_claim
from llama_exp.report.pictures.coordinates import draw_coordinates
from llama_exp.report.pictures.curves import draw_curves
from llama_exp.report.pictures.differences import draw_differences
from llama_exp.report.pictures.effects import draw_effects

# Name of a file, what it shows, who draws it, and whether there is something to draw.
_PICTURES: tuple[tuple[str, str, Callable[[Report, Path], None], Callable[[Report], bool]], ...] = (
    ("curves.png", "Learning curves", draw_curves, lambda report: bool(report.curves)),
    ("effects.png", "Effect of each key", draw_effects, lambda report: bool(report.effects)),
    (
        "differences.png",
        "Differences to the baseline",
        draw_differences,
        lambda report: report.comparisons is not None and any(row.difference for row in report.comparisons.rows),
    ),
    ("coordinates.png", "Parallel coordinates", draw_coordinates, lambda report: report.coordinates is not None),
)


def list_pictures(report: Report) -> list[tuple[str, str]]:
    """Name of the file and caption of each picture that there is something to show in."""
    of_claims = [(name, label_claim(result)) for name, result in _list_claims(report)]
    return of_claims + [(name, caption) for name, caption, _, is_there in _PICTURES if is_there(report)]


def draw_pictures(report: Report, folder: Path) -> Iterator[Path]:
    """Writes them, one after another, and yields each path; raises `StorageError`."""
    for name, result in _list_claims(report):
        draw_claim(result, folder / name)
        yield folder / name
    for name, _, draw, is_there in _PICTURES:
        if is_there(report):
            draw(report, folder / name)
            yield folder / name


def _list_claims(report: Report) -> list[tuple[str, ClaimResult]]:
    """Name of the file and claim of those that the runs answer; a claim's name may be no name of a file."""
    named = [(f"claim-{number}.png", result) for number, result in enumerate(report.claims, start=1)]
    return [(name, result) for name, result in named if result.obtained is not None]
