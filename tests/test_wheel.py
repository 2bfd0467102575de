"""The installed package: what is in it, that it runs from an empty folder, and that a neighbour does it no harm."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata
from whole_runs import SMALL

from llama_exp.config.check import CONF
from llama_exp.config.conf_folder import find_conf

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("llama_exp", "hydra_plugins")
PAGE_FILES = (".html", ".css", ".js")  # of a report's page
CODE = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PACKAGES = {".".join(path.parent.relative_to(ROOT).parts) for path in CODE if path.name == "__init__.py"}
PLAIN_APP = """
import hydra

@hydra.main(version_base=None)
def main(cfg):
    print("x is", cfg.x)

main()
"""
NEIGHBOUR = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "neighbour"
version = "1"

[tool.setuptools]
packages = ["neighbour", "conf", "conf.dataset"]

[tool.setuptools.package-data]
"*" = ["*.yaml"]
"""


def execute(*command, code=0, **options):
    """Standard output of a process that ends with `code`."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=240, **options
    )
    assert done.returncode == code, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def build_wheel(source, target):
    """The wheel of a source folder or archive, made by this environment's setuptools."""
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    execute(sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", target, source)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the repository's sources, so that building leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("source")
    for name in (*FOLDERS, "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def archive(source, tmp_path_factory):
    """The source archive."""
    target = tmp_path_factory.mktemp("archive")
    script = f"from setuptools import build_meta; build_meta.build_sdist({str(target)!r})"
    execute(sys.executable, "-c", script, cwd=source)
    return next(target.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(archive, tmp_path_factory):
    """The wheel, made of the source archive, which therefore lacks nothing."""
    return build_wheel(archive, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory):
    """The wheel of another Hydra project, which owns a top-level package `conf`."""
    source = tmp_path_factory.mktemp("neighbour")
    (source / "pyproject.toml").write_text(NEIGHBOUR)
    for package in ("neighbour", "conf", "conf/dataset"):
        (source / package).mkdir()
        (source / package / "__init__.py").touch()
    for name in ("config", "dataset/python_docs"):
        (source / "conf" / f"{name}.yaml").write_text("neighbour: true\n")
    return build_wheel(source, tmp_path_factory.mktemp("neighbour_wheel"))


class Environment:
    """A virtual environment of its own, which finds what llama_exp needs where this process does."""

    def __init__(self, folder):
        self.folder = folder / "environment"
        self.empty = folder / "empty"
        self.empty.mkdir()
        execute(sys.executable, "-m", "venv", "--without-pip", self.folder)
        self.python = self.folder / "bin" / "python"
        own = execute(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        self.packages = Path(own)
        needs = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        hook = folder / "hook"
        hook.mkdir()
        # Behind its own packages, and without the .pth files that lead to this checkout.
        (hook / "sitecustomize.py").write_text(f"import sys\nsys.path += {needs!r}\n")
        kept = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
        self.variables = {**kept, "PYTHONPATH": str(hook), "LLAMA_EXP_CACHE": str(folder / "cache")}

    def pip(self, *arguments):
        """Runs pip on this environment alone."""
        execute(sys.executable, "-m", "pip", "--python", self.python, *arguments)

    def install(self, *what):
        """Installs wheels."""
        self.pip("install", "--quiet", "--no-deps", "--no-index", *what)

    def run(self, *arguments, **options):
        """Standard output of the console script, from an empty folder."""
        script = self.folder / "bin" / "llama-exp"
        return execute(script, *arguments, cwd=self.empty, env=self.variables, **options)

    def configuration(self, *arguments):
        """What `--cfg job` shows."""
        return yaml.safe_load(self.run("train", "--cfg", "job", *arguments))


@pytest.fixture
def environment(tmp_path):
    """A bare environment, and an empty folder to start from."""
    return Environment(tmp_path)


def is_whole(environment):
    """Whether each YAML file is installed as it is in the repository, and is what a command composes."""
    installed = environment.packages / "llama_exp" / "conf"
    names = {path.relative_to(CONF): path.read_bytes() for path in CONF.rglob("*.yaml")}
    assert {path.relative_to(installed): path.read_bytes() for path in installed.rglob("*.yaml")} == names
    assert environment.configuration("lora.rank=3")["lora"]["rank"] == 3
    return True


# --- the declarations


def test_every_package_is_named():
    """A folder that is missing in the list would be missing in the wheel."""
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == PACKAGES | {"llama_exp.conf"}
    for path in CODE:
        assert (path.parent / "__init__.py").exists(), path
    assert not (ROOT / "hydra_plugins" / "__init__.py").exists()  # other packages have plug-ins below it too


def test_conf_is_looked_for_inside_of_the_package_first(tmp_path):
    package = tmp_path / "site-packages" / "llama_exp"
    for folder in (package, package.parent / "conf"):
        folder.mkdir(parents=True)
    assert find_conf(package) == package.parent / "conf"
    (package / "conf").mkdir()
    assert find_conf(package) == package / "conf"
    assert CONF == ROOT / "conf"


def test_who_wrote_it_and_under_which_licence():
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence
    assert "Copyright 2026 The llama_exp authors" in licence
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license", "version"} <= citation.keys()
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"
    assert citation["authors"] == PROJECT["project"]["authors"]


# --- the archives


@pytest.mark.process
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as opened:
        files = {Path(name) for name in opened.namelist()}
        [info] = {path.parts[0] for path in files} - set(FOLDERS)
        metadata = Metadata.from_email(opened.read(f"{info}/METADATA"), validate=True)
    code = {path.relative_to(ROOT) for path in CODE}
    yamls = {"llama_exp/conf" / path.relative_to(CONF) for path in CONF.rglob("*.yaml")}
    yamls |= {path.relative_to(ROOT) for path in (ROOT / "hydra_plugins").rglob("*.yaml")}
    page = {path.relative_to(ROOT) for path in (ROOT / "llama_exp/report/page").iterdir() if path.suffix in PAGE_FILES}
    assert {path for path in files if path.parts[0] in FOLDERS} == code | yamls | page
    assert Path(info) / "licenses" / "LICENSE" in files
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert metadata.license_expression == "Apache-2.0" and str(metadata.version) == citation["version"]
    assert metadata.description_content_type == "text/markdown" and "# llama_exp" in metadata.description


@pytest.mark.process
def test_the_source_archive_holds_the_sources(archive, source):
    with tarfile.open(archive) as opened:
        names = {Path(*Path(name).parts[1:]) for name in opened.getnames()}
    assert {path.relative_to(source) for path in source.rglob("*.yaml")} <= names
    assert {Path("LICENSE"), Path("README.md"), Path("pyproject.toml")} <= names


# --- the installed package


@pytest.mark.process
def test_it_trains_from_an_empty_folder(environment, wheel):
    environment.install(wheel)
    assert is_whole(environment)
    assert "llama_tiny" in environment.run("train", "--help")
    mine = environment.empty / "mine" / "model"
    mine.mkdir(parents=True)
    (mine / "narrow.yaml").write_text("defaults: [llama_tiny]\nhidden_dim: 96\n")
    assert environment.configuration("--config-dir", "mine", "model=narrow")["model"]["hidden_dim"] == 96
    text = environment.empty / "text.txt"
    text.write_text("\n\n".join(f"the paragraph of number {number}, and a few more words" for number in range(80)))
    environment.run("train", *SMALL, f"dataset.files=[{text}]", "trainer.max_steps=2")
    metrics = environment.empty / "outputs" / "default" / "latest" / "metrics.jsonl"
    assert '"step": 2' in metrics.read_text()
    app = environment.empty / "app.py"
    app.write_text(PLAIN_APP)
    sweep = (app, "-m", "hydra/launcher=processes", "+x=1,2", "hydra.sweep.dir=sweep")
    execute(environment.python, *sweep, cwd=environment.empty, env=environment.variables)
    assert (environment.empty / "sweep" / "output" / "1.log").read_text() == "x is 2\n"


@pytest.mark.process
def test_shell_completion_finds_the_installed_choices(environment, wheel):
    environment.install(wheel)
    environment.variables["COMP_LINE"] = "llama-exp train model=llama3_2_"
    assert environment.run("-sc", "query=bash").split() == ["model=llama3_2_1b", "model=llama3_2_3b"]


@pytest.mark.process
@pytest.mark.parametrize("first", ["llama_exp", "neighbour"])
def test_another_hydra_project_comes_and_goes(environment, wheel, neighbour, first):
    """Its wheel owns a top-level `conf`, as many Hydra projects do."""
    for archive in [wheel, neighbour] if first == "llama_exp" else [neighbour, wheel]:
        environment.install(archive)
    theirs = environment.packages / "conf" / "config.yaml"
    assert is_whole(environment) and theirs.read_text() == "neighbour: true\n"
    if first == "llama_exp":
        environment.pip("uninstall", "--quiet", "--yes", "neighbour")
        assert is_whole(environment) and not theirs.exists()
    else:
        environment.pip("uninstall", "--quiet", "--yes", "llama_exp")
        assert theirs.read_text() == "neighbour: true\n"
        assert not (environment.packages / "llama_exp").exists()


@pytest.mark.process
def test_an_editable_install_finds_the_checkout(environment, source):
    target = environment.folder / "editable"
    target.mkdir()
    execute(
        sys.executable, "-c", f"from setuptools import build_meta as b; b.build_editable({str(target)!r})", cwd=source
    )
    environment.install(*target.glob("*.whl"))
    (source / "conf" / "model" / "added.yaml").write_text("defaults: [llama_tiny]\nhidden_dim: 96\n")
    try:
        assert environment.configuration("model=added")["model"]["hidden_dim"] == 96
    finally:
        (source / "conf" / "model" / "added.yaml").unlink()
    where = textwrap.dedent("""
        from llama_exp.config.check import CONF
        print(CONF)
    """)
    shown = execute(environment.python, "-c", where, cwd=environment.empty, env=environment.variables)
    assert Path(shown.strip()) == source / "conf"
