"""Chat messages as the text a model was trained on, by its own Jinja template. Imports no framework.

A template comes with a model from anywhere and is a program. It runs in a process of its own, which may use a few
seconds and little memory and has nothing to give away: no credentials in its environment, and in Jinja's sandbox only
the messages. What the template sees is what transformers gives it, so the text is the same.
"""

from __future__ import annotations

import datetime
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from llama_exp.errors import InputError, Problem
from llama_exp.limits.dataset import ChatTemplate
from llama_exp.preset import PRESETS

MAX_SECONDS = 3  # of processor time; a template needs milliseconds
MAX_MEMORY_BYTES = 1 << 30  # of address space, the interpreter's own included
MAX_CHARACTERS = 1 << 22

# As `dataset.chat` renders them, for models whose files have no template.
BUILT_IN = {
    ChatTemplate.llama2: (
        "{% set found = namespace(system='') %}"
        "{% for message in messages %}"
        "{% if message.role == 'system' %}"
        "{% set found.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' %}"
        "{% elif message.role == 'user' %}"
        "{{ bos_token + '[INST] ' + (found.system + message.content) | trim + ' [/INST]' }}"
        "{% set found.system = '' %}"
        "{% else %}{{ ' ' + message.content | trim + ' ' + eos_token }}{% endif %}"
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
    origins = {preset.handle.rpartition("/")[0]: name for name, preset in PRESETS.items()}  # without the version
    name = source if source in PRESETS else origins.get(source, "")
    if "instruct" in name:
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


def render(
    messages: Sequence[Mapping[str, str]],
    template: str,
    *,
    add_generation_prompt: bool = True,
    bos_token: str = "",
    eos_token: str = "",
) -> str:
    """The text of a conversation, special tokens written out.

    Args:
        messages: `{"role": ..., "content": ...}` each; roles are system, user, assistant.
        template: Jinja text.
        add_generation_prompt: ends with what announces the assistant's turn.
        bos_token: what the template writes for it.
        eos_token: likewise.

    Raises:
        InputError: the template is wrong, refuses the conversation, or takes too much time, memory or text.
    """
    request = {
        "template": template,
        "messages": [dict(message) for message in messages],
        "variables": {"add_generation_prompt": add_generation_prompt, "bos_token": bos_token, "eos_token": eos_token},
    }
    command = [sys.executable, "-I", "-c", _CHILD, str(Path(__file__).parents[2]), *filter(None, sys.path)]
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=4 * MAX_SECONDS,
            env=kept,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _refusal("the chat template takes too long", f"more than {4 * MAX_SECONDS} s") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        found = f"exit code {done.returncode}" + (f": {lines[-1][:200]}" if lines else "")
        limits = f"{MAX_SECONDS} s, {MAX_MEMORY_BYTES >> 20} MiB, {MAX_CHARACTERS} characters"
        raise _refusal(f"the chat template broke off; its limits are {limits}", found)
    answer = json.loads(done.stdout)
    if "text" not in answer:
        raise _refusal(answer["what"], answer["found"])
    return answer["text"]


# The child finds packages where the parent does, and nowhere else: not in the working directory.
_CHILD = "import sys; sys.path[:0] = sys.argv[1:]; from llama_exp.tokenizer.chat_template import serve; serve()"


def serve() -> None:
    """Renders one request from standard input, as JSON, to standard output: the process that `render` starts."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)


def _answer(request: Mapping) -> dict[str, str]:
    """The text, or what is wrong."""
    import jinja2

    try:
        text = (
            _environment().from_string(request["template"]).render(messages=request["messages"], **request["variables"])
        )
    except jinja2.TemplateSyntaxError as error:
        return {"what": "the chat template is not valid Jinja", "found": f"line {error.lineno}: {error.message}"}
    except jinja2.sandbox.SecurityError as error:
        return {"what": "the chat template does what templates must not", "found": str(error)[:300]}
    except jinja2.TemplateError as error:
        return {"what": "the chat template refuses the conversation", "found": str(error)[:300]}
    except MemoryError:
        return {"what": "the chat template takes too much memory", "found": f"more than {MAX_MEMORY_BYTES >> 20} MiB"}
    except Exception as error:  # a template may make Python raise anything: an index, a type, a range too large
        return {"what": "the chat template fails", "found": f"{type(error).__name__}: {error}"[:300]}
    if len(text) > MAX_CHARACTERS:
        return {"what": "the chat template writes too much", "found": f"{len(text)} characters, limit {MAX_CHARACTERS}"}
    return {"text": text}


def _environment():
    """Jinja with what transformers offers to templates."""
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks the assistant's words for training; the text is the same without it."""

        tags = {"generation"}

        def parse(self, parser):
            parser.stream.skip()
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _refusal(what: str, found: str) -> InputError:
    action = "check the messages; or put another chat_template.jinja into the model's folder"
    return InputError.about("chat template", what, found, action)
