"""llama.cpp loads what `--format gguf` writes, and continues texts with the same tokens as this project.

Run with `pytest -m llama_cpp`. llama.cpp comes as llama-cpp-python, in these tests' environment or in another one,
whose interpreter the environment variable LLAMA_EXP_LLAMA_CPP names (it needs nothing else of this project). Tests
are skipped where there is neither.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf_texts import TEXTS
from small_models import TEMPLATE, make, make_run, with_adapters
from small_tokenizers import sentence_piece_model
from smollm2 import find_smollm2
from whole_runs import run_here

from llama_exp import cli
from llama_exp.commands.sources import find, load_tokenizer, opened
from llama_exp.formats import open_checkpoint
from llama_exp.models import LlamaCausalLM
from llama_exp.tokenizer.chat_template import render
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

pytestmark = pytest.mark.llama_cpp

SCRIPT = Path(__file__).with_name("llama_cpp_process.py")
NEW_TOKENS = 24
QUESTIONS = ("What is the capital of France?", "Name a fruit.", "Write a haiku about rain.")
CHATS = [[{"role": "user", "content": question}] for question in QUESTIONS]
SENTENCES = "A fox is not a dog.\n\nThe sun is 150 million kilometres away, isn't it?\n\n" * 30


@pytest.fixture(scope="module")
def interpreter():
    named = os.environ.get("LLAMA_EXP_LLAMA_CPP")
    if named is None and importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not here: pip install llama-cpp-python, or set LLAMA_EXP_LLAMA_CPP")
    return named or sys.executable


def ask(interpreter, file, texts=(), prompts=(), chats=(), new_tokens=NEW_TOKENS):
    """Ids of texts; ids of prompts and conversations, and the tokens that follow."""
    question = {"file": str(file), "texts": texts, "prompts": prompts, "chats": chats, "new_tokens": new_tokens}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [interpreter, SCRIPT], input=json.dumps(question), capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    assert stop.value.code == 0


def ours(model, ids, stops):
    """The likeliest tokens, up to where llama.cpp would stop."""
    found = model.generate(np.array(ids), max_length=len(ids) + NEW_TOKENS, stop_token_ids=None)
    new = np.asarray(found).reshape(-1)[len(ids) :].tolist()
    end = next((number for number, id_ in enumerate(new) if id_ in stops), NEW_TOKENS)
    return new[:end]


def compare(interpreter, file, model, prompts, texts=()):
    """Ids of texts, begin token included; and the tokens that follow prompts."""
    answer, tokenizer = ask(interpreter, file, texts, prompts), model.tokenizer
    for text, theirs in zip([*texts, *prompts], answer["texts"] + answer["prompts"], strict=True):
        front = [] if tokenizer.begin_id is None else [tokenizer.begin_id]
        assert theirs["ids"] == front + tokenizer.encode(text), text
    for text, theirs in zip(prompts, answer["prompts"], strict=True):
        assert theirs["new"] == ours(model, theirs["ids"], answer["stops"]), text
    assert set(tokenizer.stop_ids) <= set(answer["stops"])
    assert answer["begins"] == (tokenizer.begin_id is not None)


def test_a_model_that_was_trained_here_with_its_own_tokenizer(tmp_path, interpreter):
    (tmp_path / "text.txt").write_text(SENTENCES)
    options = ("tokenizer=bpe", "tokenizer.vocabulary_size=300", "model.vocabulary_size=304")
    run_here(tmp_path, *options, "trainer.max_steps=30", f"hydra.run.dir={tmp_path}/run")
    run("convert", "--from", tmp_path / "run", "--to", tmp_path / "out", "--format", "gguf")
    model = LlamaCausalLM.from_preset(tmp_path / "run/model", dtype="float32")
    compare(interpreter, tmp_path / "out/model-F32.gguf", model, ["A fox is", "The sun"], TEXTS[:150])


@pytest.mark.parametrize("name", ["llama_3_1", "linear_scaling", "tied", "multi_query"])
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_architectures(name, dtype, tmp_path, interpreter):
    """Also Llama 3.1's frequencies, linear scaling, one head for all keys, tied embeddings; with the byte tokenizer."""
    make(tmp_path / "base", name=name, num_layers=2)
    run("convert", "--from", tmp_path / "base", "--to", tmp_path / "h", "--format", "keras_hub", "--dtype", dtype)
    options = ("--format", "gguf", "--dtype", dtype, "--context-length", "512")
    run("convert", "--from", tmp_path / "h", "--to", tmp_path / "out", *options)
    model = LlamaCausalLM.from_preset(tmp_path / "h", dtype="float32")
    prompts = ["Hello", "a longer text, with 20 tokens and more than that", "é 漢"]
    compare(interpreter, tmp_path / f"out/model-{dtype}.gguf", model, prompts)


