"""All mistakes of one job: groups, keys, types, values and their combinations."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import Container, DictConfig, OmegaConf

from llama_exp.config import loggers
from llama_exp.config.check.composition import Composer, apply, has_key, line_of, list_options
from llama_exp.config.check.contracts import find_contract_problems
from llama_exp.config.check.conversion import get_hints, is_schema
from llama_exp.config.check.nearest import advise, ask_whether, find_nearest_key, find_nearest_name, suggest
from llama_exp.config.check.other_tools import PLUGINS, SYNONYMS
from llama_exp.config.check.ranges import find_impossible_values
from llama_exp.config.check.resolve import HYDRA, Resolved
from llama_exp.config.check.rules import find_impossible_pairs
from llama_exp.config.check.stages import find_stage_problems
from llama_exp.config.check.typed import (
    OWN_PREFIX,
    TARGET,
    Typing,
    describe_unknown_key,
    find_schemas,
    lies_under,
    list_keys,
    list_scalars,
    list_section_keys,
    list_sections,
    show,
)
from llama_exp.config.schema import SCHEMAS, Config
from llama_exp.config.stored import resolve_stored
from llama_exp.errors import ConfigError, Problem
from llama_exp.files.redact import redact_arguments

EXPERIMENT, SWEEP = "experiment", "sweep"
EVERYTHING = "*"
# Parts that do nothing under some value.
SWITCHED_OFF = {"lora": "lora.rank=0 switches it off; or ", "logger": "logger=none switches it off; or "}
HANDLERS = (
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.Formatter",
    "logging.handlers",
)
HYDRA_PREFIXES = ("hydra", "hydra_plugins", OWN_PREFIX, "colorlog", *HANDLERS)


@dataclass(frozen=True)
class Job:
    """What the check of one job found.

    problems: empty if the job may start.
    config: typed; None if the config files do not even compose.
    cfg: as composed, `hydra` node included; None likewise.
    """

    problems: list[Problem]
    config: Config | None = None
    cfg: DictConfig | None = None

    @property
    def launcher_keys(self) -> list[str]:
        """Keys of the launcher that would run several such jobs."""
        return [] if self.cfg is None else [str(key) for key in self.cfg.hydra.launcher]


class JobCheck:
    """Checks one job's overrides against what a composer can reach."""

    def __init__(self, composer: Composer, overrides: Sequence[Override]):
        self.composer = composer
        self.repository = composer.repository(overrides)
        self.problems: list[Problem] = []
        # Sections whose choice is in doubt: there a stand-in is checked, and only what the user typed is reported.
        self.doubtful: set[str] = set()
        self.lines: list[str] = []
        self.values: list[Override] = []
        for override in overrides:
            group = override.key_or_group
            if self.repository.group_exists(group) and not isinstance(override.value(), dict):
                self._choose(override)
            else:
                self.values.append(override)

    def run(self) -> Job:
        """The job with all its problems."""
        cfg = self._compose()
        if cfg is None:
            return Job(self.problems)
        for override in self.values:
            self._set(override, cfg)
        resolved = Resolved(cfg)
        self.problems += self._displaced(resolved.data)
        typing_pass = Typing(self._origin)
        config = typing_pass.config(resolved.data)
        found = [*typing_pass.problems, *find_impossible_values(config, self._origin)]
        found = [problem for problem in found if problem.where not in resolved.unfilled] + resolved.problems
        told = {problem.where for problem in self.problems}
        wrong = {problem.where for problem in found} | told | resolved.unfilled
        self.problems += [p for p in found if p.where not in told and self._is_news(p.where, resolved, wrong)]
        self.problems += find_foreign_targets(cfg, config)
        # What is wrong only because its source is wrong is not told, but no rule may read it.
        unsound = {where.partition(".")[0] for where in wrong | {problem.where for problem in self.problems}}
        unsound |= set(list_sections()) if EVERYTHING in self.doubtful else self.doubtful
        config = config if unsound & {"preset", "quantization"} else resolve_stored(config)
        self.problems += find_impossible_pairs(config, unsound)
        self.problems += [] if "protocol" in unsound else find_stage_problems(config.protocol)
        if "trusted_modules" not in unsound:
            self.problems += find_contract_problems(config, unsound)
        return Job(self.problems, config, cfg)

    def _displaced(self, data: dict[str, Any]) -> Iterator[Problem]:
        """Takes out what experiment and sweep files without a package line put under their own names."""
        for group in (EXPERIMENT, SWEEP):
            if group in data and self._override_of(group) is None:
                keys = ", ".join(data.pop(group) or {})
                name = next((name for name, content in reversed(self._files) if has_key(content, group)), group)
                what = f"its keys lie under `{group}`, where nobody reads them"
                action = "make this the first line of the file: # @package _global_"
                yield Problem(what, name, f"{group}: {keys}", action)

    def _is_news(self, path: str, resolved: Resolved, wrong: set[str]) -> bool:
        # An interpolated value is as wrong as its source, which is reported itself; in a circle, each is a source.
        sources = resolved.sources(path)
        if sources & wrong and path not in sources:
            return False
        return not self._in_doubt(path) or self._override_of(path) is not None

    def _compose(self) -> DictConfig | None:
        try:
            return self.composer.compose(self.lines)
        except ConfigError as error:
            self.problems += error.problems
        self.lines, self.doubtful = [], {EVERYTHING}
        try:
            return self.composer.compose(self.lines)
        except ConfigError as error:
            self.problems += [problem for problem in error.problems if problem not in self.problems]
            return None

    def _choose(self, override: Override) -> None:
        """Takes a group override over into `lines`, or the nearest possible one in its stead."""
        group, value = override.key_or_group, override.value()
        own = group in (*list_sections(), EXPERIMENT, SWEEP)
        line = show(override.input_line)
        is_empty = override.is_delete() or value is None or value == []
        if (group in list_sections() and is_empty) or (value is None and "/" in group):
            action = f"{SWITCHED_OFF.get(group, '')}choose one: {self._options(group)}"
            self._wrong_choice(group, "every run needs this part", line, action)
        elif own and override.package is None and (override.is_add() or override.is_force_add()):
            self._wrong_choice(group, "is in the list of parts already", line, f"write {line.lstrip('+')}")
        elif override.package is not None and not (override.is_add() or override.is_force_add()):
            self._wrong_choice(group, "adds a part below a name, which takes a +", line, f"write +{line}")
        else:
            names = value if isinstance(value, list) else [value]
            wrong = [name for name in names if name is not None and not self._exists(group, name)]
            options = list_options(self.repository, group)
            for name in wrong:
                if package := PLUGINS.get(f"{group}={name}"):
                    self._wrong_choice(group, "is a plug-in that is not installed", line, f"pip install {package}")
                else:
                    self._wrong_choice(group, "no such choice", line, suggest(str(name), options, "choices"))
            known = [name for name in wrong if f"{group}={name}" not in PLUGINS]
            stand_ins = filter(None, (find_nearest_name(str(name), options) for name in known))
            if not wrong:
                self.lines.append(line_of(override))
            elif stand_in := next(stand_ins, None):
                self.lines.append(f"{group}={stand_in}")

    def _wrong_choice(self, group: str, what: str, found: str, action: str) -> None:
        self.problems.append(Problem(what, group, found, action))
        self.doubtful |= {EVERYTHING} if group == EXPERIMENT else {group, *(["preset"] if group == "model" else [])}

    def _exists(self, group: str, name: object) -> bool:
        return isinstance(name, str) and self.repository.config_exists(f"{group}/{name}")

    def _options(self, group: str) -> str:
        return ", ".join(list_options(self.repository, group))

    def _set(self, override: Override, cfg: DictConfig) -> None:
        """Applies a value override, or says why it cannot be."""
        key, line = override.key_or_group, show(override.input_line)
        plain = not (override.is_add() or override.is_force_add())
        if lies_under(key, [group.replace("/", ".") for group in self.doubtful if "/" in group]):
            return  # of hydra's own node: nobody knows the keys of a choice that there is not
        if plain and not has_key(cfg, key):
            if not (self._in_doubt(key) and key.rpartition(".")[2] in self._known_keys(key.partition(".")[0])):
                self.problems.append(self._unknown(override, cfg))
        elif override.is_delete() and key in list_keys() and is_schema(get_hints(Config).get(key.partition(".")[0])):
            self.problems.append(Problem("every key needs a value", key, line, f"write {key}=<value>"))
        elif override.is_add() and _has_value(cfg, key) and not isinstance(override.value(), (dict, list)):
            self.problems.append(Problem("has a value already", key, line, f"write {line.lstrip('+')}"))
        else:
            try:
                apply(override, cfg)
            except ConfigError as error:
                self.problems += error.problems

    @staticmethod
    def _known_keys(section: str) -> set[str]:
        return list_section_keys(section) if section in list_sections() else set()

    def _unknown(self, override: Override, cfg: DictConfig) -> Problem:
        """The problem of an override whose key does not exist."""
        key, line = override.key_or_group, redact_arguments([show(override.input_line)])[0]
        section, _, leaf = key.rpartition(".")
        if section in list_sections() and leaf in list_section_keys(section):
            return self._absent(section, leaf, line, cfg)
        if override.is_hydra_override():
            match = find_nearest_key(key, list_paths(OmegaConf.to_container(cfg[HYDRA]), HYDRA))
        elif "." not in key and key not in SYNONYMS:
            match = find_nearest_name(key, (*list_sections(), EXPERIMENT, SWEEP, *list_scalars())) or advise(
                key, list_keys()
            )
        else:
            match = advise(key, list_keys())
        action = ask_whether(match, key) if match else "`python train.py --cfg job` shows every key."
        if section in list_sections() and TARGET in cfg[section] and cfg[section][TARGET] not in SCHEMAS:
            action += f" To pass a new argument to {cfg[section][TARGET]}, write +{line.lstrip('+~')}"
        return describe_unknown_key(key, line, action)

    @staticmethod
    def _absent(section: str, leaf: str, line: str, cfg: DictConfig) -> Problem:
        """The problem of a key that the schema knows, but the chosen file does not have."""
        schemas = find_schemas(section)
        target = cfg[section].get(TARGET) if isinstance(cfg[section], DictConfig) else None
        owners = [name.rpartition(".")[2] for name, schema in schemas.items() if leaf in get_hints(schema)]
        if section == loggers.SECTION and target is None:
            action = "choose W&B too: logger=[wandb,...]; or leave the key out"
            return Problem("the chosen logger has no such key", f"{section}.{leaf}", line, action)
        if target in schemas and target.rpartition(".")[2] not in owners:
            action = f"choose another {section}; these have it: {', '.join(owners)}"
            return Problem(f"the chosen {section} has no such key", f"{section}.{leaf}", line, action)
        return Problem(f"the chosen {section} file does not set it", f"{section}.{leaf}", line, f"write +{line}")

    def _in_doubt(self, path: str) -> bool:
        return EVERYTHING in self.doubtful or path.partition(".")[0] in self.doubtful

    def _override_of(self, path: str) -> Override | None:
        for override in reversed(self.values):
            if lies_under(path, [override.key_or_group]) or lies_under(override.key_or_group, [path]):
                return override
        return None

    @functools.cached_property
    def _files(self) -> list[tuple[str, Container]]:
        return self.composer.files(self.lines)

    def _origin(self, path: str, text: str) -> str:
        override = self._override_of(path)
        if override is not None:
            return redact_arguments([show(override.input_line)])[0]
        for name, content in reversed(self._files):
            if has_key(content, path):
                return f"{text}, in {name}"
        return text


