"""Limits said once: the language, and that command line and constructors use the same words."""

import enum
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from llama_exp import limits, optimizer, runtime, schedule, tokenizer
from llama_exp.config.check import check_arguments
from llama_exp.config.check.conversion import get_hints
from llama_exp.config.schema import SCHEMAS, Config
from llama_exp.dataset import Jsonl, TextFiles, Tfds
from llama_exp.errors import ConfigError, Problem
from llama_exp.limits import COUNT, FILLED, ImpossibleValue, Limits, allow_null, choose, name_choices
from llama_exp.limits.dataset import Packing
from llama_exp.limits.figures import Direction
from llama_exp.limits.protocol import Half
from llama_exp.limits.search import Pruner, Sampler
from llama_exp.logger import WandbLogger
from llama_exp.models import LlamaBackbone
from llama_exp.precision import policy
from llama_exp.trainer import Checkpoints

LIMITS = Limits(
    "part",
    {"size": COUNT, "file": allow_null(FILLED)},
    (lambda values: iter([Problem("are one", "part.size", "1", "give two")] if values.get("size") == 1 else []),),
)


def test_every_value_outside_its_limit_is_a_problem():
    found = list(LIMITS.value_problems({"size": 0, "file": "", "any": float("nan")}))
    assert [(problem.where, problem.what) for problem in found] == [
        ("part.size", "is an impossible value"),
        ("part.file", "is an impossible value"),
        ("part.any", "is not a finite number"),
    ]
    assert found[0].found == "size=0" and found[1].action == "give at least one entry, none of them empty, or null"
    assert list(LIMITS.value_problems({"size": 2**31 - 1, "file": None, "any": "text"})) == []


@pytest.mark.parametrize("value", [0, -1, 2**31, 1.0, True, "1", None])
def test_a_count_is_a_whole_number_from_one_on(value):
    assert not COUNT.accepts(value)


def test_require_raises_the_first_problem_and_pairs_come_last():
    LIMITS.require(size=2, file="a")
    with pytest.raises(ImpossibleValue, match=r"part.file: is an impossible value \(file=''\): give") as caught:
        LIMITS.require(size=1, file="")
    assert caught.value.problem.where == "part.file"
    with pytest.raises(ValueError, match="are one"):
        LIMITS.require(size=1)


def test_choose_takes_names_and_members():
    assert choose(Packing, "none", "dataset.packing") is choose(Packing, Packing.none, "dataset.packing")
    with pytest.raises(ImpossibleValue, match="dataset.packing.*packing='tight'.*concat, best_fit, none, auto"):
        choose(Packing, "tight", "dataset.packing")
    assert name_choices(Packing) == ("concat", "best_fit", "none", "auto")


def test_every_closed_choice_is_the_type_of_a_key():
    folder = Path(limits.__file__).parent
    modules = [__import__(f"llama_exp.limits.{path.stem}", fromlist=["_"]) for path in folder.glob("[a-z]*.py")]
    choices = {
        thing
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, enum.Enum)
    }
    hints = {hint for schema in (Config, *SCHEMAS.values()) for hint in get_hints(schema).values()}
    sections = [hint for hint in get_hints(Config).values() if hasattr(hint, "__dataclass_fields__")]
    hints |= {
        hint for section in sections for hint in typing.get_type_hints(section).values() if type(hint) is not list
    }
    hints |= {arm for hint in hints for arm in typing.get_args(hint)}  # those that may be null
    below_names = {Direction, Pruner, Sampler, Half}  # of hydra.sweeper, and of a stage of an experiment
    assert len(choices) == 19 and choices - below_names <= hints


OPTIONS = {"sequence_length": 8, "packing": "none", "overlong": "drop", "validation_fraction": 0.5}
KEYS = {"text_key": "t", "prompt_key": "p", "completion_key": "c", "messages_key": "m"}
TFDS = {"train_split": "train", "validation_split": None, "text_key": "t", "data_dir": None, "download": False}
RATES = {"learning_rate": 1.0, "weight_decay": 0.0, "beta_1": 0.9, "beta_2": 0.9, "epsilon": 1e-8}
RATES |= {"global_clipnorm": None}
STEPS = {"learning_rate": 1.0, "num_steps": 1200, "warmup_steps": 60, "final_fraction": 0.1}
MODEL = {"vocabulary_size": 512, "num_layers": 1, "num_query_heads": 4, "hidden_dim": 128, "intermediate_dim": 64}
MODEL |= {"num_key_value_heads": 4}
RUN = {"texts": lambda: [], "preset_folder": None, "cache_dir": "unused", "fingerprint": "f"}
MIRROR = {"mode": "disabled", "project": "p", "entity": None, "tags": [], "log_model": False}


