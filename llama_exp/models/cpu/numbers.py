"""Products with stored numbers, for functions that Numba compiles: bfloat16 and float8 come as their bits.

NumPy's arrays of these two types are none of Numba's, so that `backend.view` gives them as uint16 and uint8.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

_WORD, _FLOAT = ir.IntType(32), ir.FloatType()


def times(x, number):
    """A float32 times a float32, an int8, a bfloat16 as uint16 or a float8 as uint8; float32, in compiled code.

    float8 has no infinity, and its two patterns of NaN, which no weight is, count as 480.
    """
    raise NotImplementedError


@overload(times, inline="always")
def _times(x, number):
    if number == types.uint16:
        return lambda x, number: x * _of_bfloat16(number)
    if number == types.uint8:
        return lambda x, number: _times_float8(x, number)
    return lambda x, number: x * np.float32(number)


@intrinsic
def _of_bfloat16(typing_context, bits):
    """16 bits are the upper half of the float32."""

    def generate(context, builder, signature, arguments):
        word = builder.shl(builder.zext(arguments[0], _WORD), _constant(16))
        return builder.bitcast(word, _FLOAT)

    return types.float32(types.uint16), generate


@intrinsic
def _times_float8(typing_context, x, bits):
    """Sign, 4 bits of exponent and 3 of fraction go to their places in a float32, whose exponent counts from 120 less.

    Few operations, in vectors; a table of the 256 values would be gathered one by one. What is subnormal here is
    subnormal there too, so that multiplying by 2^120 is right for it as well.
    """
    # Instructions with a flag of their own get none that let them be reordered: x times 2^120 would overflow.
    flags = ("contract",)

    def generate(context, builder, signature, arguments):
        spread = builder.shl(builder.sext(arguments[1], _WORD), _constant(20))  # the sign is in bits 27 to 31
        placed = builder.and_(spread, _constant(-(1 << 31) | 0x7F << 20))
        number = builder.fmul(builder.bitcast(placed, _FLOAT), ir.Constant(_FLOAT, 2.0**120), flags=flags)
        return builder.fmul(arguments[0], number, flags=flags)

    return types.float32(types.float32, types.uint8), generate


def _constant(number: int) -> ir.Constant:
    return ir.Constant(_WORD, number)