def _has_value(cfg: DictConfig, key: str) -> bool:
    """Whether a key exists, and holds more than null below `hydra`, where null is a place for a mapping."""
    return has_key(cfg, key) and not (key.startswith(f"{HYDRA}.") and OmegaConf.select(cfg, key) is None)


def list_paths(node: Any, prefix: str) -> list[str]:
    """Dotted paths of all keys below a node of plain data."""
    paths = []
    if isinstance(node, dict):
        for key, child in node.items():
            paths += [f"{prefix}.{key}", *list_paths(child, f"{prefix}.{key}")]
    return paths


def find_foreign_targets(cfg: DictConfig, config: Config) -> Iterator[Problem]:
    """Objects that Hydra itself would build (launcher, sweeper, callbacks, log handlers) from foreign modules.

    What an installed plug-in of Hydra names in its own configs is not foreign: it runs anyway.
    """
    stated: Any = config.trusted_modules  # ??? where it has a problem
    trusted = stated if isinstance(stated, list) else []
    known = (*HYDRA_PREFIXES, *trusted)
    for path, target in list_targets(OmegaConf.to_container(cfg[HYDRA]), HYDRA):
        if not lies_under(target, known) and target not in list_plugin_targets():
            action = "use Hydra's own classes, or add the module prefix to trusted_modules"
            yield Problem("may not be imported from a configuration", path, target, action)


def list_targets(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Path and value of each key of plain data that names what is to be imported."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(child, (dict, list)):
            yield from list_targets(child, f"{path}.{key}")
        elif key in (TARGET, "()", "class"):
            yield f"{path}.{key}", str(child)


@functools.cache
def list_plugin_targets() -> frozenset[str]:
    """What the configs that installed plug-ins registered name as their classes."""
    targets: set[str] = set()
    nodes: list[Any] = [ConfigStore.instance().repo.get(HYDRA, {})]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            nodes += node.values()
        else:
            targets.update(target for _, target in list_targets(OmegaConf.to_container(node.node), ""))
    return frozenset(targets)
