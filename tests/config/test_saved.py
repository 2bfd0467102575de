"""`--from`: a saved config.yaml is a whole configuration, and the same experiment."""

import pytest
import yaml

from llama_exp.config import identity
from llama_exp.config.check import check_arguments, config_hash, saved
from llama_exp.config.identity import to_record
from llama_exp.errors import ConfigError


def save(folder, *arguments, **changes):
    config = check_arguments(arguments).config
    (folder / "config.yaml").write_text(yaml.safe_dump(to_record(config) | changes))
    return config


def problems(*arguments):
    with pytest.raises(ConfigError) as caught:
        check_arguments(arguments)
    return {problem.where: problem for problem in caught.value.problems}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["experiment=tiny_shakespeare", "name=2025_11", "logger.tags=[1e3,null,012]"],
        ["dataset=text_files", "dataset.files=[a b.txt]", "lora.rank=8", "lora.rank_pattern={query: 2}"],
        ["trainer.sample_prompts=['x \\${y} z', '2 ${seed}']"],
        ["model=llama3_2_1b", "quantization=int4", "lora.rank=4"],
        ["optimizer._target_=keras.optimizers.Lion", "~optimizer.epsilon", "~optimizer.independent_weight_decay"],
    ],
)
def test_the_same_experiment(tmp_path, arguments):
    config = save(tmp_path, *arguments)
    for source in (tmp_path, tmp_path / "config.yaml"):
        again = check_arguments(["--from", str(source)]).config
        assert again == config and config_hash(again) == config_hash(config)


def test_values_on_top_and_sweeps(tmp_path):
    save(tmp_path, "lora.rank=8")
    made = check_arguments(["--from", str(tmp_path), "seed=3"]).config
    assert (made.seed, made.lora.rank) == (3, 8)
    command = check_arguments(["--from", str(tmp_path), "-m", "seed=5,6"])
    assert command.config.seed == 5 and command.config.lora.rank == 8 and command.sweep is not None


def test_a_run_that_went_on_is_begun_anew(tmp_path):
    save(tmp_path, resume="outputs/default/gone")
    assert check_arguments(["--from", str(tmp_path)]).config.resume == "none"


def test_it_is_checked_as_what_is_typed(tmp_path):
    save(tmp_path, lora={"rank": "many"}, extra=1)
    found = problems("--from", str(tmp_path), "lora.rnk=2", "model=llama_tiny")
    assert {"lora.rank", "extra", "lora.rnk", "lora.alpha", "model"} <= found.keys()
    assert found["extra"].found.endswith("config.yaml") and "values only" in found["model"].what


def test_other_numbers_of_an_algorithm_are_refused(tmp_path):
    record = to_record(check_arguments([]).config)["recipe"]
    name = sorted(record)[0]
    save(tmp_path, recipe=record | {name: {"another": 1}})
    (problem,) = problems("--from", str(tmp_path)).values()
    assert "other numbers" in problem.what and problem.where.startswith(f"recipe.{name}")


@pytest.mark.parametrize("content", [None, "- 1\n", "a: !!python/object/apply:os.system [x]\n", "a: [\n", b"\xff\xfe"])
def test_what_is_no_saved_config(tmp_path, content):
    if content is not None:
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "config.yaml").write_bytes(content)
    assert problems("--from", str(tmp_path))


def test_two_whole_configurations(tmp_path):
    save(tmp_path)
    assert "--from" in problems("--from", str(tmp_path), "--config-name", "config")


def test_a_config_from_before_a_key_is_the_same_experiment(tmp_path):
    config = save(tmp_path, "trainer.max_steps=7", "schedule=wsd")
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for path in saved.YOUNGER:
        section, _, key = path.partition(".")
        (values.get(section, {}) if key else values).pop(key or section, None)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert check_arguments(["--from", str(tmp_path)]).config == config
    assert check_arguments(["--from", str(tmp_path), "trainer.keep_best=validation.loss"]).config != config


def test_hashes_and_saved_configs_know_the_same_younger_keys():
    assert {*identity.YOUNGER, *identity.BESIDE} <= set(saved.YOUNGER)
    others = set(saved.YOUNGER) - {*identity.YOUNGER, *identity.BESIDE}
    assert not [key for key in others if identity.is_science(key)]
