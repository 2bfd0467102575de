"""The process in which chat templates run. Imports no framework.

A template comes with a model from anywhere and is a program. It runs in a process of its own, which may use a few
seconds and little memory and has nothing to give away: no credentials in its environment, and in Jinja's sandbox only
the messages. `worker` is what runs there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError

MAX_SECONDS = 3  # of processor time; a template needs milliseconds
MAX_SECONDS_EACH = 0.1  # more for each conversation of a request
MAX_MEMORY_BYTES = 1 << 30  # of address space, the interpreter's own included
MAX_CHARACTERS = 1 << 22  # of one text

# The child finds packages where the parent does, and nowhere else: not in the working directory.
_CHILD = "import sys; sys.path[:0] = sys.argv[1:]; from llama_exp.dataset.chat.worker import serve; serve()"
_ACTION = "check the messages; or put another chat_template.jinja into the model's folder"


def render(
    messages: Sequence[Mapping[str, Any]],
    template: str,
    *,
    add_generation_prompt: bool = True,
    bos_token: str | None = None,
    eos_token: str | None = None,
    **variables: Any,
) -> str:
    """The text of a conversation as transformers' `apply_chat_template` gives it, special tokens written out.

    Args:
        messages: `{"role": ..., "content": ...}` each; keys whose value is None are not there.
        template: Jinja text.
        add_generation_prompt: ends with what announces the assistant's turn.
        bos_token: what the template writes for it; None: the model has none, and the template sees none.
        eos_token: likewise.
        **variables: what else the template sees; `tools` and `documents` are None where they are not given.

    Raises:
        InputError: the template is wrong, refuses the conversation, or takes too much time, memory or text.
    """
    tokens = {"bos_token": bos_token, "eos_token": eos_token}
    shared = {
        "add_generation_prompt": add_generation_prompt,
        **{name: token for name, token in tokens.items() if token is not None},
        **variables,
    }
    (answer,) = run({"template": template, "variables": shared, "conversations": [{"messages": list(messages)}]})
    if "text" not in answer:
        raise refusal(answer["what"], answer["found"])
    return answer["text"]


def run(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answers of a process of its own to a request; `worker.answer` says what both are.

    Raises:
        InputError: the process broke off or took too long.
    """
    seconds = MAX_SECONDS + round(MAX_SECONDS_EACH * len(request["conversations"]))
    limits = {"seconds": seconds, "memory_bytes": MAX_MEMORY_BYTES, "characters": MAX_CHARACTERS}
    command = [sys.executable, "-I", "-c", _CHILD, str(Path(__file__).parents[3]), *filter(None, sys.path)]
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    try:
        done = subprocess.run(
            command,
            input=json.dumps({**request, "limits": limits}).encode(),
            capture_output=True,
            timeout=4 * seconds,
            env=kept,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise refusal("the chat template takes too long", f"more than {4 * seconds} s") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        found = f"exit code {done.returncode}" + (f": {lines[-1][:200]}" if lines else "")
        stated = f"{seconds} s, {MAX_MEMORY_BYTES >> 20} MiB, {MAX_CHARACTERS} characters"
        raise refusal(f"the chat template broke off; its limits are {stated}", found)
    return json.loads(done.stdout)


def refusal(what: str, found: str, action: str = _ACTION, where: str = "chat template") -> InputError:
    """The error about a template, or about a conversation that it refuses."""
    return InputError.about(where, what, found, action)
