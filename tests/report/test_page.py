"""The page of a report, as Chromium shows it: light and dark, narrow and wide, without a network."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from llama_exp.limits.figures import Direction
from llama_exp.report.contents import (
    Axis,
    Cell,
    Column,
    CoordinateLine,
    Coordinates,
    Curve,
    Effect,
    EffectLine,
    EffectPoint,
    Figure,
    Group,
    Key,
    Paragraph,
    Report,
    ReportedRun,
    Scale,
    Table,
    TotalCost,
)
from llama_exp.report.page.data import make_data, thin_out
from llama_exp.report.page.write import render_page, write_page
from llama_exp.results.statistics import Estimate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "</script><img src=x onerror=\"document.title='owned'\"> & 'ü'"
LOSS = Figure("validation.loss", "validation loss (nats per token)", Direction.minimize)
# What a page is asked in the browser; the answer comes back in the dumped document.
PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const svgs = [...document.querySelectorAll(".plot > svg")];
  const plot = document.querySelector("#curves .plot"), box = plot.getBoundingClientRect();
  const line = document.querySelector("#curves .curve").getBoundingClientRect();
  plot.querySelector("svg").dispatchEvent(new PointerEvent("pointermove",
    { clientX: line.left + 2, clientY: line.top + 2, bubbles: true }));
  const before = document.querySelectorAll("#curves .curve").length;
  const tip = document.querySelector(".tip")?.textContent;
  document.querySelector(".legend button").click();
  const head = document.querySelectorAll("#first + .wide th button")[0];
  const column = () => [...document.querySelectorAll("#first + .wide tbody tr")].map((row) => row.cells[0].textContent);
  head.click(); const up = column(); head.click(); const down = column();
  const report = {
    width: innerWidth, overflow: document.documentElement.scrollWidth - innerWidth, plots: svgs.length,
    background: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    outside: svgs.flatMap((svg) => [...svg.querySelectorAll("text")].filter((text) => {
      const inner = text.getBoundingClientRect(), outer = svg.getBoundingClientRect();
      return inner.left < outer.left - 8 || inner.right > outer.right + 8;
    }).map((text) => text.textContent)),
    curves: before, left: document.querySelectorAll("#curves .curve").length, tip, up, down, title: document.title,
  };
  const told = Object.assign(document.createElement("pre"), { id: "probe", textContent: JSON.stringify(report) });
  document.body.append(told);
}, 50));
</script>
"""


def make_run(number, group, **changes):
    run = ReportedRun(
        number=number,
        name=f"{number}: rank={group}",
        folder=Path("/somewhere/sweeps/one") / f"{number}_a b#c",
        command=f"python train.py lora.rank={group} seed={number}",
        working_folder="/somewhere",
        status="finished",
        seed=number,
        group=group,
        values={"lora.rank": group, "kind": NASTY},
        figures={"validation.loss": 2.0 + number},
    )
    return dataclasses.replace(run, **changes)


