"""What differs between two runs as far as their records say, and what of it can change a result.

    science     what is computed: data, weights, code, configuration. Results may differ by any amount
    rounding    how sums are split and rounded: threads, processor, versions. Results differ as rounding makes them
    nothing     where it lies, how it is watched

Imports no framework.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llama_exp.config.identity import NOT_SCIENCE, RECIPE, flatten
from llama_exp.results.state import State

ABSENT = "(absent)"
# Packages whose kernels or compilers compute what a run computes. What others read or write has fingerprints.
COMPUTING = frozenset({"jax", "jaxlib", "keras", "llvmlite", "ml-dtypes", "numba", "numpy", "tensorflow"})
_ACCELERATORS = re.compile(r"tensorflow-\w+|intel-tensorflow|jax-.*|nvidia-.*|libtpu")
# Keys that say where something lies on a machine; what lies there has a fingerprint.
_PLACES = re.compile(r"(dataset\.(files|data_dir)|tokenizer\.file|preset\.(source|offline)|lora\.source)(\..*)?")
_COMPUTING_VARIABLES = re.compile(r"(TF_|XLA_|JAX_|ONEDNN_|DNNL_|NUMBA_|MKL_|OPENBLAS_|NVIDIA_TF32_).*")
# Set by runtime.threads and runtime.cache_dir, or about files and messages.
_OTHER_VARIABLES = re.compile(r"(TF|NUMBA|MKL|OPENBLAS)_NUM_\w+|TF_CPP_\w+|\w+_(FILE|DIR|PATH|SECS|BYTES)")
# Rooms of the package that show, send or compare what others have computed.
_ONLY_TOLD = frozenset({"cli.py", "__main__.py", "commands", "console", "logger", "notebook", "report", "reproduction"})
_ONLY_TOLD |= {"results", "sweeps", "verification"}
# Last part of a name in run.json that says where something lies.
_PLACES_OF_RECORD = frozenset({"path", "source", "origin"})


class Effect(enum.IntEnum):
    """What a difference can change, from the least to the most."""

    nothing = 0
    rounding = 1
    science = 2


@dataclass(frozen=True)
class Difference:
    """One value that is not the same in two runs.

    part: config, algorithms, code, versions, machine, runtime, data, tokenizer or preset. name: of the value. before,
    after: as they were recorded; `ABSENT` where one run has none. effect: what it can change.
    """

    part: str
    name: str
    before: Any
    after: Any
    effect: Effect

    def __str__(self) -> str:
        return f"{self.part}: {self.name}"


def find_differences(before: State, after: State) -> list[Difference]:
    """Everything that differs; hosts, times and run folders do not count."""
    return [*find_static(before, after), *find_loaded(before.record, after.record)]


def find_static(before: State, after: State) -> list[Difference]:
    """What can be told before anything is loaded: configuration, code, versions, machine."""
    found = _compare("config", before.values, after.values, _effect_of_key)
    found = [_as_algorithm(entry) if entry.name.startswith(f"{RECIPE}.") else entry for entry in found]
    found += _find_in_code(before, after)
    found += _compare("versions", _versions(before.record), _versions(after.record), _effect_of_package)
    return found + _find_in_machine(before.record, after.record)


def find_loaded(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """What run.json says once data are read and the model is built; runs that did not get there have none of it."""
    found: list[Difference] = []
    sections = [("data", "dataset"), ("tokenizer", "tokenizer"), ("preset", "preset"), ("preset", "lora")]
    for part, name in [*sections, ("preset", "quantization"), ("preset", "base_digest"), ("code", "own_modules")]:
        if name in before and name in after:
            one, other = flatten({name: before[name]}), flatten({name: after[name]})
            found += _compare(part, one, other, _effect_of_fact)
    names = [name for name in ("backend", "device", "threads", "jit") if name in before and name in after]
    one, other = ({name: record[name] for name in names} for record in (before, after))
    return found + _compare("runtime", one, other, lambda _: Effect.rounding)


def find_effect(differences: Iterable[Difference]) -> Effect:
    """The most that any of them can change."""
    return max((entry.effect for entry in differences), default=Effect.nothing)


def _compare(
    part: str, before: Mapping[str, Any], after: Mapping[str, Any], effect: Callable[[str], Effect]
) -> list[Difference]:
    names = sorted(before.keys() | after.keys())
    pairs = ((name, before.get(name, ABSENT), after.get(name, ABSENT)) for name in names)
    # An empty section is one without keys.
    told = ((name, one, other) for name, one, other in pairs if one != other and {} not in (one, other))
    return [Difference(part, name, one, other, effect(name)) for name, one, other in told]


def _as_algorithm(entry: Difference) -> Difference:
    """A number of an algorithm that is no key: another release has it."""
    return Difference("algorithms", entry.name, entry.before, entry.after, Effect.science)


def _effect_of_key(name: str) -> Effect:
    """Of `runtime`, which is no science, run.json says what it came to: backend, device, threads, jit."""
    is_other = _PLACES.fullmatch(name) is not None or name.partition(".")[0] in NOT_SCIENCE
    return Effect.nothing if is_other else Effect.science


def _effect_of_fact(name: str) -> Effect:
    return Effect.nothing if name.rpartition(".")[2] in _PLACES_OF_RECORD else Effect.science


def _effect_of_package(name: str) -> Effect:
    is_computing = name in COMPUTING or _ACCELERATORS.fullmatch(name) is not None
    return Effect.rounding if is_computing else Effect.nothing


def _find_in_code(before: State, after: State) -> list[Difference]:
    """Files of the package where both know them; else what git says of the whole repository."""
    if before.sources and after.sources:
        files = _compare("code", before.sources, after.sources, _effect_of_file)
        effect = Effect.nothing  # the repository also holds tests and pages
    else:
        files, effect = [], Effect.science
    one, other = ({"commit": _section(state.record, "git").get("commit")} for state in (before, after))
    one["uncommitted changes"], other["uncommitted changes"] = before.patch, after.patch
    return files + _compare("code", one, other, lambda _: effect)


def _effect_of_file(name: str) -> Effect:
    return Effect.nothing if name.partition("/")[0] in _ONLY_TOLD else Effect.science


def _versions(record: Mapping[str, Any]) -> dict[str, Any]:
    """Python and packages by their plain names; llama_exp itself is code."""
    installed = {name: version for name, version in _section(record, "packages").items() if version}
    packages = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in installed.items()}
    packages.pop("llama-exp", None)
    return {"python": record.get("python"), **packages}


def _find_in_machine(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    names = ("cpu", "instructions", "cores", "memory_bytes", "platform")
    effects = dict.fromkeys(("cpu", "instructions"), Effect.rounding)
    one, other = ({name: record[name] for name in names if name in record} for record in (before, after))
    if "instructions" not in one or "instructions" not in other:  # a record of before they were recorded
        one.pop("instructions", None), other.pop("instructions", None)
    found = _compare("machine", one, other, lambda name: effects.get(name, Effect.nothing))
    one, other = (_variables(record) for record in (before, after))
    return found + _compare("machine", one, other, lambda _: Effect.rounding)


def _variables(record: Mapping[str, Any]) -> dict[str, Any]:
    """Environment variables that choose kernels."""
    return {
        name: value
        for name, value in _section(record, "environment").items()
        if _COMPUTING_VARIABLES.fullmatch(name) and not _OTHER_VARIABLES.fullmatch(name)
    }


def _section(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = record.get(name)
    return section if isinstance(section, Mapping) else {}
