"""Where a run comes from, with git and without."""

import json
import os
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


# Each is in use somewhere: for the eyes, for one repository among many, or set by a hook that starts a run.
SURROUNDINGS = {
    "color": ({"color.ui": "always", "color.diff": "always", "color.status": "always"}, {}),
    "prefix": ({"diff.noprefix": "true", "diff.mnemonicPrefix": "true"}, {}),
    "other prefix": ({"diff.srcPrefix": "x/", "diff.dstPrefix": "y/"}, {}),
    "words": ({"diff.wordRegex": ".", "diff.context": "0", "diff.interHunkContext": "9"}, {}),
    "short": ({"diff.suppressBlankEmpty": "true", "diff.relative": "true", "diff.renames": "copies"}, {}),
    "status": ({"status.branch": "true", "status.short": "true", "status.showUntrackedFiles": "no"}, {}),
    "order": ({"diff.orderFile": "no-such-file"}, {}),
    "pager": ({"core.pager": "false", "pager.diff": "true"}, {"GIT_PAGER": "false", "GIT_PAGER_IN_USE": "1"}),
    "programs": (
        {"diff.external": "false", "diff.mine.textconv": "false", "diff.mine.command": "false"},
        {"GIT_EXTERNAL_DIFF": "false"},
    ),
    "attributes": ({"core.attributesFile": "{home}/attributes"}, {}),
    "another repository": (
        {},
        {"GIT_DIR": "{home}/nowhere", "GIT_WORK_TREE": "{home}", "GIT_INDEX_FILE": "{home}/index", "GIT_PREFIX": "x/"},
    ),
    "objects": ({}, {"GIT_OBJECT_DIRECTORY": "{home}", "GIT_COMMON_DIR": "{home}", "GIT_NAMESPACE": "x"}),
    "words of the shell": ({}, {"GIT_DIFF_OPTS": "--unified=0", "GIT_TRACE": "1", "GIT_GLOB_PATHSPECS": "1"}),
    "no home": ({}, {"HOME": None, "XDG_CONFIG_HOME": None}),
    "language": ({}, {"LANG": "de_DE.UTF-8", "LANGUAGE": "de", "LC_ALL": "de_DE.UTF-8"}),
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_surroundings_change_nothing(repository, tmp_path_factory, monkeypatch, name):
    module = repository / "package" / "module.py"
    module.write_text("one = 1\n\n" + "".join(f"line_{number} = 0\n" for number in range(20)))
    git(repository, "commit", "-aqm", "second")
    module.write_text(module.read_text().replace("one = 1", "one = 2").replace("line_9 = 0", "line_9 = 1"))
    (repository / "package" / "new.py").write_text("")
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("GIT_")})
    expected = provenance.git_state(repository / "package")
    settings, variables = SURROUNDINGS[name]
    home = tmp_path_factory.mktemp("home")
    (home / "attributes").write_text("*.py -diff\n")
    environment = {"HOME": "{home}", **variables}
    config = [f"[{key.rpartition('.')[0]}]\n{key.rpartition('.')[2]} = {value}\n" for key, value in settings.items()]
    (home / ".gitconfig").write_text("".join(config).replace("[diff.mine]", '[diff "mine"]').format(home=home))
    os.environ.update({key: value.format(home=home) for key, value in environment.items() if value is not None})
    for key in [key for key, value in environment.items() if value is None]:
        os.environ.pop(key, None)
    assert provenance.git_state(repository / "package") == expected
    assert expected[0]["dirty"] and expected[1].startswith("diff --git a/package/module.py b/package/module.py\n")


def test_whom_git_trusts_is_the_user_s_business(repository, monkeypatch, tmp_path_factory):
    """A container often runs with another user's files, and its image says `safe.directory`."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setattr(provenance, "_GIT_VARIABLES", re.compile(f"{provenance._GIT_VARIABLES.pattern}|GIT_TEST.*"))
    monkeypatch.setenv("HOME", str(home))
    assert "dubious ownership" in provenance.git_state(repository)[0]["reason"]
    (home / ".gitconfig").write_text("[safe]\ndirectory = *\n")
    assert provenance.git_state(repository)[0]["commit"]


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


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (["train.py", "-m", "a=1,2"], "python train.py"),
        (["/usr/bin/llama-exp", "train", "-m", "a=1,2"], "llama-exp train"),
        (["/x/submitit/core/_submit.py", "/x/.submitit/7"], "llama-exp train"),
    ],
)
def test_a_job_of_a_sweep_goes_on_by_its_own_record(arguments, program):
    command = provenance.resume_command(arguments, Path("/out/0_a-1"), in_sweep=True)
    assert command == f"{program} --from /out/0_a-1 resume=/out/0_a-1"


def test_resume_command_survives_shell_and_hydra():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    folder = 'my "runs"/a=b, c'
    command = provenance.resume_command(["train.py"], Path(folder))
    override = OverridesParser.create().parse_override(shlex.split(command)[2])
    assert override.value() == folder


def test_every_installed_package_is_named_under_the_name_of_its_dependency(tmp_path, monkeypatch):
    for name, version in (("PyYAML", "99.1"), ("some_thing.of-mine", "0.3")):
        (tmp_path / f"{name}-{version}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: 7\n"
        (tmp_path / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)
    (tmp_path / "broken-1.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    versions = provenance.package_versions()
    assert versions["pyyaml"] == "99.1" and "PyYAML" not in versions  # the first one on the path is imported
    assert versions["some_thing.of-mine"] == "0.3" and "broken" not in versions
    assert versions["pytest"] == pytest.__version__ and versions["jaxlib"]
