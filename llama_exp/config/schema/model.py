"""The model of a run: shape, weights, types, adapters. See `llama_exp.config.schema`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from llama_exp.limits.model import Parametrization
from llama_exp.limits.precision import Policy


@dataclass
class ModelConfig:
    """Hyperparameters of `llama_exp.models.LlamaBackbone`, under the constructor's own names."""

    _target_: str = MISSING
    vocabulary_size: int = MISSING  # tokens
    num_layers: int = MISSING  # decoder blocks
    num_query_heads: int = MISSING  # divides hidden_dim
    hidden_dim: int = MISSING  # width of the hidden states
    intermediate_dim: int = MISSING  # width of the feed-forward network
    num_key_value_heads: int = MISSING  # divides num_query_heads; fewer: grouped-query attention
    rope_max_wavelength: float = MISSING  # base of the rotary frequencies
    rope_position_scaling_factor: float = MISSING  # positions are divided by it (linear scaling)
    rope_frequency_adjustment_factor: float | None = MISSING  # Llama 3.1: this and the next three, or none
    rope_low_freq_factor: float | None = MISSING  # longer waves than pre-training length / this: stretched in full
    rope_high_freq_factor: float | None = MISSING  # shorter waves than pre-training length / this: kept
    rope_pretraining_sequence_length: int | None = MISSING  # tokens
    layer_norm_epsilon: float = MISSING  # added to the mean square in every norm
    initializer_range: float = MISSING  # standard deviation of the linear layers' random weights
    embedding_initializer_range: float = MISSING  # likewise of the embeddings and the output matrix
    dropout: float = MISSING  # probability in [0, 1)
    tie_word_embeddings: bool = MISSING  # logits use the embedding table
    parametrization: Parametrization = MISSING  # mup: first values and learning rates follow the width
    base_hidden_dim: int | None = MISSING  # of mup: the hidden_dim at which it equals standard
    base_head_dim: int | None = MISSING  # of mup: size of a head at that width; null: of this model (wider: more heads)
    train_norms: bool = MISSING  # false: the scales of the norms keep their first values


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
    """Small types of the base model's weights, see `architecture.Quantization`; null where a mode lacks an option."""

    mode: str = MISSING  # none (floating point), preset (as it is stored), int8, int4, float8
    quantize_activations: bool | None = MISSING  # int8: inputs as integers too
    group_size: int | None = MISSING  # int4: inputs that share a scale; 0: all of an output's inputs
    embeddings: str | None = MISSING  # int4: mode of the embeddings and output matrix, int8 or int4
    float_activations: list[str] | None = MISSING  # int8 with rounded inputs: layers whose inputs are not rounded
    asymmetric_activations: bool | None = MISSING  # int8 with rounded inputs: between smallest and largest
    gptq: bool | None = MISSING  # int4: second-order rounding, takes minutes
    int8_layers: list[str] | None = MISSING  # int4: linear layers that are int8 instead


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
    learning_rate_ratio: float = MISSING  # learning rate of B over that of A (LoRA+, arXiv:2402.12354)
    source: str | None = MISSING  # adapter on disk that training goes on from; null: fresh adapters
