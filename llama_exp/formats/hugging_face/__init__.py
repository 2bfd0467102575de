"""Checkpoints of transformers: `config.json` and safetensors files."""
