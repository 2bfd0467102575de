"""Cached, compiled decoding: equal to recomputing everything, to one row at a time, and to other implementations."""

import keras
import numpy as np
import oracles
import pytest
from daily import with_others

from llama_exp.models import LlamaBackbone, LlamaCausalLM, generation
from llama_exp.models.cpu import decoder as cpu_decoder
from llama_exp.models.generation import bucket

pytestmark = pytest.mark.neutral

TINY = {
    "vocabulary_size": 61,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "num_key_value_heads": 2,
}
LLAMA31 = {
    "rope_max_wavelength": 500.0,
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 16,
}
PROMPTS = [np.array(ids, np.int32) for ids in ([3], [7, 1, 44, 12, 9], [5, 60, 2], list(range(20, 32)))]
MAX_LENGTH = 17  # one bucket of prompts and one of new tokens: few compilations


@pytest.fixture(autouse=True, scope="module", params=["token by token", "at once"])
def way(request):
    """Both ways of decoding: `CpuDecoder` after a compiled prompt, and one compiled function."""
    if request.param == "token by token":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_decoder, "MOST_ROWS", 0)
        yield


@pytest.fixture(scope="module")
def model(way):
    backbone = LlamaBackbone(**TINY)
    oracles.randomize(backbone, seed=3)
    return LlamaCausalLM(backbone)


def recomputed(model, tokens, num_prompt):
    """The greedy continuation of `tokens[:num_prompt]`, without a cache.

    One pass gives the likeliest next token at every position. If they agree with `tokens` they are, by induction,
    what step-by-step decoding from scratch gives.
    """
    ids = np.pad(tokens, (0, max(MAX_LENGTH - len(tokens), 0)))  # of one length: few compilations
    logits = keras.ops.convert_to_numpy(model({"token_ids": ids[None]}))
    return [*tokens[:num_prompt], *logits[0, num_prompt - 1 : len(tokens) - 1].argmax(-1)]


def compilations(model):
    return len(model._generator._functions)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_key_value_heads": 4, "tie_word_embeddings": True},
        {"num_key_value_heads": 1, "rope_position_scaling_factor": 2.0, "num_layers": 1},
        LLAMA31 | {"num_layers": 1},
        {"dropout": 0.5, "num_layers": 1},  # dropout does nothing outside of training
    ],
    ids=["gqa", "mha_tied", "mqa_scaled", "llama31", "dropout"],
)
def test_cached_decoding_equals_recomputation(arguments):
    backbone = LlamaBackbone(**(TINY | arguments))
    oracles.randomize(backbone, seed=3)
    model = LlamaCausalLM(backbone)
    generated = model.generate(PROMPTS[1], MAX_LENGTH)
    assert len(generated) == MAX_LENGTH
    assert generated.tolist() == recomputed(model, generated, 5)
    assert len(set(generated[5:].tolist())) > 3  # a loop of one token would prove little


@pytest.mark.parametrize(
    "arguments", with_others([{"temperature": 3.0, "top_k": 50, "top_p": 0.99}], [{}, {"temperature": 3.0}])
)
def test_ids_that_the_tokenizer_has_no_token_for_are_not_generated(model, arguments, monkeypatch):
    class Tokenizer:
        vocabulary_size, stop_ids = 50, ()
        holes = tuple(id_ for id_ in range(50) if id_ % 7 == 3)

    arguments = {"max_length": MAX_LENGTH, "seed": 5, **arguments}
    before = np.concatenate(
        [row[len(prompt) :] for row, prompt in zip(model.generate(PROMPTS, **arguments), PROMPTS, strict=True)]
    )
    monkeypatch.setattr(model, "tokenizer", Tokenizer())
    rows = model.generate(PROMPTS, **arguments)
    new = np.concatenate([row[len(prompt) :] for row, prompt in zip(rows, PROMPTS, strict=True)])
    without_token = {*Tokenizer.holes, *range(50, TINY["vocabulary_size"])}
    assert without_token & set(before.tolist()) and not without_token & set(new.tolist())


def test_uneven_prompts_in_one_batch_equal_one_by_one(model):
    together = model.generate(PROMPTS, MAX_LENGTH)
    for prompt, tokens in zip(PROMPTS, together, strict=True):
        assert tokens.dtype == np.int32
        assert tokens.tolist() == model.generate(prompt, MAX_LENGTH).tolist()
        assert tokens.tolist() == recomputed(model, tokens, len(prompt))


def test_max_length_counts_the_prompt(model):
    for max_length in (13, 14, 17):
        assert [len(tokens) for tokens in model.generate(PROMPTS, max_length)] == [max_length] * len(PROMPTS)
    with pytest.raises(ValueError, match=r"prompts\[3\] has 12 tokens"):
        model.generate(PROMPTS, 12)


