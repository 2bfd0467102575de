"""Composes a config as Hydra would, but keeps going behind a mistake, so that all of them can be told at once."""

from __future__ import annotations

import copy
import dataclasses
import linecache
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from llama_exp.config import plugins
from llama_exp.config.check import resolvers
from llama_exp.config.check.nearest import suggest
from llama_exp.config.check.other_tools import PLUGINS
from llama_exp.config.check.spelling import holds_texts, spell_texts
from llama_exp.config.check.text_source import install
from llama_exp.config.check.typed import lies_under, list_mappings, show
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.shown_path import show_path

VERSION_BASE = "1.3"
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError, RecursionError)
# What null means for the choice of a part; Hydra itself refuses it.
NULL_CHOICES = {
    "experiment": "~experiment",
    "sweep": "~sweep",
    "preset": "preset=none",
    "quantization": "quantization=none",
}
# What OmegaConf raises where a value has no place in a node of Hydra's own (`+hydra.sweeper.params.seed=1`).
MISPLACED = (AttributeError, AssertionError, TypeError, KeyError)


@dataclass(frozen=True)
class Layer:
    """One config that Hydra merges.

    name: `model/llama_tiny`. path: its file; None: it stands in Hydra's store of configs. package: where its keys lie.
    config: as it is merged, under its package. parent: name of the config whose list of parts names it. chosen_by: name
    of the config that chose it in the place of another; None: no config did.
    """

    name: str
    path: Path | None
    package: tuple[str, ...]
    config: Container
    parent: str | None
    chosen_by: str | None


class Composer:
    """Hydra's config loader over one search path.

    Args:
        config_path: folder of the primary config.
        config_name: its name without `.yaml`.
        config_dir: the user's own additional folder, or None.
        saved: the file that a primary config in Hydra's store was read from, for messages; None: it lies in a folder.
    """

    def __init__(self, config_path: Path, config_name: str, config_dir: Path | None = None, saved: Path | None = None):
        version.setbase(VERSION_BASE)
        setup_globals()
        resolvers.register()
        plugins.register()
        search_path = create_config_search_path(str(config_path))
        install()
        if config_dir is not None:
            search_path.prepend("command-line", f"file://{config_dir}", anchor=SearchPathQuery(provider="schema"))
        self.config_path, self.config_name, self._saved = config_path, config_name, saved
        self.loader = ConfigLoaderImpl(config_search_path=search_path)
        self.parser = OverridesParser.create(config_loader=self.loader)
        self._repositories: dict[tuple[str, ...], IConfigRepository] = {}
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._layers: dict[tuple[str, ...], list[Layer]] = {}

    def parse(self, lines: Sequence[str]) -> tuple[list[Override], list[Problem]]:
        """The overrides that follow Hydra's grammar, and a problem for each that does not."""
        overrides: list[Override] = []
        problems: list[Problem] = []
        for line in map(self.spell, lines):
            try:
                overrides.extend(map(_opened, self.parser.parse_overrides([line])))
            except (HydraException, ValueError) as error:
                problems.append(_syntax_problem(line, str(error).splitlines()[0]))
        return overrides, problems

    def spell(self, line: str) -> str:
        """An override as Hydra may have it: a value that it takes for no text is quoted where the key holds text."""
        key = line.partition("=")[0].lstrip("+~")
        if line.replace(" ", "").lower() == f"{key}=null" and key in NULL_CHOICES:
            return NULL_CHOICES[key]
        return spell_texts(line, self._needs_quotes) if holds_texts(key) and "=" in line else line

    def _needs_quotes(self, word: str) -> bool:
        try:
            (override,) = self.parser.parse_overrides([f"text={word}"])
        except (HydraException, ValueError):
            return True
        return not isinstance(override.value(), str)

    def repository(self, overrides: Sequence[Override]) -> IConfigRepository:
        """The config files in reach, those of an overridden `hydra.searchpath` included."""
        lines = tuple(line_of(override) for override in overrides if override.key_or_group == "hydra.searchpath")
        if lines not in self._repositories:
            try:
                found = self.loader._parse_overrides_and_create_caching_repo(self.config_name, list(lines))
            except COMPOSITION_ERRORS as error:
                raise ConfigError(_composition_problem(error)) from error
            self._repositories[lines] = found[1]
        return self._repositories[lines]

    def is_choice(self, override: Override) -> bool:
        """Whether an override chooses the file of a part."""
        is_group = self.repository([]).group_exists(override.key_or_group)
        return is_group and not isinstance(override.value(), dict)

    def compose(self, lines: Sequence[str]) -> DictConfig:
        """A copy of the config, `hydra` node included, that group overrides lead to. Raises ConfigError."""
        key = tuple(lines)
        if key not in self._composed:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._composed[key] = self.loader.load_configuration(
                        self.config_name, list(lines), run_mode=RunMode.MULTIRUN, validate_sweep_overrides=False
                    )
            except COMPOSITION_ERRORS as error:
                raise ConfigError(_composition_problem(error)) from error
        return copy.deepcopy(self._composed[key])

    def layers(self, lines: Sequence[str]) -> list[Layer]:
        """Each config in effect, later ones win. lines: group overrides, which compose."""
        key = tuple(lines)
        if key not in self._layers:
            self._layers[key] = list(self._list_layers(lines))
        return self._layers[key]

    def _list_layers(self, lines: Sequence[str]) -> Iterator[Layer]:
        repository = self.repository(self.parser.parse_overrides(list(lines)))
        listed = self.loader.compute_defaults_list(self.config_name, list(lines), run_mode=RunMode.MULTIRUN)
        for default in listed.defaults:
            result = repository.load_config(default.config_path) if default.config_path else None
            if result is not None:
                yield Layer(
                    str(default.config_path),
                    self._path_of(str(default.config_path), result.path),
                    tuple(filter(None, (default.package or "").split("."))),
                    self.loader._embed_result_config(result, default.package).config,
                    default.parent,
                    _chooser_of(default, listed.overrides),
                )

    def files(self, lines: Sequence[str]) -> list[tuple[str, Container]]:
        """Name and content (under its package) of each config file in effect; later ones win."""
        return [(show_path(layer.path), layer.config) for layer in self.layers(lines) if layer.path is not None]

    def _path_of(self, name: str, source: str) -> Path | None:
        """The file of a config, by where Hydra found it."""
        if self._saved is not None and name == self.config_name:
            return self._saved
        scheme, _, place = source.partition("://")
        if scheme == "file":
            return Path(place) / f"{name}.yaml"
        if scheme == "pkg":
            return Path(str(resources.files(place))) / f"{name}.yaml"
        return None


