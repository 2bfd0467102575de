"""What is particular to one server: revisions that move, digests, the other programs' caches, two processes."""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download, scan_cache_dir, snapshot_download
from published_preset import CONFIG, KERAS_HUB, WANTED, WEIGHTS

from llama_exp.errors import InputError
from llama_exp.preset import resolve

TESTS = Path(__file__).resolve().parents[1]
TRANSFORMERS = {
    "config.json": json.dumps(
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": CONFIG["vocabulary_size"],
            "num_hidden_layers": CONFIG["num_layers"],
            "num_attention_heads": CONFIG["num_query_heads"],
            "num_key_value_heads": CONFIG["num_key_value_heads"],
            "hidden_size": CONFIG["hidden_dim"],
            "intermediate_size": CONFIG["intermediate_dim"],
            "rms_norm_eps": 1e-5,
        }
    ).encode(),
    "tokenizer.json": b"{}",
    "generation_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": b"s" * 3000,
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "pytorch_model.bin": b"PK",
    "original/consolidated.00.pth": b"PK",
    "training_args.bin": b"PK",
}


def names(path):
    return {str(file.relative_to(path)) for file in Path(path).rglob("*") if file.is_file()}


# --- Hugging Face


def test_a_transformers_checkpoint_comes_without_pickles(hub):
    hub.push(TRANSFORMERS)
    wanted = {"config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja", "model.safetensors"}
    assert names(resolve("hf://org/m").path) == wanted
    assert not any(hub.requests(word) for word in (".bin", ".pth", "index.json"))


def test_a_branch_moves_and_a_commit_stays(hub):
    old = hub.branches["main"]
    assert resolve("hf://org/m").revision == old
    new = hub.push(KERAS_HUB | {"metadata.json": b'{"new": 1}'})
    moved, stayed = resolve("hf://org/m"), resolve(f"hf://org/m@{old}")
    assert (moved.revision, stayed.revision) == (new, old)
    assert (moved.path / "metadata.json").read_bytes() == b'{"new": 1}'
    assert (stayed.path / "metadata.json").read_bytes() == b"{}"
    assert moved.origin == stayed.origin == "hf://org/m"


def test_equal_files_of_two_commits_are_fetched_once(hub):
    resolve("hf://org/m")
    hub.push(KERAS_HUB | {"metadata.json": b'{"new": 1}'})
    hub.log.clear()
    resolve("hf://org/m")
    assert len(hub.requests("/resolve/")) == 1 and hub.requests("metadata.json")


def test_tags_and_branches_have_names(hub):
    commit = hub.push(KERAS_HUB | {"metadata.json": b"[]"}, branch="v1.0")
    assert resolve("hf://org/m@v1.0").revision == commit
    hub.log.clear()
    assert resolve("hf://org/m@v1.0", offline=True).revision == commit
    assert hub.log == []


def test_huggingface_hub_finds_what_is_here(hub, monkeypatch):
    resolved = resolve("hf://org/m")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = hf_hub_download("org/m", WEIGHTS, revision=resolved.revision, cache_dir=constants.HF_HUB_CACHE)
    assert Path(found) == resolved.path / WEIGHTS
    info = scan_cache_dir(constants.HF_HUB_CACHE)
    assert not info.warnings
    (repo,) = info.repos
    assert [revision.commit_hash for revision in repo.revisions] == [resolved.revision]
    assert repo.nb_files == len(WANTED) and set(repo.refs) == {"main"}


