"""The quick variant of every experiment, to the verdict on each of its claims. Which verdict does not matter.

The stages' own command lines run in this process: a process for each takes six times as long, and is what
test_whole_experiment.py tests. Every run is on JAX, as the experiments say: `KERAS_BACKEND=jax pytest -m experiments`;
all of them: `KERAS_BACKEND=jax pytest -m "slow or experiments" tests/experiments`.
"""

import pytest
import yaml
from whole_runs import HERE, run_here

from llama_exp.config.check import CONF
from llama_exp.experiments.plan import make_plan
from llama_exp.experiments.request import Request
from llama_exp.experiments.verdicts import list_uncomputed, load_experiment
from llama_exp.protocol import judge

TEXT_OF = {path.stem: path.read_text(encoding="utf-8") for path in (CONF / "experiment").glob("*.yaml")}
EXPERIMENTS = sorted(name for name, text in TEXT_OF.items() if "\nprotocol:" in text)
DAILY = ("compute_optimal", "learns_less_forgets_less", "rslora", "wsd_trunk")  # the other three take longer than these
MARKED = [
    pytest.param(name, marks=pytest.mark.experiments if name in DAILY else pytest.mark.slow) for name in EXPERIMENTS
]
EXTRA = (HERE, "runtime.threads=0")  # this process has its threads


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """One folder for all: they share bases and prepared data."""
    return tmp_path_factory.mktemp("experiments")


@pytest.mark.parametrize("name", MARKED)
def test_every_claim_gets_its_verdict(playground, monkeypatch, name):
    monkeypatch.chdir(playground)
    plan = make_plan(Request(name, is_quick=True, extra=EXTRA), cores=2)
    for step in plan.steps:
        run_here(playground, *step.arguments, small=False)
    found = judge(load_experiment(plan.request.folder))
    stages = [step.name for step in plan.steps]
    stated = yaml.safe_load(TEXT_OF[name])["protocol"]["claims"]
    answered = {result.name for result in found if set(result.claim.stages) <= set(stages)}
    assert answered == {key for key, claim in stated.items() if set(claim["stages"]) <= set(stages)} != set()
    assert list_uncomputed(found, stages) == [], {result.name: result.reason for result in found}
