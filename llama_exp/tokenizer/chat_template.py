"""Which chat template a model has, and the text of a conversation by it. Imports no framework."""

from __future__ import annotations

from llama_exp.dataset.chat.sandbox import render
from llama_exp.errors import InputError, Problem
from llama_exp.limits.dataset import ChatTemplate
from llama_exp.preset import find_name

__all__ = ["BUILT_IN", "find_template", "render", "take_template"]

# As `dataset.chat.built_in` renders them, for models whose files have no template.
BUILT_IN = {
    ChatTemplate.llama2: (
        "{% set found = namespace(system='') %}"
        "{% for message in messages %}"
        "{% if message.role == 'system' %}"
        "{% set found.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' %}"
        "{% elif message.role == 'user' %}"
        "{{ bos_token ~ '[INST] ' ~ (found.system + message.content) | trim ~ ' [/INST]' }}"
        "{% set found.system = '' %}"
        "{% else %}{{ ' ' ~ message.content | trim ~ ' ' ~ eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    ChatTemplate.llama3: (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
    ChatTemplate.chatml: (
        "{{ bos_token }}{% for message in messages %}{{ '' if loop.first else '\\n' }}"
        "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}"
    ),
}


def find_template(tokenizer, source: str) -> str:
    """The chat template of a model: its own, or for Keras' built-in instruct presets the one of their family.

    Args:
        tokenizer: of the model.
        source: a built-in id, or the origin of a resolved preset.

    Raises:
        InputError: the model has none, and nothing says which it was trained on.
    """
    if tokenizer.chat_template is not None:
        return tokenizer.chat_template
    if "instruct" in (find_name(source) or ""):
        has_headers = tokenizer.special_id("<|start_header_id|>") is not None
        return BUILT_IN[ChatTemplate.llama3 if has_headers else ChatTemplate.llama2]
    raise InputError(
        Problem(
            "the model has no chat template: it continues text, and was not made for conversations",
            source,
            "no chat_template in its files",
            "use llama-exp generate, choose an instruct model, or put chat_template.jinja into its folder",
        )
    )


def take_template(tokenizer, chat_template: str | None, source: str) -> None:
    """Makes sure that the tokenizer of a run on `dataset.chat_template=model` has the template, which is saved with it.

    Args:
        tokenizer: of the run.
        chat_template: as the config has it; nothing happens under another choice.
        source: see `find_template`.

    Raises:
        InputError: the model has none.
    """
    if chat_template == ChatTemplate.model.value:
        tokenizer.chat_template = find_template(tokenizer, source)
