"""What two runs left, side by side."""

from recorded_runs import ROWS, make_recorded, row

from llama_exp.results import load_run
from llama_exp.results.outcome import compare_outcomes, list_final_figures

SAMPLES = "## Step {step}\n\nPrompt:\n\n```text\na\n```\n\nContinuation:\n\n```text\n{text}\n```\n\n"


def runs(tmp_path, one, other):
    return load_run(make_recorded(tmp_path / "one", **one)), load_run(make_recorded(tmp_path / "other", **other))


def test_the_same_rows_and_weights_are_the_same(tmp_path):
    outcome = compare_outcomes(*runs(tmp_path, {"weights": {"trained": "w"}}, {"weights": {"trained": "w"}}))
    assert outcome.is_same and outcome.same_weights


def test_other_weights_are_another_result(tmp_path):
    outcome = compare_outcomes(*runs(tmp_path, {"weights": {"trained": "w"}}, {"weights": {"trained": "v"}}))
    assert not outcome.is_same and outcome.same_weights is False


def test_weights_of_other_steps_or_of_old_runs_are_not_compared(tmp_path):
    one = {"weights": {"trained": "w"}}
    assert compare_outcomes(*runs(tmp_path / "a", one, {"weights": {"trained": "v"}, "steps": 10})).same_weights is None
    assert compare_outcomes(*runs(tmp_path / "b", one, {})).same_weights is None


def test_other_text_is_another_result(tmp_path):
    texts = [
        "".join(SAMPLES.format(step=s, text=t) for s, t in pairs)
        for pairs in ([(0, "x"), (9, "y")], [(0, "x"), (9, "z")])
    ]  # noqa: E501
    outcome = compare_outcomes(*runs(tmp_path, {"samples": texts[0]}, {"samples": texts[1]}))
    assert outcome.other_sample == 9 and not outcome.is_same


def test_what_is_always_measured_at_the_last_step_is_no_difference(tmp_path):
    short = [*ROWS[:2], row(13, 3.9), row(13, 3.8, "validation")]
    one, other = runs(tmp_path, {}, {"rows": short, "steps": 13})
    assert compare_outcomes(one, other, last_step=13).is_same
    assert compare_outcomes(one, other).parting.added == ((13, "train"), (13, "validation"))


def test_final_figures_stand_side_by_side_without_clocks(tmp_path):
    one = {"validation": {"last": 3.5}, "data": {"rows": 10}, "seconds": 1.0}
    other = {"validation": {"last": "NaN"}, "data": {"rows": 10}, "seconds": 2.0, "status": "failed"}
    assert list_final_figures(*runs(tmp_path, one, other)) == [
        ("status", "finished", "failed"),
        ("steps", 20, 20),
        ("validation.last", 3.5, "NaN"),
    ]
