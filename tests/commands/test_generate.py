"""`llama-exp generate` and `chat`: text in, text out, from models, files and runs."""

import io
import logging
import sys

import numpy as np
import pytest
import yaml
from small_models import TEMPLATE, TOKENIZER, make, make_run, with_adapters

from llama_exp import cli, lora
from llama_exp.commands import chat, generate, models
from llama_exp.commands.generation_options import tell_overrun
from llama_exp.commands.sources import find
from llama_exp.errors import InputError
from llama_exp.files.redact import printable
from llama_exp.limits.dataset import ChatTemplate
from llama_exp.models import LlamaCausalLM
from llama_exp.tokenizer.chat_template import BUILT_IN

pytestmark = pytest.mark.neutral


def run(*arguments, code=0):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    assert stop.value.code == code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "one"
    make(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return LlamaCausalLM.from_preset(folder)


def test_generate_prints_the_models_own_continuation(model, folder, capsys, monkeypatch):
    run("generate", folder, "--prompt", "Hi é", "--max-new-tokens", "9", "--temperature", "0.7", "--seed", "3")
    output = capsys.readouterr()
    ids = [TOKENIZER.bos_id, *TOKENIZER.encode("Hi é")]
    expected = model.generate([ids], max_length=len(ids) + 9, temperature=0.7, seed=3)[0]
    text = TOKENIZER.decode(expected.tolist())
    assert output.out == printable(text) + "\n" and output.out.startswith("Hi é")
    assert "tokens/s" in output.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi é\n"))
    run("generate", folder, "--max-new-tokens", "9", "--temperature", "0.7", "--seed", "3")
    assert capsys.readouterr().out == output.out


def test_a_runs_folder_and_a_bare_adapter_are_the_adapted_model(folder, tmp_path, capsys, model):
    other = with_adapters(LlamaCausalLM.from_preset(folder))
    make_run(tmp_path / "run", folder, other)
    run("generate", tmp_path / "run", "--prompt", "abc", "--max-new-tokens", "6", "--temperature", "0")
    ids = [TOKENIZER.bos_id, *TOKENIZER.encode("abc")]
    expected, plain = (one.generate([ids], max_length=4 + 6)[0].tolist() for one in (other, model))
    assert capsys.readouterr().out == printable(TOKENIZER.decode(expected)) + "\n"
    assert expected != plain
    (tmp_path / "latest").symlink_to("run")
    run("generate", tmp_path / "latest", "--prompt", "abc", "--max-new-tokens", "6", "--temperature", "0")
    assert capsys.readouterr().out == printable(TOKENIZER.decode(expected)) + "\n"
    assert find(str(tmp_path / "latest")).adapter == tmp_path / "run" / "adapter"
    options = generate._parser().parse_args([str(folder), "--adapter", str(tmp_path / "run/adapter")])
    loaded, _ = models.load(options)
    found, wanted = (lora.adapter_variables(one.backbone) for one in (loaded, other))
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[path], wanted[path]) for path in wanted)


def test_a_full_runs_model(folder, tmp_path):
    make_run(tmp_path / "run", folder, chat_template="llama3")
    (tmp_path / "run/model").symlink_to(folder)
    source = find(str(tmp_path / "run"))
    assert source.path.resolve() == folder and source.adapter is None
    assert source.chat_template == BUILT_IN[ChatTemplate.llama3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["preset"].update(source=None), "random weights"),
        (lambda record: record["model"].update(_target_="os.system"), "class of its own"),
        (lambda record: record.pop("model"), "cannot be read"),
    ],
)
def test_runs_that_cannot_be_used(change, message, folder, tmp_path, capsys):
    make_run(tmp_path / "run", folder)
    (tmp_path / "run/adapter").mkdir()
    content = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    change(content)
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(content))
    run("generate", tmp_path / "run", "--prompt", "a", code=3)
    assert message in capsys.readouterr().err


