"""What lm-evaluation-harness finds while it works, and that all is as before afterwards."""

import io
import logging
import os
import random
import sys
import types

import numpy as np
import pytest

from llama_exp.evaluation import harness_surroundings as places
from llama_exp.evaluation.harness_surroundings import surroundings


@pytest.fixture
def datasets(monkeypatch):
    """A stand-in, where the package is not installed; its switch is `datasets.config.HF_HUB_OFFLINE`."""
    module = types.ModuleType("datasets")
    module.config = types.SimpleNamespace(HF_HUB_OFFLINE=False)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


@pytest.mark.parametrize("online", [False, True])
def test_servers_are_asked_only_where_that_is_allowed(datasets, monkeypatch, online):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with surroundings(online):
        assert constants.HF_HUB_OFFLINE is datasets.config.HF_HUB_OFFLINE is not online
        assert os.environ.get("HF_HUB_OFFLINE") == (None if online else "1")
    assert constants.HF_HUB_OFFLINE is datasets.config.HF_HUB_OFFLINE is False
    assert "HF_HUB_OFFLINE" not in os.environ


def test_random_numbers_are_the_harness_own_and_ours_go_on():
    random.seed(5)
    np.random.seed(6)
    expected = random.Random(5).random(), np.random.RandomState(6).random()
    with surroundings(online=True):
        assert random.random() == random.Random(places.RANDOM_SEED).random()
        assert np.random.random() == np.random.RandomState(places.NUMPY_SEED).random()
    assert (random.random(), np.random.random()) == expected


def test_its_warnings_come_in_our_log_and_its_bars_nowhere(monkeypatch, caplog):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    theirs = logging.getLogger("lm_eval.api.task")
    with caplog.at_level(logging.INFO, "llama_exp"), surroundings(online=True):
        theirs.info("noise")
        theirs.warning("num_fewshot was %d", 3)
        for shown in ("\r 10%|#", "\r100%|####", "\n", "a line\n", "\r\x1b[2Kour bar"):
            sys.stderr.write(shown)
        print("bootstrapping")
    assert [record.getMessage() for record in caplog.records] == ["lm-eval: num_fewshot was 3"]
    assert stream.getvalue() == "a line\n\r\x1b[2Kour barbootstrapping\n"
    assert not logging.getLogger("lm_eval").handlers
    assert sys.stderr is stream


def test_all_is_as_before_after_an_error(monkeypatch):
    monkeypatch.setenv("DISABLE_MULTIPROC", "0")
    stream = sys.stderr
    with pytest.raises(ZeroDivisionError), surroundings(online=True):
        assert os.environ["DISABLE_MULTIPROC"] == "1"
        1 / 0  # noqa: B018
    assert os.environ["DISABLE_MULTIPROC"] == "0"
    assert sys.stderr is stream
