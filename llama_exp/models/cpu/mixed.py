"""Kernels for the same rows of which some are of 4 bits and some of 8, as `cpu.kernels.products` of either kind.

Shape letters: M rows, O outputs.
"""

from __future__ import annotations

from typing import NamedTuple

from numba.extending import overload

from llama_exp.models.cpu.kernels import Packed, Scaled, products


class Mixed(NamedTuple):
    """Kernels of two kinds, and the place of each among the results."""

    packed: Packed
    scaled: Scaled
    packed_places: tuple
    scaled_places: tuple


@overload(products)
def _products(x, kernels, ys, scratch):
    return _mixed_products if kernels.instance_class is Mixed else None


def _mixed_products(x, kernels, ys, scratch):
    products(x, kernels.packed, _at(kernels.packed_places, ys), scratch)
    products(x, kernels.scaled, _at(kernels.scaled_places, ys), scratch)


def _at(places, ys):
    """Those of the arrays `ys` (M, O) that are at `places`, as a tuple; for compiled code."""
    raise NotImplementedError


@overload(_at)
def _at_places(places, ys):
    if len(places) == 1:  # of two or three layers of the same input, a kind has one or two
        return lambda places, ys: (ys[places[0]],)
    return lambda places, ys: (ys[places[0]], ys[places[1]])
