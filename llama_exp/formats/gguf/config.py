"""The architecture of a model in a GGUF file: metadata -> constructor arguments.

Every key under `llama.` either is understood here or refused: what llama.cpp would compute from it and this project
would not is an error, never ignored. Keys under `general.`, `tokenizer.` and `quantize.` say nothing about the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from llama_exp.architecture import DEFAULTS, ROPE_ADJUSTMENT, SIZES
from llama_exp.formats.gguf.file import Array, GgufFile
from llama_exp.limits.model import LIMITS as MODEL_LIMITS

# What this project's writer says of Llama 3.1's adjustment beside the divisors; others read over it.
OWN_KEY = "llama_exp.{}"
TOKEN_EMBEDDINGS, OUTPUT, ROPE_FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
_TENSORS_PER_LAYER = 9
_SIZE_KEYS = {
    "num_layers": "llama.block_count",
    "num_query_heads": "llama.attention.head_count",
    "hidden_dim": "llama.embedding_length",
    "intermediate_dim": "llama.feed_forward_length",
}
_READ = (
    *_SIZE_KEYS.values(),
    "llama.vocab_size",
    "llama.attention.head_count_kv",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.attention.key_length",
    "llama.attention.value_length",
    "llama.rope.freq_base",
    "llama.rope.dimension_count",
    "llama.rope.scaling.type",
    "llama.rope.scaling.factor",
    "llama.rope.scale_linear",  # the older name of the factor
)
_CONTEXT_LENGTH = "llama.context_length"
# The model computes the same whatever these say: lengths it was trained on or may be run with, and a note.
_WITHOUT_EFFECT = (_CONTEXT_LENGTH, "llama.rope.scaling.original_context_length", "llama.rope.scaling.finetuned")
# Understood, as long as they say that nothing is done.
_ONLY = {
    "llama.expert_count": 0,
    "llama.expert_used_count": 0,
    "llama.attention.causal": True,
    "llama.use_parallel_residual": False,
    "llama.rope.scaling.attn_factor": 1.0,
    "llama.tensor_data_layout": "Meta AI original pth",  # rows of query and key in pairs, as every llama file has them
}
# Llama 3.1, 3.2 and 3.3 differ in the factor alone. The file has the resulting divisors, rounded to float32.
_LLAMA_3 = (1.0, 4.0, 8192)
_ROUNDING = 1e-5


def read_config(file: GgufFile) -> dict:
    """Every constructor argument of the model, in `architecture.CONFIG_KEYS`; needs no large tensor.

    Raises:
        InputError: not a Llama, a part of it that this project does not compute, or impossible values.
    """
    _require_llama(file)
    config = DEFAULTS | {name: _required(file, key, file.integer(key)) for name, key in _SIZE_KEYS.items()}
    heads = file.integer("llama.attention.head_count_kv")
    config["num_key_value_heads"] = config["num_query_heads"] if heads is None else heads
    config["vocabulary_size"] = _vocabulary_size(file)
    config["tie_word_embeddings"] = OUTPUT not in file.tensors
    key = "llama.attention.layer_norm_rms_epsilon"
    config["layer_norm_epsilon"] = decimal(_required(file, key, file.number(key)))
    base = file.number("llama.rope.freq_base")
    if base is not None:
        config["rope_max_wavelength"] = decimal(base)
    config["rope_position_scaling_factor"] = _linear_factor(file)
    _check(file, config)
    config.update(_rope_adjustment(file, config))
    return config


def context_length(file: GgufFile) -> int | None:
    """Tokens that the model is meant for; None where the file does not say, or says 0.

    Raises:
        InputError: no whole number, or below 0.
    """
    length = file.integer(_CONTEXT_LENGTH)
    if length is not None and length < 0:
        file.reject(f"{_CONTEXT_LENGTH} must not be negative", str(length))
    return length or None


def decimal(value: float) -> float:
    """The number that was written down before it was rounded to float32: 9.999999747378752e-06 -> 1e-05."""
    with np.errstate(over="ignore"):  # a float64 of the file may be beyond float32
        rounded = np.float32(value)
    return float(str(rounded)) if float(rounded) == value else value


def llama_3_divisors(config: Mapping, adjustment: Mapping) -> np.ndarray:
    """What Llama 3.1's adjustment divides each frequency by, (head_dim / 2,) float64."""
    factor, low, high, length = (adjustment[key] for key in ROPE_ADJUSTMENT)
    head_dim = config["hidden_dim"] // config["num_query_heads"]
    wavelengths = 2 * math.pi * config["rope_max_wavelength"] ** (np.arange(0, head_dim, 2) / head_dim)
    # 1: the frequency stays; 0: it is divided by the factor.
    smooth = np.clip((length / wavelengths - low) / (high - low), 0, 1)
    return 1 / (smooth + (1 - smooth) / factor)


