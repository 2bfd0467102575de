"""The YAML files: that none is lost, that each composes and types, and that each number is the published one."""

import functools
from pathlib import Path

import pytest
import yaml

from llama_exp.architecture import count_parameters
from llama_exp.config.check import CONF, check_arguments, to_dict
from llama_exp.config.check.typed import list_sections
from llama_exp.errors import ConfigError
from llama_exp.logger import needed
from llama_exp.lora.source import count_lora_parameters
from llama_exp.preset import PRESETS

FILES = sorted(CONF.rglob("*.yaml"))
# How many options each group has at least: a new one is a new file, and a lost one is noticed.
COUNTS = {
    "runtime": 1,
    "dataset": 5,
    "tokenizer": 6,
    "preset": 18,
    "model": 12,
    "precision": 4,
    "quantization": 6,
    "lora": 1,
    "objective": 1,
    "optimizer": 2,
    "schedule": 4,
    "trainer": 3,
    "logger": 5,
    "evaluation": 5,
    "protocol": 1,
    "experiment": 3,
    "sweep": 5,
    "hydra": 1,
}


def options_of_groups():
    """Options by group: the files themselves."""
    found = {}
    for path in FILES:
        group, _, option = path.relative_to(CONF).as_posix().removesuffix(".yaml").partition("/")
        if option:
            found.setdefault(group, set()).add(option)
    return found


GROUPS = options_of_groups()
OPTIONS = [(group, option) for group, options in GROUPS.items() if group != "hydra" for option in sorted(options)]


def model_of(preset):
    """The choice of `model=` with the shape of a built-in preset."""
    shape = preset.removesuffix("_int8").removesuffix("_en").replace(".", "_")
    return shape.replace("_instruct_", "_").replace("_guard_", "_") if shape.startswith("llama3_") else shape


# What a choice needs from the user before it can run.
NEEDED = {
    ("dataset", "text_files"): ["dataset.files=[a.txt]"],
    ("dataset", "jsonl"): ["dataset.files=[a.jsonl]"],
    ("dataset", "tfds"): ["dataset.builder=tiny_shakespeare"],
    ("tokenizer", "preset"): ["preset.source=some/folder"],
    ("tokenizer", "sentencepiece"): ["tokenizer.file=a.model"],
    ("tokenizer", "hf_json"): ["tokenizer.file=a.json"],
    ("quantization", "int8"): ["lora.rank=4"],
    ("quantization", "int8_weight_only"): ["lora.rank=4"],
    ("quantization", "int4"): ["lora.rank=4"],
    ("quantization", "float8"): ["lora.rank=4"],
    ("evaluation", "task/multiple_choice"): [f"evaluation.tasks.one.file={__file__}"],
    ("evaluation", "task/generation"): [f"evaluation.tasks.one.file={__file__}"],
    ("evaluation", "task/harness"): ["evaluation.tasks.one.tasks=[arc_easy]"],
    ("experiment", "llama2_7b_lora"): ["dataset.files=[a.jsonl]"],
    **{
        ("preset", name): [f"model={model_of(name)}", *(["lora.rank=4"] if preset.int8 else [])]
        for name, preset in PRESETS.items()
    },
}
# Published: Hugging Face's and Meta's model cards; llama2.c for the 15M and 110M models.
PARAMETERS = {
    "llama_tiny": 3_082_496,
    "llama_15m": 15_191_712,
    "llama_110m": 109_529_856,
    "smollm2_135m": 134_515_008,
    "llama2_7b": 6_738_415_616,
    "llama2_instruct_7b": 6_738_415_616,
    "vicuna_1_5_7b": 6_738_415_616,
    "llama3_8b": 8_030_261_248,
    "llama3_instruct_8b": 8_030_261_248,
    "llama3_1_8b": 8_030_261_248,
    "llama3_2_1b": 1_235_814_400,
    "llama3_2_3b": 3_212_749_824,
}
PRESET_OF = {
    "llama2_7b": "llama2_7b_en",
    "llama2_instruct_7b": "llama2_instruct_7b_en",
    "vicuna_1_5_7b": "vicuna_1.5_7b_en",
    "llama3_8b": "llama3_8b_en",
    "llama3_instruct_8b": "llama3_instruct_8b_en",
    "llama3_1_8b": "llama3.1_8b",
    "llama3_2_1b": "llama3.2_1b",
    "llama3_2_3b": "llama3.2_3b",
}


