"""The typed schema of a run: one dataclass per config group, one field per YAML key. Imports no framework.

Fields carry type, unit and meaning. Values live once, in `conf/`: nothing here has a default. Hydra composes untyped,
because it would stop at the first mistake; `llama_exp.config.check` types the result with these classes: `SCHEMAS` has
that of each `_target_` of ours. One of the user's own is checked against its signature when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from llama_exp.config.schema.data import (
    DatasetConfig,
    FileTokenizerConfig,
    JsonlConfig,
    ObjectiveConfig,
    TextFilesConfig,
    TfdsConfig,
    TokenizerConfig,
    TrainedTokenizerConfig,
)
from llama_exp.config.schema.evaluation import (
    EvaluationConfig,
    GenerationConfig,
    HarnessConfig,
    MultipleChoiceConfig,
    PythonChoicesConfig,
)
from llama_exp.config.schema.model import LoraConfig, ModelConfig, PrecisionConfig, PresetConfig, QuantizationConfig
from llama_exp.config.schema.protocol import ProtocolConfig
from llama_exp.config.schema.training import (
    AdafactorConfig,
    AdamWConfig,
    DecayScheduleConfig,
    LionConfig,
    LoggerConfig,
    MlflowLoggerConfig,
    MuonConfig,
    NamedLoggerConfig,
    RuntimeConfig,
    ScheduleConfig,
    SGDConfig,
    TrainerConfig,
    WsdScheduleConfig,
)


@dataclass
class Config:
    """A whole run, in build order."""

    name: str = MISSING  # outputs/<name>/<run>
    seed: int = MISSING  # of initial weights, order of data, dropout and sampling
    objective_metric: str = MISSING  # figure that a sweep compares its jobs by: what a run returns
    resume: str = MISSING  # none, auto, or a run or checkpoint folder
    branch_from: str | None = (
        MISSING  # checkpoint, run, or folder of runs whose state a new run begins with; null: none
    )
    debug: bool = MISSING  # show tracebacks of user errors
    trusted_modules: list[str] = MISSING  # import prefixes that `_target_` may name besides llama_exp. and keras.

    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    dataset: Any = MISSING
    tokenizer: Any = MISSING
    preset: PresetConfig = field(default_factory=PresetConfig)
    model: Any = MISSING
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: Any = MISSING
    schedule: Any = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logger: Any = MISSING
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)


SCHEMAS: dict[str, type] = {
    "llama_exp.models.LlamaBackbone": ModelConfig,
    "llama_exp.dataset.PythonCode": DatasetConfig,
    "llama_exp.dataset.PythonDocs": DatasetConfig,
    "llama_exp.dataset.PythonQA": DatasetConfig,
    "llama_exp.dataset.TextFiles": TextFilesConfig,
    "llama_exp.dataset.Jsonl": JsonlConfig,
    "llama_exp.dataset.Tfds": TfdsConfig,
    "llama_exp.tokenizer.auto": TrainedTokenizerConfig,
    "llama_exp.tokenizer.bpe": TrainedTokenizerConfig,
    "llama_exp.tokenizer.byte": TokenizerConfig,
    "llama_exp.tokenizer.preset": TokenizerConfig,
    "llama_exp.tokenizer.sentencepiece": FileTokenizerConfig,
    "llama_exp.tokenizer.hf_json": FileTokenizerConfig,
    "llama_exp.optimizer.adafactor": AdafactorConfig,
    "llama_exp.optimizer.adamw": AdamWConfig,
    "llama_exp.optimizer.lion": LionConfig,
    "llama_exp.optimizer.muon": MuonConfig,
    "llama_exp.optimizer.sgd": SGDConfig,
    "llama_exp.schedule.cosine": DecayScheduleConfig,
    "llama_exp.schedule.linear": DecayScheduleConfig,
    "llama_exp.schedule.constant": ScheduleConfig,
    "llama_exp.schedule.wsd": WsdScheduleConfig,
    "llama_exp.logger.WandbLogger": LoggerConfig,
}
# Those that stand below a name of their own in the section `logger`, beside W&B or without it.
NAMED_LOGGERS: dict[str, type] = {
    "llama_exp.logger.TensorBoardLogger": NamedLoggerConfig,
    "llama_exp.logger.CsvLogger": NamedLoggerConfig,
    "llama_exp.logger.MlflowLogger": MlflowLoggerConfig,
}
# Those that stand below a name of their own in `evaluation.tasks`.
TASKS: dict[str, type] = {
    "llama_exp.evaluation.MultipleChoice": MultipleChoiceConfig,
    "llama_exp.evaluation.Generation": GenerationConfig,
    "llama_exp.evaluation.Harness": HarnessConfig,
    "llama_exp.evaluation.PythonChoices": PythonChoicesConfig,
}
