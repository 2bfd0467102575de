"""Our adapter beside lm-evaluation-harness' own model of transformers, on the same weights: the same numbers.

Run with `pytest -m harness` after `pip install -c constraints.txt -e ".[dev,eval]"`. Not in CI: lm-eval brings 28
packages and takes half a minute to install.
"""

import random

import pytest
import small_models
import small_tokenizers

pytest.importorskip("lm_eval", reason="needs the extra eval")
pytest.importorskip("transformers")

import harness_oracle as oracle  # noqa: E402

pytestmark = pytest.mark.harness

WORDS = [
    "the",
    " quick",
    " brown fox",
    " jumped over",
    " the lazy dog",
    "é",
    "  ",
    "\n",
    ":",
    " ed",
    "<|eot_id|>",
    "</s>",
]


@pytest.fixture(scope="module", params=["bytes", "sentence_piece"])
def both(request, tmp_path_factory):
    """The same folder as our `HarnessModel` and as `HFLM`; both tokenizers put a begin token in front."""
    import torch
    import transformers

    from llama_exp.models import LlamaCausalLM
    from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

    folder = tmp_path_factory.mktemp(request.param) / "model"
    tokenizer = small_models.TOKENIZER
    if request.param == "sentence_piece":
        tokenizer = SentencePieceTokenizer(small_tokenizers.sentence_piece_model())
    small_models.make(folder, "hugging_face", tokenizer, vocabulary_size=tokenizer.vocabulary_size)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = LlamaCausalLM.from_preset(folder, dtype="float32")
    return oracle.our_model(ours), oracle.their_model(theirs, their_tokenizer)


def texts(count, longest, seed=0):
    generator = random.Random(seed)
    return ["".join(generator.choices(WORDS, k=generator.randrange(1, longest))) for _ in range(count)]


def test_log_likelihoods_are_hflms(both):
    contexts = ["", *texts(6, 12), "a context that ends in spaces  ", "the fox " * 40]
    begin = both[0]._name_of(both[0].prefix_token_id)
    contexts += [begin + "a text that says its begin token"]
    pairs = [(context, " " + choice) for context in contexts for choice in (*texts(3, 5, seed=1), "dog")]
    ours, theirs = (model.loglikelihood(oracle.requests("loglikelihood", pairs)) for model in both)
    assert [pair[1] for pair in ours] == [pair[1] for pair in theirs]
    assert [pair[0] for pair in ours] == pytest.approx(
        [pair[0] for pair in theirs], abs=oracle.LOG_LIKELIHOOD_TOLERANCE, rel=0
    )
    assert len(set(ours)) > len(contexts)


def test_a_greedy_continuation_is_called_greedy_by_both(both):
    written = both[1].generate_until(oracle.requests("generate_until", [("the fox", {"max_gen_toks": 3})]))[0]
    found = [model.loglikelihood(oracle.requests("loglikelihood", [("the fox", written)])) for model in both]
    assert found[0][0][1] == found[1][0][1]


def test_rolling_log_likelihoods_are_hflms_in_texts_of_several_windows(both):
    rows = [(text,) for text in (*texts(3, 10), "the quick brown fox " * 24, "")]
    ours, theirs = (model.loglikelihood_rolling(oracle.requests("loglikelihood_rolling", rows)) for model in both)
    assert ours == pytest.approx(theirs, abs=oracle.LOG_LIKELIHOOD_TOLERANCE, rel=1e-6)
    assert len(both[0].tok_encode(rows[3][0])) > 2 * oracle.MAX_LENGTH


def test_texts_are_hflms_up_to_the_first_stop_sequence(both):
    contexts = [*texts(3, 8), "the fox " * 40]
    free = {"until": [], "max_gen_toks": 10}
    requests = oracle.requests("generate_until", [(context, free) for context in contexts])
    ours, theirs = (model.generate_until(requests) for model in both)
    assert ours == theirs
    assert len({*ours}) > 1
    stop = next(text for text in ours if len(text) > 2)[2]
    stopped = oracle.requests(
        "generate_until", [(context, {"until": [stop], "max_gen_toks": 10}) for context in contexts]
    )
    ours, theirs = (model.generate_until(stopped) for model in both)
    assert ours == theirs
    assert not any(stop in text for text in ours)


def test_token_ids_are_hflms(both):
    for text in texts(50, 12, seed=2):
        for special in (None, True, False):
            assert both[0].tok_encode(text, special) == both[1].tok_encode(text, special)
    begin = both[0]._name_of(both[0].prefix_token_id)
    assert both[0].tok_encode(begin + "dog") == both[1].tok_encode(begin + "dog")
    assert both[0].prefix_token_id == both[1].prefix_token_id
    assert both[0].eot_token_id == both[1].eot_token_id


def test_tasks_end_with_the_same_scores(both, tmp_path):
    generator = random.Random(0)
    names = texts(12, 4, seed=3)
    items = [
        {
            "question": f"{name} is",
            "choices": generator.sample(["a fox", "a dog", "lazy", "the"], 3),
            "answer": number % 3,
        }
        for number, name in enumerate(names)
    ]
    oracle.write_task(tmp_path, "choices", items, fewshot_split="test", num_fewshot=2)
    oracle.write_generation_task(tmp_path, "words", [item | {"answer": "x"} for item in items], ["\n"], 6)
    oracle.write_rolling_task(tmp_path, "rolling", items)
    ours, theirs = (oracle.run(tmp_path, ["choices", "words", "rolling"], model) for model in both)
    assert ours.figures == pytest.approx(theirs.figures, rel=1e-5)
    assert {*ours.figures} > {"acc,choices", "acc,choices_error", "exact_match,words", "bits_per_byte,rolling"}
    assert len(ours.items) == 3 * len(items)
    for one, other in zip(ours.items, theirs.items, strict=True):
        assert one["prompt_sha256"] == other["prompt_sha256"]
        assert one["task"] != "words" or one["answers"] == other["answers"]