def test_a_longer_text_begins_like_a_shorter_one_and_crosses_buckets(model):
    longer = model.generate(np.arange(20, 38), 50).tolist()
    assert longer[:36] == model.generate(np.arange(20, 38), 36).tolist()
    assert longer == recomputed(model, longer, 18)


@pytest.mark.oracle
def test_keras_hub_generates_the_same(model):
    import keras_hub

    theirs = keras_hub.models.LlamaCausalLM(oracles.keras_hub_backbone(model.backbone), preprocessor=None)
    theirs.compile(sampler="greedy")
    for prompt in PROMPTS[1:3]:
        inputs = {
            "token_ids": np.pad(prompt, (0, MAX_LENGTH - len(prompt)))[None],
            "padding_mask": (np.arange(MAX_LENGTH) < len(prompt)).astype("int32")[None],
        }
        expected = theirs.generate(inputs, stop_token_ids=None)["token_ids"][0]
        assert model.generate(prompt, MAX_LENGTH).tolist() == np.asarray(expected).tolist()


@pytest.mark.oracle
def test_transformers_generates_the_same(model):
    import torch

    theirs = oracles.transformers_model(model.backbone)
    for prompt in PROMPTS:
        arguments = {"max_length": MAX_LENGTH, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        ids = torch.tensor(prompt[None].astype("int64"))
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), **arguments)[0]
        assert model.generate(prompt, MAX_LENGTH).tolist() == expected.tolist()


def test_a_stop_token_ends_its_row_only(model):
    free = model.generate(PROMPTS, MAX_LENGTH)
    stop = int(free[1][len(PROMPTS[1]) + 3])
    never = next(token for token in range(61) if all(token not in tokens for tokens in free))
    stopped = model.generate(PROMPTS, MAX_LENGTH, stop_token_ids=[never, stop])
    ends = set()
    for prompt, tokens, whole in zip(PROMPTS, stopped, free, strict=True):
        places = np.flatnonzero(whole[len(prompt) :] == stop)
        end = len(prompt) + places[0] + 1 if len(places) else MAX_LENGTH
        assert tokens.tolist() == whole[:end].tolist()
        ends.add(end)
    assert len(ends) > 1
    prompt_with_stop = np.array([stop, 4], np.int32)  # a stop token in the prompt is only text
    assert len(model.generate(prompt_with_stop, 12, stop_token_ids=[])) == 12
    assert len(model.generate(prompt_with_stop, 12, stop_token_ids=[never])) == 12


def test_decoding_ends_when_every_row_has_ended(model, monkeypatch):
    """The compiled loop runs no further than the last stop; seen by the buffer, which stays zero behind it."""
    monkeypatch.setattr(cpu_decoder, "MOST_ROWS", 0)
    seen = []
    original = generation.decode

    def decode(*args):
        new_NB, length_B = original(*args)
        seen.append((new_NB, length_B))
        return new_NB, length_B

    monkeypatch.setattr(generation, "decode", decode)
    monkeypatch.setattr(generation.backend, "compiled", lambda function, reads, writes, jit: _eager(function))
    fresh = LlamaCausalLM(model.backbone)
    free = fresh.generate(PROMPTS[1], 17)
    stop = int(free[8])
    stopped = fresh.generate(PROMPTS[1], 17, stop_token_ids=[stop])
    new_NB, length_B = (keras.ops.convert_to_numpy(value) for value in seen[-1])
    assert stopped.tolist() == free[: 5 + length_B[0]].tolist() and stopped[-1] == stop
    assert (new_NB[length_B[0] :] == 0).all() and length_B[0] < 12 <= len(new_NB)


def _eager(function):
    return lambda *arrays: function(*keras.tree.map_structure(keras.ops.convert_to_tensor, arrays))


def test_tokens_are_told_as_they_come(model, monkeypatch):
    """What is told is what is returned, piece by piece; the text does not depend on who watches."""
    monkeypatch.setattr(generation, "TOKENS_AT_A_TIME", 3)
    silent = model.generate(PROMPTS, MAX_LENGTH, temperature=0.7, seed=4)
    pieces = []
    watched = model.generate(PROMPTS, MAX_LENGTH, temperature=0.7, seed=4, on_tokens=pieces.append)
    assert [tokens.tolist() for tokens in watched] == [tokens.tolist() for tokens in silent]
    told_NB = np.concatenate(pieces)
    for row, (prompt, tokens) in enumerate(zip(PROMPTS, silent, strict=True)):
        new = tokens[len(prompt) :]
        assert told_NB[: len(new), row].tolist() == new.tolist()
    assert len(pieces) >= 5 and max(map(len, pieces)) <= 3
    stop = int(silent[1][len(PROMPTS[1]) + 1])
    pieces.clear()
    stopped = model.generate(PROMPTS[1], 17, temperature=0.7, seed=4, stop_token_ids=[stop], on_tokens=pieces.append)
    assert stopped[len(PROMPTS[1]) :].tolist() == np.concatenate(pieces)[:, 0].tolist()[: len(stopped) - 5]


