"""`llama-exp plan`: the size of what `llama-exp train` would do, whether it fits, what would make it fit, how long."""

from __future__ import annotations

from rich.console import Console

from llama_exp.config.check import check_arguments
from llama_exp.config.schema import Config
from llama_exp.console.data_line import data_line
from llama_exp.errors import ConfigError, Problem
from llama_exp.run import data_use, plan, plan_advice
from llama_exp.run.plan_machine import Room, find_rooms, read_size

HELP = """usage: llama-exp plan [--memory SIZE] [<part>=<choice> | <key>=<value> ...]

Prints parameters, tokens, arithmetic and memory of what `llama-exp train` would do with the same command line, without
doing it; whether it fits this machine, and if not which single change would make it fit and what that costs; how long
it takes, once a run on this machine was measured; and how much of the data it would use, once they were prepared.
`llama-exp train --help` lists parts, choices and values.

  --memory SIZE   of another machine, in place of this one's: 24GB, 16GiB

examples:
  llama-exp plan model=llama2_7b lora.rank=8
  llama-exp plan model=llama3_2_1b precision=bfloat16 trainer.remat=block
  llama-exp plan --memory 24GB model=llama2_7b lora.rank=8"""

NOT_PREPARED = "not prepared yet; once `llama-exp train` has read them, this says how many of their tokens are used"
MEMORY = "--memory"


def main(arguments: list[str]) -> int:
    """Prints the plan of a sound command line; returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    size, rest = _take_memory(arguments)
    config = check_arguments(rest).config
    if config is None:  # one of Hydra's own options
        what, action = "this shows nothing of a plan", "leave it out, or give it to llama-exp train"
        raise ConfigError(Problem(what, "llama-exp plan", " ".join(rest), action))
    planned = plan.make_plan(config)
    if planned is None:
        what = "only building it shows its size: the model or data set is a class of yours"
        raise ConfigError(Problem(what, "llama-exp plan", "a _target_ outside of llama_exp", "run llama-exp train"))
    use = data_use.recall(config)
    rooms = find_rooms() if size is None else [Room(f"{MEMORY} {size}", read_size(size), read_size(size))]
    data = NOT_PREPARED if use is None else data_line(use)
    plan.show(planned, Console(), _list_answers(config, planned, rooms, data))
    for line in plan_advice.list_change_lines(config, planned, rooms):
        print(line)
    return 0


def _list_answers(config: Config, planned: plan.Plan, rooms: list[Room], data: str) -> list[tuple[str, str]]:
    return [
        *(("fits", plan_advice.say_fit(planned, room)) for room in rooms),
        ("time", plan_advice.say_time(config, planned, rooms)),
        ("data", data),
    ]


def _take_memory(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The value of `--memory`, and the other words."""
    size, rest = None, list[str]()
    words = iter(arguments)
    for word in words:
        name, is_joined, value = word.partition("=")
        if name == MEMORY:
            size = value if is_joined else next(words, "")
        else:
            rest.append(word)
    if size is not None:
        try:
            read_size(size)
        except ValueError as error:
            action = "give a size such as 24GB or 16GiB"
            raise ConfigError(Problem("is no size of memory", MEMORY, size or "nothing", action)) from error
    return size, rest
