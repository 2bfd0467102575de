"""Where a model says how text begins and ends: the same answers as transformers', for made-up folders."""

import json
from dataclasses import dataclass

import pytest
import tokenizers
from small_tokenizers import sentence_piece_model
from tokenizers import decoders, models, pre_tokenizers, processors

from llama_exp.errors import InputError
from llama_exp.limits.dataset import ChatTemplate
from llama_exp.tokenizer import byte_pair, load
from llama_exp.tokenizer.ends import stop_where_taught

BEGIN, END, TURN, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<pad>"  # ids 256 to 259
LLAMA = {"model_type": "llama"}
PIECES = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}  # <unk>, <s>, </s>: 0, 1, 2; 320 pieces


def byte_level(begin=None):
    """One token for each byte, then the special ones; `begin` is put in front of a text."""
    vocabulary = {token: id_ for id_, token in enumerate(byte_pair.byte_tokens())}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([BEGIN, END, TURN, PAD])
    if begin:
        made.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 256)])
    return made.to_str()


@dataclass
class Case:
    """A folder, and what transformers 5.23 makes of it; stop () where no file names a stop token."""

    files: dict
    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    begin: int | None = None
    stop: tuple = ()


def with_json(begin=BEGIN, **configs):
    return {"tokenizer.json": byte_level(begin), "config.json": LLAMA} | named(configs)


def with_pieces(**configs):
    return {"tokenizer.model": sentence_piece_model(), "config.json": LLAMA} | named(configs)


def named(configs):
    names = {"generation": "generation_config", "tokenizer": "tokenizer_config", "map": "special_tokens_map"}
    return {f"{names.get(key, key)}.json": content for key, content in configs.items()}


def token(content, **flags):
    return dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False) | {"content": content} | flags


