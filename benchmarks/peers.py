"""The same Llama with random weights in three libraries, and one optimizer step of it in each.

Every step takes the same batch: a dict of arrays (B, S) with token_ids, position_ids, segment_ids, padding_mask, labels
and loss_mask, as `llama_exp.dataset.Examples` gives them; each library uses what it knows. AdamW, gradients clipped to
a global norm of 1, the loss over the positions that count.
"""

from __future__ import annotations

import os

import numpy as np

LLAMA_15M = {
    "vocabulary_size": 32000,
    "num_layers": 6,
    "num_query_heads": 6,
    "hidden_dim": 288,
    "intermediate_dim": 768,
    "num_key_value_heads": 6,
    "tie_word_embeddings": True,
}
SMOLLM2_135M = {
    "vocabulary_size": 49152,
    "num_layers": 30,
    "num_query_heads": 9,
    "hidden_dim": 576,
    "intermediate_dim": 1536,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
IMPORTS = {
    "llama_exp": ("llama_exp.models", "llama_exp.optimizer", "llama_exp.trainer.step"),
    "keras_hub": ("keras_hub",),
    "transformers": ("torch", "transformers.models.llama", "peft"),
}


def block_parameters(shape: dict) -> int:
    """Numbers in the matrices of all blocks, which every token is multiplied with."""
    width = shape["hidden_dim"]
    narrow = width // shape["num_query_heads"] * shape["num_key_value_heads"]
    return shape["num_layers"] * (2 * width * width + 2 * width * narrow + 3 * width * shape["intermediate_dim"])


def table_parameters(shape: dict) -> int:
    """Numbers in the embedding table, which is the output matrix too."""
    return shape["vocabulary_size"] * shape["hidden_dim"]


def random_batch(generator: np.random.Generator, vocabulary_size: int, batch_size: int, length: int) -> dict:
    """Full rows of random tokens."""
    token_ids = generator.integers(0, vocabulary_size, (batch_size, length + 1)).astype(np.int32)
    ones = np.ones((batch_size, length), np.int32)
    return {
        "token_ids": token_ids[:, :-1].copy(),
        "position_ids": np.broadcast_to(np.arange(length, dtype=np.int32), ones.shape).copy(),
        "segment_ids": ones,
        "padding_mask": ones,
        "labels": token_ids[:, 1:].copy(),
        "loss_mask": ones.astype(np.float32),
    }


def llama_exp_model(shape: dict, policy: str, rank: int = 0):
    from llama_exp.models import LlamaBackbone, LlamaCausalLM

    backbone = LlamaBackbone(**shape, dtype=policy)
    if rank:
        backbone.enable_lora(rank, alpha=16)
    return LlamaCausalLM(backbone)


def llama_exp_step(model, jit: bool):
    from llama_exp.optimizer import adamw
    from llama_exp.trainer.step import TrainStep

    optimizer = adamw(learning_rate=1e-4, weight_decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8, global_clipnorm=1.0)
    step = TrainStep(model.backbone, optimizer, chunk_tokens=1024, jit=jit)
    return lambda batch: step({key: value[None] for key, value in batch.items()}).loss


def keras_hub_model(shape: dict, policy: str, rank: int = 0):
    import keras
    import keras_hub

    keras.config.set_dtype_policy(policy)
    backbone = keras_hub.models.LlamaBackbone(**shape)
    if rank:
        backbone.enable_lora(rank)
    return keras_hub.models.LlamaCausalLM(backbone, preprocessor=None)


def keras_hub_step(model, jit: bool):
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=0.0, global_clipnorm=1.0)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit, sampler="greedy")

    def step(batch):
        inputs = {key: batch[key] for key in ("token_ids", "padding_mask")}
        return float(np.ravel(model.train_on_batch(inputs, batch["labels"], batch["loss_mask"]))[0])

    return step


def transformers_model(shape: dict, policy: str, rank: int = 0):
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = transformers.LlamaConfig(
        vocab_size=shape["vocabulary_size"],
        num_hidden_layers=shape["num_layers"],
        num_attention_heads=shape["num_query_heads"],
        hidden_size=shape["hidden_dim"],
        intermediate_size=shape["intermediate_dim"],
        num_key_value_heads=shape["num_key_value_heads"],
        tie_word_embeddings=shape["tie_word_embeddings"],
        eos_token_id=None,
    )
    model = transformers.LlamaForCausalLM(config).to(getattr(torch, policy))
    if rank:
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
    return model


def transformers_step(model, jit: bool):
    import torch

    if jit:
        raise ValueError("transformers has no contender with XLA")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    model.train()

    def step(batch):
        token_ids, mask = (torch.from_numpy(batch[key]).long() for key in ("token_ids", "padding_mask"))
        logits = model(input_ids=token_ids, attention_mask=mask).logits
        targets = torch.from_numpy(np.where(batch["loss_mask"] > 0, batch["labels"], -100)).long().reshape(-1)
        loss = torch.nn.functional.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


MODELS = {"llama_exp": llama_exp_model, "keras_hub": keras_hub_model, "transformers": transformers_model}
STEPS = {"llama_exp": llama_exp_step, "keras_hub": keras_hub_step, "transformers": transformers_step}
