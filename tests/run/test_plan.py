"""The plan: exact counts, and a memory estimate whose parts move as they should."""

import io

import pytest
from rich.console import Console

from llama_exp.architecture import count_flops_per_token
from llama_exp.config.check import check_arguments
from llama_exp.config.identity import to_dict
from llama_exp.run import plan
from llama_exp.run.plan_memory import LOGIT_ARRAYS


def planned(*arguments):
    return plan.make_plan(check_arguments(arguments).config)


def test_the_default_run():
    made = planned()
    assert (made.num_parameters, made.num_trainable_parameters) == (3_082_496, 3_082_496)
    assert made.tokens_per_step == 8 * 128
    assert made.total_tokens == 8 * 128 * 1200
    assert made.memory_bytes["weights"] == 4 * 3_082_496
    assert made.memory_bytes["optimizer"] == 8 * 3_082_496
    assert made.memory_bytes["adapters"] == 0
    assert made.memory_bytes["logits"] == LOGIT_ARRAYS * 1024 * 512 * 4
    assert made.peak_bytes == sum(made.memory_bytes.values())
    assert made.array_bytes == made.peak_bytes - made.memory_bytes["frameworks"]


def test_flops_of_a_model_small_enough_to_count_by_hand():
    model = {
        "vocabulary_size": 10,
        "num_layers": 1,
        "num_query_heads": 2,
        "num_key_value_heads": 1,
        "hidden_dim": 4,
        "intermediate_dim": 6,
        "tie_word_embeddings": True,
    }
    matrices = 4 * 4 + 2 * (4 * 2) + 4 * 4 + 3 * (4 * 6) + 10 * 4
    attention = 12 * 4 * 8
    assert count_flops_per_token(model, {}, 8) == 6 * matrices + attention
    adapted = {"transformer_layer_0/self_attention/query": 2}
    assert count_flops_per_token(model, adapted, 8) == 4 * matrices + 6 * (2 * 4 + 2 * 4) + attention


def test_lora_on_seven_billion():
    full, lora = planned("model=llama2_7b"), planned("model=llama2_7b", "lora.rank=8")
    assert lora.num_trainable_parameters == 4_194_304
    assert lora.num_parameters == full.num_parameters + 4_194_304
    assert lora.memory_bytes["optimizer"] == 8 * 4_194_304
    assert lora.memory_bytes["weights"] == full.memory_bytes["weights"] == 4 * 6_738_415_616
    assert lora.flops_per_token < full.flops_per_token


def test_what_saves_memory():
    base = planned("model=llama_110m")
    assert planned("model=llama_110m", "precision=bfloat16").memory_bytes["weights"] * 2 == base.memory_bytes["weights"]
    mixed = planned("model=llama_110m", "precision=mixed_bfloat16")
    assert mixed.memory_bytes["weights"] == base.memory_bytes["weights"]
    assert mixed.memory_bytes["activations"] < base.memory_bytes["activations"]
    remat = planned("model=llama_110m", "trainer.remat=block")
    assert remat.memory_bytes["activations"] * 5 < base.memory_bytes["activations"]
    assert remat.flops_per_token == base.flops_per_token == base.work_per_token
    # The forward pass of the blocks once more; 12 L D S of the whole counts attention three times.
    blocks = 109_529_856 - 32000 * 768 - 25 * 768
    assert remat.work_per_token - base.flops_per_token == 2 * blocks + 4 * 12 * 768 * 128
    attention = planned("model=llama_110m", "trainer.remat=attention")
    assert attention.work_per_token - base.flops_per_token == 2 * 12 * 768 * 128
    weights = 12 * 8 * 12 * 128 * 128 * 4  # layers, rows, heads, positions squared, float32
    assert base.memory_bytes["activations"] - attention.memory_bytes["activations"] == weights
    split = planned("model=llama_110m", "trainer.batch_size=2", "trainer.accumulation_steps=4")
    assert split.tokens_per_step == base.tokens_per_step
    assert split.memory_bytes["activations"] * 4 == base.memory_bytes["activations"]
    assert split.memory_bytes["gradients"] == 2 * base.memory_bytes["gradients"]
    assert planned("objective.chunk_tokens=512").memory_bytes["logits"] == LOGIT_ARRAYS * 512 * 512 * 4


def test_scales_of_norms_that_are_held_train_no_more():
    held, free = planned("model.train_norms=false"), planned()
    model = to_dict(check_arguments([]).config.model)
    scales = (2 * model["num_layers"] + 1) * model["hidden_dim"]
    assert free.num_trainable_parameters - held.num_trainable_parameters == scales
    assert free.num_parameters == held.num_parameters
    for part, bytes_of_one in (("gradients", 4), ("optimizer", 8)):
        assert free.memory_bytes[part] - held.memory_bytes[part] == bytes_of_one * scales


