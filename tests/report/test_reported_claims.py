"""Claims in every format of a report; a report of runs that state none is what it was."""

import csv
import dataclasses
import html
import json
import math
import re
import shutil
import subprocess

import golden_dumps
import pytest
from made_claims import CLAIMS, draw_losses, make_experiment
from made_runs import make_config, make_run
from rich.console import Console

from llama_exp.commands import report as command
from llama_exp.protocol import Verdict
from llama_exp.report import Options, make_report
from llama_exp.report.claims import show_expected
from llama_exp.report.latex import write_latex
from llama_exp.report.pictures import draw_pictures, list_pictures
from llama_exp.report.pictures.claims import choose_span
from llama_exp.report.terminal import show
from llama_exp.report.write import FORMATS, PNG, write_report
from llama_exp.results import load_runs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "</script><img src=x onerror=\"document.title='owned'\"> | $x$ & ü中"
OPEN = {**CLAIMS["ratio"], "expected": {"low": 0.5}, "statement": NASTY}
PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const seen = { title: document.title, plots: document.querySelectorAll("[data-claim] .plot").length,
    points: document.querySelectorAll("[data-claim] circle").length,
    bands: document.querySelectorAll("[data-claim] rect.expected").length,
    numbers: [...document.querySelectorAll("[data-claim] svg *")].filter((node) => [...node.attributes].some((one) =>
      /NaN|Infinity|undefined/.test(one.value))).length };
  const told = Object.assign(document.createElement("pre"), { id: "probe", textContent: JSON.stringify(seen) });
  document.body.append(told);
}, 50));
</script>
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Claims that are confirmed, contradicted and not seen, one with an interval that is open."""
    losses = draw_losses()
    losses |= {(64, rate, seed): 3.0 - 100 * rate for _, rate, seed in draw_losses(ranks=[64])}  # best at the edge
    claims = {**CLAIMS, "open": OPEN, "gone": {**CLAIMS["falls"], "stages": ["later"]}}
    stages = {"ranks": {}, "later": {"half": "pretrained"}}
    folder = make_experiment(tmp_path_factory.mktemp("runs"), losses, claims=claims, stages=stages)
    return make_report(load_runs([folder]), Options())


@pytest.fixture(scope="module")
def written(report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    list(write_report(report, folder, [name for name in FORMATS if name != PNG], "llama-exp report somewhere"))
    return folder


def test_the_terminal_shows_claims_in_color_and_words(tmp_path):
    text = golden_dumps.report_text(tmp_path)
    assert text == golden_dumps.path_of(golden_dumps.REPORT).read_text(), "python tests/renew_goldens.py"


def test_verdicts_have_colors(report, tmp_path):
    with (tmp_path / "shown").open("w+") as file:
        show(report, Console(file=file, width=120, force_terminal=True, color_system="standard"))
        file.seek(0)
        text = file.read()
    assert "\x1b[1;31mcontradicted" in text or "\x1b[1;32mconfirmed" in text
    assert "\x1b[1;33mnot seen" in text


def test_every_claim_stands_in_every_format(report, written):
    markdown, page = (written / "report.md").read_text(), (written / "report.html").read_text()
    latex, rows = (written / "latex" / "claims-1.tex").read_text(), read_rows(written)
    stated = json.loads((written / "claims.json").read_text())
    (experiment,) = stated["experiments"]
    assert [row["claim"] for row in rows] == [claim["claim"] for claim in experiment["claims"]]
    for result, row in zip(report.claims, rows, strict=True):
        assert f"| {result.name} | " in markdown
        assert result.name in latex and result.name in page
        assert row["verdict"] == result.verdict.value
        assert f"**{result.verdict.value}**" in markdown
        assert result.reason in markdown and html.escape(result.reason) in page
    assert "\\leq" in latex
    assert experiment["protocol"]["claims"]["open"]["statement"] == NASTY
    assert "stage" not in experiment["protocol"] or experiment["protocol"]["stage"] is None


def read_rows(written):
    return list(csv.DictReader((written / "csv" / "claims.csv").read_text().splitlines()))


def test_numbers_keep_their_digits_and_open_ends(report, written):
    rows = {row["claim"]: row for row in read_rows(written)}
    found = {result.name: result for result in report.claims}
    assert float(rows["better"]["obtained"]) == found["better"].obtained.value
    assert (float(rows["open"]["high"]), rows["gone"]["obtained"]) == (math.inf, "")
    assert float(rows["ratio"]["seconds"]) == 20.0 * len(found["ratio"].runs)
    (experiment,) = json.loads((written / "claims.json").read_text(), parse_constant=pytest.fail)["experiments"]
    claims = {claim["claim"]: claim for claim in experiment["claims"]}
    assert claims["open"]["high"] == "Infinity"
    assert len(claims["open"]["run_folders"]) == len(found["open"].runs)
    assert claims["gone"]["drawing"] is None and claims["open"]["drawing"]["is_log_x"]


def test_each_answered_claim_has_a_picture(report, tmp_path):
    answered = [number for number, result in enumerate(report.claims, start=1) if result.obtained is not None]
    named = [(name, caption) for name, caption in list_pictures(report) if name.startswith("claim")]
    assert [name for name, _ in named] == [f"claim-{number}.png" for number in answered]
    assert named[0][1] == f"Claim ratio: {report.claims[0].verdict.value}"
    only = dataclasses.replace(report, claims=report.claims[:1] + report.claims[3:4], curves=(), effects=())
    drawn = [path.name for path in draw_pictures(dataclasses.replace(only, coordinates=None), tmp_path)]
    assert drawn == ["claim-1.png", "claim-2.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)


def test_nothing_is_compared_unless_somebody_asks(report):
    assert report.comparisons is None
    folders = [run.folder for run in report.runs]
    asked = make_report(load_runs(folders), Options(baseline="lora.rank=4"))
    assert asked.comparisons is not None


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(None, -0.2, "≤ -0.2"), (1.0, None, "≥ 1"), (5.0, 20.0, "5 to 20"), (0.0, 0.0, "0 to 0"), (None, None, "–")],
)
def test_ranges_as_a_reader_wants_them(low, high, text):
    assert show_expected(low, high) == text


def test_the_strip_shows_what_is_finite(report):
    for result in report.claims:
        if result.obtained is not None:
            low, high = choose_span(result, result.obtained)
            assert math.isfinite(low) and math.isfinite(high)
            assert low < result.obtained.value < high


def test_quick_runs_never_pass_for_a_result(tmp_path):
    folder = make_experiment(tmp_path, name="small-quick")
    quick = make_report(load_runs([folder]), Options())
    assert {result.verdict for result in quick.claims} == {Verdict.confirmed, Verdict.contradicted}
    list(write_report(quick, tmp_path / "report", ["md", "html", "csv"], "command"))
    for name in ("report.md", "report.html"):
        text = (tmp_path / "report" / name).read_text()
        assert "(quick variant, no result)" in text and "quick: confirmed" in text
        assert "**confirmed**" not in text and 'class="long verdict' not in text
    assert {row["quick"] for row in read_rows(tmp_path / "report")} == {"True"}


def test_runs_without_claims_have_none_in_any_file(tmp_path):
    make_run(tmp_path / "runs" / "one", make_config())
    list(
        write_report(
            make_report(load_runs([tmp_path / "runs"]), Options()),
            tmp_path / "report",
            FORMATS.keys() - {PNG},
            "command",
        )
    )
    names = {path.name for path in (tmp_path / "report").rglob("*")}
    assert not [name for name in names if "claim" in name]
    assert "claim" not in (tmp_path / "report" / "report.html").read_text()


def test_json_of_runs_without_claims_says_why_there_is_none(tmp_path, capsys):
    make_run(tmp_path / "runs" / "one", make_config())
    command.main([str(tmp_path / "runs"), "--to", str(tmp_path / "report"), "--formats", "json"])
    assert "claims.json holds claims, and these runs state none" in " ".join(capsys.readouterr().out.split())


def test_latex_escapes_statements(report):
    text = write_latex(report, [])["claims-1.tex"]
    assert "\\$x\\$" in text and "<img" not in text


@pytest.mark.process
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_draws_each_claim(report, written, tmp_path):
    probed = tmp_path / "probed.html"
    probed.write_text((written / "report.html").read_text().replace("</body>", PROBE + "</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    line = [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", probed.as_uri()]
    document = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout
    seen = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', document, re.DOTALL)[1]))
    answered = [result.obtained for result in report.claims if result.obtained is not None]
    points = sum(len(series.points) for obtained in answered for series in obtained.drawing.series)
    assert (seen["plots"], seen["bands"], seen["numbers"]) == (len(answered), len(answered), 0)
    assert seen["points"] == points + len(answered)
    assert seen["title"] == f"{report.title}: report", "a statement became a script"


def test_claims_of_another_experiment_have_a_table_of_their_own(report):
    other = dataclasses.replace(report.claims[0].experiment, name="other")
    claims = (*report.claims, dataclasses.replace(report.claims[0], experiment=other))
    text = write_latex(dataclasses.replace(report, claims=claims), [])
    assert {"claims-1.tex", "claims-2.tex"} <= set(text)
