"""Servers of both protocols on loopback, with this process' clients pointed at them and empty caches."""

import pytest
from fake_hub import FakeHub
from fake_kaggle import FakeKaggle
from huggingface_hub import constants
from kagglehub import clients
from kagglesdk import kaggle_env
from published_preset import KERAS_HUB

from llama_exp.preset import transfer


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
    # At each request it goes through the call stack six times, and each time through all imported modules: a second.
    monkeypatch.setattr(clients, "get_user_agent", lambda: "kagglehub")
    with FakeKaggle(KERAS_HUB) as server:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url)
        yield server
