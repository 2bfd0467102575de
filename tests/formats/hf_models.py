"""transformers' `LlamaForCausalLM` as the oracle: made from a tiny config, saved and loaded by its own code."""

import functools
import logging

import numpy as np
import oracles
from tiny_configs import stored_dtype


@functools.cache
def frameworks():
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def torch_dtype(name):
    """In which `TINY_CONFIGS[name]` is stored."""
    return getattr(frameworks()[0], stored_dtype(name).name)


def random_model(name, config):
    """A float32 model of `TINY_CONFIGS[name]`, its weights large, and exact in the type they are stored in."""
    torch, transformers = frameworks()
    torch.manual_seed(len(name))
    model = transformers.LlamaForCausalLM(oracles._transformers_config(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.15).add_(parameter.ndim == 1)
            parameter.copy_(parameter.to(torch_dtype(name)))
    return model.eval()


def load(folder):
    """What transformers makes of a folder, in float32; every tensor of the files used, none missing."""
    torch, transformers = frameworks()
    model, report = transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()


def state(model):
    """The tensors of a model by name, float32."""
    return {name: value.detach().float().numpy() for name, value in model.state_dict().items()}


def token_ids(config):
    return np.random.default_rng(1).integers(0, config["vocabulary_size"], (2, 24)).astype("int32")


def logits(model, ids):
    """(B, S, V), computed in float32."""
    torch, _ = frameworks()
    with torch.no_grad():
        return model(torch.tensor(ids, dtype=torch.int64)).logits.numpy()
