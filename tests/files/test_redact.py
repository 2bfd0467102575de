"""Secrets and control characters do not get into what a run tells."""

import pytest

from llama_exp.files.redact import is_secret_name, printable, redact, redact_arguments


@pytest.mark.parametrize("name", ["HF_TOKEN", "KAGGLE_KEY", "WANDB_API_KEY", "MY_DB_PASSWORD", "AWS_SECRET_ACCESS_KEY"])
def test_values_of_telling_environment_variables_are_masked(monkeypatch, name):
    monkeypatch.setenv(name, "canary-4711-secret")
    assert redact("before canary-4711-secret after") == "before *** after"


def test_the_longer_of_two_overlapping_secrets_is_masked_whole(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "abcdefgh")
    monkeypatch.setenv("KAGGLE_KEY", "abcdefgh-and-more")
    assert redact("x abcdefgh-and-more") == "x ***"


def test_short_values_are_ordinary_words(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "adam")
    assert redact("adamw") == "adamw"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pw12@host/x", "https://***@host/x"),
        ("https://ghp_tok@host/x", "https://***@host/x"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ('{"authorization": "Basic Zm9v"}', '{"authorization": "Basic ***"}'),
        ("token hf_" + "a" * 34, "token ***"),
        ("hf://org/model@main", "hf://org/model@main"),
        ("mail me@host.org", "mail me@host.org"),
    ],
)
def test_secrets_are_known_by_their_form(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize(
    "name", ["wandb.key", "api_key", "--password", "+hub.token", "hf_token", "db.secret", "a.auth-key"]
)
def test_secret_names(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["dataset.text_key", "prompt_key", "tokenizer", "trainer.sample_tokens", "objective.chunk_tokens", "stop_token"],
)
def test_config_keys_of_ours_are_no_secrets(name):
    assert not is_secret_name(name)


def test_no_key_of_the_schema_passes_for_a_secret():
    import dataclasses

    from llama_exp.config import schema as config

    classes = [value for value in vars(config).values() if dataclasses.is_dataclass(value)]
    assert len(classes) > 15
    assert not [field.name for cls in classes for field in dataclasses.fields(cls) if is_secret_name(field.name)]


def test_arguments():
    arguments = ["lora.rank=8", "wandb.api_key=abc", "--token", "abc", "--password=abc", "name=x"]
    expected = ["lora.rank=8", "wandb.api_key=***", "--token", "***", "--password=***", "name=x"]
    assert redact_arguments(arguments) == expected


def test_control_characters_are_spelled_out():
    assert printable("a\x1b[31mb\x07c\r\n\td\x9b\u2028\u202e") == "a\\x1b[31mb\\x07c\\r\n\td\\x9b\\u2028\\u202e"
    assert printable("Größe 東京 🙂") == "Größe 東京 🙂"
