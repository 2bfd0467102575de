"""A model as a server holds it: a tiny KerasHub preset, with things beside it that nobody should fetch."""

import json

CONFIG = {
    "vocabulary_size": 48,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 40,
    "num_key_value_heads": 2,
}
KERAS_HUB = {
    "config.json": json.dumps(
        {"class_name": "LlamaBackbone", "registered_name": "keras_hub>LlamaBackbone", "config": CONFIG}
    ).encode(),
    "metadata.json": b"{}",
    "tokenizer.json": b'{"class_name": "LlamaTokenizer"}',
    "assets/tokenizer/vocabulary.spm": b"spm" * 100,
    "model.weights.h5": bytes(range(256)) * 40,
    "task.weights.h5": b"never asked for",
    "README.md": b"# a model",
    "everything.tar.gz": b"\x1f\x8b an archive",
}
WANTED = {"config.json", "metadata.json", "tokenizer.json", "assets/tokenizer/vocabulary.spm", "model.weights.h5"}
WEIGHTS = "model.weights.h5"
