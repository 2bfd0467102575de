"""The Llama decoder (Touvron et al. 2023, arXiv:2302.13971 and 2307.09288; Llama team 2024, arXiv:2407.21783).

Shape letters: B batch, S query positions, T key positions, D hidden_dim, M = B * S rows, V vocabulary.
In masks and tables B is 1 where all rows share them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras
from keras import ops

from llama_exp import backend, lora, quantization
from llama_exp.architecture import (
    CONFIG_KEYS,
    INITIALIZER_RANGES,
    PARAMETRIZATION,
    Quantization,
    one_scaling_factor,
    to_section,
)
from llama_exp.architecture.parametrization import Parametrization
from llama_exp.backend.initial import choose_seed
from llama_exp.limits import choose
from llama_exp.limits.model import LIMITS
from llama_exp.limits.trainer import Remat
from llama_exp.models import incremental, layers
from llama_exp.models.arguments import read_policy, read_quantization
from llama_exp.models.attention import attention_bias
from llama_exp.models.dropout import block_seed
from llama_exp.models.keras_methods import DictModel, require_inputs
from llama_exp.models.layout import layout_map
from llama_exp.models.linear import Linear
from llama_exp.models.rope import inverse_frequencies, rope_tables
from llama_exp.models.saved_form import require_form, write_form
from llama_exp.models.stack import run_block
from llama_exp.preset import PRESETS


class BuiltInPresets:
    """Class property: a copy of the table, so that nobody edits it by accident."""

    def __get__(self, instance, owner) -> dict:
        return dict(PRESETS)


@keras.saving.register_keras_serializable(package="llama_exp")
class LlamaBackbone(DictModel):
    """Token embedding, `num_layers` decoder blocks and a final norm: hidden states, no logits.

        x = embed(token_ids);  x = block_i(x) for each i;  hidden = norm(x)

    Called on a dict of integer tensors (B, S); only `token_ids` is required, and other names are refused:
        token_ids: in [0, V). padding_mask: non-zero for real tokens. position_ids: default 0 .. S-1.
        segment_ids: tokens see only their own segment; 0 is padding (documents packed into one row).
    It returns the hidden states (B, S, D) in the compute dtype. At padding they are finite and mean nothing.

    Incremental decoding, the same numbers in pieces:
        cache = backbone.new_cache(batch_size, max_length)
        hidden, cache = backbone.call_with_cache(token_ids, cache, cache_index, padding_mask=None, position_ids=None)

    All variables exist after construction. Paths: `token_embedding/{embeddings, reverse_embeddings}`,
    `transformer_layer_{i}/self_attention/{query, key, value, attention_output}/kernel`,
    `transformer_layer_{i}/feedforward_{intermediate, gate, output}_dense/kernel`,
    `transformer_layer_{i}/{self_attention, feedforward}_layernorm/scale`, `sequence_output_layernorm/scale`.

    Numerics: RoPE angles, norms, softmax and SiLU in float32 whatever the policy.

    Args:
        vocabulary_size: V, tokens.
        num_layers: decoder blocks.
        num_query_heads: query heads; divides `hidden_dim`.
        hidden_dim: D.
        intermediate_dim: width of the feed-forward network.
        num_key_value_heads: K; divides `num_query_heads`.
        rope_max_wavelength: base of the rotary frequencies.
        rope_scaling_factor: older name of `rope_position_scaling_factor`.
        layer_norm_epsilon: epsilon of every norm.
        dropout: probability in [0, 1), on attention outputs, in training.
        dtype: name of a floating-point Keras dtype policy, a policy, or its serialized form; None: the global policy.
        tie_word_embeddings: logits use the embedding table transposed.
        rope_position_scaling_factor: positions are divided by it.
        rope_frequency_adjustment_factor: Llama 3.1 scaling, with the next three (all four or none).
        rope_low_freq_factor: see `llama_exp.models.rope.inverse_frequencies`.
        rope_high_freq_factor: see there.
        rope_pretraining_sequence_length: tokens.
        quantization: how linear layers and embeddings are stored, as a `Quantization` or a mapping of the options of
            `llama_exp.architecture.make_quantization`, such as {"mode": "int4"}: they begin as zeros. None: in floating
            point.
        initializer_range: standard deviation of the linear layers' random weights.
        embedding_initializer_range: likewise of the embeddings and the output matrix.
        parametrization: how these and learning rates follow the width: `standard`, or `mup`, see
            `llama_exp.architecture.parametrization`. What is computed is the same.
        base_hidden_dim: of `mup`: the width at which both are the same.
        base_head_dim: of `mup`: size of a head there; None: that of this model.
        train_norms: false: the scales of the norms keep their first values.
        seed: of random weights, adapters' too: a variable's depend on it and on the variable's path alone, on any
            backend. None: another one each time, but repeatable after `keras.utils.set_random_seed`.
        adapters: the adapters of a saved model, as `get_config` describes them; `enable_lora` makes new ones.
        **kwargs: `name`, `trainable`.

    Attributes:
        remat: what the backward pass computes again instead of keeping it, a `Remat`; see `run_block`.
        seed: of random weights, the chosen one where none was given.
        token_embedding, transformer_layers, layer_norm: the layers.
        quantization: the `Quantization`, or None.
        lora_arguments: rank, alpha, dropout, use_rslora and use_dora of the adapters, None without; also alpha_pattern
            (alpha by path of a linear layer) where layers differ.
        presets: the built-in presets by id.

    Raises:
        ValueError: an argument is impossible, or contradicts another.
    """

    presets = BuiltInPresets()

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_key_value_heads: int,
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float | None = None,
        layer_norm_epsilon: float = 1e-6,
        dropout: float = 0,
        dtype=None,
        tie_word_embeddings: bool = False,
        *,
        rope_position_scaling_factor: float | None = None,
        rope_frequency_adjustment_factor: float | None = None,
        rope_low_freq_factor: float | None = None,
        rope_high_freq_factor: float | None = None,
        rope_pretraining_sequence_length: int | None = None,
        quantization: Quantization | Mapping | None = None,
        initializer_range: float = INITIALIZER_RANGES["initializer_range"],
        embedding_initializer_range: float = INITIALIZER_RANGES["embedding_initializer_range"],
        parametrization: str = PARAMETRIZATION["parametrization"],
        base_hidden_dim: int | None = PARAMETRIZATION["base_hidden_dim"],
        base_head_dim: int | None = PARAMETRIZATION["base_head_dim"],
        train_norms: bool = PARAMETRIZATION["train_norms"],
        seed: int | None = None,
        adapters: Mapping | None = None,
        **kwargs,
    ):
        rope_position_scaling_factor = one_scaling_factor(rope_scaling_factor, rope_position_scaling_factor)
        given = locals()
        config = {key: given[key] for key in (*CONFIG_KEYS, *INITIALIZER_RANGES, *PARAMETRIZATION)}
        choose(Parametrization, parametrization, "model.parametrization")
        LIMITS.require(**config)
        super().__init__(dtype=read_policy(dtype), **kwargs)
        self.quantization = read_quantization(quantization, self.compute_dtype)
        self._given_seed = seed
        self.seed = choose_seed() if seed is None else seed
        for key, value in config.items():
            setattr(self, key, value)
        self.remat = Remat.none
        self.lora_arguments = None
        self.seed_generator = keras.random.SeedGenerator() if dropout > 0 else None
        self._frequencies = inverse_frequencies(
            hidden_dim // num_query_heads,
            rope_max_wavelength,
            rope_frequency_adjustment_factor,
            rope_low_freq_factor,
            rope_high_freq_factor,
            rope_pretraining_sequence_length,
        )
        self._create_layers()
        if adapters is not None:
            lora.restore(self, adapters)

    def _create_layers(self):
        self.token_embedding = layers.new_token_embedding(self)
        self.transformer_layers = [layers.new_block(self, i) for i in range(self.num_layers)]
        self.layer_norm = layers.new_final_norm(self)
        self.built = True

    def exchange_layers(self, quantization: Quantization | None) -> Iterator[tuple]:
        """Replaces the token embedding and each block by new ones of `quantization`, with initial values, no adapters.

        Yields:
            (old layer, new layer), after each exchange.
        """
        self.quantization, self.lora_arguments = quantization, None
        # Keras learns of the exchange first: what it tracks it need not append, and keeps in its place.
        old, new = self.token_embedding, layers.new_token_embedding(self)
        self._tracker.replace_tracked_value("layers", old, new)
        self.token_embedding = new
        yield old, new
        for index in range(self.num_layers):
            old, new = self.transformer_layers[index], layers.new_block(self, index)
            self._tracker.replace_tracked_value("layers", old, new)
            self.transformer_layers[index] = new
            yield old, new

    def call(self, inputs, training=False):
        """Hidden states (B, S, D) of a dict of tensors; see the class."""
        require_inputs(inputs)
        token_ids_BS = inputs["token_ids"]
        length = ops.shape(token_ids_BS)[1]
        position_ids = inputs.get("position_ids")
        if position_ids is None:
            position_ids = ops.arange(length, dtype="int32")[None, :]
        bias_B1ST = attention_bias(
            length, length, padding_mask=inputs.get("padding_mask"), segment_ids=inputs.get("segment_ids")
        )
        seed = self.seed_generator.next() if training and self.seed_generator is not None else None
        rope = self.rope(position_ids)
        x_MD = self.embed(token_ids_BS)
        for index, block in enumerate(self.transformer_layers):
            one_seed = None if seed is None else block_seed(seed, index)
            x_MD = run_block(block, x_MD, rope, bias_B1ST, one_seed, self.remat)
        return ops.reshape(self.layer_norm(x_MD), (-1, length, self.hidden_dim))

    def embed(self, token_ids_BS):
        """Rows (M, D) of the token embedding, in the compute dtype."""
        return ops.reshape(self.token_embedding(token_ids_BS), (-1, self.hidden_dim))

    def rope(self, position_ids):
        """The tables that turn queries and keys at `position_ids`, integers (B, S); see `rope_tables`."""
        return rope_tables(position_ids, self._frequencies, self.rope_position_scaling_factor, self.compute_dtype)

    def new_cache(self, batch_size: int, max_length: int) -> list:
        """Empty keys and values for `call_with_cache`; see `llama_exp.models.incremental.new_cache`."""
        return incremental.new_cache(self, batch_size, max_length)

    def call_with_cache(self, token_ids, cache, cache_index, padding_mask=None, position_ids=None):
        """Hidden states of new tokens and the new cache; see `llama_exp.models.incremental.call_with_cache`."""
        return incremental.call_with_cache(self, token_ids, cache, cache_index, padding_mask, position_ids)

    def linear_layers(self) -> dict[str, Linear]:
        """Every `Linear` by its path, such as `transformer_layer_0/self_attention/query`, in order of use."""
        return {layer.path: layer for block in self.transformer_layers for layer in block.linear_layers()}

    def enable_lora(
        self,
        rank: int,
        alpha: float | None = None,
        dropout: float = 0.0,
        use_rslora: bool = False,
        targets: Sequence[str] = ("query", "value"),
        target_layer_names: Sequence[str] | None = None,
        *,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
        use_dora: bool = False,
    ) -> None:
        """Freezes the backbone and adds adapters to `targets`; see `llama_exp.lora.enable`.

        `target_layer_names` is KerasHub's name for `targets`.
        """
        targets = target_layer_names or targets
        lora.enable(self, rank, alpha, dropout, use_rslora, targets, rank_pattern, alpha_pattern, use_dora)

    def unfreeze(self) -> None:
        """Makes every variable train that trains in a new backbone, after adapters or integers went."""
        for variable in self.weights:
            variable.trainable = self.train_norms or not variable.path.endswith("/scale")

    def quantize(self, mode=None, config=None, **options) -> None:
        """Turns the weights of linear layers and embeddings into integers or float8; see `quantization.quantize`.

        `config` is Keras' `Int8QuantizationConfig` or `Int4QuantizationConfig`, as another way to state the options, or
        its `Float8QuantizationConfig`, which means float8 weights here and not Keras' training in float8.
        """
        # Keras wraps this method: `config` is never None, it stands for `mode` where none was given.
        stated = {key: value for key, value in options.items() if value is not None}
        quantization.quantize(self, mode, **quantization.read_keras_config(config) | stated)

    @classmethod
    def from_preset(cls, preset: str, load_weights: bool = True, **kwargs) -> LlamaBackbone:
        """The backbone of a preset.

        Args:
            preset: a key of `presets`, `kaggle://...`, `hf://...`, a local folder in KerasHub's or Hugging Face's
                format, or a `.gguf` file.
            load_weights: false: the preset's architecture with random weights.
            **kwargs: constructor arguments. `dtype`, `dropout`, `name` and `trainable` are free; `quantization` stores
                a floating-point preset in a small type while it is read. Another architecture than the preset's is an
                error, except that values which KerasHub's presets are known to state wrongly (epsilon, rope scaling)
                may be corrected.

        Raises:
            InputError: the preset could not be had, is damaged, or does not fit `kwargs`.
        """
        from llama_exp import preset as presets
        from llama_exp.models import build

        return build.load(cls, presets.resolve(str(preset), load_weights).path, load_weights, **kwargs)

    def save_to_preset(self, preset_dir: str | Path, max_shard_size: float | None = 10) -> None:
        """Writes a preset that KerasHub and `from_preset` read. The folder appears complete or not at all.

        Args:
            preset_dir: a folder that does not exist, is empty, or holds a model, which is replaced.
            max_shard_size: GiB per weight file; None: one file.

        Raises:
            ValueError: the backbone has adapters.
            StorageError: the folder is not replaceable or cannot be written.
        """
        from llama_exp.models import weights

        weights.save(self, Path(preset_dir), max_shard_size)

    @staticmethod
    def get_layout_map(device_mesh, model_parallel_dim_name: str = "model", data_parallel_dim_name: str = "batch"):
        """How the variables are spread over `device_mesh`, for `keras.distribution.ModelParallel` (JAX only)."""
        return layout_map(device_mesh, model_parallel_dim_name, data_parallel_dim_name)

    def get_config(self) -> dict:
        """All constructor arguments under their newer names, as plain data; `from_config` rebuilds the same model.

        Adapters are described, without their values, as weights are not part of it either.
        KerasHub's constructor takes those in `CONFIG_KEYS`.
        """
        config = {"name": self.name, "trainable": self.trainable, "dtype": backend.serialized_policy(self.dtype_policy)}
        config |= {key: getattr(self, key) for key in (*CONFIG_KEYS, *INITIALIZER_RANGES, *PARAMETRIZATION)}
        config["seed"] = self._given_seed
        config["quantization"] = self.quantization and to_section(self.quantization)
        return config | {"adapters": lora.describe(self)}

    def save_own_variables(self, store) -> None:
        """Writes what the weights are, for whoever loads them into another model; their layers write them."""
        write_form(store, self.get_config())

    def load_own_variables(self, store) -> None:
        """Fails if a file's weights are those of other adapters, or stored in another way, than this model's."""
        require_form(store, self.get_config())

    def _output_form(self):
        return self.hidden_dim, self.compute_dtype
