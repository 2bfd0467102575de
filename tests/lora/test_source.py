"""`lora.source`: a run goes on from an adapter, or says field by field why it cannot."""

import hashlib
import json

import numpy as np
import pytest
import yaml
from tiny_configs import TINY_CONFIGS
from whole_runs import ROOT, SMALL, last_wins, rows, run

from llama_exp.architecture import linear_shapes
from llama_exp.config.check import check_arguments
from llama_exp.errors import ConfigError, InputError
from llama_exp.formats.adapter import Matrices
from llama_exp.formats.peft import adapter as peft
from llama_exp.lora import source as lora_source
from llama_exp.run.job import run_job

CONFIG = TINY_CONFIGS["grouped_query"]
LINEARS = linear_shapes(CONFIG)
SECTION = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "use_rslora": False, "targets": ["query", "value"]}
SECTION |= {"use_dora": False, "rank_pattern": {"value": 2}, "alpha_pattern": {}, "source": None}


@pytest.fixture
def folder(tmp_path):
    """An adapter on disk that SECTION describes, except that values have a rank of their own."""
    ranks = {path: 2 if path.endswith("value") else 4 for path in LINEARS if path.endswith(("query", "value"))}
    matrices = {
        path: Matrices(np.ones((LINEARS[path][0], rank), "float32"), np.zeros((rank, LINEARS[path][1]), "float32"))
        for path, rank in ranks.items()
    }
    peft.write(tmp_path, matrices, list(LINEARS), SECTION, {"digest": "x", "variable_dtype": "float32"})
    return tmp_path


def test_the_plan_counts_the_ranks_of_the_file(folder):
    section = SECTION | {"source": str(folder)}
    expected = sum(
        sum(LINEARS[path]) * (2 if path.endswith("value") else 4)
        for path in LINEARS
        if path.endswith(("query", "value"))
    )
    assert lora_source.count_lora_parameters(CONFIG, section) == expected
    assert lora_source.count_lora_parameters(CONFIG, SECTION | {"rank_pattern": {}}) > expected


@pytest.mark.parametrize(
    ("changes", "where", "found", "action"),
    [
        ({"rank": 8}, "lora.rank", "8 (adapter: 4)", "set lora.rank=4"),
        ({"alpha": 16.0}, "lora.alpha", "16.0 (adapter: 8.0)", "set lora.alpha=8.0"),
        ({"use_rslora": True}, "lora.use_rslora", "true (adapter: false)", "set lora.use_rslora=false"),
        ({"use_dora": True}, "lora.use_dora", "true (adapter: false)", "set lora.use_dora=false"),
        (
            {"rank_pattern": {}},
            "lora.rank_pattern",
            "transformer_layer_0/self_attention/value: 4 (adapter: 2)",
            "set lora.rank_pattern={value: 2}",
        ),
        (
            {"alpha_pattern": {"query": 3.0}},
            "lora.alpha_pattern",
            "transformer_layer_0/self_attention/query: 3.0 (adapter: 8.0)",
            "set lora.alpha_pattern={}",
        ),
        (
            {"targets": ["query"]},
            "lora.targets",
            "not adapted: transformer_layer_0/self_attention/value",
            "set lora.targets=[query,value]",
        ),
        (
            {"targets": ["query", "value", "transformer_layer_1/feedforward_gate_dense"]},
            "lora.targets",
            "not in the file: transformer_layer_1/feedforward_gate_dense",
            "set lora.targets=[query,value]",
        ),
    ],
)
def test_a_section_that_says_otherwise_is_refused(folder, changes, where, found, action):
    with pytest.raises(InputError) as error:
        lora_source.ranks(SECTION | {"source": str(folder)} | changes, CONFIG)
    (problem,) = error.value.problems
    assert problem.where == where and found in problem.found and action in problem.action
    assert str(folder) in problem.what


def test_every_difference_is_named(folder):
    with pytest.raises(InputError) as error:
        changes = {"rank": 1, "alpha": 1.0, "use_rslora": True, "targets": ["key"], "source": str(folder)}
        lora_source.ranks(SECTION | changes, CONFIG)
    assert [p.where for p in error.value.problems] == ["lora.rank", "lora.alpha", "lora.use_rslora", "lora.targets"]


def test_dropout_is_the_runs_own(folder):
    lora_source.ranks(SECTION | {"dropout": 0.5, "source": str(folder)}, CONFIG)


def test_a_source_without_a_rank_is_a_mistake():
    with pytest.raises(ConfigError) as error:
        check_arguments(["lora.source=somewhere"])
    (problem,) = error.value.problems
    assert problem.where == "lora.source" and "rank=0" in problem.found
    assert check_arguments(["lora.source=somewhere", "lora.rank=4"]).config.lora.source == "somewhere"
    with pytest.raises(ConfigError, match=r"lora\.source"):
        check_arguments(["adapter=somewhere"])


