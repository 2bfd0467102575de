"""`tokenizer.json` files: special tokens from the configs beside them, continuations, round trip."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from llama_exp.errors import InputError
from llama_exp.tokenizer import byte_pair, load
from llama_exp.tokenizer.assets import load_hugging_face
from llama_exp.tokenizer.hugging_face import HuggingFaceTokenizer


def byte_level(special):
    """A byte-level tokenizer.json with Llama 3's split pattern and the given special tokens."""
    ours = byte_pair.train(["the cat sat on the mat"] * 5, 270)
    vocabulary = {token: id_ for token, id_ in ours._vocabulary.items() if id_ < 264}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=ours._merges))
    tokenizer.pre_tokenizer = byte_pair._pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer, ours


def llama_2_like():
    """Llama 2's layout: U+2581 put in front, spaces replaced, bytes as fallback."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for piece in [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab"]:
        vocabulary[piece] = len(vocabulary)
    model = models.BPE(
        vocab=vocabulary,
        merges=[("▁", "a"), ("a", "b"), ("▁", "ab"), ("▁a", "b")],
        byte_fallback=True,
        unk_token="<unk>",
        fuse_unk=True,
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def test_ids_equal_those_of_our_own_tokenizer_and_text_makes_no_special_token(tmp_path):
    theirs, ours = byte_level(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    loaded = load_hugging_face(tmp_path / "tokenizer.json")
    for text in ("the cat", " sat\n\n on", "é😀", "a<|end_of_text|>b"):
        assert loaded.encode(text) == ours.encode(text) == loaded.encode(text, continuation=True)
        assert loaded.decode(loaded.encode(text)) == text
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id) == (264, 265, None)
    assert loaded.stop_ids == (265, 266)
    assert loaded.vocabulary_size == 267
    assert loaded.special_id("<|eot_id|>") == 266
    assert loaded.decode([265, 267], skip_special_tokens=False) == "<|end_of_text|>[no token: 267]"


def test_begin_and_end_come_from_the_configs_beside_it(tmp_path):
    theirs, _ = byte_level(["<one>", "<two>", "<three>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert load_hugging_face(tmp_path / "tokenizer.json").bos_id is None
    (tmp_path / "generation_config.json").write_text(json.dumps({"bos_token_id": 264, "eos_token_id": [266, 265]}))
    loaded = load_hugging_face(tmp_path / "tokenizer.json")
    assert (loaded.bos_id, loaded.eos_id, loaded.stop_ids) == (264, 266, (266, 265))
    named = {"bos_token": "<two>", "eos_token": {"content": "<three>"}, "pad_token": "<one>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    loaded = load_hugging_face(tmp_path / "tokenizer.json")
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id) == (265, 266, 264)


def test_a_continuation_gets_no_space_in_front(tmp_path):
    llama_2_like().save(str(tmp_path / "tokenizer.json"))
    loaded = load_hugging_face(tmp_path / "tokenizer.json")
    assert loaded.encode("ab ab") == loaded.encode("ab") + loaded.encode(" ab", continuation=True)
    assert loaded.decode(loaded.encode("ab") + loaded.encode("ab", continuation=True)) == "abab"
    assert (loaded.bos_id, loaded.eos_id) == (1, 2)


def test_save_and_load_give_the_same_tokenizer(tmp_path):
    llama_2_like().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "</s>"}))
    loaded = load_hugging_face(tmp_path / "tokenizer.json")
    loaded.save(tmp_path / "copy")
    again = load(tmp_path / "copy")
    assert (again.fingerprint, again.bos_id) == (loaded.fingerprint, 2)


def test_metaspace_is_known_too():
    from llama_exp.tokenizer.hugging_face import HuggingFaceTokenizer

    tokenizer = llama_2_like()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    loaded = HuggingFaceTokenizer(tokenizer.to_str(), {}, {})
    assert loaded.encode("ab ab") == loaded.encode("ab") + loaded.encode(" ab", continuation=True)


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("tokenizer.json", "{", "tokenizer.json"),
        ("tokenizer.json", '{"model": 1}', "tokenizer.json"),
        ("tokenizer_config.json", '{"eos_token": 3}', "tokenizer.json"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, where):
    llama_2_like().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        load_hugging_face(tmp_path / "tokenizer.json")
    assert caught.value.problems[0].where == str(tmp_path / where)


@pytest.mark.parametrize(
    ("stated", "template", "begins"),
    [(None, True, True), (None, False, False), (False, True, True), (True, False, False)],
)
def test_the_begin_token_stands_where_the_model_expects_it(stated, template, begins):
    """SmolLM2 names a begin token and never puts one in front of a text; transformers 5 asks tokenizer.json only."""
    document = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": 0,
                "content": "<s>",
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        ],
        "model": {"type": "WordLevel", "vocab": {"<s>": 0, "a": 1}, "unk_token": "a"},
    }
    if template:
        document["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
        }
    config = {"bos_token": "<s>"} | ({} if stated is None else {"add_bos_token": stated})
    tokenizer = HuggingFaceTokenizer(json.dumps(document), config, {})
    assert (tokenizer.bos_id, tokenizer.begin_id) == (0, 0 if begins else None)
