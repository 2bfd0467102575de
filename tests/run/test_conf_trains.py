"""What conf/ offers by name trains: every experiment, and the ends of every sweep, two steps of a tiny model.

Only sizes, and places that need a network, are replaced; `trainer.max_steps=2` is what a person types to look at one.
"""

import json
import re

import pytest
import tensorflow_datasets as tfds
import yaml
from daily import one_a_day
from whole_runs import run_here

from llama_exp.config.check import CONF, check_arguments

TEXT_OF = {path.stem: path.read_text() for path in (CONF / "experiment").glob("*.yaml")}
OF_SEVERAL_RUNS = {name for name, text in TEXT_OF.items() if "\nprotocol:" in text}
# What they begin with is theirs; all of that trains in their quick variants.
BASES = {found for name in OF_SEVERAL_RUNS for found in re.findall(r"\[experiment=(\w+)", TEXT_OF[name])}
EXPERIMENTS = sorted(TEXT_OF.keys() - OF_SEVERAL_RUNS - BASES)
SWEEPS = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))
TINY = [
    *("model.num_layers=1", "model.hidden_dim=128", "model.intermediate_dim=64"),
    *("model.num_query_heads=2", "model.num_key_value_heads=1"),
    *("trainer.batch_size=4", "trainer.max_steps=2", "trainer.validation_batches=1", "trainer.sample_tokens=2"),
    *("runtime.jit=false", "logger.mode=disabled"),
]
# What an experiment reads, in a place that the test makes.
BYTES = ["tokenizer=byte", "model.vocabulary_size=272"]
SHORT = ["dataset.sequence_length=32"]
INSTEAD = {
    "tiny_shakespeare": ["dataset.builder=llama_exp_lines", "dataset.data_dir={}/tfds", *SHORT],
    "llama2_7b_lora": ["dataset.files=[{}/texts.jsonl]", "preset=none", "trainer.accumulation_steps=2", *BYTES, *SHORT],
    "python_qa_lora": [*BYTES, "dataset.sequence_length=768"],  # a pair is not cut
}
TEXTS = [
    *("dataset=text_files", "dataset.document=paragraph", "dataset.files=[{}/text.txt]"),
    *("dataset.validation_fraction=0.2", *BYTES, *SHORT),
]


class LlamaExpLines(tfds.core.GeneratorBasedBuilder):
    """A builder with the splits and the feature of TFDS' tiny_shakespeare."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "validation", "test")}

    def _generate_examples(self, split):
        yield 0, {"text": "".join(f"{split} line {number} of a play.\n" for number in range(60))}


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    lines = [f"{'abcdefgh'[number % 8] * 3} counts {number} and {number * number}." for number in range(200)]
    (folder / "text.txt").write_text("\n\n".join(lines))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return folder


def statuses(folder):
    return [json.loads(path.read_text())["status"] for path in sorted(folder.glob("*/summary.json"))]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_trains(playground, name):
    overrides = [text.format(playground) for text in INSTEAD.get(name, [])]
    run_here(playground, f"experiment={name}", *TINY, *overrides, small=False)
    (folder,) = (path for path in (playground / "outputs" / name).iterdir() if not path.is_symlink())
    assert json.loads((folder / "summary.json").read_text())["steps"] == 2


def ends(text):
    """The first and the last value of an axis as written: `4,8,16`, `choice(4, 8)`, `tag(log, interval(1, 2))`."""
    values = re.sub(r"^(?:tag\(log, )?\w+\(|\)+$", "", text) if "(" in text else text
    first, *_, last = values.split(",")
    return first.strip(), last.strip()


@pytest.mark.parametrize("name", one_a_day(["lora_rank"], [name for name in SWEEPS if name != "lora_rank"]))
def test_both_ends_of_a_sweep_train(playground, name):
    """Of several axes only the last point: other files have the ends of theirs."""
    stated = yaml.safe_load((CONF / "sweep" / f"{name}.yaml").read_text())
    axes = {key: ends(str(text)) for key, text in stated["hydra"]["sweeper"]["params"].items()}
    points = [f"{key}={first},{last}" if len(axes) == 1 else f"{key}={last}" for key, (first, last) in axes.items()]
    overrides = [*TINY, *(text.format(playground) for text in TEXTS), *points, f"name={name}", "hydra/launcher=basic"]
    # A search asks for its points itself: tests/sweeps/search. Here it is a grid of one.
    which = ["-m"] if "override /hydra/sweeper" in str(stated.get("defaults")) else [f"sweep={name}"]
    run_here(playground, *which, *overrides, small=False)
    (sweep,) = (playground / "outputs" / name / "sweeps").iterdir()
    assert statuses(sweep) == ["finished"] * (2 if len(axes) == 1 else 1)


def test_the_first_look_is_short_for_its_default_data():
    quick, default = (check_arguments([f"trainer={name}"]).config.trainer for name in ("quick", "default"))
    assert quick.max_steps * 3 <= default.max_steps and quick.validate_every_steps * 4 <= quick.max_steps
