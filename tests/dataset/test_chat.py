"""Chat templates, written out; what is between « and » counts in the loss."""

import pytest

from llama_exp.dataset.chat import render
from llama_exp.limits.dataset import ChatTemplate

MESSAGES = [
    ("system", "Be brief."),
    ("user", "Hi!"),
    ("assistant", "Hello."),
    ("user", "Why?"),
    ("assistant", "Because."),
]

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


@pytest.mark.parametrize("template", ChatTemplate)
def test_templates_are_what_the_models_were_trained_on(template):
    assert written(render(template, MESSAGES)) == GOLDEN[template.value]


@pytest.mark.parametrize("template", ChatTemplate)
def test_a_turn_without_an_answer_is_left_out(template):
    assert render(template, [*MESSAGES, ("user", "And?")]) == render(template, MESSAGES)


@pytest.mark.parametrize("template", ChatTemplate)
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
        render(ChatTemplate.chatml, [(role, "text") for role in roles])
