"""Decoding token by token on a CPU against the model's own call, for every kind of weights."""

import threading

import keras
import numpy as np
import oracles
import pytest
from adapted import fill, make
from daily import SLOW_ON_JAX, one_a_day

from llama_exp import backend
from llama_exp.models import LlamaBackbone, LlamaCausalLM
from llama_exp.models.cpu import decoder as cpu_decoder
from llama_exp.models.cpu.decoder import CpuDecoder
from llama_exp.models.generation import read_prompt

pytestmark = [pytest.mark.neutral, *SLOW_ON_JAX]

NUM_PROMPT = np.array([5, 3, 1], np.int32)
IDS = np.random.default_rng(1).integers(0, 40, (3, 9)).astype("int32")
STORED = {
    "float32": None,
    "int8": {"mode": "int8"},
    "int8 weights": {"mode": "int8", "quantize_activations": False},
    "int8 in all layers": {"mode": "int8", "float_activations": []},
    "int4": {"mode": "int4", "group_size": 16},
    "int4 by output": {"mode": "int4", "group_size": 0},
    "int4 alone": {"mode": "int4", "group_size": 16, "int8_layers": []},
    "int4 with other int8": {"mode": "int4", "int8_layers": ["query", "value", "feedforward_gate_dense"]},
    "float8": {"mode": "float8"},
}
DAILY = ("float32",)  # integers: test_adapters_over_integers
OTHERS = [name for name in STORED if name not in DAILY]


def logits_of(backbone, rows_BS):
    hidden = backbone({"token_ids": rows_BS})
    return keras.ops.convert_to_numpy(backbone.token_embedding.project(hidden))


def assert_decodes(backbone, tolerance=oracles.EXACT_TOLERANCE):
    """Rows padded in front, one token after the other, against one call of each row's own tokens at once."""
    num_slots = NUM_PROMPT.max()
    _, cache = read_prompt(backbone, IDS[:, :num_slots], NUM_PROMPT)
    starts = num_slots - NUM_PROMPT
    decoder = CpuDecoder(backbone, cache, IDS.shape[1] - num_slots, starts)
    # Of one length, so that one function is compiled: what stands behind a token does not reach it.
    rows = [np.pad(ids[start:], (0, start)) for ids, start in zip(IDS, starts, strict=True)]
    whole = logits_of(backbone, np.stack(rows))
    for last in range(num_slots, IDS.shape[1]):
        logits = decoder.step(IDS[:, last])
        for row, start in enumerate(starts):
            expected = whole[row, last - start]
            np.testing.assert_allclose(logits[row], expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("stored", one_a_day(DAILY, OTHERS))
def test_a_step_equals_the_whole_call(stored, tied):
    backbone = make(tie_word_embeddings=tied)
    if STORED[stored]:
        backbone.quantize(**STORED[stored])
    assert cpu_decoder.can_decode(backbone, 3)
    assert_decodes(backbone)


LORA = [
    {"targets": ["query", "value"]},
    {"targets": ["all-linear"], "rank_pattern": {"query": 2}},
    {"targets": ["feedforward_gate_dense"]},
    {"targets": ["key", "mlp"], "use_dora": True},
]


@pytest.mark.parametrize("lora", one_a_day([LORA[0], LORA[3]], LORA[1:3]))
def test_adapters(lora):
    assert_adapts("float32", lora)


@pytest.mark.parametrize("lora", one_a_day(LORA[3:], LORA[:3]))
def test_adapters_over_integers(lora):
    assert_adapts("int4", lora)


def assert_adapts(stored, lora):
    backbone = make()
    if STORED[stored]:
        backbone.quantize(**STORED[stored])
    backbone.enable_lora(rank=3, alpha=6, **lora)
    fill(backbone)
    assert_decodes(backbone)


def test_bfloat16_weights_are_multiplied_in_float32():
    """Closer to a float32 model of the same weights than bfloat16 arithmetic: its sums, not its own roundings."""
    coarse, fine = make(dtype="bfloat16"), make()
    for source, target in zip(coarse.weights, fine.weights, strict=True):
        target.assign(keras.ops.cast(source.value, "float32"))
    num_slots = NUM_PROMPT.max()
    _, cache = read_prompt(fine, IDS[:, :num_slots], NUM_PROMPT)
    steps = [CpuDecoder(b, cache, 1, num_slots - NUM_PROMPT).step(IDS[:, num_slots]) for b in (coarse, fine)]
    np.testing.assert_allclose(*steps, rtol=0, atol=oracles.EXACT_TOLERANCE * np.abs(steps[1]).max())


def test_which_models_it_serves():
    class Own(LlamaBackbone):
        pass

    arguments = (40, 1, 2, 8, 8, 2)
    assert cpu_decoder.can_decode(LlamaBackbone(*arguments), cpu_decoder.MOST_ROWS)
    assert not cpu_decoder.can_decode(LlamaBackbone(*arguments), cpu_decoder.MOST_ROWS + 1)
    assert not cpu_decoder.can_decode(LlamaBackbone(*arguments, dtype="mixed_float16"), 1)
    assert not cpu_decoder.can_decode(Own(*arguments), 1)  # its call may be another
    packed = LlamaBackbone(*arguments)
    packed.quantize("int4", embeddings="int4")  # tables of 4 bits have no product of their own
    assert not cpu_decoder.can_decode(packed, 1)


@pytest.mark.parametrize(
    ("dtype", "seen", "two"),
    [("float32", "float32", 2.0), ("bfloat16", "uint16", 0x4000), ("float8_e4m3fn", "uint8", 0x40)],
)
def test_weights_are_not_copied(dtype, seen, two):
    variable = keras.Variable(np.ones((64, 64), "float32"), dtype=dtype)
    first, second = backend.view(variable), backend.view(variable)
    assert first.ctypes.data == second.ctypes.data and not first.flags.writeable
    assert first.dtype == seen
    variable.assign(np.full((64, 64), 2.0, "float32"))
    assert backend.view(variable)[0, 0] == two


def test_two_threads_at_once():
    """Numba's simplest pool of threads would end the process."""
    model = LlamaCausalLM(make())
    alone = [model.generate(row[:4], 40).tolist() for row in IDS]
    found = [None] * len(IDS)

    def generate(row):
        found[row] = model.generate(IDS[row][:4], 40).tolist()

    threads = [threading.Thread(target=generate, args=(row,)) for row in range(len(IDS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone
