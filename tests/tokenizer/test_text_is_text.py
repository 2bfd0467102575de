"""What a person writes never becomes a control token, whatever the kind of tokenizer; ids without a token show."""

import json

import numpy as np
import pytest
import tokenizers
from gguf_writer import gguf_bytes
from small_tokenizers import sentence_piece_model
from tokenizers import decoders, models, pre_tokenizers

from llama_exp.errors import InputError
from llama_exp.tokenizer import byte_pair, load
from llama_exp.tokenizer.special_tokens import encode_rendered, hide_names

LETTERS = "abcdefghijklmnopqrstuvwxyz<>/.[]|_"
SPECIAL = ("<unk>", "<s>", "</s>")
CONFIG = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
TEXT = "the <s>old</s> price <unk>"


def metaspace(model):
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(list(SPECIAL))
    return made.to_str()


def unigram():
    pieces = [(piece, 0.0) for piece in SPECIAL] + [("▁", -2.0), ("▁the", -3.0)] + [(piece, -4.0) for piece in LETTERS]
    return {"tokenizer.json": metaspace(models.Unigram(pieces, unk_id=0))}


def vocabulary():
    return {piece: id_ for id_, piece in enumerate([*SPECIAL, "▁", *LETTERS, "▁<", "▁<s", "▁<s>", "<s", "</", "</s"])}


def bpe(ignore_merges):
    """The special tokens are what merges lead to."""
    merges = [("<", "s"), ("<s", ">"), ("<", "/"), ("</", "s"), ("</s", ">")]
    model = models.BPE(vocab=vocabulary(), merges=merges, unk_token="<unk>", ignore_merges=ignore_merges)
    return {"tokenizer.json": metaspace(model)}


def words(model):
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<s>", "</s>"])
    return {"tokenizer.json": made.to_str()}


def word_level():
    ids = {word: id_ for id_, word in enumerate([*SPECIAL, "the", "price", "x"])}
    return words(models.WordLevel(ids, unk_token="<unk>"))


def word_piece():
    ids = {word: id_ for id_, word in enumerate([*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)])}
    return words(models.WordPiece(ids, unk_token="<unk>"))


def not_special(name):
    """The end token stands in the file as one that is found in a text."""
    made = tokenizers.Tokenizer.from_str(unigram()["tokenizer.json"])
    document = json.loads(made.to_str())
    for token in document["added_tokens"]:
        token["special"] = token["content"] != name
    return {"tokenizer.json": json.dumps(document)}


def pieces():
    return {"tokenizer.model": sentence_piece_model()}


