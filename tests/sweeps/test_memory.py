import os

import pytest

from llama_exp.sweeps import memory
from llama_exp.sweeps.memory import GIB, Guard

STAT = "{pid} (a (name) b) S 1 {pid} {session} 0 -1 0\n"


@pytest.fixture
def machine(tmp_path):
    """Folders as the kernel has them, in a container of version 2."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/box/job\n")
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n")
    (tmp_path / "proc" / "vmstat").write_text("pgfault 17\noom_kill 3\n")
    (tmp_path / "cgroup" / "box" / "job").mkdir(parents=True)
    return tmp_path / "proc", tmp_path / "cgroup"


def test_the_machine_says_what_is_free(machine):
    assert memory.free_bytes(*machine) == 8_000_000 * 1024


def test_the_narrowest_limit_of_a_container_counts(machine):
    box = machine[1] / "box"
    for folder, most, used in ((box, 3 * GIB, 2 * GIB), (box / "job", "max", GIB)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    (box / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 2}\n")
    assert memory.free_bytes(*machine) == 1.5 * GIB


def test_a_container_of_version_1(machine):
    (machine[0] / "self" / "cgroup").write_text("9:cpu:/box\n4:memory:/box\n")
    box = machine[1] / "memory" / "box"
    box.mkdir(parents=True)
    (box / "memory.limit_in_bytes").write_text(str(2 * GIB))
    (box / "memory.usage_in_bytes").write_text(str(GIB))
    (machine[1] / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    (machine[1] / "memory" / "memory.usage_in_bytes").write_text("1")
    assert memory.free_bytes(*machine) == GIB


def test_nobody_says(tmp_path):
    assert memory.free_bytes(tmp_path, tmp_path) is None and memory.count_kernel_kills(tmp_path, tmp_path) == 0


def test_kills_of_the_kernel(machine):
    assert memory.count_kernel_kills(*machine) == 3
    (machine[1] / "box" / "job" / "memory.events").write_text("oom 9\noom_kill 5\n")
    assert memory.count_kernel_kills(*machine) == 5


def test_a_job_holds_what_its_whole_session_holds(machine):
    proc, _ = machine
    for pid, session, kib in ((10, 10, 100), (11, 10, 20), (12, 12, 7), (13, 13, 5000)):
        (proc / str(pid)).mkdir()
        (proc / str(pid) / "stat").write_text(STAT.format(pid=pid, session=session))
        (proc / str(pid) / "smaps_rollup").write_text(f"Rss: {9 * kib} kB\nPss:    {kib} kB\nPss_Anon: 1 kB\n")
    assert memory.resident_bytes([10, 12], proc) == {10: 120 * 1024, 12: 7 * 1024}
    (proc / "10" / "statm").write_text("900 50 3 4 0 5 0\n")
    assert memory.count_resident([10, 99], proc) == 50 * os.sysconf("SC_PAGE_SIZE")


def test_what_fits(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 10 * GIB)
    guard = Guard(8 * GIB)
    assert guard.fits(5 * GIB, []) and guard.fits(None, [(9 * GIB, 0)]) and not guard.fits(9 * GIB, [])
    assert guard.fits(4 * GIB, [(4 * GIB, GIB)]) and not guard.fits(5 * GIB, [(4 * GIB, GIB)])
    assert not guard.fits(4 * GIB, [(None, 5 * GIB)])  # one that takes more than anybody knew
    monkeypatch.setattr(memory, "free_bytes", lambda: 4 * GIB)  # others use the machine too
    assert guard.fits(3 * GIB, [(2 * GIB, 2 * GIB)]) and not guard.fits(3 * GIB, [(4 * GIB, 2 * GIB)])
    assert Guard(None).fits(99 * GIB, [])


def test_the_one_that_holds_most_is_the_culprit():
    guard = Guard.make(1)
    assert guard.limit == GIB and not guard.may_be_short(GIB) and guard.may_be_short(GIB + 1)
    assert guard.find_culprit({1: GIB // 2, 2: GIB // 2}) is None
    assert guard.find_culprit({1: GIB // 2, 2: GIB, 3: 5}) == 2
    assert Guard(None).find_culprit({1: GIB}) is None


def test_without_a_stated_limit_most_of_what_is_free(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 100 * GIB)
    assert Guard.make(None).limit == 95 * GIB
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    assert Guard.make(None).limit is None
