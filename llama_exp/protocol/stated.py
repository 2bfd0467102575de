"""The protocol that a run's own config.yaml states."""

from __future__ import annotations

from llama_exp.config.check.typed import Typing
from llama_exp.config.schema.protocol import ProtocolConfig
from llama_exp.errors import InputError
from llama_exp.results import RunResult

SECTION = "protocol"


def read_protocol(run: RunResult) -> ProtocolConfig | None:
    """What the experiment stated when the run began; None: the run belongs to none.

    Raises:
        InputError: the section is damaged.
    """
    data = run.config.get(SECTION)
    if not isinstance(data, dict) or data.get("title") is None:
        return None
    typing = Typing()
    protocol = typing.section(SECTION, data, [])
    if typing.problems:
        first = typing.problems[0]
        action = "take the file from the run's archive, or leave the run out"
        raise InputError.about(run.folder / "config.yaml", f"{first.where} {first.what}", first.found, action)
    return protocol
