"""PEFT's folders as files: which keys count, what patterns mean, and damage, named. No framework."""

import ast
import importlib.util
import json
import os
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from promptness import within
from whole_adapter import read_adapter

from llama_exp.architecture import linear_shapes
from llama_exp.errors import InputError
from llama_exp.formats import open_adapter
from llama_exp.formats.adapter import Matrices
from llama_exp.formats.peft import adapter as peft
from llama_exp.formats.peft.config import IRRELEVANT, REFUSED, USED, read_config

SIZES = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 2,
}
LINEARS = linear_shapes(SIZES)
BASE = {"digest": "abc", "variable_dtype": "float32"}
ARGUMENTS = {"rank": 4, "alpha": 6.0, "dropout": 0.1, "use_rslora": False, "use_dora": False}
QUERY, VALUE = "transformer_layer_0/self_attention/query", "transformer_layer_1/self_attention/value"
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def matrices(ranks):
    """Random `Matrices` by path."""
    generator = np.random.default_rng(0)
    return {
        path: Matrices(*(generator.normal(size=shape).astype("float32") for shape in ((inputs, r), (r, outputs))))
        for path, r in ranks.items()
        for inputs, outputs in [LINEARS[path]]
    }


def names(*ends):
    return [path for path in LINEARS if path.endswith(ends)]


@pytest.fixture
def saved(tmp_path):
    """A folder with adapters of rank 4 on all queries and values."""
    peft.write(tmp_path, matrices(dict.fromkeys(names("query", "value"), 4)), list(LINEARS), ARGUMENTS, BASE)
    return tmp_path


def change_config(folder, **changes):
    path = folder / peft.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder, change):
    path = folder / peft.WEIGHTS_FILE
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


def refusal(folder):
    with pytest.raises(InputError) as error:
        read_adapter(folder, SIZES)
    for problem in error.value.problems:
        assert all((problem.what, problem.where, problem.found, problem.action)) and len(str(problem)) < 2000
    return str(error.value)


# --- what was written comes back


@pytest.mark.parametrize(
    "ranks",
    [
        dict.fromkeys(names("query", "value"), 4),
        {path: 8 if path.endswith("query") else 2 for path in names("query", "value")},
        {QUERY: 4, VALUE: 3, "transformer_layer_1/self_attention/query": 1},
        {path: index + 1 for index, path in enumerate(LINEARS)},
    ],
)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_every_layer_keeps_its_rank_and_scale(tmp_path, ranks, use_rslora):
    alphas = {path: 0.5 + index % 3 for index, path in enumerate(ranks)}
    arguments = ARGUMENTS | {"alpha_pattern": alphas, "use_rslora": use_rslora}
    written = matrices(ranks)
    peft.write(tmp_path, written, list(LINEARS), arguments, BASE)
    with open_adapter(tmp_path, SIZES) as adapter:
        assert (adapter.rank, adapter.alpha, adapter.dropout, adapter.base) == (4, 6.0, 0.1, BASE)
        assert (
            adapter.ranks == ranks and adapter.alphas == alphas and list(adapter.ranks) == [*filter(ranks.get, LINEARS)]
        )
    found = read_adapter(tmp_path, SIZES)
    for path, (a_IR, b_RO, one_scale) in found.items():
        np.testing.assert_array_equal(a_IR, written[path][0])
        np.testing.assert_array_equal(b_RO, written[path][1])
        assert one_scale == alphas[path] / (np.sqrt(ranks[path]) if use_rslora else ranks[path])


