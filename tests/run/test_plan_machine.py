"""What a machine has: sizes as people write them, limits of containers, GPUs."""

import pytest

from llama_exp.run import plan_machine


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24e9),
        ("24gb", 24e9),
        ("16GiB", 16 * 2**30),
        ("512M", 512e6),
        ("1.5 GiB", 1.5 * 2**30),
        ("7000000", 7e6),
    ],
)
def test_sizes(text, size):
    assert plan_machine.read_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "24QB", "-1GB", "0GB", "1e3", "nan", "inf", "24 G B", "٣x"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="is no size"):
        plan_machine.read_size(text)


def files(monkeypatch, tmp_path, **contents):
    paths = {}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        paths[name] = str(tmp_path / name)
    monkeypatch.setattr(plan_machine, "_MEMINFO", paths.get("meminfo", str(tmp_path / "none")))
    monkeypatch.setattr(plan_machine, "_LIMITS", (str(tmp_path / "none"), paths.get("max", str(tmp_path / "none"))))
    monkeypatch.setattr(plan_machine, "_USED", (paths.get("used", str(tmp_path / "none")),))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


MEMINFO = "MemTotal:       1000 kB\nMemFree:         10 kB\nMemAvailable:    600 kB\n"


def test_main_memory_and_the_limit_of_a_container(monkeypatch, tmp_path):
    files(monkeypatch, tmp_path, meminfo=MEMINFO, max="max")
    (room,) = plan_machine.find_rooms()
    assert (room.num_bytes, room.total_bytes, room.is_accelerator) == (600 * 1024, 1000 * 1024, False)
    files(monkeypatch, tmp_path, meminfo=MEMINFO, max="500000", used="200000")
    (room,) = plan_machine.find_rooms()
    assert (room.num_bytes, room.total_bytes) == (300000, 500000)
    files(monkeypatch, tmp_path, meminfo="Mem: x\n")
    assert plan_machine.find_rooms() == []


def test_a_gpu(monkeypatch, tmp_path):
    files(monkeypatch, tmp_path)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A, 16 GB, 100, 200'\necho 'NVIDIA B, 150, 300'\n")
    program.chmod(0o755)
    (room,) = plan_machine.find_rooms()
    assert (room.name, room.num_bytes, room.total_bytes, room.is_accelerator) == (
        "NVIDIA B",
        150 << 20,
        300 << 20,
        True,
    )
    for script in ("exit 9", "echo nonsense", "exec /bin/sleep 9"):
        program.write_text(f"#!/bin/sh\n{script}\n")
        assert plan_machine.find_rooms() == []
