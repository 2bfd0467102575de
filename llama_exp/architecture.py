"""The architecture of a Llama as data: constructor arguments, their limits, the shape of every weight, its storage.

Imports no framework: files are read and converted, and plans are made, by these names alone.

Shape letters: D hidden_dim, F intermediate_dim, N query heads, K key/value heads, H head_dim, V vocabulary.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
CONFIG_KEYS = (
    *SIZES,
    "rope_max_wavelength",
    "rope_position_scaling_factor",
    *ROPE_ADJUSTMENT,
    "layer_norm_epsilon",
    "dropout",
    "tie_word_embeddings",
)
# What a file leaves out has these values, which are the constructor's defaults.
DEFAULTS = {
    "rope_max_wavelength": 10000.0,
    "rope_position_scaling_factor": 1.0,
    **dict.fromkeys(ROPE_ADJUSTMENT),
    "layer_norm_epsilon": 1e-6,
    "dropout": 0.0,
    "tie_word_embeddings": False,
}
EMBEDDINGS = "token_embedding/embeddings"
REVERSE_EMBEDDINGS = "token_embedding/reverse_embeddings"
FINAL_NORM = "sequence_output_layernorm/scale"
TOKEN_EMBEDDING = "token_embedding"
LINEAR_NAMES = (
    "query",
    "key",
    "value",
    "attention_output",
    "feedforward_gate_dense",
    "feedforward_intermediate_dense",
    "feedforward_output_dense",
)
MODES = ("int8", "int4", "float8")  # of quantization
EMBEDDING_MODES = ("int8", "int4")  # of the embeddings under int4
# What an option means that is left open; docs/adr/0010 has the measurements.
DEFAULT_GROUP_SIZE = 32
DEFAULT_EMBEDDINGS = "int8"  # under int4
DEFAULT_INT8_LAYERS = ("key", "value")  # under int4: few weights, each of them used by several heads
DEFAULT_FLOAT_ACTIVATIONS = (
    TOKEN_EMBEDDING,
    "query",
    "key",
    "value",
    "feedforward_output_dense",
)


@dataclass(frozen=True)
class Quantization:
    """How the linear layers and embeddings of a checkpoint are stored.

    Attributes:
        mode: int8, int4 or float8.
        quantize_activations: products run in integers too, with a scale per row of the input.
        group_size: inputs that share a scale (int4); None: one scale per output.
        embeddings: mode of the token embedding and the output matrix where it is another one, int8 under int4;
            None: as everything else.
        float_activations: names of layers (`LINEAR_NAMES`; `token_embedding` for the logits) whose inputs are not
            rounded under `quantize_activations`.
        asymmetric_activations: rows of inputs are rounded between their smallest and their largest number; otherwise
            with one scale for both signs, as Keras does.
        gptq: floats become these integers by second-order rounding (int4), see `llama_exp.gptq`.
        int8_layers: names of linear layers that are stored as int8 weights under int4, in the order of `LINEAR_NAMES`.
    """

    mode: str
    quantize_activations: bool
    group_size: int | None = None
    embeddings: str | None = None
    float_activations: tuple[str, ...] = ()
    asymmetric_activations: bool = False
    gptq: bool = False
    int8_layers: tuple[str, ...] = ()

    def of(self, path: str) -> Quantization:
        """How the layer of that path alone is stored and multiplies: without exceptions for some layers."""
        if path == TOKEN_EMBEDDING and self.embeddings is not None:
            return Quantization(self.embeddings, False)
        name = path.rpartition("/")[2]
        if name in self.int8_layers:
            return Quantization("int8", False)
        rounds = self.quantize_activations and name not in self.float_activations
        return Quantization(
            self.mode, rounds, self.group_size, asymmetric_activations=rounds and self.asymmetric_activations
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


def linear_shapes(config: Mapping) -> dict[str, tuple[int, int]]:
    """Shape (inputs, outputs) of every linear layer by path, in order of use."""
    D, F = config["hidden_dim"], config["intermediate_dim"]
    key_value_dim = D // config["num_query_heads"] * config["num_key_value_heads"]  # K * H
    block = {
        "self_attention/query": (D, D),
        "self_attention/key": (D, key_value_dim),
        "self_attention/value": (D, key_value_dim),
        "self_attention/attention_output": (D, D),
        "feedforward_gate_dense": (D, F),
        "feedforward_intermediate_dense": (D, F),
        "feedforward_output_dense": (F, D),
    }
    return {
        f"transformer_layer_{i}/{name}": shape for i in range(config["num_layers"]) for name, shape in block.items()
    }


def variable_shapes(config: Mapping) -> dict[str, tuple[int, ...]]:
    """Shape of every variable of a `LlamaBackbone` by path, block by block: embeddings (V, D), kernels, norms (D,)."""
    V, D = config["vocabulary_size"], config["hidden_dim"]
    shapes: dict[str, tuple[int, ...]] = {EMBEDDINGS: (V, D)}
    for path, shape in linear_shapes(config).items():
        block, _, name = path.partition("/")
        if name == "self_attention/query":
            shapes[f"{block}/self_attention_layernorm/scale"] = (D,)
        elif name == "feedforward_gate_dense":
            shapes[f"{block}/feedforward_layernorm/scale"] = (D,)
        shapes[f"{path}/kernel"] = shape
    shapes[FINAL_NORM] = (D,)
    if not config["tie_word_embeddings"]:
        shapes[REVERSE_EMBEDDINGS] = (D, V)
    return shapes


def count_parameters(config: Mapping) -> int:
    """Parameters of the backbone, the output matrix included."""
    return sum(math.prod(shape) for shape in variable_shapes(config).values())


def make_quantization(
    mode: str,
    quantize_activations: bool | None = None,
    group_size: int | None = None,
    embeddings: str | None = None,
    float_activations: Sequence[str] | None = None,
    asymmetric_activations: bool | None = None,
    gptq: bool | None = None,
    int8_layers: Sequence[str] | None = None,
) -> Quantization | None:
    """The `Quantization` of a mode and its options; None for `none`.

    Args:
        mode: none, int8, int4 or float8.
        quantize_activations: int8 only; None: true for int8.
        group_size: int4 only, inputs that share a scale; 0: all of them; None: `DEFAULT_GROUP_SIZE`.
        embeddings: int4 only, mode of the embeddings and the output matrix, int8 or int4; None: int8.
        float_activations: int8 with rounded activations only, layers whose inputs are not rounded; None:
            `DEFAULT_FLOAT_ACTIVATIONS`.
        asymmetric_activations: int8 with rounded activations only, see `Quantization`; None: true. False and no
            `float_activations` are what Keras does.
        gptq: int4 only, see `Quantization`; None: false.
        int8_layers: int4 only, linear layers that are int8 instead, but not all; None: `DEFAULT_INT8_LAYERS`.

    Raises:
        ValueError: another mode, or an option that the mode does not have.
    """
    if mode not in (*MODES, "none"):
        raise ValueError(f"mode={mode!r} is not supported. Choose one of {', '.join(MODES)}.")
    if quantize_activations and mode != "int8":
        raise ValueError(f"quantize_activations=True with mode={mode!r}: only int8 has integer products.")
    if group_size is not None and mode != "int4":
        raise ValueError(f"group_size={group_size!r} with mode={mode!r}: only int4 has groups. Leave it out.")
    if embeddings is not None and mode != "int4":
        raise ValueError(f"embeddings={embeddings!r} with mode={mode!r}: only int4 leaves a choice. Leave it out.")
    if gptq and mode != "int4":
        raise ValueError(f"gptq=True with mode={mode!r}: only int4 is rounded so. Leave it out.")
    if int8_layers is not None and mode != "int4":
        raise ValueError(
            f"int8_layers={list(int8_layers)} with mode={mode!r}: only int4 has other layers. Leave it out."
        )
    rounds = mode == "int8" and quantize_activations is not False
    for name, value in (
        ("float_activations", None if float_activations is None else list(float_activations)),
        ("asymmetric_activations", asymmetric_activations),
    ):
        if value is not None and not rounds:
            raise ValueError(
                f"{name}={value} with mode={mode!r}, quantize_activations={quantize_activations}: only int8 rounds "
                "activations. Leave it out."
            )
    if mode == "none":
        return None
    if mode == "int4":
        return _int4(group_size, embeddings, bool(gptq), _int8_layers(int8_layers))
    if not rounds:
        return Quantization(mode, False)
    floats, asymmetric = _float_activations(float_activations), asymmetric_activations is not False
    return Quantization(mode, True, float_activations=floats, asymmetric_activations=asymmetric)


def _int4(group_size, embeddings, gptq, int8_layers):
    group_size = DEFAULT_GROUP_SIZE if group_size is None else group_size
    if not isinstance(group_size, int) or isinstance(group_size, bool) or group_size < 0:
        raise ValueError(f"group_size={group_size!r} must be a whole number of at least 1, or 0 for one group.")
    embeddings = DEFAULT_EMBEDDINGS if embeddings is None else embeddings
    if embeddings not in EMBEDDING_MODES:
        raise ValueError(f"embeddings={embeddings!r} must be one of {', '.join(EMBEDDING_MODES)}.")
    embeddings = None if embeddings == "int4" else embeddings
    return Quantization("int4", False, group_size or None, embeddings, gptq=gptq, int8_layers=int8_layers)


def _int8_layers(names):
    names = DEFAULT_INT8_LAYERS if names is None else names
    _require_names("int8_layers", names, LINEAR_NAMES)
    if set(names) == set(LINEAR_NAMES):
        raise ValueError("int8_layers names every linear layer: use mode='int8' with quantize_activations=False.")
    return tuple(name for name in LINEAR_NAMES if name in names)


def _float_activations(names):
    names = tuple(DEFAULT_FLOAT_ACTIVATIONS if names is None else names)
    _require_names("float_activations", names, (*LINEAR_NAMES, TOKEN_EMBEDDING))
    return names


def _require_names(option, names, choices):
    unknown = [name for name in names if name not in choices]
    if unknown:
        raise ValueError(f"{option}: no layer is named {unknown[0]!r}. Choose from {', '.join(choices)}.")
