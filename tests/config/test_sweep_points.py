"""The points of a sweep: counted before they are listed, checked before the first one starts, named as Hydra does."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from llama_exp.config.check import check_arguments, config_hash
from llama_exp.config.check.sweep_points import count_values, list_corners, list_points
from llama_exp.config.quoting import quote
from llama_exp.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def problems(*arguments):
    with pytest.raises(ConfigError) as caught:
        check_arguments(list(arguments))
    return {problem.where: problem for problem in caught.value.problems}


def points(*arguments):
    return [" ".join(point.overrides) for point in check_arguments(["-m", *arguments]).sweep.points]


def parse(*lines):
    return OverridesParser.create().parse_overrides(list(lines))


@pytest.mark.parametrize(
    "text", ["1,2,3", "range(0,10)", "range(0,10,3)", "range(5,0,-2)", "range(0.1,1,0.1)", "range(3,3)", "choice(a,b)"]
)
def test_values_are_counted_as_hydra_lists_them(text):
    (sweep,) = parse(f"key={text}")
    assert count_values(sweep) == len(list(sweep.sweep_string_iterator()))


def test_points_come_in_the_order_of_hydras_sweeper():
    lines = ["a=1,2", "b=x", "c=range(0,3)", "d='e=f','g,h'"]
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (theirs,) = BasicSweeper.split_arguments(parse(*lines), None)
    ours = list_points([sweep for sweep in parse(*lines) if sweep.is_sweep_override()])
    assert [[line for line in point if not line.startswith("b=")] for point in theirs] == list(map(list, ours))


def test_every_value_and_both_ends_are_in_a_corner():
    sweeps = parse("a=tag(log,interval(1,8))", "b=x,y,z", "c=range(1,65)")
    corners = list(list_corners(sweeps))
    assert len(corners) == 3
    found = {line for corner in corners for line in corner}
    assert found == {"a=1.0", "a=8.0", "b=x", "b=y", "b=z", "c=1", "c=64"}


@pytest.mark.parametrize(
    ("grid", "count"),
    [
        (["seed=range(0,1000)", "trainer.batch_size=range(1,1001)"], 10**6),
        (["seed=range(0,100000)", "trainer.batch_size=range(1,100001)", "lora.rank=range(0,100)"], 10**12),
        (["seed=range(0,1000000)"], 10**6),
        (["seed=range(0,1000000000000)"], 10**12),
        (["seed=shuffle(range(0,1000000000000))"], 10**12),
        (["seed=range(0,10001)"], 10001),
    ],
)
def test_a_grid_that_is_too_large_is_counted_and_not_listed(grid, count):
    started = time.process_time()
    (problem,) = problems("-m", *grid).values()
    assert str(count) in problem.what + problem.found and "at most" in problem.action
    assert time.process_time() - started < 2


def test_forty_points_with_wrong_ones_are_named_in_two_seconds():
    wrong = [3, 11, 39]
    rates = ",".join(f"fast{number}" if number in wrong else f"{number + 1}e-5" for number in range(40))
    check_arguments(["seed=1"])  # what is imported once
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        check_arguments(["-m", f"optimizer.learning_rate={rates}"])
    assert time.process_time() - started < 2
    found = [problem.found for problem in caught.value.problems]
    assert found == [f"optimizer.learning_rate=fast{number}" for number in wrong]


@pytest.mark.process
def test_the_command_names_all_wrong_points_and_makes_nothing(tmp_path):
    values = ",".join(str(rank) for rank in (*range(1, 39), 300, 129))
    command = [sys.executable, str(ROOT / "train.py"), "-m", f"lora.rank={values}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and "lora.rank=300" in done.stderr and "lora.rank=129" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_wrong_value_names_the_points_that_have_it():
    found = problems("-m", "lora.rank=4,129", "seed=0,1,2,3,4")["lora.rank"].what
    assert "lora.rank=129 seed=0, lora.rank=129 seed=1, lora.rank=129 seed=2 and 2 more" in found


@pytest.mark.parametrize("empty", ["seed=range(3,3)", "experiment=glob(zzz*)", "seed="])
def test_a_sweep_without_values_is_refused(empty):
    key = empty.partition("=")[0]
    assert key in problems("-m", empty, "lora.rank=4,8")


def test_a_value_that_stands_there_again_makes_no_further_job(capsys):
    command = check_arguments(["-m", "seed=0,1,0,0", "lora.rank=4,8"])
    assert len(command.sweep.points) == 4
    assert "make no further jobs: 2" in capsys.readouterr().err
    assert "seed=0,1" in command.arguments  # so Hydra has it
    assert points("seed=5,5") == [""]


def test_the_same_experiment_under_two_names_is_refused():
    found = problems("-m", "quantization=none,preset")["command line"]
    assert found.found == "quantization=preset is quantization=none"
    assert len(points("name=a,b")) == 2, "in folders of their own"
    assert len(points("runtime.backend=tensorflow,jax", "hydra/launcher=processes")) == 2


def test_what_is_no_science_does_not_make_another_sweep():
    def identities(*more):
        return [point.identity for point in check_arguments(["-m", "lora.rank=4,8", *more]).sweep.points]

    assert identities() == identities("runtime.threads=1", "logger.mode=disabled", "debug=true", "resume=auto")
    assert identities()[0] == config_hash(check_arguments(["lora.rank=4"]).config)
    assert identities() == identities("hydra.launcher.n_jobs=2") and identities() != identities("seed=1")


@pytest.mark.parametrize(
    ("subdir", "what"),
    [
        ("same", "folder of job 0 too"),
        ("../${hydra.job.num}", "no folder inside"),
        ("/tmp/${hydra.job.num}", "no folder inside"),
        ("x" * 256, "at most 255 bytes"),
        ("${hydra.job.num}_" + "ä" * 130, "at most 255 bytes"),
    ],
)
def test_folders_that_cannot_be_are_refused_before_any_job(subdir, what):
    assert what in problems("-m", "seed=0,1", f"hydra.sweep.subdir='{subdir}'")["hydra.sweep.subdir"].what


@pytest.mark.parametrize("text", ["a/b", "../../b", "ü ö", "a\nb", "x" * 300, "a'b", "$HOME", "*", "a\tb"])
def test_any_override_gives_a_name_that_a_file_system_takes(text):
    value = quote(text)
    (first, second) = check_arguments(["-m", f"trainer.sample_prompts=[{value}],[other]"]).sweep.points
    name = first.folder_as(0)
    assert len(name.encode()) <= 255 and re.fullmatch(r"0_trainer\.sample_prompts[\w.+-]*", name, re.ASCII)
    assert first.overrides == (f"trainer.sample_prompts=[{value}]",), "all of it is in the record"
    assert second.folder_as(1) == "1_trainer.sample_prompts-other"


def test_a_job_has_another_number_when_a_sweep_gets_more_points():
    first, second = check_arguments(["-m", "seed=0,1", "lora.rank=4"]).sweep.points
    assert (first.folder_as(0), second.folder_as(1)) == ("0_seed-0", "1_seed-1")
    assert second.folder_as(7) == "7_seed-1"


def test_the_frontier_names_folders_as_hydra_does(tmp_path):
    from hydra import compose, initialize_config_dir

    command = check_arguments(["-m", "lora.rank_pattern={query: 4},{query: 8}", "seed=3", "lora.rank=8"])
    first = command.sweep.points[0]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        lines = [line for line in command.arguments if "=" in line and not line.startswith("--")]
        own = [line for line in lines if not line.startswith("++lora.rank_pattern")]
        cfg = compose("config", [*own, *first.overrides], return_hydra_config=True)
        cfg.hydra.job.num = 0
        assert OmegaConf.select(cfg, "hydra.sweep.subdir") == first.folder_as(0)


def test_keys_that_are_the_sweeps_cannot_differ():
    assert "resume" in problems("-m", "resume=none,auto") and "hydra.verbose" in problems(
        "-m", "hydra.verbose=true,false"
    )


def test_the_launchers_keys_are_checked_with_the_rest():
    found = problems("-m", "seed=0,1", "hydra.launcher.n_jobs=0", "hydra.launcher.on_failed=maybe", "lora.rank=many")
    assert {"hydra.launcher.n_jobs", "hydra.launcher.on_failed", "lora.rank"} <= set(found)
