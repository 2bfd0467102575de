"""Presets and adapters of KerasHub."""
