"""The parts of a run behind the frontier, built in the order of the config: preset, data, model, optimizer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llama_exp import preset, quantization
from llama_exp.architecture import parametrization, to_section
from llama_exp.config.check.contracts import RATES_METHOD, rates_problem
from llama_exp.config.identity import to_dict
from llama_exp.config.instantiate import instantiate
from llama_exp.config.model_files import say_how_to_fit
from llama_exp.config.schema import SCHEMAS, Config
from llama_exp.errors import ConfigError, InputError, Problem
from llama_exp.run import recorded
from llama_exp.run.agreement import require_prompts, tell_overrun, tell_strong_decay
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


def build_optimizer(config: Config, model: Any) -> Any:
    """The optimizer with its schedule, and with the learning rates of single variables; not built yet.

    Raises:
        ConfigError: rates are not the same for all variables, and an optimizer of the user's own knows of one only.
    """
    from llama_exp import precision

    section = to_dict(config.optimizer)
    peak, added = section["learning_rate"], {}
    schedule = instantiate(
        config.schedule, config.trusted_modules, "schedule", learning_rate=peak, num_steps=config.trainer.max_steps
    )
    if section["_target_"] in SCHEMAS:
        added["peak"] = peak
        tell_strong_decay(section)
    optimizer = instantiate(config.optimizer, config.trusted_modules, "optimizer", learning_rate=schedule, **added)
    factors = list_rate_factors(config, model)
    if factors:
        if not hasattr(optimizer, RATES_METHOD):
            path, factor = next(iter(factors.items()))
            raise ConfigError(rates_problem(section["_target_"], f"{path} learns at {factor:g} times the rate"))
        optimizer.multiply_rates(factors)
    return precision.wrap_optimizer(optimizer, model.backbone.dtype_policy)


def list_rate_factors(config: Config, model: Any) -> dict[str, float]:
    """Path of a variable that trains -> what its learning rate is multiplied by, where that is not 1.

    Each part of the run that has a say gives its own factors; a variable gets their product.
    """
    from llama_exp import lora

    parts = (
        parametrization.rate_factors(
            model.backbone, parametrization.MUP_OPTIMIZERS.get(to_dict(config.optimizer)["_target_"])
        ),
        lora.rate_factors(model.backbone, config.lora.learning_rate_ratio),
    )
    products = {
        variable.path: math.prod(factors.get(variable.path, 1.0) for factors in parts)
        for variable in model.backbone.trainable_variables
    }
    return {path: factor for path, factor in products.items() if factor != 1.0}
