"""A Llama language model: backbone, output projection, tokenizer, generation.

Shape letters: B batch, S positions, D hidden_dim, V vocabulary.
"""

from __future__ import annotations

import logging
import numbers
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops

from llama_exp import preset as presets
from llama_exp.models import build, weights
from llama_exp.models.backbone import BuiltInPresets, LlamaBackbone
from llama_exp.models.generation import Generator
from llama_exp.models.keras_methods import DictModel, require_inputs
from llama_exp.models.sampling import sampler

# Positions whose logits `score` holds at a time; the whole (B, S, V) would dominate memory.
SCORE_POSITIONS = 128

logger = logging.getLogger(__name__)


@keras.saving.register_keras_serializable(package="llama_exp")
class LlamaCausalLM(DictModel):
    """Next-token logits over a `LlamaBackbone`, and text in and out where there is a tokenizer.

    Called on the backbone's input dict it returns logits (B, S, V) float32.

    Args:
        backbone: a `LlamaBackbone`; its `token_embedding` is the output projection too.
        tokenizer: an object with encode, decode, vocabulary_size, holes, begin_id and stop_ids (see
            llama_exp.tokenizer); None: token ids only.
        **kwargs: `name`, `trainable`.

    Attributes:
        presets: the built-in presets by id.
    """

    presets = BuiltInPresets()

    def __init__(self, backbone: LlamaBackbone, tokenizer=None, **kwargs):
        super().__init__(dtype=backbone.dtype_policy, **kwargs)
        self.backbone = backbone
        self.tokenizer = tokenizer
        self._generator = Generator(backbone)
        self.built = True

    def call(self, inputs, training=False):
        """Logits (B, S, V) float32 of a dict of integer tensors (B, S); see `LlamaBackbone`."""
        require_inputs(inputs)
        return self.backbone.token_embedding.project(self.backbone(inputs, training=training))

    @classmethod
    def from_preset(cls, preset: str | Path, load_weights: bool = True, dtype=None, **stated) -> LlamaCausalLM:
        """A model from a preset, with its tokenizer if it has one.

        Args:
            preset: a built-in id, `kaggle://...`, `hf://...`, a local folder in KerasHub's or Hugging Face's format,
                or a `.gguf` file.
            load_weights: false leaves random weights.
            dtype: Keras dtype policy; None: the global one.
            **stated: constructor arguments of the backbone, as in `LlamaBackbone.from_preset`.

        Raises:
            InputError: the preset could not be had or is not one.
        """
        path = presets.resolve(str(preset), load_weights).path
        backbone = build.load(LlamaBackbone, path, load_weights, dtype, **stated)
        from llama_exp.tokenizer import assets

        has_tokenizer = not path.is_dir() or assets.has_tokenizer(path)  # a .gguf file always has one
        return cls(backbone, assets.load(path) if has_tokenizer else None)

    def save_to_preset(self, preset_dir: str | Path, max_shard_size: float | None = 10) -> None:
        """Writes backbone and tokenizer as a preset that KerasHub and `from_preset` read.

        Args:
            preset_dir: a folder that does not exist, is empty, or holds a model, which is replaced.
            max_shard_size: GiB per weight file; None: one file.

        Raises:
            ValueError: the backbone has adapters.
            StorageError: the folder is not replaceable or cannot be written.
        """
        weights.save(self.backbone, Path(preset_dir), max_shard_size, self.tokenizer)

    def generate(
        self,
        prompts,
        max_length: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop_token_ids: Sequence[int] | str | None = "auto",
        seed: int = 0,
        special_tokens: bool = False,
        on_tokens: Callable[[np.ndarray], None] | None = None,
    ):
        """Continues prompts.

        Args:
            prompts: a text or a list of texts (the tokenizer encodes them and its begin token goes in front), a 1-D
                array of token ids, or a list of such arrays of any lengths.
            max_length: tokens of prompt and continuation together, in each row.
            temperature: logits are divided by it; 0 takes the likeliest token.
            top_k: draw among the k likeliest tokens only.
            top_p: draw among the likeliest tokens that together reach this probability.
            stop_token_ids: tokens that end a row. "auto": the tokenizer's (none without a tokenizer); None: none.
            seed: of the draws; the same seed gives the same tokens.
            special_tokens: names such as <|eot_id|> in a text stand for the special tokens, as in a chat that is
                written out, and a begin token that the text has is not put in front once more. Otherwise they are
                ordinary text.
            on_tokens: called with new tokens of all rows, (n, B) int32, as soon as they are there. What a row is given
                after its end is no part of it.

        Returns:
            Prompt and continuation, in the form of `prompts`: texts without special tokens, or int32 arrays, which
            keep the stop token.

        Raises:
            ValueError: an argument is impossible, or a prompt leaves no room below `max_length`.
        """
        if not isinstance(prompts, str) and len(prompts) == 0:
            raise ValueError("prompts is empty. Give at least one prompt.")
        is_text = isinstance(prompts, str) or all(isinstance(prompt, str) for prompt in prompts)
        is_single = isinstance(prompts, str) or (not is_text and np.ndim(prompts[0]) == 0)
        rows = [prompts] if is_single else list(prompts)
        token_ids = [self._encode(row, special_tokens) if is_text else _token_array(row) for row in rows]
        self._check_prompts(token_ids, max_length)
        if not isinstance(seed, numbers.Integral) or seed < 0:
            raise ValueError(f"seed={seed!r} must be a whole number of at least 0.")
        num_tokens = self._num_tokens()
        kind = sampler(temperature, top_k, top_p, num_tokens, self._holes(num_tokens))
        stops = self._stop_ids(stop_token_ids)
        outputs = self._generator.generate(token_ids, max_length, kind, temperature, top_p, stops, int(seed), on_tokens)
        results = [self.tokenizer.decode(output.tolist()) for output in outputs] if is_text else outputs
        return results[0] if is_single else results

    def score(self, token_ids, padding_mask=None):
        """Log-probability of every token given those before it in its row.

        Args:
            token_ids: integers (B, S).
            padding_mask: (B, S), non-zero for real tokens; padding may stand in front or behind. None: no padding.

        Returns:
            (B, S) float32 array; 0 for the first real token of a row, which nothing precedes, and for padding.
        """
        token_ids = np.asarray(token_ids, np.int32)
        mask = np.ones_like(token_ids) if padding_mask is None else (np.asarray(padding_mask) != 0).astype(np.int32)
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0).astype(np.int32)
        hidden_BSD = self.backbone({"token_ids": token_ids, "padding_mask": mask, "position_ids": positions})
        scores = np.zeros(token_ids.shape, np.float32)
        for start in range(0, token_ids.shape[1] - 1, SCORE_POSITIONS):
            targets = token_ids[:, start + 1 : start + 1 + SCORE_POSITIONS]
            logits = self.backbone.token_embedding.project(hidden_BSD[:, start : start + targets.shape[1]])
            target_logits = ops.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
            values = target_logits - ops.logsumexp(logits, axis=-1)
            scores[:, start + 1 : start + 1 + targets.shape[1]] = ops.convert_to_numpy(values)
        scores[:, 1:] *= mask[:, 1:] * mask[:, :-1]
        return scores

    def quantize(self, mode=None, config=None, **options) -> None:
        """Quantizes the backbone, see `LlamaBackbone.quantize`: it has all layers, the output matrix among them."""
        # Keras makes a `config` for a mode, and takes it back with that mode.
        self.backbone.quantize(mode, config, **options)

    def get_config(self) -> dict:
        """The backbone's class and constructor arguments; a tokenizer is an asset, see `save_assets`."""
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {"backbone": backbone, "name": self.name, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict) -> LlamaCausalLM:
        """A model with the architecture of `get_config`, without tokenizer."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"])
        return cls(backbone, **{key: value for key, value in config.items() if key != "backbone"})

    def save_assets(self, dir_path: str) -> None:
        """Writes the tokenizer into a `.keras` file, as it lies in a preset."""
        if self.tokenizer is not None:
            self.tokenizer.save(Path(dir_path))

    def load_assets(self, dir_path: str) -> None:
        """Reads the tokenizer of a `.keras` file, if it has one."""
        from llama_exp.tokenizer import assets

        if assets.has_tokenizer(Path(dir_path)):
            self.tokenizer = assets.load(dir_path)

    def _output_form(self):
        return self.backbone.vocabulary_size, "float32"

    def _encode(self, text: str, special_tokens: bool = False) -> np.ndarray:
        if self.tokenizer is None:
            raise ValueError("prompts are text, but the model has no tokenizer. Give one, or give token ids.")
        plain, special = self.tokenizer.encode(text), self.tokenizer.encode_with_special_tokens(text)
        if plain != special and not special_tokens:
            names = [self.tokenizer.decode([id_], skip_special_tokens=False) for id_ in {*special} - {*plain}]
            logger.warning(
                "a prompt has the names of special tokens (%s), which are read as text; special_tokens=True makes them "
                "the tokens, as KerasHub does",
                ", ".join(sorted(names)[:5]),
            )
        ids, begin = special if special_tokens else plain, self.tokenizer.begin_id
        return np.array(ids if begin is None or ids[:1] == [begin] else [begin, *ids], np.int32)

    def _check_prompts(self, prompts: list[np.ndarray], max_length: int) -> None:
        if not isinstance(max_length, numbers.Integral) or isinstance(max_length, bool):
            raise ValueError(f"max_length={max_length!r} must be a whole number of tokens.")
        vocabulary_size = self.backbone.vocabulary_size
        for row, prompt in enumerate(prompts):
            if len(prompt) == 0:
                raise ValueError(f"prompts[{row}] has no tokens. Give at least one.")
            if len(prompt) >= max_length:
                raise ValueError(
                    f"prompts[{row}] has {len(prompt)} tokens, which leaves no room in max_length={max_length} "
                    f"(it counts the prompt). Set max_length to {len(prompt) + 1} or more, or shorten the prompt."
                )
            outside = prompt[(prompt < 0) | (prompt >= vocabulary_size)]
            if len(outside):
                raise ValueError(
                    f"prompts[{row}] has token {outside[0]}, outside of the vocabulary of {vocabulary_size}. "
                    "Use the tokenizer that belongs to the model."
                )

    def _num_tokens(self) -> int:
        """Ids that may be generated: those that the tokenizer knows, if the model has more."""
        size = self.backbone.vocabulary_size
        return size if self.tokenizer is None else min(size, self.tokenizer.vocabulary_size)

    def _holes(self, num_tokens: int) -> tuple[int, ...]:
        """Ids below `num_tokens` that the tokenizer has no token for; one of somebody else's may not say."""
        return tuple(id_ for id_ in getattr(self.tokenizer, "holes", ()) if id_ < num_tokens)

    def _stop_ids(self, stop_token_ids) -> list[int]:
        if stop_token_ids is None:
            return []
        if isinstance(stop_token_ids, str):
            if stop_token_ids != "auto":
                raise ValueError(f"stop_token_ids={stop_token_ids!r} must be 'auto', None or a list of token ids.")
            return [] if self.tokenizer is None else list(self.tokenizer.stop_ids)
        return [int(token_id) for token_id in stop_token_ids]


def _token_array(row) -> np.ndarray:
    array = np.asarray(row)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(
            f"prompts must be text or 1-D arrays of token ids, not an array of shape {array.shape} and "
            f"type {array.dtype}."
        )
    return array.astype(np.int32)
