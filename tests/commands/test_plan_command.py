"""`llama-exp plan` as it is typed: machine, time, changes, bad input."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_exp import cli
from llama_exp.commands import plan
from llama_exp.config.check import check_arguments
from llama_exp.run import plan_rates
from llama_exp.run.machine import cpu_name
from llama_exp.run.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """The output of a command line, blanks joined, with a cache of its own."""
    monkeypatch.setenv("LLAMA_EXP_CACHE", str(tmp_path))

    def show(*arguments):
        assert plan.main(list(arguments)) == 0
        return " ".join(capsys.readouterr().out.split())

    return show


def test_it_says_whether_it_fits(shown):
    assert "fits yes: 1.06 GiB into 22.35 GiB of --memory 24GB" in shown("--memory", "24GB")
    assert "fits closely: " in shown("--memory=1.2GB")
    assert "fits barely not: " in shown("--memory=1.1GB")
    assert "free of" in shown()


def test_it_says_what_would_make_it_fit(shown):
    lines = shown("model=llama_15m", "trainer.batch_size=64", "--memory", "2.5GB")
    assert "one of these makes it fit (--memory 2.5GB); it takes the place of the same key" in lines
    assert "trainer.accumulation_steps=" in lines and "arithmetic x 1.00 rounding" in lines
    assert "nothing alone makes it fit (--memory 1MB); as small as it gets: trainer." in shown("--memory=1MB")
    smallest = ("trainer.batch_size=1", "trainer.remat=block", "objective.chunk_tokens=64", "precision=bfloat16")
    assert "nothing makes it smaller" in shown("--memory=1MB", *smallest)


def test_it_says_how_long_it_takes(shown, tmp_path):
    assert "time nothing was measured on this machine yet; train some steps" in shown()
    config = check_arguments([]).config
    plan_rates.remember(config, make_plan(config), {"tokens_per_second": 1024.0}, cpu_name())
    assert "time about 20 min for all steps, at 1,024 tokens/s (measured " in shown()
    scaled = shown("model.num_layers=8", "trainer.max_steps=12000")
    assert "(scaled by arithmetic from a run of " in scaled and "with another model)" in scaled


@pytest.mark.parametrize("arguments", [["--memory"], ["--memory", "much"], ["--memory=0GB"], ["--memory="]])
def test_bad_sizes(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["plan", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "--memory: is no size of memory" in error and "24GB or 16GiB" in error


@pytest.mark.process
def test_it_decides_within_a_second_and_without_a_framework():
    code = """
import sys
from llama_exp import cli
try:
    cli.main(sys.argv[1:])
finally:
    print([name for name in ("keras", "tensorflow", "jax", "torch") if name in sys.modules], file=sys.stderr)
"""
    before = os.times()
    arguments = ["plan", "--memory", "4GB", "model=llama2_7b", "preset.load_weights=false", "lora.rank=8"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0 and done.stderr.strip().endswith("[]"), done.stderr
    assert "as small as it gets" in done.stdout
    # The child's own time: the machine may be busy with other things.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1
