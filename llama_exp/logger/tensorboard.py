"""The run as TensorBoard's event files, below `tensorboard/` of the run folder; imports no TensorFlow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_exp.files.redact import printable, redact
from llama_exp.files.shown_path import show_path
from llama_exp.files.writing import make_folder
from llama_exp.logger.mirror import Mirror

FOLDER = "tensorboard"
# The first part is what TensorBoard looks for; by the last we know our own.
_NAME = "events.out.tfevents.{seconds}.{process}.llama_exp"


class TensorBoardLogger(Mirror):
    """Observer that writes scalars (`train/loss` ...) and samples (text) at TensorBoard step = optimizer step.

    A run that goes on writes all of it anew from its record, in place of the files of its earlier starts: TensorBoard
    would show the steps that are done again twice.
    """

    def __init__(self, *, folder: Path, name: str, group: str | None = None, config: Mapping[str, Any] | None = None):
        super().__init__("TensorBoard", folder, name, group, config)
        self._path = self._folder / FOLDER / _NAME.format(seconds=int(time.time()), process=os.getpid())
        self._zero: float | None = None  # the clock at the run's start

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Takes a sample."""
        if self.failure is not None:
            return
        with self._harmless("log"):
            self._begin()
            shown = redact(f"{prompt}{text.removeprefix(prompt)}")
            self._add(step, _text_value("samples", printable(shown)), time.time())

    @property
    def outcome(self) -> str:
        """What was written where."""
        return show_path(self._path.parent)

    def _open(self) -> None:
        make_folder(self._path.parent)
        for earlier in self._path.parent.glob(_NAME.format(seconds="*", process="*")):
            earlier.unlink()
        self._add(0, None, time.time())
        table = "\n".join(f"| `{key}` | {redact(printable(str(value)))} |" for key, value in self._config.items())
        self._add(0, _text_value("config", f"| key | value |\n|---|---|\n{table}"), time.time())

    def _write(self, step: int, values: dict[str, float], seconds: float) -> None:
        if self._zero is None:
            self._zero = time.time() - seconds
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=key, simple_value=value) for key, value in values.items()]
        self._add(step, Summary(value=scalars), self._zero + seconds)

    def _close(self, status: str) -> None:
        self._add(0, _text_value("status", status), time.time())

    def _add(self, step: int, summary: Any, clock: float) -> None:
        """Writes an event through to the operating system; without a summary the one that begins a file."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        content = {"file_version": "brain.Event:2"} if summary is None else {"summary": summary}
        with self._path.open("ab") as file:
            RecordWriter(file).write(Event(wall_time=clock, step=step, **content).SerializeToString())


def _text_value(tag: str, text: str) -> Any:
    """A summary of one text, as TensorBoard's text plugin reads it."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
    return Summary(value=[Summary.Value(tag=tag, metadata=plugin, tensor=tensor)])
