"""JSON lines: three forms of record, and what is wrong with a line."""

import json
import re
import shutil

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
        (b"{text", "not valid JSON", "column 2: Expecting property name"),
        (b'["text"]', "does not hold a JSON object", "list"),
        (b"[" * 200_000, "not valid JSON", "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON", "column 7: 999"),
        (b'{"txt": "x", "id": 3}', "without any of the known keys", "keys present: 'txt', 'id'"),
        (b"{}", "without any of the known keys", "keys present: none"),
        (b'{"prompt": "x"}', "without any of the known keys", "'prompt'"),
        (b'{"text": "x", "prompt": "x", "completion": "y"}', "more than one form", "'text', 'prompt', 'completion'"),
        (b'{"text": {"a": 1}}', "wrong form", "'text' must be a string, not dict: {"),
        (b'{"prompt": "x", "completion": null}', "wrong form", "'completion' must be a string, not NoneType"),
        (b'{"messages": "hi"}', "wrong form", "list of objects"),
        (
            b'{"messages": [{"role": "robot", "content": "x"}]}',
            "wrong form",
            'role "robot" is none of system, developer, user',
        ),
        (b'{"messages": [{"role": "user"}]}', "wrong form", "messages[0] has no content"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "wrong form", "no turn of the assistant"),
        (b'{"text": "half \\ud83d"}', "not valid JSON", "half a surrogate pair"),
        (
            b'{"prompt": "2+2?", "completion": "4", "completion": "5"}',
            "not valid JSON",
            "key 'completion' stands twice",
        ),
        (b'{"text": "a", "score": {"x": 1, "x": 2}}', "not valid JSON", "column 33: the key 'x' stands twice"),
        (b'{"text": "a", "score": NaN}', "not valid JSON", "NaN is no finite number"),
        (b'{"messages": [{"role": "user", "content": "x", "color": 3}]}', "wrong form", "unknown key 'color': 3"),
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


TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]


@pytest.mark.parametrize(
    ("line", "action"),
    [
        (
            {"conversations": TURNS},
            "set dataset.messages_key=conversations and rename in each message 'from' to 'role'",
        ),
        ({"messages": TURNS}, "rename them: 'from' to 'role' (human: user, gpt: assistant), 'value' to 'content'"),
        ({"dialog": CHAT["messages"], "id": 3}, "set dataset.messages_key=dialog"),
        ({"my chat": CHAT["messages"]}, 'set dataset.messages_key="my chat"'),
        ({"instruction": "a", "output": "b"}, "set dataset.prompt_key=instruction and dataset.completion_key=output"),
        ({"instruction": "a", "input": "c", "output": "b"}, "its key 'input' is not read: write it into the prompt"),
        ({"question": "a", "answer": "b"}, "set dataset.prompt_key=question and dataset.completion_key=answer"),
        ({"content": "a"}, "set dataset.text_key=content"),
        ({**CHAT, "tools": [{"name": "f"}]}, "set dataset.chat_template=model, or remove 'tools' from the record"),
    ],
)
def test_other_shapes_are_told_what_to_set(tmp_path, line, action):
    with pytest.raises(InputError) as caught:
        opened(tmp_path, [line])
    assert action in caught.value.problems[0].action


def test_the_advice_works(tmp_path):
    for line, keys in (
        ({"dialog": CHAT["messages"]}, {"messages_key": "dialog"}),
        ({"question": "a", "answer": "b"}, {"prompt_key": "question", "completion_key": "answer"}),
        ({"content": "a"}, {"text_key": "content"}),
    ):
        (record,) = [record for _, record in opened(tmp_path, [line], **keys).documents()]
        assert any(piece.counts and piece.text for piece in record.pieces)


def test_what_one_template_can_write_another_cannot(tmp_path):
    """Lines that were stored for one template are looked at again for another."""
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [CHAT["messages"][0], {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "1"}]
    messages += [CHAT["messages"][1]]
    assert len(list(opened(tmp_path, [{"messages": messages}], chat_template="chatml").documents())) == 1
    with pytest.raises(InputError, match="llama2 has no form for calls"):
        opened(tmp_path, [{"messages": messages}], chat_template="llama2")


@pytest.mark.parametrize("text", ["", '{"name": "json', "{}", "[]", '{"version": "1.0.0", "splits": 3}'])
def test_a_damaged_description_says_what_to_do(tmp_path, text):
    lines = [{"text": f"line {n}"} for n in range(50)]
    opened(tmp_path, lines)
    (description,) = (tmp_path / "cache").rglob("dataset_info.json")
    description.write_text(text)
    with pytest.raises(InputError, match="delete that folder: it is built again") as caught:
        list(opened(tmp_path, lines).documents())
    shutil.rmtree(caught.value.problems[0].where)  # the advice, followed
    assert len(list(opened(tmp_path, lines).documents())) == 50


def test_a_file_is_read_once_whatever_it_is_called(tmp_path, monkeypatch):
    dataset = opened(tmp_path, [{"text": f"line {n}"} for n in range(9)])
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "data.jsonl")
    monkeypatch.chdir(tmp_path)
    dataset.files = ["link.jsonl", "*.jsonl", str(tmp_path / "data.jsonl"), "./data.jsonl"]
    dataset.open(tmp_path / "cache")
    assert len(list(dataset.documents())) == 9


EMPTY = {"messages": [CHAT["messages"][0], {"role": "assistant", "content": " "}]}


@pytest.mark.parametrize("line", [{"prompt": "ask", "completion": ""}, EMPTY])
def test_answers_that_are_all_empty_are_refused(tmp_path, byte_tokenizer, line, caplog):
    lines = [json.loads(json.dumps(line).replace("ask", f"{n}").replace("Hi!", f"{n}")) for n in range(20)]
    with pytest.raises(InputError, match="every answer is empty.*\n.*20 of 20 documents\n.*completion_key"):
        opened(tmp_path, lines).prepare(byte_tokenizer, cache_dir=tmp_path / "cache", loss_on="completion")
    opened(tmp_path, lines).prepare(byte_tokenizer, cache_dir=tmp_path / "cache", loss_on="all")
    lines += [{"prompt": f"{n}", "completion": "b"} for n in range(20)]
    opened(tmp_path, lines).prepare(byte_tokenizer, cache_dir=tmp_path / "cache", loss_on="completion")
    assert "20 of 40 answers (50.0 %) are empty" in caplog.text


@pytest.mark.parametrize("overlong", ["truncate", "drop"])
def test_chats_longer_than_a_row_get_advice_that_works(tmp_path, byte_tokenizer, overlong):
    lines = [json.loads(json.dumps(CHAT).replace("Hi!", f"{n} {'x' * 99}")) for n in range(20)]

    def prepare(**options):
        dataset = opened(tmp_path, lines, overlong=overlong, **options)
        return dataset.prepare(byte_tokenizer, cache_dir=tmp_path / "cache", loss_on="completion")

    with pytest.raises(InputError) as caught:
        prepare(sequence_length=64)
    advised = re.search(r"set dataset.sequence_length=(\d+)", caught.value.problems[0].action)
    assert prepare(sequence_length=int(advised[1]))["train"].num_target_tokens > 0
