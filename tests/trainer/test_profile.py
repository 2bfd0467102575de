"""A profile of some steps is where TensorBoard's plug-in looks for it, and holds what ran."""

import gzip
import json
import logging

import keras
import pytest
from small_trainer import trainer

from llama_exp.trainer.profile import WARM_UP, Profile

pytestmark = pytest.mark.neutral


def test_a_profile_of_two_steps_opens(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    profile = Profile(tmp_path / "profile", 2)
    options = {"max_steps": 6, "validate_every_steps": 100, "checkpoint_every_steps": 100}
    run, *_ = trainer(tmp_path / "checkpoints", profile=profile, **options)
    run.fit()
    (folder,) = (tmp_path / "profile/plugins/profile").iterdir()
    (planes,) = folder.glob("*.xplane.pb")
    assert planes.stat().st_size > 1000
    names = read_planes(planes)
    assert any("CPU" in name or "GPU" in name for name in names)
    assert "profile of 2 steps" in caplog.text and "tensorboard --logdir" in caplog.text
    for trace in folder.glob("*.trace.json.gz"):  # for a browser; JAX writes one
        assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]


def read_planes(path):
    """Names of the devices and threads that a profile is about, by the backend's own reader."""
    if keras.backend.backend() == "jax":
        from jax.profiler import ProfileData

        return [plane.name for plane in ProfileData.from_file(str(path)).planes]
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    return [plane.name for plane in xplane_pb2.XSpace.FromString(path.read_bytes()).planes]


class Recording:
    """Stands for the backend's profiler."""

    def __init__(self, monkeypatch):
        self.calls = []
        monkeypatch.setattr("llama_exp.backend.start_profile", lambda folder: self.calls.append("start"))
        monkeypatch.setattr("llama_exp.backend.stop_profile", lambda: self.calls.append("stop"))


def take(profile, steps, calls):
    for number in range(steps):
        with profile.of_step():
            calls.append(number)
    profile.close()


def test_the_first_steps_are_left_out(tmp_path, monkeypatch):
    recording = Recording(monkeypatch)
    take(Profile(tmp_path, 2), 6, recording.calls)
    assert recording.calls == [0, 1, "start", 2, 3, "stop", 4, 5]


def test_a_run_that_ends_early_leaves_what_there_is(tmp_path, monkeypatch, caplog):
    recording = Recording(monkeypatch)
    take(Profile(tmp_path, 9), 3, recording.calls)
    assert recording.calls == [0, 1, "start", 2, "stop"] and "no step" not in caplog.text
    take(Profile(tmp_path, 9), WARM_UP, [])
    assert "no step was profiled" in caplog.text


def test_nothing_is_recorded_unasked(tmp_path, monkeypatch, caplog):
    recording = Recording(monkeypatch)
    take(Profile(tmp_path, 0), 4, [])
    take(Profile(None, 5), 4, [])  # who is not the writer
    assert recording.calls == [] and caplog.text == ""
