"""The default data set, end to end, and that it leaves the frameworks alone."""

import subprocess
import sys

import pytest

from llama_exp.dataset import PythonDocs, stdlib
from llama_exp.dataset.stdlib import Documented

OPTIONS = {"sequence_length": 64, "packing": "concat", "overlong": "split", "validation_fraction": 0.1}
LONG = "A docstring that is long enough to be a document"


@pytest.fixture
def small(monkeypatch):
    """A standard library of a few docstrings."""
    texts = [f"{LONG}, number {number}." for number in range(40)]
    items = [Documented("function", f"m.f{number}", "()", (), text) for number, text in enumerate([*texts, texts[0]])]
    items += [Documented("function", "m.tiny", "()", (), "Tiny."), Documented("class", "m.C", "", (), LONG + "\ud83d")]
    monkeypatch.setattr(stdlib, "find_documented", lambda: iter(items))
    monkeypatch.setattr(stdlib, "read_topics", lambda: iter([("topics.x", "Topic\n*****\n\n" + LONG)]))
    monkeypatch.setattr(stdlib, "digest", lambda: "d1")
    return texts


def opened(cache_dir, **options):
    dataset = PythonDocs(**OPTIONS | options)
    dataset.open(cache_dir)
    return dataset


def test_documents_are_long_enough_and_no_copies(small, tmp_path):
    dataset = opened(tmp_path)
    texts = [*dataset.texts("train"), *dataset.texts("validation")]
    assert sorted(texts) == sorted([*small, "Topic\n*****\n\n" + LONG])
    records = [record for _, record in dataset.documents()]
    assert [record.source for record in records[:2]] == ["topics.x", "m.f0"]


def test_the_builder_runs_once_and_its_facts_answer_the_next_open(small, tmp_path, monkeypatch):
    first = opened(tmp_path)
    monkeypatch.setattr(PythonDocs, "generate", lambda self: pytest.fail("generated again"))
    second = opened(tmp_path)
    assert second.fingerprint == first.fingerprint
    assert list(second.texts("train")) == list(first.texts("train"))
    (folder,) = (tmp_path / "tfds" / "python_docs").glob("*/1.0.0")
    assert folder.parent.name == f"{stdlib.python_name()}_{first.source_key()[:24]}"
    assert list(folder.glob("*.array_record-*"))


def test_a_deleted_builder_folder_is_built_again(small, tmp_path):
    import shutil

    texts = list(opened(tmp_path).texts("train"))
    (folder,) = (tmp_path / "tfds" / "python_docs").glob("*/1.0.0")
    shutil.rmtree(folder.parent)
    assert list(opened(tmp_path).texts("train")) == texts


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_lost_facts_are_found_again(small, tmp_path, damage):
    first = opened(tmp_path)
    (facts,) = (tmp_path / "tfds" / "python_docs").glob("*.json")
    damage(facts)
    second = opened(tmp_path)
    assert second.fingerprint == first.fingerprint
    assert list(second.texts("train")) == list(first.texts("train"))


def test_other_sources_are_another_builder_but_equal_documents_the_same_fingerprint(small, tmp_path, monkeypatch):
    first = opened(tmp_path)
    monkeypatch.setattr(stdlib, "digest", lambda: "d2")
    second = opened(tmp_path)
    assert second.fingerprint == first.fingerprint
    assert len(list((tmp_path / "tfds" / "python_docs").glob("*/1.0.0"))) == 2
    monkeypatch.setattr(stdlib, "digest", lambda: "d3")
    monkeypatch.setattr(stdlib, "read_topics", lambda: iter([]))
    assert opened(tmp_path).fingerprint != first.fingerprint
    assert opened(tmp_path, validation_fraction=0.2).fingerprint != opened(tmp_path).fingerprint


def test_tfds_finds_the_prepared_builder_by_name(small, tmp_path):
    import tensorflow_datasets as tfds

    opened(tmp_path)
    (folder,) = (tmp_path / "tfds" / "python_docs").glob("*/1.0.0")
    source = tfds.builder_from_directory(folder).as_data_source("train")
    assert len(source) == 41
    assert source[1]["text"].decode().startswith(LONG)


def test_nothing_is_printed(small, tmp_path, capfd):
    list(opened(tmp_path).documents())
    assert capfd.readouterr() == ("", "")


SCRIPT = """
import sys
from llama_exp.dataset import Order, PythonDocs
from llama_exp.tokenizer import bpe
dataset = PythonDocs(sequence_length=128, packing="concat", overlong="split", validation_fraction=0.05)
dataset.open(sys.argv[1])
tokenizer = bpe(vocabulary_size=512, texts=lambda: dataset.texts("train"), preset_folder=None,
                cache_dir=sys.argv[1], fingerprint=dataset.fingerprint)
examples = dataset.prepare(tokenizer, cache_dir=sys.argv[1], loss_on="completion", minimum_train_rows=100)
batch = examples["train"].batch(Order(len(examples["train"]), 0).indices(0, 4))
assert batch["token_ids"].shape == (4, 128)
loaded = {"tensorflow", "keras", "jax", "torch", "tensorflow_datasets"} & set(sys.modules)
print(dataset.fingerprint, examples["train"].fingerprint, tokenizer.fingerprint, *sorted(loaded))
"""


@pytest.mark.process
def test_the_real_one_needs_no_framework_and_from_the_cache_not_even_tfds(tmp_path):
    def run():
        command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    first, second = run(), run()
    assert first == [*second, "tensorflow_datasets"]
