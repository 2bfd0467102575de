"""One run behind the frontier: typed config in, a run folder with everything out.

    dataset -> tokenizer -> rows --------------.
    preset -> backbone -> adapters ------------+-> trainer.fit() -> adapter/ or model/, summary
    learning rate schedule -> optimizer -------'

What can fail for want of an input fails first: data files and the preset are looked for before Keras is imported, and
the preset is compared with the config before anything is built. A run that fails before its first step leaves no
folder. From here on every part sees its own section's values only; nobody edits the config.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_exp import runtime, signals
from llama_exp.architecture import to_section
from llama_exp.config.budget import find_budget
from llama_exp.config.check.contracts import find_added_arguments, list_targets
from llama_exp.config.identity import config_hash, continuation_hash, to_dict, to_record
from llama_exp.config.instantiate import check_targets, instantiate
from llama_exp.config.run_home import in_default_place
from llama_exp.config.schema import Config
from llama_exp.console import logs, progress
from llama_exp.console.data_line import data_line
from llama_exp.errors import ExitCode, LlamaExpError
from llama_exp.files.latest import point_latest_to, without_latest
from llama_exp.files.process import ALONE, Process
from llama_exp.lora import source as lora_source
from llama_exp.run import (
    branch,
    data_use,
    ending,
    evaluating,
    facts,
    model_card,
    plan,
    plan_rates,
    provenance,
    recorded,
    resume,
)
from llama_exp.run.agreement import tell_nothing_to_adapt
from llama_exp.run.building import build_data, build_model, build_optimizer, check_preset, resolve_preset
from llama_exp.run.folder import RunFolder
from llama_exp.run.next_commands import next_commands
from llama_exp.run.opened import choose_trunk, open_folder
from llama_exp.run.repetition import Repetition
from llama_exp.run.room import require_room
from llama_exp.run.trunk import Trunk
from llama_exp.run.watching import build_observers

# Keys of section `trainer` that others read.
NOT_OF_THE_LOOP = ("remat", "callbacks", "keep_optimizer", "budget_flops", "budget_tokens")
log = logging.getLogger(__name__)


def run_job(
    config: Config,
    overrides: Sequence[str],
    folder: Path,
    group: str | None = None,
    process: Process = ALONE,
    is_chosen: bool = True,
    repetition: Repetition | None = None,
) -> float | None:
    """Trains as `config` says and leaves everything in `folder`.

    Args:
        config: the whole typed config.
        overrides: the command line's, for the record.
        folder: the run folder; with `resume` other than `none` it may hold a run to continue.
        group: name of the sweep that the run belongs to, or None.
        process: which of the run's processes this is; one that is not the writer leaves nothing and says nothing.
        is_chosen: whether the user named the folder; else one beside it is taken where another run has it.
        repetition: what is special about the run if it repeats another; None: it does not.

    Returns:
        The figure that `objective_metric` names, of the weights that the run leaves: what a sweep compares. None: the
        run has no such figure.

    Raises:
        LlamaExpError: by kind and exit code what went wrong; the folder's `summary.json` says it too.
    """
    folder = Path(without_latest(str(folder)))
    with signals.raised_at_once():
        return _run(config, overrides, folder, group, process, is_chosen, repetition)


def _run(
    config: Config,
    overrides: Sequence[str],
    folder: Path,
    group: str | None,
    process: Process,
    is_chosen: bool,
    repetition: Repetition | None,
) -> float | None:
    budget = find_budget(config)
    steps = config.trainer.max_steps if repetition is None or repetition.steps is None else repetition.steps
    runtime.start(**to_dict(config.runtime))
    logs.attach_console(process)
    trunk = choose_trunk(config, folder)
    with open_folder(config, folder, process, is_chosen, trunk) as run_folder:
        folder = run_folder.path
        bar = progress.Progress(steps, shown=process.is_writer)
        try:
            with signals.told(f"{folder}, outside of its training steps"):
                with signals.noted(None):  # a folder that has a summary has a record too, and can go on
                    run_folder.begin(to_record(config), overrides, sys.argv, config_hash(config))
                    run_folder.record(continuation_hash=continuation_hash(config))
                    if trunk is not None:
                        branch.record_origin(trunk, run_folder)
                signals.check()
                planned = plan.make_plan(config)
                if planned is not None:
                    logs.log_table("plan", plan.rows(planned))
                    if process.is_writer:
                        require_room(folder, planned.disk_bytes)
                run = Run(config, run_folder, group, process, bar, steps, trunk)
                if repetition is not None:
                    repetition.on_ready(run_folder.known)
                if process.is_writer and in_default_place(folder, config.name):
                    point_latest_to(folder)  # not before: a start without its data would take the place of a good run
                result = run.fit()
                signals.check()
                bar.on_phase("writing the model")
                told = ending.describe(result)
                results = run.export(told)
                signals.decide()
            summary = run_folder.finish(**told, **ending.list_spending(budget, result.steps), **results)
            if process.is_writer:
                ending.free(config.trainer.keep_optimizer, run_folder.checkpoints)
                plan_rates.remember(config, planned, summary, facts.of_machine(config)["device"])
        except LlamaExpError as error:
            summary = run_folder.finish(error)
            run_folder.discard_if_fruitless(error)
            if error.exit_code in (ExitCode.PREEMPTED, ExitCode.INTERRUPTED):
                bar.close()
                go_on = provenance.resume_command(sys.argv, folder, in_sweep=group is not None)
                go_on = go_on if repetition is None else repetition.command
                progress.end_table(summary, folder, {"resume": go_on})
            raise
        finally:
            bar.close()
        progress.end_table(summary, folder, run.next_commands())
    return ending.find_objective(config.objective_metric, summary if process.is_writer else ending.describe(result))


class Run:
    """The objects of one run, built in the order of the config.

    Attributes:
        model: the `LlamaCausalLM` that trains.
        trainer: fits it.
    """

    def __init__(
        self,
        config: Config,
        run_folder: RunFolder,
        group: str | None,
        process: Process,
        bar: progress.Progress,
        steps: int,
        trunk: Trunk | None = None,
    ):
        self._folder, self._process = run_folder, process
        self._has_adapters = config.lora.rank > 0
        self._checkpoint = resume.choose_checkpoint(config.resume, process)
        dataset = instantiate(config.dataset, config.trusted_modules, "dataset")
        dataset.look()
        parts = evaluating.open_evaluations(config)
        resolved = resolve_preset(config, run_folder.path)
        preset_folder = None if resolved is None else resolved.path
        if self._has_adapters and preset_folder is None:
            tell_nothing_to_adapt(config.lora.rank)
        cache_dir = str(Path(config.runtime.cache_dir).expanduser())
        bar.on_phase("reading the data")
        dataset.open(cache_dir)
        bar.on_phase("loading Keras")
        runtime.import_backend()
        if preset_folder is not None:
            check_preset(config, preset_folder, run_folder.path)
        targets = list_targets(config)
        check_targets(targets, config.trusted_modules, {where: find_added_arguments(where) for where in targets})
        bar.on_phase("preparing data")
        tokenizer, examples = build_data(config, dataset, cache_dir, preset_folder)
        read = facts.of_data(examples, tokenizer)
        recorded.check_data(run_folder.path, **read)
        self._data = data_use.measure(config, examples["train"])
        log.info("data: %s", data_line(self._data))
        bar.on_phase("building the model")
        self.model = build_model(config, preset_folder, tokenizer)
        digest = None
        if self._has_adapters or resolved is not None:
            from llama_exp import lora

            digest = lora.base_digest(self.model.backbone)
        self._base_digest = digest if self._has_adapters else None
        read["preset"] = facts.of_preset(config, resolved, digest)
        recorded.check_preset(run_folder.path, read["preset"])
        self._record(config, read)
        self._next_commands = next_commands(config, run_folder.path, examples, tokenizer)
        self._observers = build_observers(config, run_folder, group, bar) if process.is_writer else {}
        folder = run_folder.path if process.is_writer else None
        evaluations = evaluating.build_evaluations(config, parts, self.model, folder, examples["train"])
        self.trainer = self._build_trainer(config, examples, evaluations, steps)
        if trunk is not None and process.is_writer:
            branch.take_state(trunk, run_folder, config)
        elif trunk is not None:  # the writer's copy may not be there yet
            self._checkpoint = trunk.checkpoint

    def fit(self):
        """Trains to the end, from the checkpoint that `resume` names or else the newest in the folder."""
        if self._checkpoint is not None:
            from llama_exp.trainer import load

            self.trainer.restore(load(self._checkpoint))
        result = self.trainer.fit()
        self._trained = facts.of_weights(self.model.backbone)
        return result

    def export(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the adapter or the model with its card, and returns what the summary should say of them.

        Args:
            told: what `ending.describe` says of the weights.
        """
        if not self._process.is_writer:
            return {}
        exported: Path | None = None
        try:
            self._folder.kept.require()
            results = self._export(told)
            exported = self._folder.adapter if self._has_adapters else self._folder.model
        finally:
            for observer in self._observers.values():
                if hasattr(observer, "on_export"):  # only a logger has
                    observer.on_export(exported)
        return {"data": self._data, "weights": self._trained | facts.of_export(exported), **results}

    def _export(self, told: Mapping[str, Any]) -> dict[str, Any]:
        if not self._has_adapters:
            self.model.save_to_preset(self._folder.model)
            model_card.write_of_run(self._folder.model, self._folder.path, "keras_hub", told)
            return {"model": self._folder.model.name}
        from llama_exp import lora

        after = lora.save_adapter(self.model.backbone, self._folder.adapter)
        if after != self._base_digest:
            raise RuntimeError(f"training changed frozen weights: digest {self._base_digest} before, {after} after")
        model_card.write_of_run(self._folder.adapter, self._folder.path, "peft", told)
        return {"adapter": self._folder.adapter.name, "base_digest": {"before": self._base_digest, "after": after}}

    def next_commands(self) -> dict[str, str]:
        """What a person may want to type next."""
        sync = getattr(self._observers.get("logger"), "sync_command", None)
        return self._next_commands | ({"sync W&B": sync} if sync else {})

    def _record(self, config: Config, read: dict[str, Any]) -> None:
        """Adds what is known now to run.json; `read`: data, tokenizer and preset."""
        self._folder.record(
            **facts.of_machine(config),
            **facts.of_computation(config, self.model.backbone),
            **read,
            seed=config.seed,
            quantization=to_section(self.model.backbone.quantization),
            lora=config.lora.source and lora_source.origin(config.lora.source),
            base_digest=self._base_digest,
        )

    def _build_trainer(self, config: Config, examples, evaluations, steps: int):
        from llama_exp.trainer import Checkpoints, Trainer
        from llama_exp.trainer.profile import Profile

        section = {key: value for key, value in to_dict(config.trainer).items() if key not in NOT_OF_THE_LOOP}
        section["max_steps"] = steps  # the schedule has the config's
        keep_checkpoints, profile_steps = section.pop("keep_checkpoints"), section.pop("profile_steps")
        return Trainer(
            self.model,
            examples,
            build_optimizer(config, self.model),
            checkpoints=Checkpoints(
                self._folder.checkpoints,
                keep=keep_checkpoints,
                config_hash=config_hash(config),
                facts=facts.of_process(config),
                process=self._process,
            ),
            observers=self._observers,
            evaluations=evaluations,
            profile=Profile(self._folder.path / "profile" if self._process.is_writer else None, profile_steps),
            process=self._process,
            seed=config.seed,
            base_digest=self._base_digest,
            chunk_tokens=config.objective.chunk_tokens,
            z_loss=config.objective.z_loss,
            jit=config.runtime.jit.value,
            sample_at_start=config.preset.source is not None and config.preset.load_weights,
            **section,
        )
