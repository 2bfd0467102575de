"""How weights are stored in small types, as data: modes, options, exceptions for some layers.

`OPTIONS` is the one table of what can be chosen. A config's `quantization` section states every option: a number where
its mode has the option, null where it has not. The constructor `make_quantization` takes the table's defaults for what
is left out; conf/quantization states the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from llama_exp.architecture.llama import LINEAR_NAMES, TOKEN_EMBEDDING
from llama_exp.errors import Problem

MODES = ("int8", "int4", "float8")  # of quantization
FLOATS, AS_STORED = "none", "preset"  # a config's other modes: floating point, and as the preset is stored
EMBEDDING_MODES = ("int8", "int4")  # of the embeddings under int4
_LARGEST_GROUP = 2**31 - 1


@dataclass(frozen=True)
class Quantization:
    """How the linear layers and embeddings of a checkpoint are stored.

    Attributes:
        mode: int8, int4 or float8.
        quantize_activations: products run in integers too, with a scale per row of the input.
        group_size: inputs that share a scale (int4); None: one scale per output.
        embeddings: mode of the token embedding and the output matrix where it is another one, int8 under int4;
            None: as everything else.
        float_activations: names of layers (`LINEAR_NAMES`; `token_embedding` for the logits) whose inputs are not
            rounded under `quantize_activations`.
        asymmetric_activations: rows of inputs are rounded between their smallest and their largest number; otherwise
            with one scale for both signs, as Keras does.
        gptq: floats become these integers by second-order rounding (int4), see `llama_exp.quantization.gptq`.
        int8_layers: names of linear layers that are stored as int8 weights under int4, in the order of `LINEAR_NAMES`.
    """

    mode: str
    quantize_activations: bool
    group_size: int | None = None
    embeddings: str | None = None
    float_activations: tuple[str, ...] = ()
    asymmetric_activations: bool = False
    gptq: bool = False
    int8_layers: tuple[str, ...] = ()

    def of(self, path: str) -> Quantization:
        """How the layer of that path alone is stored and multiplies: without exceptions for some layers."""
        if path == TOKEN_EMBEDDING and self.embeddings is not None:
            return Quantization(self.embeddings, False)
        name = path.rpartition("/")[2]
        if name in self.int8_layers:
            return Quantization("int8", False)
        rounds = self.quantize_activations and name not in self.float_activations
        return Quantization(
            self.mode, rounds, self.group_size, asymmetric_activations=rounds and self.asymmetric_activations
        )


class Option(NamedTuple):
    """A choice that one mode leaves.

    Attributes:
        mode: the one that has it.
        reason: why no other has it.
        default: what the constructor takes where it is left out; docs/adr/0010 has the measurements.
        possible: whether a value, of the type that the schema gives it, is possible.
        words: the possible values.
        of_activations: it is about the rounding of inputs, not about weights; all but `quantize_activations` itself say
            nothing where that is false.
    """

    mode: str
    reason: str
    default: Any
    possible: Callable[[Any], bool]
    words: str
    of_activations: bool = False


_TRUTH = (lambda value: isinstance(value, bool)), "true or false"
OPTIONS: dict[str, Option] = {
    "quantize_activations": Option("int8", "only int8 has integer products", True, *_TRUTH, of_activations=True),
    "group_size": Option(
        "int4",
        "only int4 has groups of inputs that share a scale",
        32,
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_GROUP,
        "an integer of at least 0 (0: all inputs of an output)",
    ),
    "embeddings": Option(
        "int4",
        "only int4 leaves the embeddings a choice",
        "int8",
        lambda value: value in EMBEDDING_MODES,
        f"one of {', '.join(EMBEDDING_MODES)}",
    ),
    "float_activations": Option(
        "int8",
        "only int8 rounds activations",
        (TOKEN_EMBEDDING, "query", "key", "value", "feedforward_output_dense"),
        lambda value: set(value) <= {*LINEAR_NAMES, TOKEN_EMBEDDING},
        f"names out of {', '.join((*LINEAR_NAMES, TOKEN_EMBEDDING))}",
        of_activations=True,
    ),
    "asymmetric_activations": Option("int8", "only int8 rounds activations", True, *_TRUTH, of_activations=True),
    "gptq": Option("int4", "only int4 is rounded by GPTQ", False, *_TRUTH),
    "int8_layers": Option(
        "int4",
        "only int4 may have other layers as int8",
        ("key", "value"),  # few weights where heads share them, and an error in one is used by several heads
        lambda value: set(value) < set(LINEAR_NAMES),
        f"names out of {', '.join(LINEAR_NAMES)}, but not all of them (that is quantization=int8_weight_only)",
    ),
}


def quantization_problems(section: Mapping) -> Iterator[Problem]:
    """What is wrong with a whole `quantization` section: `mode`, and every option with a number or None.

    Impossible values, a number for an option that the mode does not have, none for one that it has.
    """
    mode = section["mode"]
    if mode not in (FLOATS, AS_STORED, *MODES):
        choices = ", ".join((*MODES, FLOATS, AS_STORED))
        yield Problem("is no mode of quantization", "quantization.mode", str(mode), f"give one of {choices}")
        return
    needed = _options_of(mode, section["quantize_activations"])
    for name, option in OPTIONS.items():
        value, where = section[name], f"quantization.{name}"
        if value is None:
            continue
        if name not in needed:
            found, choices = f"{name}={_shown(value)} with mode={mode}", f"quantization={option.mode}"
            if mode == option.mode:
                found += f", quantize_activations={_shown(section['quantize_activations'])}"
                choices += " to round inputs, int8_weight_only to round none"
            yield Problem(option.reason, where, found, f"choose {choices}, or set {where}=null")
        elif not option.possible(value):
            yield Problem("is an impossible value", where, _shown(value), f"give {option.words}")
    missing = [name for name in needed if section[name] is None]
    if missing:
        values = " ".join(_as_override(name, OPTIONS[name].default) for name in missing)
        yield Problem(
            f"{mode} needs a value of {', '.join(missing)}",
            f"quantization.{missing[0]}",
            f"null with mode={mode}",
            f"choose quantization={mode}, which has all of them, or set {values}",
        )


def stored_problems(section: Mapping, stored: Quantization, where: str) -> Iterator[Problem]:
    """What is wrong with a section for a preset in `where` whose weights are stored as `stored`.

    Weights are not rounded a second time, nor made floats of. Which inputs are rounded is still a choice, because it
    does not change the weights.
    """
    if section["mode"] == AS_STORED:
        return
    wanted = make_quantization(**section)
    stated = ["mode", *(name for name, option in OPTIONS.items() if not option.of_activations)]
    differing = [key for key in stated if getattr(wanted, key, None) != getattr(stored, key)]
    if differing:
        yield Problem(
            f"the preset in {where} is quantized in another way",
            f"quantization.{differing[0]}",
            f"{describe(wanted)} (preset: {describe(stored)})",
            "set quantization=preset to take it as it is stored, or choose a preset with floating-point weights",
        )


def make_quantization(mode: str, quantize_activations: bool | None = None, **options: Any) -> Quantization | None:
    """The `Quantization` of a mode and its options; None for `none`.

    Args:
        mode: none, int8, int4 or float8.
        quantize_activations: int8 only: products in integers; None: true.
        **options: the others of `OPTIONS`, see `Quantization`; what is None or left out has the table's default where
            the mode has it. `group_size` 0 means all inputs of an output, `embeddings` int4 as everything else.
            `float_activations=[]` and `asymmetric_activations=False` are what Keras does.

    Raises:
        ValueError: another mode, an option that the mode does not have, or an impossible value.
        TypeError: an option that is in no table.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise TypeError(f"unknown options of quantization: {', '.join(unknown)}. There are {', '.join(OPTIONS)}.")
    stated = {"mode": mode, **dict.fromkeys(OPTIONS), **options, "quantize_activations": quantize_activations}
    for name in _options_of(mode, stated["quantize_activations"]):
        if stated[name] is None:
            stated[name] = OPTIONS[name].default
    for problem in quantization_problems(stated):
        raise ValueError(str(problem))
    if mode == AS_STORED:
        raise ValueError("mode='preset' means what a preset says. Choose one of none, int8, int4, float8.")
    if mode == FLOATS:
        return None
    own = {name: value for name, value in stated.items() if value is not None}
    own |= {"quantize_activations": bool(stated["quantize_activations"]), "group_size": stated["group_size"] or None}
    own["embeddings"] = None if stated["embeddings"] == "int4" else stated["embeddings"]
    own["float_activations"] = tuple(stated["float_activations"] or ())
    own["int8_layers"] = tuple(name for name in LINEAR_NAMES if name in (stated["int8_layers"] or ()))
    return Quantization(**own)


