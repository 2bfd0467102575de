"""The generated pages and the JSON schema say what the package does."""

import json
import sys
from pathlib import Path

import jsonschema
import pytest
from omegaconf import OmegaConf

from llama_exp import cli
from llama_exp.config.check import CONF, check_arguments, to_dict
from llama_exp.config.check.typed import list_sections
from llama_exp.config.reference import json_schema, parts, single_values
from llama_exp.config.schema import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import make_references  # noqa: E402


@pytest.mark.parametrize("page", make_references.PAGES)
def test_the_pages_are_current(page):
    written = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    assert written.split() == make_references.PAGES[page]().split(), "run: python docs/make_references.py"


def read(path):
    """A YAML file as Hydra and editors read it: 1e-4 is a number."""
    return OmegaConf.to_container(OmegaConf.load(path))


def validator(part=None):
    schema = json_schema(part)
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def errors(part, document):
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator(part).iter_errors(document)]


@pytest.mark.parametrize("part", list_sections())
def test_the_schema_accepts_every_file_of_conf(part):
    for path in (CONF / part).glob("*.yaml"):
        assert errors(part, read(path)) == [], path.name


def test_the_schema_accepts_experiments_and_saved_configurations():
    for path in (CONF / "experiment").glob("*.yaml"):
        assert errors(None, read(path)) == [], path.name
    assert errors(None, to_dict(check_arguments([]).config)) == []


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"lora": {"rnk": 8}}, "lora"),
        ({"lora": {"rank": "eight"}}, "lora.rank"),
        ({"lroa": {}}, ""),
        ({"trainer": {"remat": "everything"}}, "trainer.remat"),
        ({"optimizer": {"learning_rat": 1.0}}, "optimizer"),
        ({"dataset": {"packing": 3}}, "dataset.packing"),
    ],
)
def test_the_schema_marks_mistakes(document, where):
    (message,) = errors(None, document)
    assert message.startswith(f"{where}: ")


def test_other_classes_have_their_own_keys():
    assert errors(None, {"optimizer": {"_target_": "my_lab.Adan", "beta_9": 0.1}}) == []
    assert errors(None, {"lora": {"rank": "${oc.env:RANK}"}}) == []


def test_the_command_prints_and_writes(capsys, tmp_path):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["schema", "--part", "model"])
    assert json.loads(capsys.readouterr().out)["title"].endswith("conf/model")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["schema", "--write", str(tmp_path / "all.json")])
    assert set(json.loads((tmp_path / "all.json").read_text())["properties"]) >= set(single_values()) | set(
        list_sections()
    )
    assert {field for field in Config.__dataclass_fields__} == set(single_values()) | set(list_sections())


def test_every_decision_is_listed():
    folder = ROOT / "docs" / "adr"
    listed = (folder / "index.md").read_text(encoding="utf-8")
    files = {path.name for path in folder.glob("[0-9]*.md")}
    assert files and all(f"({name})" in listed for name in files)


def test_every_key_is_explained():
    keys = [(part.name, key) for part in parts() for key in part.keys.values()]
    assert [f"{part}.{key.name}" for part, key in keys if not make_references.meaning_of(key)] == []
    assert [name for name, key in single_values().items() if not make_references.meaning_of(key)] == []
