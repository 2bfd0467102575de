"""Presets: the published table, and a fetch that works, is cached, or fails soon with the ways out."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from llama_exp import preset
from llama_exp.errors import ExitCode, InputError
from llama_exp.preset import PRESETS, resolve


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No cached preset, and every name lookup fails at once."""

    def refuse(host, *args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def message(source, load_weights=True):
    with pytest.raises(InputError) as raised:
        resolve(source, load_weights)
    assert raised.value.exit_code == ExitCode.INPUT == 3
    (problem,) = raised.value.problems
    assert problem.where == "preset.source"
    assert problem.found == source
    return problem.what + "\n" + problem.action


def test_the_table_has_the_published_presets():
    int8 = {name for name, entry in PRESETS.items() if entry.int8}
    assert len(PRESETS) == 17
    assert int8 == {name for name in PRESETS if name.endswith("_int8")} and len(int8) == 4
    for name, entry in PRESETS.items():
        scheme, path = entry.handle.split("://")
        organisation, model, framework, variant, version = path.split("/")
        assert (scheme, organisation, framework, variant) == ("kaggle", "keras", "keras", name)
        assert model == ("vicuna" if name.startswith("vicuna") else name[:6])
        assert int(version) >= 1


def test_int8_presets_store_one_scale_for_each_output_channel_more():
    # Llama 2 7B: per layer 4 x 4096 (attention), 2 x 11008 + 4096 (MLP) scales; 32000 and 32000 for the embeddings.
    scales = 32 * (4 * 4096 + 2 * 11008 + 4096) + 2 * 32000
    assert PRESETS["llama2_7b_en_int8"].parameter_count - PRESETS["llama2_7b_en"].parameter_count == scales


def test_an_existing_folder_is_taken_as_it_stands(tmp_path):
    assert resolve(str(tmp_path)) == tmp_path


SOON_SECONDS = 10  # on a busy machine; left to themselves the clients retry for 23 s or wait without end


@pytest.mark.parametrize("source", ["llama2_7b_en", "kaggle://keras/llama2/keras/llama2_7b_en", "hf://keras/llama2_7b"])
@pytest.mark.parametrize("load_weights", [True, False])
def test_without_network_the_message_names_origin_and_ways_out(offline, source, load_weights):
    start = time.monotonic()
    text = message(source, load_weights)
    assert time.monotonic() - start < SOON_SECONDS
    assert ("Hugging Face" if source.startswith("hf") else "Kaggle") in text
    for way in ("network", "licence", "preset.source=<folder>", "cache", "preset=none"):
        assert way in text
    assert ("HF_TOKEN" if source.startswith("hf") else "KAGGLE_KEY") in text


@pytest.mark.parametrize("source", ["llama2_7b_en", "hf://keras/llama2_7b_en"])
def test_a_host_that_never_answers_is_given_up(monkeypatch, tmp_path, source):
    import huggingface_hub.constants
    from kagglesdk import kaggle_env

    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, then stays silent
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(kaggle_env, "get_endpoint", lambda env: url)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
        monkeypatch.setattr(preset, "ANSWER_SECONDS", 0.3)
        start = time.monotonic()
        text = message(source)
        assert f"no answer within 0.3 s from {url}" in text
        assert ("Hugging Face (keras" if source.startswith("hf") else "Kaggle (keras") in text
        assert time.monotonic() - start < SOON_SECONDS


def test_a_name_lookup_that_hangs_is_given_up(monkeypatch, tmp_path):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(30) and [])
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setattr(preset, "ANSWER_SECONDS", 0.3)
    start = time.monotonic()
    assert "no answer" in message("llama2_7b_en")
    assert time.monotonic() - start < SOON_SECONDS
    release.set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("llama2_7ben", "did you mean llama2_7b_en?"),
        ("gs://bucket/model", "kaggle://, hf://"),
        ("kaggle://a/b", "kaggle://org/model/keras/variant"),
        ("kaggle://a/b/keras/c/newest", "Invalid version number: newest"),
        ("hf://a", "hf://org/model"),
        ("llama3_8b_en_int8", "preset.source=llama3_8b_en"),
        ("no/such/folder", "neither a built-in preset nor a folder"),
    ],
)
def test_a_source_that_cannot_be_meant(source, expected):
    assert expected in message(source)


def test_a_file_is_no_preset(tmp_path):
    file = tmp_path / "llama.gguf"
    file.write_bytes(b"GGUF")
    assert "not supported yet" in message(str(file))


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """A Kaggle that serves a Llama 2 preset, which has no vocabulary.json for one; gives the log of requested files."""
    import kagglehub
    import requests

    requested = []

    def download(handle, path=None):
        requested.append(path)
        if path not in (None, "config.json", "metadata.json", "tokenizer.json", "assets/tokenizer/vocabulary.spm"):
            response = requests.Response()
            response.status_code = 404
            raise requests.HTTPError("404 Client Error", response=response)
        if path == "metadata.json" and handle.endswith("/9"):
            response = requests.Response()
            response.status_code = 403
            raise requests.HTTPError("403 Client Error", response=response)
        return str(tmp_path / path if path else tmp_path)

    monkeypatch.setattr(kagglehub, "model_download", download)
    monkeypatch.setattr(preset, "_require_answer", lambda *args: None)
    return requested


def test_weights_are_fetched_only_when_wanted(kaggle, tmp_path):
    assert resolve("llama3_8b_en") == tmp_path
    assert kaggle == [None]
    kaggle.clear()
    assert resolve("llama3_8b_en", load_weights=False) == tmp_path
    assert kaggle[0] == "config.json" and "assets/tokenizer/vocabulary.spm" in kaggle and None not in kaggle
    assert not any("weights" in path for path in kaggle)


def test_a_refused_file_is_not_taken_for_a_missing_one(kaggle):
    assert "403" in message("kaggle://keras/llama3/keras/llama3_8b_en/9", load_weights=False)


def test_hugging_face_fetches_the_preset_files_only(monkeypatch, tmp_path):
    import huggingface_hub

    seen = {}

    def download(name, allow_patterns=None, local_files_only=False):
        if local_files_only:
            raise FileNotFoundError(name)
        seen.update(name=name, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(preset, "_require_answer", lambda *args: None)
    assert resolve("hf://keras/llama2_7b_en") == tmp_path
    assert seen["name"] == "keras/llama2_7b_en"
    assert "*.weights.h5" in seen["patterns"] and "config.json" in seen["patterns"]
    resolve("hf://keras/llama2_7b_en", load_weights=False)
    assert not any("weights" in pattern for pattern in seen["patterns"])


def test_no_framework_is_imported():
    code = (
        "import sys; from llama_exp import preset\n"
        "try: preset.resolve('llama2_7ben')\n"
        "except preset.InputError: pass\n"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'kagglehub', 'huggingface_hub') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
