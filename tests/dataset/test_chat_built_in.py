"""Chat templates, written out; what is between « and » counts in the loss."""

import pytest

from llama_exp.dataset.chat.built_in import render
from llama_exp.dataset.chat.conversation import WrongConversation
from llama_exp.limits.dataset import ChatTemplate

BUILT_IN = (ChatTemplate.chatml, ChatTemplate.llama2, ChatTemplate.llama3)


def said(*turns):
    return [{"role": role, "content": content} for role, content in turns]


MESSAGES = said(
    ("system", "Be brief."),
    ("user", "Hi!"),
    ("assistant", "Hello."),
    ("user", "Why?"),
    ("assistant", "Because."),
)

GOLDEN = {
    "chatml": (
        "<bos><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n"
        "<|im_start|>assistant\n«Hello.<|im_end|>»\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\n«Because.<|im_end|><eos>»"
    ),
    "llama3": (
        "<bos><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Hello.<|eot_id|>»"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Because.<|eot_id|><eos>»"
    ),
    "llama2": (
        "<bos>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi! [/INST]« Hello. <eos>»"
        "<bos>[INST] Why? [/INST]« Because. <eos>»"
    ),
}


def written(pieces):
    text, counted = "", False
    for piece in pieces:
        shown = f"<{piece.token}>" if piece.token in ("bos", "eos") else piece.text
        if shown and piece.counts != counted:
            text += "«" if piece.counts else "»"
            counted = piece.counts
        text += shown
    return text + ("»" if counted else "")


@pytest.mark.parametrize("template", BUILT_IN)
def test_templates_are_what_the_models_were_trained_on(template):
    assert written(render(template, MESSAGES)) == GOLDEN[template.value]


@pytest.mark.parametrize("template", BUILT_IN)
def test_a_turn_without_an_answer_is_left_out(template):
    assert render(template, [*MESSAGES, *said(("user", "And?"))]) == render(template, MESSAGES)


@pytest.mark.parametrize("template", BUILT_IN)
def test_a_system_message_is_optional(template):
    text = written(render(template, MESSAGES[1:3]))
    assert "Be brief" not in text and "SYS" not in text
    assert "Hello." in text


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ([], "no turn of the assistant"),
        (["system"], "no turn of the assistant"),
        (["user"], "no turn of the assistant"),
        (["assistant", "user"], "they are: assistant, user"),
        (["user", "user", "assistant"], "they are: user, user, assistant"),
        (["user", "system", "assistant"], "they are: user, system, assistant"),
    ],
)
def test_turns_must_alternate(roles, message):
    with pytest.raises(ValueError, match=message):
        render(ChatTemplate.chatml, said(*((role, "text") for role in roles)))


@pytest.mark.parametrize("template", BUILT_IN)
def test_a_message_of_no_weight_is_read_and_not_learned(template):
    messages = [*MESSAGES[:2], {**MESSAGES[2], "weight": 0}, *MESSAGES[3:]]
    text = written(render(template, messages))
    assert text.replace("«", "").replace("»", "") == GOLDEN[template.value].replace("«", "").replace("»", "")
    assert "Hello" not in "".join(part.split("»")[0] for part in text.split("«")[1:])
    assert written(render(template, [*MESSAGES[:4], {**MESSAGES[4], "weight": 0}])).endswith("<eos>")


@pytest.mark.parametrize("template", BUILT_IN)
def test_a_developer_is_a_system(template):
    assert render(template, [{**MESSAGES[0], "role": "developer"}, *MESSAGES[1:]]) == render(template, MESSAGES)


def called(*names):
    calls = [{"type": "function", "function": {"name": name, "arguments": {"x": "é"}}} for name in names]
    return {"role": "assistant", "tool_calls": calls}


ASKED, SAID = said(("user", "Hi!")), said(("assistant", "Done."))


def test_calls_of_tools_in_chatml_are_those_of_hermes():
    answers = said(("tool", "1"), ("tool", "2"))
    text = written(render(ChatTemplate.chatml, [*ASKED, called("f", "g"), *answers, *SAID]))
    assert text == (
        "<bos><|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n"
        '«<tool_call>\n{"name": "f", "arguments": {"x": "é"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {"x": "é"}}\n</tool_call><|im_end|>»\n'
        "<|im_start|>tool\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n«Done.<|im_end|><eos>»"
    )


def test_calls_of_tools_in_llama3_are_those_of_llama_3_1():
    text = written(render(ChatTemplate.llama3, [*ASKED, called("f"), *said(("tool", "1")), *SAID]))
    header = "<|start_header_id|>{}<|end_header_id|>\n\n".format
    assert text == (
        f"<bos>{header('user')}Hi!<|eot_id|>{header('assistant')}"
        f'«{{"name": "f", "parameters": {{"x": "é"}}}}<|eot_id|>»{header("ipython")}1<|eot_id|>'
        f"{header('assistant')}«Done.<|eot_id|><eos>»"
    )


@pytest.mark.parametrize(
    ("template", "messages", "found"),
    [
        ("llama2", [*ASKED, called("f"), *said(("tool", "1")), *SAID], "llama2 has no form for calls"),
        ("llama3", [*ASKED, called("f", "g"), *said(("tool", "1")), *SAID], "one call and nothing else"),
        ("llama3", [*ASKED, {**called("f"), "content": "Look:"}, *said(("tool", "1")), *SAID], "one call"),
        ("chatml", [*ASKED, called("f"), *SAID], "they are: user, assistant's tool call, assistant"),
        ("chatml", [*ASKED, *SAID, *said(("tool", "1"))], "they are: user, assistant, tool"),
        ("chatml", [{**ASKED[0], "name": "Ann"}, *SAID], 'does not write name="Ann"'),
        ("chatml", [*ASKED, {**SAID[0], "reasoning_content": "hm"}], 'does not write reasoning_content="hm"'),
    ],
)
def test_what_a_form_cannot_write_is_named(template, messages, found):
    with pytest.raises(WrongConversation, match=found) as caught:
        render(ChatTemplate(template), messages)
    assert "dataset.chat_template=model" in caught.value.action
