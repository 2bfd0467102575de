"""What an error's last line says is done here, word by word; then the data prepare.

Each case: files, a command line, and what the error says. The line's first command is run by a shell, its first
`key=value` (or, if the case says so, a later one) replaces what the command line had.
"""

import gzip
import json
import re
import shlex
import shutil
import subprocess

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.config.instantiate import instantiate
from llama_exp.errors import InputError

PROSE = "".join(f"Line {number} tells what {number * number} is.\n\n" for number in range(300))
ACCENTS = PROSE.replace("tells", "dit à café")
LONG_CHATS = [{"messages": [{"role": "user", "content": f"{n} " * 60}, {"role": "assistant", "content": "Yes."}]}
              for n in range(60)]  # fmt: skip
LATE_END = [{"prompt": "Tell.", "completion": f" {n}" * 90} for n in range(60)]
TEXT, JSONL = "dataset=text_files", "dataset=jsonl"
ONE, CHATS = (TEXT, "dataset.files=book.txt"), (JSONL, "dataset.files=a.jsonl")


def lines(items):
    return "\n".join(map(json.dumps, items)).encode()


# name -> (files, command line, what the error says, which key=value of the fix)
CASES = {
    "gzip": ({"book.txt.gz": gzip.compress(PROSE.encode())}, (TEXT, "dataset.files=book.txt.gz"), "gzip", 0),
    "gzip replaced": (
        {"book.txt.gz": gzip.compress(PROSE.encode())},
        (TEXT, "dataset.files=book.txt.gz", "dataset.encoding_errors=replace"),
        "gzip",
        0,
    ),
    "gzip of text": (
        {"a.jsonl.gz": gzip.compress(lines([{"text": PROSE}]))},
        (JSONL, "dataset.files=*.gz"),
        "gz",
        0,
    ),
    "utf-16": ({"my book.txt": PROSE.encode("utf-16")}, (TEXT, "dataset.files='my book.txt'"), "UTF-16", 0),
    "latin-1 converted": ({"book.txt": ACCENTS.encode("latin-1")}, ONE, "not UTF-8", 0),
    "latin-1 replaced": ({"book.txt": ACCENTS.encode("latin-1")}, ONE, "not UTF-8", 1),
    "misspelt": ({"book.txt": PROSE.encode()}, (TEXT, "dataset.files=bok.txt"), "no file", 0),
    "folder": ({"texts/deep/a.md": PROSE.encode()}, (TEXT, "dataset.files=texts"), "a folder", 0),
    "batch": ({"book.txt": PROSE[:3000].encode()}, (*ONE, "trainer.batch_size=512"), "a batch takes 512", 0),
    "error: split": ({"book.txt": PROSE.encode()}, (*ONE, "dataset.overlong=error"), "overlong is error", 0),
    "drop: split": ({"book.txt": PROSE.encode()}, (*ONE, "dataset.overlong=drop"), "overlong dropped 1", 0),
    "error: longer": ({"a.jsonl": lines(LONG_CHATS)}, (*CHATS, "dataset.overlong=error"), "overlong is error", 0),
    "error: truncate": ({"a.jsonl": lines(LATE_END)}, (*CHATS, "dataset.overlong=error"), "overlong is error", 1),
    "drop: longer": ({"a.jsonl": lines(LONG_CHATS)}, (*CHATS, "dataset.overlong=drop"), "overlong dropped", 0),
    "chats": ({"a.jsonl": lines(LONG_CHATS)}, CHATS, "masked", 0),
}


def prepare(command, cache):
    """The rows of a command line, as a run makes them, with one token a byte."""
    config = check_arguments([*command, "tokenizer=byte"]).config
    dataset = instantiate(config.dataset, [], "dataset")
    dataset.look()
    dataset.open(cache)
    given = {"texts": None, "preset_folder": None, "cache_dir": str(cache), "fingerprint": dataset.fingerprint}
    tokenizer = instantiate(config.tokenizer, [], "tokenizer", **given)
    loss_on, rows = config.objective.loss_on.value, config.trainer.batch_size
    return dataset.prepare(tokenizer, cache_dir=cache, loss_on=loss_on, minimum_train_rows=rows)


def follow(action, command, which):
    """The command line after doing what the text says."""
    if order := re.search(r"\b((?:gunzip|iconv)\b.+?> *(?:'[^']*'|[^ ,)]+))", action):
        subprocess.run(order.group(), shell=True, check=True)
    found = re.findall(r"\b((?:dataset|trainer|objective)\.\w+=(?:'[^']*'|[^ ,;)]+))", action)
    key, _, value = found[which].partition("=")
    (value,) = shlex.split(value)
    quoted = f"'{value}'" if set(value) & set(" *") else value
    return [item for item in command if not item.startswith(f"{key}=")] + [f"{key}={quoted}"]


@pytest.mark.parametrize("name", CASES)
def test_the_fix_works_when_it_is_followed(tmp_path, monkeypatch, name):
    files, command, what, which = CASES[name]
    if what in ("UTF-16", "not UTF-8") and shutil.which("iconv") is None:
        pytest.skip("iconv is not installed")
    monkeypatch.chdir(tmp_path)
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError) as caught:
        prepare(command, tmp_path / "cache")
    (problem,) = caught.value.problems
    assert what in str(caught.value) and problem.where and problem.found
    rows = prepare(follow(problem.action, command, which), tmp_path / "cache")
    assert len(rows["train"]) and len(rows["validation"])


def test_a_damaged_cache_is_mended_as_the_message_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(PROSE)
    command = (*ONE, "dataset.document=paragraph")
    prepare(command, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache" / "examples")
    (file,) = (tmp_path / "cache" / "tfds").rglob("*.array_record-*")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match="delete that folder") as caught:
        prepare(command, tmp_path / "cache")
    shutil.rmtree(caught.value.problems[0].where)
    assert len(prepare(command, tmp_path / "cache")["train"])
