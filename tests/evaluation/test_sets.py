"""The loss on a set: equal to NumPy's over the documents themselves, and bytes counted by hand."""

import math

import numpy as np
import oracles
import pytest
import scipy.special
from small_models import TOKENIZER, config

from llama_exp.dataset import TextFiles
from llama_exp.errors import InputError, NumericalError
from llama_exp.evaluation.sets import SetEvaluation, num_bytes, prepare_set
from llama_exp.models import LlamaBackbone, LlamaCausalLM

pytestmark = pytest.mark.neutral

DOCUMENTS = ["Hällo wörld.", "A second paragraph, a little longer than the others are.", "你好", "x y z", "last one"]


@pytest.fixture(scope="module")
def model():
    backbone = LlamaBackbone(**config())
    oracles.randomize(backbone, seed=1)
    return LlamaCausalLM(backbone, TOKENIZER)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "docs.txt"
    path.write_text("\n\n".join(DOCUMENTS), encoding="utf-8")
    options = {"sequence_length": 80, "packing": "best_fit", "overlong": "split", "validation_fraction": 0.4}
    found = TextFiles(files=str(path), document="paragraph", encoding_errors="strict", **options)
    found.open(path.parent / "cache")
    return found


def rows(dataset, tmp_path, whole):
    return prepare_set(dataset, TOKENIZER, str(tmp_path), "all", whole)


def losses(model, text):
    """Nats of every token but the first of a document, begin and end token around it."""
    ids = np.array([[TOKENIZER.begin_id, *TOKENIZER.encode(text), TOKENIZER.eos_id]])
    weights, shape = oracles.arrays(model.backbone), model.backbone.get_config()
    logits = oracles.numpy_logits(shape, weights, oracles.numpy_hidden(shape, weights, ids))[0]
    return -scipy.special.log_softmax(logits, axis=-1)[np.arange(ids.shape[1] - 1), ids[0, 1:]]


def test_all_of_a_set_is_every_document_once(model, dataset, tmp_path):
    seen = []
    outcome = SetEvaluation("docs", rows(dataset, tmp_path, True), model, 2, jit=False).run(seen.append)
    wanted = np.concatenate([losses(model, text) for text in DOCUMENTS])
    size = sum(len(text.encode()) for text in DOCUMENTS)
    assert outcome.tokens == len(wanted)
    assert outcome.figures["loss"] == pytest.approx(wanted.mean(), rel=1e-5)
    assert outcome.figures["perplexity"] == pytest.approx(math.exp(wanted.mean()), rel=1e-4)
    assert outcome.figures["bits_per_byte"] == pytest.approx(wanted.sum() / math.log(2) / size, rel=1e-5)
    assert sum(row["bytes"] for row in outcome.results) == size
    assert sum(seen) == len(outcome.results)
    mean = sum(row["loss"] * row["tokens"] for row in outcome.results) / outcome.tokens
    assert mean == pytest.approx(outcome.figures["loss"])


def test_by_default_it_is_the_validation_split(model, dataset, tmp_path):
    validation = [record.text for split, record in dataset.documents() if split == "validation"]
    assert 0 < len(validation) < len(DOCUMENTS)
    outcome = SetEvaluation("docs", rows(dataset, tmp_path, False), model, 3, jit=False).run(lambda count: None)
    wanted = np.concatenate([losses(model, text) for text in validation])
    assert outcome.figures["loss"] == pytest.approx(wanted.mean(), rel=1e-5)


def test_one_document_can_be_a_whole_set(model, tmp_path):
    (tmp_path / "one.txt").write_text("only this\n")
    options = {"sequence_length": 16, "packing": "concat", "overlong": "split", "validation_fraction": 0.5}
    dataset = TextFiles(files=str(tmp_path / "one.txt"), document="file", encoding_errors="strict", **options)
    dataset.open(tmp_path / "cache")
    assert rows(dataset, tmp_path, True).num_documents == 1


def test_a_loss_that_is_no_number_ends_it(dataset, tmp_path):
    backbone = LlamaBackbone(**config())
    backbone.layer_norm.scale.assign(np.full(backbone.hidden_dim, np.nan, "float32"))
    evaluation = SetEvaluation("docs", rows(dataset, tmp_path, True), LlamaCausalLM(backbone, TOKENIZER), 8, jit=False)
    with pytest.raises(NumericalError, match="evaluation.sets.docs"):
        evaluation.run(lambda count: None)


def test_a_set_in_which_nothing_counts(model, dataset, tmp_path):
    class Masked:
        fingerprint = "0"

        def __init__(self, examples):
            self.examples = examples

        def __len__(self):
            return len(self.examples)

        def batch(self, indices):
            batch = self.examples.batch(indices)
            return batch | {"loss_mask": batch["loss_mask"] * 0}

    masked = Masked(rows(dataset, tmp_path, True))
    with pytest.raises(InputError, match="no counted tokens"):
        SetEvaluation("docs", masked, model, 8, jit=False).run(lambda count: None)


def test_bytes_of_a_character_that_is_cut_in_two():
    ids = np.array(TOKENIZER.encode("a你b"))  # five bytes, a token each
    assert [num_bytes(TOKENIZER, ids[:1], ids[1:]), num_bytes(TOKENIZER, ids[1:2], ids[2:])] == [4, 3]
    special = np.array([TOKENIZER.eos_id])
    assert num_bytes(TOKENIZER, ids[:1], special) == 0
