"""Everything that decides a result is in the record and its hash: defaults, constants, how a preset is stored."""

import ast
import dataclasses
import functools
import shutil
from pathlib import Path

import pytest
import yaml

import llama_exp
from llama_exp import recipe
from llama_exp.architecture import OPTIONS, make_quantization, to_section
from llama_exp.config import identity
from llama_exp.config.check import CONF, check_arguments
from llama_exp.config.check.resolvers import share
from llama_exp.config.identity import (
    BESIDE,
    FOLLOWS_LENGTH,
    MAY_CHANGE,
    NOT_SCIENCE,
    NOT_SCIENCE_KEYS,
    RECIPE,
    YOUNGER,
    config_hash,
    continuation_hash,
    flatten,
    is_same_share,
    to_dict,
    to_record,
)
from llama_exp.config.schema import Config

PACKAGE = Path(llama_exp.__file__).parent
INT4 = ("quantization=int4", "lora.rank=4")
GPTQ = (*INT4, "quantization.gptq=true")
# Table of `recipe` -> a command line of a run that uses its algorithm.
USES = {
    "PYTHON_CODE": ("dataset=python_code",),
    "PYTHON_DOCS": (),
    "PYTHON_QA": ("dataset=python_qa",),
    "TEXT_FILES": ("dataset=text_files", "dataset.files=[a.txt]"),
    "JSONL": ("dataset=jsonl", "dataset.files=[a.jsonl]"),
    "MODEL_CHATS": (
        *("dataset=jsonl", "dataset.files=[a.jsonl]", "dataset.chat_template=model"),
        "preset.source=some/folder",
    ),
    "LONG_TEXTS": ("dataset=text_files", "dataset.files=[a.txt]"),
    "ROWS": ("dataset=tfds", "dataset.builder=tiny_shakespeare"),
    "BYTE_PAIR_TRAINING": ("preset.source=some/folder", "tokenizer=bpe"),
    "EXAMPLE_ORDER": (),
    "INITIAL_VALUES": (),
    "DROPOUT": ("lora.rank=4", "lora.dropout=0.1"),
    "LOSS_SCALE": ("precision=mixed_float16",),
    "NEWTON_SCHULZ": ("optimizer=muon",),
    "SAMPLE_PROMPTS": (),
    "SAMPLING": (),
    "ROUNDING": ("quantization=int8", "lora.rank=4"),
    "INT4_SEARCH": INT4,
    "IMPORTANCE": INT4,
    "GPTQ": GPTQ,
}
TABLES = {name: value for name, value in vars(recipe).items() if name.isupper()}
# Modules whose numbers can decide a result, and the numbers at their top that do not.
COMPUTING = (
    *("objective", "optimizer", "schedule", "precision", "reference"),
    *(
        "models",
        "quantization",
        "lora",
        "trainer",
        "evaluation",
        "dataset",
        "tokenizer",
        "formats/rounding",
        "formats/adapter",
    ),
)
DECIDES_NOTHING = {
    # limits of what is read, asked for, waited for or shown
    *("MAX_SECONDS", "MAX_MEMORY_BYTES", "MAX_CHARACTERS", "MAX_BYTES", "MAX_VALUES", "MAX_IDS", "MAX_CONFIG_BYTES"),
    *("MAX_TEMPLATE_BYTES", "MAX_PIECES", "MAX_PIECE_CHARACTERS", "_MAX_POSITION", "FAILED_SAVES", "SHOWN"),
    *("WARM_UP", "NO_PROFILE", "NOTHING_SAVED"),  # steps before a profile begins, and nothing at all
    *("MOST_INPUTS", "MAX_SECONDS_EACH", "_LONGEST_SHOWN", "_SHOWN"),
    # how much at once: time and memory
    *("COLUMNS", "SCORE_POSITIONS", "SMALLEST_BUCKET", "MOST_ROWS", "_AHEAD_BYTES", "_LINE_BYTES", "_PANEL", "_TILE"),
    *("BLOCK_BYTES", "_SUMMED_AT_ONCE", "_RECORDS_AT_ONCE", "_CHARACTERS_AT_ONCE", "_TOKENS_AT_ONCE", "_READ_AT_ONCE"),
    *("_BLOCK_BYTES", "_HEAD_BYTES", "_TILE_NUMBERS", "TOKENS_AT_A_TIME", "_RENDERED_AT_ONCE"),
    *("CHUNK_TOKENS", "SMALLEST_CONTINUATION", "MAX_LINE_BYTES", "LINE_SECONDS"),
    *("MAX_CONTEXT", "_NO_SCORE"),  # what files for other programs say; no run reads them
    *("_WORDS_AT_ONCE", "_ROWS_AT_ONCE", "_TAIL_TOKENS"),
    # how items are looked for in training rows: told, and no part of what is trained
    *("NGRAM_WORDS", "FEWEST_WORDS", "WARNING_SHARE", "_FORM", "_MULTIPLIER"),
    # lm-evaluation-harness' own defaults: its figures are compared with those of others
    *(
        "RANDOM_SEED",
        "NUMPY_SEED",
        "FEW_SHOT_SEED",
        "DEFAULT_MAX_NEW_TOKENS",
        "DEFAULT_MAX_LENGTH",
        "BOOTSTRAP_ITERATIONS",
    ),
    "_WITHOUT_EFFECT",
    # what is refused or warned of, counted beside the rows, or read once more
    *("_MAX_NUL_SHARE", "_MAX_REPLACED_SHARE", "_MAX_LOST_SHARE", "_FACTS_VERSION", "_ENOUGH"),
    "_SEPARATORS",  # characters that are taken out again
    # what a type of numbers is, or a file's form
    *("INT8_MAX", "UINT8_MAX", "FLOAT8_MAX", "INT4_MIN", "INT4_MAX", "_CENTRE", "SYMMETRIC_ZERO", "SCHEMA"),
    *("_FLOAT", "_WORD", "NORMAL", "UNKNOWN", "CONTROL", "USER_DEFINED", "UNUSED", "BYTE"),
    "_SENTENCE_PIECE_IDS",
    "MASKED",  # its exponential is 0 in every type
    *("_TINY", "SMALLEST_SQUARES"),  # in the place of a 0 by which is divided, where the product is 0 anyway
    *("ENOUGH_SECONDS", "FEWEST_PRODUCTS", "MOST_PRODUCTS"),  # how the machine's rate is measured
}


