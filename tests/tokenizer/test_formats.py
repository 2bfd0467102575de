"""Tokenizers from format to format: the same ids in transformers, in KerasHub's form and after every way back."""

import json
import logging

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import sentence_piece_model
from tokenizers import models, pre_tokenizers

from llama_exp.tokenizer import byte_pair, load
from llama_exp.tokenizer.hugging_face import HuggingFaceTokenizer
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

TEXTS = [
    "The quick brown fox, isn't it? 12345 fox's",
    "def f(x):\n\treturn  x  ** 2\n\n\n",
    "naïve façade Ωmega 漢字 ـعربي",
    "emoji 😀👩‍👩‍👧 \U0001f1eb\U0001f1f7 end",
    "   leading, trailing   \r\n\r\n  \u00a0\u2009 x",
    "a</s>b<unk><0x41>▁c <s>",
    "the the the dog's dogs jumped a fox, a dog: ed s",
    " ",
    "",
]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
GENERATION = {"bos_token_id": 1, "eos_token_id": [2, 5]}
BYTE_PAIR = byte_pair.train(TEXTS * 4, 360)
SENTENCE_PIECE = SentencePieceTokenizer(sentence_piece_model())


def exported(tokenizer, folder):
    """Our tokenizer after the way through Hugging Face's files, and transformers' of the same files."""
    import transformers

    tokenizer.save_hugging_face(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return load(folder), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.oracle
@pytest.mark.parametrize("tokenizer", [BYTE_PAIR, SENTENCE_PIECE], ids=["byte_pair", "sentence_piece"])
def test_transformers_gives_the_same_ids(tokenizer, tmp_path):
    again, theirs = exported(tokenizer, tmp_path)
    for text in TEXTS:
        plain = text.replace("</s>", "").replace("<s>", "").replace("<unk>", "")
        assert theirs.encode(plain, add_special_tokens=False) == tokenizer.encode(plain), plain
        assert theirs.encode(plain) == [tokenizer.bos_id, *tokenizer.encode(plain)]
        assert again.encode(text) == tokenizer.encode(text), text
        assert theirs.decode(tokenizer.encode(plain)) == tokenizer.decode(tokenizer.encode(plain))
        assert again.encode_with_special_tokens(plain) == tokenizer.encode_with_special_tokens(plain)
    assert len(theirs) == tokenizer.vocabulary_size
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert (again.bos_id, again.eos_id, again.pad_id) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    assert set(again.stop_ids) == set(tokenizer.stop_ids)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet=st.one_of(st.sampled_from("the quickbrownfxjmpdvlazyg,:  \n"), st.characters(codec="utf-8")))
)
def test_merges_by_score_are_sentence_pieces_own(text):
    assert FROM_SENTENCE_PIECE.encode(text) == SENTENCE_PIECE.encode(text)


@pytest.fixture(autouse=True, scope="module")
def from_sentence_piece(tmp_path_factory):
    global FROM_SENTENCE_PIECE
    SENTENCE_PIECE.save_hugging_face(tmp_path_factory.mktemp("exported"))
    FROM_SENTENCE_PIECE = load(next(tmp_path_factory.getbasetemp().glob("exported*")))


@pytest.mark.oracle
def test_special_tokens_in_a_chat_are_recognised(tmp_path):
    again, theirs = exported(SENTENCE_PIECE, tmp_path / "sentence_piece")
    text = "<s>[INST] hello [/INST] fox </s><s>[INST] dog [/INST]"
    ids = theirs.encode(text, add_special_tokens=False)
    assert SENTENCE_PIECE.encode_with_special_tokens(text) == again.encode_with_special_tokens(text) == ids
    assert ids.count(1) == 2 and 1 not in SENTENCE_PIECE.encode(text)
    again, theirs = exported(BYTE_PAIR, tmp_path / "byte_pair")
    text = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nfox<|eot_id|>"
    ids = theirs.encode(text, add_special_tokens=False)
    assert BYTE_PAIR.encode_with_special_tokens(text) == again.encode_with_special_tokens(text) == ids
    assert ids[0] == BYTE_PAIR.bos_id and ids[-1] == BYTE_PAIR.special_id("<|eot_id|>")


def with_companions(tokenizer):
    if isinstance(tokenizer, SentencePieceTokenizer):
        return SentencePieceTokenizer(tokenizer._proto, TEMPLATE, GENERATION)
    return byte_pair.BytePairTokenizer(tokenizer._vocabulary, tokenizer._merges, TEMPLATE, GENERATION)


@pytest.mark.parametrize("tokenizer", [BYTE_PAIR, SENTENCE_PIECE], ids=["byte_pair", "sentence_piece"])
def test_template_and_generation_config_go_along(tokenizer, tmp_path):
    tokenizer = with_companions(tokenizer)
    tokenizer.save(tmp_path / "keras_hub")
    first = load(tmp_path / "keras_hub")
    first.save_hugging_face(tmp_path / "hugging_face")
    second = load(tmp_path / "hugging_face")
    second.save(tmp_path / "back")
    third = load(tmp_path / "back")
    for other in (first, second, third):
        assert (other.chat_template, other.generation_config) == (TEMPLATE, GENERATION)
        assert {2, 5} <= set(other.stop_ids)
    assert type(third) is type(tokenizer) and third.fingerprint == tokenizer.fingerprint
    assert sorted(path.name for path in (tmp_path / "back").rglob("*")) == sorted(
        path.name for path in (tmp_path / "keras_hub").rglob("*")
    )


