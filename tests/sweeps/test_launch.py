"""The launcher `processes` in a Hydra application that knows nothing of llama_exp."""

import contextlib
import datetime
import json
import os
import re
import signal
import time

import pytest
from plain_sweeps import SAVES, STAYS, Sweep, await_true, is_running

pytestmark = pytest.mark.process


@contextlib.contextmanager
def sweeping(folder, *overrides, **options):
    sweep = Sweep(folder, *overrides, **options)
    try:
        yield sweep
    finally:
        sweep.kill_all()


def run(folder, *overrides, **options):
    with sweeping(folder, *overrides, **options) as sweep:
        code = sweep.end()
    return code, sweep


WAYS = {
    "raise ValueError('three is bad')": "raised ValueError: three is bad",
    "sys.exit(3)": "ended its process with exit code 3",
    "os._exit(9)": "ended its process with exit code 9",
    "os._exit(0)": "ended its process with exit code 0 before it returned",
    "os.kill(os.getpid(), signal.SIGSEGV)": "was killed by SIGSEGV",
    "os.kill(os.getpid(), signal.SIGKILL)": "was killed by SIGKILL",
    "held = []\nwhile True: held.append(b'x' * 20_000_000)": "out of memory: held ",
    "time.sleep(60)": "took more than 1 s (job_timeout_seconds)",
}
LIMITS = ["hydra.launcher.n_jobs=2", "hydra.launcher.job_timeout_seconds=1", "hydra.launcher.memory_limit_gb=0.5"]


def test_jobs_that_die_in_every_way_leave_the_others_whole_and_are_tried_again(tmp_path):
    (tmp_path / "ways").mkdir()
    for number, do in enumerate(WAYS):
        (tmp_path / "ways" / str(number)).write_text(do)
    do = "way = pathlib.Path('ways', str(cfg.x))\nif way.exists(): exec(way.read_text())"
    code, sweep = run(tmp_path, "+x=range(10)", *LIMITS, do=do)
    assert code == 7, sweep.told
    assert sweep.jobs_with("done") == [8, 9]
    for number, cause in enumerate(WAYS.values()):
        assert re.search(rf"job {number} \(\+x={number}\) failed after 0:0\d: {re.escape(cause)}", sweep.told)
    whole = [(sweep.folder / str(number) / "done").read_text() for number in (8, 9)]
    for number in range(len(WAYS) - 1):
        (tmp_path / "ways" / str(number)).unlink()
    code, sweep = run(tmp_path, "+x=range(10)", *LIMITS, do=do)
    assert code == 7 and sweep.jobs_with("done") == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert [(sweep.folder / str(number) / "done").read_text() for number in (8, 9)] == whole
    assert "job 7 failed 2 times" in sweep.told and "9 finished, 1 failed" in sweep.told


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_one_of_eight_jobs_dies(tmp_path, way):
    code, sweep = run(tmp_path, "+x=range(8)", "+bad=3", *LIMITS, do=way)
    assert code == 7 and sweep.jobs_with("done") == [0, 1, 2, 4, 5, 6, 7]
    assert WAYS[way] in sweep.told
    sweep.require_nothing_left(1)
    code, sweep = run(tmp_path, "+x=range(8)", "+bad=3", *LIMITS)
    assert code == 0 and sweep.jobs_with("done") == list(range(8))


NEEDY = """
from llama_exp.sweeps.app import PlainApp
from llama_exp.sweeps.jobs import Needs

class Needy(PlainApp):
    def find_needs(self, cfg, cores):
        return Needs({}, int(cfg.gib * 2**30))
"""


MEETS = """
(here / 'busy').touch()
most, until = 0, time.time() + (10 if cfg.gib < 0.3 else 0.3)
while most < 2 and time.time() < until:
    most = max(most, len(list(here.parent.glob('*/busy'))))
    time.sleep(0.01)
(here / 'most').write_text(str(most))
(here / 'busy').rename(here / 'was busy')
"""


