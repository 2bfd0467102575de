"""What the formats make of a report: nothing is lost, nothing breaks a table, every number leads to its run."""

import csv
import itertools
import re
import struct
import urllib.parse

import pytest
from made_runs import make_config, make_grid, make_run
from rich.console import Console

from llama_exp.report import Options, csv_files, latex, make_report, markdown
from llama_exp.report.numbers import choose_decimals, show_count, show_estimate, show_interval, show_number, show_p
from llama_exp.report.pictures import draw_pictures, list_pictures
from llama_exp.report.tables import list_tables
from llama_exp.report.terminal import choose_columns, show
from llama_exp.results import load_runs
from llama_exp.results.statistics import Estimate

NASTY = "a|b $x$ 100% #1 {c} ~^ \\d <i> [e] *f* `g` _h_ ü 中\n--"


def draw_losses():
    points = itertools.product((2, 4, 8), (1e-3, 1e-2), range(3))
    return {(rank, rate, seed): 2.5 - 0.01 * rank + rate + 0.001 * seed for rank, rate, seed in points}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_grid(folder / "sweep", draw_losses())
    return make_report(load_runs([folder]), Options())


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    """Names and values that mean something to Markdown, LaTeX, CSV and Matplotlib."""
    folder = tmp_path_factory.mktemp("runs") / "a|b $x$ ü中"
    for seed, number in itertools.product(range(2), range(2)):
        config = make_config(seed, own={NASTY[:20]: f"{number}{NASTY}"}, name=NASTY)
        starts = [{"command": f"python train.py 'own={NASTY}' \"quoted\" `x`"}]
        make_run(folder / f"{number}_{seed}", config, 2.0 + number + 0.1 * seed, starts=starts)
    make_run(folder / "failed", make_config(9), status="failed", summary={"reason": f"Error: {NASTY}"})
    return make_report(load_runs([folder]), Options())


