"""`llama-exp plan`: the size of what `llama-exp train` would do with the same command line."""

from __future__ import annotations

from rich.console import Console

from llama_exp.config.check import check_arguments
from llama_exp.console.data_line import data_line
from llama_exp.errors import ConfigError, Problem
from llama_exp.run import data_use, plan

HELP = """usage: llama-exp plan [<part>=<choice> | <key>=<value> ...]

Prints parameters, tokens, arithmetic and memory of what `llama-exp train` would do with the same
command line, without doing it; and how much of the data it would use, once they were prepared.
`llama-exp train --help` lists parts, choices and values.

examples:
  llama-exp plan model=llama2_7b lora.rank=8
  llama-exp plan model=llama3_2_1b precision=bfloat16 trainer.remat=block"""

NOT_PREPARED = "not prepared yet; once `llama-exp train` has read them, this says how many of their tokens are used"


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
    use = data_use.recall(config)
    plan.show(planned, Console(), NOT_PREPARED if use is None else data_line(use))
    return 0
