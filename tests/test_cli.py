"""The entry points with a fake run behind them: folders, exit codes, sweeps, messages."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import llama_exp
from llama_exp import cli, train_command
from llama_exp.config.check import check_arguments, config_hash

ROOT = Path(__file__).resolve().parents[1]

# What stands behind the frontier in these tests: rank decides how the run ends.
FAKE = """
import json, sys, types
from llama_exp import errors

def run_job(config, overrides, folder, group=None, is_chosen=True):
    problem = errors.Problem("what", "where", "found", "action")
    ends = {2: errors.ConfigError, 3: errors.InputError, 4: errors.StorageError, 5: errors.NumericalError,
            6: errors.BusyError, 75: errors.Preempted, 130: errors.Interrupted}
    record = {"rank": config.lora.rank, "overrides": overrides, "group": group, "argv": sys.argv[1:]}
    (folder / "seen.json").write_text(json.dumps(record))
    if config.lora.rank in ends:
        raise ends[config.lora.rank](problem)
    if config.lora.rank == 1:
        raise KeyError("a bug of ours")
    if config.lora.rank == 7:
        raise KeyboardInterrupt
    return 1.5

sys.modules["llama_exp.run.job"] = types.ModuleType("llama_exp.run.job")
sys.modules["llama_exp.run.job"].run_job = run_job
from llama_exp.{module} import main
main()
"""


def run(folder, *arguments, module="train_command", environment=()):
    script = folder / "start.py"
    script.write_text(FAKE.replace("{module}", module))
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **dict(environment)},
    )


def seen(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("outputs/**/seen.json"))]


# The tiny model's key and value layers are 64 wide: too narrow for rank 75 or 130.
WIDE = "lora.targets=[feedforward_gate_dense]"


@pytest.mark.process
def test_a_run_gets_config_overrides_and_a_folder_of_its_own(tmp_path):
    done = run(tmp_path, "lora.rank=8", "name=mine")
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("outputs/mine/*")
    expected = config_hash(check_arguments(["lora.rank=8"]).config)[:8]
    assert folder.name.endswith(f"_{expected}")
    record = json.loads((folder / "seen.json").read_text())
    assert record["overrides"] == ["lora.rank=8", "name=mine"] and record["group"] is None
    assert record["argv"] == ["lora.rank=8", "name=mine"]
    assert sorted(path.name for path in folder.iterdir()) == ["seen.json"]


@pytest.mark.process
def test_a_given_folder_wins(tmp_path):
    done = run(tmp_path, "hydra.run.dir=here/it-is")
    assert done.returncode == 0 and (tmp_path / "here/it-is/seen.json").exists()


@pytest.mark.process
@pytest.mark.parametrize("code", [2, 3, 4, 5, 6, 75, 130])
def test_exit_codes_of_user_errors(tmp_path, code):
    done = run(tmp_path, f"lora.rank={code}", WIDE)
    assert done.returncode == code
    assert done.stderr == "where: what\n  found: found\n  fix:   action\n"


@pytest.mark.process
def test_a_bug_shows_its_traceback(tmp_path):
    done = run(tmp_path, "lora.rank=1")
    assert done.returncode == 1
    assert "KeyError: 'a bug of ours'" in done.stderr and "Traceback" in done.stderr
    assert "HYDRA_FULL_ERROR" not in done.stderr and "Error executing job" not in done.stderr


@pytest.mark.process
def test_debug_shows_tracebacks_of_user_errors(tmp_path):
    done = run(tmp_path, "lora.rank=3", "debug=true")
    assert done.returncode == 3 and "Traceback" in done.stderr
    done = run(tmp_path, "lora.rnk=3", "debug=true")
    assert done.returncode == 2 and "Traceback" in done.stderr and "lora.rank" in done.stderr


@pytest.mark.process
def test_ctrl_c_before_training(tmp_path):
    done = run(tmp_path, "lora.rank=7")
    assert done.returncode == 130 and "Traceback" not in done.stderr


@pytest.mark.process
def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(tmp_path, "hydra.run.dir=file/below")
    assert done.returncode == 4 and "hydra.run.dir" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.process
def test_a_sweep_survives_its_failing_jobs(tmp_path):
    done = run(tmp_path, "-m", "lora.rank=8,3,1,9", "trainer.max_steps=20")
    assert done.returncode == 7
    (sweep,) = tmp_path.glob("outputs/default/sweeps/*")
    names = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    assert names.pop() == "output" and names == ["0_lora.rank-8", "1_lora.rank-3", "2_lora.rank-1", "3_lora.rank-9"]
    assert [record["rank"] for record in seen(tmp_path)] == [8, 3, 1, 9]
    assert {record["group"] for record in seen(tmp_path)} == {sweep.name}
    journal = [json.loads(line) for line in (sweep / "sweep.jsonl").read_text().splitlines()]
    failures = [line for line in journal if line["event"] == "end" and line["state"] == "failed"]
    assert [(line["job"], line["exit_code"], line["cause"].partition(":")[0]) for line in failures] == [
        (1, 3, "raised InputError"),
        (2, 1, "raised KeyError"),
    ]
    assert "2 failed" in done.stderr and "Error executing job" not in done.stderr


@pytest.mark.process
def test_hydras_record_of_a_sweep_holds_no_secret(tmp_path):
    source = "class Tell:\n    def __init__(self, api_key, url): ...\n    def on_metrics(self, row): ...\n"
    (tmp_path / "mine.py").write_text(source)
    callback = "+trainer.callbacks.mine={_target_: mine.Tell, api_key: canary-4711, url: 's3://me:canary2@host/x'}"
    done = run(tmp_path, "-m", "lora.rank=8,9", callback, "trusted_modules=[mine]")
    (record,) = tmp_path.glob("outputs/default/sweeps/*/multirun.yaml")
    text = record.read_text()
    assert done.returncode == 0 and "canary" not in text + done.stderr
    assert record.stat().st_mode & 0o777 == 0o600 and "+trainer.callbacks.mine={_target_: mine.Tell" in text


@pytest.mark.parametrize("code", ["\x1b[31mred", "\x07", "\x9b2J", "\u202egnp"])
def test_what_steers_a_terminal_is_spelled_out(capsys, code):
    with pytest.raises(SystemExit):
        cli.main(["generate", f"nowhere{code}", "--prompt", "a"])
    told = capsys.readouterr().err
    assert code not in told and code.encode("unicode_escape").decode() in told


@pytest.mark.process
def test_online_without_a_key_ends_before_anything_is_made(tmp_path):
    nobody = {"HOME": str(tmp_path / "home"), "WANDB_API_KEY": "", "WANDB_IDENTITY_TOKEN_FILE": "", "NETRC": ""}
    done = run(tmp_path, "-m", "logger.mode=online", "lora.rank=8,9", environment=nobody)
    assert done.returncode == 2 and "wandb login" in done.stderr and not (tmp_path / "outputs").exists()


@pytest.mark.process
def test_a_sweep_in_batches_goes_on_behind_a_failure(tmp_path):
    done = run(tmp_path, "-m", "lora.rank=3,8", "hydra.sweeper.max_batch_size=1")
    assert done.returncode == 7 and [record["rank"] for record in seen(tmp_path)] == [3, 8]


@pytest.mark.process
@pytest.mark.parametrize("code", [75, 130])
def test_a_job_that_a_signal_stops_is_left_for_the_next_time(tmp_path, code):
    done = run(tmp_path, "-m", f"lora.rank=8,{code},9", WIDE)
    assert done.returncode == code
    assert [record["rank"] for record in seen(tmp_path)] == [8, code, 9]
    assert "left: job 1" in done.stderr


@pytest.mark.process
@pytest.mark.parametrize("code", [75, 130])
def test_a_signal_ends_all_jobs_that_share_a_process(tmp_path, code):
    done = run(tmp_path, "-m", f"lora.rank=8,{code},9", WIDE, "hydra/launcher=basic")
    assert done.returncode == code
    assert [record["rank"] for record in seen(tmp_path)] == [8, code]


@pytest.mark.process
def test_no_job_starts_if_a_later_one_is_wrong(tmp_path):
    done = run(tmp_path, "-m", "lora.rank=8,129")
    assert done.returncode == 2 and seen(tmp_path) == [] and not (tmp_path / "outputs").exists()


@pytest.mark.process
def test_options_may_stand_anywhere(tmp_path):
    done = run(tmp_path, "lora.rank=8,9", "-m", "trainer.max_steps=20")
    assert done.returncode == 0, done.stderr
    assert len(seen(tmp_path)) == 2


@pytest.mark.process
def test_own_folder_of_choices_from_anywhere(tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    text = "# @package _global_\nlora: {rank: 8}\nname: own\n"
    (tmp_path / "mine/experiment/own.yaml").write_text(text)
    done = run(tmp_path, "train", "--config-dir", "mine", "experiment=own", module="cli")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/own/*/seen.json"))


@pytest.mark.process
def test_resume_auto_finds_the_unfinished_run_of_the_same_configuration(tmp_path):
    full_hash = config_hash(check_arguments(["lora.rank=8"]).config)
    for name, a_hash, status in [("a", full_hash, "running"), ("b", full_hash, "finished"), ("c", "0" * 64, "running")]:
        folder = tmp_path / "outputs/default" / name
        folder.mkdir(parents=True)
        starts = [{"time": "2026-01-01T00:00:00"}]
        (folder / "run.json").write_text(json.dumps({"config_hash": a_hash, "starts": starts}))
        (folder / "summary.json").write_text(json.dumps({"status": status}))
    assert run(tmp_path, "lora.rank=8", "resume=auto").returncode == 0
    assert [path.parent.name for path in tmp_path.glob("outputs/default/*/seen.json")] == ["a"]
    assert run(tmp_path, "lora.rank=9", "resume=auto").returncode == 0
    assert len(list(tmp_path.glob("outputs/default/*/seen.json"))) == 2


# --- what only shows


def shown(*arguments, environment=()):
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **dict(environment)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.process
def test_cfg_job_shows_the_whole_config():
    text = shown("model=llama2_7b", "lora.rank=8", "--cfg", "job")
    assert "source: llama2_7b_en" in text and "rank: 8" in text and "hidden_dim: 4096" in text
    assert "warmup_steps: 60" in shown("--cfg", "job", "--resolve", "--package", "schedule")


@pytest.mark.process
def test_help():
    text = shown("--help")
    for words in ("llama2_7b", "python_docs", "experiment=python_qa_lora", "learning_rate: 0.001", "--config-dir"):
        assert words in text


@pytest.mark.process
def test_info():
    assert "model/llama_tiny" in shown("--info", "defaults")


@pytest.mark.process
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lora.ra", ["lora.rank=", "lora.rank_pattern."]),
        ("model=llama2_7", ["model=llama2_7b"]),
        ("experiment=py", ["experiment=python_qa_lora"]),
    ],
)
def test_tab_completion(line, expected):
    words = shown("-sc", "query=bash", environment={"COMP_LINE": f"python train.py {line}"}).split()
    assert words == expected
    assert "complete -o nospace" in shown("-sc", "install=bash")


# --- the console script


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("llama-exp train mod", ["model.", "model="]),
        ("/usr/bin/llama-exp plan lora.ra", ["lora.rank=", "lora.rank_pattern."]),
        ("llama-exp tr", ["train"]),
        ("llama-exp chat outputs/", []),
        ("llama-exp train --cfg jo", []),
        ("llama-exp train dataset.files=[a mod", []),
    ],
)
def test_completion_says_nothing_but_words(line, words, monkeypatch, capfd):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr(sys, "argv", ["llama-exp", "-sc", "query=bash"])
    with contextlib.suppress(SystemExit):
        cli.main(["-sc", "query=bash"])
    output = capfd.readouterr()
    assert sorted(output.out.split()) == sorted(words) and output.err == ""


def test_console_commands(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"llama-exp {llama_exp.__version__}\n"
    cli.main(["--help"])
    assert "plan" in capsys.readouterr().out
    cli.main([])
    assert "usage" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(["trian"])
    assert stop.value.code == 2 and "trian" in capsys.readouterr().err


@pytest.mark.process
def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "llama_exp", "trian"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 2 and "did you mean train" in done.stderr
    importlib.import_module("llama_exp.__main__")  # as processes that Python spawns do: nothing runs again


def test_plan_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["plan", "model=llama2_7b", "lora.rank=8"])
    assert stop.value.code == 0
    assert "4,194,304" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(["plan", "model=lama2_7b"])
    assert stop.value.code == 2 and "llama2_7b" in capsys.readouterr().err


def test_resume_goes_on_in_the_folder_that_latest_leads_to(tmp_path):
    full_hash = config_hash(check_arguments(["lora.rank=8"]).config)
    folder = tmp_path / "outputs/default/2026-01-01_00-00-00_0123abcd"
    folder.mkdir(parents=True)
    starts = [{"time": "2026-01-01T00:00:00"}]
    (folder / "run.json").write_text(json.dumps({"config_hash": full_hash, "starts": starts}))
    (folder.parent / "latest").symlink_to(folder.name)
    for resume in ("outputs/default/latest", "auto"):
        done = run(tmp_path, "lora.rank=8", f"resume={resume}")
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, "latest"]
    assert (folder / "seen.json").exists()


@pytest.mark.parametrize("command", [lambda: train_command.main(["--help"]), lambda: cli.main(["presets", "--help"])])
def test_what_a_command_makes_is_writable_by_its_owner_only(command, capsys):
    """Before anything is made: Hydra and other libraries make folders too."""
    before = os.umask(0)
    try:
        with contextlib.suppress(SystemExit):
            command()
        assert os.umask(0) == 0o022
    finally:
        os.umask(before)
