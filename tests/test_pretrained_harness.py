"""A real pre-trained model in lm-evaluation-harness, through our adapter and through its own: the same numbers.

Run with `pytest -m pretrained` where lm-eval is installed (extra `eval`); the model's file is found as
`test_pretrained.py` says.
"""

import time

import harness_oracle as oracle
import pytest
from test_pretrained import DIGITS, PIECES, ours, path, theirs  # noqa: F401  # fixtures

pytestmark = pytest.mark.pretrained
pytest.importorskip("lm_eval", reason="needs the extra eval")

MAX_LENGTH = 512
CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Peru": "Lima",
    "Greece": "Athens",
    "Norway": "Oslo",
    "Cuba": "Havana",
    "Kenya": "Nairobi",
    "Poland": "Warsaw",
    "Ireland": "Dublin",
}
LONG = "Geography is the study of places and of the relationships between people and their environments. " * 2


@pytest.fixture(scope="module")
def models(path, ours, theirs):  # noqa: F811
    """(ours, theirs): transformers' tokenizer is given the split of texts that it does not read from the file."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return oracle.our_model(ours, MAX_LENGTH), oracle.their_model(theirs, tokenizer, MAX_LENGTH)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Two offline tasks: choices with a context that they share, and texts that are written."""
    folder, cities = tmp_path_factory.mktemp("tasks"), list(CAPITALS.values())
    choices = [
        {
            "question": f"{LONG}The capital of {land} is",
            "choices": [cities[(place + shift) % len(cities)] for shift in range(4)],
            "answer": 0,
        }
        for place, land in enumerate(CAPITALS)
    ]
    oracle.write_task(folder, "capitals", choices)
    written = [{"question": f"The capital of {land} is", "answer": f" {city}"} for land, city in CAPITALS.items()]
    oracle.write_generation_task(folder, "cities", written, [".", ",", "\n", " and"], 8)
    return folder


def test_log_likelihoods_are_hflms(models):
    pairs = [(LONG + piece + digit, " " + piece) for piece in PIECES for digit in DIGITS[:2]]
    pairs += [("", "The capital of France is Paris"), ("trailing spaces  ", "and words"), (LONG * 20, " places")]
    requests = oracle.requests("loglikelihood", pairs)
    found, expected = (model.loglikelihood(requests) for model in models)
    assert [pair[1] for pair in found] == [pair[1] for pair in expected]
    worst = max(abs(one[0] - other[0]) for one, other in zip(found, expected, strict=True))
    print(f"\n{len(pairs)} log-likelihoods, largest difference {worst:.1e}")
    assert worst < oracle.LOG_LIKELIHOOD_TOLERANCE


def test_rolling_log_likelihoods_are_hflms(models):
    requests = oracle.requests("loglikelihood_rolling", [(LONG,), (LONG * 40,), ("12 cats",)])
    found, expected = (model.loglikelihood_rolling(requests) for model in models)
    assert found == pytest.approx(expected, rel=1e-6, abs=oracle.LOG_LIKELIHOOD_TOLERANCE)


def test_two_offline_tasks_end_with_the_same_scores(models, tasks):
    found, expected = (oracle.run(tasks, ["capitals", "cities"], model) for model in models)
    assert found.figures == expected.figures
    assert found.figures["exact_match,cities"] > 0.3  # not a task that nobody solves
    texts = [[item["answers"] for item in results.items if item["task"] == "cities"] for results in (found, expected)]
    assert texts[0] == texts[1]
    print(f"\n{found.figures}")


def test_a_shared_context_is_read_once(models, tasks):
    """Alternating, in one process: the ratio is what counts, the seconds are the machine's."""
    seconds = [[], []]
    for _ in range(3):
        for place, model in enumerate(models):
            started = time.perf_counter()
            oracle.run(tasks, ["capitals"], model)
            seconds[place].append(time.perf_counter() - started)
    ours, theirs = (min(times[1:]) for times in seconds)  # noqa: F811  # the first call compiles
    print(f"\ncapitals: ours {ours:.2f} s, HFLM {theirs:.2f} s, ratio {theirs / ours:.2f}")
    assert ours < theirs
