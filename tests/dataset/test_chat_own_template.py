"""A model's own template in training data: transformers' ids and marks, user text as text, and prefixes that hold."""

import json

import numpy as np
import pytest
from chat_templates import CHATS, FORGETFUL, MARKED, PLAIN, TOOL_CHAT, TOOLS, WITH_TOOLS

from llama_exp.dataset import Jsonl
from llama_exp.dataset.chat import sandbox
from llama_exp.dataset.chat.own_template import template_of
from llama_exp.errors import InputError
from llama_exp.tokenizer import byte_pair

pytestmark = pytest.mark.process  # a template has a process of its own

TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}


def tokenizer_with(template):
    plain = byte_pair.from_merges([])
    return byte_pair.BytePairTokenizer(plain._vocabulary, [], chat_template=template)


def pieces_of(template, messages, **others):
    (pieces,) = template_of(tokenizer_with(template)).render([{"messages": messages, **others}], ["data.jsonl:1"])
    return pieces


def written(pieces):
    """The text, what counts between « and »; special tokens as they are."""
    text, counted = "", False
    for piece in pieces:
        if piece.counts != counted:
            text += "«" if piece.counts else "»"
            counted = piece.counts
        text += piece.text
    return text + ("»" if counted else "")


HEAD = "<|start_header_id|>{}<|end_header_id|>\n\n".format


BEGIN, END = TOKENS.values()
SYSTEM = "<|im_start|>system\nYou are helpful<|im_end|>\n\n"
ASKED = "<|im_start|>user\nHi<|im_end|>\n\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("name", "asked", "answer", "before"),
    [
        ("smollm2", ASKED, "«Ho<|im_end|>\n\n»", SYSTEM),  # ChatML's marks are no tokens of this tokenizer
        ("zephyr", f"<|user|>\nHi{END}\n<|assistant|>\n", f"«Ho{END}»\n", ""),  # the last newline is the template's
        ("llama2", f"{BEGIN}[INST] Hi [/INST]", f"« Ho {END}»", ""),
        ("vicuna", "USER: Hi ASSISTANT:", f"« Ho{END}»", BEGIN),
    ],
)
def test_what_the_assistant_says_is_found_by_prefix(name, asked, answer, before):
    messages = [USER, ASSISTANT, USER, {**ASSISTANT, "weight": 0}, USER, ASSISTANT]
    unlearned = answer.replace("«", "").replace("»", "")
    text = f"{before}{asked}{answer}{asked}{unlearned}{asked}{answer}"
    assert written(pieces_of(PLAIN[name], messages)) == text


def test_an_open_turn_is_left_out():
    assert pieces_of(PLAIN["llama3"], [USER, ASSISTANT, USER]) == pieces_of(PLAIN["llama3"], [USER, ASSISTANT])


def test_generation_says_what_the_assistant_says():
    text = f"<|begin_of_text|>{HEAD('user')}Hi<|eot_id|>{HEAD('assistant')}«Ho<|eot_id|>»"
    assert written(pieces_of(MARKED["llama3"], [USER, ASSISTANT])) == text
    unlearned = [USER, {**ASSISTANT, "weight": 0}, USER, ASSISTANT]
    assert written(pieces_of(MARKED["llama3"], unlearned)).count("«") == 1
    thought = {**ASSISTANT, "content": "hm</think>Ho"}
    answers = [
        part.split("»")[0]
        for part in written(pieces_of(MARKED["forgetful"], [USER, thought, USER, thought])).split("«")
    ]
    assert answers[1:] == ["Ho<|eot_id|>", "hm</think>Ho<|eot_id|>"]


def test_calls_and_answers_of_tools():
    text = written(pieces_of(WITH_TOOLS["llama3.1"], TOOL_CHAT, tools=TOOLS))
    assert f"{HEAD('assistant')}«{{" + '"name": "weather", "parameters": {"city": "Bonn, ü"}}<|eot_id|>»' in text
    assert text.endswith(f"{HEAD('assistant')}«Mild.<|eot_id|>»")
    assert '"type": "function"' in text and "Today Date: 26 Jul 2024" in text  # the same on every day


@pytest.mark.parametrize(
    ("template", "messages", "found"),
    [
        (FORGETFUL, [USER, {**ASSISTANT, "content": "hm</think>Ho"}, USER, ASSISTANT], "the text up to message 1"),
        (
            PLAIN["smollm2"].replace("<|im_start|>assistant", "<|im_start|>bot"),
            [USER, ASSISTANT],
            "what announces message 1",
        ),
        (
            MARKED["llama3"].replace("m.role == 'assistant'", "m.role == 'bot'"),
            [USER, ASSISTANT],
            "0 times {% generation",
        ),
        (
            "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
            [USER, {**ASSISTANT, "weight": 0}],
            "2 times {% generation %} for 1 messages",
        ),
        (
            "{% set all %}-{% generation %}{{ messages[1].content }}{% endgeneration %}{% endset %}{{ all }}",
            [USER, ASSISTANT],
            "inside of a macro",
        ),
    ],
)
def test_a_template_that_hides_the_assistant_is_refused(template, messages, found):
    with pytest.raises(InputError, match="does not show what the assistant wrote") as caught:
        pieces_of(template, messages)
    (problem,) = caught.value.problems
    assert found in problem.found and problem.where == "data.jsonl:1" and "{% generation %}" in problem.action


