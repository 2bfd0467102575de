"""The typed schema of a run: one dataclass per config group, one field per YAML key. Imports no framework.

Fields carry type, unit and meaning. Values live once, in `conf/`: nothing here has a default. Hydra composes untyped,
because it would stop at the first mistake; `llama_exp.config.check` types the result with these classes.

Sections with a `_target_` name the object that Hydra builds from their remaining keys. `SCHEMAS` gives the dataclass
of each target of ours; a target of the user's own is checked against its signature when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from llama_exp.limits.dataset import ChatTemplate, Document, EncodingErrors, Overlong, Packing
from llama_exp.limits.logger import LoggerMode
from llama_exp.limits.objective import LossOn
from llama_exp.limits.precision import Policy
from llama_exp.limits.runtime import Backend, Jit
from llama_exp.limits.trainer import Remat


@dataclass
class ModelConfig:
    """Hyperparameters of `llama_exp.models.LlamaBackbone`, under the constructor's own names."""

    _target_: str = MISSING
    vocabulary_size: int = MISSING  # tokens
    num_layers: int = MISSING
    num_query_heads: int = MISSING
    hidden_dim: int = MISSING
    intermediate_dim: int = MISSING
    num_key_value_heads: int = MISSING
    rope_max_wavelength: float = MISSING
    rope_position_scaling_factor: float = MISSING  # positions are divided by it (linear scaling)
    rope_frequency_adjustment_factor: float | None = MISSING  # Llama 3.1: this and the next three, or none
    rope_low_freq_factor: float | None = MISSING
    rope_high_freq_factor: float | None = MISSING
    rope_pretraining_sequence_length: int | None = MISSING  # tokens
    layer_norm_epsilon: float = MISSING
    dropout: float = MISSING  # probability in [0, 1)
    tie_word_embeddings: bool = MISSING


@dataclass
class PresetConfig:
    """Where pre-trained weights come from."""

    source: str | None = MISSING  # built-in id, kaggle://, hf://, a folder or a .gguf file; null: random weights
    load_weights: bool = MISSING  # false: the preset's shape, random weights, nothing fetched
    offline: bool = MISSING  # true: only what is on this machine or cached, no server is asked


@dataclass
class PrecisionConfig:
    """Types of variables and computation."""

    policy: Policy = MISSING  # a Keras dtype policy


@dataclass
class QuantizationConfig:
    """Integer or float8 weights of the base model's linear layers and embeddings; see `llama_exp.formats.quantized`."""

    mode: str = MISSING  # none (in floating point, or as the preset has them), int8, int4, float8
    quantize_activations: bool | None = MISSING  # int8 only: inputs as integers too; null: true
    group_size: int | None = MISSING  # int4 only: inputs that share a scale; null: 32; 0: all of an output's inputs
    embeddings: str | None = MISSING  # int4 only: mode of the embeddings and output matrix, int8 or int4; null: int8
    float_activations: list[str] | None = MISSING  # int8 only: layers whose inputs are not rounded; null: ours
    asymmetric_activations: bool | None = MISSING  # int8 only: rounded between smallest and largest; null: true
    gptq: bool | None = MISSING  # int4 only: second-order rounding, takes minutes; null: false
    int8_layers: list[str] | None = MISSING  # int4 only: linear layers that are int8 instead; null: key and value


