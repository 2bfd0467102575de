"""Layers whose weights are integers or float8."""
