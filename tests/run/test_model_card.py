"""Model cards: what the record says, in the form that the Hub reads, and nothing that nobody stated."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard

from llama_exp.run import model_card
from llama_exp.run.model_card import Base, Card

CONFIG = {
    "name": "qa",
    "preset": {"source": "hf://org/base", "load_weights": True},
    "precision": {"policy": "mixed_bfloat16"},
    "lora": {"rank": 8, "alpha": 16.0, "targets": ["query", "value"]},
    "dataset": {"_target_": "llama_exp.dataset.Jsonl", "sequence_length": 64},
}
RECORD = {
    "config_hash": "c" * 64,
    "seed": 7,
    "starts": [{"command": "llama-exp train lora.rank=8"}],
    "packages": {"keras": "3.15.1", "numpy": "2.4.6", "jax": None},
    "backend": "jax",
    "device": "cpu",
    "dataset": {"train": {"documents": 4000, "rows": 12, "tokens": 768, "fingerprint": "f" * 64}},
    "preset": {"origin": "hf://org/base", "revision": "a" * 40, "digest": "d" * 64},
}
METRICS = [
    {"step": 0, "split": "validation", "loss": 3.0},
    {"step": 4, "split": "train", "loss": 2.5, "tokens": 512},
    {"step": 4, "split": "validation", "loss": 2.0},
]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "qa-run"
    (folder / "adapter").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "run.json").write_text(json.dumps(RECORD))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    return folder


def card_of(folder):
    return ModelCard.load(folder / "README.md", ignore_metadata_errors=False)


def test_the_card_of_an_adapter(run):
    model_card.write_of_run(run / "adapter", run, "peft", {})
    card = card_of(run / "adapter")
    assert card.data.to_dict() == {
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["llama", "llama_exp", "lora", "peft"],
    }
    for fact in (
        "a" * 40,
        "d" * 64,
        "f" * 64,
        "c" * 64,
        "llama-exp train lora.rank=8",
        "4,000",
        "rank 8",
        "keras 3.15.1",
    ):
        assert fact in card.text, fact
    assert "| validation loss | 2 |" in card.text and "| validation perplexity | 7.389 |" in card.text
    assert "PeftModel.from_pretrained(base, " in card.text and "Weights: float32." in card.text
    assert "licence" not in card.text.lower() and "language" not in card.data.to_dict() and "None" not in card.text


def test_the_summary_of_a_run_that_has_ended_counts(run):
    (run / "summary.json").write_text(json.dumps({"status": "finished", "validation": {"loss": 1.25, "last": 2.0}}))
    model_card.write_of_run(run / "adapter", run, "peft", {})
    assert "| validation loss | 1.25 |" in card_of(run / "adapter").text
    model_card.write_of_run(run / "adapter", run, "peft", {"validation": {"loss": 0.5}})  # not there yet
    text = card_of(run / "adapter").text
    assert "| validation loss | 0.5 |" in text and "| validation perplexity | 7.389 |" in text


def test_the_last_row_of_each_evaluation(run):
    row = {"name": "docs | all", "kind": "multiple_choice", "items": 20, "tokens": 99, "seconds": 1.0}
    row |= {"fingerprint": "e" * 64, "file": "evaluation/docs-1.jsonl"}
    rows = [row | {"step": 1, "accuracy": 0.25}, row | {"step": 4, "accuracy": 0.75}]
    (run / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model_card.write_of_run(run / "adapter", run, "peft", {})
    text = card_of(run / "adapter").text
    assert f"| docs \\| all | accuracy 0.75 | 20 | `{'e' * 64}` |" in text and "0.25" not in text


def test_a_run_that_knows_little(tmp_path):
    """As one from a damaged or an older record: what is not there is not said."""
    for name, text in (("config.yaml", "{}"), ("run.json", "{}")):
        (tmp_path / name).write_text(text)
    model_card.write_of_run(tmp_path, tmp_path, "keras_hub", {})
    card = card_of(tmp_path)
    assert "base_model" not in card.data.to_dict() and "None" not in card.text and "random weights" in card.text


@pytest.mark.parametrize(
    ("card", "head", "words"),
    [
        (
            Card("hf", "bfloat16", Base("hf://org/m", "v1", licence="mit", has_card=True), command="llama-exp convert"),
            {"base_model": "org/m", "library_name": "transformers", "license": "mit"},
            ["Nothing was trained", "README.md of `hf://org/m`", "llama-exp convert"],
        ),
        (
            Card("gguf", "F32, Q8_0", Base("hf://org/m"), file="model-Q8_0.gguf"),
            {"base_model": "org/m", "base_model_relation": "quantized", "library_name": "gguf"},
            ["llama-cli -m model-Q8_0.gguf", "ollama create out"],
        ),
        (
            Card("keras_hub", "float32", Base("/home/me/secret/base"), adapter="their_adapter"),
            {"library_name": "keras-hub"},
            ["`base` with the adapter `their_adapter`", "from_preset("],
        ),
        (
            Card("keras_hub", "int8", Base("kaggle://keras/llama2/keras/x", "3")),
            {},
            ["`kaggle://keras/llama2/keras/x`"],
        ),
    ],
)
def test_cards_of_conversions(card, head, words, tmp_path):
    model_card.write_card(tmp_path, card, "out")
    found = card_of(tmp_path)
    assert head.items() <= found.data.to_dict().items()
    assert {"license", "base_model"} & set(found.data.to_dict()) == {"license", "base_model"} & set(head)
    assert all(word in found.text for word in words) and "secret" not in found.text


def test_a_home_folder_is_not_told(run, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    record = RECORD | {"starts": [{"command": "llama-exp train dataset.files=/home/somebody/`|x.jsonl"}]}
    (run / "run.json").write_text(json.dumps(record))
    model_card.write_of_run(run / "adapter", run, "peft", {})
    text = card_of(run / "adapter").text
    assert "somebody" not in text and "`llama-exp train dataset.files=~/'\\|x.jsonl`" in text