@functools.cache
def config(*arguments):
    """Composed once; nobody edits it."""
    return check_arguments(arguments).config


def other(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return [*value, "x"] if isinstance(value, list) else value | {"x": 1} if isinstance(value, dict) else f"{value}x"


# --- numbers that are no keys


@pytest.mark.parametrize(("table", "name"), [(table, name) for table, content in TABLES.items() for name in content])
def test_another_constant_is_another_experiment(table, name, monkeypatch):
    made = config(*USES[table])
    before = config_hash(made)
    monkeypatch.setitem(TABLES[table], name, other(TABLES[table][name]))
    assert config_hash(made) != before
    assert to_record(made)[RECIPE][table.lower()][name] == TABLES[table][name]


def test_a_constant_belongs_to_the_runs_that_use_it(monkeypatch):
    plain = config()
    assert set(to_record(plain)[RECIPE]) == {
        *("python_docs", "rows", "byte_pair_training", "example_order", "initial_values", "sampling"),
        "sample_prompts",
    }
    before = config_hash(plain)
    monkeypatch.setitem(recipe.GPTQ, "damping", 0.3)
    assert config_hash(plain) == before
    assert "gptq" not in to_record(config(*INT4))[RECIPE]


def numbers_of(path):
    """Names at the top of a module that are bound to a number, or to an expression of numbers, not of names."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.Assign):
            continue
        names = {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        constants = [item.value for item in ast.walk(node.value) if isinstance(item, ast.Constant)]
        if any(isinstance(value, (int, float)) and not isinstance(value, bool) for value in constants):
            found |= {name for name in names if name.lstrip("_").isupper()}
    return found


def test_no_module_keeps_a_number_of_its_own():
    """A new one at the top of a computing module belongs into the config, into `recipe`, or, with a reason, here."""
    found = set()
    for part in COMPUTING:
        path = PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
            found |= {(file.name, name) for name in numbers_of(file) - DECIDES_NOTHING}
    assert found == set()


# --- keys


# With what gives every key a meaning.
ALL_IN_USE = ("quantization=int4", "lora.rank=4", "schedule=wsd", "trainer.stop_early=validation.loss")
MUP_IN_USE = ("model.parametrization=mup", "model.base_hidden_dim=64", "model.base_head_dim=16")  # without adapters
LEAVES = [
    (field.name, key)
    for field in dataclasses.fields(Config)
    if field.name not in (*NOT_SCIENCE, "seed")
    for key in to_dict(getattr(config(*ALL_IN_USE), field.name))
]


def all_in_use(section):
    return config(*(MUP_IN_USE if section == "model" else ALL_IN_USE))


@pytest.mark.parametrize(("section", "key"), [leaf for leaf in LEAVES if ".".join(leaf) not in NOT_SCIENCE_KEYS])
def test_another_value_is_another_experiment(section, key):
    made = all_in_use(section)
    part = getattr(made, section)
    changed = dataclasses.replace(part, **{key: other(to_dict(getattr(part, key)))})
    assert config_hash(dataclasses.replace(made, **{section: changed})) != config_hash(made)


@pytest.mark.parametrize("lines", [(), ("schedule=wsd",)])
def test_keys_that_came_later_leave_older_runs_what_they_were(lines):
    """Both hashes of a run that uses none of them are those of a config without them."""
    record = to_record(config(*lines))
    keys = {*YOUNGER, *BESIDE, *NOT_SCIENCE_KEYS}
    science = {key: value for key, value in record.items() if key not in NOT_SCIENCE}
    for path in keys:
        section, _, key = path.partition(".")
        science.get(section, {}).pop(key, None)
    assert config_hash(config(*lines)) == identity._digest(science)
    flat = {key: value for key, value in flatten(record).items() if key not in keys}
    kept = {key: value for key, value in flat.items() if not MAY_CHANGE.fullmatch(key)}
    kept = {key: value for key, value in kept.items() if not FOLLOWS_LENGTH.fullmatch(key)}
    assert continuation_hash(config(*lines)) == identity._digest(kept)


@pytest.mark.parametrize("value", ["trainer.patience=5", "trainer.min_delta=0.1"])
def test_how_to_stop_early_counts_where_it_is_asked_for(value):
    assert config_hash(config(value)) == config_hash(config())
    asked = "trainer.stop_early=validation.loss"
    assert config_hash(config(asked, value)) != config_hash(config(asked)) != config_hash(config())


@pytest.mark.parametrize(
    ("file", "key", "value", "command"),
    [
        ("quantization/int4.yaml", "group_size", 64, INT4),
        ("quantization/int4.yaml", "embeddings", "int4", INT4),
        ("quantization/int4.yaml", "int8_layers", ["value"], INT4),
        ("quantization/int4.yaml", "gptq", True, INT4),
        ("quantization/int8.yaml", "float_activations", [], ("quantization=int8", "lora.rank=4")),
        ("quantization/int8.yaml", "asymmetric_activations", False, ("quantization=int8", "lora.rank=4")),
        ("lora/default.yaml", "alpha", 32, ("lora.rank=4",)),
        ("optimizer/adamw.yaml", "epsilon", 1e-6, ()),
        ("schedule/cosine.yaml", "final_fraction", 0.0, ()),
        ("objective/next_token.yaml", "chunk_tokens", 512, ()),
    ],
)
def test_hash_of_defaults(file, key, value, command, tmp_path):
    """The same command under a release whose built-in default is another."""
    shutil.copytree(CONF, tmp_path / "conf")
    content = yaml.safe_load((tmp_path / "conf" / file).read_text())
    assert key in content and content[key] != value
    (tmp_path / "conf" / file).write_text(yaml.safe_dump(content | {key: value}))
    theirs = config(f"--config-path={tmp_path / 'conf'}", *command)
    assert config_hash(theirs) != config_hash(config(*command))
    assert to_dict(theirs)[Path(file).parent.name][key] == value


# --- quantization


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("int8", {"mode": "int8"}),
        ("int8_weight_only", {"mode": "int8", "quantize_activations": False}),
        ("int4", {"mode": "int4"}),
        ("float8", {"mode": "float8"}),
        ("none", {"mode": "none"}),
    ],
)
def test_the_files_state_what_the_constructor_takes(name, options):
    stated = to_dict(config(f"quantization={name}", "lora.rank=4").quantization)
    assert stated == to_section(make_quantization(**options))
    assert list(stated) == ["mode", *OPTIONS]


def test_a_preset_mode_is_resolved():
    assert to_dict(config().quantization) == to_section(None)
    preset = ("model=llama2_7b", "preset=llama2_7b_en_int8", "lora.rank=4")
    made = config(*preset)
    as_keras = {"quantize_activations": True, "float_activations": [], "asymmetric_activations": False}
    assert to_dict(made.quantization) == to_section(None) | {"mode": "int8"} | as_keras
    keys = ("quantization.float_activations=[]", "quantization.asymmetric_activations=false")
    assert config_hash(config(*preset, "quantization=int8", *keys)) == config_hash(made)
    assert config("preset=llama2_7b_en_int8", "preset.load_weights=false").quantization.mode == "none"
    assert config("preset.source=hf://org/m").quantization.mode == "preset"  # only a download tells


def test_flatten():
    tree = {"a": {"b": {"c": 1}, "none": {}}, "l": [1, {"d": 2}], "n": None}
    assert flatten(tree) == {"a.b.c": 1, "a.none": {}, "l": [1, {"d": 2}], "n": None}
    assert flatten({}) == {}


# --- a run that goes on


@pytest.mark.parametrize("schedule", ["cosine", "constant", "linear", "wsd"])
def test_a_longer_run_is_of_the_same_kind(schedule):
    short = config(f"schedule={schedule}")
    longer = config(f"schedule={schedule}", "trainer.max_steps=2400", "trainer.log_every_steps=1", "name=other")
    assert continuation_hash(longer) == continuation_hash(short)
    assert config_hash(longer) != config_hash(short)


@pytest.mark.parametrize("other", ["seed=1", "lora.rank=4", "trainer.batch_size=4", "optimizer.learning_rate=1"])
def test_one_that_differs_otherwise_is_not(other):
    assert continuation_hash(config(other)) != continuation_hash(config())


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.29, 1 / 3, 1.0, 0.001])
@pytest.mark.parametrize("least", [0, 1])
def test_a_share_is_recognised_from_its_numbers(fraction, least):
    for old_length in (1, 2, 7, 100, 1200):
        for new_length in (1, 3, 400, 2400, 100_000):
            old, new = (share(fraction, length, least) for length in (old_length, new_length))
            assert is_same_share(old, old_length, new, new_length), (old, old_length, new, new_length)


NO_SHARES = [(60, 1200, 60, 2400), (60, 1200, 240, 2400), (0, 1200, 60, 2400), (60, 1200, 0, 2400), (5, 10, 3, 11)]
NO_NUMBERS = [(None, 1, 0, 1), ("5", 10, 10, 20), (True, 10, 2, 20), (1.0, 10, 2, 20), (1, 0, 1, 1), (5, 4, 10, 8)]


@pytest.mark.parametrize("numbers", NO_SHARES + NO_NUMBERS)
def test_other_numbers_are_no_share(numbers):
    assert not is_same_share(*numbers)
