"""The model of a run: shape, weights, types, adapters. See `llama_exp.config.schema`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

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
