"""Decoding a few rows on a CPU by kernels of our own, see docs/adr/0011."""
