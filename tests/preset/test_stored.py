"""How a preset's weights are stored, told without a download and without a framework."""

import json
import subprocess
import sys

import pytest
from small_models import config, make

from llama_exp.architecture import SIZES, Quantization, make_quantization
from llama_exp.formats import open_checkpoint, read_quantization
from llama_exp.formats.keras_hub import checkpoint as keras_hub
from llama_exp.formats.quantized import quantize_checkpoint
from llama_exp.preset import PRESETS
from llama_exp.preset.stored import Stored, read_stored

INT4 = make_quantization("int4", group_size=5)


def sizes():
    return {key: config()[key] for key in SIZES}


def test_built_in_presets():
    for name, preset in PRESETS.items():
        stored = read_stored(name)
        assert stored == read_stored(preset.handle)
        assert stored.quantization == (Quantization("int8", True) if name.endswith("_int8") else None)
        assert stored.sizes == {key: preset.architecture[key] for key in SIZES}


def test_only_a_download_tells(tmp_path):
    for source in ("hf://org/model", "kaggle://org/model/keras/variant/1", "ftp://x"):
        assert read_stored(source) is None
    assert read_stored(str(tmp_path / "nowhere")) is None
    (tmp_path / "config.json").write_text("{")
    assert read_stored(str(tmp_path)) is None


@pytest.mark.parametrize("wanted", [INT4, Quantization("int8", True), Quantization("int8", False)])
def test_a_quantized_folder(wanted, tmp_path):
    make(tmp_path / "floats")
    assert read_stored(str(tmp_path / "floats")) == Stored(None, sizes(), None)
    with open_checkpoint(tmp_path / "floats") as checkpoint:
        tensors = quantize_checkpoint(checkpoint, wanted).tensors
        (tmp_path / "small").mkdir()
        keras_hub.write(tmp_path / "small", checkpoint.config, tensors, wanted)
    assert read_stored(str(tmp_path / "small")) == Stored(wanted, sizes(), None)
    with open_checkpoint(tmp_path / "small") as checkpoint:
        assert read_quantization(tmp_path / "small") == checkpoint.quantization == wanted


def test_other_formats_are_floating_point(tmp_path):
    make(tmp_path / "hf", form="hf")
    stored = read_stored(str(tmp_path / "hf"))
    assert (stored.quantization, stored.sizes) == (None, sizes())
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert read_stored(str(tmp_path / "model.gguf")) is None  # damaged: whoever opens it tells why


def test_it_is_told_before_any_framework(tmp_path):
    """The check of a whole command line over a quantized folder."""
    make(tmp_path / "floats")
    with open_checkpoint(tmp_path / "floats") as checkpoint:
        (tmp_path / "small").mkdir()
        keras_hub.write(tmp_path / "small", checkpoint.config, quantize_checkpoint(checkpoint, INT4).tensors, INT4)
    sizes = [f"model.{key}={'null' if value is None else value}" for key, value in config().items()]
    code = (
        "import json, sys, time; from llama_exp.config.check import check_arguments, to_dict; start = time.monotonic();"
        "made = to_dict(check_arguments(sys.argv[1:]).config)['quantization']; seconds = time.monotonic() - start;"
        "print(json.dumps([made, seconds, [n for n in ('keras', 'tensorflow', 'jax') if n in sys.modules]]))"
    )
    line = [f"preset.source={tmp_path / 'small'}", "lora.rank=2", *sizes]
    done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, check=True)
    made, seconds, frameworks = json.loads(done.stdout)
    assert made["mode"] == "int4" and made["group_size"] == 5 and made["int8_layers"] == ["key", "value"]
    assert seconds < 5 and frameworks == []  # far less: the machine may be busy with other things
