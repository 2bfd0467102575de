"""Texts on which tokenizers differ easily: blanks, digits, signs, other scripts, names of special tokens."""

import random

PIECES = [
    "the",
    " quick",
    " fox",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "12",
    "3",
    "é",
    "漢",
    "🙂",
    "'s",
    "don't",
    "½",
    "!",
    "...",
]
PIECES += ["+", "=1", "_", "\u3000", "</s>", "<|eot_id|>", "\x00", "<0x41>", "▁", "THE", "1234567", " 10,000.5"]


def texts():
    generator = random.Random(0)
    yield from ["", " ", "the quick brown fox", "  two  spaces\n\ttab", "naïve 😀 ☃", "a</s>b"]
    for _ in range(300):
        yield "".join(generator.choices(PIECES, k=generator.randrange(1, 20)))


TEXTS = list(texts())
