"""How a model trains, where, and who watches. See `llama_exp.config.schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from llama_exp.limits.logger import LoggerMode
from llama_exp.limits.runtime import Backend, Jit
from llama_exp.limits.schedule import DecayShape
from llama_exp.limits.trainer import Export, KeepOptimizer, Remat


@dataclass
class OptimizerConfig:
    """What every optimizer of ours has; decay on matrices only."""

    _target_: str = MISSING
    learning_rate: float = MISSING  # the schedule's peak
    weight_decay: float = MISSING  # share of a weight that a step takes away, over the learning rate
    independent_weight_decay: bool = MISSING  # that share is weight_decay * (rate / peak), whatever the peak is
    global_clipnorm: float | None = MISSING  # longest gradient over all variables together; null: no clipping


@dataclass
class AdamWConfig(OptimizerConfig):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    beta_1: float = MISSING  # decay of the mean of gradients
    beta_2: float = MISSING  # decay of the mean of squares
    epsilon: float = MISSING  # added to the root of the mean of squares


@dataclass
class SGDConfig(OptimizerConfig):
    """Gradient descent with momentum."""

    momentum: float = MISSING  # how much of the sum of earlier gradients stays; 0: none, and no state
    nesterov: bool = MISSING  # whether a step looks ahead along that sum


@dataclass
class LionConfig(OptimizerConfig):
    """Lion (Chen et al. 2023, arXiv:2302.06675)."""

    beta_1: float = MISSING  # share of the mean of earlier gradients in a step
    beta_2: float = MISSING  # decay of that mean


@dataclass
class AdafactorConfig(OptimizerConfig):
    """Adafactor (Shazeer & Stern 2018, arXiv:1804.04235), without a first moment."""

    beta_2_decay: float = MISSING  # exponent of the update's number: the share of the newest squares
    epsilon_1: float = MISSING  # added to squared gradients
    epsilon_2: float = MISSING  # smallest size of a variable, for multiply_by_parameter_scale
    clip_threshold: float = MISSING  # largest root mean square of a variable's step
    multiply_by_parameter_scale: bool = MISSING  # learning_rate is a share of each variable's root mean square


@dataclass
class MuonConfig(OptimizerConfig):
    """Muon (Jordan et al. 2024) for the matrices of hidden layers, AdamW for everything else."""

    momentum: float = MISSING  # how much of the sum of earlier gradients stays
    nesterov: bool = MISSING  # whether a step looks ahead along that sum
    update_rms: float = MISSING  # root mean square of a matrix' step, over the learning rate (arXiv:2502.16982)
    beta_1: float = MISSING  # AdamW's decay of the mean of gradients
    beta_2: float = MISSING  # AdamW's decay of the mean of squares
    epsilon: float = MISSING  # added to the root of AdamW's mean of squares


@dataclass
class ScheduleConfig:
    """A learning rate that warms up linearly and then stays."""

    _target_: str = MISSING
    warmup_steps: int = MISSING  # optimizer steps


@dataclass
class DecayScheduleConfig(ScheduleConfig):
    """A learning rate that decays until the last step (cosine, linear)."""

    final_fraction: float = MISSING  # of the peak, at the last step


@dataclass
class WsdScheduleConfig(DecayScheduleConfig):
    """Warm-up, stable, decay (Hu et al. 2024, arXiv:2404.06395)."""

    decay_steps: int = MISSING  # optimizer steps, at the end
    decay_shape: DecayShape = MISSING


@dataclass
class TrainerConfig:
    """The training loop."""

    max_steps: int = MISSING  # optimizer steps
    budget_flops: float | None = MISSING  # floating point operations of training that give max_steps; null: no budget
    budget_tokens: float | None = MISSING  # tokens of training that give max_steps, padding too; null: no budget
    batch_size: int = MISSING  # sequences per micro-batch
    accumulation_steps: int = MISSING  # micro-batches per optimizer step
    log_every_steps: int = MISSING  # optimizer steps between two training rows
    validate_every_steps: int = MISSING  # optimizer steps between two validations, samples included
    validation_batches: int | None = MISSING  # at most; null: the whole validation split
    checkpoint_every_steps: int = MISSING  # optimizer steps between two checkpoints
    keep_checkpoints: int = MISSING  # newest checkpoints that stay on disk
    keep_best: str | None = MISSING  # figure: the checkpoint with its best value stays too; null: none does
    export: Export = MISSING
    keep_optimizer: KeepOptimizer = MISSING
    stop_early: str | None = MISSING  # figure: the run ends once it no longer improves; null: it goes on to max_steps
    patience: int = MISSING  # measurements of stop_early without an improvement, until the run ends
    min_delta: float = MISSING  # by how much stop_early has to be better to be an improvement
    overfit_below: float | None = MISSING  # loss that one batch is to reach, trained on alone; null: all batches
    profile_steps: int = MISSING  # steps to profile behind the first two; 0: none
    remat: Remat = MISSING
    sample_prompts: list[str] | None = MISSING  # null: beginnings of validation documents; empty: no samples
    sample_tokens: int = MISSING  # new tokens per sample
    sample_temperature: float = MISSING  # 0: greedy
    callbacks: dict[str, Any] = MISSING  # name -> node with a `_target_`


@dataclass
class LoggerConfig:
    """Where numbers also go: W&B's keys, and further loggers below names of their own."""

    _target_: str = MISSING
    mode: LoggerMode | None = MISSING  # null: the variable WANDB_MODE, else offline
    project: str | None = MISSING  # W&B project; null: WANDB_PROJECT, else llama_exp
    entity: str | None = MISSING  # W&B team or user; null: WANDB_ENTITY, else the account's default
    tags: list[str] | None = MISSING  # labels of the run in W&B; null: WANDB_TAGS, else none
    log_model: bool = MISSING  # whether the adapter or model becomes a W&B artifact when the run is done


@dataclass
class NamedLoggerConfig:
    """A logger beside W&B, below a name of its own: TensorBoard, CSV."""

    _target_: str = MISSING


@dataclass
class MlflowLoggerConfig(NamedLoggerConfig):
    """MLflow."""

    tracking_uri: str | None = MISSING  # http://... or file:...; null: MLFLOW_TRACKING_URI, else outputs/mlruns
    experiment: str = MISSING  # MLflow's experiment


@dataclass
class RuntimeConfig:
    """Where and how fast, never what is computed; `llama_exp.config.identity` says what exactly is promised."""

    backend: Backend = MISSING
    jit: Jit = MISSING
    threads: int = MISSING  # 0: every core this process may use
    cache_dir: str = MISSING  # tokenized data, trained tokenizers