def test_what_huggingface_hub_fetched_serves_offline(hub, monkeypatch):
    folder = constants.HF_HUB_CACHE
    for name in WANTED - {WEIGHTS}:
        _put_as_hub_does(folder, hub.branches["main"], name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve("hf://org/m", load_weights=False).revision == hub.branches["main"]
    with pytest.raises(InputError, match="only a part"):
        resolve("hf://org/m")
    _put_as_hub_does(folder, hub.branches["main"], WEIGHTS)
    assert resolve("hf://org/m").path == Path(snapshot_download("org/m", cache_dir=folder, local_files_only=True))
    assert hub.log == []


def test_what_another_program_fetched_is_checked_and_kept(hub):
    """A mirror may name blobs otherwise; other snapshots link to them, so they stay where they are."""
    for name in WANTED:
        _put_as_hub_does(constants.HF_HUB_CACHE, hub.branches["main"], name)
    blobs = names(Path(constants.HF_HUB_CACHE, "models--org--m", "blobs"))
    path = resolve("hf://org/m").path
    assert not hub.requests("/resolve/")
    assert names(Path(constants.HF_HUB_CACHE, "models--org--m", "blobs")) == blobs
    assert {name: (path / name).read_bytes() for name in WANTED} == {name: KERAS_HUB[name] for name in WANTED}


def _put_as_hub_does(cache, commit, name):
    home = Path(cache, "models--org--m")
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    (home / "blobs").mkdir(exist_ok=True)
    blob = home / "blobs" / name.replace("/", "_")
    blob.write_bytes(KERAS_HUB[name])
    pointer = home / "snapshots" / commit / name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.symlink_to(os.path.relpath(blob, pointer.parent))


def test_an_endpoint_without_digests_is_checked_by_size_of_the_body(hub):
    hub.offers_digests = False
    assert names(resolve("hf://org/m").path) == WANTED


@pytest.mark.parametrize("commit", ["../../../etc", "main", "a" * 39, None])
def test_a_hub_that_names_no_commit_is_not_understood(hub, commit):
    hub.branches["other"] = commit
    hub.commits[commit] = KERAS_HUB
    with pytest.raises(InputError, match="not what this version understands"):
        resolve("hf://org/m@other")


def test_another_commit_than_asked_for_is_refused(hub):
    asked, given = "a" * 40, hub.branches["main"]
    hub.branches[asked] = given
    with pytest.raises(InputError, match="not what this version understands"):
        resolve(f"hf://org/m@{asked}")


def test_a_gated_model_and_a_missing_one_are_told_apart(hub):
    hub.status["list"] = (401, {"X-Error-Code": "GatedRepo"})
    with pytest.raises(InputError, match=f"licence.*\n.*\n.*{hub.url}/org/m"):
        resolve("hf://org/m")
    hub.status.clear()
    with pytest.raises(InputError, match="no such revision"):
        resolve("hf://org/m@nosuch")
    with pytest.raises(InputError, match="no such model"):
        resolve("hf://org/nosuch")


# --- Kaggle


def test_the_newest_version_is_taken_and_recorded(kaggle):
    assert resolve("kaggle://org/m/keras/tiny").revision == "1"
    kaggle.versions[2] = KERAS_HUB | {"metadata.json": b'{"new": 1}'}
    newest, first = resolve("kaggle://org/m/keras/tiny"), resolve("kaggle://org/m/keras/tiny/1")
    assert (newest.revision, first.revision) == ("2", "1")
    assert (newest.path / "metadata.json").read_bytes() == b'{"new": 1}'
    assert resolve("kaggle://org/m/keras/tiny", offline=True) == newest


def test_no_archive_is_ever_asked_for(kaggle):
    many = {f"assets/extra/{i}.txt": b"x" for i in range(60)}  # above 25 files kagglehub takes the archive
    kaggle.versions[1] = KERAS_HUB | many
    resolve("kaggle://org/m/keras/tiny")
    assert set(kaggle.asked) == WANTED
    assert len(kaggle.requests("ListModelInstanceVersionFiles")) > 10  # all pages, as the weights may be on the last


def test_without_a_storage_that_gives_ranges_a_file_starts_anew(kaggle):
    kaggle.redirects, kaggle.cuts = False, 1
    assert names(resolve("kaggle://org/m/keras/tiny").path) == WANTED


def test_without_md5_the_size_is_checked(kaggle):
    kaggle.offers_digests = False
    kaggle.replaced[WEIGHTS] = b"short"
    with pytest.raises(InputError, match="truncated: 5 of 10240 bytes"):
        resolve("kaggle://org/m/keras/tiny")
    kaggle.replaced.clear()
    assert names(resolve("kaggle://org/m/keras/tiny").path) == WANTED


def test_what_kagglehub_left_half_or_wrong_is_not_trusted(kaggle, caplog):
    """kagglehub 1.0.2 calls a file complete when its size is right."""
    folder = Path(os.environ["KAGGLEHUB_CACHE"], "models/org/m/keras/tiny/1")
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"?" * len(KERAS_HUB[WEIGHTS]))
    (folder / "config.json").write_bytes(KERAS_HUB["config.json"][:50])
    (folder / "tokenizer.json").write_bytes(KERAS_HUB["tokenizer.json"])
    (folder.parent / "1.complete").touch()
    right = (folder / "tokenizer.json").stat().st_ino
    path = resolve("kaggle://org/m/keras/tiny/1").path
    assert (path / WEIGHTS).read_bytes() == KERAS_HUB[WEIGHTS]
    assert (path / "config.json").read_bytes() == KERAS_HUB["config.json"]
    assert caplog.text.count("fetched anew") == 2
    assert (path / "tokenizer.json").stat().st_ino == right and names(path) == WANTED


