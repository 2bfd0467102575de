"""The table of built-in presets: published figures that follow from the architecture."""

import math

import pytest

from llama_exp.architecture import SIZES, count_parameters, make_quantization
from llama_exp.config.check import check_arguments
from llama_exp.formats.quantized import variable_parts
from llama_exp.preset import PRESETS

CHOICES = {
    "llama2_7b": "llama2_7b_en",
    "llama3_8b": "llama3_8b_en",
    "llama3_2_1b": "llama3.2_1b",
    "llama3_2_3b": "llama3.2_3b",
}


def test_the_table_has_the_published_presets():
    int8 = {name for name, preset in PRESETS.items() if preset.int8}
    assert len(PRESETS) == 17
    assert int8 == {name for name in PRESETS if name.endswith("_int8")} and len(int8) == 4
    for name, preset in PRESETS.items():
        scheme, path = preset.handle.split("://")
        organisation, model, framework, variant, version = path.split("/")
        assert (scheme, organisation, framework, variant) == ("kaggle", "keras", "keras", name)
        assert model == ("vicuna" if name.startswith("vicuna") else name[:6])
        assert int(version) >= 1
        assert preset.description and "\n" not in preset.description and len(preset.description) <= 80


@pytest.mark.parametrize("name", PRESETS)
def test_counts_follow_from_the_architecture(name):
    """Keras counts what it stores: int8 scales too, and the output matrix of tied models a second time."""
    preset = PRESETS[name]
    if preset.int8:
        parts = variable_parts(preset.architecture, make_quantization("int8"))
        assert sum(math.prod(shape) for shape, _ in parts.values()) == preset.parameter_count
    else:
        assert count_parameters(preset.architecture) == preset.parameter_count


@pytest.mark.parametrize("choice", CHOICES)
def test_the_sizes_are_those_of_the_model_choice(choice):
    model = check_arguments([f"model={choice}"]).config.model
    architecture = PRESETS[CHOICES[choice]].architecture
    assert {key: getattr(model, key) for key in SIZES} == {key: architecture[key] for key in SIZES}
