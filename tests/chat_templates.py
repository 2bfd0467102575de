"""Chat templates in the manner of Llama models and their tuned children; written for these tests."""

PLAIN = {
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
    {%- if loop.index > 50 %}{%- break %}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}""",
    "zephyr": """{% for message in messages %}
{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token }}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "vicuna": """{{ bos_token }}{% for m in messages %}
{%- if m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}
{%- elif m.role == 'assistant' %}{{ 'ASSISTANT: ' + m.content + eos_token }}
{%- else %}{{ m.content + ' ' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}""",
}
# What a template may look at.
CURIOUS = {
    "guards": """{{ tools is none }}{{ tools is not none }}{{ tools is defined }}{{ documents is none }}
{{- unknown is defined }}{{ add_generation_prompt }}{{ continue_final_message is defined }}{{ date_string is defined }}
{{- strftime_now is defined }}{{ pad_token is defined }}{{ bos_token }}{{ eos_token }}{{ messages | length }}""",
    "phantom tools": """{{ bos_token }}{% for m in messages %}{% if loop.last and tools is not none %}
{{- '[TOOLS] ' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '[/TOOLS]' }}{% endif %}{{ m.role }}{% endfor %}""",
    "json": """{{ messages | tojson }}{{ [1, {'a': 'é<b>&'}] | tojson(indent=2) }}
{{- {'b': 1, 'a': 2} | tojson(sort_keys=True) }}
{{- 'é' | tojson(ensure_ascii=True) }}{{ [1, 2] | tojson(separators=(',', ':')) }}
{{- {'a': none, 'b': true} | tojson }}""",
    "scopes": """{% set found = namespace(a=1, n=0) %}{% for m in messages %}
{%- if loop.index0 == 1 %}{% continue %}{% endif %}
{% set found.n = found.n + 1 %}{% generation %}{% set inner = 1 %}{{ inner }}{{ m.content }}{% endgeneration %}
{{ inner is defined }}{{ found.n }}{{ dict(a=1, **{'b': 2}) }}{{ dict.fromkeys(['x'], 1) }}{% endfor %}
{% macro show(text) %}<{{ text | upper }}>{% endmacro %}{{ show('é') }}{{ '%s-%d' | format('a', 3) }}{{ 'a' * 3 }}""",
    "reasoning": """{% for m in messages %}{{ m.role }}{{ m.content is defined }}{{ m.reasoning_content is defined }}
{{- m.thinking is defined }}{{ m.tool_calls is defined }}{{ m.name is defined }}{% endfor %}""",
}
WITH_TOOLS = {
    "llama3.1": """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content']|trim %}
{%- set messages = messages[1:] %}
{%- else %}{%- set system = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + strftime_now("%d %b %Y") + "\\n\\n" }}
{%- if tools is not none %}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}{%- endif %}
{{- system }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'
            + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one call at a time") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + call.name + '", ' }}{{- '"parameters": ' }}
        {{- call.arguments | tojson }}{{- "}" }}{{- "<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}""",
    "hermes": """{{- bos_token }}{%- if tools %}{{- '<|im_start|>system\\nFunctions: ' }}
{%- for tool in tools %}{{- tool.function | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or message.role == "system"
            or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {{- '\\n<tool_call>\\n' }}
            {{- {'name': tool_call.function.name, 'arguments': tool_call.function.arguments} | tojson }}
            {{- '\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}{{- '<|im_start|>tool\\n' }}{%- endif %}
        {{- '<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if not loop.last and loop.nextitem.role != "tool" %}{{- '<|im_end|>' }}
        {%- elif loop.last %}{{- '<|im_end|>' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}""",
}
# The assistant's words marked for training.
MARKED = {
    "llama3": """{{ bos_token }}{% for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}
{%- if m.role == 'assistant' %}{% generation %}{{ m.content | trim + '<|eot_id|>' }}{% endgeneration %}
{%- else %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}""",
    # It forgets earlier reasoning, which no prefix survives.
    "forgetful": """{{ bos_token }}{% for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}
{%- if m.role == 'assistant' %}{%- generation -%}
{{ (m.content if loop.last else m.content.split('</think>')[-1]) + '<|eot_id|>' }}
{%- endgeneration -%}
{%- else %}{{ m.content + '<|eot_id|>' }}{% endif %}{% endfor %}""",
}
FORGETFUL = MARKED["forgetful"].replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")

TURN = [{"role": "user", "content": "  Hi <b>&\n"}, {"role": "assistant", "content": " Hello é! "}]
CHATS = [
    TURN[:1],
    [{"role": "system", "content": "Be brief. "}, *TURN, {"role": "user", "content": "And?"}],
    [*TURN, *TURN],
]
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Bonn, ü"}}}],
}
TOOL_CHAT = [
    {"role": "user", "content": "Weather in Bonn?"},
    CALL,
    {"role": "tool", "tool_call_id": "1", "content": '{"sky": "mild"}'},
    {"role": "assistant", "content": "Mild."},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