def test_equal_layers_of_a_name_share_one_entry_of_a_pattern(tmp_path):
    ranks = {path: 8 if path.endswith("query") else 4 for path in names("query", "value")} | {VALUE: 2}
    peft.write(tmp_path, matrices(ranks), list(LINEARS), ARGUMENTS, BASE)
    config = json.loads((tmp_path / peft.CONFIG_FILE).read_text())
    assert config["rank_pattern"] == {"q_proj": 8, "model.layers.1.self_attn.v_proj": 2}
    assert config["alpha_pattern"] == {} and config["r"] == 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_types_are_read_as_float32(saved, dtype):
    exact = read_adapter(saved, SIZES)
    numpy_dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    change_tensors(saved, lambda tensors: tensors.update({k: v.astype(numpy_dtype) for k, v in tensors.items()}))
    for path, (a_IR, b_RO, _) in read_adapter(saved, SIZES).items():
        assert a_IR.dtype == b_RO.dtype == np.float32
        np.testing.assert_array_equal(a_IR, exact[path][0].astype(numpy_dtype).astype("float32"))
        np.testing.assert_array_equal(b_RO, exact[path][1].astype(numpy_dtype).astype("float32"))


# --- keys of the configuration


def fields_of(module, *classes):
    """Names of the annotated fields of PEFT's dataclasses, without importing torch."""
    folder = Path(importlib.util.find_spec("peft").submodule_search_locations[0])
    tree = ast.parse((folder / module).read_text())
    return {
        line.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in classes
        for line in node.body
        if isinstance(line, ast.AnnAssign)
    }


def test_every_key_of_peft_is_in_exactly_one_list():
    keys = fields_of("tuners/lora/config.py", "LoraConfig") | fields_of("config.py", "PeftConfigMixin", "PeftConfig")
    assert len(keys) > 35
    lists = [*USED, *IRRELEVANT, *REFUSED]
    assert sorted(lists) == sorted(keys)


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_what_changes_the_function_is_refused_by_name(saved, key):
    for unused in REFUSED[key]:
        change_config(saved, **{key: unused})
        assert len(read_adapter(saved, SIZES)) == 4
    change_config(saved, **{key: {"bias": "all", "init_lora_weights": "pissa_niter_4"}.get(key, {"x": 1})})
    assert f"{key}=" in refusal(saved)


@pytest.mark.parametrize("value", [1, 0, True, [0], {"a": None}, "yes"])
def test_keys_of_a_newer_peft_are_refused_unless_unset(saved, value):
    change_config(saved, new_method=None, other_method={}, third=False)
    read_adapter(saved, SIZES)
    change_config(saved, new_method=value)
    assert "new_method=" in refusal(saved)


def test_all_unsupported_keys_are_named_at_once(saved):
    change_config(saved, use_qalora=True, lora_bias=True, modules_to_save=["lm_head"])
    message = refusal(saved)
    assert "3 keys" in message and all(name in message for name in ("use_qalora=true", "lora_bias", '["lm_head"]'))


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 0},
        {"r": 4.0},
        {"r": True},
        {"r": "4"},
        {"lora_alpha": 0},
        {"lora_alpha": None},
        {"lora_dropout": 1},
        {"lora_dropout": "a"},
        {"use_rslora": 1},
        {"use_dora": "yes"},
        {"rank_pattern": [4]},
        {"rank_pattern": {"q_proj": 0}},
        {"alpha_pattern": {"q_proj": "2"}},
        {"rank_pattern": {"(": 2}},
        {"target_modules": {"q_proj": 1}},
        {"target_modules": [1]},
        {"layers_to_transform": "0"},
        {"layers_to_transform": [True]},
        {"peft_type": "LOHA"},
    ],
)
def test_impossible_values_are_named(saved, changes):
    change_config(saved, **changes)
    assert next(iter(changes)) in refusal(saved)


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_missing_keys_are_named(saved, key):
    path = saved / peft.CONFIG_FILE
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    assert f"{key} is missing" in refusal(saved)


# --- patterns and targets mean what they mean in PEFT

MODULES = [peft._module(path) for path in LINEARS]


def stated(folder, **changes):
    change_config(folder, **changes)
    return read_config(folder / peft.CONFIG_FILE)


