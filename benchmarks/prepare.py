"""Times how fast text files become token rows, and how much memory that needs, by the shape of the text.

    python benchmarks/prepare.py [--megabytes 100] [--only file paragraph] [--tokenizer bpe|byte] [--folder /tmp]

Each shape is prepared in a process of its own with an empty cache: read, kept, a tokenizer trained on it, encoded,
packed. The words are made up, with the frequencies of a natural language (Zipf), in paragraphs of about 600 bytes.

    paragraph      many documents, one a paragraph
    file           the same bytes as one document
    lines          one document a line
    no line ends   the same words in a single line
    no blanks      letters A, C, G, T in a single line: one word

Beside it lies a small file whose hash puts it into validation, since earlier versions could not divide a lone document.

`seconds` and `MB/s` count from an opened process to finished rows; `peak` is the largest resident set of the process,
`above imports` what of it came after everything was imported. Files that are mapped into memory count in both.
"""

import argparse
import hashlib
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ("paragraph", "file", "lines", "no line ends", "no blanks")
DOCUMENT = {"paragraph": "paragraph", "file": "file", "lines": "line", "no line ends": "file", "no blanks": "file"}
NUM_WORDS = 60_000
WORDS_AT_ONCE = 100_000


def make_text(path, num_bytes, shape):
    """Writes about `num_bytes` of text of a shape."""
    draw = np.random.default_rng(0)
    if shape == "no blanks":
        path.write_bytes(draw.choice(np.frombuffer(b"ACGT", np.uint8), num_bytes).tobytes())
        return
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    words = ["".join(draw.choice(letters, 1 + draw.poisson(4))) for _ in range(NUM_WORDS)]
    share = 1 / np.arange(1, NUM_WORDS + 1)
    share /= share.sum()
    written = 0
    with open(path, "w") as file:
        while written < num_bytes:
            ends = draw.choice(np.array([" ", ".\n", ".\n\n"]), WORDS_AT_ONCE, p=[0.9, 0.09, 0.01])
            chosen = draw.choice(NUM_WORDS, WORDS_AT_ONCE, p=share)
            block = "".join(words[word] + end for word, end in zip(chosen.tolist(), ends.tolist(), strict=True))
            written += file.write(block.replace("\n", " ") if shape == "no line ends" else block)


def make_validation(path):
    """Writes a document that a hash of its content puts into validation, with at least 40 lines."""
    for number in itertools.count():
        text = f"number {number} validates\n" * 40
        if int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < 0.05 * 2**64:
            path.write_text(text)
            return


def peak_mb():
    """The largest resident set of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def prepare(path, shape, tokenizer, cache):
    """Prepares one file and returns seconds, MB and rows."""
    import tensorflow_datasets  # noqa: F401

    from llama_exp.dataset import TextFiles
    from llama_exp.tokenizer import factories

    before, start = peak_mb(), time.perf_counter()
    options = {"sequence_length": 128, "packing": "concat", "overlong": "split", "validation_fraction": 0.05}
    files = [str(path), str(path.with_name("validation.txt"))]
    dataset = TextFiles(files=files, document=DOCUMENT[shape], encoding_errors="strict", **options)
    dataset.open(cache)
    opened = time.perf_counter()
    given = {"texts": lambda: dataset.texts("train"), "preset_folder": None, "cache_dir": str(cache)}
    size = {"vocabulary_size": 8192} if tokenizer == "bpe" else {}
    made = getattr(factories, tokenizer)(**size, **given, fingerprint=dataset.fingerprint)
    trained = time.perf_counter()
    rows = dataset.prepare(made, cache_dir=cache, loss_on="all")
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "open": opened - start,
        "train": trained - opened,
        "rows": end - trained,
        "peak": peak_mb(),
        "above": peak_mb() - before,
        "tokens": sum(split.num_tokens for split in rows.values()),
    }


def measure(shape, options):
    """The figures of one shape, from a process of its own; None and a word about it where that ends badly."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "text.txt"
        make_text(path, round(options.megabytes * 1e6), shape)
        make_validation(path.with_name("validation.txt"))
        command = [sys.executable, __file__, "--child", shape, str(path), "--tokenizer", options.tokenizer]
        result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if result.returncode:
            return path.stat().st_size / 1e6, None, (result.stderr.strip().splitlines() or [str(result.returncode)])[-1]
        return path.stat().st_size / 1e6, json.loads(result.stdout.splitlines()[-1]), ""


def main():
    """Measures every shape and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--only", nargs="*", choices=SHAPES, default=SHAPES)
    parser.add_argument("--tokenizer", choices=("bpe", "byte"), default="bpe")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        shape, path = options.child
        print(json.dumps(prepare(Path(path), shape, options.tokenizer, Path(path).parent / "cache")))
        return
    table = Table(title=f"{options.megabytes:g} MB of text, tokenizer {options.tokenizer}", title_justify="left")
    columns = ("shape", "seconds", "read", "tokenizer", "rows", "MB/s", "peak MB", "above imports", "tokens")
    for column in columns:
        table.add_column(column, justify="left" if column == "shape" else "right")
    for shape in options.only:
        size, found, reason = measure(shape, options)
        if found is None:
            table.add_row(shape, reason)
            continue
        times = [f"{found[name]:.1f}" for name in ("seconds", "open", "train", "rows")]
        sizes = [f"{found['peak']:.0f}", f"{found['above']:.0f}", f"{found['tokens']:,}"]
        table.add_row(shape, *times, f"{size / found['seconds']:.2f}", *sizes)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
