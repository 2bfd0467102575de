"""Checks of the backbone's constructor arguments."""

from __future__ import annotations

import numbers

ROPE_ADJUSTMENT = (
    "rope_frequency_adjustment_factor",
    "rope_low_freq_factor",
    "rope_high_freq_factor",
    "rope_pretraining_sequence_length",
)
SIZES = (
    "vocabulary_size",
    "num_layers",
    "num_query_heads",
    "hidden_dim",
    "intermediate_dim",
    "num_key_value_heads",
)


def one_scaling_factor(rope_scaling_factor: float | None, rope_position_scaling_factor: float | None) -> float:
    """The position scaling factor, whichever of its two names it came under; 1.0 where it came under neither."""
    given = {value for value in (rope_scaling_factor, rope_position_scaling_factor) if value is not None}
    if len(given) > 1:
        raise ValueError(
            f"rope_scaling_factor={rope_scaling_factor} and rope_position_scaling_factor="
            f"{rope_position_scaling_factor} are two names of one thing and disagree. Give only the second."
        )
    return given.pop() if given else 1.0


def check_arguments(**config) -> None:
    """Raises ValueError naming argument, value and remedy for the first impossible value of `config`."""
    for key in SIZES:
        value = config[key]
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key}={value!r} must be a whole number of at least 1.")
    _check_heads(config["hidden_dim"], config["num_query_heads"], config["num_key_value_heads"])
    for key in ("rope_max_wavelength", "rope_position_scaling_factor", "layer_norm_epsilon"):
        if not config[key] > 0:
            raise ValueError(f"{key}={config[key]!r} must be greater than 0.")
    if not 0 <= config["dropout"] < 1:
        raise ValueError(f"dropout={config['dropout']!r} must be a probability in [0, 1).")
    _check_rope_adjustment({key: config[key] for key in ROPE_ADJUSTMENT})


def _check_heads(hidden_dim, num_query_heads, num_key_value_heads):
    if hidden_dim % num_query_heads or (hidden_dim // num_query_heads) % 2:
        raise ValueError(
            f"hidden_dim={hidden_dim} must be num_query_heads={num_query_heads} times an even number, because rotary "
            f"embedding turns pairs within a head. Choose a multiple of {2 * num_query_heads}."
        )
    if num_query_heads % num_key_value_heads:
        raise ValueError(
            f"num_query_heads={num_query_heads} is no multiple of num_key_value_heads={num_key_value_heads}, but "
            f"each key/value head serves the same number of query heads. Choose a divisor of {num_query_heads}."
        )


def _check_rope_adjustment(adjustment):
    missing = [key for key, value in adjustment.items() if value is None]
    if missing and len(missing) < len(adjustment):
        raise ValueError(f"{', '.join(missing)} missing: give all of {', '.join(adjustment)}, or none of them.")
    if missing:
        return
    for key, value in adjustment.items():
        if not value > 0:
            raise ValueError(f"{key}={value!r} must be greater than 0.")
    low, high = adjustment["rope_low_freq_factor"], adjustment["rope_high_freq_factor"]
    if not low < high:
        raise ValueError(f"rope_low_freq_factor={low} must be less than rope_high_freq_factor={high}.")
