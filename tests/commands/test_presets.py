"""`llama-exp presets`: a table that fits, JSON for scripts, without network or frameworks."""

import io
import json
import subprocess
import sys
import time

import pytest
from rich.console import Console

from llama_exp.commands.presets import main, show
from llama_exp.preset import PRESETS


def shown(width):
    console = Console(file=io.StringIO(), width=width)
    show(console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_every_preset_is_there_and_nothing_is_cut(width):
    text = shown(width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    for name, preset in PRESETS.items():
        assert text.count(f"{name} ") >= 2 and preset.handle in text
        assert preset.description.split()[-1] in text
    row = next(line.split() for line in text.splitlines() if line.startswith("llama2_7b_en "))
    assert row == ["llama2_7b_en", "6.74B", "12.6", "25.1", "12.6", "6.3", "4.5"]


def test_json_has_exact_sizes(capsys):
    assert main(["--json"]) == 0
    records = {record["id"]: record for record in json.loads(capsys.readouterr().out)}
    assert list(records) == list(PRESETS)
    llama = records["llama2_7b_en"]
    assert llama["memory_bytes"]["float32"] == 4 * 6738415616 == 4 * llama["parameters"]
    assert llama["download_bytes"] == llama["memory_bytes"]["bfloat16"] == 2 * 6738415616
    # 1 byte a weight, 4 a scale; 65 norms of 4096 in 2 bytes.
    norms = 65 * 4096
    assert llama["memory_bytes"]["int8"] == 6738415616 - norms + 4 * 1423872 + 2 * norms
    assert records["llama2_7b_en_int8"]["download_bytes"] == llama["memory_bytes"]["int8"]
    assert llama["memory_bytes"]["int4"] < 0.73 * llama["memory_bytes"]["int8"]


def test_what_is_in_the_cache_is_marked(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    home = tmp_path / "models" / "keras" / "llama3" / "keras" / "llama3.2_1b"
    (home / "1").mkdir(parents=True)
    (home / "1" / "config.json").write_text("{}")
    main(["--json"])
    assert not any(record["here"] for record in json.loads(capsys.readouterr().out))
    (home / "1.complete").touch()  # kagglehub's mark
    main(["--json"])
    assert [record["id"] for record in json.loads(capsys.readouterr().out) if record["here"]] == ["llama3.2_1b"]


@pytest.mark.process
def test_it_needs_neither_frameworks_nor_clients():
    code = (
        "import sys; from llama_exp.commands import presets; presets.main([])\n"
        "names = ('keras', 'tensorflow', 'jax', 'torch', 'kagglehub', 'huggingface_hub', 'requests')\n"
        "assert not [name for name in names if name in sys.modules], 'imported'"
    )
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert time.monotonic() - start < 5  # 0.4 s on an idle machine
