"""JSON lines: three forms of record, and what is wrong with a line."""

import json

import numpy as np
import pytest

from llama_exp.dataset import Jsonl
from llama_exp.errors import InputError

KEYS = {"text_key": "text", "prompt_key": "prompt", "completion_key": "completion", "messages_key": "messages"}
CHAT = {"messages": [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}]}


def opened(tmp_path, lines, **options):
    path = tmp_path / "data.jsonl"
    content = lines if isinstance(lines, bytes) else "\n".join(map(json.dumps, lines)).encode()
    path.write_bytes(content)
    defaults = KEYS | {"chat_template": "llama3", "sequence_length": 64, "packing": "none", "overlong": "split"}
    dataset = Jsonl(files=[str(path)], **defaults | {"validation_fraction": 0.5} | options)
    dataset.open(tmp_path / "cache")
    return dataset


def test_three_forms_of_record(tmp_path):
    lines = [{"text": "plain", "id": 1}, {"prompt": "ask ", "completion": "say"}, CHAT]
    records = [record for _, record in opened(tmp_path, lines).documents()]
    assert [record.source for record in records] == ["data.jsonl:1", "data.jsonl:2", "data.jsonl:3"]
    assert [record.text for record in records] == ["plain", "ask say", "user\n\nHi!assistant\n\nHello."]
    assert [[piece.text for piece in record.pieces if piece.counts and not piece.token] for record in records] == [
        ["plain"],
        ["say"],
        ["Hello."],
    ]


def test_only_the_assistant_is_learnt_from(tmp_path, byte_tokenizer):
    dataset = opened(tmp_path, [json.loads(json.dumps(CHAT).replace("Hi!", f"Hi {n}!")) for n in range(20)])
    examples = dataset.prepare(byte_tokenizer, cache_dir=tmp_path / "cache", loss_on="completion")["train"]
    batch = examples.batch(np.arange(len(examples)))
    eot = byte_tokenizer.special_id("<|eot_id|>")
    for labels, mask in zip(batch["labels"], batch["loss_mask"], strict=True):
        assert labels[mask > 0].tolist() == [*b"Hello.", eot]


def test_keys_can_have_other_names_and_blank_lines_are_skipped(tmp_path):
    content = b'\xef\xbb\xbf{"body": "caf\xc3\xa9"}\r\n\r\n  \n{"body": "\\ud83d\\ude00"}\n'
    dataset = opened(tmp_path, content, text_key="body")
    assert [(record.text, record.source) for _, record in dataset.documents()] == [
        ("café", "data.jsonl:1"),
        ("😀", "data.jsonl:4"),
    ]


@pytest.mark.parametrize(
    ("line", "what", "found"),
    [
        (b"{text", "not JSON", "Expecting property name"),
        (b'["text"]', "not a JSON object", "list"),
        (b"[" * 200_000, "not JSON", ""),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON", "4300"),
        (b'{"txt": "x", "id": 3}', "without any of the known keys", "keys present: 'txt', 'id'"),
        (b"{}", "without any of the known keys", "keys present: none"),
        (b'{"prompt": "x"}', "without any of the known keys", "'prompt'"),
        (b'{"text": "x", "prompt": "x", "completion": "y"}', "more than one form", "'text', 'prompt', 'completion'"),
        (b'{"text": {"a": 1}}', "wrong form", "'text' must be a string, not dict"),
        (b'{"prompt": "x", "completion": null}', "wrong form", "'completion' must be a string, not NoneType"),
        (b'{"messages": "hi"}', "wrong form", "list of objects"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "wrong form", "system, user, assistant"),
        (b'{"messages": [{"role": "user"}]}', "wrong form", "string content"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "wrong form", "no turn of the assistant"),
        (b'{"text": "half \\ud83d"}', "half a surrogate pair", "\\ud83d"),
        (b'{"text": "\xff"}', "not UTF-8", "0xff"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, what, found):
    with pytest.raises(InputError) as caught:
        opened(tmp_path, b'{"text": "fine"}\n\n' + line + b"\n")
    (problem,) = caught.value.problems
    assert problem.where == f"{tmp_path}/data.jsonl:3"
    assert what in problem.what and found in problem.found and problem.action
    # What the builder had written of it is no result.
    assert not list((tmp_path / "cache").rglob("dataset_info.json"))


def test_the_template_is_part_of_the_fingerprint(tmp_path):
    assert opened(tmp_path, [CHAT]).fingerprint != opened(tmp_path, [CHAT], chat_template="llama2").fingerprint


def test_a_damaged_builder_file_says_what_to_do(tmp_path):
    dataset = opened(tmp_path, [{"text": f"line {n}"} for n in range(50)])
    (file,) = (tmp_path / "cache").rglob("*.array_record-*")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match="delete that folder: it is built again"):
        list(dataset.documents())