def test_a_job_waits_until_its_memory_is_free_and_one_that_fits_nowhere_runs_alone(tmp_path):
    (tmp_path / "needy.py").write_text(NEEDY)
    keys = ["hydra.launcher.app=needy.Needy", "hydra.launcher.n_jobs=3", "hydra.launcher.memory_limit_gb=0.5"]
    code, sweep = run(tmp_path, "+gib=0.2,0.21,0.4,9", "+x=1", *keys, do=MEETS)
    assert code == 0, sweep.told
    assert [(sweep.folder / str(number) / "most").read_text() for number in range(4)] == ["2", "2", "1", "1"]
    assert sweep.told.count("job 3 starts alone: it needs about 9.0 GiB, and there are 0.5 GiB") == 1


def test_all_finish_and_none_prints_on_the_terminal(tmp_path):
    code, sweep = run(tmp_path, "+x=1,2,3", do="print('said by', cfg.x); os.system('echo and by a child')")
    assert code == 0 and "said by" not in sweep.told
    printed = [(sweep.folder / "output" / f"{number}.log").read_text() for number in range(3)]
    assert all(f"said by {number + 1}" in text and "and by a child" in text for number, text in enumerate(printed))
    assert len(set(sweep.pids())) == 3 and len({server for _, server in sweep.pids()}) == 1


def test_devices_and_cores_are_shared_out(tmp_path):
    do = "(here / 'seen').write_text(os.environ['CUDA_VISIBLE_DEVICES'] + f' {len(os.sched_getaffinity(0))}')"
    do += "; print(os.environ['OMP_NUM_THREADS']); time.sleep(0.5)"
    code, sweep = run(tmp_path, "+x=1,2,3,4", "hydra.launcher.devices=[0,3]", do=do)
    assert code == 0
    seen = [(sweep.folder / str(number) / "seen").read_text().split() for number in range(4)]
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert sorted(device for device, _ in seen[:2]) == sorted(device for device, _ in seen[2:]) == ["0", "3"]
    assert {cores for _, cores in seen} == {share}
    assert (sweep.folder / "output" / "0.log").read_text().strip() == share


def test_starts_are_staggered_and_in_order(tmp_path):
    code, sweep = run(tmp_path, "+x=1,2,3", "hydra.launcher.n_jobs=3", "hydra.launcher.start_delay_seconds=0.4")
    journal = [json.loads(line) for line in (sweep.folder / "sweep.jsonl").read_text().splitlines()]
    begun = [(line["job"], line["time"]) for line in journal if line["event"] == "begin"]
    times = [datetime.datetime.fromisoformat(time) for _, time in begun]
    assert code == 0 and [job for job, _ in begun] == [0, 1, 2]
    assert (times[2] - times[0]).total_seconds() > 0.7


def test_the_same_point_runs_once(tmp_path):
    code, sweep = run(tmp_path, "+x=1,2,1")
    assert code == 0 and sweep.jobs_with("done") == [0, 1]
    assert "+x=1 is job 0 again: it runs once" in sweep.told


def test_no_job_starts_after_a_failure_if_asked(tmp_path):
    code, sweep = run(tmp_path, "+x=1,2,3", "+bad=2", "hydra.launcher.stop_on_failure=true", do="1 / 0")
    assert code == 7 and sweep.jobs_with("pids") == [0, 1]


def test_jobs_that_all_fail_in_the_same_way_are_told_once(tmp_path):
    code, sweep = run(tmp_path, "+x=1,2,3,4,5", do="raise KeyError('lost')")
    assert code == 7 and sweep.told.count("the same error in 3 jobs: raised KeyError: 'lost'") == 1


def test_impossible_options_are_told_before_anything_starts(tmp_path):
    wrong = ["hydra.launcher.n_jobs=0", "hydra.launcher.devices=[0,0,x]", "hydra.launcher.job_timeout_seconds=-1"]
    code, sweep = run(tmp_path, "+x=1,2", *wrong, "hydra.launcher.app=there.is.none")
    assert code == 2 and sweep.jobs_with("pids") == []
    assert all(line.partition("=")[0] in sweep.told for line in wrong)
    code, sweep = run(tmp_path, "+x=1,2", "hydra.launcher.app=there.is.none")
    assert code == 2 and "hydra.launcher.app" in sweep.told


