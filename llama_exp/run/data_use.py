"""How much of its data a run uses; and the same for a plan, remembered from the last time the data were prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config
from llama_exp.dataset import files
from llama_exp.dataset.cache import content_key
from llama_exp.files.json_file import read_record
from llama_exp.files.writing import make_folder, write_json


def measure(config: Config, train: Any) -> dict[str, float]:
    """What a run trains on; remembered for `recall`.

    Args:
        config: of the run.
        train: the `Examples` of the training split.

    Returns:
        rows; tokens and target_tokens in them; source_tokens and source_target_tokens of all documents; epochs: how
        often the run's steps see each row.
    """
    names = ("rows", "tokens", "target_tokens", "source_tokens", "source_target_tokens")
    counts = {name: train.facts[name] for name in names}
    place = _place(config)
    make_folder(place.parent)
    write_json(place, counts)
    return _with_epochs(config, counts)


def recall(config: Config) -> dict[str, float] | None:
    """What `measure` said of the same data, tokenizer and rows; None: they were not prepared here, or files changed.

    Raises:
        InputError: a file of the data set is missing, or no text.
    """
    counts = read_record(_place(config))
    return None if counts is None else _with_epochs(config, counts)


def _with_epochs(config: Config, counts: dict[str, Any]) -> dict[str, float]:
    rows_per_step = config.trainer.batch_size * config.trainer.accumulation_steps
    return counts | {"epochs": round(config.trainer.max_steps * rows_per_step / counts["rows"], 4)}


def _place(config: Config) -> Path:
    """The file of these data, tokenizer and rows; data files count by size and time, which is quick."""
    dataset = to_dict(config.dataset)
    patterns = dataset["files"] if isinstance(dataset.get("files"), list) else []
    found = [(str(path.absolute()), path.stat()) for path in files.resolve(patterns)]
    key = content_key(
        dataset=dataset,
        files=[(name, stat.st_size, stat.st_mtime_ns) for name, stat in found],
        tokenizer=to_dict(config.tokenizer),
        preset=config.preset.source,
        loss_on=config.objective.loss_on.value,
    )
    return Path(config.runtime.cache_dir).expanduser() / "data_use" / f"{key[:32]}.json"
