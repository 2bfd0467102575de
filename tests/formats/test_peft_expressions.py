"""Expressions over module names: what `re` finds, in a time that nobody can choose."""

import random
import re
from pathlib import Path

import pytest
from promptness import within

from llama_exp.errors import InputError
from llama_exp.formats.peft import expressions
from llama_exp.formats.peft.expressions import Expressions

ATOMS = ["a", "b", ".", "[ab]", "[^a]", r"\w", r"\.", "", "^", "$", r"\b", "(?=b)", "(?!a)", "(?<=a)", "(?<!b)", "[]a]"]
REPETITIONS = ["", "", "", "*", "+", "?", "*?", "{2}", "{1,2}", "{,1}", "{1,}", "{", "{}"]
NAMES = ["", "a", "b", "ab", "a.b", "aab", "abab", "b.a.", "bbb", "]a{", "a{}"]


def random_expression(generator, depth=2):
    parts = []
    for _ in range(generator.randrange(1, 4)):
        if depth and generator.random() < 0.4:
            opening = generator.choice(["(", "(?:", "(?P<name>", "(?=", "(?!"])
            part = f"{opening}{random_expression(generator, depth - 1)})"
        else:
            part = generator.choice(ATOMS)
        parts.append(part + generator.choice(REPETITIONS))
    return generator.choice(["", "|"]).join(parts)


def test_random_expressions_match_what_re_matches():
    generator, tried = random.Random(0), 0
    while tried < 1500:
        text = random_expression(generator)
        if re.search(r"[*+?}]\+", text):
            continue  # possessive, which is refused
        try:
            oracle = re.compile(text)
        except re.error:
            continue
        tried += 1
        matches = Expressions(Path("file")).compile("key", text)
        assert [matches(name) for name in NAMES] == [oracle.fullmatch(name) is not None for name in NAMES], text


def test_all_expressions_of_a_file_share_their_steps(monkeypatch):
    monkeypatch.setattr(expressions, "MAX_STEPS", 100)
    made = Expressions(Path("adapter_config.json"))
    matchers = [made.compile("rank_pattern", f".*{index}") for index in range(60)]
    with pytest.raises(InputError, match="rank_pattern: a regular expression cannot be used\n.*more than 100 steps"):
        [matches("q_proj") for matches in matchers]


def test_looking_from_everywhere_in_everything_ends(monkeypatch):
    text = "(?=.*" * 20 + "x" + ")" * 20
    with within(10), pytest.raises(InputError, match="steps"):
        Expressions(Path("file")).compile("target_modules", text)("a" * 60)