def test_what_a_job_started_ends_with_it(tmp_path):
    do = "import subprocess; child = subprocess.Popen(['sleep', '60']); (here / 'child').write_text(str(child.pid))"
    code, sweep = run(tmp_path, "+x=1", do=do)
    assert code == 0
    assert not is_running(int((sweep.folder / "0" / "child").read_text()))


def test_results_that_cannot_be_sent_are_told(tmp_path):
    code, sweep = run(tmp_path, "+x=1,2", "+bad=2", do="raise type('Own', (Exception,), {'__reduce__': None})('odd')")
    assert code == 7 and "raised Own: odd" in sweep.told


# --- stopping


@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGINT, 130, "2"), (signal.SIGTERM, 75, "15")])
def test_one_signal_stops_in_order(tmp_path, number, code, word):
    with sweeping(tmp_path, "+x=1,2,3", "hydra.launcher.n_jobs=2", do=SAVES) as sweep:
        sweep.await_files("ready", 2)
        sweep.send(number)
        assert sweep.end() == code, sweep.told
        assert [path.read_text() for path in sweep.folder.glob("*/saved")] == [word, word]
        assert sweep.jobs_with("pids") == [0, 1] and "2 running jobs stop" in sweep.told
        sweep.require_nothing_left(1)


def test_a_second_signal_stops_at_once(tmp_path):
    with sweeping(tmp_path, "+x=1,2", "hydra.launcher.n_jobs=2", do=STAYS) as sweep:
        sweep.await_files("ready", 2)
        sweep.send(signal.SIGINT)
        time.sleep(0.5)
        assert sweep.process.poll() is None and all(is_running(pid) for pid, _ in sweep.pids())
        sweep.send(signal.SIGINT)
        assert sweep.end() == -signal.SIGINT
        sweep.require_nothing_left(3)


# --- nothing is orphaned


def test_the_launchers_death_stops_jobs_in_order(tmp_path):
    with sweeping(tmp_path, "+x=1,2", "hydra.launcher.n_jobs=2", do=SAVES) as sweep:
        sweep.await_files("ready", 2)
        os.kill(sweep.process.pid, signal.SIGKILL)
        sweep.await_files("saved", 2)
        sweep.require_nothing_left(3)


def test_the_death_of_the_whole_group_leaves_nothing(tmp_path):
    with sweeping(tmp_path, "+x=1,2", "hydra.launcher.n_jobs=2", do=STAYS) as sweep:
        sweep.await_files("ready", 2)
        sweep.send(signal.SIGKILL)
        sweep.require_nothing_left(3)


def test_a_server_that_is_killed_takes_its_jobs_along_and_is_replaced(tmp_path):
    do = f"if cfg.x < 3:\n    {STAYS.replace(chr(10), chr(10) + '    ')}"
    with sweeping(tmp_path, "+x=1,2,3,4", "hydra.launcher.n_jobs=2", do=do) as sweep:
        sweep.await_files("ready", 2)
        (server,) = {server for _, server in sweep.pids()}
        os.kill(server, signal.SIGKILL)
        assert sweep.end() == 7
        assert sweep.jobs_with("done") == [2, 3]
        assert sweep.told.count("after 0:0") == 2 and "was killed with the server that forked it" in sweep.told
        sweep.require_nothing_left(1)


def test_a_job_dies_at_once_with_its_server(tmp_path):
    """Without the launcher, which is stopped meanwhile: the kernel does it."""
    with sweeping(tmp_path, "+x=1", do=STAYS) as sweep:
        sweep.await_files("ready", 1)
        os.kill(sweep.process.pid, signal.SIGSTOP)
        [(job, server)] = sweep.pids()
        os.kill(server, signal.SIGKILL)
        await_true(lambda: not is_running(job), "the job's end", 3)
