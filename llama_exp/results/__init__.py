"""What runs and sweeps have left on the disk, read back for those who compare: reports, differences, notebooks.

    load_run(folder)        one run
    load_runs(folders)      runs, all jobs of sweeps, and runs below other folders, in this order
    find_figure(run, name)  a dotted path of its summary: validation.loss, evaluation.<name>.accuracy

Everything is data here: nothing is built, imported or changed. Imports no framework.
"""

from llama_exp.results.run import RunResult, find_figure, load_run
from llama_exp.results.runs import find_run_folders, load_runs
from llama_exp.results.sweep import Attempt, SweepPlace

__all__ = ["Attempt", "RunResult", "SweepPlace", "find_figure", "find_run_folders", "load_run", "load_runs"]
