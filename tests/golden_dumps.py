"""What the golden files hold: resolved configs, where keys get their values, variables of a tiny model, a report.

Each is plain text, a line a fact.

A change of a golden file in a commit shows what that commit changes for everyone: a default, the configuration's hash,
a variable's path, shape, type or whether it trains. `python tests/renew_goldens.py` writes them anew.
"""

import io
import os
from pathlib import Path
from unittest import mock

import made_claims
import yaml
from rich.console import Console

from llama_exp.config.check import CONF, check_arguments, to_dict
from llama_exp.config.explain import explain, text
from llama_exp.config.identity import config_hash
from llama_exp.report import Options, make_report
from llama_exp.report.terminal import show
from llama_exp.results import load_runs

FOLDER = Path(__file__).parent / "goldens"
# What a choice needs from the user before it is a whole config.
NEEDED = {"experiment=llama2_7b_lora": ["dataset.files=[a.jsonl]"]}
ADAPTERS = {"plain": None, "lora": {"rank": 8}, "dora": {"rank": 8, "use_dora": True}}
MODES = ("none", "int8", "int4")
REPORT = "report-claims"
VARIABLES = [f"variables-tiny-{adapter}-{mode}" for adapter in ADAPTERS for mode in MODES]

# Golden file's name -> keys and command line: an experiment, a chain of models, a sweep; 40 keys in all.
EXPLAINED = {
    "explain-experiment": (
        "name lora.rank lora.alpha lora.targets dataset._target_ dataset.files dataset.sequence_length"
        " precision.policy trainer.batch_size trainer.max_steps schedule.warmup_steps optimizer.beta_2"
        " optimizer.weight_decay preset.source",
        "experiment=llama2_7b_lora dataset.files=[a.jsonl] ++optimizer.weight_decay=0.1 lora.targets.0=attention",
    ),
    "explain-model-chain": (
        "model.num_layers model.hidden_dim model.vocabulary_size model.rope_max_wavelength"
        " model.tie_word_embeddings model.rope_frequency_adjustment_factor preset.source trainer.max_steps"
        " trainer.batch_size trainer.keep_checkpoints optimizer.learning_rate tokenizer.vocabulary_size"
        " schedule.warmup_steps",
        "model=llama3_2_3b trainer.batch_size=${trainer.accumulation_steps}",
    ),
    "explain-sweep": (
        "lora.rank optimizer.learning_rate seed trainer.max_steps schedule.warmup_steps schedule.decay_steps"
        " schedule.final_fraction dataset.sequence_length dataset.validation_fraction lora.alpha quantization.mode"
        " tokenizer.vocabulary_size trainer.validate_every_steps",
        "sweep=lora_grid -m trainer=default,quick schedule=wsd dataset=python_qa",
    ),
}


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


def explained_text(name):
    """What explains the keys of a command, as it is shown in the repository's root."""
    names, line = EXPLAINED[name]
    words = line.split()
    labels = {word: f"argument {number}" for number, word in enumerate(words, start=1)}
    before = Path.cwd()
    os.chdir(CONF.parent)
    try:
        explained = explain(names.split(), words, labels)
    finally:
        os.chdir(before)
    assert not explained.problems, explained.problems
    return "\n".join([f"# llama-exp explain {names} {line}", *text.list_key_lines(explained)]) + "\n"


def report_text(folder):
    """What a terminal of 100 columns shows of an experiment's claims, and of its quick variant's.

    Args:
        folder: where the runs are made up; no part of the text.
    """
    made_claims.make_experiment(folder)
    made_claims.make_experiment(folder, made_claims.draw_losses(seeds=[0]), name="small-quick")
    file = io.StringIO()
    console = Console(file=file, width=100, color_system=None, legacy_windows=False)
    show(make_report(load_runs([folder]), Options()), console)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


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
