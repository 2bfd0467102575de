"""The model card of an exported folder: `README.md` with the YAML head that the Hugging Face Hub reads.

It says what is known, each with where it comes from, and claims nothing else: no licence, language or limit that no
file states. Whoever loads the folder does not read it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from llama_exp.files.writing import write_text
from llama_exp.results import RunResult, find_figure, load_run
from llama_exp.run import figures

CARD = "README.md"
HUGGING_FACE = "hf://"
_LIBRARIES = {"peft": "peft", "keras_hub": "keras-hub", "hf": "transformers", "gguf": "gguf"}
_FORM_NAMES = {
    "peft": "PEFT adapter",
    "keras_hub": "KerasHub preset",
    "hf": "Hugging Face checkpoint (transformers)",
    "gguf": "GGUF file (llama.cpp, Ollama)",
}
_VERSIONS = ("llama_exp", "keras", "jax", "tensorflow", "numpy")
_LORA_FACTS = ("rank", "alpha", "targets", "use_dora", "use_rslora")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclasses.dataclass(frozen=True)
class Base:
    """What a model was made from.

    Attributes:
        origin: as `preset.Resolved` has it.
        revision: likewise.
        digest: of its weights as they were read; None: not known.
        licence: as its own files state it; None: they do not.
        has_card: whether a card of its own lies beside it.
    """

    origin: str
    revision: str | None = None
    digest: str | None = None
    licence: str | None = None
    has_card: bool = False

    @property
    def name(self) -> str:
        """For people who have another disk: a repository's whole name, of a path its last part."""
        return self.origin if "://" in self.origin else Path(self.origin).name

    @property
    def hub_name(self) -> str | None:
        """user/repo on Hugging Face; None: it does not come from there."""
        repository = self.origin.removeprefix(HUGGING_FACE)
        return repository if repository != self.origin and _HUB_NAME.fullmatch(repository) else None


@dataclasses.dataclass(frozen=True)
class Card:
    """What a card is written from.

    Attributes:
        format: key of `_LIBRARIES`.
        weights: how they are stored, such as bfloat16 or Q8_0; empty: not known.
        base: None: it was trained from random weights.
        run: that trained it; None: no run of this package did.
        command: that wrote the folder; None: the run did, at its end.
        file: name of the GGUF file; None: another format.
        changes_values: whether weights were rounded on the way, with nothing trained.
        adapter: name of an adapter of elsewhere that is in the weights; None: there is none.
    """

    format: str
    weights: str
    base: Base | None
    run: RunResult | None = None
    command: str | None = None
    file: str | None = None
    changes_values: bool = False
    adapter: str | None = None


def write_of_run(folder: Path, run_folder: Path, exported: str, told: Mapping[str, Any]) -> None:
    """Writes the card of what a run leaves.

    Args:
        folder: `adapter/` or `model/` of the run.
        run_folder: of the run, whose record and rows are on the disk.
        exported: format: peft or keras_hub.
        told: what its summary will say beside what the rows say.

    Raises:
        StorageError: it cannot be written.
        InputError: the run's own record is damaged.
    """
    run = load_run(run_folder)
    run = dataclasses.replace(run, summary={**run.summary, **told})
    policy = str(run.values.get("precision.policy") or "")
    weights = "float32" if policy.startswith("mixed") else policy
    write_card(folder, Card(exported, weights, base_of(run), run), folder.name)


def write_card(folder: Path, card: Card, name: str) -> None:
    """Writes `README.md` into a folder, which will be called `name`; raises `StorageError`."""
    write_text(folder / CARD, render(card, name))


def base_of(run: RunResult) -> Base | None:
    """What a run started from; None: from random weights."""
    found = run.record.get("preset")
    preset: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    if not isinstance(preset.get("origin"), str) or run.values.get("preset.load_weights") is False:
        return None
    revision, digest = (text if isinstance(text, str) else None for text in map(preset.get, ("revision", "digest")))
    return Base(preset["origin"], revision, digest)


