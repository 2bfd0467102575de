"""A trainer of a model that is as small as can be, on rows that it can learn, and ways to cut its run."""

from __future__ import annotations

import os
import signal

import keras
import numpy as np
from keras import ops
from trainer_doubles import MemoryExamples, Recorder
from updates import make as make_optimizer

from llama_exp import schedule
from llama_exp.files.process import ALONE
from llama_exp.models import LlamaBackbone, LlamaCausalLM
from llama_exp.trainer import Checkpoints, Trainer

V, S = 32, 8
TIME_FIELDS = {"seconds", "tokens_per_second", "mfu", "peak_memory_bytes"}


class Letters:
    """A tokenizer of 32 characters."""

    vocabulary_size, begin_id, eos_id, pad_id, stop_ids = V, 0, 1, None, ()

    def encode(self, text):
        return [ord(character) % V for character in text]

    def decode(self, ids):
        return "".join(chr(64 + token) for token in ids)


def trainer(
    folder,
    *,
    lora=False,
    dora=False,
    quantize=None,
    loss_scale=None,
    dropout=0.0,
    prompts=(),
    observers=None,
    rate=0.02,
    keep=2,
    rates=None,
    process=ALONE,
    optimizer="adamw",
    **options,
):
    keras.utils.set_random_seed(5)
    shape = {"num_layers": 1, "num_query_heads": 2, "hidden_dim": 16, "intermediate_dim": 24}
    shape |= {"num_key_value_heads": 1, "tie_word_embeddings": True, "dropout": dropout}
    backbone = LlamaBackbone(vocabulary_size=V, **shape, dtype="mixed_float16" if loss_scale else "float32")
    if quantize:
        backbone.quantize(quantize)
    if lora or dora:
        rank_pattern = {"value": 3} if dora else None
        backbone.enable_lora(rank=2, dropout=dropout, use_dora=dora, rank_pattern=rank_pattern)
    # XLA takes seconds for each float16 program on a CPU.
    plain = loss_scale is not None and keras.backend.backend() == "tensorflow"
    options = {
        "seed": 3,
        "jit": "false" if plain else "auto",
        "chunk_tokens": 16,
        "max_steps": 6,
        "batch_size": 4,
        "accumulation_steps": 1,
        "log_every_steps": 1,
        "validate_every_steps": 3,
        "validation_batches": None,
        "checkpoint_every_steps": 2,
        "sample_prompts": prompts,
        "sample_tokens": 5,
        "sample_temperature": 0.8,
    } | options
    rates = rates or schedule.cosine(learning_rate=rate, num_steps=6, warmup_steps=2, final_fraction=0.1)
    optimizer = make_optimizer(optimizer, learning_rate=rates, weight_decay=0.1, global_clipnorm=1.0)
    if loss_scale:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=loss_scale)
    examples = {"train": MemoryExamples(10, V, S, seed=0), "validation": MemoryExamples(7, V, S, seed=1)}
    checkpoints = Checkpoints(folder, keep=keep, config_hash="c", facts={"threads": 2}, process=process)
    recorder = Recorder()
    observers = {"recorder": recorder} | (observers or {})
    run = Trainer(
        LlamaCausalLM(backbone, Letters()),
        examples,
        optimizer,
        checkpoints=checkpoints,
        observers=observers,
        process=process,
        **options,
    )
    return run, backbone, optimizer, recorder


def numbers(backbone, optimizer):
    variables = [*backbone.weights, *backbone.non_trainable_variables, *optimizer.variables]
    return [np.asarray(ops.convert_to_numpy(variable)).copy() for variable in variables]


def without_times(rows):
    return [{key: value for key, value in row.items() if key not in TIME_FIELDS} for row in rows]


def stop_at(step, action):
    """An observer that acts at the train row of a step, once."""

    def act(row):
        if row["split"] == "train" and row["step"] == step:
            action()

    return {"stop": Recorder(at_row=act)}


def crash():
    raise RuntimeError("power cut")


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
