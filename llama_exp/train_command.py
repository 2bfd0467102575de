"""From the command line to the result: check everything, compose, cross the frontier, run, report.

    python train.py lora.rank=8        or        llama-exp train lora.rank=8

Exit codes are those of `llama_exp.errors.ExitCode`; a sweep's jobs fail one by one, and the sweep tells at its end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from llama_exp import signals
from llama_exp.config.check import to_config
from llama_exp.config.check.resolvers import register_run_dir
from llama_exp.config.hydra_main import asks_for_completion, complete, run_hydra
from llama_exp.console.failures import explain_hydra, tell_failure
from llama_exp.errors import ExitCode, Interrupted, Preempted
from llama_exp.files.writing import restrict_umask
from llama_exp.run import resume
from llama_exp.run.sweep import open_manifest, read_command, run_sweep
from llama_exp.run.sweep_job import SweepJob, announced
from llama_exp.sweeps.child import is_a_job

register_run_dir(resume.find_folder)  # here, because processes of a launcher import no more than `job`


def job(cfg: DictConfig) -> float | None:
    """One run; returns the objective (validation loss), or None for a failed job of a sweep."""
    node = HydraConfig.get()
    overrides, in_sweep = list(node.overrides.task), node.mode == RunMode.MULTIRUN
    with announced(node, in_sweep):
        try:
            place = SweepJob(node, in_sweep)
            is_chosen = in_sweep or any(line.startswith("hydra.run.dir=") for line in node.overrides.hydra)

            def run(config):
                from llama_exp.run.job import run_job

                return run_job(config, overrides, place.folder, place.group, is_chosen=is_chosen)

            return place.run(to_config(cfg), run)
        except (Exception, KeyboardInterrupt) as error:
            code = tell_failure(error, debug=bool(cfg.debug))
            if not in_sweep or is_a_job() or isinstance(error, (Preempted, Interrupted, KeyboardInterrupt)):
                signals.hand_on()
                raise SystemExit(code) from error
            return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line (default: the process' own) and leaves the process with its exit code."""
    restrict_umask()  # before Hydra makes folders
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands exceptions on to us instead of printing them its own way
    debug, code = "debug=true" in arguments, ExitCode.OK
    if asks_for_completion(arguments):
        complete(arguments, job)
        return
    try:
        command = read_command(arguments)
        manifest, arguments = open_manifest(command, arguments)
        if manifest is None:
            run_hydra(arguments, job)
        else:
            with manifest:
                code = run_sweep(manifest, arguments, job)
    except (Exception, KeyboardInterrupt) as error:
        code = tell_failure(explain_hydra(error), debug)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    from llama_exp import train_command

    train_command.main()  # not this copy of the module: other processes find its functions under their real name
