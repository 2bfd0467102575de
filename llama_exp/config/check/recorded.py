"""A recorded config as the config of a run that repeats it: all of it as it was, but where and how fast.

`train --from` takes a saved config as if it had been typed; here it is a record, possibly of somebody else:

    keys that this version has and the record lacks     get the defaults of conf/; the caller tells which
    other numbers of algorithms (`recipe`)              no mistake: the caller names them as a difference
    trusted_modules                                     count only where the user names them again
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from llama_exp.config.check import saved
from llama_exp.config.check.composition import Composer
from llama_exp.config.check.job import JobCheck
from llama_exp.config.check.typed import TARGET
from llama_exp.config.conf_folder import CONF
from llama_exp.config.schema import Config
from llama_exp.errors import ConfigError, Problem

RUNTIME = "runtime."
# What a repetition decides for itself: it is no run of anybody's project, and goes on only where it is told to.
_ITS_OWN: dict[str, Any] = {"logger": {}, "resume": "none", "branch_from": None}


def check_recorded(
    path: Path,
    overrides: Sequence[str],
    trusted_modules: Sequence[str],
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> Config:
    """The typed config of a recorded one.

    Args:
        path: config.yaml, or the folder that holds it.
        overrides: of keys below `runtime` only.
        trusted_modules: import prefixes that the user trusts; the record's own must be among them.
        change: gives the values with those of this machine in place of recorded paths.

    Raises:
        ConfigError: with every mistake.
    """
    file, values = saved.read(path)
    _require_trust(file, values, trusted_modules)
    source = saved.keep(file, change({**values, **_ITS_OWN}), _filled)
    composer = Composer(CONF, saved.NAME, None, source.file)
    parsed, problems = composer.parse(overrides)
    problems += [_no_runtime(line) for line in overrides if not line.lstrip("+~").startswith(RUNTIME)]
    problems += [_several(override.key_or_group) for override in parsed if override.is_sweep_override()]
    if problems:
        raise ConfigError(*problems)
    job = JobCheck(composer, parsed).run()
    if job.problems or job.config is None:
        raise ConfigError(*job.problems)
    return job.config


def _require_trust(file: Path, values: Mapping[str, Any], trusted_modules: Sequence[str]) -> None:
    """Classes of a record are code of somebody's: whoever repeats it says whose they run."""
    recorded = values.get("trusted_modules") or []
    lacking = [module for module in recorded if module not in trusted_modules] if isinstance(recorded, list) else []
    if lacking:
        what = "the recorded run imports classes of its own, which this command runs only if it is told so"
        action = "if you trust their code, add " + " ".join(f"--trust {module}" for module in lacking)
        raise ConfigError(Problem(what, f"trusted_modules, in {file}", ", ".join(map(str, lacking)), action))


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with defaults for what only this version has; a section of another class stays as it is."""
    defaults: Any = OmegaConf.to_container(Composer(CONF, "config").compose([]), resolve=False)
    filled = {key: value for key, value in defaults.items() if key != "hydra"} | dict(values)
    for section, stated in values.items():
        default = defaults.get(section)
        if isinstance(stated, dict) and isinstance(default, dict) and stated.get(TARGET) == default.get(TARGET):
            filled[section] = {**default, **stated}
    return filled


def _no_runtime(line: str) -> Problem:
    key = line.lstrip("+~").partition("=")[0]
    action = "leave it out; for a run with other values: llama-exp train --from <run> <key>=<value>"
    return Problem("would make another run of it; only `runtime` may be another here", key, line, action)


def _several(key: str) -> Problem:
    return Problem("has several values, but this is a single run", key, "a sweep", "give one value")