@pytest.mark.parametrize(
    ("lines", "build"),
    [
        (["dataset.sequence_length=1"], lambda at: TextFiles(**FILES | {"sequence_length": 1})),
        (["dataset=text_files", "dataset.files=[]"], lambda at: TextFiles(**FILES | {"files": []})),
        (
            ["dataset=jsonl", "dataset.files=[a]", "dataset.text_key=''"],
            lambda at: Jsonl(**OPTIONS, **KEYS | {"text_key": ""}, files=["a"], chat_template="llama2"),
        ),
        (
            ["dataset=tfds", "dataset.builder=x", "dataset.prompt_key=q"],
            lambda at: Tfds(**OPTIONS, **TFDS, builder="x", prompt_key="q", completion_key=None),
        ),
        (["optimizer.beta_2=1"], lambda at: optimizer.adamw(**RATES | {"beta_2": 1.0})),
        (["schedule.final_fraction=2"], lambda at: schedule.cosine(**STEPS | {"final_fraction": 2.0})),
        (["schedule.warmup_steps=1201"], lambda at: schedule.cosine(**STEPS | {"warmup_steps": 1201})),
        (
            ["schedule=wsd", "schedule.decay_steps=1141"],
            lambda at: schedule.wsd(**STEPS, decay_steps=1141, decay_shape="linear"),
        ),
        (["model.hidden_dim=130"], lambda at: LlamaBackbone(**MODEL | {"hidden_dim": 130})),
        (["model.dropout=1"], lambda at: LlamaBackbone(**MODEL, dropout=1.0)),
        (["lora.rank=2", "lora.dropout=1"], lambda at: LlamaBackbone(**MODEL).enable_lora(2, dropout=1.0)),
        (["lora.rank=2", "lora.targets=[qery]"], lambda at: LlamaBackbone(**MODEL).enable_lora(2, targets=["qery"])),
        (["lora.rank=129"], lambda at: LlamaBackbone(**MODEL).enable_lora(129)),
        (["trainer.keep_checkpoints=0"], lambda at: Checkpoints(at, keep=0, config_hash="", facts={})),
        (["tokenizer.vocabulary_size=99", "tokenizer=bpe"], lambda at: tokenizer.bpe(vocabulary_size=99, **RUN)),
        (["tokenizer=preset"], lambda at: tokenizer.preset(**RUN)),
        (["logger.project=''"], lambda at: WandbLogger(**MIRROR | {"project": ""}, folder=at, name="n")),
        (["runtime.threads=-1"], lambda at: runtime.thread_count(-1)),
    ],
)
def test_constructor_and_command_line_say_the_same(lines, build, tmp_path):
    with pytest.raises(ConfigError) as refused:
        check_arguments(lines)
    with pytest.raises(ImpossibleValue) as raised:
        build(tmp_path)
    (told,), mine = refused.value.problems, raised.value.problem
    assert told.where == mine.where
    if "exceeds" in told.what or "layer" in told.what:  # these name the layers of a model, which is another here
        assert told.what.partition(":")[0] == mine.what.partition(":")[0]
    else:
        assert (told.what, told.action) == (mine.what, mine.action)


FILES = {**OPTIONS, "files": ["a"], "document": "file", "encoding_errors": "strict"}


@pytest.mark.parametrize(
    "call", [lambda: policy("float99"), lambda: WandbLogger("of", "p", None, [], False, folder="", name="")]
)
def test_closed_choices_are_refused_with_all_names(call):
    with pytest.raises(ImpossibleValue, match="is not one of the choices.*give one of"):
        call()


def test_limits_import_no_framework():
    code = "import sys; from llama_exp.limits import model, lora, dataset, trainer, tokenizer\n"
    code += "print([m for m in ('keras', 'tensorflow', 'jax', 'numpy', 'omegaconf', 'hydra') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
