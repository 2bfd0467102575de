"""The schema: no defaults, no frameworks, every target typed."""

import dataclasses
import subprocess
import sys

import pytest

from llama_exp.config.check import check_arguments, to_dict
from llama_exp.config.check.conversion import get_hints
from llama_exp.config.check.ranges import LIMITS, OF_LOGGERS
from llama_exp.config.check.typed import list_keys, list_named_logger_keys, list_sections
from llama_exp.config.loggers import list_loggers
from llama_exp.config.schema import NAMED_LOGGERS, SCHEMAS, TASKS, Config

NO_RANGE = {"debug", "trusted_modules"}


@pytest.mark.parametrize(
    "schema", [Config, *dict.fromkeys([*SCHEMAS.values(), *NAMED_LOGGERS.values(), *TASKS.values()])]
)
def test_values_live_in_yaml_only(schema):
    for field in dataclasses.fields(schema):
        if field.default is not dataclasses.MISSING:
            assert field.default == "???", field.name
        else:
            assert dataclasses.is_dataclass(field.default_factory), field.name


def test_every_number_and_text_has_a_range():
    """A key without a limit takes any finite value; that is right only for those without bad ones."""
    limited = {limits.path_of(key) for limits in [*LIMITS.values(), *OF_LOGGERS.values()] for key in limits.values}
    without = set()
    for key in list_keys():
        section, _, leaf = key.rpartition(".")
        leaf_hints = [get_hints(Config)[leaf]] if not section else _hints_of(section, leaf)
        bounded = any(hint in (int, float) or hint in (int | None, float | None) for hint in leaf_hints)
        if bounded and key not in limited:
            without.add(key)
    assert without == set()
    assert limited <= set(list_keys())


def _hints_of(section, leaf):
    if f"{section}.{leaf}" in list_named_logger_keys():
        return [list_named_logger_keys()[f"{section}.{leaf}"]]
    declared = get_hints(Config)[section]
    schemas = [declared] if dataclasses.is_dataclass(declared) else SCHEMAS.values()
    return [get_hints(schema)[leaf] for schema in schemas if leaf in get_hints(schema)]


def test_sections_stand_in_build_order():
    assert list_sections() == [
        "runtime",
        "dataset",
        "tokenizer",
        "preset",
        "model",
        "precision",
        "quantization",
        "lora",
        "objective",
        "optimizer",
        "schedule",
        "trainer",
        "evaluation",
        "logger",
        "protocol",
    ]


def test_a_typed_config_has_no_value_missing():
    config = check_arguments([]).config
    assert "???" not in str(to_dict(config))
    sections = {name: getattr(config, name) for name in list_sections() if name != "logger"}
    for name, section in (sections | list_loggers(config.logger)).items():
        assert dataclasses.is_dataclass(section), name


@pytest.mark.process
def test_schema_and_errors_import_nothing_but_omegaconf():
    code = (
        "import sys; import llama_exp.config.schema, llama_exp.errors, llama_exp;"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'wandb', 'hydra', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