def _chooser_of(default: Any, overrides: Any) -> str | None:
    """Name of the config that overrides the choice of a part so that an entry of Hydra's list is there."""
    group, _, name = str(default.config_path).rpartition("/")
    for key, chosen in overrides.override_choices.items():
        part, _, package = key.partition("@")
        is_here = part == group and package in ("", default.package)
        if is_here and name in (chosen if isinstance(chosen, list) else [chosen]):
            return overrides.override_metadata[key].containing_config_path
    return None


def line_of(override: Override) -> str:
    """A parsed override as it was written."""
    assert override.input_line is not None, "every override here comes out of the parser, which keeps its line"
    return override.input_line


def names_entries(key: str) -> bool:
    """Whether an override of `key` may add entries without a `+`: `lora.rank_pattern={query: 16}`."""
    return lies_under(key, list_mappings())


def _opened(override: Override) -> Override:
    adds = override.type is OverrideType.CHANGE and names_entries(override.key_or_group)
    return dataclasses.replace(override, type=OverrideType.FORCE_ADD) if adds else override


def list_options(repository: IConfigRepository, group: str) -> list[str]:
    """The choices of a config group."""
    return repository.get_group_options(group, results_filter=ObjectType.CONFIG)


def apply(override: Override, cfg: DictConfig) -> None:
    """Sets one value override on a composed config. Raises ConfigError if Hydra would refuse it."""
    try:
        ConfigLoaderImpl._apply_overrides_to_config([override], cfg)
    except MISPLACED as error:
        raise ConfigError(_refused(override, "it has no place there")) from error
    except COMPOSITION_ERRORS as error:
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        raise ConfigError(_refused(override, str(cause).splitlines()[0].rstrip("."))) from error


def _refused(override: Override, reason: str) -> Problem:
    key, action = override.key_or_group, "see https://hydra.cc/docs/advanced/override_grammar/basic"
    if key.startswith("hydra.sweeper.params"):
        action = "write -m <key>=<value>,<value>, or put hydra.sweeper.params into a file as those in conf/sweep"
    return Problem(f"Hydra refuses this override: {reason}", key, show(override.input_line), action)


def has_key(cfg: Container, path: str) -> bool:
    """Whether a dotted path exists, be its value missing or an interpolation."""
    *above, last = path.split(".")
    node: Any = cfg
    for part in above:
        node = _below(node, part) if _holds(node, part) else None
    return _holds(node, last)


def _holds(node: Any, part: str) -> bool:
    if isinstance(node, ListConfig):
        return part.isdigit() and int(part) < len(node)
    return isinstance(node, DictConfig) and part in list(node)  # `in node` does not see a value that is missing


def _below(node: DictConfig | ListConfig, part: str) -> Any:
    """The value at a key that `node` holds; None for one that is missing or an interpolation."""
    key: Any = int(part) if isinstance(node, ListConfig) else part
    return None if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key) else node[key]


def _syntax_problem(line: str, reason: str) -> Problem:
    key = line.partition("=")[0].lstrip("+~") or line
    if "=" not in line:
        action = f"write {key}=<value>; options begin with a dash (see --help)"
    else:
        action = "write key=value without spaces, and quote special characters twice: 'key=\"a, b\"', 'key=[a,b]'"
    return Problem(f"is not an override in Hydra's grammar ({show(reason)})", key, show(line), action)


def _composition_problem(error: Exception) -> Problem:
    """What is wrong with a config file, from the exception that Hydra met."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, MissingConfigException):
        missing = error.missing_cfg_file or "a config"
        group, _, name = missing.rpartition("/")
        action = "check --config-dir, --config-path and --config-name"
        if package := PLUGINS.get(f"{group}={name}"):
            action = f"it is of a plug-in that is not installed: pip install {package}"
        elif error.options:
            action = suggest(name, error.options, "choices")
        return Problem("no such config file", missing, str(error).splitlines()[0], action)
    if mark is not None:
        where = f"{show_path(Path(mark.name))}, line {mark.line + 1}"
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = linecache.getline(mark.name, mark.line + 1).strip()
        return Problem(f"is not valid YAML: {reason}", where, show(line or "the end of the file"), "correct the file")
    if isinstance(error, RecursionError):
        return Problem("is nested too deeply", "configuration", type(error).__name__, "remove the recursion")
    lines = str(error).splitlines() or [str(error.__cause__ or type(error).__name__).splitlines()[0]]
    return Problem("the config files do not compose", "configuration", show(" ".join(lines)), "correct the file named")
