"""What a command's SRC means: a preset, a folder, a file, or a run of ours with its adapter. Imports no framework.

A run's `config.yaml` and `run.json` are data here: nothing in them is built or imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_exp import preset
from llama_exp.architecture import CONFIG_KEYS
from llama_exp.config.quoting import plain_or_quoted
from llama_exp.errors import InputError, Problem
from llama_exp.files.json_file import MAX_RECORD_BYTES, inside, read_json
from llama_exp.files.latest import without_latest
from llama_exp.files.yaml_file import read_yaml
from llama_exp.formats import open_checkpoint
from llama_exp.formats.checkpoint import SCALING, Checkpoint, match_architecture
from llama_exp.limits import name_choices
from llama_exp.limits.dataset import ChatTemplate
from llama_exp.tokenizer.chat_template import BUILT_IN

OUR_MODEL = "llama_exp.models.LlamaBackbone"


@dataclass(frozen=True)
class Source:
    """A model to read.

    Attributes:
        path: folder or .gguf file of the model.
        origin: as `preset.Resolved` has it.
        adapter: folder or file of adapters to put on top; None: none.
        stated: constructor arguments that a run gave its model; {} without a run.
        policy: dtype policy that a run trained under; None: not known.
        quantization: a run's `quantization` section; None: not known.
        chat_template: Jinja text that a run's conversations were written with; None: not known.
        temperature: that a run's samples were drawn with; None: not known.
        sequence_length: tokens of the rows that a run trained on; None: not known.
        run: folder of the run that made it; None: no run did.
        revision: of `origin`, as `preset.Resolved` has it.
    """

    path: Path
    origin: str
    adapter: Path | None = None
    stated: Mapping | None = None
    policy: str | None = None
    quantization: Mapping | None = None
    chat_template: str | None = None
    temperature: float | None = None
    sequence_length: int | None = None
    run: Path | None = None
    revision: str | None = None


def find(source: str, adapter: str | None = None, offline: bool = False, where: str = "SRC") -> Source:
    """The model that `source` names, downloaded if need be.

    Args:
        source: a built-in preset, `kaggle://...`, `hf://...`, a folder, a `.gguf` file, or a run's folder.
        adapter: adapters of another place, on top of it; None: the run's own, if it is a run.
        offline: ask no server.
        where: the argument that names it, for messages.

    Raises:
        InputError: there is no such model, or the run has left none.
    """
    source, adapter = without_latest(source), None if adapter is None else without_latest(adapter)
    folder = Path(source).expanduser()
    if _is_run(folder):
        return _of_run(folder, adapter, offline)
    resolved = preset.resolve(source, offline=offline, where=where)
    # A run's own model/: its conversations' template is written in the run beside it.
    run = folder.parent if folder.name == "model" and _is_run(folder.parent) else None
    config = {} if run is None else _run_config(run)
    return Source(
        resolved.path,
        source if source in preset.PRESETS else resolved.origin,
        None if adapter is None else Path(adapter).expanduser(),
        chat_template=_chat_template(config),
        temperature=_temperature(config),
        sequence_length=_sequence_length(config),
        run=run,
        revision=resolved.revision,
    )


def load_tokenizer(source: Source):
    """The tokenizer of a source, with the stop tokens and the chat template that a run taught it; None: it has none.

    Raises:
        InputError: it is damaged, or of a kind that is not supported.
    """
    from llama_exp.tokenizer import assets
    from llama_exp.tokenizer.ends import stop_where_taught

    if not assets.has_tokenizer(source.path):
        return None
    tokenizer = assets.load(source.path)
    if source.adapter is not None:
        written = [name for name, text in BUILT_IN.items() if text == source.chat_template]
        stop_where_taught(tokenizer, written[0] if written else None)
    if source.chat_template is not None:
        tokenizer.chat_template = source.chat_template
    return tokenizer


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Checkpoint]:
    """The model of a source without its adapter, with the constructor arguments that a run gave it.

    Raises:
        InputError: the model is damaged, or not the one that the run started from.
    """
    with open_checkpoint(source.path) as checkpoint:
        stated = source.stated or {}
        checkpoint = match_architecture(checkpoint, stated)
        config, length = {**checkpoint.config, **stated}, checkpoint.context_length
        if length is not None:  # a run that stretched the positions made the model for more
            length = int(length * config[SCALING] / checkpoint.config[SCALING])
        yield dataclasses.replace(checkpoint, config=config, context_length=length)


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file() and (folder / "config.yaml").is_file()


def _of_run(folder: Path, adapter: str | None, offline: bool) -> Source:
    if (folder / "model").is_dir():
        return find(str(folder / "model"), adapter, offline)
    if not (folder / "adapter").is_dir():
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        action = f"finish it first: llama-exp train ... {shlex.quote(f'resume={plain_or_quoted(str(folder))}')}"
        raise InputError(Problem("the run has left no adapter/ and no model/", str(folder), names, action))
    if adapter is not None:
        action = "name the run's preset as the source to put other adapters on it"
        raise InputError(Problem("the run has adapters of its own", str(folder), f"--adapter {adapter}", action))
    config = _run_config(folder)
    resolved = preset.resolve(_preset_of(folder, config), offline=offline)
    quantization = config.get("quantization")
    return Source(
        resolved.path,
        resolved.origin,
        folder / "adapter",
        _stated(folder, config),
        (config.get("precision") or {}).get("policy"),
        quantization if isinstance(quantization, dict) else None,
        _chat_template(config),
        _temperature(config),
        _sequence_length(config),
        folder,
        resolved.revision,
    )


def _run_config(folder: Path) -> dict:
    """A run's config as plain data."""
    config = read_yaml(folder, "config.yaml")
    sections = ("preset", "model", "precision", "dataset")
    if not all(isinstance(config.get(name), dict) for name in sections):
        found = f"a mapping without sections {', '.join(sections)}"
        what, where = "the run's config cannot be read", str(folder / "config.yaml")
        raise InputError(Problem(what, where, found, "restore the file"))
    return config