CASES = {
    "ids in config.json only": Case(
        with_json(config=LLAMA | {"bos_token_id": 256, "eos_token_id": [258, 257], "pad_token_id": 259}),
        *(256, 258, 259, 256, (258, 257)),
    ),
    "no ids in config.json": Case(with_json(tokenizer={"bos_token": BEGIN, "eos_token": END}), 256, 257, None, 256),
    "generation_config.json wins": Case(
        with_json(config=LLAMA | {"eos_token_id": 257}, generation={"eos_token_id": [258, 259]}),
        *(None, 258, None, 256, (258, 259)),
    ),
    "tokenizer_config.json names another end": Case(
        with_json(tokenizer={"bos_token": BEGIN, "eos_token": TURN}, generation={"eos_token_id": 257}),
        *(256, 258, None, 256, (257,)),
    ),
    "no pad token by name": Case(
        with_json(tokenizer={"bos_token": BEGIN, "eos_token": END}, generation={"pad_token_id": 259}),
        *(256, 257, 259, 256),
    ),
    "tokens written out": Case(
        with_json(tokenizer={"eos_token": token(END, __type="AddedToken"), "pad_token": PAD}),
        *(None, 257, 259, 256),
    ),
    "special_tokens_map.json": Case(
        with_json(None, map={"bos_token": BEGIN, "eos_token": token(TURN), "pad_token": PAD}), 256, 258, 259
    ),
    "special_tokens_map.json wins": Case(
        with_json(None, tokenizer={"eos_token": END}, map={"eos_token": TURN}), eos=258
    ),
    "special_tokens_map.json beside a list of tokens": Case(
        with_json(
            None,
            tokenizer={"eos_token": END, "added_tokens_decoder": {"257": token(END, special=True)}},
            map={"eos_token": TURN},
        ),
        eos=257,
    ),
    "add_bos_token beside tokenizer.json": Case(
        with_json(tokenizer={"bos_token": BEGIN, "eos_token": END, "add_bos_token": False}), 256, 257, None, 256
    ),
    "add_bos_token without a step that adds it": Case(
        with_json(None, tokenizer={"bos_token": BEGIN, "eos_token": END, "add_bos_token": True}), 256, 257
    ),
    "no end": Case(with_json(tokenizer={"bos_token": BEGIN, "eos_token": None}), 256, begin=256),
    "a new end token": Case(with_json(tokenizer={"eos_token": "<new>"}), eos=260, begin=256),
    "a list of new tokens": Case(
        with_json(
            tokenizer={
                "eos_token": "<two>",
                "pad_token": "<one>",
                "added_tokens_decoder": {"260": token("<one>", special=True), "261": token("<two>", special=True)},
            }
        ),
        *(None, 261, 260, 256),
    ),
    "added_tokens.json": Case(
        with_json(tokenizer={"eos_token": "<new>"}, added_tokens={"<new>": 260}), eos=260, begin=256
    ),
    "extra tokens": Case(
        with_json(tokenizer={"eos_token": "<b>", "additional_special_tokens": ["<a>"]}),
        *(None, 260, None, 256),
    ),
    "pieces": Case(with_pieces(tokenizer=PIECES), 1, 2, None, 1),
    "pieces without begin": Case(with_pieces(tokenizer=PIECES | {"add_bos_token": False}), 1, 2),
    "pieces with other names": Case(
        with_pieces(tokenizer=PIECES | {"bos_token": "</s>", "eos_token": "<s>", "pad_token": "<unk>"}), 2, 1, 0, 2
    ),
    "pieces and special_tokens_map.json": Case(
        with_pieces(tokenizer=PIECES, map={"eos_token": "<s>", "pad_token": token("</s>")}), 1, 1, 2, 1
    ),
    "pieces and new tokens": Case(
        with_pieces(
            tokenizer=PIECES
            | {"eos_token": "<|im_end|>", "added_tokens_decoder": {"320": token("<|im_end|>", special=True)}},
            generation={"eos_token_id": [320, 2]},
        ),
        *(1, 320, None, 1, (320, 2)),
    ),
    "pieces and added_tokens.json": Case(
        with_pieces(tokenizer=PIECES | {"pad_token": "<pad>"}, added_tokens={"<pad>": 320}), 1, 2, 320, 1
    ),
    "pieces and ids in config.json": Case(
        with_pieces(tokenizer=PIECES, config=LLAMA | {"eos_token_id": 2, "pad_token_id": 0}), 1, 2, 0, 1, (2,)
    ),
}


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        content = json.dumps(content) if isinstance(content, dict) else content
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def answers(tokenizer):
    return tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.begin_id, set(tokenizer.stop_ids)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_begin_end_pad_and_stop(case, tmp_path):
    ends = set() if case.eos is None else {case.eos}
    expected = (case.bos, case.eos, case.pad, case.begin, set(case.stop) or ends)
    tokenizer = load(write(tmp_path / "one", case.files))
    assert answers(tokenizer) == expected
    tokenizer.save_hugging_face(tmp_path / "two")
    again = load(tmp_path / "two")
    again.save(tmp_path / "three")
    for other in (again, load(tmp_path / "three")):
        assert answers(other) == expected
        assert other.encode("a <|im_end|>") == tokenizer.encode("a <|im_end|>")


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_transformers_says_so(case, tmp_path):
    import transformers

    folder = write(tmp_path, case.files)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    source = {} if "generation_config.json" in case.files else {"config_file_name": "config.json"}
    generation = transformers.GenerationConfig.from_pretrained(folder, _from_model_config=bool(source), **source)

    def first(named_id, stated):
        return named_id if named_id is not None or stated is None else stated[0] if isinstance(stated, list) else stated

    stop = generation.eos_token_id
    assert case.stop == (() if stop is None else tuple(stop) if isinstance(stop, list) else (stop,))
    assert case.bos == first(theirs.bos_token_id, generation.bos_token_id)
    assert case.eos == first(theirs.eos_token_id, stop)
    assert case.pad == first(theirs.pad_token_id, generation.pad_token_id)
    plain, whole = (theirs("cat", add_special_tokens=added)["input_ids"] for added in (False, True))
    assert whole == [*([] if case.begin is None else [case.begin]), *plain]


@pytest.mark.parametrize(
    ("files", "stop"),
    [
        (with_json(tokenizer={"bos_token": BEGIN, "eos_token": END}, generation={"temperature": 0.5}), (257,)),
        (with_json(config=LLAMA | {"eos_token_id": [257, 258]}, generation={"temperature": 0.5}), (257, 258)),
        (with_json(tokenizer={"eos_token": END}, config=LLAMA | {"pad_token_id": -1}), (257,)),
        ({"tokenizer.json": byte_level()}, (257, 258)),
        ({"tokenizer.model": sentence_piece_model()}, (2,)),
    ],
    ids=["the end token", "config.json", "a pad token of none", "usual names", "the model's own"],
)
def test_where_transformers_would_never_stop(files, stop, tmp_path):
    assert load(write(tmp_path, files)).stop_ids == stop