def render(card: Card, folder: str) -> str:
    """The text of a card.

    Args:
        card: what there is to say.
        folder: name of the folder, for the lines that load it.
    """
    head = yaml.safe_dump(_head(card), sort_keys=False, allow_unicode=True)
    sections = [f"---\n{head}---\n", f"# {_title(card)}\n", _what(card), _loading(card, folder)]
    if card.base is not None:
        sections.append(_section("Base", _base_rows(card.base)))
    if card.run is not None:
        sections += [_data(card.run), _figures(card.run)]
    sections.append(_section("How it was made", _making(card)))
    sections.append(
        "## What is not stated\n\nThis card holds what the files and the run's record say. Nothing else was measured: "
        "no other use, language, bias or limit was looked at, and none is claimed.\n"
    )
    return "\n".join(section for section in sections if section)


def _head(card: Card) -> dict[str, Any]:
    head: dict[str, Any] = {}
    if card.base is not None and card.base.hub_name is not None:
        head["base_model"] = card.base.hub_name
        relation = _relation(card)
        if relation is not None:
            head["base_model_relation"] = relation
    head["library_name"] = _LIBRARIES[card.format]
    if card.run is None and card.base is not None and card.base.licence is not None:
        head["license"] = card.base.licence  # the same weights; what was trained may have another
    tags = ["llama", "llama_exp", *(["lora"] if _has_adapter(card) else []), card.format.replace("_", "-")]
    return head | {"pipeline_tag": "text-generation", "tags": tags}


def _relation(card: Card) -> str | None:
    """The Hub's word for what was done to the base; None where it has none: nothing was."""
    if card.format == "peft":
        return "adapter"
    if card.run is not None or card.adapter is not None:
        return "finetune"
    return "quantized" if card.changes_values or card.format == "gguf" else None


def _has_adapter(card: Card) -> bool:
    return card.run is not None and (card.run.folder / "adapter").is_dir()


def _title(card: Card) -> str:
    if card.run is not None:
        return f"{card.run.values.get('name') or card.run.folder.name}: {_FORM_NAMES[card.format]}"
    return f"{'model' if card.base is None else Path(card.base.name).name}: {_FORM_NAMES[card.format]}"


def _what(card: Card) -> str:
    """One paragraph: what this is."""
    base = "random weights" if card.base is None else f"`{card.base.name}`"
    if card.format == "peft":
        made = f"A LoRA adapter for {base}, trained with llama_exp."
    elif _has_adapter(card):
        made = f"{base} with the LoRA adapter of a run of llama_exp in its weights."
    elif card.adapter is not None:
        made = f"{base} with the adapter `{_cell(card.adapter)}` in its weights, put there by llama_exp."
    elif card.run is not None:
        made = f"A Llama that llama_exp trained, from {base} on."
    else:
        made = f"{base} in another format, written by llama_exp. Nothing was trained."
    return made + (f" Weights: {card.weights}." if card.weights else "") + "\n"


