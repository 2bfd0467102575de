"""Hugging Face configurations: published ones, both layouts of rope, and every key that must not be passed over."""

import json

import hf_folders
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_configs import TINY_CONFIGS

from llama_exp.architecture import CONFIG_KEYS, DEFAULTS, count_parameters
from llama_exp.errors import InputError
from llama_exp.formats.hugging_face.config import config_document, read_config
from llama_exp.formats.hugging_face.keys import IRRELEVANT, REFUSED, USED

LLAMA_2 = {
    "_name_or_path": "meta-llama/Llama-2-7b-hf",
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
LLAMA_3 = LLAMA_2 | {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_key_value_heads": 8,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA_3_1 = LLAMA_3 | {
    "eos_token_id": [128001, 128008, 128009],
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "rope_scaling": SCALING,
}
LLAMA_3_2 = LLAMA_3_1 | {
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "rope_scaling": SCALING | {"factor": 32.0},
    "tie_word_embeddings": True,
}
TINY_LLAMA = LLAMA_2 | {
    "attention_bias": False,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "max_position_embeddings": 2048,
    "num_hidden_layers": 22,
    "num_key_value_heads": 4,
    "rope_theta": 10000.0,
}
SMOL_LM_2 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 49152,
}
# From before grouped queries and rope_theta.
VICUNA = {key: value for key, value in LLAMA_2.items() if key not in ("num_key_value_heads", "rope_scaling")} | {
    "max_length": 4096,
    "pad_token_id": 0,
    "transformers_version": "4.31.0",
}
FIRST_LLAMA = {key: value for key, value in VICUNA.items() if key != "tie_word_embeddings"} | {
    "architectures": ["LLaMAForCausalLM"],
    "bos_token_id": 0,
    "max_sequence_length": 2048,
    "pad_token_id": -1,
    "rms_norm_eps": 1e-06,
}
ADJUSTMENT = {
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 8192,
}
PUBLISHED = {
    "Llama 2": (LLAMA_2, 6738415616, {"layer_norm_epsilon": 1e-5, "rope_max_wavelength": 10000.0}),
    "Llama 3": (LLAMA_3, 8030261248, {"rope_max_wavelength": 500000.0, "rope_low_freq_factor": None}),
    "Llama 3.1": (LLAMA_3_1, 8030261248, ADJUSTMENT),
    "Llama 3.2": (LLAMA_3_2, 1235814400, ADJUSTMENT | {"rope_frequency_adjustment_factor": 32.0}),
    "TinyLlama": (TINY_LLAMA, 1100048384, {"num_key_value_heads": 4}),
    "SmolLM2": (SMOL_LM_2, 134515008, {"rope_max_wavelength": 100000, "tie_word_embeddings": True}),
    "Vicuna": (VICUNA, 6738415616, {"num_key_value_heads": 32, "rope_position_scaling_factor": 1.0}),
    "first Llama": (FIRST_LLAMA, 6738415616, {"layer_norm_epsilon": 1e-6, "tie_word_embeddings": False}),
}


def read(folder, **changes):
    hf_folders.write_config(folder, **changes)
    return read_config(folder).config


def rejected(folder, **changes):
    with pytest.raises(InputError) as raised:
        read(folder, **changes)
    for problem in raised.value.problems:
        assert all((problem.what, problem.where, problem.found, problem.action))
        assert problem.where.endswith("config.json")
    return str(raised.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations(tmp_path, name):
    document, num_parameters, expected = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(document))
    config, context_length = read_config(tmp_path)
    assert context_length == document.get("max_position_embeddings")
    assert set(config) == set(CONFIG_KEYS)
    assert count_parameters(config) == num_parameters
    assert {key: config[key] for key in expected} == expected


def test_no_key_is_in_two_lists():
    assert len(USED | IRRELEVANT | set(REFUSED)) == len(USED) + len(IRRELEVANT) + len(REFUSED)


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_what_was_written_is_read(tmp_path, name):
    document = config_document(TINY_CONFIGS[name], "float32", {"bos_token_id": 1, "max_position_embeddings": 64})
    (tmp_path / "config.json").write_text(json.dumps(document))
    assert read_config(tmp_path) == (TINY_CONFIGS[name], 64)
    assert document["bos_token_id"] == 1 and document["eos_token_id"] is None


def test_the_context_length_is_stated_where_it_is_known():
    assert "max_position_embeddings" not in config_document(TINY_CONFIGS["tied"], "float32")
    assert config_document(TINY_CONFIGS["llama_3_1"], "float32")["max_position_embeddings"] == 8 * 16


