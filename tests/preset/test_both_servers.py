"""What must hold for downloads from either server: whole or not at all, checked, resumed, cached, explained."""

import errno
import logging
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import constants
from kagglehub.config import get_cache_folder
from published_preset import KERAS_HUB, WANTED, WEIGHTS

from llama_exp.errors import ExitCode, InputError
from llama_exp.preset import collect, download_errors, resolve, transfer

SOURCES = {"hub": "hf://org/m", "kaggle": "kaggle://org/m/keras/tiny"}
HALF = len(KERAS_HUB[WEIGHTS]) // 2
FILE_KIND = {"hub": "file", "kaggle": "storage"}


@pytest.fixture(params=["hub", "kaggle"])
def server(request):
    """One of the two; `source`, `pinned` and `file_kind` say how it is spoken to."""
    served = request.getfixturevalue(request.param)
    served.source, served.file_kind = SOURCES[request.param], FILE_KIND[request.param]
    served.pinned = f"hf://org/m@{served.branches['main']}" if request.param == "hub" else f"{served.source}/1"
    served.name = {"hub": "Hugging Face", "kaggle": "Kaggle"}[request.param]
    return served


def cache_of(server):
    return constants.HF_HUB_CACHE if server.name == "Hugging Face" else get_cache_folder()


def content(path):
    """Files below a folder by name, without the tools' own."""
    return {str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}


def expected(*without):
    return {name: KERAS_HUB[name] for name in WANTED if name not in without}


def fails(source, load_weights=True, offline=False):
    with pytest.raises(InputError) as raised:
        resolve(source, load_weights, offline)
    assert raised.value.exit_code == ExitCode.INPUT == 3
    (problem,) = raised.value.problems
    assert problem.where == "preset.source" and problem.found == source
    assert problem.what and problem.action
    return f"{problem.what}\n{problem.action}"


def test_a_whole_preset_arrives_and_nothing_else_is_asked_for(server):
    resolved = resolve(server.source)
    assert content(resolved.path) == expected()
    assert resolved.origin == server.source
    assert resolved.revision == (server.branches["main"] if server.name == "Hugging Face" else "1")
    for unwanted in ("everything.tar.gz", "task.weights.h5", "README.md"):
        assert not server.requests(unwanted)


def test_the_second_time_a_fixed_revision_needs_no_request(server):
    first = resolve(server.pinned)
    server.log.clear()
    assert resolve(server.pinned) == first
    assert server.log == []


def test_the_second_time_a_moving_name_needs_one_question_and_no_file(server):
    first = resolve(server.source)
    server.log.clear()
    assert resolve(server.source) == first
    assert not server.requests(WEIGHTS) and len(server.log) <= 2  # anyone there? which revision is it?


def test_without_weights_they_stay_where_they_are(server):
    resolved = resolve(server.source, load_weights=False)
    assert content(resolved.path) == expected(WEIGHTS)
    assert not server.requests(WEIGHTS)
    server.log.clear()
    resolve(server.pinned, load_weights=False)
    assert server.log == []
    assert content(resolve(server.source).path) == expected()
    assert not server.requests("vocabulary.spm")
    server.log.clear()
    resolve(server.pinned, load_weights=False)
    resolve(server.pinned)
    assert server.log == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_at_half_is_taken_up_again(server, ranges, monkeypatch):
    received = []
    original = transfer.download

    def counting(owner, remote, ask, part, advance):
        return original(owner, remote, ask, part, lambda count: received.append((remote.name, count)))

    monkeypatch.setattr(collect, "download", counting)
    server.ranges, server.cuts = ranges, 1
    assert content(resolve(server.source).path) == expected()
    bytes_read = sum(count for name, count in received if name == WEIGHTS)
    assert bytes_read == len(KERAS_HUB[WEIGHTS]) * (1 if ranges else 1.5)


@pytest.mark.parametrize("ranges", [True, False])
def test_the_next_start_goes_on_where_the_last_one_broke_off(server, ranges, monkeypatch):
    monkeypatch.setattr(transfer, "RETRY_WAITS", ())
    server.ranges, server.cuts = ranges, 1
    text = fails(server.source)
    assert "no connection" in text
    (part,) = Path(cache_of(server)).rglob("*.part")
    assert part.read_bytes() == KERAS_HUB[WEIGHTS][:HALF]
    assert not list(Path(cache_of(server)).rglob(WEIGHTS))  # what is cut has no final name
    server.log.clear()
    assert content(resolve(server.source).path) == expected()
    assert server.headers.get("Range") == f"bytes={HALF}-"
    assert not part.exists()


def test_a_connection_that_always_breaks_ends(server):
    server.cuts, server.ranges = 1000, False
    assert "no connection" in fails(server.source)
    assert len(server.requests(WEIGHTS)) <= 2 * (1 + len(transfer.RETRY_WAITS))


