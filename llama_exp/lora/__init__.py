"""Low-rank adaptation of a backbone: enable, train, merge, and adapters on disk. Imports no framework."""

from llama_exp.lora.adapter_file import load, load_adapter, other_layers, save_adapter
from llama_exp.lora.enable import adapter_variables, adapters, base_digest, describe, enable, merge, restore
from llama_exp.lora.rates import rate_factors

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
    "rate_factors",
    "restore",
    "save_adapter",
]
