"""The same experiments from Python: what the commands do, for a notebook.

    config = compose("model=llama_tiny", "trainer=quick")     the typed config, or every mistake at once
    result = train(config)                                    in this process; the same run folder as the command's
    result.metrics, result.plot(), result.model               a frame, a picture, the model
    load_run("outputs/default/latest")                        the same from the disk
    load_sweep("outputs/default/sweeps/<time>")               one row per job

Imports no framework before it trains.
"""

from llama_exp.notebook.composed import ComposedConfig, compose
from llama_exp.notebook.result import Result, load_run
from llama_exp.notebook.sweep import SweepTable, load_sweep
from llama_exp.notebook.training import train

__all__ = ["ComposedConfig", "Result", "SweepTable", "compose", "load_run", "load_sweep", "train"]
