"""What is run of an experiment: the commands of its stages, their folders, and what is refused before one starts."""

import subprocess
import sys

import pytest
from tiny_experiment import TINY, write_experiment

from llama_exp.errors import ConfigError
from llama_exp.experiments.lines import fill_line, last_wins, write_value
from llama_exp.experiments.plan import make_plan
from llama_exp.experiments.request import Request
from llama_exp.limits.protocol import Half

BOTH = frozenset(Half)


@pytest.fixture
def plan_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def plan(text=TINY, cores=2, **asked):
        if not (tmp_path / "my").exists():
            write_experiment(tmp_path, text)
        return make_plan(Request("tiny", config_dir="my", **asked), cores)

    return plan


def test_stages_are_ordinary_commands(plan_of):
    base, ranks = plan_of().steps
    assert base.is_cached and base.folder.parts[:3] == ("outputs", "experiments", "bases")
    run_dir = f"hydra.run.dir={base.folder}"
    assert base.arguments == (
        "--config-dir=my",
        "experiment=tiny_base",
        "runtime.threads=1",
        run_dir,
        "resume=auto",
    )
    assert ranks.needs == ("base",) and ranks.num_runs == 4
    assert ranks.arguments == (
        "-m",
        "--config-dir=my",
        "experiment=tiny",
        f"preset.source={base.folder}/model",
        "lora.rank=2,4",
        "seed=0,1",
        "protocol.stage=ranks",
        "runtime.threads=1",
        "hydra.launcher.n_jobs=2",
        "hydra.sweep.dir=outputs/experiments/tiny/ranks",
        "resume=auto",
    )


def test_the_quick_variant_has_folders_and_bases_of_its_own(plan_of):
    (base, ranks), (quick_base, quick) = plan_of().steps, plan_of(is_quick=True).steps
    assert quick.folder.parent.name == "tiny-quick" and quick_base.folder != base.folder
    assert {"trainer.max_steps=3", "seed=0", "lora.rank=2,4"} <= set(quick.arguments)
    assert (ranks.num_runs, quick.num_runs) == (4, 2)


def test_a_stage_brings_those_that_it_needs(plan_of):
    assert [step.name for step in plan_of(stage="ranks").steps] == ["base", "ranks"]
    assert [step.name for step in plan_of(stage="base").steps] == ["base"]


def test_the_other_half_needs_a_model(plan_of):
    with pytest.raises(ConfigError, match="--preset smollm2=.*LLAMA_EXP_SMOLLM2"):
        plan_of(halves=BOTH)
    steps = plan_of(halves=BOTH, models={"smollm2": "hf://a b/c"}).steps
    assert "preset.source='hf://a b/c'" in steps[-1].arguments and len(steps) == 3


def test_a_base_is_known_by_all_that_decides_its_bits(plan_of):
    folders = [
        plan_of(extra=extra).steps[0].folder
        for extra in ((), ("runtime.backend=tensorflow",), ("runtime.threads=2",), ("trainer.max_steps=5",))
    ]
    assert len(set(folders)) == 4
    assert plan_of(extra=("runtime.threads=1",)).steps[0].folder == folders[0]
    assert plan_of(extra=("debug=true",)).steps[0].folder == folders[0]


def test_other_values_are_another_experiment(plan_of):
    same, other = plan_of(extra=("runtime.jit=false",)), plan_of(extra=("trainer.max_steps=5", "seed=3"))
    assert same.request.folder.name == "tiny" and other.request.folder.name.startswith("tiny-")
    assert other.request.folder == plan_of(extra=("seed=3", "trainer.max_steps=5")).request.folder
    assert "seed=3" in other.steps[1].arguments and other.steps[1].num_runs == 2


def test_what_an_earlier_stage_will_leave_need_not_be_there(plan_of):
    later = "    later: {overrides: ['branch_from={ranks}/x', trainer.max_steps=9]}\n    big:"
    *_, step = plan_of(TINY.replace("    big:", later)).steps
    assert "branch_from=outputs/experiments/tiny/ranks/x" in step.arguments


