"""A Modelfile, by which Ollama serves a GGUF file: `ollama create <name> -f Modelfile`.

Ollama writes conversations by a template in Go's language. The three forms of `dataset.chat_template` have one here.
Another model's own template is not translated: a wrong one would be worse than none, and Ollama knows many by itself.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from llama_exp.limits.dataset import ChatTemplate
from llama_exp.tokenizer.chat_template import BUILT_IN
from llama_exp.tokenizer.ends import TURN_ENDS

# Longer contexts cost memory from the first word on; a person who needs more says so.
MAX_CONTEXT = 8192
_CONTINUES = "{{ .Prompt }}"
# `dataset.chat.built_in` in Go's language, up to where the assistant answers. BEGIN: the begin token, where the server
# itself puts none in front; AGAIN: the begin token of later turns.
_GO = {
    ChatTemplate.chatml: (
        "BEGIN{{ range $i, $message := .Messages }}{{ if $i }}\n{{ end }}"
        "<|im_start|>{{ $message.Role }}\n{{ $message.Content }}<|im_end|>{{ end }}\n"
        "<|im_start|>assistant\n"
    ),
    ChatTemplate.llama3: (
        "BEGIN{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n"
        "{{ .Content }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    ChatTemplate.llama2: (
        'BEGIN{{ $system := "" }}{{ $later := false }}{{ range .Messages }}'
        '{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}{{ if $later }}AGAIN{{ end }}{{ $later = true }}'
        "[INST] {{ if $system }}<<SYS>>\n{{ $system }}\n<</SYS>>\n\n{{ end }}"
        '{{ $system = "" }}{{ .Content }} [/INST]'
        "{{ else }} {{ .Content }} END{{ end }}{{ end }}"
    ),
}


class Served(NamedTuple):
    """What Ollama is told of a model.

    file: name of the GGUF file beside the Modelfile. context_length: tokens that the model is meant for. temperature:
    None: Ollama's own.
    """

    file: str
    context_length: int
    temperature: float | None


def write(tokenizer, served: Served) -> str:
    """The text of a Modelfile.

    Args:
        tokenizer: of the model; None: it has none.
        served: what else there is to say.
    """
    name = None if tokenizer is None else _built_in(tokenizer)
    lines = ["# ollama create <a name> -f Modelfile", f"FROM ./{served.file}", "", *_template(tokenizer, name), ""]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in _stops(tokenizer, name)]
    num_ctx = min(served.context_length, MAX_CONTEXT)
    if num_ctx < served.context_length:
        lines.append(f"# The model is meant for {served.context_length} tokens, which take memory for as many.")
    lines.append(f"PARAMETER num_ctx {num_ctx}")
    temperature = _temperature(tokenizer) if served.temperature is None else served.temperature
    if temperature is not None:
        lines.append(f"PARAMETER temperature {temperature:g}")
    return "\n".join(lines) + "\n"


def _built_in(tokenizer) -> ChatTemplate | None:
    """Which of our own templates the model has; None: none of them."""
    return next((name for name, text in BUILT_IN.items() if text == tokenizer.chat_template), None)


def _template(tokenizer, name: ChatTemplate | None) -> list[str]:
    if name is not None:
        names = {key: value or "" for key, value in tokenizer.ends_by_name().items()}
        begin = "" if tokenizer.begin_id is not None else names["bos_token"]
        text = _GO[name].replace("BEGIN", begin).replace("AGAIN", names["bos_token"])
        return [f'TEMPLATE """{text.replace("END", names["eos_token"])}"""']
    if tokenizer is None or tokenizer.chat_template is None:
        return ["# The model has no chat template: it continues text.", f'TEMPLATE """{_CONTINUES}"""']
    return [
        "# The model's own chat template is in the GGUF file, in Jinja's language. Ollama writes conversations by a",
        "# template in Go's: it takes its own where it knows this one, which `ollama show --template` shows. If that",
        "# is not the model's form, write it here as TEMPLATE.",
    ]


def _stops(tokenizer, name: ChatTemplate | None) -> list[str]:
    """The texts that end an answer."""
    if tokenizer is None:
        return []
    texts = [tokenizer.decode([id_], skip_special_tokens=False) for id_ in tokenizer.stop_ids]
    turn_end = None if name is None else TURN_ENDS.get(name)
    return list(dict.fromkeys([text for text in (*texts, turn_end) if text]))


def _temperature(tokenizer) -> float | None:
    """As the model's generation config has it."""
    found = None if tokenizer is None else tokenizer.generation_config.get("temperature")
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