def test_what_kagglehub_fetched_serves_offline(kaggle):
    folder = Path(os.environ["KAGGLEHUB_CACHE"], "models/org/m/keras/tiny/3")
    for name in WANTED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(KERAS_HUB[name])
    with pytest.raises(InputError, match="no version is there whole"):  # perhaps it was killed in the middle
        resolve("kaggle://org/m/keras/tiny", offline=True)
    (folder.parent / "3.complete").touch()
    assert resolve("kaggle://org/m/keras/tiny", offline=True).revision == "3"
    assert kaggle.log == []


def test_kagglehub_finds_what_is_here(kaggle):
    import kagglehub

    path = resolve("kaggle://org/m/keras/tiny/1").path
    kaggle.log.clear()
    assert Path(kagglehub.model_download("org/m/keras/tiny/1", path=WEIGHTS)) == path / WEIGHTS
    assert kaggle.log == []


def test_a_broken_credentials_file_is_named(kaggle, tmp_path):
    (tmp_path / "kaggle.json").write_text('{"username": ')
    with pytest.raises(InputError, match="credentials cannot be understood"):
        resolve("kaggle://org/m/keras/tiny")


@pytest.mark.parametrize("fault", ["cut", "refused"])
def test_a_signed_address_is_never_shown(kaggle, fault):
    """Whoever has the address of the storage may read the file, so tracebacks must not have it either."""
    if fault == "cut":
        kaggle.cuts = 1000
    else:
        kaggle.status["storage"] = 400
    with pytest.raises(InputError) as raised:
        resolve("kaggle://org/m/keras/tiny")
    assert "Signature" not in "".join(traceback.format_exception(raised.value))
    assert kaggle.requests("Signature")


# --- in processes of their own, where HF_ENDPOINT and HF_HUB_OFFLINE count when huggingface_hub is imported

CHILD = "import sys; from llama_exp.preset import resolve; print(resolve(sys.argv[1]).revision)"


def child(server, source, home, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, source],
        cwd=TESTS.parent,
        env=os.environ
        | {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.process
def test_two_processes_fetch_one_preset_once(hub, tmp_path):
    hub.push(KERAS_HUB | {WEIGHTS: bytes(range(256)) * 40000})
    processes = [child(hub, "hf://org/m", tmp_path / "home") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert {out.strip() for out, _ in outputs} == {hub.branches["main"]}
    assert len(hub.requests(f"/{WEIGHTS}")) == 1
    (blob,) = [file for file in (tmp_path / "home").rglob("blobs/*") if file.stat().st_size > 1_000_000]
    assert blob.read_bytes() == bytes(range(256)) * 40000


@pytest.mark.process
def test_the_environment_switches_the_network_off(hub, tmp_path):
    process = child(hub, "hf://org/m", tmp_path / "home", HF_HUB_OFFLINE="1")
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and "offline, and the cache does not have it" in errors
    assert hub.log == []