def to_section(quantization: Quantization | None) -> dict[str, Any]:
    """The `quantization` section that states it in full: `make_quantization` of it is `quantization` again."""
    if quantization is None:
        return {"mode": FLOATS, **dict.fromkeys(OPTIONS)}
    stated = {name: getattr(quantization, name) for name in OPTIONS}
    stated |= {"group_size": quantization.group_size or 0, "embeddings": quantization.embeddings or "int4"}
    own = _options_of(quantization.mode, quantization.quantize_activations)
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in stated.items()}
    return {"mode": quantization.mode, **{name: values[name] if name in own else None for name in OPTIONS}}


def describe(quantization: Quantization | None) -> str:
    """The quantization in words, for logs and messages."""
    if quantization is None:
        return "none"
    if quantization.mode == "int8":
        floats = f" except of {', '.join(quantization.float_activations)}" if quantization.float_activations else ""
        kind = "asymmetric activations" if quantization.asymmetric_activations else "activations"
        return f"int8 weights and {kind}{floats}" if quantization.quantize_activations else "int8 weights"
    if quantization.mode == "float8":
        return "float8 weights"
    size = quantization.group_size
    embeddings = "" if quantization.embeddings is None else f", {quantization.embeddings} embeddings"
    layers = f", int8 {' and '.join(quantization.int8_layers)}" if quantization.int8_layers else ""
    rounding = ", rounded by GPTQ" if quantization.gptq else ""
    return f"int4 weights, a scale per {f'{size} inputs' if size else 'output'}{embeddings}{layers}{rounding}"


def _options_of(mode: str, quantize_activations: bool | None) -> list[str]:
    """The options that a mode has; without rounded activations int8 has none about them."""
    own = [name for name, option in OPTIONS.items() if option.mode == mode]
    silent = {name for name in own if OPTIONS[name].of_activations and quantize_activations is False}
    return [name for name in own if name not in silent - {"quantize_activations"}]


def _as_override(name: str, value: Any) -> str:
    """What a person types in a shell to set an option."""
    if isinstance(value, tuple):
        return f"'quantization.{name}=[{','.join(value)}]'"
    return f"quantization.{name}={_shown(value)}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
