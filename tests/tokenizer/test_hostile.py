"""Tokenizer files that are damaged or mean harm: refused by name, nothing outside the folder is read, no crash."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from small_tokenizers import sentence_piece_model

from llama_exp.errors import InputError
from llama_exp.tokenizer import byte_pair, load
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer

BYTES = byte_pair.from_merges([("a", "b")])
SENTENCE_PIECE = SentencePieceTokenizer(sentence_piece_model())


def refused(folder, match):
    with pytest.raises(InputError, match=match) as caught:
        load(folder)
    assert caught.value.exit_code == 3
    return caught.value.problems[0]


@pytest.mark.parametrize("key", ["vocabulary", "merges", "proto"])
@pytest.mark.parametrize("tokenizer", [BYTES, SENTENCE_PIECE], ids=["byte_pair", "sentence_piece"])
def test_a_path_in_the_configuration_is_refused_and_not_read(tokenizer, key, tmp_path):
    canary = tmp_path / "canary"
    os.mkfifo(canary)  # reading it would wait for ever
    tokenizer.save(tmp_path / "preset")
    path = tmp_path / "preset/tokenizer.json"
    document = json.loads(path.read_text())
    document["config"][key] = str(canary)
    path.write_text(json.dumps(document))
    problem = refused(tmp_path / "preset", key)
    assert problem.where == str(path) and str(canary)[:40] in problem.found


@pytest.mark.parametrize(
    "document",
    [
        {"model": {"type": "BPE", "vocab": "{path}", "merges": "{path}"}},
        {"model": {"type": "Unigram", "vocab": "{path}"}},
        {"model": {"type": "WordLevel", "vocab": "{path}", "unk_token": "a"}},
        {"model": "{path}"},
        {"class_name": "Llama3Tokenizer", "config": "{path}"},
        {"class_name": "Llama3Tokenizer", "config": {"vocabulary": {"file": "{path}"}}},
        {"class_name": "{path}", "config": {}},
    ],
)
def test_a_path_in_the_place_of_a_vocabulary_is_refused_and_not_read(document, tmp_path):
    canary = tmp_path / "canary"
    os.mkfifo(canary)
    folder = tmp_path / "preset"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(document).replace("{path}", str(canary)))
    assert refused(folder, "tokenizer").where == str(folder / "tokenizer.json")


def test_paths_in_the_configuration_beside_it_are_text(tmp_path):
    """transformers has opened such files and published their content with the next save."""
    secret = tmp_path / "secret"
    secret.write_text("canary 12345")
    BYTES.save_hugging_face(tmp_path / "model")
    path = tmp_path / "model/tokenizer_config.json"
    keys = ("vocab_file", "merges_file", "tokenizer_file", "chat_template", "auto_map", "added_tokens_file")
    path.write_text(json.dumps(json.loads(path.read_text()) | dict.fromkeys(keys, str(secret))))
    tokenizer = load(tmp_path / "model")
    assert tokenizer.chat_template == str(secret)
    tokenizer.save_hugging_face(tmp_path / "hugging_face")
    tokenizer.save(tmp_path / "keras_hub")
    saved = [*(tmp_path / "hugging_face").rglob("*"), *(tmp_path / "keras_hub").rglob("*")]
    assert len(saved) > 4
    assert not any(b"canary" in file.read_bytes() for file in saved if file.is_file())


@pytest.mark.parametrize("part", ["single", "pair"])
def test_a_panic_of_the_library_is_a_damaged_file(part, tmp_path):
    """It ends in no ordinary exception of Python."""
    BYTES.save_hugging_face(tmp_path)
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text())
    document["post_processor"][part][0] = {"SpecialToken": {"id": "nowhere", "type_id": 0}}
    path.write_text(json.dumps(document))
    if part == "single":
        refused(tmp_path, "not a usable tokenizer")
    else:
        assert load(tmp_path).encode("a b")  # two texts are never encoded together


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (BYTES, "tokenizer.json"),
        (BYTES, "assets/tokenizer/vocabulary.json"),
        (BYTES, "assets/tokenizer/merges.txt"),
        (SENTENCE_PIECE, "assets/tokenizer/vocabulary.spm"),
    ],
)
def test_links_out_of_the_folder_are_refused(tokenizer, name, tmp_path):
    tokenizer.save(tmp_path / "preset")
    path = tmp_path / "preset" / name
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    refused(tmp_path / "preset", "a link leads out")


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json", "tokenizer_config.json"])
def test_links_of_companions_are_refused_too(name, tmp_path):
    BYTES.save_hugging_face(tmp_path / "model")
    (tmp_path / "outside").write_text("{}")
    (tmp_path / "model" / name).unlink(missing_ok=True)
    (tmp_path / "model" / name).symlink_to(tmp_path / "outside")
    refused(tmp_path / "model", "a link leads out")


@pytest.mark.parametrize("name", ["assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"])
def test_a_pipe_is_refused_at_once(name, tmp_path):
    BYTES.save(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    refused(tmp_path, "not an ordinary file")


@pytest.mark.parametrize(
    ("name", "old", "new", "match"),
    [
        ("assets/tokenizer/vocabulary.json", '"!": 33', '"!": 33, "!": 34', "twice"),
        ("assets/tokenizer/vocabulary.json", '"!": 33', '"!": 34', "ids must be different"),
        ("assets/tokenizer/vocabulary.json", '"!": 33', '"!": true', "whole numbers"),
        ("assets/tokenizer/vocabulary.json", '"!": 33', '"!": -1', "not negative"),
        ("assets/tokenizer/vocabulary.json", '"!": 33', '"!": 1180591620717411303424', "whole numbers below"),
        ("assets/tokenizer/merges.txt", "a b", "a zz", "missing"),
        ("assets/tokenizer/merges.txt", "a b", "a b c", "not a pair"),
        ("assets/tokenizer/merges.txt", "a b", "\ud800", "not a usable"),
    ],
)
def test_damaged_byte_pair_files(name, old, new, match, tmp_path):
    BYTES.save(tmp_path)
    path = tmp_path / name
    content = path.read_bytes().replace(old.encode(), new.encode("utf-8", "surrogatepass"), 1)
    assert content != path.read_bytes()
    path.write_bytes(content)
    refused(tmp_path, match)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("generation_config.json", {"eos_token_id": [2, 10**9]}, "no id of a vocabulary"),
        ("generation_config.json", {"eos_token_id": "2"}, "no id of a vocabulary"),
        ("tokenizer_config.json", {"chat_template": 3}, "no text"),
        ("tokenizer_config.json", {"chat_template": [{"name": "rag", "template": ""}]}, "none called 'default'"),
        ("tokenizer_config.json", {"chat_template": ["x"]}, "something else"),
        ("tokenizer_config.json", {"chat_template": "x" * (1 << 20) + "x"}, "limit"),
        ("tokenizer_config.json", {"eos_token": ["</s>"]}, "is no token"),
    ],
)
def test_damaged_companions(name, content, match, tmp_path):
    SENTENCE_PIECE.save_hugging_face(tmp_path)
    (tmp_path / "special_tokens_map.json").unlink()  # it wins
    (tmp_path / name).write_text(json.dumps(content))
    refused(tmp_path, match)


def test_the_default_of_several_templates_is_taken(tmp_path):
    SENTENCE_PIECE.save_hugging_face(tmp_path)
    templates = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert load(tmp_path).chat_template == "b"
    (tmp_path / "chat_template.jinja").write_text("c")
    assert load(tmp_path).chat_template == "c"


def test_added_tokens_beside_a_bare_model_are_not_lost(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(sentence_piece_model())
    assert load(tmp_path).fingerprint == SENTENCE_PIECE.fingerprint
    (tmp_path / "added_tokens.json").write_text('{"</s>": 2}')
    assert load(tmp_path).fingerprint == SENTENCE_PIECE.fingerprint
    (tmp_path / "added_tokens.json").write_text('{"<|im_start|>": 320}')
    assert load(tmp_path).pieces()["<|im_start|>"] == 320
    (tmp_path / "added_tokens.json").write_text('{"<|im_start|>": 321}')
    refused(tmp_path, "'<|im_start|>' is 321, tokenizer.model makes it 320")
    (tmp_path / "added_tokens.json").write_text('{"<|im_start|>": "320"}')
    refused(tmp_path, "must be a whole number")


# --- SentencePiece models


def model_with(change):
    model = sentencepiece_model_pb2.ModelProto.FromString(sentence_piece_model())
    change(model)
    return model.SerializeToString()


def with_replacements():
    """A model with SentencePiece's own default, a table of character replacements."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox"] * 20),
        model_writer=model,
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.pieces.add(piece=model.pieces[300].piece),
        lambda model: model.pieces.add(piece=""),
        lambda model: model.pieces.add(piece="x" * 5000),
        lambda model: model.ClearField("pieces"),
        lambda model: setattr(model.normalizer_spec, "precompiled_charsmap", b"\xff\xff\xff\x7f" + b"a" * 64),
        lambda model: setattr(
            model.normalizer_spec, "precompiled_charsmap", b"\0\4\0\0" + b"\xff\xff\xff\x7f" * 256 + b"\0"
        ),
    ],
)  # fmt: skip
def test_impossible_models_are_refused(change, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model_with(change))
    refused(tmp_path, "not a SentencePiece model")