@pytest.mark.parametrize(
    ("expression", "matched"),
    [
        ("q_proj", r"layers\.[01]\.self_attn\.q_proj"),
        ("self_attn.q_proj", r"layers\.[01]\.self_attn\.q_proj"),
        ("^model.layers.0.self_attn.q_proj", r"layers\.0\.self_attn\.q_proj"),
        (r"model\.layers\.1\..*_proj", r"layers\.1\..*"),
        (r"layers\.\d+\.mlp\.(gate|up)_proj", r"layers\.[01]\.mlp\.(gate|up)_proj"),
        ("_proj", "never"),  # an end counts from a dot
        ("q_pro", "never"),
        ("^q_proj", "never"),
    ],
)
def test_patterns(saved, expression, matched):
    later = r"model\.layers\.[01]\.self_attn\.q_proj"  # the first that matches counts
    config = stated(saved, rank_pattern={expression: 7, later: 5}, alpha_pattern={expression: 0.5})
    for module in MODULES:
        hit = re.search(matched + "$", module) is not None
        assert config.rank_of(module) == (7 if hit else 5 if module.endswith("q_proj") else 4)
        assert config.alpha_of(module) == (0.5 if hit else 6.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target_modules": ["q_proj", "mlp.up_proj"]}, ("q_proj", "up_proj")),
        ({"target_modules": ["layers.0.self_attn.q_proj"]}, ("0.self_attn.q_proj",)),
        ({"target_modules": ["proj"]}, ("never",)),
        ({"target_modules": r"model\.layers\.1\..*q_proj"}, ("1.self_attn.q_proj",)),
        ({"target_modules": "q_proj"}, ("never",)),  # an expression is for whole names
        ({"target_modules": "all-linear"}, ("proj",)),
        ({"target_modules": ["q_proj"], "exclude_modules": ["1.self_attn.q_proj"]}, ("0.self_attn.q_proj",)),
        ({"target_modules": ["q_proj"], "exclude_modules": r".*\.0\..*"}, ("1.self_attn.q_proj",)),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, ("1.self_attn.q_proj",)),
        ({"target_modules": ["q_proj"], "layers_to_transform": 0}, ("0.self_attn.q_proj",)),
        ({"target_modules": ["q_proj"], "layers_to_transform": []}, ("q_proj",)),
        ({"target_modules": []}, ("never",)),
    ],
)
def test_targets(saved, changes, expected):
    assert stated(saved, **changes).targeted(MODULES) == [name for name in MODULES if name.endswith(expected)]


# What other programs write into adapter_config.json, in their manner; each means the layers named beside it.
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
WRITTEN_BY_OTHERS = {
    # unsloth, all layers of a model without pictures
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\."
    r"(?:(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)))": ATTENTION + MLP,
    # the same of attention alone
    r"(?:.*?(?:self_attn|attention|attn).*?(?:q_proj|k_proj|v_proj|o_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn)\.(?:(?:q_proj|k_proj|v_proj|o_proj)))": ATTENTION,
    # axolotl's documentation
    r"model.layers.[\d]+.(mlp|self_attn).(up|down|gate|q|k|v|o)_proj": ATTENTION + MLP,
    r"model\.(language_model\.)?layers\.\d+\.(mlp|self_attn)\.(up|down|gate)_proj": MLP,
    # a part of a model by looking ahead, and what is not of another
    r"^(model)(?=\.).*\.(q_proj|v_proj)$": ("q_proj", "v_proj"),
    r"^(?!.*vision)(?!.*lm_head).*(?<=self_attn\.)(q|k)_proj": ("q_proj", "k_proj"),
    r".*layers\.[01]\.(?P<part>self_attn|mlp)\.(?:[qkv]|up)_proj": ("q_proj", "k_proj", "v_proj", "up_proj"),
}


@pytest.mark.parametrize("expression", WRITTEN_BY_OTHERS)
def test_expressions_of_other_programs_are_understood(saved, expression):
    expected = [name for name in MODULES if name.endswith(WRITTEN_BY_OTHERS[expression])]
    assert [name for name in MODULES if re.fullmatch(expression, name)] == expected  # PEFT's own rule
    assert stated(saved, target_modules=expression).targeted(MODULES) == expected
    ranks = stated(saved, target_modules=["q_proj"], rank_pattern={expression: 9})
    assert [name for name in MODULES if ranks.rank_of(name) == 9] == expected


