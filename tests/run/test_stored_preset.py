"""A run over a quantized preset: its record says mode and numbers in full, and it goes on over the same one only."""

import json

import pytest
import yaml
from small_models import config, make
from whole_runs import SMALL, last_wins

from llama_exp.architecture import make_quantization, to_section
from llama_exp.config.check import check_arguments
from llama_exp.errors import ConfigError, InputError
from llama_exp.formats import open_checkpoint
from llama_exp.formats.keras_hub import checkpoint as keras_hub
from llama_exp.formats.quantized import quantize_checkpoint
from llama_exp.run import plan, recorded, resume
from llama_exp.run.job import run_job

INT4, COARSE = (make_quantization("int4", group_size=size) for size in (5, 10))
TEXT = "\n\n".join(f"{'abcdefgh'[n % 8] * 3} counts {n} and {n % 7}." for n in range(300))


def store(place, wanted):
    """The same weights as a preset in `place / "preset"`, stored as `wanted`."""
    if not (place / "floats").exists():
        make(place / "floats")
    (place / "preset").mkdir(exist_ok=True)
    with open_checkpoint(place / "floats") as checkpoint:
        keras_hub.write(place / "preset", checkpoint.config, quantize_checkpoint(checkpoint, wanted).tensors, wanted)


def line(place, *overrides):
    sizes = [f"model.{key}={'null' if value is None else value}" for key, value in config().items()]
    place_of = [
        f"dataset.files=[{place}/text.txt]",
        f"runtime.cache_dir={place}/cache",
        f"preset.source={place}/preset",
    ]
    small = [override for override in SMALL if not override.startswith("model.")]
    return last_wins(
        [*small, *sizes, *place_of, "lora.rank=2", "logger.mode=disabled", "trainer.max_steps=1", *overrides]
    )


def test_the_record_is_whole_and_resuming_compares(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    store(tmp_path, INT4)
    made = check_arguments(line(tmp_path)).config
    run_job(made, [], tmp_path / "run")
    recorded = json.loads((tmp_path / "run/run.json").read_text())["quantization"]
    stated = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert recorded == stated["quantization"] == to_section(INT4)
    assert stated["recipe"]["int4_search"]["num_ranges"] == 8

    with pytest.raises(ConfigError, match="set quantization=preset to take it as it is stored"):
        check_arguments(line(tmp_path, "quantization=none"))
    store(tmp_path, COARSE)
    again = check_arguments(line(tmp_path, f"resume={tmp_path / 'run'}", "trainer.max_steps=2")).config
    with pytest.raises(ConfigError) as refused:
        run_job(again, [], tmp_path / "run")
    assert [problem.where for problem in refused.value.problems] == ["quantization.group_size"]


def test_what_a_download_told_is_compared_too(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    recorded.check_quantization(tmp_path / "nowhere", to_section(INT4))  # of a process that only looks
    recorded.check_quantization(tmp_path, to_section(INT4))  # a first start
    (tmp_path / "run.json").write_text(json.dumps({"quantization": to_section(INT4)}))
    recorded.check_quantization(tmp_path, to_section(INT4))
    with pytest.raises(InputError, match="stored in another way") as refused:
        recorded.check_quantization(tmp_path, to_section(COARSE))
    (problem,) = refused.value.problems
    assert problem.found == "group_size=10, begun with group_size=5" and problem.where == "preset.source"


def test_a_recipe_that_a_release_changed_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "recipe": {"gptq": {"damping": 0.1}}}))
    with pytest.raises(ConfigError, match="go on with the version of llama_exp that began it") as refused:
        resume.check_unchanged(tmp_path, {"seed": 0, "recipe": {"gptq": {"damping": 0.2}}})
    assert [problem.where for problem in refused.value.problems] == ["recipe.gptq.damping"]
    order, sampling = {"example_order": {"rounds": 6}}, {"sampling": {"max_uniform": 0.9}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "recipe": order}))
    resume.check_unchanged(tmp_path, {"seed": 0, "recipe": order | sampling})  # samples may be asked for later
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 0}))
    resume.check_unchanged(tmp_path, {"seed": 0, "recipe": order})  # begun before the record had it


def test_the_plan_counts_a_local_preset_as_it_is_stored(tmp_path):
    store(tmp_path, INT4)
    floats, small = (
        plan.make_plan(check_arguments(line(tmp_path, *source)).config).memory_bytes
        for source in ([f"preset.source={tmp_path}/floats"], [])
    )
    assert small["weights"] < floats["weights"] / 2 and small["dequantized"] > 0 == floats["dequantized"]
