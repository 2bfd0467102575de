"""The name that somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What other tools call our keys; no spelling distance would find these.
SYNONYMS = {
    "lr": "optimizer.learning_rate",
    "wd": "optimizer.weight_decay",
    "betas": "optimizer.beta_1",
    "max_grad_norm": "optimizer.global_clipnorm",
    "grad_clip": "optimizer.global_clipnorm",
    "epochs": "trainer.max_steps",
    "num_epochs": "trainer.max_steps",
    "steps": "trainer.max_steps",
    "gradient_accumulation_steps": "trainer.accumulation_steps",
    "gradient_checkpointing": "trainer.remat",
    "eval_steps": "trainer.validate_every_steps",
    "save_steps": "trainer.checkpoint_every_steps",
    "save_total_limit": "trainer.keep_checkpoints",
    "seq_len": "dataset.sequence_length",
    "max_length": "dataset.sequence_length",
    "max_seq_length": "dataset.sequence_length",
    "r": "lora.rank",
    "lora_rank": "lora.rank",
    "lora_r": "lora.rank",
    "lora_alpha": "lora.alpha",
    "target_modules": "lora.targets",
    "dora": "lora.use_dora",
    "ranks": "lora.rank_pattern",
    "alphas": "lora.alpha_pattern",
    "adapter": "lora.source",
    "dtype": "precision.policy",
    "bf16": "precision.policy",
    "load_in_8bit": "quantization.mode",
    "load_in_4bit": "quantization.mode",
    "bits": "quantization.mode",
    "block_size": "quantization.group_size",
    "device": "runtime.backend",
    "vocab_size": "model.vocabulary_size",
    "hidden_size": "model.hidden_dim",
    "intermediate_size": "model.intermediate_dim",
    "num_hidden_layers": "model.num_layers",
    "num_attention_heads": "model.num_query_heads",
    "rope_theta": "model.rope_max_wavelength",
    "rms_norm_eps": "model.layer_norm_epsilon",
    "rope_scaling_factor": "model.rope_position_scaling_factor",
    "random_seed": "seed",
}
CUTOFF = 0.6


def find_nearest_name(name: str, names: Iterable[str]) -> str | None:
    """The most similar of `names`, or None if none is similar."""
    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=CUTOFF)
    return matches[0] if matches else None


def _ratio(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def find_nearest_key(key: str, keys: Iterable[str]) -> str | None:
    """The dotted path of `keys` that `key` most probably stands for: same section first, then same last name."""
    keys = list(keys)
    section, _, leaf = key.rpartition(".")
    synonym = SYNONYMS.get(leaf)
    if synonym in keys:
        return synonym

    def likeness(candidate: str) -> float:
        candidate_section, _, candidate_leaf = candidate.rpartition(".")
        by_leaf = _ratio(leaf, candidate_leaf)
        if candidate_section != section:
            # A wrong or missing section costs little; one that is merely misspelt costs less.
            by_leaf *= 0.85 + 0.1 * _ratio(section, candidate_section)
        return by_leaf

    best = max(keys, key=likeness, default=None)
    return best if best is not None and likeness(best) >= CUTOFF else None


def suggest(name: str, names: Iterable[str], what: str) -> str:
    """An action sentence: the nearest name if there is one, and all names if they are few."""
    names = sorted(names)
    match = find_nearest_name(name, names)
    known = f"{what}: {', '.join(names)}"
    return f"did you mean {match}? {known}" if match else known
