"""What every data set does: split, cache key, refusals."""

import logging

import numpy as np
import pytest
from in_memory import InMemory, prepared

from llama_exp.dataset.base import Dataset
from llama_exp.dataset.records import document
from llama_exp.errors import InputError
from llama_exp.limits import ImpossibleValue
from llama_exp.limits.dataset import Overlong, Packing


class Hashed(Dataset):
    """Documents whose split is decided by their content."""

    name = "hashed"

    def __init__(self, texts, validation_fraction):
        super().__init__(sequence_length=8, packing="none", overlong="split", validation_fraction=validation_fraction)
        self.all_texts = texts

    def open(self, cache_dir):
        self._fingerprint = "f"

    def documents(self):
        return self.split(lambda: (document("", text) for text in self.all_texts))


@pytest.mark.parametrize("fraction", [0.01, 0.3])
def test_validation_is_a_share_chosen_by_content(fraction):
    texts = [f"text {number}" for number in range(5000)]
    dataset = Hashed(texts, fraction)
    validation = list(dataset.texts("validation"))
    assert abs(len(validation) / 5000 - fraction) < 4 * (fraction * (1 - fraction) / 5000) ** 0.5
    assert sorted([*validation, *dataset.texts("train")]) == sorted(texts)
    # The same text falls on the same side, wherever it stands.
    assert sorted(Hashed(texts[::-1], fraction).texts("validation")) == sorted(validation)
    assert set(Hashed(texts, fraction / 2).texts("validation")) < set(validation)


def test_rows_come_from_the_cache_the_second_time(tmp_path, byte_tokenizer, monkeypatch):
    first = prepared(["some text"] * 5, byte_tokenizer, tmp_path)
    monkeypatch.setattr(InMemory, "documents", lambda self: pytest.fail("read again"))
    second = prepared(["some text"] * 5, byte_tokenizer, tmp_path)
    for split in ("train", "validation"):
        assert first[split].fingerprint == second[split].fingerprint
        assert first[split].facts == second[split].facts
        for name, array in first[split].batch(np.arange(len(first[split]))).items():
            assert np.array_equal(array, second[split].batch(np.arange(len(second[split])))[name])
    assert first["train"].fingerprint != first["validation"].fingerprint


def test_damaged_rows_are_made_again(tmp_path, byte_tokenizer, caplog):
    first = prepared(["some text"] * 5, byte_tokenizer, tmp_path)["train"].batch(np.arange(2))
    (file,) = tmp_path.glob("examples/*/train/token_ids.npy")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    again = prepared(["some text"] * 5, byte_tokenizer, tmp_path)["train"].batch(np.arange(2))
    assert np.array_equal(first["token_ids"], again["token_ids"])
    assert any(record.levelno == logging.WARNING and "damaged" in record.message for record in caplog.records)


def test_everything_that_decides_the_rows_is_in_their_fingerprint(tmp_path, byte_tokenizer):
    from llama_exp.tokenizer.byte_pair import train

    texts = ["some text"] * 5
    other = train(texts, 264)
    found = [
        prepared(texts, byte_tokenizer, tmp_path),
        prepared([*texts[:-1], "other"], byte_tokenizer, tmp_path),
        prepared(texts, other, tmp_path),
        prepared(texts, byte_tokenizer, tmp_path, "all"),
        prepared(texts, byte_tokenizer, tmp_path, sequence_length=9),
        prepared(texts, byte_tokenizer, tmp_path, packing="none"),
        prepared(texts, byte_tokenizer, tmp_path, overlong="truncate"),
    ]
    assert len({examples["train"].fingerprint for examples in found}) == len(found)


def test_enum_members_are_choices_too(tmp_path, byte_tokenizer):
    plain = prepared(["text"] * 5, byte_tokenizer, tmp_path, packing="none", overlong="drop")
    members = prepared(["text"] * 5, byte_tokenizer, tmp_path, packing=Packing.none, overlong=Overlong.drop)
    assert plain["train"].fingerprint == members["train"].fingerprint


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"packing": "tight"}, "dataset.packing"),
        ({"overlong": "ignore"}, "dataset.overlong"),
        ({"sequence_length": 1}, "dataset.sequence_length"),
        ({"validation_fraction": 0.0}, "dataset.validation_fraction"),
        ({"validation_fraction": 1.0}, "dataset.validation_fraction"),
    ],
)
def test_impossible_options_name_their_key(options, key):
    with pytest.raises(ImpossibleValue) as caught:
        InMemory(["a"], **options)
    assert caught.value.problem.where == key


def test_loss_on_must_be_known(tmp_path, byte_tokenizer):
    with pytest.raises(ValueError, match="objective.loss_on"):
        prepared(["a"] * 5, byte_tokenizer, tmp_path, "prompt")


@pytest.mark.parametrize(
    ("records", "options", "split", "counts"),
    [
        ([], {}, "train", "documents 0, empty 0, overlong 0, overlong dropped 0, masked 0, tokens 0, rows 0"),
        (["a"] * 4, {}, "validation", "documents 0"),
        (["  "] * 5, {}, "train", "documents 4, empty 4"),
        (["long enough"] * 5, {"overlong": "drop"}, "train", "overlong 4, overlong dropped 4, masked 0, tokens 0"),
    ],
)
def test_an_empty_split_is_an_error_with_counts(tmp_path, byte_tokenizer, records, options, split, counts):
    with pytest.raises(InputError) as caught:
        prepared(records, byte_tokenizer, tmp_path, **options)
    (problem,) = caught.value.problems
    assert f"the {split} split" in problem.what
    assert counts in problem.found
    assert not list(tmp_path.glob("examples/*/manifest.json"))  # no result worth keeping


def test_fewer_rows_than_a_batch_is_an_error(tmp_path, byte_tokenizer):
    dataset = InMemory(["abc"] * 5, packing="none")
    dataset.open(tmp_path)
    dataset.prepare(byte_tokenizer, cache_dir=tmp_path, loss_on="all", minimum_train_rows=4)
    with pytest.raises(InputError, match="only 4 rows, a batch takes 5"):
        dataset.prepare(byte_tokenizer, cache_dir=tmp_path, loss_on="all", minimum_train_rows=5)


def test_nothing_works_before_open():
    with pytest.raises(ValueError, match="open"):
        _ = InMemory(["a"]).fingerprint


def test_examples_say_which_vocabulary_they_were_made_for(tmp_path, byte_tokenizer):
    examples = prepared(["text"] * 5, byte_tokenizer, tmp_path)["train"]
    assert (examples.vocabulary_size, examples.max_token_id) == (262, byte_tokenizer.eos_id)
    assert examples.sequence_length == 8
    assert examples.num_tokens == 4 * 6 == examples.num_target_tokens + 4 - 1 + 1
