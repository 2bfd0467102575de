"""How weights are stored in small types, as data: modes, options, what an option left open means, and exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llama_exp.architecture.llama import LINEAR_NAMES, TOKEN_EMBEDDING

MODES = ("int8", "int4", "float8")  # of quantization
EMBEDDING_MODES = ("int8", "int4")  # of the embeddings under int4
# What an option means that is left open; docs/adr/0010 has the measurements.
DEFAULT_GROUP_SIZE = 32
DEFAULT_EMBEDDINGS = "int8"  # under int4
DEFAULT_INT8_LAYERS = ("key", "value")  # under int4: few weights, each of them used by several heads
DEFAULT_FLOAT_ACTIVATIONS = (
    TOKEN_EMBEDDING,
    "query",
    "key",
    "value",
    "feedforward_output_dense",
)


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


def make_quantization(
    mode: str,
    quantize_activations: bool | None = None,
    group_size: int | None = None,
    embeddings: str | None = None,
    float_activations: Sequence[str] | None = None,
    asymmetric_activations: bool | None = None,
    gptq: bool | None = None,
    int8_layers: Sequence[str] | None = None,
) -> Quantization | None:
    """The `Quantization` of a mode and its options; None for `none`.

    Args:
        mode: none, int8, int4 or float8.
        quantize_activations: int8 only; None: true for int8.
        group_size: int4 only, inputs that share a scale; 0: all of them; None: `DEFAULT_GROUP_SIZE`.
        embeddings: int4 only, mode of the embeddings and the output matrix, int8 or int4; None: int8.
        float_activations: int8 with rounded activations only, layers whose inputs are not rounded; None:
            `DEFAULT_FLOAT_ACTIVATIONS`.
        asymmetric_activations: int8 with rounded activations only, see `Quantization`; None: true. False and no
            `float_activations` are what Keras does.
        gptq: int4 only, see `Quantization`; None: false.
        int8_layers: int4 only, linear layers that are int8 instead, but not all; None: `DEFAULT_INT8_LAYERS`.

    Raises:
        ValueError: another mode, or an option that the mode does not have.
    """
    if mode not in (*MODES, "none"):
        raise ValueError(f"mode={mode!r} is not supported. Choose one of {', '.join(MODES)}.")
    if quantize_activations and mode != "int8":
        raise ValueError(f"quantize_activations=True with mode={mode!r}: only int8 has integer products.")
    if group_size is not None and mode != "int4":
        raise ValueError(f"group_size={group_size!r} with mode={mode!r}: only int4 has groups. Leave it out.")
    if embeddings is not None and mode != "int4":
        raise ValueError(f"embeddings={embeddings!r} with mode={mode!r}: only int4 leaves a choice. Leave it out.")
    if gptq and mode != "int4":
        raise ValueError(f"gptq=True with mode={mode!r}: only int4 is rounded so. Leave it out.")
    if int8_layers is not None and mode != "int4":
        raise ValueError(
            f"int8_layers={list(int8_layers)} with mode={mode!r}: only int4 has other layers. Leave it out."
        )
    rounds = mode == "int8" and quantize_activations is not False
    for name, value in (
        ("float_activations", None if float_activations is None else list(float_activations)),
        ("asymmetric_activations", asymmetric_activations),
    ):
        if value is not None and not rounds:
            raise ValueError(
                f"{name}={value} with mode={mode!r}, quantize_activations={quantize_activations}: only int8 rounds "
                "activations. Leave it out."
            )
    if mode == "none":
        return None
    if mode == "int4":
        return _int4(group_size, embeddings, bool(gptq), _int8_layers(int8_layers))
    if not rounds:
        return Quantization(mode, False)
    floats, asymmetric = _float_activations(float_activations), asymmetric_activations is not False
    return Quantization(mode, True, float_activations=floats, asymmetric_activations=asymmetric)


def _int4(group_size, embeddings, gptq, int8_layers):
    group_size = DEFAULT_GROUP_SIZE if group_size is None else group_size
    if not isinstance(group_size, int) or isinstance(group_size, bool) or group_size < 0:
        raise ValueError(f"group_size={group_size!r} must be a whole number of at least 1, or 0 for one group.")
    embeddings = DEFAULT_EMBEDDINGS if embeddings is None else embeddings
    if embeddings not in EMBEDDING_MODES:
        raise ValueError(f"embeddings={embeddings!r} must be one of {', '.join(EMBEDDING_MODES)}.")
    embeddings = None if embeddings == "int4" else embeddings
    return Quantization("int4", False, group_size or None, embeddings, gptq=gptq, int8_layers=int8_layers)


def _int8_layers(names):
    names = DEFAULT_INT8_LAYERS if names is None else names
    _require_names("int8_layers", names, LINEAR_NAMES)
    if set(names) == set(LINEAR_NAMES):
        raise ValueError("int8_layers names every linear layer: use mode='int8' with quantize_activations=False.")
    return tuple(name for name in LINEAR_NAMES if name in names)


def _float_activations(names):
    names = tuple(DEFAULT_FLOAT_ACTIVATIONS if names is None else names)
    _require_names("float_activations", names, (*LINEAR_NAMES, TOKEN_EMBEDDING))
    return names


def _require_names(option, names, choices):
    unknown = [name for name in names if name not in choices]
    if unknown:
        raise ValueError(f"{option}: no layer is named {unknown[0]!r}. Choose from {', '.join(choices)}.")


def to_section(quantization: Quantization | None) -> dict:
    """The `quantization` section that states it in full: `make_quantization` of it is `quantization` again."""
    options = ("quantize_activations", "group_size", "embeddings", "float_activations", "asymmetric_activations")
    section = {"mode": "none", **dict.fromkeys((*options, "gptq", "int8_layers"))}
    if quantization is None:
        return section
    section["mode"] = quantization.mode
    if quantization.mode == "int8":
        section["quantize_activations"] = quantization.quantize_activations
    if quantization.quantize_activations:
        section["float_activations"] = list(quantization.float_activations)
        section["asymmetric_activations"] = quantization.asymmetric_activations
    if quantization.mode == "int4":
        section["group_size"] = quantization.group_size or 0
        section["embeddings"] = quantization.embeddings or "int4"
        section["gptq"] = quantization.gptq
        section["int8_layers"] = list(quantization.int8_layers)
    return section
