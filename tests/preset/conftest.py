"""Servers of both protocols on loopback, with this process' clients pointed at them and empty caches."""

import json

import pytest
from fake_hub import FakeHub
from fake_kaggle import FakeKaggle
from huggingface_hub import constants
from kagglesdk import kaggle_env

from llama_exp.preset import transfer

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


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Short waits, small blocks, no credentials of the machine."""
    monkeypatch.setattr(transfer, "BLOCK", 1024)
    monkeypatch.setattr(transfer, "RETRY_WAITS", (0.01, 0.01))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that holds a KerasHub preset."""
    with FakeHub(KERAS_HUB) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        # Both are made of HF_ENDPOINT when huggingface_hub is imported.
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield server


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """A Kaggle that holds a KerasHub preset."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with FakeKaggle(KERAS_HUB) as server:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url)
        yield server
