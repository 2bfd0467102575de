"""The parts of a run behind the frontier, built in the order of the config: preset, data, model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_exp import preset, quantization
from llama_exp.architecture import to_section
from llama_exp.config.identity import to_dict
from llama_exp.config.instantiate import instantiate
from llama_exp.config.model_files import say_how_to_fit
from llama_exp.config.schema import Config
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.run import recorded
from llama_exp.run.agreement import require_prompts, tell_overrun
from llama_exp.tokenizer.chat_template import take_template
from llama_exp.tokenizer.ends import stop_where_taught


def resolve_preset(config: Config, folder: Path) -> preset.Resolved | None:
    """The preset to load weights from, on this machine; None: random weights."""
    if config.preset.source is None or not config.preset.load_weights:
        return None
    return preset.resolve(recorded.preset_source(folder, config.preset.source), offline=config.preset.offline)


def check_preset(config: Config, preset_folder: Path, folder: Path) -> None:
    """Compares the preset with the config, and with the run's first start, so that no large model is built in vain."""
    from llama_exp.formats import open_checkpoint
    from llama_exp.formats.checkpoint import SCALING, match_architecture

    stated = {key: value for key, value in to_dict(config.model).items() if key != "_target_"}
    with open_checkpoint(preset_folder) as checkpoint:
        source = config.preset.source
        match_architecture(checkpoint, stated, say_how_to_fit(checkpoint.config, stated, source))
        tell_overrun(config, checkpoint.context_length, stated[SCALING] / checkpoint.config[SCALING])
        stored = quantization.choose(to_dict(config.quantization), checkpoint.quantization, preset_folder)
    recorded.check_quantization(folder, to_section(stored))
    quantization.require_trainable(stored, config.lora.rank)


def build_data(config: Config, dataset: Any, cache_dir: str, preset_folder: Path | None) -> tuple[Any, dict]:
    """The tokenizer and the token rows of both splits."""
    tokenizer = instantiate(
        config.tokenizer,
        config.trusted_modules,
        "tokenizer",
        texts=lambda: dataset.texts("train"),
        preset_folder=preset_folder and str(preset_folder),
        cache_dir=cache_dir,
        fingerprint=dataset.fingerprint,
    )
    stop_where_taught(tokenizer, to_dict(config.dataset).get("chat_template"))
    _require_embeddings(config, tokenizer.vocabulary_size, preset_folder)
    take_template(tokenizer, to_dict(config.dataset).get("chat_template"), str(config.preset.source))
    require_prompts(config.trainer.sample_prompts or [], tokenizer)
    examples = dataset.prepare(
        tokenizer,
        cache_dir=cache_dir,
        loss_on=config.objective.loss_on.value,
        minimum_train_rows=config.trainer.batch_size,
    )
    return tokenizer, examples


def _require_embeddings(config: Config, num_tokens: int, preset_folder: Path | None) -> None:
    """Fails if some tokens would have none."""
    vocabulary_size = to_dict(config.model)["vocabulary_size"]
    if num_tokens <= vocabulary_size:
        return
    what, found = "the tokenizer has more tokens than the model", f"{vocabulary_size}, the tokenizer has {num_tokens}"
    if preset_folder is not None:  # whose size is what it is
        action = "choose another tokenizer, or another preset"
        raise InputError(Problem(what, "model.vocabulary_size", f"{found} (preset: {preset_folder})", action))
    action = f"set model.vocabulary_size to at least {num_tokens}, or choose another tokenizer"
    raise ConfigError(Problem(what, "model.vocabulary_size", found, action))


def build_model(config: Config, preset_folder: Path | None, tokenizer: Any) -> Any:
    """The causal language model, loaded and adapted."""
    from llama_exp.models import LlamaCausalLM
    from llama_exp.models import build as model

    backbone = model.build(
        lambda **added: instantiate(config.model, config.trusted_modules, "model", **added),
        policy=config.precision.policy.value,
        preset_dir=preset_folder,
        quantization=to_dict(config.quantization),
        lora=to_dict(config.lora),
        remat=config.trainer.remat.value,
        seed=config.seed,
    )
    return LlamaCausalLM(backbone, tokenizer)
