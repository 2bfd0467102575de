"""Modelfiles: Ollama's template is our own form of a conversation; stops, length and temperature are the model's."""

import re

import jinja2
import pytest
from small_models import TEMPLATE

from llama_exp.limits.dataset import ChatTemplate
from llama_exp.tokenizer import byte_pair, modelfile
from llama_exp.tokenizer.chat_template import BUILT_IN

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Why?\nHow?"},
]


def tokenizer_of(template):
    vocabulary = byte_pair.from_merges([])._vocabulary
    return byte_pair.BytePairTokenizer(vocabulary, [], template)


def written(tokenizer, length=512, temperature=None):
    return modelfile.write(tokenizer, modelfile.Served("model-F16.gguf", length, temperature))


def template_of(text):
    return re.search(r'TEMPLATE """(.*?)"""', text, re.DOTALL)[1]


class Go:
    """What Go's text/template makes of the few forms that stand in our templates."""

    def __init__(self, text):
        self.parts = re.split(r"(\{\{.*?\}\})", text, flags=re.DOTALL)

    def run(self, messages):
        self.position, self.out, self.names = 0, [], {}
        self._block({"Messages": messages}, True)
        return "".join(self.out)

    def _block(self, scope, active):
        """Up to an end or an else, which is returned."""
        while self.position < len(self.parts):
            part = self.parts[self.position]
            self.position += 1
            if not part.startswith("{{"):
                self.out.append(part if active else "")
                continue
            action = part[2:-2].strip()
            if action == "end" or action.startswith("else"):
                return action
            if action.startswith("range"):
                self._range(action, scope, active)
            elif action.startswith("if"):
                self._if(action, scope, active)
            elif "=" in action:
                name, value = re.split(r"\s*:?=\s*", action, maxsplit=1)
                if active:
                    self.names[name] = self._value(value, scope)
            elif active:
                self.out.append(str(self._value(action, scope)))
        return "end"

    def _range(self, action, scope, active):
        start, named = self.position, re.match(r"range \$(\w+), \$(\w+) := \.Messages", action)
        for number, message in enumerate(scope["Messages"] if active else [{}]):
            self.position = start
            inner = {"Role": message.get("role"), "Content": message.get("content")}
            if named:
                self.names |= {f"${named[1]}": number, f"${named[2]}": inner}
            assert self._block(inner, active) == "end"

    def _if(self, action, scope, active):
        done = False
        while True:
            condition = action.removeprefix("else").strip().removeprefix("if").strip()
            holds = active and not done and (action == "else" or bool(self._value(condition, scope)))
            action, done = self._block(scope, holds), done or holds
            if action == "end":
                return

    def _value(self, text, scope):
        if text.startswith("eq "):
            left, right = text[3:].split(" ", 1)
            return self._value(left, scope) == self._value(right, scope)
        if text.startswith('"'):
            return text[1:-1]
        if text in ("true", "false"):
            return text == "true"
        if text.startswith("$"):
            name, _, field = text.partition(".")
            return self.names[name][field] if field else self.names[name]
        return scope[text[1:]]


@pytest.mark.parametrize("name", BUILT_IN)
def test_ollama_writes_conversations_as_training_does(name):
    """But for the begin token, which the server puts in front because the file asks for it."""
    tokenizer = tokenizer_of(BUILT_IN[name])
    text = template_of(written(tokenizer))
    ends = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    for messages in (MESSAGES, MESSAGES[:2], MESSAGES[1:2], MESSAGES[1:]):
        expected = jinja2.Template(BUILT_IN[name]).render(messages=messages, add_generation_prompt=True, **ends)
        assert "<|begin_of_text|>" + Go(text).run(messages) == expected


@pytest.mark.parametrize("name", BUILT_IN)
def test_without_a_begin_token_in_front_the_template_has_it(name):
    tokenizer = tokenizer_of(BUILT_IN[name])
    tokenizer.begin_id = None
    assert template_of(written(tokenizer)).startswith("<|begin_of_text|>")


def test_stops_length_and_temperature():
    text = written(tokenizer_of(BUILT_IN[ChatTemplate.chatml]), 131072, 0.7)
    assert "FROM ./model-F16.gguf\n" in text and "PARAMETER num_ctx 8192\n" in text and "131072 tokens" in text
    stops = re.findall(r'PARAMETER stop "(.*)"', text)
    assert stops == ["<|end_of_text|>", "<|eot_id|>", "<|im_end|>"] and text.endswith("PARAMETER temperature 0.7\n")
    assert "temperature" not in written(tokenizer_of(None))


def test_a_models_own_template_is_not_guessed():
    text = written(tokenizer_of(TEMPLATE))
    assert "TEMPLATE " not in re.sub(r"#.*", "", text) and "ollama show --template" in text


@pytest.mark.parametrize("tokenizer", [None, tokenizer_of(None)])
def test_a_model_without_conversations_continues_text(tokenizer):
    assert template_of(written(tokenizer)) == "{{ .Prompt }}"
