"""Where a run comes from: source, packages, machine, command line. Imports no framework."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_exp.config.quoting import plain_or_quoted
from llama_exp.files.redact import is_secret_name, redact_arguments
from llama_exp.files.shown_path import show_path
from llama_exp.run import machine, sources
from llama_exp.run.untracked import make_patch as make_untracked_patch

# The run-time dependencies and the second backend; a test compares the list with pyproject.toml.
PACKAGES = (
    "array_record",
    "h5py",
    "huggingface_hub",
    "hydra-core",
    "importlib_resources",
    "jax",
    "jinja2",
    "kagglehub",
    "kagglesdk",
    "keras",
    "llama_exp",
    "llvmlite",
    "matplotlib",
    "ml_dtypes",
    "numba",
    "numpy",
    "omegaconf",
    "pyyaml",
    "requests",
    "rich",
    "safetensors",
    "sentencepiece",
    "tensorflow",
    "tensorflow-datasets",
    "tokenizers",
    "wandb",
)
_VARIABLES = re.compile(
    r"^(?:KERAS_|TF_|XLA_|JAX_|CUDA_|NVIDIA_|OMP_|MKL_|OPENBLAS_|ONEDNN_|DNNL_|NUMBA_|PYTHONHASHSEED$|SLURM_JOB_ID$)"
)
_NAME = re.compile(r"^Name:[ \t]*(\S+)", re.MULTILINE)
_VERSION = re.compile(r"^Version:[ \t]*(\S+)", re.MULTILINE)
_GIT_SECONDS = 5.0
_DIFF_BYTES = 10_000_000
# Nothing that a configuration names is executed, and none decides what the answers look like: neither the user's nor
# the repository's. Where files lie and whom git trusts (safe.directory) stays theirs.
_GIT_SETTINGS = {
    "core.fsmonitor": "false",
    "core.quotePath": "true",
    "core.attributesFile": os.devnull,
    "color.status": "false",
    "status.branch": "false",
    "diff.relative": "false",
    "diff.suppressBlankEmpty": "false",
    "diff.ignoreSubmodules": "none",
    "diff.orderFile": os.devnull,
}
_GIT = ("git", *(part for name, value in _GIT_SETTINGS.items() for part in ("-c", f"{name}={value}")))
_PATCH: tuple[str, ...] = (
    "--binary",
    "--full-index",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--src-prefix=a/",
)
_PATCH += ("--dst-prefix=b/", "--unified=3", "--inter-hunk-context=0", "--no-renames", "--submodule=short")
# A hook or an alias sets variables that point to its own repository; these do not.
_GIT_VARIABLES = re.compile(r"GIT_(?:CONFIG_.*|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM|EXEC_PATH)")


def collect(arguments: Sequence[str], source: Path | None = None) -> tuple[dict[str, Any], str | None]:
    """Facts about this process for `run.json`, and the uncommitted changes of its source as a patch.

    Args:
        arguments: the command line, `sys.argv`; secrets in it are masked.
        source: the folder whose git repository is the source; by default this package.

    Returns:
        JSON-ready facts, and the patch against the recorded commit (None without changes or without git).
    """
    git, patch = git_state(source or Path(__file__).resolve().parents[1])
    facts = {
        "command": command_line(arguments),
        "working_folder": os.getcwd(),
        "git": git,
        "packages": package_versions(),
        "sources": sources.digest_sources(sources.list_sources()),
        "python": platform.python_version(),
        "host": socket.gethostname(),
        **machine.describe(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if _VARIABLES.search(name) and not is_secret_name(name)
        },
    }
    return facts, patch


def package_versions() -> dict[str, str | None]:
    """Name -> version of everything that is installed, and None for a dependency that is not; nothing is imported."""
    spelled = {plain_name(name): name for name in PACKAGES}
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name, version in _installed(tuple(sys.path)).items():
        versions[spelled.get(plain_name(name), name)] = version
    if versions["llama_exp"] is None:  # run from its source folder
        from llama_exp import __version__

        versions["llama_exp"] = __version__
    return versions


@functools.cache
def _installed(_places: tuple[str, ...]) -> dict[str, str]:
    """Name -> version of all that `sys.path` leads to, sorted; of two of one name the first, which is imported."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        # `distribution.metadata` would parse each of some hundred whole files, which takes ten times as long.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        name, version = _NAME.search(text), _VERSION.search(text)
        if name and version:  # else what a broken installation left
            found.setdefault(name[1], version[1])
    return dict(sorted(found.items(), key=lambda entry: plain_name(entry[0])))