@dataclass
class LoraConfig:
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): y = x W + s (x A) B."""

    rank: int = MISSING  # 0: off, all parameters train
    alpha: float = MISSING  # s = alpha / rank, layer by layer
    dropout: float = MISSING  # probability in [0, 1), on the adapter's input
    use_rslora: bool = MISSING  # s = alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)
    use_dora: bool = MISSING  # y = m / ||W + s A B|| * (x W + s (x A) B) (Liu et al. 2024, arXiv:2402.09353)
    targets: list[str] = MISSING  # layer names, groups, or regular expressions matched against whole layer paths
    rank_pattern: dict[str, int] = MISSING  # target -> rank of the layers it means, where that is not `rank`
    alpha_pattern: dict[str, float] = MISSING  # target -> alpha, likewise
    source: str | None = MISSING  # adapter on disk that training goes on from; null: fresh adapters


@dataclass
class DatasetConfig:
    """What every data set of ours takes; its own keys stand in the subclasses."""

    _target_: str = MISSING
    sequence_length: int = MISSING  # tokens per row
    packing: Packing = MISSING
    overlong: Overlong = MISSING
    validation_fraction: float = MISSING  # share of documents in (0, 1), chosen by a hash of their content


@dataclass
class TextFilesConfig(DatasetConfig):
    """Plain text on disk."""

    files: list[str] = MISSING  # paths or glob patterns
    document: Document = MISSING
    encoding_errors: EncodingErrors = MISSING


@dataclass
class JsonlConfig(DatasetConfig):
    """One JSON object a line: text, or prompt and completion, or chat messages."""

    files: list[str] = MISSING  # paths or glob patterns
    text_key: str = MISSING
    prompt_key: str = MISSING
    completion_key: str = MISSING
    messages_key: str = MISSING
    chat_template: ChatTemplate = MISSING  # how messages become text


@dataclass
class TfdsConfig(DatasetConfig):
    """Any TensorFlow Datasets builder by name."""

    builder: str = MISSING  # name[/config][:version]
    train_split: str = MISSING  # TFDS split, slices allowed
    validation_split: str | None = MISSING  # null: `validation_fraction` of the training split
    text_key: str | None = MISSING
    prompt_key: str | None = MISSING
    completion_key: str | None = MISSING
    data_dir: str | None = MISSING  # null: TFDS' own default
    download: bool = MISSING


@dataclass
class TokenizerConfig:
    """A tokenizer without options of its own."""

    _target_: str = MISSING


@dataclass
class TrainedTokenizerConfig(TokenizerConfig):
    """Byte-level BPE, trained on the data set."""

    vocabulary_size: int = MISSING  # tokens at most


@dataclass
class FileTokenizerConfig(TokenizerConfig):
    """A tokenizer file on disk."""

    file: str = MISSING


@dataclass
class ObjectiveConfig:
    """Next-token prediction."""

    loss_on: LossOn = MISSING
    chunk_tokens: int = MISSING  # target tokens whose logits exist at the same time


@dataclass
class AdamWConfig:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); decay on matrices only."""

    _target_: str = MISSING
    learning_rate: float = MISSING  # the schedule's peak
    weight_decay: float = MISSING
    beta_1: float = MISSING
    beta_2: float = MISSING
    epsilon: float = MISSING
    global_clipnorm: float | None = MISSING  # null: no clipping


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


@dataclass
class TrainerConfig:
    """The training loop."""

    max_steps: int = MISSING  # optimizer steps
    batch_size: int = MISSING  # sequences per micro-batch
    accumulation_steps: int = MISSING  # micro-batches per optimizer step
    log_every_steps: int = MISSING
    validate_every_steps: int = MISSING
    validation_batches: int | None = MISSING  # at most; null: the whole validation split
    checkpoint_every_steps: int = MISSING
    keep_checkpoints: int = MISSING
    remat: Remat = MISSING
    sample_prompts: list[str] = MISSING  # continued at every validation; empty: no samples
    sample_tokens: int = MISSING  # new tokens per sample
    sample_temperature: float = MISSING  # 0: greedy
    callbacks: dict[str, Any] = MISSING  # name -> node with a `_target_`


@dataclass
class LoggerConfig:
    """W&B."""

    _target_: str = MISSING
    mode: LoggerMode = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    tags: list[str] = MISSING


@dataclass
class RuntimeConfig:
    """Where and how fast, never what comes out."""

    backend: Backend = MISSING
    jit: Jit = MISSING
    threads: int = MISSING  # 0: every core this process may use
    cache_dir: str = MISSING  # tokenized data, trained tokenizers


@dataclass
class Config:
    """A whole run, in build order."""

    name: str = MISSING  # outputs/<name>/<run>
    seed: int = MISSING
    resume: str = MISSING  # none, auto, or a run or checkpoint folder
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
    logger: Any = MISSING


SCHEMAS: dict[str, type] = {
    "llama_exp.models.LlamaBackbone": ModelConfig,
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
    "llama_exp.optimizer.adamw": AdamWConfig,
    "llama_exp.schedule.cosine": DecayScheduleConfig,
    "llama_exp.schedule.linear": DecayScheduleConfig,
    "llama_exp.schedule.constant": ScheduleConfig,
    "llama_exp.schedule.wsd": WsdScheduleConfig,
    "llama_exp.logger.WandbLogger": LoggerConfig,
}
