"""What an experiment claimed before it ran, beside what its runs show.

    obtained.py    what an estimator is asked and answers
    estimators/    the estimators, by name

Imports no framework.
"""
