"""What the golden files hold: resolved configs, and the variables of a tiny model. Each is plain text, a line a fact.

A change of a golden file in a commit shows what that commit changes for everyone: a default, the configuration's hash,
a variable's path, shape, type or whether it trains. `python tests/renew_goldens.py` writes them anew.
"""

import os
from pathlib import Path
from unittest import mock

import yaml

from llama_exp.config.check import CONF, check_arguments, to_dict
from llama_exp.config.identity import config_hash

FOLDER = Path(__file__).parent / "goldens"
# What a choice needs from the user before it is a whole config.
NEEDED = {"experiment=llama2_7b_lora": ["dataset.files=[a.jsonl]"]}
ADAPTERS = {"plain": None, "lora": {"rank": 8}, "dora": {"rank": 8, "use_dora": True}}
MODES = ("none", "int8", "int4")
VARIABLES = [f"variables-tiny-{adapter}-{mode}" for adapter in ADAPTERS for mode in MODES]


def config_choices():
    """Golden file's name -> overrides: the default, each experiment and each pre-trained model."""
    found = {"config-default": []}
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        choice = f"experiment={path.stem}"
        found[f"config-{path.stem}"] = [choice, *NEEDED.get(choice, [])]
    for path in sorted((CONF / "model").glob("*.yaml")):
        if "override /preset" in path.read_text():
            found[f"config-{path.stem}"] = [f"model={path.stem}"]
    return found


def config_text(overrides):
    """The resolved config as YAML below its hash, as without environment variables of the user's own."""
    with mock.patch.dict(os.environ):
        os.environ.pop("LLAMA_EXP_CACHE", None)
        config = check_arguments(overrides).config
    return f"# config_hash {config_hash(config)}\n" + yaml.safe_dump(to_dict(config), sort_keys=False)


def variables_text(name):
    """A line per variable of the default model: path, shape, dtype, and whether it trains."""
    from llama_exp.models import LlamaBackbone

    adapter, mode = name.removeprefix("variables-tiny-").split("-")
    section = to_dict(check_arguments(["model=llama_tiny"]).config.model)
    section.pop("_target_")
    backbone = LlamaBackbone(**section)
    if mode != "none":
        backbone.quantize(mode)
    if ADAPTERS[adapter] is not None:
        backbone.enable_lora(**ADAPTERS[adapter])
    lines = sorted(
        f"{v.path} {tuple(v.shape)} {v.dtype} {'trains' if v.trainable else 'frozen'}" for v in backbone.variables
    )
    return "\n".join(lines) + "\n"


def path_of(name):
    return FOLDER / f"{name}.txt"