def test_an_adapter_with_such_an_expression_is_read(saved):
    change_config(
        saved, target_modules=r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.x)"
    )
    with open_adapter(saved, SIZES) as adapter:
        assert list(adapter.ranks) == names("query", "value")


@pytest.mark.parametrize("expression", [r"(a+)+$", r"(.*)*x", r".*.*.*x", "(a|aa)(a|aa)(a|aa)(a|aa)b", "(a{1,9}){9}"])
@pytest.mark.parametrize("key", ["rank_pattern", "target_modules"])
def test_an_expression_takes_no_time_whatever_it_is(saved, key, expression):
    with within(1):
        config = stated(saved, **{key: {expression: 2} if key == "rank_pattern" else expression})
        assert {config.rank_of(name) for name in MODULES} == {4}


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (r"(\w)\1", "is a back reference"),
        (r"(?P<a>\w)(?P=a)", "is not understood"),
        ("(?>q)_proj", "is not understood"),
        ("(?i:q)_proj", "is not understood"),
        (r".*+q_proj", "possessive"),
        ("(q_proj", "no regular expression"),
        ("a" * 4001 + "|", "characters"),
        ("(" * 51 + ")" * 51, "groups in more than"),
    ],
)
@pytest.mark.parametrize("key", ["rank_pattern", "target_modules"])
def test_other_expressions_are_named_with_what_to_write_instead(saved, key, expression, reason):
    change_config(saved, **{key: {expression: 2} if key == "rank_pattern" else expression})
    with within(1):
        message = refusal(saved)
    assert key in message and reason in message
    change_config(saved, **{key: json.loads(message.rpartition(f'"{key}": ')[2])})  # the advice, followed
    assert "regular expression" not in str(stated(saved))


# --- damage


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / peft.CONFIG_FILE).unlink(), "adapter_config.json"),
        (lambda folder: (folder / peft.CONFIG_FILE).write_text('{"r": 1, "r": 2}'), "'r' stands twice"),
        (lambda folder: (folder / peft.WEIGHTS_FILE).unlink(), "adapter_model.safetensors"),
        (lambda folder: (folder / peft.WEIGHTS_FILE).write_bytes(b"\x08\0\0\0\0\0\0\0{}"), "truncated"),
        (lambda folder: change_config(folder, r=8), "lora_A (4, 32) instead of (8, 32)"),
        (lambda folder: change_config(folder, rank_pattern={"v_proj": 2}), "lora_B (16, 4) instead of (16, 2)"),
        (lambda folder: change_tensors(folder, lambda t: t.pop(KEY)), "query: no lora_A"),
        (lambda folder: change_tensors(folder, lambda t: t.update({KEY: t[KEY].T.copy()})), "lora_A (32, 4) instead"),
        (lambda folder: change_tensors(folder, lambda t: t.update({KEY: t[KEY] * np.nan})), KEY),
        (lambda folder: change_tensors(folder, lambda t: t.clear()), "holds no adapter"),
    ],
)
def test_damage_is_named(saved, damage, named):
    damage(saved)
    assert named in refusal(saved)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.mlp.router.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.lm_head.lora_A.weight",
    ],
)
def test_tensors_of_other_models_are_refused_by_name(saved, name):
    change_tensors(saved, lambda tensors: tensors.update({name: tensors[KEY]}))
    message = refusal(saved)
    assert name in message and "no adapter of a Llama" in message


MAGNITUDE = KEY.replace("lora_A.weight", "lora_magnitude_vector")


