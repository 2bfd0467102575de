"""What is wrong with the stages of an experiment, each by itself and one beside the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from llama_exp.config.check.nearest import advise, ask_whether, find_nearest_name, suggest
from llama_exp.config.check.typed import lies_under, list_keys, list_mappings, list_sections, show
from llama_exp.config.schema.protocol import ProtocolConfig, StageConfig
from llama_exp.errors import Problem
from llama_exp.limits.protocol import MODELS, Half, find_places

EXPERIMENT = "experiment"
_STAGES = "protocol.stages"
_NAME = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)
# `llama-exp experiment` gives these to each stage.
_GIVEN = re.compile(r"resume|protocol(\..*)?|hydra\.(run|sweep)\..*")


def find_stage_problems(protocol: ProtocolConfig) -> Iterator[Problem]:
    """Problems of a typed section `protocol`: names, order, folders of earlier stages, grids."""
    if protocol.stage is not None and protocol.stages and protocol.stage not in protocol.stages:
        action = suggest(protocol.stage, protocol.stages, "stages")
        yield Problem("no such stage", "protocol.stage", show(protocol.stage), action)
    before: dict[str, StageConfig] = {}
    for name, stage in protocol.stages.items():
        where = f"{_STAGES}.{name}"
        if not _NAME.fullmatch(name):
            action = "take letters, digits, _ and -: it names a folder, and stands in {...}"
            yield Problem("cannot be the name of a stage", _STAGES, show(name), action)
        lists = {"overrides": stage.overrides, "quick.overrides": stage.quick.overrides}
        for key, lines in lists.items():
            yield from _line_problems(f"{where}.{key}", lines, stage)
        grids: dict[str, Mapping[str, Sequence[object]]] = {"grid": stage.grid, "quick.grid": stage.quick.grid}
        for key, grid in grids.items():
            yield from _grid_problems(f"{where}.{key}", grid, stage)
        yield from _repeated(where, stage)
        yield from _place_problems(where, stage, before, protocol.stages)
        before[name] = stage


def key_of(line: str) -> str:
    """The key that an override sets."""
    return line.lstrip("+~").partition("=")[0].strip()


def list_texts(stage: StageConfig) -> list[tuple[str, str]]:
    """All texts of a stage in which `{name}` may stand, with the key below the stage's that holds each."""
    found = [("overrides", line) for line in stage.overrides]
    found += [("quick.overrides", line) for line in stage.quick.overrides]
    for key, grid in (("grid", stage.grid), ("quick.grid", stage.quick.grid)):
        found += [
            (f"{key}.{name}", value) for name, values in grid.items() for value in values if isinstance(value, str)
        ]
    return found


def _line_problems(where: str, lines: Sequence[str], stage: StageConfig) -> Iterator[Problem]:
    for line in lines:
        key = key_of(line)
        if "=" not in line and not line.startswith("~"):
            action = "write <key>=<value>, as on a command line"
            yield Problem("is no override", where, show(line), action)
        elif _GIVEN.fullmatch(key):
            yield Problem("is set by `llama-exp experiment` itself", where, show(line), "leave it out")
        elif key == EXPERIMENT and not stage.cached:
            what = "the runs of a stage belong to the experiment that it stands in"
            action = "leave it out; only a stage with cached: true may be of another experiment"
            yield Problem(what, where, show(line), action)


def _grid_problems(where: str, grid: Mapping[str, Sequence[object]], stage: StageConfig) -> Iterator[Problem]:
    if grid and stage.cached:
        what = "a stage with cached: true is one run, and has no grid"
        yield Problem(what, where, ", ".join(grid), "put the values into overrides, or leave cached out")
        return
    for key, values in grid.items():
        if not values:
            yield Problem("has no values", f"{where}.{key}", "[]", "give at least one, or leave the key out")
        if _GIVEN.fullmatch(key) or key.startswith("hydra") or key == EXPERIMENT:
            yield Problem("cannot differ between runs of a stage", f"{where}.{key}", show(key), "leave it out")
        elif not _is_known(key):
            match = advise(key, list_keys())
            action = ask_whether(match, key) if match else "`python train.py --cfg job` shows every key."
            yield Problem("no such key", f"{where}.{key}", show(key), action)


def _is_known(key: str) -> bool:
    """Whether a grid may have it: a key of ours, the choice of a part, or one below a mapping of the user's names."""
    is_added = key.startswith("+")  # an argument of a class of the user's own
    return is_added or key in (*list_keys(), *list_sections()) or lies_under(key, list_mappings()) or "/" in key


def _repeated(where: str, stage: StageConfig) -> Iterator[Problem]:
    """Keys that are given twice on one floor, so that nobody can tell which one is meant."""
    for prefix, lines, grid in (
        ("", stage.overrides, stage.grid),
        ("quick.", stage.quick.overrides, stage.quick.grid),
    ):
        keys = [*map(key_of, lines), *grid]
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            places = f"{prefix}overrides and {prefix}grid" if key in grid else f"{prefix}overrides"
            yield Problem("is given more than once", f"{where}.{prefix}overrides", f"{key}, in {places}", "leave one")


def _place_problems(
    where: str, stage: StageConfig, before: Mapping[str, StageConfig], stages: Mapping[str, StageConfig]
) -> Iterator[Problem]:
    """Names in braces that stand for no earlier stage and no model."""
    for key, text in list_texts(stage):
        for name in find_places(text):
            found, place = show(text), f"{where}.{key}"
            if name in MODELS:
                if stage.half is not Half.pretrained:
                    action = "add half: pretrained to the stage"
                    yield Problem("needs a model that the user gives, in the half without one", place, found, action)
            elif name in before:
                if before[name].half is Half.pretrained and stage.half is Half.first:
                    action = f"add half: pretrained to the stage, or half: first to {name}"
                    yield Problem("a stage of the first half cannot need one of the other", place, found, action)
            elif name in stages:
                what = f"stages run in their order, and {name} is not before this one"
                yield Problem(what, place, found, f"move {name} up, or name an earlier stage")
            else:
                match = find_nearest_name(name, (*before, *MODELS))
                known = f"earlier stages: {', '.join(before) or 'none'}; models: {', '.join(MODELS)}"
                action = f"did you mean {{{match}}}? {known}" if match else known
                yield Problem(f"{{{name}}} is neither an earlier stage nor a model", place, found, action)
