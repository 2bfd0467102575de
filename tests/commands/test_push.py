"""`llama-exp push` through the libraries' own clients to servers on loopback."""

import json

import pytest
from fake_hub import FakeHub
from fake_kaggle import FakeKaggle
from huggingface_hub import constants
from huggingface_hub.utils import _http
from kagglehub import clients, gcs_upload
from kagglesdk import kaggle_env
from small_models import make, make_run

from llama_exp import cli

# huggingface_hub gives its file to httpx in the older way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
TOKEN = "hf_" + "x" * 34


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with FakeHub({}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its servers are not on loopback
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", "0" * 32)
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
    monkeypatch.setattr(clients, "get_user_agent", lambda: "kagglehub")
    monkeypatch.setattr(gcs_upload.time, "sleep", lambda seconds: None)
    with FakeKaggle({}) as server:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url)
        yield server


@pytest.fixture
def model(tmp_path):
    """A KerasHub preset with a card."""
    make(tmp_path / "out")
    (tmp_path / "out/README.md").write_text("---\nlibrary_name: keras-hub\n---\n# tiny\n")
    return tmp_path / "out"


def push(source, target, *more, code=0):
    with pytest.raises(SystemExit) as stop:
        cli.main(["push", str(source), target, *more])
    assert stop.value.code == code


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_hugging_face_gets_every_file(hub, model, capsys):
    push(model, "hf://me/tiny", "--message", "first")
    assert hub.repos["me/tiny"] == {"private": False, "branches": {"main": files_of(model)}}
    assert hub.messages == ["first"] and f"{hub.url}/me/tiny/commit/" in capsys.readouterr().out
    assert len(hub.blobs) == 1  # the weights went as a large file


def test_private_and_a_branch(hub, model, capsys):
    push(model, "hf://me/tiny", "--private", "--revision", "trial")
    assert hub.repos["me/tiny"]["private"] and hub.repos["me/tiny"]["branches"]["trial"] == files_of(model)
    push(model, "hf://me/tiny", "--private", "--revision", "trial")  # a second time: both are there
    hub.repos["me/tiny"]["private"] = False
    push(model, "hf://me/tiny", "--private", code=3)
    told = capsys.readouterr().err
    assert "everybody can read it" in told and "drop --private" in told


def test_kaggle_gets_every_file_and_then_a_version(kaggle, model, capsys):
    push(model, "kaggle://me/tiny/keras/base")
    push(model, "kaggle://me/tiny/keras/base", "--message", "once more")
    assert kaggle.models == {"me/tiny": {"base": [files_of(model)] * 2}}
    assert kaggle.private == [True] and kaggle.notes == ["once more"]
    assert "/models/me/tiny/keras/base" in capsys.readouterr().out


def test_what_a_run_has_left(hub, tmp_path):
    make_run(tmp_path / "run", tmp_path / "base")
    make(tmp_path / "run/model")
    push(tmp_path / "run", "hf://me/run")
    assert hub.repos["me/run"]["branches"]["main"] == files_of(tmp_path / "run/model")


def test_a_dry_run_asks_nobody(hub, kaggle, model, capsys):
    for target in ("hf://me/tiny", "kaggle://me/tiny/keras/base"):
        push(model, target, "--dry-run")
        told = capsys.readouterr().err
        assert "model.weights.h5" in told and "nothing was sent" in told and "README.md goes along" in told
    assert not hub.log and not kaggle.log


REFUSALS = {
    401: "the token is not valid",
    403: "may not write there",
    404: "no such user",
    409: "the same moment",
    413: "too large",
    429: "too many",
    500: "failure of its own",
}


def refused(server, kind, status, target, source, capsys):
    server.status[kind] = status
    push(source, target, code=3)
    told = capsys.readouterr().err
    assert f"({status})" in told and REFUSALS[status] in told
    assert "Traceback" not in told and "fix:" in told and TOKEN not in told and "0" * 32 not in told


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("create", 403),
        ("create", 401),
        ("preupload", 404),
        ("lfs", 500),
        ("put", 403),
        ("commit", 409),
        ("commit", 500),
    ],
)
def test_hugging_face_refuses(hub, model, kind, status, capsys):
    refused(hub, kind, status, "hf://me/tiny", model, capsys)


