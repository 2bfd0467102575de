"""A search: which point of a space is tried next, which trial is stopped early, and what came of it all.

    space       an axis of Hydra's grammar as a distribution of Optuna's, and a sampled value as an override
    samplers    one for each trial, from a seed of its own
    study       the trials, asked for and told, in `study.journal` of the sweep's folder
    pruning     validation rows of running trials, and whether one goes on
    trials      the jobs of the trials, and what their outcomes mean
    search      the loop over the pool
    results     tables, plots, the best point

The rest of `sweeps` knows nothing of it. Optuna is imported here only.
"""
