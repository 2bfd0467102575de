"""Text stays text: as it is typed and as it stands in a file, whatever the parsers take it for."""

import shlex

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from llama_exp.config.check import check_arguments
from llama_exp.config.check.spelling import list_texts
from llama_exp.config.quoting import plain_or_quoted, quote
from llama_exp.errors import ConfigError

ODD = ["2025_11_28", "012", "0x1F", "1e3", "1_000", "1.50", "+5", ".5", "yes", "no", "on", "true", "12:30", "nan", "~"]
ODD_PATHS = ["my{model", "a=b", "[x]", "[2025] corpus/a.txt", "été/ключ", "a b", "corpus(1).txt", "a#b", "x}", "it's"]


def config(*arguments):
    return check_arguments(arguments).config


def test_which_keys_hold_text():
    texts = list_texts()
    assert texts["name"] is False and texts["preset.source"] is False and texts["lora.targets"] is True
    assert not {"seed", "trainer.max_steps", "lora.rank_pattern", "dataset.packing"} & texts.keys()


@pytest.mark.parametrize("word", ODD)
def test_words_on_the_command_line(word):
    made = config(f"trainer.sample_prompts=[{word},b]", f"runtime.cache_dir={word}")
    assert (made.trainer.sample_prompts, made.runtime.cache_dir) == ([word, "b"], word)


@pytest.mark.parametrize("path", ODD_PATHS)
def test_paths_on_the_command_line(path):
    assert config(f"runtime.cache_dir={path}").runtime.cache_dir == path


def test_items_with_brackets_and_letters():
    line = "dataset.files=[[2025] corpus/a.txt,données/b=c.txt]"
    assert config("dataset=text_files", line).dataset.files == ["[2025] corpus/a.txt", "données/b=c.txt"]


def test_texts_in_a_mapping():
    made = config("lora={rank: 8, source: 2024_01}")
    assert (made.lora.rank, made.lora.source) == (8, "2024_01")


def test_numbers_stay_numbers_and_null_stays_null():
    made = config("trainer.max_steps=1_000", "logger.entity=null", "dataset.sequence_length=64")
    assert (made.trainer.max_steps, made.logger["entity"], made.dataset.sequence_length) == (1000, None, 64)
    with pytest.raises(ConfigError, match="name: has the wrong type"):
        config("name=null")


def test_a_sweep_over_texts_and_a_choice_called_like_a_number(tmp_path):
    command = check_arguments(["-m", "name=2025_11,2025_12"])
    assert command.config.name == "2025_11" and "name='2025_11','2025_12'" in command.arguments
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/2025_11_28.yaml").write_text("# @package _global_\nseed: 7\n")
    assert config("--config-dir", str(tmp_path), "experiment=2025_11_28").seed == 7


def test_an_open_quote_is_still_a_mistake():
    with pytest.raises(ConfigError, match="grammar"):
        config("name='a")


@pytest.mark.parametrize("package", ["# @package _global_\n", ""])
def test_words_in_a_file(tmp_path, package):
    """What the file says, not what YAML 1.1 makes of it; quoted words as before."""
    folder = tmp_path / ("experiment" if package else "logger")
    folder.mkdir()
    tags = "[" + ", ".join([*ODD, "null", "'012'"]) + "]"
    section = f"project: 0x1F\ntags: {tags}\n"
    if package:
        text = "".join(f"  {line}\n" for line in section.splitlines())
        (folder / "mine.yaml").write_text(f"{package}name: 2025_11_28\nseed: 1_0\nlogger:\n{text}")
        made = config("--config-dir", str(tmp_path), "experiment=mine")
        assert (made.name, made.seed) == ("2025_11_28", 10)
    else:
        (folder / "mine.yaml").write_text(f"defaults: [wandb, _self_]\n{section}")
        made = config("--config-dir", str(tmp_path), "logger=mine")
    assert (made.logger["project"], made.logger["tags"]) == ("0x1F", [*ODD, "null", "012"])


def test_what_is_saved_is_read_as_it_was(tmp_path):
    """The record is YAML of PyYAML, which quotes what YAML 1.1 would take for something else."""
    made = config("name=2025_11_28", "logger.tags=[012,1e3,yes]")
    saved = yaml.safe_load(yaml.safe_dump({"name": made.name, "tags": made.logger["tags"]}))
    assert saved == {"name": "2025_11_28", "tags": ["012", "1e3", "yes"]}


@pytest.mark.parametrize(
    "text", [*ODD, *ODD_PATHS, "", " a ", '"', "'", "a\\", "a\\'b", "a,b", "x\\\\'", "null", "a$b"]
)
def test_quoted_texts_come_back(text):
    """By Hydra's own parser, and through a shell."""
    parser = OverridesParser.create()
    for spelled in (quote(text), plain_or_quoted(text)):
        (pasted,) = shlex.split(shlex.quote(f"key={spelled}"))
        assert parser.parse_overrides([pasted])[0].value() == text
