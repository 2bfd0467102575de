"""Arithmetic per token, the machine's rate, and the digest of what is frozen."""

import numpy as np
import pytest

from llama_exp import lora
from llama_exp.models import LlamaBackbone
from llama_exp.trainer.metrics import Meter, flops_per_token, gemm_flops_per_second
from llama_exp.trainer.state import frozen_digest

pytestmark = pytest.mark.neutral

MODEL = {"vocabulary_size": 40, "num_layers": 2, "num_query_heads": 4, "hidden_dim": 16, "intermediate_dim": 24}
MODEL |= {"num_key_value_heads": 2}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rank", [0, 2])
def test_flops_are_those_of_the_matrices(tied, rank):
    """Counted from the variables: each number of a matrix costs 4, and 2 more where it trains."""
    backbone = LlamaBackbone(**MODEL, tie_word_embeddings=tied)
    if rank:
        backbone.enable_lora(rank, targets=["query", "value"], rank_pattern={"value": 3}, use_dora=True)
    looked_up = set() if tied else {"token_embedding/embeddings"}
    matrices = [v for v in backbone.weights if len(v.shape) == 2 and v.path not in looked_up]
    costs = sum((6 if matrix.trainable else 4) * int(np.prod(matrix.shape)) for matrix in matrices)
    assert flops_per_token(backbone, 32) == costs + 12 * 2 * 16 * 32


def test_gemm_rate_is_plausible_and_measured_once():
    rate = gemm_flops_per_second("float32", True)
    assert 1e9 < rate < 1e16
    assert gemm_flops_per_second("float32", True) == rate


def test_the_meter_leaves_the_compiling_step_out():
    meter = Meter(flops_per_token=100, roof=1000.0)
    meter.add(tokens=8, seconds=60.0)
    assert meter.read()["tokens_per_second"] is None
    meter.add(tokens=6, seconds=1.0)
    meter.add(tokens=2, seconds=1.0)
    reading = meter.read()
    assert reading["tokens_per_second"] == 4.0 and reading["mfu"] == 0.4 and reading["peak_memory_bytes"] > 0


@pytest.mark.parametrize("use_dora", [False, True])
def test_the_frozen_digest_is_the_adapter_s_base_digest(use_dora):
    backbone = LlamaBackbone(**MODEL)
    empty, base = frozen_digest(backbone), lora.base_digest(backbone)
    backbone.enable_lora(rank=2, targets=["query"], use_dora=use_dora)
    assert frozen_digest(backbone) == base
    assert frozen_digest(backbone) == lora.base_digest(backbone) != empty
