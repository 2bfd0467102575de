"""Sweeps that survive: one process per job, a manifest of what was asked for and what came of it, searches.

    jobs       what a job is and how it can end; the words that all other modules use
    app        what a launcher may ask the application whose jobs it runs
    manifest   the sweep's folder: its frozen points, and a journal of what happened to each
    pool       runs jobs in processes of their own, several at a time; `server` forks them
    table      shows them while they run; `ending` says what came of them

Nothing here knows what a job computes; what Hydra calls lies in `hydra_plugins`. Imports no framework.
"""
