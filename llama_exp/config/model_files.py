"""Which files of conf/model describe a model: for messages about a preset of another architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_exp.architecture import SIZES
from llama_exp.config.conf_folder import CONF
from llama_exp.files.yaml_file import read_yaml
from llama_exp.preset.table import PRESETS, context_length

PRESET = "override /preset@_global_.preset"
_FOLDER = CONF / "model"


def find_model_files(sizes: Mapping[str, Any], source: str | None) -> list[str]:
    """The choices of `model=` with these sizes; if some of them choose the preset `source` themselves, only those."""
    found = {path.stem: _read(path.stem) for path in sorted(_FOLDER.glob("*.yaml"))}
    fitting = [
        name
        for name, (values, chosen) in found.items()
        if all(values.get(key) == sizes[key] for key in SIZES) and _same_generation(chosen, source)
    ]
    own = [name for name in fitting if source is not None and found[name][1] == source]
    return own or fitting


def _same_generation(chosen: str | None, source: str | None) -> bool:
    """Whether two presets differ in no more than what they were tuned on; true where that is not known."""
    if chosen not in PRESETS or source not in PRESETS:
        return True
    return context_length(chosen) == context_length(source)


def _read(name: str) -> tuple[dict[str, Any], str | None]:
    """The values of a model file, those of the files it is based on included, and the preset that it chooses."""
    content = read_yaml(_FOLDER, f"{name}.yaml")
    values: dict[str, Any] = {}
    chosen = None
    for entry in content.pop("defaults", []):
        if isinstance(entry, dict):
            chosen = entry.get(PRESET, chosen)
        elif entry != "_self_":
            inherited, chosen = _read(entry)
            values |= inherited
    return values | content, chosen


def say_how_to_fit(sizes: Mapping[str, Any], stated: Mapping[str, Any], source: str | None) -> str:
    """What to do about a model with the `stated` sizes, where its preset has others."""
    files = find_model_files(sizes, source)
    if files:
        return f"choose {' or '.join(f'model={name}' for name in files)}, or preset=none"
    differing = [key for key in SIZES if stated[key] != sizes[key]]
    return f"set {' '.join(f'model.{key}={sizes[key]}' for key in differing)}, or preset=none"
