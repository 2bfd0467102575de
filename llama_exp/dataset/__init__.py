"""Text on disk or on the network -> batches of token ids.

    source (python_docs, python_qa, python_code, text_files, jsonl, any TFDS name)
        -> records: text with marks for what counts in the loss
        -> token streams -> rows of `sequence_length` tokens with segment ids (cached)
        -> `Examples`, in an order that `Order` computes for any step

Nothing here imports a framework; names are imported when they are first used.
"""

import importlib

_HOMES = {
    "Dataset": "base",
    "Examples": "examples",
    "Jsonl": "jsonl",
    "Order": "order",
    "PythonCode": "python_code",
    "PythonDocs": "python_docs",
    "PythonQA": "python_qa",
    "TextFiles": "text_files",
    "Tfds": "tfds",
}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
