import os

import pytest

from llama_exp.sweeps.slots import cores_each, make_slots


@pytest.fixture
def cores(monkeypatch):
    return lambda numbers: monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(numbers))


def test_one_job_has_all_cores_and_devices_as_they_are(cores):
    cores(range(8))
    (slot,) = make_slots(None, None)
    assert slot.cores == frozenset() and slot.environment == {} and cores_each(1) == 8


def test_cores_are_divided_evenly_so_that_bits_do_not_depend_on_the_slot(cores):
    cores([2, 3, 5, 7, 11])
    slots = make_slots(2, None)
    assert [slot.cores for slot in slots] == [{2, 3}, {5, 7}] and cores_each(2) == 2


def test_more_jobs_than_cores_share_them_in_turn(cores):
    cores([0, 1])
    assert [slot.cores for slot in make_slots(3, None)] == [{0}, {1}, {0}] and cores_each(3) == 1


def test_one_job_for_each_device(cores):
    cores(range(4))
    slots = make_slots(None, [0, 3])
    assert [slot.environment for slot in slots] == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"}]
    assert [slot.cores for slot in slots] == [{0, 1}, {2, 3}]
    assert [slot.device for slot in make_slots(3, ["GPU-a1", 1])] == ["GPU-a1", "1", "GPU-a1"]