def test_the_libraries_own_table_of_replacements_passes():
    tokenizer = SentencePieceTokenizer(with_replacements())
    assert tokenizer.encode("ｔｈｅ fox") == tokenizer.encode("the fox")
    with pytest.raises(InputError, match="not BPE"):
        tokenizer.save_hugging_face(Path("unused"))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda model: setattr(model.pieces[300], "type", 4), "is user-defined"),
        (lambda model: setattr(model.pieces[300], "type", 5), "is unused"),
        (lambda model: setattr(model.normalizer_spec, "remove_extra_whitespaces", True), "'identity' changes the text"),
        (lambda model: setattr(model.trainer_spec, "treat_whitespace_as_suffix", True), "space behind a text"),
    ],
)
def test_what_no_table_of_merges_can_say_is_named_and_nothing_is_written(change, found, tmp_path):
    tokenizer = SentencePieceTokenizer(model_with(change))
    with pytest.raises(InputError, match=found) as raised:
        tokenizer.save_hugging_face(tmp_path / "model")
    assert "--format keras_hub" in str(raised.value) and not (tmp_path / "model").exists()


FLIPS = """
import random, sys
from llama_exp.tokenizer.sentence_piece import SentencePieceTokenizer
generator = random.Random(0)
content = sys.stdin.buffer.read()
accepted = 0
for round in range(300):
    damaged = bytearray(content)
    for _ in range(generator.choice([1, 1, 4, 64])):
        damaged[generator.randrange(len(damaged))] = generator.randrange(256)
    if round % 10 == 0:
        damaged = damaged[:generator.randrange(len(damaged))]
    try:
        tokenizer = SentencePieceTokenizer(bytes(damaged))
        tokenizer.decode(tokenizer.encode("the quick \\u00e9\\uff54\\u0000\\u2581 fox " * 4))
        accepted += 1
    except ValueError:
        pass
print(accepted)
"""


@pytest.mark.process
@pytest.mark.parametrize("model", [sentence_piece_model, with_replacements])
def test_damage_never_crashes_the_process(model):
    done = subprocess.run([sys.executable, "-c", FLIPS], input=model(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert 0 < int(done.stdout) < 300
