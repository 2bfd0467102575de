"""`llama-exp plan`: the size of what `llama-exp train` would do with the same command line."""

from __future__ import annotations

from rich.console import Console

from llama_exp.config.check import check_arguments
from llama_exp.errors import ConfigError, Problem
from llama_exp.run import plan

HELP = """usage: llama-exp plan [<part>=<choice> | <key>=<value> ...]

Prints parameters, tokens, arithmetic and memory of what `llama-exp train` would do with the same
command line, without doing it. `llama-exp train --help` lists parts, choices and values.

examples:
  llama-exp plan model=llama2_7b lora.rank=8
  llama-exp plan model=llama3_2_1b precision=bfloat16 trainer.remat=block"""


def main(arguments: list[str]) -> int:
    """Prints the plan of a sound command line; returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    config = check_arguments(arguments).config
    if config is None:  # one of Hydra's own options
        what, action = "this shows nothing of a plan", "leave it out, or give it to llama-exp train"
        raise ConfigError(Problem(what, "llama-exp plan", " ".join(arguments), action))
    planned = plan.make_plan(config)
    if planned is None:
        what = "only building it shows its size: the model or data set is a class of yours"
        raise ConfigError(Problem(what, "llama-exp plan", "a _target_ outside of llama_exp", "run llama-exp train"))
    plan.show(planned, Console())
    return 0
