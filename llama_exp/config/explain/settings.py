"""Everything that sets a value on the way to a composed config, in the order in which it happens.

Neither Hydra nor OmegaConf keeps who set a value. So the merge is replayed: the files that Hydra merges, in its order,
each leaf with the line it stands in, then the overrides of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from llama_exp.config.check.composition import Layer, line_of
from llama_exp.config.explain.yaml_lines import read_lines
from llama_exp.files.shown_path import show_path

HYDRAS_OWN = "Hydra's own config"
Path = tuple[str, ...]


class Deleted:
    """What `~key` leaves of a value."""


DELETED = Deleted()


@dataclass(frozen=True)
class Place:
    """Who said something.

    text: `conf/trainer/default.yaml:1`, or `argument 2: lora.rank=8`. config: Hydra's name of the file,
    `trainer/default`; None: it is no file. chosen_by: where the file was chosen, as `text`; None: it is the first one.
    """

    text: str
    config: str | None = None
    chosen_by: str | None = None


@dataclass(frozen=True)
class Setting:
    """One value that a key was given.

    path: of the key. value: as written, as plain data: interpolations are text. place: who gave it.
    """

    path: Path
    value: Any
    place: Place

    def decides(self, path: Path) -> bool:
        """Whether it sets the value at a path, a part of it, or something in whose place the path's parents came."""
        if self.path[: len(path)] == path:
            return True
        return path[: len(self.path)] == self.path and not isinstance(self.value, Mapping)


PlaceOf = Callable[[str], Place]


def replay(of_files: Sequence[Setting], overrides: Sequence[Override], place_of: PlaceOf) -> list[Setting]:
    """All settings of a job's config, oldest first.

    Args:
        of_files: of `list_file_settings`, for the job's choices.
        overrides: of values, in their order.
        place_of: an override's line -> who said it.
    """
    given = [setting for override in overrides for setting in _list_override(override, place_of(line_of(override)))]
    return [*of_files, *given]


def list_file_settings(layers: Sequence[Layer], choices: Sequence[str], place_of: PlaceOf) -> Iterator[Setting]:
    """What config files set, in the order of their merge.

    Args:
        layers: the configs.
        choices: the overrides that choose files, as lines.
        place_of: an override's line -> who said it.
    """
    for layer in layers:
        yield from _list_layer(layer, _find_chooser(layer, layers, choices, place_of))


def _find_chooser(layer: Layer, layers: Sequence[Layer], choices: Sequence[str], place_of: PlaceOf) -> str | None:
    """Where a config was chosen, in words; None: it is the first one, or nobody knows."""
    group, _, name = layer.name.rpartition("/")
    for line in choices:
        key, _, value = line.lstrip("+~").partition("=")
        if group and key.partition("@")[0] == group and name in value.strip("[]'\" ").replace(" ", "").split(","):
            return place_of(line).text
    chooser = layer.parent if layer.chosen_by is None else layer.chosen_by
    for other in layers:
        if other.name == chooser and other.path is not None and other is not layer:
            found = read_lines(other.path).find_choice(group, name, layer.chosen_by is not None)
            return _join(show_path(other.path), found)
    return None


def _list_layer(layer: Layer, chosen_by: str | None) -> Iterator[Setting]:
    content = OmegaConf.to_container(layer.config, resolve=False)
    lines = None if layer.path is None else read_lines(layer.path)
    for path, value in flatten_paths(content):
        inside = path[len(layer.package) :] if path[: len(layer.package)] == layer.package else path
        if inside[:1] == ("defaults",):
            continue
        if layer.path is None or lines is None:
            yield Setting(path, value, Place(HYDRAS_OWN, layer.name, chosen_by))
        else:
            yield Setting(path, value, Place(_join(show_path(layer.path), lines.find(inside)), layer.name, chosen_by))


def _list_override(override: Override, place: Place) -> Iterator[Setting]:
    path = tuple(override.key_or_group.split("."))
    value = DELETED if override.is_delete() else override.value()
    if isinstance(value, Mapping) and value:
        yield from (Setting((*path, *below), leaf, place) for below, leaf in flatten_paths(value))
    else:
        yield Setting(path, value, place)


def flatten_paths(tree: Any, above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Path and value of each leaf; lists and empty mappings are leaves."""
    for key, value in tree.items():
        path = (*above, str(key))
        if isinstance(value, Mapping) and value:
            yield from flatten_paths(value, path)
        else:
            yield path, value


def _join(file: str, line: int | None) -> str:
    return file if line is None else f"{file}:{line}"