@pytest.mark.parametrize("wrong", [b"x" * len(KERAS_HUB[WEIGHTS]), b"short" * 10, b"long" * 10000])
def test_other_content_than_promised_is_refused(server, wrong):
    server.replaced[WEIGHTS] = wrong
    text = fails(server.source)
    assert WEIGHTS in text and ("digest" in text or "truncated" in text)
    assert not list(Path(cache_of(server)).rglob(WEIGHTS))
    server.replaced.clear()
    assert content(resolve(server.source).path) == expected()


def test_a_wrong_beginning_under_a_right_rest_is_found(server, monkeypatch):
    """The rest of a resumed file says nothing of what lay on the disk before."""
    server.cuts = 1
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "RETRY_WAITS", ())
        fails(server.source)
    (part,) = Path(cache_of(server)).rglob("*.part")
    part.write_bytes(b"?" * HALF)
    assert "digest" in fails(server.source)
    assert content(resolve(server.source).path) == expected()


def test_a_file_in_the_cache_that_was_changed_is_fetched_anew(server, caplog):
    path = resolve(server.pinned).path / WEIGHTS
    target = path.resolve()
    target.write_bytes(b"?" * target.stat().st_size)  # the size is right, as after a bad disk
    with caplog.at_level(logging.WARNING):
        assert content(resolve(server.pinned).path) == expected()
    assert "fetched anew" in caplog.text


def test_a_changed_file_is_an_error_without_network(server):
    path = resolve(server.pinned).path / WEIGHTS
    path.resolve().write_bytes(b"?")
    assert f"{WEIGHTS} was changed" in fails(server.pinned, offline=True)


def test_offline_takes_the_cache_and_asks_nobody(server):
    text = fails(server.source, offline=True)
    assert "offline" in text and "looked in" in text and cache_of(server) in text
    assert server.log == []
    first = resolve(server.source, load_weights=False)
    server.log.clear()
    assert "only a part" in fails(server.pinned, offline=True)
    assert resolve(server.source, load_weights=False, offline=True) == first
    resolve(server.source)
    server.log.clear()
    assert resolve(server.source, offline=True) == first
    assert resolve(server.pinned, offline=True) == first
    assert server.log == []


def test_a_lost_network_falls_back_to_the_cache_and_says_so(server, caplog, monkeypatch):
    first = resolve(server.source)
    monkeypatch.setattr(download_errors, "ANSWER_SECONDS", 0.3)
    server.hang |= {"head"}
    with caplog.at_level(logging.WARNING):
        assert resolve(server.source) == first
    assert "no connection" in caplog.text and "is used" in caplog.text


@pytest.mark.parametrize("kind", ["list", "file"])
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, ("credentials", "KAGGLE_KEY|HF_TOKEN")),
        (403, ("licence", "accept", "http")),
        (404, ("there is no such", "spelling")),
        (418, ("refuses",)),
        (429, ("too many",)),
        (500, ("error of its own (500)", "later")),
        (503, ("error of its own (503)", "later")),
    ],
)
def test_each_refusal_has_its_words(server, kind, status, words, monkeypatch):
    secret = "hf_secret_0123456789abcdef"
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setenv("KAGGLE_API_TOKEN", secret)
    server.status[kind] = status
    text = fails(server.source)
    assert server.name in text
    for word in words:
        assert any(choice in text for choice in word.split("|")), word
    assert secret not in text and "Bearer" not in text
    asked = [path for method, path in server.log if method != "HEAD"]
    assert len(asked) <= 12  # bounded, also for errors that may pass


def test_a_passing_error_of_the_server_passes(server):
    answers = iter([500, 503])
    original = dict.__contains__

    class Once(dict):
        def __contains__(self, kind):
            if kind == "list" and (status := next(answers, None)):
                self["list"] = status
                return True
            return original(self, kind) and kind != "list"

    server.status = Once()
    assert content(resolve(server.source).path) == expected()


def test_the_secret_is_sent_but_never_written(server, monkeypatch, capfd, tmp_path):
    secret = "hf_secret_0123456789abcdef"
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setenv("KAGGLE_API_TOKEN", secret)
    server.status["file"] = 403
    fails(server.source)
    assert server.headers["Authorization"] == f"Bearer {secret}"
    assert secret not in "".join(capfd.readouterr())
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("kind", ["head", "list"])
def test_a_host_that_is_silent_is_given_up(server, kind, monkeypatch):
    monkeypatch.setattr(download_errors, "ANSWER_SECONDS", 0.5 if kind == "head" else 5)
    monkeypatch.setattr("llama_exp.preset.hugging_face.TIMEOUT", (0.3, 0.3))
    monkeypatch.setattr("llama_exp.preset.kaggle.TIMEOUT", (0.3, 0.3))
    server.hang |= {kind}
    start = time.monotonic()
    assert f"no connection to {server.url}" in fails(server.source)
    assert time.monotonic() - start < 5