def test_pieces_begin_as_llama_2s_where_nothing_says_how(tmp_path):
    """transformers 5.23 puts nothing there, against its own description; llama.cpp and transformers 4 do."""
    assert load(write(tmp_path, with_pieces(tokenizer={"tokenizer_class": "LlamaTokenizer"}))).begin_id == 1


@pytest.mark.oracle
@pytest.mark.parametrize("legacy", [False, True])
def test_spaces_behind_special_tokens_are_those_of_the_config(legacy, tmp_path):
    import transformers

    folder = write(tmp_path / "one", with_pieces(tokenizer=PIECES | {"legacy": legacy}))
    theirs, ours, text = transformers.AutoTokenizer.from_pretrained(folder), load(folder), "the fox</s>a dog</s>the"
    assert ours.encode_with_special_tokens(text) == theirs(text, add_special_tokens=False)["input_ids"]
    ours.save_hugging_face(tmp_path / "two")
    ours.save(tmp_path / "three")
    for name in ("two", "three"):
        assert load(tmp_path / name).encode_with_special_tokens(text) == ours.encode_with_special_tokens(text)


def test_what_keras_hub_does_not_read_is_told(tmp_path, caplog):
    ours = load(write(tmp_path / "one", with_pieces(tokenizer=PIECES | {"add_bos_token": False, "eos_token": "<x>"})))
    ours.save(tmp_path / "two")
    (record,) = caplog.records
    assert 'eos_token: "<x>", add_bos_token: false' in record.getMessage()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"add_bos_token": "no"}, "add_bos_token 'no' must be true or false"),
        ({"sp_model_kwargs": {"enable_sampling": True}}, "sp_model_kwargs"),
        ({"do_lower_case": True}, "do_lower_case"),
        ({"invented": 1}, "'invented' is not known"),
        ({"added_tokens_decoder": {"5": token("<new>")}}, "'<new>' is 5, tokenizer.model makes it 320"),
        ({"added_tokens_decoder": {"2": token("<s>")}}, "'<s>' is 2, tokenizer.model makes it 1"),
        ({"added_tokens_decoder": {"320": token("<new>", lstrip=True)}}, "'<new>' has lstrip"),
        ({"added_tokens_decoder": {"x": token("<new>")}}, "'x', which is no id"),
        ({"added_tokens_decoder": [1]}, "must be an object"),
        ({"extra_special_tokens": 3}, "no list"),
    ],
)
def test_what_a_model_of_pieces_cannot_do_is_refused(config, expected, tmp_path):
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, with_pieces(tokenizer=config)))
    assert expected in caught.value.problems[0].found + caught.value.problems[0].what


def test_a_space_in_front_is_taken_away(tmp_path):
    plain = load(write(tmp_path / "one", with_pieces(tokenizer=PIECES)))
    without = load(write(tmp_path / "two", with_pieces(tokenizer=PIECES | {"add_prefix_space": False})))
    assert without.encode("the fox") == plain.encode("the fox", continuation=True) != plain.encode("the fox")


def test_an_added_token_with_another_id_is_refused(tmp_path):
    files = with_json(tokenizer={"added_tokens_decoder": {"300": token("<new>", special=True)}})
    with pytest.raises(InputError, match="'<new>' is 300, in tokenizer.json it is 260"):
        load(write(tmp_path, files))


def test_two_tokens_in_front_are_refused(tmp_path):
    made = tokenizers.Tokenizer.from_str(byte_level())
    made.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} {TURN} $A", special_tokens=[(BEGIN, 256), (TURN, 258)]
    )
    with pytest.raises(InputError, match="puts 2 tokens in front"):
        load(write(tmp_path, {"tokenizer.json": made.to_str()}))


def test_a_run_stops_where_it_taught_the_end_of_a_turn(tmp_path):
    tokenizer = load(write(tmp_path / "one", with_json(tokenizer={"eos_token": PAD}, generation={"eos_token_id": 257})))
    stop_where_taught(tokenizer, ChatTemplate.chatml)
    assert tokenizer.stop_ids == (257, 259)  # no <|im_end|> in it, but documents end with the end token
    stop_where_taught(tokenizer, ChatTemplate.llama3)
    tokenizer.save(tmp_path / "two")
    assert load(tmp_path / "two").stop_ids == tokenizer.stop_ids == (257, 259, 258)
