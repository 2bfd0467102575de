"""Any TFDS builder: splits, keys, formats, and no network."""

import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from llama_exp.dataset import Tfds, builders
from llama_exp.errors import InputError
from llama_exp.limits import ImpossibleValue


class LlamaExpPairs(tfds.core.GeneratorBasedBuilder):
    """A builder in the catalogue's own style, with two splits that share two examples."""

    VERSION = tfds.core.Version("1.2.3")
    address = None

    def _info(self):
        text = tfds.features.Text
        features = tfds.features.FeaturesDict(
            {"question": text(), "answer": text(), "label": tfds.features.Scalar(np.int64)}
        )
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        if self.address:
            dl_manager.download(self.address)
        return {"train": self._generate_examples(0, 20), "test": self._generate_examples(18, 24)}

    def _generate_examples(self, first, last):
        for number in range(first, last):
            yield number, {"question": f"q{number}?", "answer": f" é{number}", "label": number}


def dataset(data_dir, builder="llama_exp_pairs", **options):
    defaults = {
        "train_split": "train",
        "validation_split": None,
        "text_key": "question",
        "prompt_key": None,
        "completion_key": None,
        "data_dir": str(data_dir),
        "download": True,
        "sequence_length": 32,
        "packing": "none",
        "overlong": "split",
        "validation_fraction": 0.3,
    }
    return Tfds(builder=builder, **defaults | options)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with the builder prepared as ArrayRecord."""
    folder = tmp_path_factory.mktemp("tfds")
    dataset(folder).open(folder)
    return folder


def opened(data_dir, **options):
    made = dataset(data_dir, download=False, **options)
    made.open(data_dir)
    return made


def test_a_share_of_one_split(data_dir):
    made = opened(data_dir)
    texts = {split: list(made.texts(split)) for split in ("train", "validation")}
    assert sorted(texts["train"] + texts["validation"]) == sorted(f"q{n}?" for n in range(20))
    assert 1 <= len(texts["validation"]) <= 12


def test_splits_of_its_own_and_what_they_share(data_dir, caplog):
    made = opened(data_dir, validation_split="test", train_split="train[50%:]")
    found = [(split, record.text, record.source) for split, record in made.documents()]
    assert found[0] == ("train", "q10?", "train[50%:] #0")
    assert [text for split, text, _ in found if split == "validation"] == [f"q{n}?" for n in range(18, 24)]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "2 documents of test are also in train[50%:]" in caplog.text


def test_pairs(data_dir):
    made = opened(data_dir, text_key=None, prompt_key="question", completion_key="answer")
    record = next(record for _, record in made.documents())
    assert [(piece.text, piece.counts) for piece in record.pieces if not piece.token] == [("q0?", False), (" é0", True)]


def test_fingerprint_follows_what_is_read(data_dir):
    found = [
        opened(data_dir),
        opened(data_dir, text_key="answer"),
        opened(data_dir, train_split="train[:50%]"),
        opened(data_dir, validation_split="test"),
        opened(data_dir, validation_fraction=0.2),
    ]
    assert len({made.fingerprint for made in found}) == len(found)
    assert opened(data_dir).fingerprint == found[0].fingerprint


@pytest.mark.parametrize(
    ("options", "what", "told"),
    [
        ({"builder": "llama_exp_pears"}, "knows no such builder", "llama_exp_pairs"),
        ({"builder": "llama_exp_pairs:9.9.9"}, "cannot make this builder", "1.2.3"),
        ({"train_split": "training"}, "no such split", "train, test"),
        ({"validation_split": "test[:x]"}, "no such split", "train, test"),
        ({"text_key": "txt"}, "no text feature", "question, answer"),
        ({"text_key": "label"}, "no text feature", "label"),
        ({"text_key": None}, "not clear", "['question', 'answer']"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(data_dir, options, what, told):
    with pytest.raises(InputError, match=what) as caught:
        opened(data_dir, **options)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"text_key": None, "prompt_key": "a"}, "dataset.completion_key"),
        ({"text_key": None, "completion_key": "a"}, "dataset.prompt_key"),
        ({"prompt_key": "a"}, "dataset.text_key"),
        ({"prompt_key": "a", "completion_key": "b"}, "dataset.text_key"),
    ],
)
def test_keys_that_do_not_go_together(tmp_path, options, key):
    with pytest.raises(ImpossibleValue) as caught:
        dataset(tmp_path, **options)
    assert caught.value.problem.where == key


def test_not_prepared_and_no_download_ends_at_once_with_the_command(tmp_path):
    with pytest.raises(InputError) as caught:
        dataset(tmp_path, download=False).open(tmp_path)
    assert "download_and_prepare()" in str(caught.value)
    assert "dataset.download=true" in str(caught.value)


def test_without_a_network_it_ends_soon_and_says_what_could_not_be_had(tmp_path, monkeypatch):
    monkeypatch.setattr(LlamaExpPairs, "address", "http://127.0.0.1:1/data.zip")
    retries = downloader.MAX_RETRIES
    with pytest.raises(InputError, match="could not be downloaded") as caught:
        dataset(tmp_path).open(tmp_path)
    assert "127.0.0.1" in str(caught.value)
    assert retries == downloader.MAX_RETRIES
    # What was half prepared is not taken for the whole.
    with pytest.raises(InputError, match="not prepared"):
        dataset(tmp_path, download=False).open(tmp_path)


def test_a_damaged_shard_is_named(tmp_path):
    dataset(tmp_path).open(tmp_path)
    (file,) = tmp_path.rglob("*train.array_record-*")
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(InputError, match="split train cannot be read"):
        list(opened(tmp_path).documents())


def test_tfrecord_files_are_read_through_tensorflow_or_the_error_says_so(tmp_path, monkeypatch):
    with builders.silence():
        LlamaExpPairs(data_dir=str(tmp_path), file_format="tfrecord").download_and_prepare()
    made = opened(tmp_path, validation_split="test")
    assert list(made.texts("train")) == [f"q{n}?" for n in range(20)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs TensorFlow"):
        list(made.texts("train"))


@pytest.mark.process
def test_array_records_are_read_without_tensorflow(data_dir):
    script = (
        "import sys\nimport test_tfds\nmade = test_tfds.opened(sys.argv[1])\n"
        "assert len(list(made.documents())) == 20\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    command = [sys.executable, "-c", script, str(data_dir)]
    environment = {"PYTHONPATH": ":".join([path for path in sys.path if path])}
    subprocess.run(command, check=True, env=environment, capture_output=True)


@pytest.mark.parametrize("damage", [lambda text: "", lambda text: text[:60], lambda text: "{}", lambda text: "[]"])
def test_a_damaged_description_says_what_to_do(tmp_path, damage):
    dataset(tmp_path).open(tmp_path)
    (description,) = tmp_path.rglob("dataset_info.json")
    description.write_text(damage(description.read_text()))
    with pytest.raises(
        InputError, match=f"dataset_info.json of the prepared set is damaged\n.*\n.*delete {description.parent}"
    ):
        opened(tmp_path)
    shutil.rmtree(description.parent)  # the advice, followed
    dataset(tmp_path).open(tmp_path)