def test_a_refusal_names_the_record():
    with pytest.raises(InputError, match=r"data.jsonl:1: the chat template refuses.*\n.*roles must alternate"):
        pieces_of(PLAIN["llama2"], [USER, USER, ASSISTANT])


def test_a_users_text_is_text():
    sly = "a<|eot_id|>b<|start_header_id|>\ufdd0"
    pieces = pieces_of(PLAIN["llama3"], [{**USER, "content": sly}, {**ASSISTANT, "content": "<|eot_id|>"}])
    assert "".join(piece.text for piece in pieces).count(sly) == 1
    assert [piece.token for piece in pieces if piece.token].count("<|eot_id|>") == 3  # system, user, assistant
    assert [piece.text for piece in pieces if piece.counts] == ["<|eot_id|>", "<|eot_id|>"]
    assert [piece.token for piece in pieces if piece.counts] == [None, "<|eot_id|>"]


# --- as a data set


def opened(folder, records, name="model", **options):
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    keys = {f"{key}_key": key for key in ("text", "prompt", "completion", "messages")}
    defaults = {"sequence_length": 512, "packing": "none", "overlong": "error", "validation_fraction": 0.5}
    dataset = Jsonl(files=[str(path)], chat_template=name, **keys, **defaults | options)
    dataset.open(folder / "cache")
    return dataset


def rows(dataset, tokenizer, folder):
    """(token ids, marks) of each document, in any order."""
    examples = dataset.prepare(tokenizer, cache_dir=folder / "cache", loss_on="completion")
    for split in examples.values():
        batch = split.batch(np.arange(len(split)))
        for ids, labels, mask, padding in zip(
            *(batch[key] for key in ("token_ids", "labels", "loss_mask", "padding_mask")), strict=True
        ):
            length = padding.sum()
            yield [*ids[:length].tolist()], [0, *mask[: length - 1].astype(int).tolist()]
            assert labels[: length - 1].tolist() == ids[1:length].tolist()


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["llama3", "forgetful"])
def test_ids_and_marks_are_transformers_own(name, tmp_path):
    import transformers

    tokenizer = tokenizer_with(MARKED[name])
    tokenizer.save_hugging_face(tmp_path / "model")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    records = [
        {"messages": [{**message, "content": f"{n} {message['content']}"} for message in CHATS[2]]} for n in range(9)
    ]
    expected = [
        theirs.apply_chat_template(record["messages"], return_assistant_tokens_mask=True, return_dict=True)
        for record in records
    ]
    found = list(rows(opened(tmp_path, records), tokenizer, tmp_path))
    assert sorted(found) == sorted((row["input_ids"], row["assistant_masks"]) for row in expected)


def test_the_template_is_part_of_the_fingerprint(tmp_path):
    records = [{"messages": [{**USER, "content": f"{n}"}, ASSISTANT]} for n in range(9)]
    dataset, seen = opened(tmp_path, records), set()
    for template in (MARKED["llama3"], PLAIN["llama3"], MARKED["llama3"]):
        examples = dataset.prepare(tokenizer_with(template), cache_dir=tmp_path / "cache", loss_on="completion")
        seen.add((dataset.fingerprint, examples["train"].fingerprint))
    assert len(seen) == 2


def test_a_model_without_a_template_is_refused(tmp_path):
    dataset = opened(tmp_path, [{"messages": [USER, ASSISTANT]}])
    with pytest.raises(InputError, match="no chat template of a model\n.*\n.*instruct model"):
        dataset.prepare(tokenizer_with(None), cache_dir=tmp_path, loss_on="completion")
    with pytest.raises(ValueError, match="use_tokenizer"):
        list(dataset.documents())


def test_other_forms_stand_beside_conversations(tmp_path, monkeypatch):
    calls = []
    run = sandbox.run
    monkeypatch.setattr(sandbox, "run", lambda request: calls.append(len(request["conversations"])) or run(request))
    records = [{"text": "plain"}, {"messages": [USER, ASSISTANT], "tools": TOOLS}, {"prompt": "a", "completion": "b"}]
    dataset = opened(tmp_path, [*records, {"messages": [USER, USER, ASSISTANT]}])
    dataset.use_tokenizer(tokenizer_with(PLAIN["smollm2"]))
    texts = [record.text for _, record in dataset.documents()]
    assert (
        texts[0] == "plain" and texts[1].count("user\nHi") == 1 and texts[2] == "ab" and texts[3].count("user\nHi") == 2
    )
    assert calls == [2]  # one process for all
