"""Hugging Face folders: both directions against transformers itself, and folders that must be refused."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import hf_folders
import hf_models
import ml_dtypes
import numpy as np
import pytest
from hf_folders import CONFIG, state, write_config, write_folder, write_shards, write_weights
from tiny_configs import TINY_CONFIGS, as_tensors, random_arrays, stored_dtype

from llama_exp import formats
from llama_exp.errors import InputError
from llama_exp.formats.hugging_face.checkpoint import open_checkpoint, read_architecture, write

GATE = "model.layers.1.mlp.gate_proj.weight"


def opened(folder):
    """All tensors of a checkpoint, and its configuration."""
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.format == "hugging_face" and checkpoint.quantization is None and not checkpoint.doubtful
        arrays = {path: tensor.read(None) for path, tensor in checkpoint.tensors.items()}
        for path, tensor in checkpoint.tensors.items():
            assert (tensor.shape, tensor.dtype) == (arrays[path].shape, arrays[path].dtype)
        return arrays, checkpoint.config


def rejected(folder):
    with pytest.raises(InputError) as raised, open_checkpoint(folder):
        pass
    for problem in raised.value.problems:
        assert all((problem.what, problem.where, problem.found, problem.action))
        assert str(folder) in problem.where
    return str(raised.value)


def assert_same(arrays, others):
    assert arrays.keys() == others.keys()
    for name, values in arrays.items():
        assert values.dtype == others[name].dtype
        np.testing.assert_array_equal(values, others[name], err_msg=name)


# --- against transformers


@pytest.mark.oracle
@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_what_transformers_saved_is_read(tmp_path, name):
    model = hf_models.random_model(name, TINY_CONFIGS[name])
    # As few or as many files as transformers makes of it.
    model.to(hf_models.torch_dtype(name)).save_pretrained(
        tmp_path, max_shard_size=20_000 if TINY_CONFIGS[name]["num_layers"] > 2 else "1GB"
    )
    arrays, config = opened(tmp_path)
    assert config == TINY_CONFIGS[name]
    expected = hf_folders.in_our_order(hf_models.state(model), config)
    assert_same(arrays, {path: values.astype(stored_dtype(name)) for path, values in expected.items()})
    assert formats.read_architecture(tmp_path) == config


@pytest.mark.oracle
@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_transformers_reads_what_was_written(tmp_path, name):
    config = TINY_CONFIGS[name]
    model = hf_models.random_model(name, config)
    ours = hf_folders.in_our_order(hf_models.state(model), config)
    tensors = as_tensors({path: values.astype(stored_dtype(name)) for path, values in ours.items()})
    write(tmp_path, config, tensors, max_shard_bytes=20_000, notes={"eos_token_id": 3}, generation_config={"top_k": 5})
    loaded = hf_models.load(tmp_path)
    ids = hf_models.token_ids(config)
    np.testing.assert_array_equal(hf_models.logits(loaded, ids), hf_models.logits(model, ids))
    assert loaded.config.eos_token_id == 3 and loaded.generation_config.top_k == 5
    assert loaded.config.bos_token_id is None


@pytest.mark.oracle
def test_every_key_of_transformers_configuration_is_known(tmp_path):
    _, transformers = hf_models.frameworks()
    document = transformers.LlamaConfig().to_dict() | {"architectures": ["LlamaForCausalLM"], "_commit_hash": "0"}
    (tmp_path / "config.json").write_text(json.dumps(document))
    assert read_architecture(tmp_path)["hidden_dim"] == 4096


# --- without any framework


def test_tensors_are_where_transformers_names_say(tmp_path):
    tensors = state()
    arrays, config = opened(write_folder(tmp_path, tensors))
    assert_same(arrays, hf_folders.in_our_order(tensors, config))
    assert all(values.flags.c_contiguous for values in arrays.values())


@pytest.mark.parametrize("name", TINY_CONFIGS)
@pytest.mark.parametrize("max_shard_bytes", [None, 6000])
def test_what_was_written_is_read(tmp_path, name, max_shard_bytes):
    config = TINY_CONFIGS[name]
    arrays = random_arrays(config, stored_dtype(name))
    write(tmp_path, config, as_tensors(arrays), max_shard_bytes)
    read, read_config = opened(tmp_path)
    assert read_config == config
    assert_same(read, arrays)


def test_shards_are_named_as_transformers_names_them(tmp_path):
    arrays = random_arrays(TINY_CONFIGS["multi_head"])
    write(tmp_path, TINY_CONFIGS["multi_head"], as_tensors(arrays), max_shard_bytes=40_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    count = len(shards)
    assert shards == [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)] and count > 1
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
    assert all((tmp_path / shard).stat().st_size < 42_000 for shard in shards)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_type_to_store_in(tmp_path, dtype):
    config = TINY_CONFIGS["multi_head"]
    arrays = random_arrays(config)
    write(tmp_path, config, as_tensors(arrays), dtype=dtype)
    assert_same(opened(tmp_path)[0], {path: values.astype(dtype) for path, values in arrays.items()})
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == np.dtype(dtype).name


@pytest.mark.parametrize(
    ("norms", "others", "stated"),
    [("float32", "float16", "float32"), ("float16", "bfloat16", "float32"), ("float64", "float32", "float64")],
)
def test_the_stated_type_holds_all_tensors_without_loss(tmp_path, norms, others, stated):
    config = TINY_CONFIGS["tied"]
    types = {"bfloat16": ml_dtypes.bfloat16}
    arrays = {
        path: values.astype(types.get(norms if values.ndim == 1 else others, norms if values.ndim == 1 else others))
        for path, values in random_arrays(config).items()
    }
    write(tmp_path, config, as_tensors(arrays))
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == stated
    assert_same(opened(tmp_path)[0], arrays)


def test_tensors_of_another_model_are_not_written(tmp_path):
    config = TINY_CONFIGS["multi_head"]
    tensors = as_tensors(random_arrays(config))
    scale = "transformer_layer_0/self_attention/query/kernel_scale"
    with pytest.raises(ValueError, match="kernel_scale"):
        write(tmp_path, config, tensors | {scale: tensors["sequence_output_layernorm/scale"]})
    with pytest.raises(ValueError, match="shapes"):
        write(tmp_path, config | {"vocabulary_size": 49}, tensors)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    config = TINY_CONFIGS["multi_head"]
    with formats.writing(tmp_path / "model") as draft:
        write(draft, config, as_tensors(random_arrays(config)))
    assert_same(opened(tmp_path / "model")[0], random_arrays(config))
    with pytest.raises(ValueError), formats.writing(tmp_path / "other") as draft:
        write(draft, config | {"vocabulary_size": 49}, as_tensors(random_arrays(config)))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# --- configuration and tensors that do not fit each other (P12 - P14, P17)


def test_more_layers_in_the_file_than_in_the_configuration(tmp_path):
    write_folder(tmp_path, state(CONFIG | {"num_hidden_layers": 3}))
    text = rejected(tmp_path)
    assert "the file has 3 layers, the configuration 2" in text and "model.layers.2." in text and "and 4 more" in text


def test_fewer_layers_in_the_file_than_in_the_configuration(tmp_path):
    for num_layers in (3, 2000):
        write_folder(tmp_path, state(), num_hidden_layers=num_layers)
        assert f"the file has 2 layers, the configuration {num_layers}" in rejected(tmp_path)


def test_missing_unexpected_and_unfit_tensors_are_named_together(tmp_path):
    tensors = state()
    # Names are compared whole: a name that ends like the missing one does not stand in for it.
    tensors["xx.model.norm.weight"] = tensors.pop("model.norm.weight")
    tensors[GATE] = tensors[GATE].T
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(32, np.float32)
    text = rejected(write_folder(tmp_path, tensors))
    assert "1 tensors are missing" in text and "found: model.norm.weight" in text
    assert "2 tensors are not the model's" in text and "xx.model.norm.weight" in text and "q_proj.bias" in text
    assert "1 tensors do not fit" in text and f"{GATE}: shape (32, 40) instead of (40, 32)" in text


@pytest.mark.parametrize(
    "changes",
    [{"num_attention_heads": 8}, {"num_key_value_heads": 4}, {"num_key_value_heads": ...}, {"num_key_value_heads": 1}],
)
def test_heads_that_do_not_fit_the_projections(tmp_path, changes):
    text = rejected(write_folder(tmp_path, state(), **changes))
    assert "4 tensors do not fit" in text and "k_proj.weight: shape (16, 32)" in text


@pytest.mark.parametrize("num_key_value_heads", [2, 4])
def test_other_heads_with_the_same_shapes(tmp_path, num_key_value_heads):
    """Twice as many heads of both kinds, each half as wide: no shape shows it, only `head_dim` can."""
    tensors = state(CONFIG | {"num_key_value_heads": num_key_value_heads})
    wrong = {"num_attention_heads": 8, "num_key_value_heads": 2 * num_key_value_heads}
    text = rejected(write_folder(tmp_path, tensors, **wrong, head_dim=8))
    assert "head_dim=8, hidden_size / num_attention_heads = 4" in text
    assert (
        opened(write_folder(tmp_path, tensors, **wrong))[1]["num_query_heads"] == 8
    )  # without it the file is believed


def test_an_output_matrix_is_missing(tmp_path):
    tensors = state()
    del tensors["lm_head.weight"]
    text = rejected(write_folder(tmp_path, tensors))
    assert "found: lm_head.weight" in text and "set tie_word_embeddings to true" in text


def test_a_tied_model_may_store_its_table_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "llama_exp.formats.hugging_face.tensor_checks.COMPARED_BYTES", 32 * 8 * 5
    )  # five rows at a time
    tensors = state()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    arrays, config = opened(write_folder(tmp_path, tensors, tie_word_embeddings=True))
    assert_same(arrays, hf_folders.in_our_order(tensors, config))
    tensors["lm_head.weight"][47, 31] += 1e-6
    text = rejected(write_folder(tmp_path, tensors, tie_word_embeddings=True))
    assert "not the embedding table" in text and "lm_head.weight" in text


def test_stored_frequencies_of_old_files_are_passed_over(tmp_path):
    tensors = state()
    for i in range(2):
        tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    assert len(opened(write_folder(tmp_path, tensors))[0]) == 21
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    assert "inv_freq: shape (8,) instead of (4,)" in rejected(write_folder(tmp_path, tensors))


# --- tensors that are refused (P16, P18)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "U8"])
def test_quantized_tensors_are_refused_by_name(tmp_path, dtype):
    write_config(tmp_path)
    header = {GATE: {"dtype": dtype, "shape": [40, 32], "data_offsets": [0, 1280]}}
    (tmp_path / "model.safetensors").write_bytes(hf_folders.file_bytes(header, bytes(1280)))
    text = rejected(tmp_path)
    assert f"{GATE} is {dtype}" in text and "not quantized" in text


def test_a_tensor_that_is_not_finite_is_named(tmp_path):
    tensors = state()
    tensors[GATE][3, 4] = np.nan
    with open_checkpoint(write_folder(tmp_path, tensors)) as checkpoint:
        with pytest.raises(InputError, match=rf"model.safetensors: {GATE}"):
            checkpoint.tensors["transformer_layer_1/feedforward_gate_dense/kernel"].read(None)


def test_a_value_that_overflows_in_the_type_asked_for_is_named(tmp_path):
    tensors = state()
    tensors[GATE][3, 4] = 1e6
    with open_checkpoint(write_folder(tmp_path / "model", tensors)) as checkpoint:
        (tmp_path / "half").mkdir()
        with pytest.raises(InputError, match=GATE):
            write(tmp_path / "half", checkpoint.config, checkpoint.tensors, dtype=np.dtype(np.float16))


# --- files (S05, S06, S11)


def test_shards_are_read(tmp_path):
    tensors = state()
    arrays, config = opened(write_shards(tmp_path, tensors))
    assert_same(arrays, hf_folders.in_our_order(tensors, config))


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "/etc/x.safetensors", "../x.safetensors", "a/../../x.safetensors", "a/x.safetensors", "x.bin", ""]
    + [".x.safetensors", "x\0.safetensors", "x.safetensors\n", 7, None, ["x.safetensors"]],
)
def test_an_index_names_files_of_its_folder_only(tmp_path, name):
    write_weights(tmp_path / "x.safetensors", state())
    text = rejected(write_shards(tmp_path / "model", state(), **{GATE: name}))
    assert "a shard's name" in text and repr(name)[1:-1] in text


def test_links_lead_out_of_the_folder_only_into_the_cache(tmp_path):
    outside = tmp_path / "secret.safetensors"
    write_weights(outside, state())
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(outside)
    assert "leads out" in rejected(folder)
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (folder / "model.safetensors").unlink()
    write_folder(folder)
    for file in ("config.json", "model.safetensors"):
        os.rename(folder / file, blobs / file)
        (snapshot / file).symlink_to(Path("..", "..", "blobs", file))
    assert opened(snapshot)[0].keys() == random_arrays(TINY_CONFIGS["grouped_query"]).keys()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": 1}'])
def test_an_index_that_is_none(tmp_path, content):
    write_shards(tmp_path, state())
    (tmp_path / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in rejected(tmp_path)


def test_shards_that_are_missing_or_surplus(tmp_path):
    write_shards(tmp_path, state())
    second = tmp_path / "model-00002-of-00002.safetensors"
    (tmp_path / "model-00003-of-00002.safetensors").write_bytes(second.read_bytes())
    text = rejected(tmp_path)
    assert "1 shards of the folder are not in the index" in text and "model-00003-of-00002" in text
    (tmp_path / "model-00003-of-00002.safetensors").unlink()
    second.unlink()
    text = rejected(tmp_path)
    assert "1 of 2 shards are missing" in text and second.name in text


def test_tensors_in_another_shard_than_the_index_says(tmp_path):
    first = "model-00001-of-00002.safetensors"
    text = rejected(write_shards(tmp_path, state(), **{GATE: first, "other": first}))
    assert "2 tensors of the index are not in the shard" in text and "other" in text
    assert "1 tensors are not in this shard by the index" in text and GATE in text


def test_a_tensor_in_two_shards(tmp_path):
    tensors = state()
    write_shards(tmp_path, tensors)
    write_weights(tmp_path / "model-00001-of-00002.safetensors", dict(list(tensors.items())[:4]))
    assert "1 tensors are not in this shard by the index" in rejected(tmp_path)


def test_two_sets_of_weights(tmp_path):
    write_shards(tmp_path, state())
    write_folder(tmp_path)
    assert "both model.safetensors and model.safetensors.index.json" in rejected(tmp_path)


def test_no_weights(tmp_path):
    write_config(tmp_path)
    assert "neither model.safetensors nor" in rejected(tmp_path)
    assert read_architecture(tmp_path)["num_layers"] == 2


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth"])
def test_pickled_weights_are_refused_and_never_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    text = rejected(tmp_path)
    assert name in text and "pickles" in text and "save_pretrained" in text
    os.rename(name, "model.safetensors")
    assert "looks like a Python pickle" in rejected(tmp_path)
    assert not os.path.exists("trapped")


AUDITED = """
import sys
from pathlib import Path
from llama_exp.errors import InputError
from llama_exp.formats.hugging_face.checkpoint import open_checkpoint
forbidden = {"pickle.find_class", "marshal.loads", "exec", "compile", "os.system", "subprocess.Popen", "import"}
seen = []
sys.addaudithook(lambda event, _: event in forbidden and seen.append(event))
for folder in sys.argv[1:]:
    try:
        with open_checkpoint(Path(folder)) as checkpoint:
            [tensor.read(None) for tensor in checkpoint.tensors.values()]
            print("read")
    except InputError:
        print("refused")
print(sorted(set(seen)), [name for name in ("pickle", "torch", "keras", "safetensors") if name in sys.modules])
"""


@pytest.mark.process
def test_reading_runs_no_code_and_imports_nothing(tmp_path):
    """Not even a module of Python's that could: everything was imported before the first file was opened."""
    write_folder(tmp_path / "good")
    write_folder(tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    command = [sys.executable, "-c", AUDITED, str(tmp_path / "good"), str(tmp_path / "bad")]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:2] == ["read", "refused"]
    assert done.stdout.splitlines()[2].startswith("[]")
