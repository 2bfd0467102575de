"""What Keras and its users ask of a model beside its call: inputs by name, symbolic tensors, `fit`, `export`.

    keras.Model(backbone.input, head(backbone.output))      as with KerasHub's functional models
    backbone.predict(batches)                               traced anew where adapters or integers came or went
    backbone.export(folder)                                 batch size and length stay open

KerasHub's contract and what is kept of it: `docs/reference/keras_hub_contract.md`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping

import keras

from llama_exp import backend
from llama_exp.architecture import INPUT_KEYS

SYMBOLIC_KEYS = ("token_ids", "padding_mask")  # the inputs of KerasHub's models
NAMES_ELSEWHERE = {"input_ids": "token_ids", "attention_mask": "padding_mask"}  # of transformers
# What KerasHub's classes have under these names.
METHODS_ELSEWHERE = {
    "save_lora_weights": "llama_exp.lora.save_adapter(backbone, folder), which PEFT reads too",
    "load_lora_weights": "llama_exp.lora.load_adapter(backbone, path), which reads KerasHub's .lora.h5 too",
    "default_lora_layer_names": "the default of enable_lora: targets=('query', 'value')",
    "export_to_transformers": "save_to_preset(folder), and llama-exp convert folder hf_folder",
    "preprocessor": "the attribute tokenizer, and generate for text",
    "sampler": "the arguments of generate: temperature, top_k, top_p",
}


def require_inputs(inputs) -> None:
    """Fails unless `inputs` is a dict with `token_ids` and known names.

    Raises:
        ValueError: it is something else, lacks the tokens, or has a name that nobody would read.
    """
    if not isinstance(inputs, Mapping):
        kind = type(inputs).__name__
        raise ValueError(
            f"inputs is of type {kind}; it must be a dict of integers (batch, length) with token_ids and perhaps "
            f"{', '.join(INPUT_KEYS[1:])}. For text, encode it first: model.tokenizer.encode(text)."
        )
    for key in inputs:
        if key not in INPUT_KEYS:
            nearest = NAMES_ELSEWHERE.get(key) or next(iter(difflib.get_close_matches(str(key), INPUT_KEYS, n=1)), None)
            action = f"Rename it to {nearest!r}, or leave it out" if nearest else "Leave it out"
            raise ValueError(f"inputs has {key!r}, which is not read. {action}; known: {', '.join(INPUT_KEYS)}.")
    if "token_ids" not in inputs:
        raise ValueError(f"inputs has no 'token_ids', only {sorted(inputs)}.")


class InnerLayer(keras.layers.Layer):
    """A layer that changes its form only together with its backbone."""

    def quantize(self, mode=None, config=None, **options) -> None:
        """Refuses what Keras' `quantize` of a model around the backbone asks of every layer in it.

        Layers are exchanged for quantized ones, see `llama_exp.quantization.quantize`; none becomes one.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"layer {self.path!r} cannot be quantized alone. Quantize the backbone that it belongs to, "
            "model.get_layer('llama_backbone').quantize('int8'), and compile the model around it again."
        )


class _Traced:
    """Which variables Keras' functions were traced with; Keras would track a list of them."""

    def __init__(self):
        self.variables: list = []


class DictModel(keras.Model):
    """A model of a dict of integers (B, S), see `require_inputs`, whose result is (B, S, something)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._traced = _Traced()

    def _output_form(self) -> tuple[int, str]:
        """Size of the result's last axis, and its dtype."""
        raise NotImplementedError

    def compute_output_spec(self, inputs, training=False):
        """The symbolic result of symbolic inputs; nothing is traced, so that unknown sizes stay unknown."""
        require_inputs(inputs)
        size, dtype = self._output_form()
        return keras.KerasTensor((*inputs["token_ids"].shape, size), dtype=dtype)

    @functools.cached_property
    def input(self) -> dict:
        """Symbolic inputs of unknown batch size and length, by name."""
        return {key: keras.Input((None,), dtype="int32", name=key) for key in SYMBOLIC_KEYS}

    @functools.cached_property
    def output(self):
        """The symbolic result of `input`."""
        return self(self.input)

    @property
    def inputs(self) -> list:
        """`input` as a list."""
        return list(self.input.values())

    @property
    def outputs(self) -> list:
        """`output` as a list."""
        return [self.output]

    def save(self, filepath, *arguments, **options):
        """Keras' own, into a `.keras` file, adapters and integers included; see `keras.Model.save`.

        Raises:
            ValueError: the older .h5 format, which cannot be loaded again and would lose a tokenizer.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(f"filepath={str(filepath)!r}: a whole model goes into a .keras file. Give it that suffix.")
        return super().save(filepath, *arguments, **options)

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        """Writes the call, adapters and integers included, for serving; see `keras.Model.export`.

        Args:
            filepath: see there.
            format: see there.
            verbose: see there.
            input_signature: None: that of `input`, token_ids and padding_mask of any batch size and length.
            **kwargs: see there.
        """
        if input_signature is None:
            input_signature = [{key: keras.InputSpec(dtype="int32", shape=(None, None)) for key in SYMBOLIC_KEYS}]
        if format == "tf_saved_model":
            kwargs = backend.export_options(input_signature) | kwargs
        super().export(filepath, format, verbose, input_signature, **kwargs)

    def make_train_function(self, force=False):
        """Keras' own; what was traced with other variables is traced anew."""
        return super().make_train_function(force or self._renew_functions())

    def make_test_function(self, force=False):
        """Keras' own, likewise."""
        return super().make_test_function(force or self._renew_functions())

    def make_predict_function(self, force=False):
        """Keras' own, likewise."""
        return super().make_predict_function(force or self._renew_functions())

    def _renew_functions(self) -> bool:
        """Forgets traced functions after adapters or integers came or went: they would compute the former model."""
        variables = [*self.variables, *(v for v in self.variables if v.trainable)]
        if [id(v) for v in variables] == [id(v) for v in self._traced.variables]:
            return False
        self._traced.variables = variables
        self.train_function = self.test_function = self.predict_function = None
        return True

    def __getattr__(self, name):
        """Says where something is that KerasHub's models have under `name`."""
        where = f" Here it is {METHODS_ELSEWHERE[name]}." if name in METHODS_ELSEWHERE else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}.{where}")