@pytest.mark.parametrize("arguments", [{}, {"top_k": 20, "top_p": 0.9}])
def test_a_seed_decides_the_text(model, arguments):
    def generate(seed, prompts=PROMPTS):
        return [t.tolist() for t in model.generate(prompts, MAX_LENGTH, temperature=1.5, seed=seed, **arguments)]

    first = generate(1)
    assert first == generate(1)
    assert first != generate(2)
    assert first != [tokens.tolist() for tokens in model.generate(PROMPTS, MAX_LENGTH)]
    assert generate(1, PROMPTS[:1]) == first[:1]  # neither the other rows nor the padding matter
    same = generate(1, [PROMPTS[0]] * 4)
    assert same[0] == first[0] and len({tuple(tokens) for tokens in same}) == 4


def test_sampled_tokens_follow_the_model(model):
    """First tokens of many rows against the model's own probabilities."""
    rows, prompt = 2000, PROMPTS[1]
    first = np.array([tokens[-1] for tokens in model.generate([prompt] * rows, len(prompt) + 1, temperature=2.0)])
    logits = keras.ops.convert_to_numpy(model({"token_ids": prompt[None]}))[0, -1].astype("float64") / 2.0
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    shares = np.bincount(first, minlength=61) / rows
    np.testing.assert_allclose(shares, probabilities, rtol=0, atol=4 * np.sqrt(0.25 / rows))


def test_functions_are_compiled_once_per_shape_and_kind():
    fresh = LlamaCausalLM(LlamaBackbone(**(TINY | {"num_layers": 1})))
    fresh.generate(PROMPTS[1], 17)
    fresh.generate(PROMPTS[2], 15)  # same buckets
    fresh.generate(PROMPTS[2], 14, seed=4)
    assert compilations(fresh) == 1
    fresh.generate(PROMPTS[1], 17, temperature=0.5)
    fresh.generate(PROMPTS[1], 17, temperature=0.9, seed=1)
    assert compilations(fresh) == 2
    fresh.generate(PROMPTS[:2], 17)
    assert compilations(fresh) == 3


def test_weights_are_read_at_each_call():
    backbone = LlamaBackbone(**(TINY | {"num_layers": 1}))
    oracles.randomize(backbone, seed=3)
    model = LlamaCausalLM(backbone)
    before = model.generate(PROMPTS[1], MAX_LENGTH).tolist()
    oracles.randomize(backbone, seed=4)
    after = model.generate(PROMPTS[1], MAX_LENGTH).tolist()
    assert compilations(model) == 1
    assert before != after == recomputed(model, after, 5)


def test_adapters_are_seen_from_their_first_to_their_last_day():
    from llama_exp import lora

    backbone = LlamaBackbone(**(TINY | {"num_layers": 1}))
    oracles.randomize(backbone, seed=3)
    model = LlamaCausalLM(backbone)
    plain = model.generate(PROMPTS[1], MAX_LENGTH).tolist()
    backbone.enable_lora(rank=2, targets=("all-linear",))
    assert model.generate(PROMPTS[1], MAX_LENGTH).tolist() == plain  # B is zero
    rng = np.random.default_rng(0)
    for path, variable in lora.adapter_variables(backbone).items():
        if path.endswith("lora_b"):
            variable.assign(rng.normal(0, 0.5, variable.shape))
    adapted = model.generate(PROMPTS[1], MAX_LENGTH).tolist()
    assert plain != adapted == recomputed(model, adapted, 5)
    lora.merge(backbone)
    assert model.generate(PROMPTS[1], MAX_LENGTH).tolist() == adapted


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16", "mixed_float16"])
def test_lower_precision_decodes(policy):
    backbone = LlamaBackbone(**(TINY | {"num_layers": 1}), dtype=policy)
    oracles.randomize(backbone, seed=3)
    model = LlamaCausalLM(backbone)
    tokens = model.generate(PROMPTS[1], MAX_LENGTH)
    assert len(tokens) == MAX_LENGTH
    # Near ties may fall differently in another shape, the first token of a clear case may not.
    assert tokens[5] == recomputed(model, tokens[:6], 5)[-1]


def test_buckets_are_few_and_wide_enough():
    sizes = [bucket(length) for length in range(1, 2000)]
    assert all(size >= length for length, size in enumerate(sizes, 1))
    assert all(size < 1.5 * length for length, size in enumerate(sizes, 1) if length > 16)
    assert sorted(set(sizes)) == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]
