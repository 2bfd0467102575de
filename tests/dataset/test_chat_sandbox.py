"""Chat templates of models: transformers' text for all that one looks at, and nothing else of what it might do."""

import json
import time

import pytest
from chat_templates import CHATS, CURIOUS, MARKED, PLAIN, TOOL_CHAT, TOOLS, WITH_TOOLS

from llama_exp.dataset.chat import sandbox
from llama_exp.errors import InputError
from llama_exp.tokenizer import byte_pair

pytestmark = pytest.mark.process  # a template has a process of its own
ALL = {**PLAIN, **CURIOUS, **WITH_TOOLS, **{f"marked {name}": text for name, text in MARKED.items()}}
TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|pad|>"}
ODD = [
    [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "a", "name": "Ann"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thinking": "hm", "tool_calls": None}],
    [
        {"role": "user", "content": "a", "refusal": None},
        {"role": "assistant", "reasoning_content": "hm", "content": "b"},
    ],
]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    import transformers

    folder = tmp_path_factory.mktemp("tokenizer")
    byte_pair.from_merges([]).save_hugging_face(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = TOKENS["pad_token"]
    return tokenizer


@pytest.mark.oracle
@pytest.mark.parametrize("name", ALL)
def test_the_text_is_transformers_own(name, theirs):
    asked = [
        {"messages": messages, **options}
        for messages in (*CHATS, *ODD, TOOL_CHAT)
        for options in (
            {"add_generation_prompt": True},
            {"add_generation_prompt": False},
            {"add_generation_prompt": True, "tools": TOOLS},
            {"add_generation_prompt": False, "tools": [], "documents": []},
        )
    ]
    answers = sandbox.run({"template": ALL[name], "variables": TOKENS, "conversations": asked})
    for conversation, answer in zip(asked, answers, strict=True):
        options = dict(conversation)
        messages = options.pop("messages")
        try:
            expected = theirs.apply_chat_template(messages, chat_template=ALL[name], tokenize=False, **options)
        except Exception as error:  # whatever a template makes Python raise
            assert str(error)[:40] in answer["found"]
        else:
            assert answer == {"text": expected}


def test_what_a_model_lacks_a_template_does_not_see():
    assert sandbox.render(CHATS[0], "{{ bos_token is defined }}{{ eos_token }}", eos_token="</s>") == "False</s>"


def refused(template, match):
    with pytest.raises(InputError, match=match) as caught:
        sandbox.render(CHATS[0], template)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("{% if %}", "not valid Jinja"),
        ("{{ raise_exception('roles must alternate') }}", "refuses the conversation\n.*roles must alternate"),
        ("{{ messages[7].content + 1 }}", "refuses the conversation|fails"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "must not|refuses"),
        ("{{ messages.append(1) }}", "must not|refuses"),
        ("{% set n = namespace() %}{% set n.__class__ = 1 %}", "must not"),
        ("{{ namespace(_x=1) }}", "must not"),
        ("{{ dict.__class__.__mro__ }}", "must not|refuses"),
        ("{{ lipsum.__globals__['os'].environ }}", "must not|refuses"),
        ("{{ 'a' * 10 ** 10 }}", "memory"),
        ("{{ '%10000000000d' % 1 }}", "memory"),
        ("{{ 'ab' * 3000000 }}", "writes too much"),
        ("{% include '/etc/passwd' %}", "fails|refuses"),
        ("{% for i in range(10 ** 6) %}{% endfor %}", "Range too big"),
    ],
)
def test_harmful_templates_are_refused(template, match):
    refused(template, match)


def test_endless_work_ends(monkeypatch):
    started = time.monotonic()
    refused("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "broke off")
    assert time.monotonic() - started < 4 * sandbox.MAX_SECONDS


def test_the_child_sees_no_credentials(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary-canary")
    seen = {}
    run = sandbox.subprocess.run

    def watched(command, **options):
        seen.update(options["env"])
        return run(command, **options)

    monkeypatch.setattr(sandbox.subprocess, "run", watched)
    assert sandbox.render(CHATS[0], "{{ messages | length }}") == "1"
    assert "canary" not in json.dumps(seen)
