"""What an experiment stated before it ran, and what its runs say of it.

    read_protocol(run)    what a run's own config.yaml states
    judge(runs)           the verdict on every claim

    runs --stated--> Experiment --prepare--> Question --estimators--> Obtained --verdicts--> ClaimResult

A quantity is a number of a run (`quantities.py`), an arm some runs (`prepare.py`), an estimator a function of arms with
an interval (`estimators/`, over `regression.py` and `minima.py`). Imports no framework.
"""

from llama_exp.protocol.obtained import Drawing, Obtained, Series
from llama_exp.protocol.stated import Experiment, read_protocol
from llama_exp.protocol.verdicts import ClaimResult, Verdict, judge

__all__ = ["ClaimResult", "Drawing", "Experiment", "Obtained", "Series", "Verdict", "judge", "read_protocol"]
