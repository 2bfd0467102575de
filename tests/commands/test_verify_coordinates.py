"""`llama-exp verify coordinates`: widths of a user's model, what they change, and what is said of it."""

import pytest

from llama_exp import cli
from llama_exp.commands import verify_coordinates
from llama_exp.config.check import check_arguments
from llama_exp.console import logs
from llama_exp.errors import ConfigError
from llama_exp.verification import coordinates
from llama_exp.verification.coordinates import STEPS, Slope, resize

MUP = ["model.parametrization=mup", "model.base_hidden_dim=64"]


def config(*lines):
    return check_arguments(list(lines)).config


@pytest.fixture
def verify(monkeypatch, capsys):
    """Runs the command line with slopes that were measured elsewhere: its exit code, its output and the widths."""

    def call(*arguments, slopes=()):
        asked = []

        def check(config, widths, tell):
            asked.append(widths)
            return list(slopes)

        monkeypatch.setattr(coordinates, "check", check)
        with pytest.raises(SystemExit) as stop:
            cli.main(["verify", "coordinates", *arguments])
        logs.detach_console()
        output = capsys.readouterr()
        return stop.value.code, output.out + output.err, asked

    return call


def slopes_of(layer, *changes):
    return [Slope(layer, step, 0.0, change, ()) for step, change in zip(STEPS, changes, strict=True)]


def test_a_table_and_a_verdict(verify):
    flat = slopes_of("logits", -0.1, 0.02, 0.2)
    code, output, asked = verify("--widths=256,128", *MUP, slopes=flat)
    assert (code, asked) == (0, [[128, 256]])
    assert "width^-0.10" in output and "flat: no change follows the width" in output

    steep = flat + slopes_of("transformer_layer_0", 0.1, 1.52, float("nan"))
    code, output, asked = verify("--widths", "128,256", slopes=steep)
    assert code == 1 and "width^+1.52" in output and "not flat: 2 of 6" in output

    code, output, asked = verify("--help")
    assert code == 0 and "usage: llama-exp verify coordinates" in output and asked == []


@pytest.mark.parametrize("size, change, is_flat", [(-0.5, 0.0, True), (0.5, 0.0, False), (0.0, -0.5, False)])
def test_sizes_may_shrink_and_changes_may_not(size, change, is_flat):
    assert Slope("logits", 1, size, change, ()).is_flat is is_flat


def test_a_wider_model_has_more_heads_or_larger_ones():
    more = resize(config(*MUP, "model.dropout=0.1"), 512).model
    assert (more.num_query_heads, more.num_key_value_heads, more.intermediate_dim) == (8, 4, 1408)
    assert (more.num_layers, more.vocabulary_size, more.dropout) == (2, 64, 0.0)
    larger = resize(config(*MUP, "model.base_head_dim=16"), 512).model
    assert (larger.num_query_heads, larger.num_key_value_heads, larger.hidden_dim) == (4, 2, 512)


def test_the_size_of_what_nobody_can_fit():
    assert str(coordinates._exponent([1, 2], coordinates.np.array([0.0, 1.0]))) == "nan"
    assert str(coordinates._exponent([1, 2], coordinates.np.array([float("inf"), 1.0]))) == "nan"
    assert coordinates._exponent([32, 64, 128], coordinates.np.array([1.0, 4.0, 16.0])) == pytest.approx(2)


@pytest.mark.parametrize("text", ["", "64,", "-1,64", "64,1.5", "0,64", "x", "99999999999,64"])
def test_what_is_no_width(verify, text):
    code, output, asked = verify(f"--widths={text}")
    assert code == 2 and "--widths: are no widths" in output and "--widths 128,256,512" in output and not asked


@pytest.mark.parametrize(
    "widths, lines, where, words",
    [
        ([100, 200], [], "--widths", "multiples of 128, such as 128"),
        ([128], [], "--widths", "--widths 128,256,512"),
        (None, ["lora.rank=4"], "lora.rank", "set lora.rank=0"),
    ],
)
def test_models_without_such_widths(widths, lines, where, words):
    with pytest.raises(ConfigError) as caught:
        coordinates.check(config(*lines), widths, print)
    (problem,) = caught.value.problems
    assert problem.where == where and words in problem.action


def test_nothing_behind_the_option():
    with pytest.raises(ConfigError) as caught:
        verify_coordinates.main(["--widths"])
    assert caught.value.problems[0].found == "nothing behind it"