@pytest.fixture(autouse=True)
def every_package(monkeypatch):
    """Whether a logger's package is installed is not the question here."""
    monkeypatch.setattr(needed, "_PACKAGES", {})


@functools.cache
def compose(*arguments):
    """The checked command; each is composed once for all tests, which change nothing in it."""
    return check_arguments(arguments)


def config(*arguments):
    return compose(*arguments).config


def test_groups_have_at_least_these_many_options():
    assert set(GROUPS) == set(COUNTS)
    assert {group: len(options) for group, options in GROUPS.items() if len(options) < COUNTS[group]} == {}
    assert {path for path in FILES if path.parent == CONF} == {CONF / "config.yaml"}
    assert not list(CONF.rglob("*.yml"))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_file_composes_and_types(group, option):
    inner, _, name = option.rpartition("/")
    choice = f"+{group}/{inner}@evaluation.tasks.one={name}" if inner else f"{group}={option}"
    command = compose(choice, *NEEDED.get((group, option), []))
    assert command.config is not None
    assert (command.sweep is not None) == (group == "sweep")


@pytest.mark.parametrize(
    "needy", [key for key in NEEDED if key[0] not in ("quantization", "preset") and key != ("tokenizer", "preset")]
)
def test_required_values_are_asked_for(needy):
    with pytest.raises(ConfigError, match="has no value"):
        check_arguments([f"{needy[0]}={needy[1]}"])