def test_an_adapter_that_vanished_or_changed_is_named(folder):
    file = folder / "adapter_model.safetensors"
    recorded = lora_source.origin(str(folder))
    assert recorded == {"source": str(folder), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert lora_source.origin(str(file)) == recorded | {"source": str(file)}
    for earlier in (recorded, None):
        lora_source.require_unchanged(str(folder), earlier)
    with pytest.raises(InputError, match="another than the one") as raised:
        lora_source.require_unchanged(str(folder), recorded | {"sha256": "0" * 64})
    assert recorded["sha256"] in str(raised.value) and "0" * 64 in str(raised.value)
    file.unlink()
    for earlier in (recorded, None):
        with pytest.raises(InputError, match="whose file is gone") as raised:
            lora_source.require_unchanged(str(folder), earlier)
        (problem,) = raised.value.problems
        assert problem.where == "lora.source" and str(folder) in problem.action and "resume=none" in problem.action
        assert (recorded["sha256"] in problem.action) == (earlier is not None)


LORA = ["lora.rank=4", "lora.alpha=6", "lora.targets=[attention]", "logger.mode=disabled"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A place with a text and a finished run of 5 steps that trained adapters."""
    place = tmp_path_factory.mktemp("source")
    (place / "text.txt").write_text("\n\n".join(f"{'abcdefgh'[n % 8] * 3} counts {n} and {n % 7}." for n in range(300)))
    train(place, "first", "trainer.max_steps=5", "lora.dropout=0.1")
    return place


def train(place, name, *overrides):
    arguments = last_wins(
        [*SMALL, *LORA, f"dataset.files=[{place}/text.txt]", f"runtime.cache_dir={place}/cache", *overrides]
    )
    run_job(check_arguments(arguments).config, arguments, place / name)
    return rows(place / name)


def test_a_run_goes_on_where_the_adapters_maker_ended(trained):
    first = rows(trained / "first")
    second = train(trained, "second", "trainer.max_steps=2", f"lora.source={trained}/first/adapter")
    losses = {row["step"]: row["loss"] for row in first if row["split"] == "validation"}
    assert second[0]["split"] == "validation" and second[0]["step"] == 0
    assert second[0]["loss"] == losses[5] != losses[0]
    assert {row["step"] for row in second if row["split"] == "train"} == {1, 2}
    configs = [yaml.safe_load((trained / name / "config.yaml").read_text()) for name in ("first", "second")]
    assert [config["lora"]["source"] for config in configs] == [None, f"{trained}/first/adapter"]
    records = [json.loads((trained / name / "run.json").read_text()) for name in ("first", "second")]
    assert records[0]["base_digest"] == records[1]["base_digest"]
    assert records[0]["lora"] is None and records[0]["quantization"]["mode"] == "none"
    content = (trained / "first/adapter/adapter_model.safetensors").read_bytes()
    expected = {"source": f"{trained}/first/adapter", "sha256": hashlib.sha256(content).hexdigest()}
    assert records[1]["lora"] == expected
    assert_resumes_only_with_its_source(trained, "second")


def assert_resumes_only_with_its_source(trained, name):
    source, hidden = trained / "first/adapter", trained / "first/hidden"
    arguments = ["trainer.max_steps=3", f"lora.source={source}", f"resume={trained / name}"]
    source.rename(hidden)
    with pytest.raises(InputError, match="began with an adapter whose file is gone") as raised:
        train(trained, name, *arguments)
    assert str(source) in str(raised.value) and "sha256" in str(raised.value)
    hidden.rename(source)
    assert train(trained, name, *arguments)[-1]["step"] == 3


def test_the_record_says_how_the_weights_are_stored(trained):
    train(trained, "quantized", "trainer.max_steps=1", "quantization=int8_weight_only")
    recorded = json.loads((trained / "quantized/run.json").read_text())["quantization"]
    assert recorded == yaml.safe_load((trained / "quantized/config.yaml").read_text())["quantization"]
    assert (recorded["mode"], recorded["quantize_activations"]) == ("int8", False)


@pytest.mark.process
def test_a_run_stops_before_frameworks_are_imported(trained):
    """Exit code 3; an import of Keras, which fails here, would lead to another one."""
    (trained / "blocked").mkdir()
    (trained / "blocked" / "keras.py").write_text("raise ImportError('blocked')")
    path = f"{trained}/blocked:{ROOT}"
    other_targets = "has 8 layers, the model adapts 4", "not adapted: transformer_layer_0/self_attention/key"
    other_targets += ("set lora.targets=[query,key,value,attention_output]",)
    for number, (override, *named) in enumerate(
        (
            ("lora.rank=2", "lora.rank"),
            (f"lora.source={trained}/nowhere", "nowhere"),
            ("lora.targets=[query,value]", *other_targets),
        )
    ):
        source = [f"lora.source={trained}/first/adapter", override]
        output = run(trained, *LORA, *source, f"hydra.run.dir={trained}/third-{number}", code=3, PYTHONPATH=path)
        assert all(text in " ".join(output.split()) for text in named)
        assert "fix:" in output and "Traceback" not in output
        assert not (trained / f"third-{number}").exists()  # nothing was trained
    assert "blocked" in run(trained, *LORA, f"hydra.run.dir={trained}/fourth", code=1, PYTHONPATH=path)