def test_what_a_magnitude_multiplies_is_kept():
    plain = ("model=llama_15m", "lora.rank=4", "lora.targets=[query,value]")
    shape = to_dict(check_arguments(plain).config.model)
    value_dim = shape["hidden_dim"] // shape["num_query_heads"] * shape["num_key_value_heads"]
    per_block = (shape["hidden_dim"] + value_dim) * 4
    for remat, blocks in (("none", shape["num_layers"]), ("block", 1)):
        lora, dora = (planned(*plain, f"trainer.remat={remat}", *more) for more in ((), ("lora.use_dora=true",)))
        more = dora.memory_bytes["activations"] - lora.memory_bytes["activations"]
        assert more == dora.tokens_per_step * blocks * per_block


def test_quantized_weights():
    lora = ("model=llama2_7b", "lora.rank=8", "precision=mixed_bfloat16", "preset=none")
    int8 = planned(*lora, "quantization=int8").memory_bytes
    # A byte a weight, norms in float32, a scale for each output and for each token twice.
    norms = 65 * 4096
    assert int8["weights"] == 6_738_415_616 - norms + 4 * (norms + 1_423_872)
    assert int8["dequantized"] == 2 * 32000 * 4096
    int4 = planned(*lora, "quantization=int4").memory_bytes
    # Half a byte a weight and 5 bytes for every 32 of them; embeddings, keys and values are those of int8.
    tables, key_value = 2 * 32000 * 4096, 32 * 2 * 4096 * 4096
    linear = 6_738_415_616 - norms - tables - key_value
    scales = 2 * 32000 + 32 * 2 * 4096
    assert int4["weights"] == linear // 2 + 5 * linear // 32 + tables + key_value + 4 * (norms + scales)
    smallest = ("quantization.group_size=128", "quantization.embeddings=int4", "quantization.int8_layers=[]")
    assert planned(*lora, "quantization=int4", *smallest).memory_bytes["weights"] < 0.54 * int8["weights"]
    assert planned(*lora, "quantization=int4", "quantization.group_size=0").memory_bytes["weights"] < int4["weights"]
    assert planned(*lora, "quantization=float8").memory_bytes == int8
    assert planned(*lora).memory_bytes["dequantized"] == 0
    assert planned(*lora[:-1], "preset.source=llama2_7b_en_int8").memory_bytes == int8


def test_what_is_held_while_the_run_is_written():
    """TensorFlow keeps what a step took; JAX gives it back before."""
    base = planned("model=llama_15m", "trainer.batch_size=1")
    assert base.memory_bytes["writing"] == 3 * base.memory_bytes["weights"]
    lora = planned("model=llama_15m", "lora.rank=2")
    assert lora.memory_bytes["writing"] == 2 * 4 * 32000 * 288
    of_jax = planned("model=llama_15m", "trainer.batch_size=1", "runtime.backend=jax").memory_bytes
    step = sum(of_jax[name] for name in ("casts", "dequantized", "gradients", "activations", "logits"))
    assert of_jax["writing"] == max(0, base.memory_bytes["writing"] - step)
    assert planned("runtime.backend=jax").memory_bytes["frameworks"] < planned().memory_bytes["frameworks"]


def test_mixed_precision_holds_its_weights_twice():
    mixed = planned("model=llama_15m", "precision=mixed_bfloat16").memory_bytes
    assert mixed["casts"] * 2 == mixed["weights"] and planned("precision=bfloat16").memory_bytes["casts"] == 0


def test_classes_of_the_users_own_have_no_plan(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Net:\n    def __init__(self, **keys): ...\n\n\nclass Data(Net): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert planned("trusted_modules=[mine]", "model._target_=mine.Net") is None
    assert planned("trusted_modules=[mine]", "dataset._target_=mine.Data") is not None
    assert planned("trusted_modules=[mine]", "dataset._target_=mine.Data", "dataset.sequence_length=long") is None


@pytest.mark.parametrize("width", [80, 200])
def test_rows_and_table(width):
    made = planned("model=llama2_7b", "lora.rank=8")
    assert [label for label, _ in plan.rows(made)] == ["parameters", "tokens", "arithmetic", "memory", "disk"]
    output = io.StringIO()
    plan.show(made, Console(file=output, width=width), [("data", "all of them")])
    text = output.getvalue()
    assert "6,742,609,920, of which 4,194,304 train (0.062%)" in text
    assert "weights 25.10 GiB" in " ".join(text.split())
    assert all(len(line) <= width for line in text.splitlines())
