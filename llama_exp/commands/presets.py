"""`llama-exp presets`: the built-in pre-trained models, their size, and which are here. Needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_exp.commands.parser import Parser
from llama_exp.preset import PRESETS, Preset
from llama_exp.preset.local import in_kaggle_cache
from llama_exp.preset.table import PRECISIONS, weight_bytes

GIB = 2**30
LEGEND = (
    "GiB of the weights alone, as published: Llama 3.2's output matrix apart from its embeddings. int8 and int4 with "
    "their scales (int4: one and a zero point per 32 inputs; embeddings, key and value as int8), norms in bfloat16. "
    "`llama-exp plan` tells what training needs. The download is an estimate: Keras publishes the models that are not "
    "int8 in bfloat16."
)
USE = "preset.source=<id>; other sources: kaggle://user/model/keras/variant, hf://user/repo, a folder, a .gguf file"


def main(arguments: list[str]) -> int:
    """Prints the table, or JSON for scripts; returns the exit code."""
    parser = Parser(
        "presets",
        "The built-in pre-trained models: their size, and which are on this machine.",
        ["llama-exp presets", "llama-exp presets --json"],
    )
    parser.add_argument("--json", action="store_true", help="for scripts: sizes in bytes")
    if parser.parse_args(arguments).json:
        print(json.dumps([_record(name, preset) for name, preset in PRESETS.items()], indent=2))
    else:
        show(Console())
    return 0


def show(console: Console) -> None:
    """The sizes as a table that fits 80 columns, and below it what each model is."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("id", no_wrap=True)
    for heading in ("params", "download", *PRECISIONS):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("here")
    for name, preset in PRESETS.items():
        table.add_row(*_sizes_row(name, preset))
    for part in (table, Text(), Text(LEGEND, "dim"), Text()):
        console.print(part)
    for name, preset in PRESETS.items():
        console.print(Text.assemble((name, "bold"), f"  {preset.description}\n", (f"    {preset.handle}", "dim")))
    console.print(Text(f"\n{USE}"))


def _sizes_row(name: str, preset: Preset) -> Iterable[str]:
    yield name
    yield f"{preset.parameter_count / 1e9:.2f}B"
    yield _gib(preset.download_bytes)
    for precision in PRECISIONS:
        yield _gib(weight_bytes(preset.architecture, precision))
    yield "yes" if in_kaggle_cache(preset.handle) else ""


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


def _record(name: str, preset: Preset) -> dict:
    return {
        "id": name,
        "handle": preset.handle,
        "description": preset.description,
        "parameters": preset.parameter_count,
        "int8": preset.int8,
        "download_bytes": preset.download_bytes,
        "memory_bytes": {precision: weight_bytes(preset.architecture, precision) for precision in PRECISIONS},
        "here": in_kaggle_cache(preset.handle),
    }
