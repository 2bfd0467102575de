import pytest

from llama_exp.limits.launcher import find_launcher_problems

GOOD = {"n_jobs": 2, "devices": [0, "GPU-8932f937-d72c", "MIG-1/2"], "resume": "auto", "job_timeout_seconds": 3}
GOOD |= {"memory_limit_gb": None, "start_delay_seconds": 0, "on_failed": "skip", "extend": True, "app": "a.B"}


def test_nothing_is_said_of_what_is_possible():
    assert list(find_launcher_problems(GOOD | {"_target_": "hydra_plugins.x", "stop_on_failure": False})) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_jobs", 0),
        ("n_jobs", "two"),
        ("devices", []),
        ("devices", 0),
        ("devices", [0, 0, "x"]),
        ("devices", [-1]),
        ("job_timeout_seconds", -1),
        ("job_timeout_seconds", 0),
        ("start_delay_seconds", -0.5),
        ("start_delay_seconds", float("nan")),
        ("memory_limit_gb", 0),
        ("resume", "maybe"),
        ("on_failed", "again"),
        ("extend", "yes"),
        ("stop_on_failure", 1),
        ("app", "NoModule"),
    ],
)
def test_each_impossible_value_is_told(key, value):
    (problem,) = find_launcher_problems(GOOD | {key: value})
    assert problem.where == f"hydra.launcher.{key}" and problem.action.startswith("give ")
