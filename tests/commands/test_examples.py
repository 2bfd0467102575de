"""What the help texts and README tell people to type is made of names that exist."""

import re
import shlex
from pathlib import Path

import pytest

from llama_exp import cli
from llama_exp.config.check import CONF
from llama_exp.preset import PRESETS

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [*sorted((ROOT / "llama_exp" / "commands").glob("*.py")), ROOT / "llama_exp" / "cli.py", ROOT / "README.md"]
LINES = sorted(
    {
        line.split("#")[0].split('", "')[0].strip(" `,")
        for text in TEXTS
        # a line that goes on in the next one is one line
        for line in re.findall(r"(?:llama-exp|python train\.py) [^`\n]+", text.read_text().replace("\\\n", " "))
        if ("=" in line or "--" in line) and "lama2_7b optimizer" not in line  # the example of mistakes
    }
)


def test_there_are_examples():
    assert len(LINES) > 20


@pytest.mark.parametrize("line", LINES)
def test_choices_exist(line):
    if line.count('"') % 2:
        line = line.rstrip('",]')  # the quote that ends the text in Python
    words = shlex.split(re.sub(r"<[^>]*>", "x", line).replace("|", " ").replace("'", ""))
    if words[0] == "llama-exp":
        assert words[1] in cli.COMMANDS
    for word in words:
        group, is_choice, choices = word.partition("=")
        if is_choice and (CONF / group).is_dir():
            for choice in choices.split(","):
                assert (CONF / group / f"{choice}.yaml").exists(), word
    # A source that looks like a built-in preset is one.
    for option, word in zip(words, words[1:], strict=False):
        if option in ("--from", "chat", "generate", "parity") and re.fullmatch(r"(llama|vicuna)[\w.]*", word):
            assert word in PRESETS, word
