"""Why a key has its value: who set it, what that overrode, and what it was filled in from."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llama_exp.config.check import budget_steps
from llama_exp.config.check.resolve import HYDRA, Resolved
from llama_exp.config.check.typed import MISSING
from llama_exp.config.explain.settings import DELETED, Place, Setting, flatten_paths
from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config
from llama_exp.errors import LlamaExpError
from llama_exp.files.latest import without_latest

Path = tuple[str, ...]
STORED = "quantization"
STORED_FROM = ((STORED, "mode"), ("preset", "source"))
STORED_NOTE = "as the preset stores its weights; without one in floating point"
_REFERENCE = re.compile(r"\$\{(\.*[\w.\-/]+)\}")
_VARIABLE = re.compile(r"\$\{oc\.env:\s*([\w]+)")


class Absent:
    """The value of a key that a point of a sweep does not have."""


ABSENT = Absent()


@dataclass(frozen=True)
class Explanation:
    """Why one key has its value.

    key: dotted. value: what the run gets, plain data, or `ABSENT`. settings: all that set it, newest first: the first
    is in effect, the others it overrode; empty: the program itself. reads: the keys that an interpolation, or a rule,
    takes it from. note: how the value comes from what was written, in words, and on a line of its own the formula of a
    value that is computed; None: it is what was written.
    """

    key: str
    value: Any
    settings: tuple[Setting, ...]
    reads: tuple[Explanation, ...] = ()
    note: str | None = None


class Explainer:
    """Explains the keys of one composed config.

    Args:
        cfg: as composed, with the node `hydra`.
        config: typed; None: only what was composed is known.
        settings: of `replay`, for the same job, oldest first.
    """

    def __init__(self, cfg: DictConfig, config: Config | None, settings: Sequence[Setting]):
        self.cfg, self.settings = cfg, settings
        self._raw: dict[Path, Any] = dict(flatten_paths(OmegaConf.to_container(cfg, resolve=False)))
        resolved = dict(flatten_paths(Resolved(cfg).data))
        typed = {} if config is None else dict(flatten_paths(to_dict(config)))
        # Where a value has a problem, the typed config has none.
        self._values = resolved | {path: value for path, value in typed.items() if _is_known(value)}
        self._resolved = resolved

    @property
    def values(self) -> dict[str, Any]:
        """What the run gets, by dotted key."""
        return {".".join(path): value for path, value in self._values.items()}

    def list_keys(self) -> list[str]:
        """Every key of the configuration, dotted, in its order."""
        return [".".join(path) for path in self._values]

    def list_hydra_keys(self) -> list[str]:
        """Every key of Hydra's own node."""
        return [".".join(path) for path in self._raw if path[0] == HYDRA]

    def find_keys(self, name: str) -> list[str]:
        """The keys that a name means; [] where there is none.

        They are itself, or all below it, or all that its files set (`experiment`), or itself as an item of a list.
        """
        keys = [".".join(path) for path in (*self._values, *(path for path in self._raw if path[0] == HYDRA))]
        named = [key for key in keys if key == name or key.startswith(f"{name}.")]
        if named:
            return named
        paths = {setting.path for setting in self.settings if (setting.place.config or "").startswith(f"{name}/")}
        of_files = [key for key in keys if self._path_of(key) in paths]
        return of_files or [name for key in keys if name.startswith(f"{key}.") and self._has_item(key, name)]

    def find_deletion(self, name: str) -> Place | None:
        """Who took a key out; None: nobody."""
        path = tuple(name.split("."))
        deleted = [setting for setting in self.settings if setting.value is DELETED and setting.decides(path)]
        return deleted[-1].place if deleted else None

    def explain(self, key: str) -> Explanation:
        """The explanation of a key that `find_keys` gave, here or at another point of a sweep."""
        path = self._path_of(key)
        is_here = path in self._values or path in self._raw or bool(self.find_keys(key))
        return self._explain(path, ()) if is_here else Explanation(key, ABSENT, ())

    def _explain(self, path: Path, readers: tuple[Path, ...]) -> Explanation:
        key, value = ".".join(path), self._value_of(path)
        chain = _in_effect([setting for setting in self.settings if setting.decides(path)], path)[::-1]
        raw = chain[0].value if chain else self._raw.get(path)
        read, note = self._find_sources(path, raw, chain)
        reads = tuple(
            self._explain(source, (*readers, path)) for source in read if source not in readers and source != path
        )
        return Explanation(key, value, tuple(chain), reads, note)

    def _find_sources(self, path: Path, raw: Any, chain: Sequence[Setting]) -> tuple[list[Path], str | None]:
        """The paths that a value is taken from, and how."""
        value, resolved = self._value_of(path), self._resolved.get(path)
        if path[0] == STORED and path in self._resolved and resolved != value:
            return [source for source in STORED_FROM if source != path], STORED_NOTE
        text = str(raw).replace("\\${", "")
        if isinstance(raw, str | list) and "${" in text:
            below = path[len(chain[0].path) :] if chain else ()
            named = [self._follow(reference, path) for reference in _REFERENCE.findall(text)]
            sources = dict.fromkeys(source for name in named for source in self._list_below((*name, *below)))
            return [*sources, *self._list_budget_keys(text)], self._say_filled_in(text)
        if isinstance(raw, str) and raw != value and without_latest(raw) == value:
            return [], f"{raw} leads there today"
        return [], None

    def _list_budget_keys(self, text: str) -> list[Path]:
        """What a function that is told none of its operands reads."""
        keys = budget_steps.list_reads(self.cfg, briefly=True) if budget_steps.CALL in text else ()
        return [tuple(key.split(".")) for key in keys]

    def _say_filled_in(self, text: str) -> str:
        """An interpolation in words, with its formula and what it takes from outside of the configuration."""
        variables = [f"{name} is {'set' if name in os.environ else 'not set'}" for name in _VARIABLE.findall(text)]
        told = "; ".join([f"filled in: {text}", *(f"in the environment {variable}" for variable in variables)])
        return "\n".join([told, *self._formulas(text)])

    def _formulas(self, text: str) -> list[str]:
        if budget_steps.CALL not in text:
            return []
        try:
            budget = budget_steps.read_budget(self.cfg)
        except (LlamaExpError, OmegaConfBaseException, ValueError, TypeError, ArithmeticError):
            return []  # the line's problems tell it
        return ["there is no budget" if budget is None else budget.formula()]

    def _list_below(self, path: Path) -> list[Path]:
        """The path, or all keys below it where it is a section."""
        if path in self._values or path in self._raw:
            return [path]
        return [other for other in self._values if other[: len(path)] == path] or [path]

    @staticmethod
    def _follow(reference: str, path: Path) -> Path:
        """The path that an interpolation means; leading dots go up from the key that holds it."""
        name = reference.lstrip(".")
        up = len(reference) - len(name)
        above = path[: len(path) - up] if up else ()
        return (*above, *name.split("."))

    def _value_of(self, path: Path) -> Any:
        if path in self._values:
            return self._values[path]
        if path[0] == HYDRA and path in self._raw:
            return self._fill_in(path)
        for length in range(len(path) - 1, 0, -1):  # an item of a list
            if isinstance(items := self._values.get(path[:length]), list):
                return items[int(path[length])]
        return {
            ".".join(other[len(path) :]): value for other, value in self._values.items() if other[: len(path)] == path
        }

    def _fill_in(self, path: Path) -> Any:
        """A value of Hydra's own node; what only a run knows stays as it is written."""
        raw = self._raw[path]
        parent = OmegaConf.select(self.cfg, ".".join(path[:-1]))
        try:
            value = parent[path[-1]] if isinstance(parent, DictConfig) else raw
        except (OmegaConfBaseException, ValueError, TypeError, RecursionError):
            return raw
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

    def _has_item(self, key: str, name: str) -> bool:
        """Whether `name` is an item of the list at `key`."""
        items, rest = self._values.get(self._path_of(key)), name[len(key) + 1 :]
        return isinstance(items, list) and rest.isdigit() and int(rest) < len(items)

    def _path_of(self, key: str) -> Path:
        """The path that a dotted key means: names of a sweep's parameters hold dots themselves."""
        for path in (*self._values, *self._raw):
            if ".".join(path) == key:
                return path
        return tuple(key.split("."))


def _in_effect(chain: list[Setting], path: Path) -> list[Setting]:
    """What was set since a key was deleted and added anew, without a file's `???`, which replaces no value."""
    deleted = (n for n, s in enumerate(chain) if s.value is DELETED and len(s.path) <= len(path))
    chain = chain[max(deleted, default=-1) + 1 :]
    return [s for n, s in enumerate(chain) if n == 0 or s.place.config is None or s.value != MISSING]


def _is_known(value: Any) -> bool:
    return not (isinstance(value, str) and value == MISSING)
