"""What a person may want to type after a run: let the model write, or talk with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llama_exp.config.schema import Config
from llama_exp.files.shown_path import show_path
from llama_exp.limits.dataset import ChatTemplate

# What begins a turn in each of the templates.
_TURNS = {
    ChatTemplate.chatml: "<|im_start|>",
    ChatTemplate.llama2: "[INST]",
    ChatTemplate.llama3: "<|start_header_id|>",
}


def next_commands(config: Config, folder: Path, examples: Mapping, tokenizer) -> dict[str, str]:
    """Label -> command, for a finished run in `folder`; every one works as it stands."""
    if config.lora.rank > 0 and config.preset.source is None:
        return {}  # what the adapter belongs to is kept nowhere
    run = show_path(folder)
    if _is_conversation(config, examples["validation"], tokenizer):
        return {"chat": shlex.join(["llama-exp", "chat", run])}
    return {"generate": shlex.join(["llama-exp", "generate", run, "--prompt", _prompt(config)])}


def _is_conversation(config: Config, examples, tokenizer) -> bool:
    """Whether the data is conversations, and not text, of which the same section can read."""
    template = getattr(config.dataset, "chat_template", None)
    if template is ChatTemplate.model:  # which nobody chooses for text
        return True
    if template not in _TURNS:
        return False
    row = examples.batch(np.arange(1))
    text = tokenizer.decode(row["token_ids"][0].tolist(), skip_special_tokens=False)
    return _TURNS[template] in text


def _prompt(config: Config) -> str:
    """The first stated prompt if it is a line, or a word that begins most texts."""
    stated = (config.trainer.sample_prompts or ["The"])[0]
    return "The" if "\n" in stated else stated