def test_magnitudes_are_there_exactly_with_dora(tmp_path):
    written = {path: own._replace(magnitude_O=own.b_RO[0] + 1) for path, own in matrices({QUERY: 4, VALUE: 2}).items()}
    peft.write(tmp_path, written, list(LINEARS), ARGUMENTS | {"use_dora": True}, BASE)
    with open_adapter(tmp_path, SIZES) as adapter:
        assert adapter.use_dora
        for path, own in written.items():
            for found, expected in zip(adapter.read(path), own, strict=True):
                np.testing.assert_array_equal(found, expected)
    change_config(tmp_path, use_dora=False)
    assert "lora_magnitude_vector, of which there should be none" in refusal(tmp_path)
    change_config(tmp_path, use_dora=True)
    change_tensors(tmp_path, lambda tensors: tensors.update({MAGNITUDE: tensors[MAGNITUDE][:8]}))
    assert "lora_magnitude_vector (8,) instead of (32,)" in refusal(tmp_path)
    change_tensors(tmp_path, lambda tensors: tensors.pop(MAGNITUDE))
    assert "query: no lora_magnitude_vector" in refusal(tmp_path)


def test_a_lost_layer_is_missed(saved):
    change_tensors(saved, lambda tensors: [tensors.pop(key) for key in list(tensors) if "layers.1.self_attn.v" in key])
    assert "1 modules" in refusal(saved) and "model.layers.1.self_attn.v_proj" in refusal(saved)
    change_config(saved, target_modules=["q_proj"])
    assert "does not target them" in refusal(saved) and "model.layers.0.self_attn.v_proj" in refusal(saved)


def test_another_architecture_is_refused(saved):
    for changes, named in (
        ({"num_layers": 1}, "transformer_layer_1/self_attention/query"),
        ({"hidden_dim": 64}, "lora_A (4, 32) instead of (4, 64)"),
        ({"num_key_value_heads": 4}, "lora_B (16, 4) instead of (32, 4)"),
        ({"num_layers": 3}, "model.layers.2.self_attn.q_proj"),
    ):
        with pytest.raises(InputError) as error:
            read_adapter(saved, SIZES | changes)
        assert named in str(error.value)


def test_pickles_are_never_read(saved):
    (saved / peft.WEIGHTS_FILE).rename(saved / peft.PICKLE_FILE)
    message = refusal(saved)
    assert "pickle" in message and peft.WEIGHTS_FILE in message


@pytest.mark.parametrize("file", [peft.CONFIG_FILE, peft.WEIGHTS_FILE])
def test_pipes_and_links_out_are_refused(saved, tmp_path_factory, file):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / file
    (saved / file).rename(elsewhere)
    (saved / file).symlink_to(elsewhere)
    assert "leads out" in refusal(saved)
    (saved / file).unlink()
    os.mkfifo(saved / file)
    assert "not an ordinary file" in refusal(saved)


@pytest.mark.parametrize("text", ["{", "[]", '{"digest": "a"}', '{"digest": 1, "variable_dtype": "float32"}'])
def test_damaged_metadata_is_refused(saved, text):
    path = saved / peft.WEIGHTS_FILE
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, metadata={peft.METADATA_KEY: text})
    assert str(path) in refusal(saved)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_are_read_or_refused(saved, seed):
    generator = np.random.default_rng(seed)
    for file in (peft.CONFIG_FILE, peft.WEIGHTS_FILE):
        original = (saved / file).read_bytes()
        limit = min(len(original), 1500)  # the header
        for _ in range(60):
            data = bytearray(original)
            for position in generator.integers(0, limit, 1 + generator.integers(3)):
                data[position] = generator.integers(256)
            (saved / file).write_bytes(bytes(data[: generator.integers(1, len(data) + 1)] if seed % 2 else data))
            try:
                read_adapter(saved, SIZES)
            except InputError:
                continue
        (saved / file).write_bytes(original)
    assert len(read_adapter(saved, SIZES)) == 4


def test_what_is_no_adapter_is_refused(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"nothing")
    for path, named in ((tmp_path / "file.bin", "no adapter"), (tmp_path / "absent", "absent"), (tmp_path, "file.bin")):
        assert named in refusal(path)
