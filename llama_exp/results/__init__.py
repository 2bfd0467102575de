"""What runs and sweeps have left on the disk, read back for those who compare: reports, differences, notebooks.

    load_run(folder)        one run
    load_runs(folders)      runs, all jobs of sweeps, and runs below other folders, in this order
    read_sweep(folder)      a sweep's jobs, with those that left no run
    find_figure(run, name)  a dotted path of its summary: validation.loss, evaluation.<name>.accuracy
    list_tidy_rows(runs)    one row a run, one column a fact

Everything is data here: nothing is built, imported or changed. Imports no framework.
"""

from llama_exp.results.run import RunResult, find_figure, holds_run, load_run
from llama_exp.results.runs import find_run_folders, load_runs
from llama_exp.results.sweep import Attempt, SweepPlace, SweepResult, read_sweep
from llama_exp.results.tidy import list_figure_paths, list_tidy_rows

__all__ = [
    "Attempt",
    "RunResult",
    "SweepPlace",
    "SweepResult",
    "find_figure",
    "find_run_folders",
    "holds_run",
    "list_figure_paths",
    "list_tidy_rows",
    "load_run",
    "load_runs",
    "read_sweep",
]