def list_cells(line):
    """Of a row of a Markdown table: split where a pipe is not escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def list_markdown_tables(text):
    tables = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    return [[list_cells(line) for line in table.splitlines()] for table in tables]


# --- numbers


def test_numbers_have_four_digits_or_the_decimals_of_their_column():
    assert show_number(2.891234) == "2.891"
    assert show_number(2.891234, 5) == "2.89123"
    assert show_number(0.0) == "0.000"
    assert (show_number(1.23e-7), show_number(1.23e-7, 4)) == ("1.230e-07", "0.0000")
    assert (show_number(1.5e9), show_number(1.5e9, 2), show_number(1.5e-9, 11)) == ("1.500e+09",) * 2 + ("1.500e-09",)
    assert [show_number(float(text)) for text in ("nan", "inf", "-inf")] == ["NaN", "inf", "-inf"]
    assert show_estimate(Estimate(3, 2.891234, 0.01, 2.8863, 2.8962), 4) == "2.8912 ± 0.0050"
    assert show_estimate(Estimate(1, 2.891234)) == "2.891"
    assert show_interval(-0.0213, -0.0041, 4) == "[-0.0213, -0.0041]"
    assert (show_p(0.125), show_p(1e-7)) == ("0.125", "< 0.0001")
    assert (show_count(102400), show_count(5), show_count(3.2e17)) == ("102k", "5", "3.2e+17")


def test_a_column_has_two_digits_of_the_interval_in_its_middle():
    def reaching(reach):
        return Estimate(3, 2.5, reach, 2.5 - reach, 2.5 + reach)

    assert choose_decimals(map(reaching, (0.0099, 0.018, 0.023))) == 3
    assert choose_decimals(map(reaching, (0.3, 40.0, 20.0))) == 0
    assert choose_decimals([reaching(0.0), Estimate(1, 2.5), None]) is None


# --- Markdown


def test_markdown_tables_are_whole(nasty, tmp_path):
    text = markdown.write_markdown(nasty, tmp_path, [("curves.png", "Learning curves")])
    tables = list_markdown_tables(text)
    assert len(tables) == len(list_tables(nasty)) + len(nasty.groups)
    for table in tables:
        assert len({len(row) for row in table}) == 1, table[0]
    assert "\n--\n" not in text  # a line break of a value would end the row


def test_markdown_links_lead_to_the_runs(report, tmp_path):
    document = tmp_path / "some" / "where"
    document.mkdir(parents=True)
    text = markdown.write_markdown(report, document, [])
    linked = {urllib.parse.unquote(link) for link in re.findall(r"\]\((\.\./[^ )]+) \"", text)}
    assert {(document / link).resolve() for link in linked} == {run.folder.resolve() for run in report.runs}
    for group in report.groups:
        assert f'<a id="config-{group.number}"></a>' in text
        assert f"(#config-{group.number})" in text
    for run in report.runs:
        assert f"`{run.command}`" in text


def test_the_best_is_bold_in_markdown(report, tmp_path):
    rows = list_markdown_tables(markdown.write_markdown(report, tmp_path, []))[0][2:]
    assert "**" in rows[0][-1]
    assert not any("**" in cell for row in rows[1:] for cell in row)


def test_the_statement_says_what_reviewers_ask_for(report):
    text = markdown.write_statement(report)
    for part in ("Seeds per config: 3 (0, 1, 2)", "lora.rank: 2, 4, 8", "95 % Student t interval", "18 attempts"):
        assert part in text
    for part in ("made-up processor, 2 cores visible, 1 thread, 16.0 GiB", "keras 3.15.1", "commit 0123456789ab"):
        assert part in text
    assert "Energy was not measured" in text
    assert f"train rows: {'ab' * 8}" in text


@pytest.mark.parametrize(
    ("trainer", "told"),
    [
        ({"export": "last", "keep_best": "validation.loss"}, "those after the last step"),
        ({"export": "best", "keep_best": "validation.loss"}, "those of each run's best validation.loss"),
        ({"export": "last", "stop_early": "validation.loss"}, "stopped early by validation.loss"),
    ],
)
def test_the_statement_says_which_weights_count(tmp_path, trainer, told):
    make_run(tmp_path / "run", make_config(trainer=trainer))
    assert told in markdown.write_statement(make_report(load_runs([tmp_path]), Options()))


def test_the_statement_claims_nothing_that_is_not_recorded(tmp_path):
    bare = {"device": None, "cores": None, "threads": None, "memory_bytes": None, "packages": None, "git": None}
    make_run(tmp_path / "run", **bare, python=None, dataset=None, tokenizer=None)
    report = make_report(load_runs([tmp_path]), Options())
    told = {paragraph.title: paragraph.text for paragraph in report.statement}
    assert told["Hardware"] == "unknown (1 run)."
    assert told["Software"] == "not recorded (1 run)."
    assert "Data" not in told
    assert "There are none" in told["Error bars"]


# --- LaTeX


def require_sound(text):
    """Braces and environments are closed, each row has its columns, and no special letter stands bare."""
    bare = re.sub(r"(?<!\\)%.*", "", text)
    depth = 0
    for character in re.sub(r"\\[{}\\]", "", bare):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    open_ones = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", bare):
        if kind == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    assert not open_ones
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", bare, re.DOTALL):
        rows = re.split(r"\\\\\n", table[1].split(r"\toprule")[1].split(r"\bottomrule")[0])
        for row in rows[:-1]:
            assert len(re.findall(r"(?<!\\)&", row)) == len(table[0]) - 1, row
    assert not re.search(r"(?<!\\)[#_]", re.sub(r"\\(input|includegraphics|label)(\[.*?\])?\{.*?\}", "", bare))


def test_latex_is_sound(nasty, report):
    for each in (nasty, report):
        files = latex.write_latex(each, [("../curves.png", "Learning curves")])
        for text in files.values():
            require_sound(text)
        inputs = re.findall(r"\\input\{(.*?)\}", files["report.tex"])
        assert sorted([*inputs, "report.tex"]) == sorted(files)
        assert all(r"\toprule" in files[f"{table.name}.tex"] for table in list_tables(each))


def test_latex_prints_what_stands_there():
    assert latex.escape("a_b 50% $x$ #1 {c}") == r"a\_b 50\% \$x\$ \#1 \{c\}"
    assert latex.escape("~^\\") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert latex.escape("--to [x] ü 中") == "-{}-to {[}x] ü U+4E2D"
    assert latex.escape("2.5 ± 0.1\nmore") == r"2.5 $\pm$ 0.1 more"


def test_latex_rows_name_their_runs(report):
    text = latex.write_latex(report, [])["leaderboard.tex"]
    for run in report.runs:
        assert f"% run {run.number}: {run.folder}; {run.command}\n" in text
    assert text.count(r"\textbf{") == 1


# --- CSV


def test_csv_rows_are_tidy(nasty):
    files = csv_files.write_csv(nasty)
    rows = list(csv.DictReader(files["runs.csv"].splitlines()))
    assert len(rows) == len(nasty.runs) * len(nasty.figures)
    values = [float(row["value"]) for row in rows if row["averaged"] == "True"]
    assert values == [run.figures["validation.loss"] for run in nasty.runs if run.reason is None]
    assert all(row["folder"] == str(nasty.run(int(row["run"])).folder) for row in rows)
    assert all(row["command"] for row in rows)
    steps = list(csv.DictReader(files["steps.csv"].splitlines()))
    assert len(steps) == sum(len(curve.steps) for curve in nasty.curves)
    assert {row["figure"] for row in steps} == {"train.loss", "validation.loss"}
    assert len(list(csv.DictReader(files["comparisons.csv"].splitlines()))) == len(nasty.comparisons.rows)


def test_csv_keeps_all_digits(report):
    rows = list(csv.DictReader(csv_files.write_csv(report)["configs.csv"].splitlines()))
    for row, group in zip(rows, report.groups, strict=True):
        assert float(row["mean"]) == group.estimates["validation.loss"].mean
        assert float(row["low"]) == group.estimates["validation.loss"].low
        assert float(row["lora.rank"]) == group.values["lora.rank"]


# --- terminal


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_of_any_width(report, nasty, width, capsys):
    for each in (report, nasty):
        show(each, Console(width=width, no_color=True))
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("width", [30, 60, 80, 100])
def test_no_digit_is_lost_on_a_narrow_terminal(report, width, capsys):
    show(report, Console(width=width, no_color=True))
    text = capsys.readouterr().out
    assert "…" not in text
    if width >= 80:
        for group in report.groups:
            assert show_estimate(group.estimates["validation.loss"], 4) in text


def test_columns_that_may_go_do_so_from_the_right(report):
    table = next(table for table in list_tables(report) if table.name == "comparisons")
    everything = choose_columns(table, 500)
    assert everything == list(range(len(table.columns)))
    some = choose_columns(table, 60)
    assert set(everything) - set(some) == {index for index in everything if table.columns[index].may_go}


def test_long_tables_are_cut_on_a_terminal(tmp_path, capsys):
    for number in range(60):
        make_run(tmp_path / str(number), make_config(0, number), 2.0 + number)
    show(make_report(load_runs([tmp_path]), Options()), Console(width=100))
    text = capsys.readouterr().out
    assert "rows are not shown; --to FOLDER writes all." in text
    assert " all " in text  # the sum is there all the same


# --- pictures


def test_pictures_have_the_size_of_a_page(report, nasty, tmp_path):
    for name, each in (("plain", report), ("nasty", nasty)):
        folder = tmp_path / name
        folder.mkdir()
        paths = list(draw_pictures(each, folder))
        assert [path.name for path in paths] == [file for file, _ in list_pictures(each)]
        for path in paths:
            head = path.read_bytes()[:24]
            assert head[:8] == b"\x89PNG\r\n\x1a\n"
            width, height = struct.unpack(">II", head[16:24])
            assert 600 <= width <= 1400
            assert 150 <= height <= 3000


def test_a_report_without_numbers_has_no_pictures_of_them(tmp_path):
    make_run(tmp_path / "run", loss=None, status="failed", curve=())
    report = make_report(load_runs([tmp_path]), Options())
    assert list_pictures(report) == []
    text = markdown.write_markdown(report, tmp_path, [])
    assert "Runs that are not averaged" in text
    for part in latex.write_latex(report, []).values():
        require_sound(part)
