"""What a machine is."""

import pytest

from llama_exp.files.json_text import dump_json
from llama_exp.run import machine

X86 = "model name\t: A Processor @ 2 GHz\nflags\t\t: fpu sse4_2 smep avx2 fma avx512_bf16 amx_tile avx lahf_lm\n"
ARM = "Features\t: fp asimd sve bf16 i8mm crc32 sme\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, ["amx_tile", "avx", "avx2", "avx512_bf16", "fma"]),
        (ARM, ["asimd", "bf16", "i8mm", "sme", "sve"]),
        ("", []),
    ],
)
def test_only_instructions_that_kernels_are_chosen_by(tmp_path, monkeypatch, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert machine.instructions() == expected
    assert machine.cpu_name() == "A Processor @ 2 GHz" if text == X86 else machine.cpu_name()


def test_a_system_that_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "absent")
    assert machine.instructions() == [] and machine.cpu_name()


def test_the_facts_are_strict_json():
    assert dump_json(machine.describe())