@pytest.mark.parametrize(
    ("kind", "status"), [("model", 401), ("model", 500), ("create", 429), ("blob", 413), ("instance", 404)]
)
def test_kaggle_refuses(kaggle, model, kind, status, capsys):
    refused(kaggle, kind, status, "kaggle://me/tiny/keras/base", model, capsys)


def test_kaggle_refuses_in_a_whole_answer(kaggle, model, capsys):
    """Its text is the server's own, and is not shown."""
    kaggle.complaint = "you are someone@example.org"
    push(model, "kaggle://me/tiny/keras/base", code=3)
    told = capsys.readouterr().err
    assert "then refused the model" in told and "example" not in told and "fix:" in told


def test_a_connection_that_breaks(hub, kaggle, model, capsys):
    for server, kind, target in ((hub, "commit", "hf://me/tiny"), (kaggle, "blob", "kaggle://me/tiny/keras/base")):
        server.dropped.add(kind)
        push(model, target, code=3)
        told = capsys.readouterr().err
        assert "no connection to" in told and "run the same command again" in told and "Traceback" not in told


def test_without_a_network(hub, kaggle, model, capsys):
    for server, target in ((hub, "hf://me/tiny"), (kaggle, "kaggle://me/tiny/keras/base")):
        server.shutdown()
        server.server_close()
        push(model, target, code=3)
        assert "no connection to" in capsys.readouterr().err


def test_without_a_token(hub, kaggle, model, monkeypatch, capsys):
    for name in ("HF_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    push(model, "hf://me/tiny", code=3)
    assert f"make a token that may write at {hub.url}/settings/tokens" in capsys.readouterr().err
    push(model, "kaggle://me/tiny/keras/base", code=3)
    assert "KAGGLE_API_TOKEN" in capsys.readouterr().err
    assert not hub.log and not kaggle.log


def test_offline_by_the_environment(hub, model, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    push(model, "hf://me/tiny", code=3)
    assert "unset it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "more", "code", "words"),
    [
        ("me/tiny", (), 2, "write hf://user/repo or kaggle://"),
        ("hf://tiny", (), 3, "not the name of a repository"),
        ("hf://me/tiny@v1", (), 3, "--revision"),
        ("hf://me/../x", (), 3, "not the name of a repository"),
        ("kaggle://me/tiny", (), 3, "not the handle of a model"),
        ("kaggle://me/tiny/kers/base", (), 3, "knows no framework kers"),
        ("kaggle://me/tiny/keras/base", ("--private",), 2, "begin private"),
        ("kaggle://me/tiny/keras/base", ("--revision", "x"), 2, "counts versions itself"),
    ],
)
def test_bad_targets(target, more, code, words, model, capsys):
    push(model, target, *more, "--dry-run", code=code)
    assert words in capsys.readouterr().err


def test_folders_that_are_not_whole(tmp_path, model, capsys):
    def told(source):
        push(source, "hf://me/tiny", "--dry-run", code=3)
        return capsys.readouterr().err

    assert "no such folder" in told(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no model and no adapter" in told(tmp_path / "empty")
    make_run(tmp_path / "run", tmp_path / "base")
    assert "the run has left no adapter/" in told(tmp_path / "run")
    (model / "notes.txt").write_text("password")
    assert "other things lie beside the model" in told(model)
    (model / "notes.txt").unlink()
    (model / ".env").write_text("KEY=1")
    assert ".env" in told(model)
    (model / ".env").unlink()
    (model / "LICENSE").symlink_to("/etc/hostname")
    assert "a link" in told(model)
    (model / "LICENSE").unlink()
    weights = model / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-2000])
    assert "fix:" in told(model)


def test_an_adapter_and_a_gguf_model(tmp_path, model, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(
            ["convert", "--from", str(model), "--to", str(tmp_path / "g"), "--format", "gguf", "--context-length", "64"]
        )
    assert stop.value.code == 0
    push(tmp_path / "g", "hf://me/tiny", "--dry-run")
    told = capsys.readouterr().err
    assert "GGUF model" in told and "Modelfile" in told and "model-F32.gguf" in told
    adapter = tmp_path / "a"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (adapter / "adapter_model.safetensors").write_bytes(b"broken")
    push(adapter, "hf://me/tiny", "--dry-run", code=3)
