"""What lies beside a tokenizer and goes with it from format to format: configs and chat template.

Hugging Face keeps the template in `tokenizer_config.json` (a text, or a list of named ones) or in
`chat_template.jinja`, which wins; `generation_config.json` says which tokens end a text. In KerasHub's presets, which
have no place for them, they lie under Hugging Face's names.

Older files say the same elsewhere. What is read has the newest form: names and added tokens in the content of
`tokenizer_config.json`, ids in that of `generation_config.json`.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.json_file import inside, open_regular, read_json

TOKENIZER_CONFIG, GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"
SPECIAL_TOKENS_MAP, ADDED_TOKENS, MODEL_CONFIG = "special_tokens_map.json", "added_tokens.json", "config.json"
CHAT_TEMPLATE = "chat_template.jinja"
ADDED_TOKENS_DECODER = "added_tokens_decoder"
DEFAULT_TEMPLATE = "default"
MAX_CONFIG_BYTES = 16 << 20  # Llama 3's lists 256 special tokens in 50 KB
MAX_TEMPLATE_BYTES = 1 << 20

logger = logging.getLogger(__name__)


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of `folder`, {} where there is no such file; InputError where it is damaged."""
    path = inside(folder, name)
    return read_json(path, MAX_CONFIG_BYTES) if path.exists() else {}


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """The content of `tokenizer_config.json`, with what older files say beside it.

    As in transformers 5.23: without a list of added tokens, `special_tokens_map.json` wins over it, and
    `added_tokens.json` is that list.
    """
    config = read_config(folder, TOKENIZER_CONFIG)
    if ADDED_TOKENS_DECODER in config:
        if not isinstance(config[ADDED_TOKENS_DECODER], dict):
            found = repr(config[ADDED_TOKENS_DECODER])[:80]
            raise InputError.about(folder / TOKENIZER_CONFIG, f"{ADDED_TOKENS_DECODER} must be an object", found)
        return config
    config |= read_config(folder, SPECIAL_TOKENS_MAP)
    added = read_config(folder, ADDED_TOKENS)
    if bad := next((name for name, id_ in added.items() if type(id_) is not int or id_ < 0), None):
        raise InputError.about(folder / ADDED_TOKENS, "an id must be a whole number", f"{bad!r}: {added[bad]!r}"[:80])
    if added:
        config[ADDED_TOKENS_DECODER] = {str(id_): {"content": name} for name, id_ in added.items()}
    return config


def read_generation_config(folder: Path) -> dict[str, Any]:
    """The content of `generation_config.json`; the ids of `config.json` stand in where there is none, or no end in it.

    transformers takes the ids of `config.json` only where there is no `generation_config.json`, and with one that
    names no end it never stops.
    """
    config = read_config(folder, GENERATION_CONFIG)
    model = read_config(folder, MODEL_CONFIG) if config.get("eos_token_id") is None else {}
    keys = ("eos_token_id",) if config else ("bos_token_id", "eos_token_id", "pad_token_id")
    return {**config, **{key: model[key] for key in keys if model.get(key) is not None}}


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


def with_stops(tokenizer) -> dict[str, Any]:
    """A tokenizer's generation config, in which its stop tokens stand where they would not be found otherwise."""
    config = tokenizer.generation_config
    if config.get("eos_token_id") is not None or set(tokenizer.stop_ids) <= {tokenizer.eos_id}:
        return config
    return {**config, "eos_token_id": list(tokenizer.stop_ids)}


def write_beside_keras_hub(folder: Path, tokenizer, tokenizer_config: dict[str, Any]) -> None:
    """Writes what goes along with a tokenizer in KerasHub's form, which has no place for it.

    Args:
        folder: of the tokenizer.
        tokenizer: whose chat template and generation config they are.
        tokenizer_config: what the form itself says otherwise. A warning tells of what KerasHub will do otherwise, too.
    """
    unread = [f"{key}: {json.dumps(value)}" for key, value in tokenizer_config.items() if key != "pad_token"]
    if unread:
        logger.warning("KerasHub does not read tokenizer_config.json, where this model says %s", ", ".join(unread))
    write(folder, tokenizer.chat_template, tokenizer.generation_config, tokenizer_config)


def write(
    folder: Path,
    chat_template: str | None,
    generation_config: dict[str, Any],
    tokenizer_config: dict[str, Any] | None = None,
) -> None:
    """Writes chat template, generation config and tokenizer config, each where there is something to write."""
    if chat_template is not None:
        (folder / CHAT_TEMPLATE).write_bytes(chat_template.encode("utf-8"))
    for name, content in ((GENERATION_CONFIG, generation_config), (TOKENIZER_CONFIG, tokenizer_config)):
        if content:
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


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
