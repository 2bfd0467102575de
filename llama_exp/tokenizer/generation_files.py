"""What lies beside a tokenizer and goes with it from format to format: chat template and generation config.

Hugging Face keeps the template in `tokenizer_config.json` (a text, or a list of named ones) or in
`chat_template.jinja`, which wins; `generation_config.json` says which tokens end a text. In KerasHub's presets, which
have a place for neither, both lie under Hugging Face's names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.json_file import inside, open_regular, read_json

TOKENIZER_CONFIG, GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
DEFAULT_TEMPLATE = "default"
MAX_CONFIG_BYTES = 16 << 20  # Llama 3's lists 256 special tokens in 50 KB
MAX_TEMPLATE_BYTES = 1 << 20


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of `folder`, {} where there is no such file; InputError where it is damaged."""
    path = inside(folder, name)
    return read_json(path, MAX_CONFIG_BYTES) if path.exists() else {}


def read_chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> str | None:
    """The chat template of a folder, None where it has none.

    Args:
        folder: of the model.
        tokenizer_config: what its `tokenizer_config.json` says.

    Raises:
        InputError: the template is too large, no text, or there are several and none is called `default`.
    """
    path = inside(folder, CHAT_TEMPLATE)
    if path.exists():
        try:
            return read_bytes(path, MAX_TEMPLATE_BYTES).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError.about(
                path, "the chat template is not UTF-8 text", str(error), "export the model again"
            ) from None
    try:
        return read_template(tokenizer_config)
    except ValueError as error:
        where = folder / TOKENIZER_CONFIG
        raise InputError.about(
            where, "the chat template cannot be used", str(error), f"write it to {CHAT_TEMPLATE}"
        ) from None


def read_template(tokenizer_config: dict[str, Any]) -> str | None:
    """The chat template in a `tokenizer_config.json`; ValueError where it is in no known form."""
    found = tokenizer_config.get("chat_template")
    if isinstance(found, list):
        try:
            named = {entry["name"]: entry["template"] for entry in found}
        except (TypeError, KeyError):
            raise ValueError("chat_template is a list of something else than name and template") from None
        if DEFAULT_TEMPLATE not in named:
            raise ValueError(f"chat_template has {sorted(map(str, named))}, none called {DEFAULT_TEMPLATE!r}")
        found = named[DEFAULT_TEMPLATE]
    if not isinstance(found, str | None):
        raise ValueError(f"chat_template is no text: {type(found).__name__}")
    if found is not None and len(found) > MAX_TEMPLATE_BYTES:
        raise ValueError(f"chat_template has {len(found)} characters, limit {MAX_TEMPLATE_BYTES}")
    return found


def read_ids(generation_config: dict[str, Any], key: str, vocabulary_size: int) -> list[int]:
    """The token ids of an entry such as `eos_token_id`, which may be one, a list or missing.

    Raises:
        ValueError: it is neither, or an id is outside of the vocabulary.
    """
    found = generation_config.get(key)
    ids = found if isinstance(found, list) else [] if found is None else [found]
    for id_ in ids:
        if not isinstance(id_, int) or isinstance(id_, bool) or not 0 <= id_ < vocabulary_size:
            raise ValueError(f"{GENERATION_CONFIG}: {key} {id_!r} is no id of a vocabulary of {vocabulary_size}")
    return ids


def write(folder: Path, chat_template: str | None, generation_config: dict[str, Any]) -> None:
    """Writes `chat_template.jinja` and `generation_config.json`, each where there is something to write."""
    if chat_template is not None:
        (folder / CHAT_TEMPLATE).write_bytes(chat_template.encode("utf-8"))
    if generation_config:
        (folder / GENERATION_CONFIG).write_text(json.dumps(generation_config, indent=2), encoding="utf-8")


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The content of an ordinary file; InputError where it cannot be read or is larger."""
    with open_regular(path) as file:
        try:
            content = file.read(max_bytes + 1)
        except OSError as error:
            raise InputError.about(
                path, "the file cannot be read", error.strerror or str(error), "check the disk"
            ) from error
    if len(content) > max_bytes:
        found = f"more than {max_bytes} bytes"
        raise InputError.about(path, "the file is too large for what it holds", found, "download or export it again")
    return content
