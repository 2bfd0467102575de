"""Reads W&B's transaction log (`*.wandb`) back, so that tests can compare it with `metrics.jsonl`.

The file is a 7-byte header and then LevelDB log records: blocks of 32 KiB, each record as one or more fragments of
`crc32 (4), length (2), type (1), data`, type 1 whole, 2 first, 3 middle, 4 last; the payloads are protobuf `Record`s.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 32768
_HEADER = struct.Struct("<4sHB")
_FRAGMENT = struct.Struct("<IHB")


@dataclass
class WandbRun:
    """What one `.wandb` file tells."""

    run_id: str = ""
    name: str = ""
    group: str = ""
    project: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[tuple[str, str]] = field(default_factory=list)  # name, type
    exit_code: int | None = None


def read(folder: Path) -> WandbRun:
    """The run in an `offline-run-*` or `run-*` folder, up to the last whole record."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    run = WandbRun()
    for payload in payloads(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.run_id, run.name = record.run.run_id, record.run.display_name
            run.group, run.project = record.run.run_group, record.run.project
            run.tags = list(record.run.tags)
            run.config |= _items(record.run.config.update)
        elif kind == "config":
            run.config |= _items(record.config.update)
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "summary":
            run.summary |= _items(record.summary.update)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            run.artifacts.append((record.request.log_artifact.artifact.name, record.request.log_artifact.artifact.type))
        elif kind == "artifact":
            run.artifacts.append((record.artifact.name, record.artifact.type))
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    run.config.pop("_wandb", None)
    return run


def payloads(data: bytes) -> Iterator[bytes]:
    """The records' bytes; ends at the first fragment that is cut short or damaged."""
    if _HEADER.unpack(data[: _HEADER.size])[:2] != (b":W&B", 0xBEE1):
        raise ValueError("not a W&B transaction log")
    position, record = _HEADER.size, b""
    while position + _FRAGMENT.size <= len(data):
        left_in_block = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left_in_block < _FRAGMENT.size:
            position += left_in_block
            continue
        checksum, length, kind = _FRAGMENT.unpack_from(data, position)
        fragment = data[position + _FRAGMENT.size : position + _FRAGMENT.size + length]
        if kind not in (1, 2, 3, 4) or len(fragment) < length or zlib.crc32(bytes([kind]) + fragment) != checksum:
            return
        position += _FRAGMENT.size + length
        record = fragment if kind in (1, 2) else record + fragment
        if kind in (1, 4):
            yield record


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