def test_runs_share_the_cores(plan_of):
    def n_jobs(**asked):
        lines = plan_of(**asked).steps[1].arguments
        return [line for line in lines if line.startswith(("hydra.launcher", "runtime.threads"))]

    assert n_jobs(cores=1) == ["runtime.threads=1"]
    assert n_jobs(cores=64) == ["runtime.threads=1", "hydra.launcher.n_jobs=4"]
    assert n_jobs(cores=4, extra=("runtime.threads=2",)) == ["runtime.threads=2", "hydra.launcher.n_jobs=2"]
    assert n_jobs(extra=("hydra.launcher.n_jobs=3",)) == ["hydra.launcher.n_jobs=3", "runtime.threads=1"]
    assert n_jobs(extra=("hydra/launcher=basic",)) == ["runtime.threads=1"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"extra": ("resume=none",)}, ["resume", "leave it out"]),
        ({"extra": ("experiment=other",)}, ["experiment", "leave it out"]),
        ({"extra": ("trainer.max_stpes=3",)}, ["no such key", "trainer.max_steps"]),
        ({"extra": ("lora.rank=-1",)}, ["lora.rank", "-1"]),
        ({"stage": "rnaks"}, ["--stage", "did you mean ranks?"]),
        ({"halves": frozenset({Half.pretrained})}, ["{smollm2}"]),
    ],
)
def test_what_cannot_be_meant_is_refused(plan_of, asked, words):
    with pytest.raises(ConfigError) as caught:
        plan_of(**asked)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(caught.value.problems) == 1


def test_a_wrong_value_of_a_grid_is_told_with_its_stage(plan_of):
    with pytest.raises(ConfigError, match=r"lora.rank: .*\(in stage ranks\)"):
        plan_of(TINY.replace("lora.rank: [2, 4], seed", "lora.rank: [2, many], seed"))


def test_an_experiment_of_one_run_says_how_it_is_run(plan_of):
    with pytest.raises(ConfigError, match="llama-exp train experiment=tiny"):
        plan_of("# @package _global_\nname: tiny\n")


def test_files_that_do_not_compose_are_told_as_such(plan_of):
    with pytest.raises(ConfigError, match="do not compose.*\\n.*defined before"):
        plan_of(
            TINY.replace(
                "defaults:\n", "defaults:\n  - override /logger: none\n  - /dataset@evaluation.sets.a: python_docs\n"
            )
        )


def test_a_half_that_there_is_not(plan_of):
    text = TINY[: TINY.index("    big:")] + "  claims: {}\n"
    with pytest.raises(ConfigError, match="no stage of this half"):
        plan_of(text, halves=frozenset({Half.pretrained}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4, "4"),
        (1e-05, "1e-05"),
        (True, "true"),
        (None, "null"),
        ("adamw", "adamw"),
        ("a, b", "'a, b'"),
        ("1e-3", "'1e-3'"),
        (["query", "value"], "[query,value]"),
        ({"query": 16}, "{query:16}"),
    ],
)
def test_values_are_written_as_hydra_reads_them(value, text):
    assert write_value(value) == text


def test_places_are_filled_and_quoted_where_that_is_needed():
    places = {"base": "outputs/a b", "m": "x/y"}
    assert fill_line("preset.source={base}/model", places) == "preset.source='outputs/a b/model'"
    assert fill_line("preset.source={m}", places) == "preset.source=x/y"
    assert fill_line("dataset.files=[{m}/t.txt]", places) == "dataset.files=[x/y/t.txt]"
    assert fill_line("a=${m}", places) == "a=${m}"
    assert fill_line("lora.rank_pattern={query:4}", places) == "lora.rank_pattern={query:4}"


def test_the_last_of_a_key_wins_at_the_place_of_the_first():
    assert last_wins(["a=1", "b=2", "+a=3"]) == ["+a=3", "b=2"]


def test_the_check_is_quick_and_loads_no_framework(tmp_path):
    write_experiment(tmp_path, TINY.replace("{base}", "{bsae}"))
    code = (
        "import sys, time; from llama_exp.cli import main\n"
        "start = time.process_time()\n"
        "try: main(['experiment', 'tiny', '--config-dir', 'my'])\n"
        "except SystemExit as end: assert end.code == 2\n"
        "assert time.process_time() - start < 1.0\n"
        "assert not {'keras', 'tensorflow', 'jax'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "did you mean {base}?" in done.stderr and not (tmp_path / "outputs").exists()