def test_the_table_of_contents_lists_every_group_in_build_order():
    text = (CONF / "config.yaml").read_text()
    defaults = yaml.safe_load(text)["defaults"]
    groups = [next(iter(entry)) for entry in defaults if isinstance(entry, dict)]
    own = [group for group in groups if not group.startswith("override ")]
    # The model stands last, because Hydra lets it choose among what stands before it only.
    assert own == [*(name for name in list_sections() if name != "model"), "model", "experiment", "sweep"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_built_in_preset_has_a_file_of_its_name(name):
    assert config(f"preset={name}", *NEEDED.get(("preset", name), [])).preset.source == name


def test_a_pre_trained_model_chooses_and_the_command_line_wins():
    chosen = config("model=llama2_7b")
    assert (chosen.preset.source, chosen.trainer.max_steps, chosen.optimizer.learning_rate) == (
        "llama2_7b_en",
        300,
        2e-4,
    )
    typed = config("model=llama2_7b", "preset=none", "trainer=default", "optimizer=adamw")
    assert (typed.preset.source, typed.trainer.max_steps, typed.optimizer.learning_rate) == (None, 1200, 1.5e-3)


@pytest.mark.parametrize("model", sorted(PARAMETERS))
def test_parameter_counts_are_the_published_ones(model):
    section = to_dict(config(f"model={model}").model)
    assert count_parameters(section) == PARAMETERS[model]


def test_lora_on_llama2_7b_has_the_papers_size():
    made = config("model=llama2_7b", "lora.rank=8")
    assert count_lora_parameters(to_dict(made.model), to_dict(made.lora)) == 4_194_304


@pytest.mark.parametrize("model", sorted(GROUPS["model"]))
def test_a_pre_trained_size_selects_its_preset(model):
    made = config(f"model={model}")
    assert made.preset.source == PRESET_OF.get(model)
    assert made.preset.load_weights is True


def test_preset_choices_are_built_in_ids():
    for option in GROUPS["preset"] - {"none"}:
        assert config(f"preset={option}", *NEEDED.get(("preset", option), [])).preset.source == option
        assert option in PRESETS


def test_preset_can_be_undone():
    assert config("model=llama2_7b", "preset=none").preset.source is None
    made = config("model=llama2_7b", "preset.load_weights=false").preset
    assert (made.source, made.load_weights) == ("llama2_7b_en", False)
    assert config("model=llama3_8b", "preset=llama3.1_8b").preset.source == "llama3.1_8b"


def test_llama_3_rotary_frequencies():
    rope = {
        model: tuple(to_dict(config(f"model={model}").model)[key] for key in keys)
        for model in ("llama3_8b", "llama3_1_8b", "llama3_2_1b", "llama3_2_3b", "llama2_7b")
        for keys in [
            (
                "rope_max_wavelength",
                "rope_frequency_adjustment_factor",
                "rope_low_freq_factor",
                "rope_high_freq_factor",
                "rope_pretraining_sequence_length",
            )
        ]
    }
    assert rope == {
        "llama2_7b": (10_000, None, None, None, None),
        "llama3_8b": (500_000, None, None, None, None),
        "llama3_1_8b": (500_000, 8, 1, 4, 8192),
        "llama3_2_1b": (500_000, 32, 1, 4, 8192),
        "llama3_2_3b": (500_000, 32, 1, 4, 8192),
    }


def test_lora_rank_alone_switches_lora_on():
    assert config().lora.rank == 0
    made = config("lora.rank=8").lora
    assert (made.rank, made.targets) == (8, ["query", "value"])


def test_schedules_follow_the_length_of_the_run():
    assert config().schedule.warmup_steps == 60
    assert config("trainer.max_steps=1000").schedule.warmup_steps == 50
    wsd = config("schedule=wsd", "trainer.max_steps=1000").schedule
    assert (wsd.warmup_steps, wsd.decay_steps) == (50, 200)


@pytest.mark.parametrize("schedule", sorted(GROUPS["schedule"]))
@pytest.mark.parametrize("max_steps", [1, 2, 3, 4, 5, 19, 20])
def test_every_schedule_fits_into_a_short_run(schedule, max_steps):
    made = config(f"schedule={schedule}", f"trainer.max_steps={max_steps}").schedule
    assert made.warmup_steps + getattr(made, "decay_steps", 0) <= max_steps


@pytest.mark.parametrize("experiment", sorted(GROUPS["experiment"]))
@pytest.mark.parametrize("max_steps", [1, 4])
def test_every_experiment_can_be_short(experiment, max_steps):
    needed = NEEDED.get(("experiment", experiment), [])
    assert config(f"experiment={experiment}", f"trainer.max_steps={max_steps}", *needed).trainer.max_steps == max_steps


def test_tokenizer_has_the_models_vocabulary():
    assert config("model=llama_15m").tokenizer.vocabulary_size == 32_000


@pytest.mark.parametrize("experiment", sorted(GROUPS["experiment"]))
def test_experiments_are_short_lists_of_overrides_under_their_own_name(experiment):
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    assert len(text.partition("\nprotocol:")[0].splitlines()) <= 36  # what it states of itself is prose and claims
    entries = [key for entry in yaml.safe_load(text)["defaults"] for key in entry]
    assert all("override" in key or "@evaluation." in key for key in entries)
    assert config(f"experiment={experiment}", *NEEDED.get(("experiment", experiment), [])).name == experiment


def test_experiments_can_be_overridden():
    made = config("experiment=python_qa_lora", "lora.rank=2", "dataset=python_docs")
    assert made.lora.rank == 2 and made.dataset._target_.endswith("PythonDocs")


def test_no_two_files_of_a_group_are_near_copies():
    """Two files that differ in one line and share five should share a default instead."""
    for group in list_sections():
        contents = {path.name: _settings(path) for path in (CONF / group).glob("*.yaml")}
        for name, lines in contents.items():
            for other, other_lines in contents.items():
                if name < other and len(lines & other_lines) > 4:
                    assert len(lines ^ other_lines) > 2, (group, name, other)


def _settings(path: Path) -> set[str]:
    lines = (line.partition(" #")[0].strip() for line in path.read_text().splitlines())
    return {line for line in lines if line and not line.startswith("#")}