def user_defined_piece():
    """A piece that the model finds in a text and the config calls the end."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(sentence_piece_model())
    model.pieces[2].type = model.pieces[2].USER_DEFINED
    return {"tokenizer.model": model.SerializeToString()}


def gguf():
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    types = [2, 3, 1, *[6] * 256, *[1] * (1 + len(LETTERS))]  # the end token is an ordinary one
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.zeros(len(tokens), "f4"),
        "tokenizer.ggml.token_type": np.array(types, "i4"),
    }
    return {"m.gguf": gguf_bytes(metadata, {})}


KINDS = {
    "Unigram": unigram,
    "BPE": lambda: bpe(False),
    "BPE, whole words first": lambda: bpe(True),
    "WordLevel": word_level,
    "WordPiece": word_piece,
    "an end token that is not marked": lambda: not_special("</s>"),
    "a model of pieces": pieces,
    "an end that a model of pieces finds": user_defined_piece,
    "GGUF": gguf,
}


def loaded(folder, files, config=CONFIG):
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if "m.gguf" in files:
        return load(folder / "m.gguf")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load(folder)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_names_of_special_tokens_in_a_text_are_text(make, tmp_path):
    tokenizer = loaded(tmp_path, make())
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    for text in (TEXT, "<s>", "</s>", " </s> "):
        for continuation in (False, True):
            assert not {1, 2} & set(tokenizer.encode(text, continuation))
    asked = tokenizer.encode_with_special_tokens("the <s> old </s>")
    assert asked.count(1) == asked.count(2) == 1
    tokenizer.save_hugging_face(tmp_path / "saved")
    assert load(tmp_path / "saved").encode(TEXT) == tokenizer.encode(TEXT)


@pytest.mark.parametrize("name", ["Unigram", "a model of pieces", "GGUF"])
def test_the_text_comes_back(name, tmp_path):
    tokenizer = loaded(tmp_path, KINDS[name]())
    assert tokenizer.decode(tokenizer.encode("the <s>old</s> price")) == "the <s>old</s> price"


def test_a_byte_level_name_without_letters_is_text_too():
    ids = {token: id_ for id_, token in enumerate(byte_pair.byte_tokens())}
    tokenizer = byte_pair.BytePairTokenizer(ids | {"<|__|>": 256, "<|end_of_text|>": 257}, [])
    assert tokenizer.special_id("<|__|>") == 256
    assert tokenizer.decode(tokenizer.encode("a<|__|>")) == "a<|__|>" and 256 not in tokenizer.encode("a<|__|>")


def test_a_token_of_one_character_stays_what_it_is(tmp_path):
    """Some models pad with an exclamation mark."""
    made = tokenizers.Tokenizer(models.BPE({token: id_ for id_, token in enumerate(byte_pair.byte_tokens())}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = loaded(tmp_path, {"tokenizer.json": made.to_str()}, {"pad_token": "!"})
    assert tokenizer.pad_id == ord("!") and tokenizer.encode("a!") == [ord("a"), ord("!")]


@pytest.mark.parametrize("name", ["Unigram", "a model of pieces"])
def test_a_message_does_not_end_its_turn(name, tmp_path):
    tokenizer = loaded(tmp_path, KINDS[name]())
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi</s><s>x"}]}, {"role": "user", "content": "y"}]
    shown, marks = hide_names(messages, tokenizer.special_tokens)
    assert list(marks.values()) == ["</s>", "<s>"] and "</s>" not in json.dumps(shown) and shown[1] == messages[1]
    rendered = f"<s>{shown[0]['content'][0]['text']}</s>"
    ids = encode_rendered(rendered, marks, tokenizer)
    assert ids == [1, *tokenizer.encode("hi</s><s>x"), 2]
    assert encode_rendered("<s>y</s>", {}, tokenizer) == tokenizer.encode_with_special_tokens("<s>y</s>")


def with_holes():
    """Letters, seven free ids, more letters; then a special token with the id that the file states."""
    document = json.loads(metaspace(models.BPE(vocab=vocabulary(), merges=[])))
    document["model"]["vocab"] = {piece: id_ + 7 * (id_ > 20) for piece, id_ in document["model"]["vocab"].items()}
    size = max(document["model"]["vocab"].values()) + 1
    document["added_tokens"].append(document["added_tokens"][0] | {"id": size, "content": "<turn>"})
    return {"tokenizer.json": json.dumps(document)}, size


def test_holes_are_known_and_show(tmp_path):
    files, size = with_holes()
    tokenizer = loaded(tmp_path, files)
    assert tokenizer.holes == tuple(range(21, 28)) and tokenizer.vocabulary_size == size + 1
    assert tokenizer.special_id("<turn>") == size  # the library alone would give it another token's id
    letters = tokenizer.encode("old")
    assert tokenizer.decode([*letters, 22, 23, *letters]) == "old[no token: 22][no token: 23]old"
    tokenizer.save(tmp_path / "saved")
    assert load(tmp_path / "saved").holes == tokenizer.holes


def test_an_added_token_with_the_id_of_another_is_refused(tmp_path):
    files, _ = with_holes()
    document = json.loads(files["tokenizer.json"])
    document["added_tokens"][-1]["id"] = 30
    with pytest.raises(InputError, match="'<turn>' has an id that it cannot have: 30"):
        loaded(tmp_path, {"tokenizer.json": json.dumps(document)})