def plain_name(name: str) -> str:
    """The name of a package as indexes compare it: `PyYAML` is `pyyaml`, `ml_dtypes` is `ml-dtypes`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def git_state(source: Path) -> tuple[dict[str, Any], str | None]:
    """Commit, branch and changes of the repository that `source` belongs to, and the changes as a patch.

    Returns:
        `{"commit", "branch", "dirty", "untracked"}`, or `{"commit": None, "reason"}` where there is no commit to name:
        no git, no repository, or a package that is installed inside of somebody else's repository. The patch has the
        text of new source files too; `untracked_digests` are of those that are too large for it.
    """
    try:
        if not _git(source, "ls-files", "--", "."):
            return {"commit": None, "reason": f"{source.name} is not tracked by the repository around it"}, None
        commit = _git(source, "rev-parse", "HEAD").strip()
        found = _git(source, "rev-parse", "--abbrev-ref", "HEAD", "--show-toplevel").splitlines()
        branch, root = found[0], Path("\n".join(found[1:]))
        status = _git(source, "status", "--porcelain=v1", "--untracked-files=all").splitlines()
        patch = _git(source, "diff", *_PATCH, "HEAD")
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or b""
        reason = (told.decode("utf-8", "backslashreplace").strip() or str(error)).splitlines()
        return {"commit": None, "reason": reason[0] if reason else type(error).__name__}, None
    untracked = [line[3:] for line in status if line.startswith("??")]
    facts: dict[str, Any] = {"commit": commit, "branch": branch, "dirty": bool(status), "untracked": untracked}
    new_files, left_out = make_untracked_patch(root, untracked)
    patch += new_files
    if left_out:
        facts["untracked_digests"] = left_out
    if len(patch) > _DIFF_BYTES:
        facts["patch_cut_at_bytes"] = _DIFF_BYTES
        patch = patch[:_DIFF_BYTES]
    return facts, patch or None


def command_line(arguments: Sequence[str]) -> str:
    """The command as a shell would take it again, secrets masked."""
    return shlex.join([*program(arguments), *redact_arguments(arguments[1:])])


def program(arguments: Sequence[str]) -> list[str]:
    """The words that start this program once more, without its arguments."""
    script = arguments[0]
    if Path(script).name == "__main__.py":
        return ["python", "-m", Path(script).parent.name]
    if script.endswith(".py"):
        return ["python", script]
    return [Path(script).name] if script else [Path(sys.executable).name]


def training(arguments: Sequence[str]) -> list[str]:
    """The words that start a training, without overrides; a process of submitit's was started by others."""
    if list(arguments[1:2]) == ["train"]:
        return [*program(arguments), "train"]
    return program(arguments) if Path(arguments[0]).name == "train.py" else ["llama-exp", "train"]


def resume_command(arguments: Sequence[str], folder: Path, in_sweep: bool = False) -> str:
    """The command that continues the run in `folder` where its last checkpoint left it.

    Args:
        arguments: `sys.argv`; of a job of a sweep those of the whole sweep.
        folder: the run folder.
        in_sweep: whether it is a job of a sweep, which goes on by its own record.
    """
    if in_sweep:
        shown = show_path(folder)
        return shlex.join([*training(arguments), "--from", shown, f"resume={plain_or_quoted(shown)}"])
    kept = [argument for argument in arguments[1:] if not argument.startswith(("resume=", "hydra.run.dir="))]
    own = [f"hydra.run.dir={plain_or_quoted(show_path(folder))}", "resume=auto"]
    return shlex.join([*program(arguments), *redact_arguments(kept), *own])


def _git(source: Path, *arguments: str) -> str:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or _GIT_VARIABLES.fullmatch(name)
    }
    environment = {**kept, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_ATTR_NOSYSTEM": "1"}
    finished = subprocess.run(
        [*_GIT, "--no-optional-locks", "--no-pager", *arguments],
        cwd=source,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_GIT_SECONDS,
        check=True,
    )
    return finished.stdout.decode("utf-8", "backslashreplace")
