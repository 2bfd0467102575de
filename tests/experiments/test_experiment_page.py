"""Pages of experiments, from made-up folders: what they say, what they must not say, and the index over them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import make_config, make_run

from llama_exp.errors import InputError
from llama_exp.experiments.catalogue import Entry
from llama_exp.experiments.page import write_page
from llama_exp.experiments.page.clean import Cleaner
from llama_exp.experiments.page.index import render_index, write_index
from llama_exp.experiments.request import Request

CLAIMS = {
    "higher_is_better": {
        "statement": "A higher rank gives a lower loss | really.",
        "where": "section 4",
        "published": -0.1,
        "stages": ["ranks"],
        "estimator": "mean_difference",
        "arguments": {"y": "validation.loss", "of": {"lora.rank": 8}, "against": {"lora.rank": 4}},
        "expected": {"high": 0.0},
    },
    "slope": {
        "statement": "The norm falls.",
        "stages": ["ranks"],
        "estimator": "mean_figure",
        "arguments": {"y": "validation.loss"},
        "expected": {"low": 100.0},
    },
    "on_a_model": {
        "statement": "So it is on a real model.",
        "stages": ["big"],
        "estimator": "mean_figure",
        "arguments": {"y": "validation.loss"},
        "expected": {"low": 0.0},
    },
}
PROTOCOL = {
    "title": "Ranks",
    "source": {"title": "A paper", "authors": "Somebody", "year": 2026, "url": "https://example.org/1"},
    "method": "Two ranks on a base.",
    "differences": ["The model is tiny."],
    "stages": {
        "base": {"cached": True},
        "ranks": {"overrides": ["preset.source={base}/model"]},
        "big": {"half": "pretrained", "overrides": ["preset.source={smollm2}"]},
    },
    "claims": CLAIMS,
}
MODEL = "/home/somebody/models/smol.gguf"


def start(code, seconds, **facts):
    stages = [{"name": "ranks", "seconds": seconds, "cpu_seconds": None if code is None else 7.0, "exit_code": code}]
    return {
        "time": "2026-01-01T00:00:00+00:00",
        "command": "llama-exp experiment ranks",
        "exit_code": code,
        "versions": {"llama_exp": "0.1.0", "commit": "0123456789abcdef", "dirty": False},
        "machine": {"cpu": "made-up processor", "cores": 2, "memory_bytes": 2**34, "platform": "Linux-1-secret"},
        "stages": stages,
        **facts,
    }


STARTS = (start(130, 30.0), start(None, 20.0), start(0, 70.0))


def make_experiment(folder, name="ranks", claims=CLAIMS, starts=STARTS):
    root = folder / "outputs" / "experiments" / name
    for number, (rank, seed) in enumerate((rank, seed) for rank in (4, 8) for seed in (0, 1, 2)):
        protocol = {**PROTOCOL, "claims": claims, "stage": "ranks"}
        config = make_config(seed=seed, rank=rank, protocol=protocol, name="ranks")
        make_run(root / "ranks" / f"{number}_lora.rank-{rank}", config, loss=3.0 - rank / 10 + seed / 100)
    base = folder / "outputs" / "experiments" / "bases" / "0123"
    base.mkdir(parents=True, exist_ok=True)
    (base / "summary.json").write_text(json.dumps({"status": "finished", "seconds": 60.0}))
    command = f"python -m llama_exp train -m experiment=ranks preset.source={MODEL} trainer.x={folder}/a/b.txt"
    stages = {
        "base": {"half": "first", "folder": "outputs/experiments/bases/0123", "runs": 1, "command": command},
        "ranks": {"half": "first", "folder": f"outputs/experiments/{name}/ranks", "runs": 6, "command": command},
    }
    record = {"schema": 1, "name": "ranks", "title": "Ranks", "quick": False, "extra": [], "verdicts": {}}
    record |= {"models": {"smollm2": MODEL}, "stages": stages, "starts": list(starts)}
    (root / "experiment.json").write_text(json.dumps(record))
    return root


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(request=None):
    return list(write_page(request or Request("ranks"), Path("pages")))


def read_page(name="ranks"):
    return Path("pages", f"{name}.md").read_text(encoding="utf-8")


def test_the_page_says_what_came_out(folder):
    make_experiment(folder)
    paths = write()
    page = read_page()
    assert [path.name for path in paths] == [
        "ranks-higher_is_better.png",
        "ranks-slope.png",
        "ranks.md",
        "ranks.json",
        "index.md",
    ]
    assert Path("pages/ranks-slope.png").read_bytes().startswith(b"\x89PNG")
    row = next(line for line in page.splitlines() if line.startswith("| [higher"))
    assert row == (
        r"| [higher\_is\_better](#higher_is_better) | section 4 | -0.1 | ≤ 0 | -0.4000 | \[-0.4000, -0.4000\] |"
        " **confirmed** |"
    )
    assert "| [slope](#slope) | – | – | ≥ 100 | " in page and "**contradicted**" in page
    assert r"| [on\_a\_model](#on_a_model) † | – | – | ≥ 0 | – | – | **not run** |" in page
    for text in (
        "After Somebody (2026), [A paper](https://example.org/1).",
        "Two ranks on a base.",
        "- The model is tiny.",
        r"A higher rank gives a lower loss \| really.",
        "Begun 3 times, each time by the same command: 1 of them interrupted by Ctrl-C, 1 of them killed without",
        "Time: 3:00 of wall time, 1:00 of them for base, which another experiment had trained.",
        "Processor: 0:14 of all cores together (starts that were killed not included).",
        "Machine: made-up processor, 2 cores, 16.0 GiB of memory.",
        "commit 0123456789ab.",
        "it goes into discussion/ranks.md",
        "llama-exp report outputs/experiments/ranks",
        "mean over seeds of y(of) - y(against)",
    ):
        assert text in page, text


def test_no_place_of_this_machine_is_on_a_page(folder):
    make_experiment(folder)
    write()
    for path in Path("pages").glob("*.*"):
        content = path.read_bytes().decode("utf-8", "replace")
        assert str(folder) not in content and "/home/" not in content and "secret" not in content, path
    assert "llama-exp train -m experiment=ranks preset.source=<smollm2> trainer.x=a/b.txt" in read_page()


def test_the_same_files_make_the_same_page(folder):
    make_experiment(folder)
    write()
    before = {path: path.read_bytes() for path in Path("pages").iterdir()}
    write()
    assert {path: path.read_bytes() for path in Path("pages").iterdir()} == before


def test_the_discussion_is_included_as_it_is(folder):
    make_experiment(folder)
    (folder / "pages" / "discussion").mkdir(parents=True)
    (folder / "pages" / "discussion" / "ranks.md").write_text("It *agrees*, as far as 1 < 2.\n", encoding="utf-8")
    write()
    assert "## What we think of it\n\nIt *agrees*, as far as 1 < 2.\n\n## How it ran" in read_page()


def test_the_program_on_the_page_prints_the_numbers_on_the_page(folder):
    make_experiment(folder)
    write()
    section = read_page().partition("## Check one number by hand")[2]
    program = section.partition("```text\n")[2].partition("\n```")[0]
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    table = section.partition("## Runs")[0].splitlines()
    shown = [line.strip("| ").split(" | ") for line in table if line.startswith("| ")][1:]
    assert len(shown) == 6
    assert sorted([float(word) for word in line.split()] for line in printed.splitlines()) == sorted(
        [float(cell) for cell in row] for row in shown
    )


def test_the_page_says_how_its_interval_comes_about(folder):
    make_experiment(folder)
    write()
    section = read_page().partition("## Check one number by hand")[2].partition("## Runs")[0]
    assert "its interval \\[" in section and "The level of the interval is 95 percent." in section
    assert "Interval: Student's t" in section and "Source:" not in section


def test_a_page_of_runs_without_an_answer_says_so(folder):
    make_experiment(folder, claims={"on_a_model": CLAIMS["on_a_model"]}, starts=(start(0, 5.0),))
    assert [path.name for path in write()] == ["ranks.md", "ranks.json", "index.md"]
    assert "No claim has a number." in read_page() and "Run in one go" in read_page()


def test_a_quick_page_is_called_one_and_is_not_in_the_index(folder):
    make_experiment(folder, "ranks-quick")
    assert "index.md" not in {path.name for path in write(Request("ranks", is_quick=True))}
    assert "its figures mean nothing" in read_page("ranks-quick") and "quick: confirmed" in read_page("ranks-quick")


def test_an_experiment_that_was_not_run_says_how(folder):
    with pytest.raises(InputError, match="run it first: llama-exp experiment ranks"):
        write()
    root = make_experiment(folder)
    (root / "experiment.json").unlink()
    with pytest.raises(InputError, match="no experiment.json"):
        write()


@pytest.mark.parametrize("damage", [b"\xff\xfe", None], ids=["no text", "a folder"])
def test_a_discussion_that_cannot_be_read_is_named(folder, damage):
    make_experiment(folder)
    path = folder / "pages" / "discussion" / "ranks.md"
    path.parent.mkdir(parents=True)
    path.mkdir() if damage is None else path.write_bytes(damage)
    with pytest.raises(InputError, match=r"discussion/ranks.md: cannot be read"):
        write()


def test_the_index_lists_all_run_or_not(folder):
    make_experiment(folder)
    write()
    entries = [Entry("other", None, {}), Entry("ranks", None, {})]
    text = render_index(entries, Path("pages"))
    assert "| [Ranks](ranks.md) | A higher rank gives a lower loss \\| really. | -0.1 | ≤ 0 | -0.4000" in text
    assert "[confirmed](ranks.md#higher_is_better) | 3 min |" in text and "- `other`: other, not run yet" in text


@pytest.mark.parametrize("text", ["{", '{"title": 1}', '{"claims": [{}], "title": "a", "seconds": 1}'])
def test_damaged_data_of_a_page_is_named(folder, text):
    (folder / "pages").mkdir()
    (folder / "pages" / "mine.json").write_text(text)
    with pytest.raises(InputError, match=r"mine.json"):
        render_index([Entry("mine", None, {})], Path("pages"))


def test_an_index_without_any_page(folder):
    (folder / "pages").mkdir()
    assert write_index(Path("pages"), None).read_text().startswith("<!-- Made by")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a /opt/x/y.txt b", "a .../y.txt b"),
        ("x='/opt/x y/z'", "x='.../x y/z'"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("outputs/a/b", "outputs/a/b"),
        (f"preset.source={MODEL} seed=1", "preset.source=<smollm2> seed=1"),
        ("--config-dir=/home/me/my_conf", "--config-dir=.../my_conf"),
        ("1/2 and 3 / 4", "1/2 and 3 / 4"),
    ],
)
def test_places_are_taken_out_of_texts(text, shown):
    assert Cleaner({"smollm2": MODEL})(text) == shown
