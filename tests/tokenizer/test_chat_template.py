"""Chat templates: transformers' text, and nothing else of what a template might do."""

import json
import time

import pytest

from llama_exp.dataset import chat
from llama_exp.errors import InputError
from llama_exp.limits.dataset import ChatTemplate
from llama_exp.tokenizer import byte_pair, chat_template

pytestmark = pytest.mark.process  # a template has a process of its own

TURN = [{"role": "user", "content": "  Hi <b>&\n"}, {"role": "assistant", "content": " Hello é! "}]
CHATS = [
    TURN[:1],
    [{"role": "system", "content": "Be brief. "}, *TURN, {"role": "user", "content": "And?"}],
    [*TURN, *TURN],
]
# In the style of SmolLM2's, Llama 2's and Llama 3's own; written for this test.
TEMPLATES = {
    "smollm2": """{% for message in messages %}
        {% if loop.first and messages[0]['role'] != 'system' %}
{{ '<|im_start|>system\\nYou are helpful<|im_end|>\\n' }}
        {% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
    {% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "llama2": """{%- if messages[0].role == 'system' -%}{%- set system = '<S>' ~ messages[0].content ~ '</S>' -%}
{%- set turns = messages[1:] -%}{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}
{%- for m in turns -%}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('roles must alternate: ' ~ m.role) }}{%- endif -%}
{%- if m.role == 'user' -%}{{ bos_token ~ '[INST] ' ~ (system if loop.first else '') ~ m.content.strip() ~ ' [/INST]' }}
{%- else -%}{{ ' ' ~ m.content | trim ~ ' ' ~ eos_token }}{%- endif -%}{%- endfor -%}""",
    "llama3": """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content']|trim %}
{%- set messages = messages[1:] %}
{%- else %}{%- set system = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today: " + date_string + "\\n" + system }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.content is string %}{%- set ns = namespace(text=message.content) %}{%- endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + ns.text | trim + '<|eot_id|>' }}
    {%- generation %}{%- endgeneration %}
    {%- if loop.index > 50 %}{%- break %}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
{{- strftime_now('%Y') }}{{- messages | tojson }}{{- [1, {'a': 'é<'}] | tojson(indent=2) }}{{- dict(a=1).a }}""",
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_is_transformers_own(name, tmp_path):
    import transformers

    byte_pair.from_merges([]).save_hugging_face(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for messages in CHATS:
        for prompt in (True, False):
            expected = theirs.apply_chat_template(
                messages, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=prompt
            )
            found = chat_template.render(
                messages,
                TEMPLATES[name],
                add_generation_prompt=prompt,
                bos_token="<|begin_of_text|>",
                eos_token="<|end_of_text|>",
            )
            assert found == expected


@pytest.mark.parametrize("name", chat_template.BUILT_IN)
def test_built_in_templates_are_those_of_the_data_sets(name):
    """Text of pieces, up to the token that ends a document, which a prompt must not have."""
    for messages in CHATS[1:]:
        messages = messages if messages[-1]["role"] == "assistant" else messages[:-1]
        pieces = chat.render(name, [(message["role"], message["content"]) for message in messages])
        tokens = {chat.BOS: "<s>", chat.EOS: "</s>" if name is ChatTemplate.llama2 else ""}
        expected = "".join(tokens.get(piece, piece.text) for piece in pieces)
        found = chat_template.render(
            messages, chat_template.BUILT_IN[name], add_generation_prompt=False, bos_token="<s>", eos_token="</s>"
        )
        assert found == expected
    question = CHATS[0]
    prompt = chat_template.render(question, chat_template.BUILT_IN[name])
    answer = [*question, {"role": "assistant", "content": "Yes"}]
    assert chat_template.render(answer, chat_template.BUILT_IN[name], add_generation_prompt=False).startswith(prompt)


def refused(template, match):
    with pytest.raises(InputError, match=match) as caught:
        chat_template.render(CHATS[0], template)
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
    assert time.monotonic() - started < 4 * chat_template.MAX_SECONDS


def test_the_child_sees_no_credentials(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary-canary")
    seen = {}
    run = chat_template.subprocess.run

    def watched(command, **options):
        seen.update(options["env"])
        return run(command, **options)

    monkeypatch.setattr(chat_template.subprocess, "run", watched)
    assert chat_template.render(CHATS[0], "{{ messages | length }}") == "1"
    assert "canary" not in json.dumps(seen)


def test_whose_template():
    plain = byte_pair.from_merges([])
    own = byte_pair.BytePairTokenizer(plain._vocabulary, [], chat_template="own")
    assert chat_template.find_template(own, "anything") == "own"
    for source in ("llama3_instruct_8b_en", "kaggle://keras/llama3/keras/llama3.1_instruct_8b"):
        assert chat_template.find_template(plain, source) == chat_template.BUILT_IN[ChatTemplate.llama3]
    for source in ("llama3_8b_en", "/home/somebody/instruct", "vicuna_1.5_7b_en"):
        with pytest.raises(InputError, match="no chat template"):
            chat_template.find_template(plain, source)
