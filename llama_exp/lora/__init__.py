"""Low-rank adaptation of a backbone: enable, train, merge, and adapters on disk. Imports no framework."""

from llama_exp.lora.adapter_file import load, load_adapter, other_layers, save_adapter
from llama_exp.lora.enable import adapter_variables, adapters, base_digest, describe, enable, merge, restore

__all__ = [
    "adapter_variables",
    "adapters",
    "base_digest",
    "describe",
    "enable",
    "load",
    "load_adapter",
    "merge",
    "other_layers",
    "restore",
    "save_adapter",
]
