"""Small models with their first values, of every kind: what two backends must begin with alike."""

import sys

import keras
import ml_dtypes
import numpy as np
from keras import ops

from llama_exp.architecture import make_quantization, to_section
from llama_exp.models import LlamaBackbone
from llama_exp.models import build as model

SIZES = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 2,
}
NO_LORA = {"rank": 0, "alpha": 1.0, "dropout": 0.0, "use_rslora": False, "use_dora": False, "targets": ["all-linear"]}
NO_LORA |= {"rank_pattern": {}, "alpha_pattern": {}, "source": None}
LORA = NO_LORA | {"rank": 4}
DORA = LORA | {"use_dora": True, "rank_pattern": {"query": 3}}
KINDS = {
    "float32": ("float32", "none", NO_LORA),
    "bfloat16": ("bfloat16", "none", NO_LORA),
    "mixed_bfloat16 LoRA": ("mixed_bfloat16", "none", LORA),
    "float32 DoRA": ("float32", "none", DORA),
    "bfloat16 DoRA": ("bfloat16", "none", DORA),
    "int8 DoRA": ("mixed_bfloat16", "int8", DORA),
    "int4 DoRA": ("bfloat16", "int4", DORA),
    "float8 DoRA": ("float32", "float8", DORA),
}


def built(policy="float32", mode="none", lora=NO_LORA, seed=3, **changes):
    """What a run builds before its first step."""
    return model.build(
        lambda **added: LlamaBackbone(**SIZES | changes, **added),
        policy=policy,
        preset_dir=None,
        quantization=to_section(make_quantization(mode)),
        lora=lora,
        remat="none",
        seed=seed,
    )


def values(backbone) -> dict[str, np.ndarray]:
    """Every variable by path, exactly: types of two bytes or less as float32."""
    found = {}
    for variable in backbone.weights:
        array = ops.convert_to_numpy(variable.value)
        is_small = array.dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn)
        found[variable.path] = array.astype("float32") if is_small else array
    return found


if __name__ == "__main__":  # python initial_models.py FILE: the arrays of all kinds, on the backend of this process
    arrays = {f"{kind}: {path}": array for kind, how in KINDS.items() for path, array in values(built(*how)).items()}
    np.savez(sys.argv[1], **arrays)
    print(keras.backend.backend())
