"""Singular values of the change of a matrix, and what they say. NumPy only.

Rank here is what Biderman et al. 2024 (arXiv:2405.09673, section on low-rank perturbations) count: how many singular
values it takes to explain 90 % of the variance, that is, of the sum of the squares of all of them. Nothing is centred.

    rank_90(W) = the smallest k with  s_1^2 + ... + s_k^2  >=  0.9 (s_1^2 + ... + s_n^2)

Shape letters: I inputs, O outputs, R rank of an adapter, M the longer side of a matrix, N the shorter.
"""

from __future__ import annotations

import numpy as np

SHARE = 0.9  # of the squared norm
# Rows that are float64 at a time: of a matrix of a 7B model 45 MB, beside 134 MB for the products.
_BLOCK_ROWS = 1024


def find_values(change_IO: np.ndarray) -> np.ndarray:
    """Singular values of a matrix, largest first, float64 (N,).

    Square roots of the eigenvalues of its products with itself along the longer side, summed in float64 block by block:
    a matrix of 32000 rows needs no more memory than one of 1024. A value below 1e-8 of the largest is lost in the
    rounding of these sums; a float32 matrix has none that mean anything below that.
    """
    long_MN = change_IO if change_IO.shape[0] >= change_IO.shape[1] else change_IO.T
    products_NN = np.zeros((long_MN.shape[1],) * 2)
    for start in range(0, len(long_MN), _BLOCK_ROWS):
        block_N = np.asarray(long_MN[start : start + _BLOCK_ROWS], np.float64)
        products_NN += block_N.T @ block_N
    return np.sqrt(np.maximum(np.linalg.eigvalsh(products_NN)[::-1], 0.0))


def find_values_of_product(a_IR: np.ndarray, b_RO: np.ndarray) -> np.ndarray:
    """Singular values of A B, largest first, float64 (at most R of them: the others are zero).

    With A = Q S and B^T = P T, Q and P having orthonormal columns, they are those of S T^T, (R, R): the product itself
    is never formed.
    """
    triangle_A = np.asarray(np.linalg.qr(np.asarray(a_IR, np.float64), mode="r"))
    triangle_B = np.asarray(np.linalg.qr(np.asarray(b_RO, np.float64).T, mode="r"))
    return np.linalg.svdvals(triangle_A @ triangle_B.T)


def count_rank(values: np.ndarray, share: float = SHARE) -> int:
    """How many of the largest values have `share` of the squared norm; 0 for a matrix of zeros."""
    squares = np.square(np.asarray(values, np.float64))
    total = squares.sum()
    if total == 0.0:
        return 0
    sums = np.cumsum(squares)
    # The last sum is the whole, whatever the rounding of the sums before it says.
    return min(int(np.searchsorted(sums, share * total * (1.0 - 1e-12))) + 1, len(squares))


def find_stable_rank(values: np.ndarray) -> float:
    """Squared Frobenius norm over the squared largest value (Rudelson & Vershynin 2007); 0 for a matrix of zeros."""
    squares = np.square(np.asarray(values, np.float64))
    return float(squares.sum() / squares.max()) if squares.size and squares.max() > 0.0 else 0.0
