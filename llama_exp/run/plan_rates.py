"""How fast runs were on this machine, remembered in `runtime.cache_dir`, and what that says of another run's time.

A run leaves one file per setting of what its speed depends on; the next run of the same setting replaces it. A plan
takes the record that differs in the fewest of these, of the same processor or GPU and the same backend, and scales it
by arithmetic per token. Imports no framework.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp import runtime
from llama_exp.architecture import SIZES
from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config
from llama_exp.errors import StorageError
from llama_exp.files.json_file import read_record
from llama_exp.files.writing import make_folder, write_json
from llama_exp.run.machine import cpu_name
from llama_exp.run.plan import Plan

FOLDER = "rates"
MOST_RECORDS = 500  # that a plan reads, newest first
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """How long a run's steps take.

    tokens_per_second: expected. seconds: of all steps. measured: day of the measurement. differing: what was another
    value then: none if the rate was measured with the same setting. scale: arithmetic per token then, as a multiple of
    the run's.
    """

    tokens_per_second: float
    seconds: float
    measured: str
    differing: tuple[str, ...]
    scale: float


def remember(config: Config, plan: Plan | None, summary: Mapping[str, Any], device: str) -> None:
    """Records the rate of a run that is done.

    Args:
        config: of the run.
        plan: of it; None: nobody knows its arithmetic, and nothing is recorded.
        summary: with `tokens_per_second` of its steps alone, unless it was too short to tell.
        device: that it ran on, as `run.json` names it.
    """
    tokens_per_second = summary.get("tokens_per_second")
    if plan is None or not tokens_per_second:
        return
    setting = _setting(config) | {"processor": device}
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = {
        "setting": setting,
        "work_per_token": plan.work_per_token,
        "tokens_per_second": tokens_per_second,
        "measured": day,
    }
    folder = _folder(config)
    digest = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()
    try:
        make_folder(folder)
        write_json(folder / f"{digest[:32]}.json", record)
    except StorageError as error:  # the run is done, and whole without it
        _log.info("the rate is not remembered: %s", str(error).replace("\n", " "))


def estimate(config: Config, plan: Plan, devices: tuple[str, ...] = ()) -> Estimate | None:
    """The time of a run by the nearest measured one; None: nothing was measured here.

    Args:
        config: of the run.
        plan: of it.
        devices: names of accelerators that it may run on, beside this processor.
    """
    setting = _setting(config)
    found: list[tuple[tuple[str, ...], Mapping[str, Any]]] = []
    for record in _read_records(_folder(config)):
        then = record["setting"]
        if then.get("backend") == setting["backend"] and then.get("processor") in (*devices, cpu_name()):
            differing = tuple(key for key, value in setting.items() if then.get(key) != value)
            found.append((differing, record))
    if not found:
        return None
    differing, record = min(found, key=lambda entry: len(entry[0]))
    scale = record["work_per_token"] / plan.work_per_token
    rate = record["tokens_per_second"] * scale
    return Estimate(rate, plan.total_tokens / rate, str(record["measured"]), differing, scale)


def _folder(config: Config) -> Path:
    return Path(config.runtime.cache_dir).expanduser() / FOLDER


def _setting(config: Config) -> dict[str, Any]:
    """What the speed of a run depends on, by name."""
    model, lora, trainer = to_dict(config.model), to_dict(config.lora), config.trainer
    return {
        "backend": config.runtime.backend.value,
        "threads": runtime.thread_count(config.runtime.threads),
        "jit": config.runtime.jit.value,
        "precision": config.precision.policy.value,
        "quantization": config.quantization.mode,
        "model": [model.get(key) for key in SIZES],
        "lora.rank": lora["rank"],
        "lora.targets": lora["targets"] if lora["rank"] else [],
        "dataset.sequence_length": to_dict(config.dataset).get("sequence_length"),
        "trainer.batch_size": trainer.batch_size,
        "trainer.accumulation_steps": trainer.accumulation_steps,
        "trainer.remat": trainer.remat.value,
        "objective.chunk_tokens": config.objective.chunk_tokens,
    }


def _read_records(folder: Path) -> list[Mapping[str, Any]]:
    """The records that can be read; a damaged one is as good as none."""
    paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    records = (read_record(path) for path in paths[:MOST_RECORDS])
    return [record for record in records if record is not None and _is_whole(record)]


def _is_whole(record: Mapping[str, Any]) -> bool:
    numbers = [record.get(key) for key in ("work_per_token", "tokens_per_second")]
    return isinstance(record.get("setting"), dict) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < float("inf")
        for number in numbers
    )
