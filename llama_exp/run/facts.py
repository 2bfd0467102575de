"""What `run.json` and checkpoints say of a run: the machine, the data, the preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_exp import preset, runtime
from llama_exp.config.check.contracts import list_targets
from llama_exp.config.check.typed import TARGET
from llama_exp.config.identity import to_dict
from llama_exp.config.schema import Config
from llama_exp.files.digest import file_digest, text_digest
from llama_exp.run import provenance, sources

# Packages whose version can change the last bits of a result.
SAME_BITS = ("jax", "keras", "llama_exp", "numpy", "tensorflow")


def of_machine(config: Config) -> dict[str, Any]:
    """What the run computes on."""
    from llama_exp import backend

    return {
        "backend": config.runtime.backend.value,
        "device": backend.device_name(),
        "threads": runtime.thread_count(config.runtime.threads),
    }


def of_computation(config: Config, backbone) -> dict[str, Any]:
    """What `runtime.jit` came to for this model, and the files of the user's own classes; all of them are imported."""
    from llama_exp import backend

    nodes = [to_dict(node) for node in list_targets(config).values()]
    return {
        "jit": backend.resolve_jit(config.runtime.jit.value, backbone.compute_dtype)[0],
        "own_modules": sources.list_own_modules([node[TARGET] for node in nodes if TARGET in node]),
    }


def of_weights(backbone) -> dict[str, str]:
    """What summary.json says of the weights that training ended with: a digest of everything that it may change."""
    from llama_exp.backend.digest import weights_digest

    return {"trained": weights_digest(backbone.trainable_variables)}


def of_export(folder: Path) -> dict[str, str]:
    """Likewise of what was exported: file of tensors -> its SHA-256; other files tell when they were written."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".h5", ".safetensors"))
    return {f"{folder.name}/{path.relative_to(folder).as_posix()}": file_digest(path) for path in files}


def of_process(config: Config) -> dict[str, Any]:
    """What must be the same for a resumed run to be the same bits; a checkpoint records it."""
    versions = {name: version for name, version in provenance.package_versions().items() if name in SAME_BITS}
    return {**of_machine(config), **versions}


def of_data(examples, tokenizer) -> dict[str, Any]:
    """What run.json says of the rows of each split and of the tokenizer."""
    return {
        "dataset": {split: {"fingerprint": rows.fingerprint, **rows.facts} for split, rows in examples.items()},
        "tokenizer": {
            "fingerprint": tokenizer.fingerprint,
            "vocabulary_size": tokenizer.vocabulary_size,
            "chat_template": text_digest(getattr(tokenizer, "chat_template", None)),
        },
    }


def of_preset(config: Config, resolved: preset.Resolved | None, digest: str | None) -> dict[str, Any]:
    """What run.json says of the preset; `digest`: of the weights that the model holds, the preset's if there is one."""
    return {
        "source": config.preset.source,
        "path": resolved and str(resolved.path),
        "origin": resolved and resolved.origin,
        "revision": resolved and resolved.revision,
        "digest": resolved and digest,
    }
