"""`compose`: the command line's frontier, from Python."""

import copy
import dataclasses
import pickle
import subprocess
import sys

import pytest
import yaml

from llama_exp import compose
from llama_exp.config.check import check_arguments, config_hash, to_dict
from llama_exp.errors import ConfigError
from llama_exp.notebook.composed import compose_again

LINES = ("lora.rank=8", "trainer.max_steps=7", "optimizer.learning_rate=1e-3")


def test_it_is_what_the_command_would_train():
    config, command = compose(*LINES), check_arguments(list(LINES)).config
    assert to_dict(config) == to_dict(command) and config_hash(config) == config_hash(command)
    assert (config.trainer.max_steps, config.lora.rank, config.optimizer.learning_rate) == (7, 8, 1e-3)
    assert config.overrides == LINES


def test_it_shows_itself_as_yaml():
    config = compose(*LINES)
    assert yaml.safe_load(repr(config)) == to_dict(config)
    page = config._repr_html_()
    assert "<details open><summary><code>lora</code></summary>" in page
    assert "<details><summary><code>dataset</code></summary>" in page


def test_what_is_shown_is_text_and_holds_no_secret():
    config = compose("trainer.sample_prompts=['<script>alert(1)</script>']")
    assert "<script>" not in config._repr_html_() and "&lt;script&gt;" in config._repr_html_()
    address = compose("trainer.sample_prompts=['https://me:sesame@host/x']")
    assert "sesame" not in repr(address) + address._repr_html_()


def test_all_mistakes_come_at_once():
    with pytest.raises(ConfigError) as caught:
        compose("lora.rnk=8", "trainer.max_steps=0", "optimizer.learning_rate=fast")
    assert {problem.where for problem in caught.value.problems} == {
        "lora.rnk",
        "trainer.max_steps",
        "optimizer.learning_rate",
    }


@pytest.mark.parametrize(
    ("lines", "fix"),
    [
        (["-m", "lora.rank=4,8"], "load_sweep"),
        (["sweep=lora_rank"], "load_sweep"),
        (["hydra.mode=MULTIRUN", "seed=0,1"], "folder="),
        (["hydra.run.dir=elsewhere"], "folder="),
        (["hydra/launcher=basic"], "folder="),
        (["--cfg"], "config_dir="),
        (["--version"], "config_dir="),
        ([["lora.rank=8"]], 'compose("lora.rank=8", "seed=1")'),
        ([8], 'compose("lora.rank=8", "seed=1")'),
    ],
)
def test_what_is_no_override_is_refused_with_what_to_do(lines, fix):
    with pytest.raises(ConfigError) as caught:
        compose(*lines)
    assert fix in str(caught.value)


def test_a_folder_of_ones_own_choices(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [llama_tiny]\nnum_layers: 3\n")
    config = compose("model=mine", config_dir=tmp_path)
    assert config.model.num_layers == 3
    assert compose_again([config, "seed=5"], None).model.num_layers == 3
    with pytest.raises(ConfigError, match="no such folder"):
        compose("model=mine", config_dir=tmp_path / "gone")


def test_overrides_behind_a_config_win_over_its_own():
    config = compose_again([compose(*LINES), "trainer.max_steps=9", "seed=3"], None)
    assert (config.trainer.max_steps, config.seed, config.lora.rank) == (9, 3, 8)
    assert config.overrides == ("lora.rank=8", "optimizer.learning_rate=1e-3", "trainer.max_steps=9", "seed=3")
    assert to_dict(compose_again([], None)) == to_dict(compose())


def test_a_config_that_was_changed_is_not_trained_unchecked():
    config = compose(*LINES)
    config.trainer.max_steps = -1
    with pytest.raises(ConfigError) as caught:
        compose_again([config], None)
    (problem,) = caught.value.problems
    assert (problem.where, problem.found) == ("trainer.max_steps", "-1, composed with 7")
    assert 'train(config, "trainer.max_steps=-1")' in problem.action
    with pytest.raises(ConfigError, match="was not composed"):
        compose_again([dataclasses.replace(compose(), seed=4)], None)
    with pytest.raises(ConfigError, match="one config at a time"):
        compose_again([compose(), compose()], None)


def test_it_can_be_copied_and_pickled():
    config = compose(*LINES)
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config and other.overrides == LINES


@pytest.mark.process
def test_composing_imports_no_framework():
    code = "import sys, llama_exp; llama_exp.compose('lora.rank=8'); print([m for m in ('keras', 'jax', 'tensorflow', "
    code += "'matplotlib', 'pandas', 'IPython') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
