"""What is evaluated beside the validation split, and when. See `llama_exp.config.schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING


@dataclass
class EvaluationConfig:
    """Named sets and tasks."""

    every_steps: int | None = MISSING  # optimizer steps between two, besides the last step; null: at the last one
    at_start: bool = MISSING  # evaluate before the first step too, what the run starts from
    sets: dict[str, Any] = MISSING  # name -> a data set, as in section `dataset`
    whole_sets: list[str] = MISSING  # names of sets that are read whole; of the others the validation split is
    tasks: dict[str, Any] = MISSING  # name -> node with a `_target_`
    batch_size: int | None = MISSING  # rows, choices or prompts at a time; null: trainer.batch_size
    limit: int | None = MISSING  # items of each task, the first ones; null: all
    check_overlap: bool = MISSING  # say which items of tasks stand in the training rows too


@dataclass
class TaskConfig:
    """What the tasks that read a file take."""

    _target_: str = MISSING
    file: str = MISSING  # JSON lines, one item a line
    prompt: str = MISSING  # text with the record's keys in braces
    separator: str = MISSING  # between a prompt and its answer
    examples_file: str | None = MISSING  # solved items that stand in front of each prompt; null: none
    num_examples: int = MISSING  # how many of them, the first ones


@dataclass
class MultipleChoiceConfig(TaskConfig):
    """One right answer among several."""

    choices: Any = MISSING  # key of a list of texts, or a list of texts with keys in braces
    answer: str = MISSING  # key of the right choice: its number, from 0, or its text


@dataclass
class GenerationConfig(TaskConfig):
    """Texts that the model writes."""

    targets: str = MISSING  # key of the right text, or of a list of them
    max_new_tokens: int = MISSING  # of each text, at most
    stop_texts: list[str] = MISSING  # a text ends before the first of them


@dataclass
class HarnessConfig:
    """Tasks of lm-evaluation-harness, its own ones or local ones."""

    _target_: str = MISSING
    tasks: list[str] = MISSING  # names of tasks, groups or tags, or paths of their YAML files
    include_path: str | None = MISSING  # folder of YAML files of more tasks; null: the harness' own alone
    num_fewshot: int | None = MISSING  # solved items in front of each; null: as each task says
    apply_chat_template: bool = MISSING  # write items as conversations, by the model's own template
    system_instruction: str | None = MISSING  # text in front of everything; null: as each task says
    max_length: int | None = MISSING  # tokens that the model reads at a time; null: as its files say, else 2048
    online: bool = MISSING  # download data that are not on this machine


@dataclass
class PythonChoicesConfig:
    """Questions about the standard library."""

    _target_: str = MISSING
    num_choices: int = MISSING  # the right answer among them
    validation_fraction: float = MISSING  # share of the objects that is asked about, as in the data set python_qa
