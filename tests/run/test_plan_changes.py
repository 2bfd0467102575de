"""What would make a run fit: each proposal composes, needs what it says, and costs what it says."""

import pytest

from llama_exp.config.check import check_arguments
from llama_exp.run.plan import make_plan
from llama_exp.run.plan_changes import LOSSES, OTHER, ROUNDING, SAME, find_changes, find_smallest

SEVEN = ("model=llama2_7b", "preset.load_weights=false", "lora.rank=8")


def changes(most_bytes, *arguments):
    config = check_arguments(arguments).config
    return find_changes(config, make_plan(config), lambda plan: plan.peak_bytes <= most_bytes)


@pytest.mark.parametrize(
    ("most_bytes", "arguments"),
    [
        (20e9, SEVEN),
        (31e9, (*SEVEN, "trainer.batch_size=12", "dataset.sequence_length=256")),
        (40e9, ("model=llama2_7b", "preset.load_weights=false")),
        (2.2e9, ("model=llama_15m", "trainer.batch_size=32", "dataset.sequence_length=256")),
        (1.4e9, ("model=llama_15m", "runtime.backend=jax", "dataset.sequence_length=256")),
    ],
)
def test_every_proposal_can_be_typed_and_is_what_it_says(most_bytes, arguments):
    before = make_plan(check_arguments(arguments).config)
    found = changes(most_bytes, *arguments)
    assert found and before.peak_bytes > most_bytes
    assert [LOSSES.index(change.accuracy) for change in found] == sorted(LOSSES.index(c.accuracy) for c in found)
    for change in found:
        typed = [word for word in arguments if word.partition("=")[0] not in change.text]
        again = make_plan(check_arguments([*typed, *change.text.split()]).config)
        assert again.peak_bytes == change.plan.peak_bytes <= most_bytes
        work = again.work_per_token * again.total_tokens / (before.work_per_token * before.total_tokens)
        assert change.time_factor == pytest.approx(work)


def accuracies(most_bytes, *arguments):
    return {change.text.partition("=")[0]: change.accuracy for change in changes(most_bytes, *arguments)}


def test_what_each_kind_of_change_means_for_the_result():
    wide = ("model=llama_15m", "trainer.batch_size=32", "dataset.sequence_length=256")
    found = accuracies(2.2e9, *wide)
    assert (found["trainer.remat"], found["trainer.batch_size"]) == (SAME, ROUNDING)
    assert found["dataset.sequence_length"] == OTHER
    # Dropout draws a mask for each micro-batch.
    assert accuracies(2.2e9, *wide, "model.dropout=0.1")["trainer.batch_size"] == OTHER


def test_the_mildest_of_a_kind_is_proposed():
    shape = ("model=llama_15m", "dataset.sequence_length=256")
    (split,) = [c.text for c in changes(2.2e9, *shape, "trainer.batch_size=32") if "batch_size" in c.text]
    size = int(split.split()[0].rpartition("=")[2])
    larger = make_plan(check_arguments([*shape, f"trainer.batch_size={2 * size}"]).config)
    assert split == f"trainer.batch_size={size} trainer.accumulation_steps={32 // size}"
    assert larger.peak_bytes > 2.2e9


def test_what_is_not_possible_is_not_proposed():
    texts = [change.text for change in changes(1e18, *SEVEN)]
    assert "quantization=int8" in texts and not any(text.startswith("lora.rank") for text in texts)
    assert not any("quantization" in text for text in [c.text for c in changes(1e18)])  # without adapters
    assert not any("batch_size" in c.text for c in changes(1e18, "trainer.batch_size=1"))
    assert any(c.text == "lora.rank=8" for c in changes(1e18, "model=llama2_7b"))  # pre-trained weights


def test_the_smallest_that_a_run_gets():
    config = check_arguments([*SEVEN, "trainer.batch_size=8"]).config
    mild, strong = find_smallest(config, make_plan(config))
    assert "trainer.batch_size=1 trainer.accumulation_steps=8 trainer.remat=block" in mild.text
    assert mild.accuracy == ROUNDING and strong.accuracy == OTHER and "quantization=int4" in strong.text
    typed = [*SEVEN, *strong.text.split()]
    assert make_plan(check_arguments(typed).config).peak_bytes == strong.plan.peak_bytes < mild.plan.peak_bytes
    smallest = check_arguments([*SEVEN, *strong.text.split()]).config
    assert find_smallest(smallest, make_plan(smallest)) == []
