"""Kernels of two kinds for the same rows: each result is that of its kernel alone."""

import numpy as np
import pytest
from daily import one_a_day
from test_cpu_kernels import assert_close, products, rows

from llama_exp.architecture import Quantization
from llama_exp.formats.quantized import KERNEL, SCALE, ZERO, dequantize, quantize
from llama_exp.models.cpu.kernels import Packed, Scaled
from llama_exp.models.cpu.mixed import Mixed

INT4, INT8 = Quantization("int4", False, 16), Quantization("int8", False)


@pytest.mark.parametrize(
    "kinds", one_a_day([(INT4, INT8), (INT8, INT4), (INT8, INT4, INT8)], [((INT4, INT8, INT8),), ((INT4, INT8, INT4),)])
)
def test_each_result_has_its_place(kinds):
    outputs = (5, 16, 7)[: len(kinds)]
    x = rows(3, 37)
    parts = [quantize(rows(37, size), KERNEL, how) for how, size in zip(kinds, outputs, strict=True)]
    packed, scaled = (tuple(place for place, how in enumerate(kinds) if how is kind) for kind in (INT4, INT8))

    def of(places, suffix):
        return tuple(parts[place][suffix] for place in places)

    zeros = tuple(zero.astype(np.float32) for zero in of(packed, ZERO))
    factors = tuple(1 / scale for scale in of(scaled, SCALE))
    kernels = Mixed(
        Packed(of(packed, ""), of(packed, SCALE), zeros, 16),
        Scaled(of(scaled, ""), factors, np.zeros(len(scaled), bool), False),
        packed,
        scaled,
    )
    for y, part, how, size in zip(products(x, kernels, outputs, 2), parts, kinds, outputs, strict=True):
        assert_close(y, x @ dequantize(part, (37, size), KERNEL, how))