def test_a_sentence_piece_model(tmp_path, interpreter):
    tokenizer = SentencePieceTokenizer(sentence_piece_model(), TEMPLATE)
    make(tmp_path / "base", tokenizer=tokenizer, vocabulary_size=tokenizer.vocabulary_size + 3)
    run("convert", "--from", tmp_path / "base", "--to", tmp_path / "out", "--format", "gguf", "--context-length", 512)
    model = LlamaCausalLM.from_preset(tmp_path / "base", dtype="float32")
    texts = [text for text in TEXTS if text and "\x00" not in text][:150]
    compare(interpreter, tmp_path / "out/model-F32.gguf", model, ["the fox", "a dog: ed"], texts)


@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_0", "Q4_1"])
def test_blocks(dtype, tmp_path, interpreter):
    """llama.cpp decodes our blocks as we do: the tokens of the decoded weights; it rounds activations, so only few."""
    make(tmp_path / "base", name="llama_3_1", intermediate_dim=96)
    options = ("--format", "gguf", "--dtype", dtype, "--context-length", "512")
    run("convert", "--from", tmp_path / "base", "--to", tmp_path / "out", *options)
    file = tmp_path / f"out/model-{dtype}.gguf"
    model = LlamaCausalLM.from_preset(file, dtype="float32")
    answer = ask(interpreter, file, prompts=["Hello there"], new_tokens=1)
    assert answer["prompts"][0]["new"] == ours(model, answer["prompts"][0]["ids"], answer["stops"])[:1]


def test_a_quantized_runs_adapter(tmp_path, interpreter):
    """The sum of what int8 stands for and the adapter."""
    make(tmp_path / "base")
    model = with_adapters(LlamaCausalLM.from_preset(tmp_path / "base", dtype="float32"))
    make_run(tmp_path / "run", tmp_path / "base", model, quantization={"mode": "none"})
    run("merge", tmp_path / "run", "--to", tmp_path / "out", "--format", "gguf", "--context-length", "512")
    compare(interpreter, tmp_path / "out/model-F32.gguf", model, ["Hello", "Why not?"])


@pytest.mark.pretrained
@pytest.mark.parametrize("form", ["F32", "F16"])
def test_a_fine_tuned_smollm2_answers_as_it_does_here(form, tmp_path, interpreter):
    """The same prompt by the chat template, the same ids, the same tokens."""
    answers = ("Paris, as each of us knows.", "A quince.", "Rain on a tin roof.")
    rows = [[*chat, {"role": "assistant", "content": text}] for chat, text in zip(CHATS, answers, strict=True)]
    lines = [json.dumps({"messages": messages}) for messages in rows] * 4
    (tmp_path / "chats.jsonl").write_text("\n".join(lines))
    run_here(
        tmp_path,
        "model=smollm2_135m",
        f"runtime.backend={os.environ['KERAS_BACKEND']}",
        f"preset.source={find_smollm2()}",
        "dataset=jsonl",
        f"dataset.files={tmp_path}/chats.jsonl",
        "dataset.validation_fraction=0.2",
        "dataset.chat_template=model",
        "lora.rank=4",
        "trainer.batch_size=1",
        "trainer.accumulation_steps=1",
        "trainer.max_steps=6",
        f"hydra.run.dir={tmp_path}/run",
        small=False,
    )
    run("merge", tmp_path / "run", "--to", tmp_path / "h", "--format", "hf", "--dtype", form)
    run("merge", tmp_path / "run", "--to", tmp_path / "out", "--format", "gguf", "--dtype", form)
    source = find(str(tmp_path / "run"))
    tokenizer = load_tokenizer(source)
    model = LlamaCausalLM.from_preset(tmp_path / "h", dtype="float32")
    answer = ask(interpreter, tmp_path / f"out/model-{form}.gguf", chats=CHATS)
    for messages, theirs in zip(CHATS, answer["chats"], strict=True):
        prompt = render(messages, tokenizer.chat_template, bos_token="<|im_start|>", eos_token="<|im_end|>")
        assert theirs["prompt"] == prompt
        assert theirs["ids"] == tokenizer.encode_with_special_tokens(prompt)
        assert theirs["new"] == ours(model, theirs["ids"], answer["stops"]), messages
    with opened(source) as base, open_checkpoint(tmp_path / f"out/model-{form}.gguf") as written:
        assert base.context_length == written.context_length
