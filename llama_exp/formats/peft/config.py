"""`adapter_config.json` of PEFT, version 0.21: which of its keys mean something here, and what they mean for a Llama.

Module names are those of transformers' `LlamaForCausalLM`: `model.layers.0.self_attn.q_proj`. PEFT takes targets and
the keys of patterns as ends of module names or as regular expressions, and so does this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_exp.errors import InputError
from llama_exp.files.json_file import read_json
from llama_exp.formats.adapter import ACTION, shorten_names
from llama_exp.formats.peft.expressions import Expressions, Matches

USED = (
    "peft_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
)
# Where the adapter comes from and how it began; none of them changes the function of its matrices.
IRRELEVANT = (
    "task_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "eva_config",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    "ensure_weight_tying",
)
ALL_LINEAR = "all-linear"
UNSET: tuple = (None, False, {}, [], "")
# What changes the function computed and has no counterpart here, with the values that mean "not used".
REFUSED: dict[str, tuple] = {
    "bias": ("none", None),
    "fan_in_fan_out": UNSET,
    "modules_to_save": UNSET,
    # The others (pissa, olora, corda, loftq, lora_ga) change the base weights too; mica trains only one matrix.
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    "layers_pattern": (*UNSET, "layers", ["layers"]),
    "megatron_config": UNSET,
    "trainable_token_indices": UNSET,
    "loftq_config": UNSET,
    "corda_config": UNSET,
    "lora_ga_config": UNSET,
    "velora_config": UNSET,
    "alora_invocation_tokens": UNSET,
    "use_qalora": UNSET,
    "monteclora_config": UNSET,
    "layer_replication": UNSET,
    "lora_bias": UNSET,
    "target_parameters": UNSET,
    "use_bdlora": UNSET,
    "arrow_config": UNSET,
    "kasa_config": UNSET,
}
LAYER = re.compile(r"model\.layers\.(\d+)\.")
Pattern = tuple[tuple[Matches, float], ...]
Targets = list[str] | Matches
# An expression of these characters is a module name, or the end of one: `re` is quick with it.
PLAIN = re.compile(r"\^?(?:[\w.-]|\\\.)*\$?")


@dataclass(frozen=True)
class PeftConfig:
    """What an `adapter_config.json` says about a Llama.

    rank, alpha, dropout, use_rslora: for all modules that the patterns do not match.
    rank_pattern, alpha_pattern: expressions with their values; the first that matches a module counts.
    target_modules: ends of module names, or what an expression matches; None: the file does not say.
    exclude_modules: likewise; None: nothing is excluded.
    layers_to_transform: blocks; None: all.
    """

    rank: int
    alpha: float
    dropout: float
    use_rslora: bool
    use_dora: bool
    rank_pattern: Pattern
    alpha_pattern: Pattern
    target_modules: Targets | None
    exclude_modules: Targets | None
    layers_to_transform: list[int] | None

    def rank_of(self, module: str) -> int:
        """R of one module."""
        return _matched(self.rank_pattern, module, self.rank)

    def alpha_of(self, module: str) -> float:
        """The alpha of one module."""
        return _matched(self.alpha_pattern, module, self.alpha)

    def targeted(self, modules: Iterable[str]) -> list[str] | None:
        """Those of `modules` that have adapters; None: the file does not say which."""
        if self.target_modules is None:
            return None
        return [module for module in modules if self._is_target(module)]

    def _is_target(self, module: str) -> bool:
        if self.exclude_modules is not None and _means(self.exclude_modules, module):
            return False
        if self.target_modules is None or not _means(self.target_modules, module):
            return False
        if self.layers_to_transform is None or not isinstance(self.target_modules, list):
            return True
        layer = LAYER.match(module)
        return layer is not None and int(layer[1]) in self.layers_to_transform


def read_config(path: Path) -> PeftConfig:
    """The configuration of a LoRA adapter.

    Raises:
        InputError: the file is damaged, is not LoRA's, or uses something that changes the function and is unknown here;
            every such key is named.
    """
    document = read_json(path)
    if document.get("peft_type") != "LORA":
        raise InputError.about(path, "the adapter is not LoRA", f"peft_type={_show(document.get('peft_type'))}", ACTION)
    _refuse_unsupported(path, document)
    try:
        return _typed(document, Expressions(path))
    except ValueError as error:
        raise InputError.about(
            path, "the configuration is not one of PEFT's", str(error), "save the adapter again"
        ) from error


def _refuse_unsupported(path: Path, document: dict) -> None:
    def unused(key: str) -> tuple:
        return REFUSED.get(key, UNSET)

    # 0 == False and 1 == True in Python, but not in JSON.
    unsupported = [
        f"{key}={_show(value)}"
        for key, value in document.items()
        if key not in USED
        and key not in IRRELEVANT
        and not any(type(value) is type(other) and value == other for other in unused(key))
    ]
    if unsupported:
        action = "use an adapter without it, or merge it into its model with PEFT and load that"
        raise InputError.about(
            path, f"{len(unsupported)} keys are not supported here", shorten_names(unsupported), action
        )


def _typed(document: dict, expressions: Expressions) -> PeftConfig:
    layers = document.get("layers_to_transform")
    layers = [layers] if _is_count(layers, 0) else layers or None
    if layers is not None and not (isinstance(layers, list) and all(_is_count(layer, 0) for layer in layers)):
        raise ValueError(f"layers_to_transform={_show(layers)} is not a list of block numbers")
    dropout = document.get("lora_dropout", 0.0)
    if not _is_number(dropout) or not 0 <= dropout < 1:
        raise ValueError(f"lora_dropout={_show(dropout)} is no probability in [0, 1)")
    for key in ("r", "lora_alpha"):
        if key not in document:
            raise ValueError(f"{key} is missing")
    return PeftConfig(
        rank=_rank("r", document["r"]),
        alpha=_alpha("lora_alpha", document["lora_alpha"]),
        dropout=float(dropout),
        use_rslora=_flag(document, "use_rslora"),
        use_dora=_flag(document, "use_dora"),
        rank_pattern=_pattern(document, "rank_pattern", _rank, expressions),
        alpha_pattern=_pattern(document, "alpha_pattern", _alpha, expressions),
        target_modules=_names(document, "target_modules", expressions),
        exclude_modules=_names(document, "exclude_modules", expressions),
        layers_to_transform=layers,
    )


def _flag(document: dict, key: str) -> bool:
    value = False if document.get(key) is None else document[key]
    if not isinstance(value, bool):
        raise ValueError(f"{key}={_show(value)} is neither true nor false")
    return value


def _rank(key: str, value: Any) -> int:
    if not _is_count(value, 1):
        raise ValueError(f"{key}={_show(value)} is not a whole number of at least 1")
    return value


def _alpha(key: str, value: Any) -> float:
    if not _is_number(value) or not value > 0:
        raise ValueError(f"{key}={_show(value)} is not a number greater than 0")
    return float(value)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pattern(document: dict, key: str, typed, expressions: Expressions) -> Pattern:
    pattern = {} if document.get(key) is None else document[key]
    if not isinstance(pattern, dict):
        raise ValueError(f"{key}={_show(pattern)} is not an object")
    return tuple(
        (_end_of_name(key, name, expressions), typed(f"{key}[{_show(name)}]", value)) for name, value in pattern.items()
    )


def _end_of_name(key: str, name: str, expressions: Expressions) -> Matches:
    """PEFT's rule for patterns: an expression matches a whole module name, or its end after a dot."""
    whole = rf"(?:.*\.)?(?:{name})$"
    if PLAIN.fullmatch(name) is None:
        return expressions.compile(key, whole)
    plain = re.compile(whole)
    return lambda module: plain.match(module) is not None


def _names(document: dict, key: str, expressions: Expressions) -> Targets | None:
    names = document.get(key)
    if isinstance(names, str) and names:
        return expressions.compile(key, r".*_proj" if names.lower() == ALL_LINEAR else names)
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{key}={_show(names)} is neither a list of names nor an expression")
    return names


def _matched(pattern: Pattern, module: str, default: float):
    return next((value for matches, value in pattern if matches(module)), default)


def _means(targets: Targets, module: str) -> bool:
    """PEFT's rule for targets: one expression for whole names, or several names that count as ends."""
    if not isinstance(targets, list):
        return targets(module)
    return any(module == name or module.endswith(f".{name}") for name in targets)


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."
