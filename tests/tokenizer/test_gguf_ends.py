"""Begin, end, pad and stop tokens of GGUF files: llama.cpp's rules, as `src/llama-vocab.cpp` has them."""

import numpy as np
import pytest
from gguf_writer import gguf_bytes

from llama_exp.errors import InputError
from llama_exp.tokenizer import byte_pair, load

PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b"]  # 262
BYTES = list(byte_pair.byte_tokens())  # 256


def written(tmp_path, kind, added=(), types=None, **keys):
    """A GGUF file with more tokens, control tokens unless `types` says otherwise."""
    base, of_base = (PIECES, [2, 3, 3, *[6] * 256, 1, 1, 1]) if kind == "llama" else (BYTES, [1] * 256)
    metadata = {
        "model": kind,
        "tokens": [*base, *added],
        "token_type": np.array([*of_base, *(types or [3] * len(added))], "i4"),
    }
    metadata |= (
        {"scores": np.zeros(len(base) + len(added), "f4")} if kind == "llama" else {"pre": "gpt-2", "merges": []}
    )
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes({f"tokenizer.ggml.{key}": value for key, value in (metadata | keys).items()}, {}))
    return path


# added tokens, keys -> begin in front of a text, begin, end, pad, stop
PIECE_CASES = {
    "no keys": ((), {}, (1, 1, 2, None, {2})),
    "no begin": ((), {"add_bos_token": False}, (None, 1, 2, None, {2})),
    "begin": ((), {"add_bos_token": True}, (1, 1, 2, None, {2})),
    "other ids": ((), {"bos_token_id": 2, "eos_token_id": 1, "padding_token_id": 0}, (2, 2, 1, 0, {1, 2})),
    "end of a turn by key": (("<turn>",), {"eot_token_id": 262}, (1, 1, 2, None, {2, 262})),
    "end of a message by key": (("<m>",), {"eom_token_id": 262}, (1, 1, 2, None, {2, 262})),
    "by name": (("<|im_end|>", "<other>", "<end_of_turn>"), {}, (1, 1, 2, None, {2, 262, 264})),
    "pad of code by name": (("<PAD>", "[PAD]", "<REPO>", "<|file_sep|>"), {}, (1, 1, 2, None, {2, 262, 264, 265})),
    "pad of code by key": (("<x>", "[PAD]"), {"fim_pad_token_id": 262}, (1, 1, 2, None, {2, 262})),
    "add_eos_token adds nothing to a prompt": ((), {"add_eos_token": True}, (1, 1, 2, None, {2})),
}
BYTE_CASES = {
    "no keys": ((), {}, (None, None, None, None, set())),
    "ids": (
        ("<b>", "<e>", "<p>"),
        {"bos_token_id": 256, "eos_token_id": 257, "padding_token_id": 258},
        (None, 256, 257, 258, {257}),
    ),
    "begin": (("<b>",), {"bos_token_id": 256, "add_bos_token": True}, (256, 256, None, None, set())),
    "Llama 3's split begins": (("<b>",), {"bos_token_id": 256, "pre": "llama-bpe"}, (256, 256, None, None, set())),
    "Llama 3's split without": (
        ("<b>",),
        {"bos_token_id": 256, "pre": "llama-bpe", "add_bos_token": False},
        (None, 256, None, None, set()),
    ),
    "by name": (
        ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "[EOS]", "<eos>"),
        {"eos_token_id": 257},
        (None, None, 257, None, {256, 257, 258, 259, 260}),
    ),
    "a part of a turn": (
        ("<|return|>", "<|call|>", "<|end|>"),
        {"eos_token_id": 256},
        (None, None, 256, None, {256, 257}),
    ),
    "a turn": (("<|return|>", "<|end|>"), {"eos_token_id": 256}, (None, None, 256, None, {256, 257})),
    "an answer of a tool": (
        ("</s>", "<|tool_response>", "<eos>"),
        {"eos_token_id": 258},
        (None, None, 258, None, {257, 258}),
    ),
}


def answers(tokenizer):
    return tokenizer.begin_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, set(tokenizer.stop_ids)


@pytest.mark.parametrize(
    ("kind", "case"),
    [("llama", case) for case in PIECE_CASES.values()] + [("gpt2", case) for case in BYTE_CASES.values()],
    ids=[f"pieces, {name}" for name in PIECE_CASES] + [f"bytes, {name}" for name in BYTE_CASES],
)
def test_begin_end_pad_and_stop(kind, case, tmp_path):
    added, keys, expected = case
    tokenizer = load(written(tmp_path, kind, added, **keys))
    assert answers(tokenizer) == expected
    tokenizer.save_hugging_face(tmp_path / "hugging_face")
    tokenizer.save(tmp_path / "keras_hub")
    for name in ("hugging_face", "keras_hub"):
        assert answers(load(tmp_path / name)) == expected, name


@pytest.mark.parametrize("type_", [1, 4, 5], ids=["normal", "user-defined", "unused"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_stop_token_of_another_type_is_a_control_token(kind, type_, tmp_path):
    tokenizer = load(written(tmp_path, kind, ("<|im_end|>",), [type_]))
    (stop,) = set(tokenizer.stop_ids) - {2}
    assert stop not in tokenizer.encode("a<|im_end|>b") and tokenizer.special_id("<|im_end|>") == stop


def test_the_unknown_token_by_key(tmp_path):
    path = written(tmp_path, "llama", unknown_token_id=0, token_type=np.array([1, 3, 3, *[6] * 256, 1, 1, 1], "i4"))
    assert 0 not in load(path).encode("a<unk>")


@pytest.mark.parametrize(
    "key", ["bos_token_id", "eos_token_id", "padding_token_id", "eot_token_id", "fim_rep_token_id"]
)
def test_an_id_outside_is_refused(key, tmp_path):
    with pytest.raises(InputError, match=f"{key} is not in the vocabulary"):
        load(written(tmp_path, "llama", **{key: 10**6}))