def test_past_the_context_length_is_told_once(caplog):
    options = generate._parser().parse_args(["x", "--max-new-tokens", "9"])
    tell_overrun(8, options)
    options.context_length = 16
    with caplog.at_level(logging.WARNING):
        tell_overrun(7, options)
        assert not caplog.records
        tell_overrun(8, options)
        tell_overrun(9, options)
    (record,) = caplog.records
    assert "a prompt of 8 tokens and up to 9 new ones" in record.getMessage() and "made for 16" in record.getMessage()


def test_a_folder_that_is_not_there(tmp_path, capsys, monkeypatch):
    (tmp_path / "outputs/mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for command in (["generate", "--prompt", "a"], ["chat", "--message", "a"]):
        run(command[0], "outputs/mien/latest", *command[1:], code=3)
        told = capsys.readouterr().err
        assert told.startswith("SRC: no such folder or file") and "did you mean outputs/mine?" in told


def test_a_run_that_left_nothing(folder, tmp_path, capsys):
    make_run(tmp_path / "run", folder)
    run("generate", tmp_path / "run", "--prompt", "a", code=3)
    assert "resume=" in capsys.readouterr().err


def test_a_tag_in_a_runs_config_makes_no_object(folder, tmp_path, capsys):
    make_run(tmp_path / "run", folder)
    (tmp_path / "run/adapter").mkdir()
    canary = tmp_path / "canary"
    (tmp_path / "run/config.yaml").write_text(f"preset: !!python/object/apply:os.mkdir ['{canary}']")
    run("generate", tmp_path / "run", "--prompt", "a", code=3)
    assert "cannot be read" in capsys.readouterr().err and not canary.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--promt", "x"], "did you mean --prompt"),
        (["--prompt", "x", "--max-new-tokens", "0"], "at least 1"),
        (["--prompt", "x", "--temperature", "-1"], "temperature"),
        (["--prompt", "x", "--backend", "torch"], "invalid choice"),
    ],
)
def test_usage_errors(arguments, message, folder, capsys):
    run("generate", folder, *arguments, code=2)
    assert message in capsys.readouterr().err


# --- chat


class Recorder:
    """A model that notes its prompts and answers from a list."""

    def __init__(self, answers):
        self.tokenizer, self.answers, self.prompts = TOKENIZER, iter(answers), []

    def generate(self, rows, max_length, on_tokens, temperature, **options):
        (ids,) = rows
        self.prompts.append(TOKENIZER.decode(ids, skip_special_tokens=False))
        self.temperature = temperature
        answer = next(self.answers)
        if isinstance(answer, BaseException):
            raise answer
        for token in [*TOKENIZER.encode(answer), TOKENIZER.special_id("<|eot_id|>")][: max_length - len(ids)]:
            on_tokens(np.array([[token]]))


def conversation(answers, *arguments, template=TEMPLATE):
    return chat.Conversation(Recorder(answers), template, chat._parser().parse_args(["x", *arguments]))


BOS = "<|begin_of_text|>"


def test_the_whole_conversation_goes_to_the_model_as_special_tokens(capsys):
    talk = conversation([" one ", "two", "three"], "--system", "Be brief")
    assert (talk.answer("first"), talk.answer("second")) == ("one", "two")
    system = f"{BOS}system: Be brief<|eot_id|>"
    assert talk._model.prompts == [
        f"{system}user: first<|eot_id|>assistant:",
        f"{system}user: first<|eot_id|>assistant: one<|eot_id|>user: second<|eot_id|>assistant:",
    ]
    assert capsys.readouterr().out == "one\ntwo\n"
    talk.reset()
    talk.answer("again")
    assert talk._model.prompts[-1] == f"{system}user: again<|eot_id|>assistant:"
    assert talk.tally.num_tokens == sum(len(answer) + 1 for answer in (" one ", "two", "three"))