@pytest.mark.parametrize("length", [0, -1, 2048.0, True, "2048", []])
def test_a_context_length_that_is_no_number_of_tokens(tmp_path, length):
    assert "max_position_embeddings must be a whole number above 0" in rejected(
        tmp_path, max_position_embeddings=length
    )


def test_no_context_length(tmp_path):
    hf_folders.write_config(tmp_path, max_position_embeddings=None)
    assert read_config(tmp_path).context_length is None


def test_an_unknown_note_is_an_error():
    with pytest.raises(ValueError, match="vocab_size"):
        config_document(TINY_CONFIGS["tied"], "float32", {"vocab_size": 3})


def test_two_rope_scalings_at_once_cannot_be_stated():
    both = TINY_CONFIGS["llama_3_1"] | {"rope_position_scaling_factor": 2.0}
    with pytest.raises(InputError, match="rope_position_scaling_factor"):
        config_document(both, "float32")


# --- rope

LINEAR = {"rope_position_scaling_factor": 4.0}
LAYOUTS = {
    "nothing": ({"rope_theta": ...}, {}),
    "theta": ({"rope_theta": 7}, {"rope_max_wavelength": 7}),
    "theta in rope_parameters": (
        {"rope_theta": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 7}},
        {"rope_max_wavelength": 7},
    ),
    "theta null": ({"rope_theta": None, "rope_parameters": {"rope_theta": 7.0}}, {"rope_max_wavelength": 7}),
    "theta twice, equal": ({"rope_theta": 7, "rope_parameters": {"rope_theta": 7.0}}, {"rope_max_wavelength": 7}),
    "old linear": ({"rope_scaling": {"type": "linear", "factor": 4.0}}, LINEAR),
    "newer linear": ({"rope_scaling": {"rope_type": "linear", "factor": 4}}, LINEAR),
    "both names": ({"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4}}, LINEAR),
    "linear of transformers 5": (
        {"rope_theta": ..., "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 7}},
        LINEAR | {"rope_max_wavelength": 7},
    ),
    "both layouts agree": (
        {"rope_scaling": {"type": "linear", "factor": 4}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
        LINEAR,
    ),
    "empty": ({"rope_scaling": {}, "rope_parameters": {}}, {}),
    "whole head": ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}}, {}),
    "llama3 old": ({"rope_scaling": SCALING}, ADJUSTMENT),
    "llama3 new": ({"rope_theta": ..., "rope_parameters": SCALING | {"rope_theta": 10000.0}}, ADJUSTMENT),
    "llama3, length outside": (
        {
            "rope_scaling": SCALING | {"original_max_position_embeddings": None},
            "original_max_position_embeddings": 8192,
            "max_position_embeddings": 9999,
        },
        ADJUSTMENT,
    ),
    "llama3, length of the context": (
        {"rope_scaling": SCALING | {"original_max_position_embeddings": None}, "max_position_embeddings": 8192},
        ADJUSTMENT,
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_rope(tmp_path, layout):
    changes, expected = LAYOUTS[layout]
    config = read(tmp_path, **changes)
    rope = {key: value for key, value in config.items() if key.startswith("rope_")}
    defaults = {key: value for key, value in DEFAULTS.items() if key.startswith("rope_")}
    assert rope == defaults | {"rope_max_wavelength": 10000.0} | expected


REFUSED_ROPES = {
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}},
    "longrope": {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
    "rope_type=7": {"rope_scaling": {"rope_type": 7}},
    "rope_type=['linear']": {"rope_scaling": {"rope_type": ["linear"], "factor": 2.0}},
    "type='linear'": {"rope_scaling": {"rope_type": "default", "type": "linear", "factor": 2.0}},
    "factor=2.0": {"rope_scaling": {"rope_type": "default", "factor": 2.0}},
    "beta_fast=32": {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 32}},
    "no factor": {"rope_scaling": {"rope_type": "linear"}},
    "no low_freq_factor": {"rope_scaling": {k: v for k, v in SCALING.items() if k != "low_freq_factor"}},
    "no original_max_position_embeddings": {"rope_scaling": SCALING | {"original_max_position_embeddings": None}},
    "8 and 8192": {"rope_scaling": SCALING, "original_max_position_embeddings": 8},
    "rope_scaling.factor": {"rope_scaling": {"type": "linear", "factor": "4"}},
    "rope_parameters.factor": {"rope_parameters": {"rope_type": "linear", "factor": -1}},
    "rope_low_freq_factor=4.0": {"rope_scaling": SCALING | {"low_freq_factor": 4.0}},
    "partial_rotary_factor": {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    "must be an object": {"rope_scaling": "linear"},
    "10000.0 and 7": {"rope_parameters": {"rope_theta": 7}},
    "rope_scaling and rope_parameters disagree": {
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_type": "linear", "factor": 4.0},
    },
    "disagree": {"rope_scaling": SCALING, "rope_parameters": {"rope_type": "default"}},
    "rope_theta must": {"rope_theta": 0},
    "'10000'": {"rope_theta": "10000"},
}


@pytest.mark.parametrize("named", REFUSED_ROPES)
def test_rope_that_is_refused(tmp_path, named):
    assert named in rejected(tmp_path, **REFUSED_ROPES[named])


# --- other keys

REFUSALS = {
    "attention_bias=True": {"attention_bias": True},
    "mlp_bias=True": {"mlp_bias": True},
    "head_dim=16, hidden_size / num_attention_heads = 8": {"head_dim": 16},
    "hidden_act='gelu'": {"hidden_act": "gelu"},
    "hidden_act=None": {"hidden_act": None},
    "quantization_config": {"quantization_config": {"quant_method": "fp8"}},
    "sliding_window=128": {"sliding_window": 128},
    "layer_types": {"layer_types": ["full_attention", "sliding_attention"]},
    "rope_interleaved=True": {"rope_interleaved": True},
    "partial_rotary_factor=0.5": {"partial_rotary_factor": 0.5},
    "pruned_heads": {"pruned_heads": {"0": [1]}},
    "is_encoder_decoder=True": {"is_encoder_decoder": True},
    "embedding_multiplier": {"embedding_multiplier": 12.0},
    "rms_norm_eps must": {"rms_norm_eps": 0},
    "'1e-5'": {"rms_norm_eps": "1e-5"},
    "tie_word_embeddings must be true or false": {"tie_word_embeddings": 1},
    "no vocab_size, hidden_size": {"vocab_size": ..., "hidden_size": None},
    "num_layers=1000000000, limit": {"num_hidden_layers": 10**9},
    "vocab_size must": {"vocab_size": -1},
    "vocabulary_size=2147483648, limit": {"vocab_size": 2**31},
    "hidden_size must": {"hidden_size": 32.0},
    "num_attention_heads must": {"num_attention_heads": True},
    "num_key_value_heads=3": {"num_key_value_heads": 3},
    "num_query_heads=5": {"num_attention_heads": 5},
    "model_type='mistral'": {"model_type": "mistral"},
    "model_type=None": {"model_type": ...},
    "LlamaForSequenceClassification": {"architectures": ["LlamaForSequenceClassification"]},
}


@pytest.mark.parametrize("named", REFUSALS)
def test_keys_that_are_refused(tmp_path, named):
    assert named in rejected(tmp_path, **REFUSALS[named])


def test_every_refused_key_is_accepted_where_it_is_not_used(tmp_path):
    for key, unused in REFUSED.items():
        for value in unused:
            assert read(tmp_path, **{key: value}) == read(tmp_path)
            assert key in rejected(tmp_path, **{key: "something"})
    assert read(tmp_path, layer_types=["full_attention"] * 2) == read(tmp_path)


def test_irrelevant_keys_change_nothing(tmp_path):
    assert read(tmp_path, **dict.fromkeys(IRRELEVANT, "anything"), _anything=1) == read(tmp_path)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    text = rejected(tmp_path, attention_bias=True, hidden_act="gelu", logit_scale=2, rope_theta=-1, vocab_size=0)
    for named in ("attention_bias", "hidden_act", "logit_scale", "rope_theta", "vocab_size"):
        assert named in text


def test_control_characters_of_a_key_do_not_reach_the_terminal(tmp_path):
    assert "\x1b" not in rejected(tmp_path, **{"\x1b[2J": 1})


def test_a_link_to_another_place_is_refused(tmp_path):
    folder, secret = tmp_path / "model", tmp_path / "secret.json"
    folder.mkdir()
    secret.write_text(json.dumps(hf_folders.CONFIG))
    (folder / "config.json").symlink_to(secret)
    with pytest.raises(InputError, match="leads out"):
        read_config(folder)


# --- whatever the values are

values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**12) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["rope_type", "type", "factor", "rope_theta", "low_freq_factor", "x"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(USED | set(REFUSED) | {"unknown", "_own"})), values, max_size=4))
def test_any_values_are_read_or_refused(tmp_path, changes):
    try:
        assert set(read(tmp_path, **changes)) == set(CONFIG_KEYS)
    except InputError as error:
        assert all("config.json" in problem.where for problem in error.problems)