def _require_llama(file):
    architecture = _required(file, "general.architecture", file.text("general.architecture"))
    if architecture != "llama":
        file.reject("this architecture is not supported", architecture, "take a Llama: general.architecture llama")
    if (kind := file.text("general.type")) not in (None, "model"):
        file.reject("the file is not a model", f"general.type {kind}", "take the file of the model itself")
    if (file.integer("split.count") or 1) > 1:
        action = "join the parts with llama-gguf-split --merge"
        file.reject("the model is split over several files", f"{file.integer('split.count')} parts", action)
    for key, value in file.metadata.items():
        if not key.startswith("llama.") or key in _READ or key in _WITHOUT_EFFECT:
            continue
        if key not in _ONLY or isinstance(value, Array) or value != _ONLY[key]:
            found = "an array" if isinstance(value, Array) else repr(value)
            file.reject(f"{key} is not supported", found, "take a file of a Llama without it")


def _required(file, key, value):
    if value is None:
        file.reject("a key is missing", f"no {key}", "convert the model again")
    return value


def _vocabulary_size(file):
    stored = file.tensors.get(TOKEN_EMBEDDINGS)
    if stored is None:
        file.reject("a tensor is missing", f"no {TOKEN_EMBEDDINGS}", "take a file with the model's weights")
    rows = stored.shape[0]
    stated = file.integer("llama.vocab_size")
    if stated is not None and stated != rows:
        file.reject(f"llama.vocab_size and {TOKEN_EMBEDDINGS} disagree", f"{stated} and {rows}")
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Array) and tokens.count > rows:
        file.reject("there are more tokens than embeddings", f"{tokens.count} and {rows}")
    return rows


def _linear_factor(file):
    kind = file.text("llama.rope.scaling.type")
    factors = [file.number(key) for key in ("llama.rope.scaling.factor", "llama.rope.scale_linear")]
    given = {decimal(factor) for factor in factors if factor is not None}
    if len(given) > 1:
        file.reject("llama.rope.scaling.factor and llama.rope.scale_linear disagree", f"{sorted(given)}")
    if kind not in (None, "none", "linear"):
        file.reject("llama.rope.scaling.type is not supported", kind, "take a file with none or linear scaling")
    if kind == "none":
        return 1.0
    # Before the type was written down, a factor meant linear scaling, as it does in llama.cpp. 0: none.
    return next((factor for factor in given if factor), 1.0)


def _check(file, config):
    if config["num_layers"] * _TENSORS_PER_LAYER > len(file.tensors):
        found = f"{config['num_layers']} layers, {len(file.tensors)} tensors"
        file.reject("the file has too few tensors for its layers", found)
    try:
        MODEL_LIMITS.require(**config)
    except ValueError as error:
        stated = ", ".join(f"{name}={config[name]}" for name in SIZES)
        file.reject(f"the configuration is impossible: {error}", stated)
    head_dim = config["hidden_dim"] // config["num_query_heads"]
    for key in ("llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length"):
        if (stated := file.integer(key)) not in (None, head_dim):
            action = f"take a file in which a head has embedding_length / head_count = {head_dim} dimensions"
            file.reject(f"{key} is not supported", str(stated), action)


def _rope_adjustment(file, config):
    """The four values of Llama 3.1 from the divisors that the file has; {} where it has none, or only ones."""
    stored = file.tensors.get(ROPE_FACTORS)
    if stored is None:
        return {}
    head_dim = config["hidden_dim"] // config["num_query_heads"]
    if stored.shape != (head_dim // 2,):
        file.reject(f"{ROPE_FACTORS} has another shape", f"{stored.shape}, expected ({head_dim // 2},)")
    divisors = file.read_rows(stored, 0, 1)[0]
    adjustment = _stated_adjustment(file)
    if adjustment is None:
        if np.all(divisors == 1):
            return {}
        # The longest wave is divided by the whole factor, if the four values are Llama 3's.
        adjustment = dict(zip(ROPE_ADJUSTMENT, (decimal(divisors[-1]), *_LLAMA_3), strict=True))
    if not adjustment[ROPE_ADJUSTMENT[0]] > 0 or not np.allclose(
        divisors, llama_3_divisors(config, adjustment), rtol=_ROUNDING, atol=0
    ):
        file.reject(
            f"{ROPE_FACTORS} is not the adjustment of Llama 3.1",
            f"{divisors[0]} to {divisors[-1]}",
            "take a Llama whose rope_scaling is llama3 with factors 1 and 4 and 8192 positions",
        )
    return adjustment


def _stated_adjustment(file):
    """The four values where this project's writer left them; None in another's file."""
    stated = {key: file.number(OWN_KEY.format(key)) for key in ROPE_ADJUSTMENT}
    if None in stated.values():
        return None
    if not all(value > 0 for value in stated.values()) or stated[ROPE_ADJUSTMENT[1]] == stated[ROPE_ADJUSTMENT[2]]:
        file.reject("Llama 3.1's adjustment is impossible", ", ".join(map(str, stated.values())))
    length = ROPE_ADJUSTMENT[3]
    return {key: int(value) if key == length else decimal(value) for key, value in stated.items()}