def test_a_person_can_stop_reset_and_leave(capsys):
    refusal = "{% if messages[-1].content == 'bad' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
    talk = conversation(["one", KeyboardInterrupt(), "two"], template=refusal)
    chat._talk(talk, iter(["first", "stopped", "bad", "", "/what", "second", "/reset", "/exit", "never"]))
    output = capsys.readouterr()
    assert output.out == "one\ntwo\n"
    assert "this turn is forgotten" in output.err and "refuses" in output.err and "/reset forgets" in output.err
    assert "stopped" not in talk._model.prompts[-1] and "user: first" in talk._model.prompts[-1]
    assert talk.messages == []


def test_typing_ends_with_the_input(monkeypatch, capsys):
    typed = iter(["hello", KeyboardInterrupt(), "bye", EOFError()])

    def fake_input(prompt):
        line = next(typed)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", fake_input)
    assert list(chat._typed()) == ["hello", "bye"]


def test_answers_cannot_steer_the_terminal(capsys):
    conversation(["a\x1b[2Jb"]).answer("x")
    assert capsys.readouterr().out == "a\\x1b[2Jb\n"


def test_an_answer_ends_where_its_turn_does_also_without_a_token_for_it(capsys):
    """A tokenizer that was trained on conversations has no token for the marks, and writes them out."""
    talk = conversation(["fine.<|im_end|>\n<|im_start|>user", "1 <|im_ 2"], template=BUILT_IN[ChatTemplate.chatml])
    assert (talk.answer("How?"), talk.answer("And?")) == ("fine.", "1 <|im_ 2")
    assert capsys.readouterr().out == "fine.\n1 <|im_ 2\n"
    assert talk.tally.num_tokens == len("fine.<|im_end|>") + len("1 <|im_ 2") + 1


def test_defaults_show_a_model_well(folder, tmp_path, monkeypatch, capsys):
    """A conversation at 0.2; a text at the temperature of the run's own samples, or in between."""
    talk = conversation(["a", "b"])
    talk.answer("x")
    assert talk._model.temperature == 0.2
    seen = []

    def note(model, token_ids, options, tally, on_tokens, temperature):
        seen.append(temperature)
        tally.seconds = 1.0

    monkeypatch.setattr(generate.generation_options, "continue_text", note)
    run("generate", folder, "--prompt", "a")
    make_run(tmp_path / "run", folder)
    (tmp_path / "run/model").symlink_to(folder)
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config | {"trainer": {"sample_temperature": 0.8}}))
    run("generate", tmp_path / "run", "--prompt", "a")
    assert seen == [0.5, 0.8]


def test_chat_from_the_command_line(folder, capsys, monkeypatch):
    options = ["--max-new-tokens", "4", "--temperature", "0"]
    run("chat", folder, "--message", "Hi", "--message", "And?", *options)
    output = capsys.readouterr()
    assert "tokens/s" in output.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n\nAnd?\n"))
    run("chat", folder, *options)
    assert capsys.readouterr().out == output.out


def test_a_model_without_template_says_so(tmp_path, capsys):
    from llama_exp.tokenizer import byte_pair

    make(tmp_path / "one", tokenizer=byte_pair.from_merges([]))
    run("chat", tmp_path / "one", "--message", "Hi", code=3)
    assert "no chat template" in capsys.readouterr().err
    make(tmp_path / "two", tokenizer=None)
    run("chat", tmp_path / "two", "--message", "Hi", code=3)
    assert "no tokenizer" in capsys.readouterr().err


def test_a_runs_conversations_decide_the_template(folder, tmp_path):
    make_run(tmp_path / "run", folder, chat_template="llama3")
    (tmp_path / "run/adapter").mkdir()
    assert find(str(tmp_path / "run")).chat_template == BUILT_IN[ChatTemplate.llama3]
    with pytest.raises(InputError, match="adapters of its own"):
        find(str(tmp_path / "run"), adapter="other")