def test_a_name_lookup_that_hangs_is_given_up(server, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(30) and [])
    monkeypatch.setattr(download_errors, "ANSWER_SECONDS", 0.3)
    start = time.monotonic()
    assert "no answer within 0.3 s" in fails(server.source)
    assert time.monotonic() - start < 5
    release.set()


def test_a_transfer_that_stalls_is_given_up(server, monkeypatch):
    monkeypatch.setattr("llama_exp.preset.hugging_face.TIMEOUT", (0.3, 0.3))
    monkeypatch.setattr("llama_exp.preset.kaggle.TIMEOUT", (0.3, 0.3))
    server.hang |= {server.file_kind}
    assert "no connection" in fails(server.source)


def test_no_network_is_told_soon(server):
    server.__exit__()
    start = time.monotonic()
    text = fails(server.source)
    assert time.monotonic() - start < 4
    for word in ("no connection", "network", "preset.source=<folder>", "cache", "preset=none"):
        assert word in text


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a\\..\\b", "C:outside", "a\nb", ""])
@pytest.mark.parametrize("renamed", ["README.md", WEIGHTS])
def test_a_name_that_leads_elsewhere_refuses_the_whole_model(server, name, renamed, tmp_path):
    server.names[renamed] = name
    assert "unsafe" in fails(server.source)
    assert not server.requests("config.json")
    assert not list(tmp_path.rglob("*outside*")) and not Path("/etc/outside").exists()


def test_a_doubled_name_refuses_the_whole_model(server):
    server.names["README.md"] = WEIGHTS
    assert "doubled" in fails(server.source)


def test_a_model_that_is_no_llama_is_refused_before_its_weights(server):
    files = KERAS_HUB | {"config.json": KERAS_HUB["config.json"].replace(b"LlamaBackbone", b"GemmaBackbone")}
    push(server, files)
    with pytest.raises(InputError) as raised:
        resolve(server.source)
    assert "GemmaBackbone" in str(raised.value)
    assert not server.requests(WEIGHTS)


def push(server, files):
    if server.name == "Kaggle":
        server.versions[max(server.versions) + 1] = files
    else:
        server.push(files)


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"model.weights.h5": None}, "neither model.weights.h5 nor model.weights.json"),
        ({"model.weights.h5": None, "pytorch_model.bin": b"PK"}, "pickles"),
        ({"model.weights.h5": None, "tiny.gguf": b"GGUF"}, "GGUF files only"),
        ({"config.json": None}, "no config.json"),
        (
            {"model.weights.h5": None, "model.weights.json": b'{"weight_map": {"/a/vars": ["a.h5"]}}'},
            "not there: 'a.h5'",
        ),
        ({"model.weights.h5": None, "model.weights.json": b'{"weight_map": {"/a/vars": "../../a"}}'}, "not there"),
        ({"model.weights.h5": None, "model.weights.json": b'{"weight_map": {"/a/vars": 3}}'}, "no table of shards"),
    ],
)
def test_a_model_without_usable_weights_says_why(server, files, word):
    push(server, {name: data for name, data in (KERAS_HUB | files).items() if data is not None})
    with pytest.raises(InputError) as raised:
        resolve(server.source)
    assert word in str(raised.value)
    assert not server.requests("pytorch_model.bin") and not server.requests("a.h5")


def test_shards_are_fetched_by_their_table(server):
    table = b'{"weight_map": {"/a/vars": ["model_00000.weights.h5"], "/b/vars": "model_00001.weights.h5"}}'
    shards = {f"model_0000{i}.weights.h5": bytes([i]) * 2000 for i in range(3)}
    files = {name: data for name, data in KERAS_HUB.items() if name != WEIGHTS} | shards | {"model.weights.json": table}
    push(server, files)
    got = content(resolve(server.source).path)
    assert got["model_00001.weights.h5"] == shards["model_00001.weights.h5"]
    assert "model_00000.weights.h5" in got and "model_00002.weights.h5" not in got


def test_too_little_space_is_seen_before_the_download(server, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    text = fails(server.source)
    assert f"needs {len(KERAS_HUB[WEIGHTS]):,} bytes" in text and "5,000 bytes free" in text
    assert not server.requests(WEIGHTS)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_during_the_download(server, monkeypatch, code):
    def full(descriptor):
        raise OSError(code, "no room")

    monkeypatch.setattr("os.fsync", full)
    text = fails(server.source)
    assert "disk is too full" in text and "bytes free" in text


def test_a_cache_that_cannot_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "below"))
    text = fails(server.source)
    assert "cannot be written" in text and ("KAGGLEHUB_CACHE" in text or "HF_HOME" in text)