def make_report(**changes):
    """Four runs of two configs."""
    runs = tuple(make_run(number, (number + 1) // 2) for number in (1, 2, 3, 4))
    estimates = [Estimate(2, 2.5, 0.5, 2.0, 3.0), Estimate(1, 4.5)]
    groups = tuple(
        Group(n, f"rank={n} {NASTY}", {"lora.rank": n}, (2 * n - 1, 2 * n), (), {"validation.loss": estimates[n - 1]})
        for n in (1, 2)
    )
    key = Key("lora.rank", "rank", Scale.linear, (1, 2))
    points = tuple(EffectPoint(n, n, estimates[n - 1], (2 * n - 1,), (2.0 + n,)) for n in (1, 2))
    words = Key("kind", "kind", Scale.categories, (NASTY, "plain"))
    others = tuple(EffectPoint(text, 1, estimates[0], (1,), (3.0,)) for text in words.values)
    axes = (
        Axis("lora.rank", "rank", Scale.linear, ((0.0, "1"), (1.0, "2"))),
        Axis("kind", "kind", Scale.categories, ((0.5, NASTY[:20]),)),
        Axis("validation.loss", LOSS.label, Scale.linear, ((0.0, "6"), (1.0, "3"))),
    )
    lines = tuple(CoordinateLine(n, runs[n - 1].group, (0.0, None if n == 2 else 0.5, n / 4), 2.0 + n) for n in (1, 2))
    report = Report(
        title=f"report of {NASTY}",
        figure=LOSS,
        figures=(LOSS,),
        confidence=0.95,
        keys=(key,),
        runs=runs,
        groups=groups,
        comparisons=None,
        curves=tuple(
            Curve(run.number, run.group, "validation.loss", (1, 2, 3), (5.0, float("nan"), 2.0 + run.number))
            for run in runs
        ),
        effects=(Effect(key, (EffectLine("", points),)), Effect(words, (EffectLine("rank=1", others),) * 2)),
        coordinates=Coordinates(axes, lines),
        costs=(),
        total_cost=TotalCost(4, 4, 0, 0, None, 0.0, False, 0.0, 0.0, 0, 0),
        statement=(Paragraph("Seeds", f"Four {NASTY}"),),
        best_rule="",
        notes=("A note.",),
    )
    return dataclasses.replace(report, **changes)


def make_table():
    columns = (Column("config"), Column("validation loss", is_number=True))
    rows = tuple((Cell(f"rank={n}"), Cell(f"{2.5 + n:.2f} ± 0.1", (n, n + 1), is_best=n == 1)) for n in (1, 2))
    return Table("first", "Leaderboard", columns, rows, (f"A note with {NASTY}",))


def render(folder, report=None):
    return render_page(report or make_report(), [make_table()], [], folder, "llama-exp report outputs")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    details = [dataclasses.replace(make_table(), name="config-1")]
    write_page(make_report(), [make_table(), dataclasses.replace(make_table(), name="second")], details, path, "report")
    probed = path.read_text().replace("</body>", PROBE + "</body>")
    (folder / "probed.html").write_text(probed)
    return folder


def browse(page, width, is_dark, *options):
    """What the page says of itself at some width; also its picture's size in bytes."""
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000"),
        *(f"--user-data-dir={page / 'profile'}", f"--blink-settings=preferredColorScheme={0 if is_dark else 1}"),
        *(f"--window-size={width},1400", *options, (page / "probed.html").as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.process
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(("width", "is_dark"), [(500, False), (1300, False), (500, True), (1300, True)])
def test_the_page_in_a_browser(page, width, is_dark):
    document = browse(page, width, is_dark, "--dump-dom")
    found = re.search(r'<pre id="probe">(.*?)</pre>', document, re.DOTALL)
    assert found is not None, "a script of the page failed"
    seen = json.loads(html.unescape(found[1]))
    assert seen["overflow"] <= 0, "the page is wider than the screen"
    assert seen["outside"] == []
    assert seen["plots"] == 4
    assert seen["curves"] == 4 and seen["left"] == 2, "a click on a config hides its runs"
    assert seen["tip"].startswith("run ")
    assert seen["up"] == ["rank=1", "rank=2"] and seen["down"] == ["rank=2", "rank=1"]
    assert seen["title"] == f"report of {NASTY}: report", "a name became a script"
    back, ink = (sum(map(int, re.findall(r"\d+", seen[name])[:3])) for name in ("background", "ink"))
    assert (back < ink) is is_dark


def test_it_needs_nothing_from_outside(tmp_path):
    text = render(tmp_path)
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert not re.search(r"@import|url\(", text)


def test_names_cannot_become_markup(tmp_path):
    text = render(tmp_path)
    assert "<img src=x" not in text
    assert text.count("</script>") == text.count("<script")


def test_links_to_runs_are_relative_and_quoted(tmp_path):
    folder = Path("/somewhere/reports")
    text = render(folder)
    assert 'href="../sweeps/one/1_a%20b%23c/"' in text


def test_cells_lead_to_their_runs_and_commands(tmp_path):
    text = render(tmp_path)
    assert (
        '<a href="#run-1" data-runs="1 2" title="run 1, 2: python train.py lora.rank=1 seed=1">3.50 ± 0.1</a>' in text
    )
    assert text.count('<tr id="run-') == 4
    assert 'data-value="3.50"' in text


def test_what_is_not_finite_is_no_point():
    (curve,) = make_data(make_report())["runs"][0]["curves"].values()
    assert curve == [[1, 5.0], [2, None], [3, 3.0]]


def test_a_report_of_one_run_has_a_page(tmp_path):
    run = make_run(1, 1)
    report = make_report(runs=(run,), groups=make_report().groups[:1], curves=(), effects=(), coordinates=None)
    text = render_page(report, [], [], tmp_path, "llama-exp report outputs")
    assert 'id="run-1"' in text


@pytest.mark.parametrize(("count", "most"), [(0, 5), (1, 5), (5, 5), (6, 5), (1000, 7)])
def test_long_curves_keep_both_ends(count, most):
    indices = thin_out(count, most)
    assert len(indices) == min(count, most)
    assert indices[:1] + indices[-1:] == ([0, count - 1] if count else [])