def test_hugging_faces_files_are_kept_as_read(tmp_path):
    BYTE_PAIR.save_hugging_face(tmp_path / "one")
    config = json.loads((tmp_path / "one/tokenizer_config.json").read_text()) | {
        "custom": [1, "é"],
        "chat_template": TEMPLATE,
    }
    (tmp_path / "one/tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "one/tokenizer.model").write_bytes(sentence_piece_model())
    load(tmp_path / "one").save_hugging_face(tmp_path / "two")
    assert (tmp_path / "one/tokenizer.json").read_bytes() == (tmp_path / "two/tokenizer.json").read_bytes()
    assert (tmp_path / "two/tokenizer.model").read_bytes() == sentence_piece_model()
    assert json.loads((tmp_path / "two/tokenizer_config.json").read_text()) == config


def changed(change):
    """A Llama 3 tokenizer.json after `change`, as a tokenizer."""
    document = json.loads(BYTE_PAIR_DOCUMENT)
    change(document)
    return HuggingFaceTokenizer(json.dumps(document), {}, {})


BYTE_PAIR_DOCUMENT = byte_pair.hugging_face_export.byte_pair_document(
    BYTE_PAIR._encoder, BYTE_PAIR._special, byte_pair.BEGIN
)


def digits(document):
    document["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Digits", "individual_digits": True})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (digits, "splits text into words in another way"),
        (lambda document: document.update(normalizer={"type": "NFC"}), "splits text"),
        (lambda document: document["model"].update(dropout=0.1), "not plain byte-level BPE"),
        (lambda document: document["added_tokens"][0].update(lstrip=True), "not all special"),
        (lambda document: document["added_tokens"].append(
            {"id": document["model"]["vocab"]["the"], "content": "the", "special": True, "single_word": False,
             "lstrip": False, "rstrip": False, "normalized": False}), "<|name|>"),
    ],
)  # fmt: skip
def test_what_keras_hub_has_no_class_for_is_kept_and_said_once(change, reason, tmp_path, caplog):
    tokenizer = changed(change)
    with caplog.at_level(logging.WARNING):
        tokenizer.save(tmp_path)
    (record,) = caplog.records
    assert reason in record.getMessage() and "SentencePiece" in record.getMessage()
    assert load(tmp_path).fingerprint == tokenizer.fingerprint
    assert not (tmp_path / "assets").exists()


def test_an_unchanged_llama_3_file_becomes_keras_hubs(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        changed(lambda document: document["model"].update(ignore_merges=False)).save(tmp_path)
    assert not caplog.records
    assert load(tmp_path).fingerprint == BYTE_PAIR.fingerprint


def test_whole_words_before_merges():
    """A token that the merges do not reach is still one token, as in Meta's tokenizer."""
    vocabulary = {token: id_ for id_, token in enumerate(byte_pair.byte_tokens())}
    vocabulary |= {"bc": 256, "ab": 257, "abc": 258} | {t: 300 + i for i, t in enumerate(byte_pair.SPECIAL_TOKENS)}
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    tokenizer = byte_pair.BytePairTokenizer(vocabulary, merges)
    assert tokenizer.encode("abc") == [258] and tokenizer.encode("abcx") == [97, 256, 120] != [258, 120]
    assert not tokenizer.merges_reach_every_word() and BYTE_PAIR.merges_reach_every_word()
    theirs = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    theirs.pre_tokenizer = byte_pair._pre_tokenizer()
    theirs.add_special_tokens(list(byte_pair.SPECIAL_TOKENS))
    hugging_face = HuggingFaceTokenizer(theirs.to_str(), {}, {})
    assert hugging_face.encode("abc") == [97, 256]
    reason = byte_pair_form(hugging_face)
    assert "has other ids" in reason


def byte_pair_form(tokenizer):
    from llama_exp.tokenizer import keras_hub_form

    return keras_hub_form.byte_pair(json.loads(tokenizer._text), None, {})


def test_a_sentence_piece_model_with_other_tokens_is_not_used(tmp_path, caplog):
    SENTENCE_PIECE.save_hugging_face(tmp_path / "one")
    path = tmp_path / "one/tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens(["<|im_start|>"])
    tokenizer.save(str(path))
    with caplog.at_level(logging.WARNING):
        load(tmp_path / "one").save(tmp_path / "two")
    assert "its tokens are not those of the SentencePiece model" in caplog.text
    assert load(tmp_path / "two").special_id("<|im_start|>") == SENTENCE_PIECE.vocabulary_size


def test_a_metaspace_tokenizer_with_its_model_becomes_keras_hubs(tmp_path):
    SENTENCE_PIECE.save_hugging_face(tmp_path / "one")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "one/tokenizer.json"))
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.save(str(tmp_path / "one/tokenizer.json"))
    load(tmp_path / "one").save(tmp_path / "two")
    assert load(tmp_path / "two").fingerprint == SENTENCE_PIECE.fingerprint
