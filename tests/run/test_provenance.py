"""Where a run comes from, with git and without."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from llama_exp.files.json_text import dump_json
from llama_exp.run import provenance

ROOT = Path(__file__).resolve().parents[2]


def git(folder, *arguments):
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("one = 1\n")
    git(tmp_path, "init", "-q", "-b", "trunk")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_clean_repository(repository):
    facts, patch = provenance.git_state(repository / "package")
    assert re.fullmatch(r"[0-9a-f]{40}", facts["commit"])
    assert (facts["branch"], facts["dirty"], facts["untracked"], patch) == ("trunk", False, [], None)


def test_uncommitted_changes_become_a_patch_that_applies(repository, tmp_path_factory):
    module = repository / "package" / "module.py"
    module.write_text("one = 2\n")
    (repository / "package" / "new.py").write_text("")
    facts, patch = provenance.git_state(repository / "package")
    assert facts["dirty"] and facts["untracked"] == ["package/new.py"]
    clone = tmp_path_factory.mktemp("clone")
    git(clone, "clone", "-q", str(repository), ".")
    (clone / "a.diff").write_text(patch)
    git(clone, "apply", "a.diff")
    assert (clone / "package" / "module.py").read_text() == "one = 2\n"


def test_nothing_that_the_repository_configures_is_executed(repository):
    canary = repository.parent / "executed"
    for key in ("diff.external", "core.fsmonitor"):
        git(repository, "config", key, f"touch {canary}; false")
    (repository / "package" / "module.py").write_text("one = 2\n")
    _, patch = provenance.git_state(repository / "package")
    assert "+one = 2" in patch
    assert not canary.exists()


def test_a_package_installed_inside_another_repository_is_not_that_repository(repository):
    installed = repository / "venv" / "llama_exp"
    installed.mkdir(parents=True)
    facts, patch = provenance.git_state(installed)
    assert facts["commit"] is None and "not tracked" in facts["reason"] and patch is None


def test_no_repository(tmp_path):
    facts, patch = provenance.git_state(tmp_path)
    assert facts["commit"] is None and "not a git repository" in facts["reason"] and patch is None


def test_no_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    facts, patch = provenance.git_state(tmp_path)
    assert facts["commit"] is None and "git" in facts["reason"] and patch is None


def test_repository_without_commits(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("")
    git(tmp_path, "add", "a")
    facts, _ = provenance.git_state(tmp_path)
    assert facts["commit"] is None and facts["reason"]


def test_git_that_hangs_costs_bounded_time(tmp_path, monkeypatch):
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(provenance, "_GIT_SECONDS", 0.2)
    facts, _ = provenance.git_state(tmp_path)
    assert facts["commit"] is None and "timed out" in facts["reason"]


def test_facts_are_complete_and_strict_json(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("KERAS_SECRET_TOKEN", "canary-1234")
    facts, _ = provenance.collect(["train.py", "api_key=canary-5678"], tmp_path)
    text = dump_json(facts)
    assert "canary" not in text
    facts = json.loads(text)
    assert facts["command"] == "python train.py 'api_key=***'"
    assert facts["environment"]["OMP_NUM_THREADS"] == "2"
    assert (
        facts["cores"] >= 1 and facts["memory_bytes"] > 2**28 and facts["cpu"] and facts["platform"] and facts["python"]
    )


def test_the_listed_packages_are_the_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["jax"]]
    names = {re.match(r"[\w.-]+", requirement).group() for requirement in requirements}
    assert set(provenance.PACKAGES) == names | {"llama_exp"}
    assert list(provenance.PACKAGES) == sorted(provenance.PACKAGES)


def test_versions_are_those_installed():
    import wandb

    versions = provenance.package_versions()
    assert versions["wandb"] == wandb.__version__ and versions["llama_exp"]


def test_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package-of-ours", "llama_exp"))
    assert provenance.package_versions()["no-such-package-of-ours"] is None


@pytest.mark.parametrize(
    ("arguments", "folder", "expected"),
    [
        (["train.py", "a=1", "resume=none"], "out/x", "python train.py a=1 hydra.run.dir=out/x resume=auto"),
        (["/usr/bin/llama-exp"], "/out/x", "llama-exp hydra.run.dir=/out/x resume=auto"),
        (["train.py", "hydra.run.dir=old"], "new", "python train.py hydra.run.dir=new resume=auto"),
    ],
)
def test_resume_command(arguments, folder, expected):
    assert provenance.resume_command(arguments, Path(folder)) == expected


def test_resume_command_survives_shell_and_hydra():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    folder = 'my "runs"/a=b, c'
    command = provenance.resume_command(["train.py"], Path(folder))
    override = OverridesParser.create().parse_override(shlex.split(command)[2])
    assert override.value() == folder
