"""Tiny models in folders, written without any framework; and a run on one of them."""

import json
from pathlib import Path

import numpy as np
import yaml
from tiny_configs import TINY_CONFIGS, as_tensors, random_arrays

from llama_exp.formats.hugging_face import checkpoint as hugging_face
from llama_exp.formats.keras_hub import checkpoint as keras_hub
from llama_exp.tokenizer import byte_pair

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
TOKENIZER = byte_pair.from_merges([])
TOKENIZER = byte_pair.BytePairTokenizer(TOKENIZER._vocabulary, [], TEMPLATE, {"eos_token_id": [257, 260]})


def config(name: str = "grouped_query", **changes) -> dict:
    """A tiny config with room for the byte tokenizer."""
    return TINY_CONFIGS[name] | {"vocabulary_size": TOKENIZER.vocabulary_size} | changes


def make(folder: Path, form: str = "keras_hub", tokenizer=TOKENIZER, dtype=np.float32, seed=0, **changes) -> dict:
    """Writes a model with random weights and returns its arrays by path."""
    folder.mkdir(parents=True)
    architecture = config(**changes)
    arrays = random_arrays(architecture, dtype, seed)
    if form == "keras_hub":
        if tokenizer is not None:
            tokenizer.save(folder)
        keras_hub.write(folder, architecture, as_tensors(arrays))
    else:
        if tokenizer is not None:
            tokenizer.save_hugging_face(folder)
        hugging_face.write(folder, architecture, as_tensors(arrays))
    return arrays


def with_adapters(model, **arguments):
    """The model with adapters that change it."""
    model.backbone.enable_lora(**{"rank": 3, "targets": ["all-linear"], **arguments})
    generator = np.random.default_rng(0)
    for variable in model.backbone.trainable_variables:
        variable.assign(generator.normal(0, 0.3, variable.shape).astype("float32"))
    return model


def make_run(path, base, model=None, policy="float32", quantization=None, **dataset) -> None:
    """A finished run's folder, as `llama_exp.run.job` leaves it; with the adapters of `model`, if there is one."""
    from llama_exp import lora

    path.mkdir()
    record = {"preset": {"source": str(base), "origin": str(base), "revision": None}}
    (path / "run.json").write_text(json.dumps(record))
    content = {
        "preset": {"source": str(base), "load_weights": True},
        "model": {"_target_": "llama_exp.models.LlamaBackbone", **config()},
        "precision": {"policy": policy},
        "dataset": dataset,
    }
    if quantization is not None:
        content["quantization"] = quantization
    (path / "config.yaml").write_text(yaml.safe_dump(content))
    if model is not None:
        lora.save_adapter(model.backbone, path / "adapter")
