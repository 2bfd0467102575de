"""The launcher's keys: in our configuration, in every application's, and in the class that reads them."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from llama_exp.config.check import CONF
from llama_exp.errors import ConfigError
from llama_exp.limits.launcher import LIMITS
from llama_exp.sweeps.app import PlainApp, load_app
from llama_exp.sweeps.options import Options

FILE = "hydra/launcher/processes.yaml"
PLUGIN = Path(__file__).resolve().parents[2] / "hydra_plugins" / "llama_exp_sweeps" / "conf"


def keys(folder):
    return yaml.safe_load((folder / FILE).read_text())


def test_the_keys_are_the_same_everywhere():
    every, ours = keys(PLUGIN), keys(CONF)
    fields = {item.name: item.default for item in dataclasses.fields(Options)}
    assert every.keys() - {"_target_"} == fields.keys() == LIMITS.values.keys()
    # llama_exp's own key `resume` says whether a sweep goes on.
    assert every.keys() - ours.keys() == {"resume"} and ours.keys() <= every.keys()
    assert {key for key in ours if ours[key] != every[key]} == {"app"}
    assert load_app(ours["app"]).find_outcome(Path("none")) is None and isinstance(load_app(every["app"]), PlainApp)


def test_each_key_is_explained():
    for folder in (PLUGIN, CONF):
        lines = (folder / FILE).read_text().splitlines()
        assert all(" # " in line for line in lines if line[0] not in "#_"), folder


def test_options_of_a_node():
    node = keys(PLUGIN) | {"devices": [0, 1], "n_jobs": 2}
    assert Options.make(node) == Options(n_jobs=2, devices=(0, 1), resume="auto")
    with pytest.raises(ConfigError) as refused:
        Options.make(node | {"n_jobs": 0, "devices": []})
    assert [problem.where for problem in refused.value.problems] == ["hydra.launcher.n_jobs", "hydra.launcher.devices"]