def _loading(card: Card, folder: str) -> str:
    """The lines that load it."""
    base = "<the base>" if card.base is None else card.base.hub_name or "<the base, see below>"
    code = {
        "peft": f"""from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{folder}")""",
        "keras_hub": f"""from llama_exp.models import LlamaCausalLM

model = LlamaCausalLM.from_preset("{folder}")  # keras_hub.models.CausalLM.from_preset reads the folder, too""",
        "hf": f"""from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
        "gguf": f"""llama-cli -m {card.file}                          # llama.cpp
ollama create {folder.lower()} -f Modelfile && ollama run {folder.lower()}""",
    }[card.format]
    language = "bash" if card.format == "gguf" else "python"
    return f"## How to load it\n\n```{language}\n{code}\n```\n"


def _base_rows(base: Base) -> Iterator[tuple[str, str]]:
    yield "model", f"[{base.hub_name}](https://huggingface.co/{base.hub_name})" if base.hub_name else f"`{base.name}`"
    if base.revision is not None:
        yield "revision", f"`{base.revision}`"
    if base.digest is not None:
        yield "digest of its weights", f"`{base.digest}`"
    if base.licence is not None:
        yield "licence, as its files say", base.licence
    if base.has_card:
        yield "its own card", f"{CARD} of `{base.name}`, which is not repeated here"


def _data(run: RunResult) -> str:
    splits = run.record.get("dataset")
    if not isinstance(splits, Mapping):
        return ""
    lines = ["| split | documents | rows | tokens | fingerprint |", "|---|---:|---:|---:|---|"]
    for split, facts in splits.items():
        if isinstance(facts, Mapping):
            counts = " | ".join(_shown(facts.get(key)) for key in ("documents", "rows", "tokens"))
            lines.append(f"| {_cell(split)} | {counts} | `{_cell(facts.get('fingerprint'))}` |")
    target = str(run.values.get("dataset._target_", "")).rpartition(".")[2]
    return f"## Training data\n\nRead by `{_cell(target)}`.\n\n" + "\n".join(lines) + "\n"


def _figures(run: RunResult) -> str:
    summary = figures.figures(run.rows)
    validation = {**summary.get("validation", {}), **(run.summary.get("validation") or {})}
    summary = {**summary, **run.summary, "validation": validation}
    run = dataclasses.replace(run, summary=summary)
    rows = [
        ("steps", _shown(summary.get("steps"))),
        ("tokens", _shown(summary.get("tokens"))),
        ("training loss, last", _shown(find_figure(run, "train_loss"))),
        ("validation loss", _shown(_first_figure(run, "validation.loss", "validation.last"))),
        ("validation perplexity", _shown(find_figure(run, "validation.perplexity"))),
    ]
    text = _section("Figures", [row for row in rows if row[1]])
    return text + _evaluations(run)


def _first_figure(run: RunResult, *names: str) -> float | None:
    return next((value for name in names if (value := find_figure(run, name)) is not None), None)


def _evaluations(run: RunResult) -> str:
    """The row of each evaluation that was made with the weights that are here, or else its last one."""
    step = run.summary.get("exported_step")
    last = {str(row["name"]): row for row in run.evaluations}
    last |= {str(row["name"]): row for row in run.evaluations if row.get("step") == step}
    if not last:
        return ""
    lines = ["", "| evaluation | figures | items | fingerprint |", "|---|---|---:|---|"]
    for name, row in last.items():
        known = {"step", "name", "kind", "items", "tokens", "seconds", "fingerprint", "file"}
        found = ", ".join(f"{_cell(key)} {_shown(value)}" for key, value in row.items() if key not in known)
        lines.append(f"| {_cell(name)} | {found} | {_shown(row.get('items'))} | `{_cell(row.get('fingerprint'))}` |")
    return "\n".join(lines) + "\n"


def _making(card: Card) -> Iterator[tuple[str, str]]:
    if card.run is not None:
        record = card.run.record
        if card.run.command:
            yield "trained by", f"`{_cell(_without_home(card.run.command))}`"
        known = ("config_hash", "seed", "backend", "device")
        yield from ((key.replace("_", " "), f"`{_cell(record[key])}`") for key in known if key in record)
        lora = ((key, card.run.values.get(f"lora.{key}")) for key in _LORA_FACTS)
        stated = ", ".join(f"{key} {_cell(value)}" for key, value in lora if value is not None)
        if _has_adapter(card) and stated:
            yield "adapter", stated
        packages = record.get("packages")
        if isinstance(packages, Mapping):
            versions = (f"{name} {packages[name]}" for name in _VERSIONS if packages.get(name))
            yield "versions", _cell(", ".join(versions))
    if card.command is not None:
        yield "written by", f"`{_cell(_without_home(card.command))}`"


def _section(title: str, rows) -> str:
    lines = [f"| {label} | {text} |" for label, text in rows]
    return "\n".join([f"## {title}\n", "| | |", "|---|---|", *lines]) + "\n" if lines else ""


def _shown(value: Any) -> str:
    """A number for people; nothing for what is not known."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _cell(value)


def _cell(value: Any) -> str:
    """On one line, without what ends a cell."""
    return " ".join(str(value).replace("|", "\\|").replace("`", "'").split())


def _without_home(command: str) -> str:
    return command.replace(str(Path.home()), "~")
