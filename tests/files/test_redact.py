"""Secrets and control characters do not get into what a run tells."""

import pytest

from llama_exp.files.redact import (
    is_secret_name,
    printable,
    redact,
    redact_arguments,
    redact_assignments,
    remember_secrets,
)


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
        ("http://localhost:8080/org/model@main", "http://localhost:8080/org/model@main"),
        ("https://host/a?sort=up&page=2", "https://host/a?sort=up&page=2"),
        ("s3://id:se/cr+et@bucket/x", "s3://***@bucket/x"),
        ("postgres://me:p@ss@db:5432/runs", "postgres://***@db:5432/runs"),
        ("redis://:pw@host", "redis://***@host"),
        ("GET /a?token=abc&page=2", "GET /a?token=***&page=2"),
        ("https://h/a?page=2&api_key=abc", "https://h/a?page=2&api_key=***"),
        ("https://h/a?access_token=abc#top", "https://h/a?access_token=***#top"),
        ("x?X-Amz-Date=1&X-Amz-Signature=ab12&b=1", "x?X-Amz-Date=1&X-Amz-Signature=***&b=1"),
        ("x?X-Amz-Security-Token=ab&X-Amz-Credential=cd", "x?X-Amz-Security-Token=***&X-Amz-Credential=***"),
        ("x?X-Goog-Signature=ab&sig=cd&Key-Pair-Id=ef", "x?X-Goog-Signature=***&sig=***&Key-Pair-Id=***"),
        ("Cookie: session=abc; id=2", "Cookie: ***"),
        ("{'Set-Cookie': 'a=b; c=d', 'x': 1}", "{'Set-Cookie': '***', 'x': 1}"),
        ("X-Api-Key: abc", "X-Api-Key: ***"),
        ('{"x-api-key": "abc", "b": 1}', '{"x-api-key": "***", "b": 1}'),
        ("('X-Auth-Token', 'abc')", "('X-Auth-Token', '***')"),
        ("Proxy-Authorization: Basic Zm9v", "Proxy-Authorization: Basic ***"),
        ("ghp_" + "a" * 36, "***"),
        ("the cookie jar, the key: a story", "the cookie jar, the key: a story"),
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+x={user: me, api_key: abc}", "+x={user: me, api_key: ***}"),
        ("+x=[{_target_: my.A, password: 'a, b'}, 2]", "+x=[{_target_: my.A, password: ***}, 2]"),
        ('logger.api_key="abc def', "logger.api_key=***"),
        ('+x={api_key: "abc def', "+x={api_key: ***"),
        ("logger.api_key=a,b", "logger.api_key=***"),
        ('{"api_key": "abc", "n": 1}', '{"api_key": ***, "n": 1}'),
        ("api_key: 'abc", "api_key: ***"),
        ("dataset.text_key=body", "dataset.text_key=body"),
        ("trainer.max_steps=5", "trainer.max_steps=5"),
        ("logger.api_key=", "logger.api_key="),
    ],
)
def test_what_a_user_typed_is_shown_without_the_values_of_telling_names(text, expected):
    assert redact_assignments(text) == expected


def test_a_secret_of_the_config_is_masked_wherever_it_turns_up(monkeypatch):
    monkeypatch.setattr("llama_exp.files.redact._remembered", set())
    remember_secrets({"trainer": {"callbacks": {"mine": [{"api_key": "canary-4711", "host": "example.org"}]}}, "a": 1})
    assert redact("refused: canary-4711 at example.org") == "refused: *** at example.org"


def test_control_characters_are_spelled_out():
    assert printable("a\x1b[31mb\x07c\r\n\td\x9b\u2028\u202e") == "a\\x1b[31mb\\x07c\\r\n\td\\x9b\\u2028\\u202e"
    assert printable("Größe 東京 🙂") == "Größe 東京 🙂"
