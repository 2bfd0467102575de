"""What a task may ask of a model: texts become token ids as the harness has it, and come back cut where they end."""

import numpy as np
import oracles
import pytest
from small_models import TOKENIZER, config

from llama_exp.errors import NumericalError
from llama_exp.evaluation.examinee import Examinee
from llama_exp.models import LlamaBackbone, LlamaCausalLM

pytestmark = pytest.mark.neutral


@pytest.fixture(scope="module")
def model():
    backbone = LlamaBackbone(**config())
    oracles.randomize(backbone, seed=2)
    return LlamaCausalLM(backbone, TOKENIZER)


@pytest.fixture(scope="module")
def examinee(model):
    return Examinee(model, batch_size=4)


def test_pairs_of_texts_are_scored_behind_the_begin_token(model, examinee):
    before = examinee.tokens
    ((score, _),) = examinee.score([("Hä", " wörld")])
    ids = [TOKENIZER.begin_id, *TOKENIZER.encode("Hä wörld")]
    wanted = model.score(np.array([ids]))[0, -len(" wörld".encode()) :].sum()
    assert score == pytest.approx(wanted, abs=1e-4)
    assert examinee.tokens - before == len(" wörld".encode())


@pytest.mark.parametrize(
    ("prompt", "text", "context", "continuation"),
    [("a ", "b", "a", " b"), ("", "b", "", "b"), (" ", "b", "", " b"), ("a", " b", "a", " b")],
)
def test_blanks_at_the_end_of_a_prompt_go_to_the_text(examinee, prompt, text, context, continuation):
    found = examinee.encode_pair(prompt, text)
    assert found == ([TOKENIZER.begin_id, *TOKENIZER.encode(context)], TOKENIZER.encode(continuation))


def test_texts_are_those_of_generate_cut_at_the_first_stop(model, examinee):
    prompts = ["Hi", "a longer prompt", "x"]
    whole = examinee.write(prompts, 6)
    for prompt, text in zip(prompts, whole, strict=True):
        ids = np.array([TOKENIZER.begin_id, *TOKENIZER.encode(prompt)], np.int32)
        output = model.generate(ids, max_length=len(ids) + 6)
        assert text == TOKENIZER.decode(output[len(ids) :].tolist())
    stop = whole[1][2]
    assert examinee.write(prompts, 6, [stop])[1] == whole[1][: whole[1].index(stop)]


def test_progress_is_told_in_items(examinee):
    seen = []
    examinee.watch, examinee.num_items = seen.append, 2
    examinee.score([("a", "b"), ("a", "c"), ("d", "b"), ("d", "c")])
    examinee.watch = None
    assert sum(seen) == pytest.approx(2)


def test_a_model_without_numbers_has_no_score(examinee, monkeypatch):
    monkeypatch.setattr(examinee, "_log_likelihood", lambda pairs, watch: [(float("nan"), False) for _ in pairs])
    with pytest.raises(NumericalError, match="not finite"):
        examinee.score([("a", "bc")])