def _preset_of(folder: Path, config: Mapping) -> str:
    """The source of the run's base weights, with the revision that the run had."""
    if config["preset"].get("source") is None or not config["preset"].get("load_weights", True):
        what = "the run trained its adapter on random weights, which are kept nowhere"
        action = "its adapter is of no use elsewhere; train on a preset, or without adapters (lora.rank=0)"
        raise InputError(Problem(what, str(folder), "preset.source=null", action))
    source = str(config["preset"]["source"])
    recorded = read_json(inside(folder, "run.json"), MAX_RECORD_BYTES).get("preset")
    facts = recorded if isinstance(recorded, dict) else {}
    return preset.at_revision(source, facts.get("origin"), facts.get("revision"))


def _stated(folder: Path, config: Mapping) -> dict:
    if config["model"].get("_target_") != OUR_MODEL:
        found = str(config["model"].get("_target_"))[:80]
        raise InputError(
            Problem("the run's model is a class of its own", str(folder), found, f"only {OUR_MODEL} can be")
        )
    return {key: value for key, value in config["model"].items() if key in CONFIG_KEYS}


def _chat_template(config: Mapping) -> str | None:
    name = (config.get("dataset") or {}).get("chat_template")
    return BUILT_IN.get(ChatTemplate(name)) if name in name_choices(ChatTemplate) else None  # model: its own


def _sequence_length(config: Mapping) -> int | None:
    length = (config.get("dataset") or {}).get("sequence_length")
    return length if isinstance(length, int) and not isinstance(length, bool) and length > 0 else None


def _temperature(config: Mapping) -> float | None:
    section = config.get("trainer")
    temperature = section.get("sample_temperature") if isinstance(section, dict) else None
    return float(temperature) if isinstance(temperature, int | float) else None
