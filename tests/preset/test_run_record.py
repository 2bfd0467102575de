"""What a run does with its preset: the revision in run.json, the offline switch from the config."""

import json
import types

import pytest

from llama_exp.config.check import check_arguments, config_hash
from llama_exp.errors import InputError
from llama_exp.files.json_text import dump_json
from llama_exp.run import building, facts
from llama_exp.run import job as run
from llama_exp.run.resume import MAY_CHANGE


class _Tokenizer:
    fingerprint, vocabulary_size = "f", 48


class _Folder:
    def record(self, **facts):
        self.facts = json.loads(dump_json(facts))


def recorded(monkeypatch, folder, *arguments):
    """The `preset` entry of the run.json that a run with these arguments writes."""
    monkeypatch.setattr(facts, "of_machine", lambda config: {})  # asks Keras
    monkeypatch.setattr(facts, "of_computation", lambda config, backbone: {})
    config = check_arguments(list(arguments)).config
    a_run = object.__new__(run.Run)
    a_run._folder, a_run._base_digest = _Folder(), None
    a_run.model = types.SimpleNamespace(backbone=types.SimpleNamespace(quantization=None))
    resolved = building.resolve_preset(config, folder)
    a_run._record(config, {**facts.of_data({}, _Tokenizer()), "preset": facts.of_preset(config, resolved, "d")})
    return a_run._folder.facts["preset"]


def test_the_revision_is_recorded(hub, monkeypatch, tmp_path):
    commit = hub.branches["main"]
    entry = recorded(monkeypatch, tmp_path, "preset.source=hf://org/m")
    assert entry["source"] == entry["origin"] == "hf://org/m"
    assert entry["revision"] == commit and entry["path"].endswith(f"snapshots/{commit}")
    hub.push({"config.json": b"{}"})
    again = building.resolve_preset(check_arguments([f"preset.source='hf://org/m@{commit}'"]).config, tmp_path)
    assert again.revision == commit and str(again.path) == entry["path"]


def test_random_weights_have_no_origin(monkeypatch, tmp_path):
    entry = recorded(monkeypatch, tmp_path, "preset=none")
    assert entry == {"source": None, "path": None, "origin": None, "revision": None, "digest": None}


def test_the_config_switches_the_network_off(kaggle, tmp_path):
    config = check_arguments(["preset.source=kaggle://org/m/keras/tiny", "preset.offline=true"]).config
    with pytest.raises(InputError, match="offline, and the cache does not have it"):
        building.resolve_preset(config, tmp_path)
    assert kaggle.log == []


def test_the_switch_does_not_make_another_experiment():
    online, offline, other = (
        config_hash(check_arguments(["preset.source=hf://org/m", argument]).config)
        for argument in ("preset.offline=false", "preset.offline=true", "preset.load_weights=false")
    )
    assert online == offline != other
    assert MAY_CHANGE.fullmatch("preset.offline") and not MAY_CHANGE.fullmatch("preset.source")
