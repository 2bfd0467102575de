"""From text to loss: documents packed into rows have the losses that each has alone."""

import keras
import numpy as np
import pytest
from keras import ops

from llama_exp import tokenizer as tokenizers
from llama_exp.dataset import TextFiles
from llama_exp.models.backbone import LlamaBackbone
from llama_exp.trainer.evaluate import Evaluation

pytestmark = pytest.mark.neutral
INPUTS = ("token_ids", "position_ids", "segment_ids", "padding_mask")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """One document a line, of many lengths, none longer than a row."""
    file = tmp_path_factory.mktemp("texts") / "lines.txt"
    file.write_text("\n".join(f"{'abcdefg'[n % 7] * (n % 19)} {n * n}" for n in range(120)))
    return file


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    sizes = {"vocabulary_size": 272, "num_layers": 2, "num_query_heads": 4, "hidden_dim": 32}
    return LlamaBackbone(**sizes, intermediate_dim=48, num_key_value_heads=2, tie_word_embeddings=True)


def validation_split(texts, packing, cache_dir):
    options = {"files": [str(texts)], "document": "line", "encoding_errors": "strict"}
    dataset = TextFiles(**options, sequence_length=40, packing=packing, overlong="error", validation_fraction=0.5)
    dataset.open(cache_dir)
    tokenizer = tokenizers.byte(texts=None, preset_folder=None, cache_dir=cache_dir, fingerprint="")
    return dataset.prepare(tokenizer, cache_dir=cache_dir, loss_on="completion")["validation"]


def losses_by_document(backbone, examples):
    """Token ids of every document -> summed loss of its counted targets."""
    batch = examples.batch(np.arange(len(examples)))
    logits = ops.convert_to_numpy(backbone.token_embedding.project(backbone({key: batch[key] for key in INPUTS})))
    chosen = np.take_along_axis(logits, batch["labels"][..., None], axis=-1)[..., 0]
    losses = (np.log(np.exp(logits.astype("float64")).sum(axis=-1)) - chosen) * batch["loss_mask"]
    found = {}
    for row in range(len(examples)):
        for segment in range(1, batch["segment_ids"][row].max() + 1):
            own = batch["segment_ids"][row] == segment
            found[tuple(batch["token_ids"][row][own])] = losses[row][own].sum()
    return found


def test_packed_documents_have_the_losses_of_single_ones(backbone, texts, tmp_path):
    single = validation_split(texts, "none", tmp_path)
    packed = validation_split(texts, "best_fit", tmp_path)
    assert len(packed) < len(single) / 2
    alone, together = losses_by_document(backbone, single), losses_by_document(backbone, packed)
    assert len(alone) > 30 and alone.keys() == together.keys()
    for document, loss in alone.items():
        assert together[document] == pytest.approx(loss, rel=1e-5)


def test_every_packing_has_the_same_validation_loss(backbone, texts, tmp_path):
    sums = [
        Evaluation(
            backbone,
            validation_split(texts, packing, tmp_path),
            batch_size=4,
            max_batches=None,
            chunk_tokens=64,
            jit=keras.backend.backend() == "jax",
        )()
        for packing in ("none", "best_fit")
    ]
    assert sums[0][1] == sums[1][1]
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-5)
