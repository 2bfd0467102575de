"""Conversations: what a message may say, and what is refused by its name and value."""

import pytest

from llama_exp.dataset.chat.conversation import WrongConversation, counts, read_messages

USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
FUNCTION = {"name": "f", "arguments": '{"x": [1]}'}
CALL = {"id": "1", "type": "function", "function": FUNCTION}


@pytest.mark.parametrize(
    ("message", "made"),
    [
        (ASSISTANT, ASSISTANT),
        ({**ASSISTANT, "refusal": None, "tool_calls": None, "name": None}, ASSISTANT),
        ({**ASSISTANT, "tool_calls": []}, ASSISTANT),
        ({**ASSISTANT, "weight": 0}, {**ASSISTANT, "weight": 0}),
        ({**ASSISTANT, "weight": 1.0}, {**ASSISTANT, "weight": 1}),
        (
            {**ASSISTANT, "name": "Al", "reasoning_content": "hm"},
            {**ASSISTANT, "name": "Al", "reasoning_content": "hm"},
        ),
        ({**ASSISTANT, "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "o"}]}, ASSISTANT),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {"x": [1]}}}]},
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
            {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]},
        ),
    ],
)
def test_a_message_has_one_form(message, made):
    assert read_messages([USER, message], "messages") == [USER, made]


def test_all_roles():
    others = [{"role": role, "content": "x"} for role in ("system", "developer")]
    answer = {"role": "tool", "content": "x", "tool_call_id": "1"}
    assert read_messages([*others, USER, ASSISTANT, answer], "messages") == [*others, USER, ASSISTANT, answer]


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ({**USER, "colour": "red"}, "messages[0] has the unknown key 'colour': \"red\""),
        ({**ASSISTANT, "train": False}, "unknown key 'train': false"),
        ({**ASSISTANT, "weight": 0.5}, "messages[0].weight is 0.5"),
        ({**ASSISTANT, "weight": True}, "messages[0].weight is true"),
        ({**ASSISTANT, "weight": "0"}, 'messages[0].weight is "0"'),
        ({**USER, "weight": 1}, "messages[0].weight is 1 in a message of user"),
        ({"role": "robot", "content": "x"}, 'role "robot" is none of system, developer, user, assistant, tool'),
        ({"content": "x"}, "role null is none of"),
        ({"from": "human", "value": "x"}, "has the keys 'from' and 'value'"),
        ({"role": "user"}, "messages[0] has no content (role user; keys: 'role')"),
        ({"role": "assistant", "content": None}, "has no content (role assistant; keys: 'role', 'content')"),
        ({"role": "user", "content": 3}, "messages[0].content must be a string, not 3"),
        ({**USER, "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "content[0] is no text: {"),
        ({**USER, "content": [{"type": "text", "text": "x", "cache": 1}]}, "content[0] is no text: {"),
        ({**USER, "content": ["x"]}, 'content[0] is no text: "x"'),
        ({**USER, "tool_calls": [CALL]}, "belongs to a message of assistant, not of user"),
        ({**ASSISTANT, "tool_call_id": "1"}, 'tool_call_id="1" belongs to a message of tool, not of assistant'),
        ({**ASSISTANT, "tool_calls": CALL}, "tool_calls must be a list"),
        ({**ASSISTANT, "tool_calls": [{"type": "code", "function": FUNCTION}]}, "tool_calls[0] is {"),
        ({**ASSISTANT, "tool_calls": [{**CALL, "index": 0, "speed": 3}]}, "unknown key 'speed': 3"),
        ({**ASSISTANT, "tool_calls": [{"function": {"name": "f", "arguments": "{x"}}]}, 'arguments "{x" are not JSON'),
        ({**ASSISTANT, "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}, "arguments [1] are no object"),
    ],
)
def test_what_has_no_meaning_is_named(message, found):
    with pytest.raises(WrongConversation) as caught:
        read_messages([message, ASSISTANT], "messages")
    assert found in str(caught.value)


def test_a_conversation_has_an_assistant():
    with pytest.raises(WrongConversation, match="no turn of the assistant"):
        read_messages([USER], "messages")


def test_what_counts():
    assert counts(ASSISTANT) and counts({**ASSISTANT, "weight": 1})
    assert not counts({**ASSISTANT, "weight": 0}) and not counts(USER)
