"""The folder of a sweep is one of its own."""

import re

from llama_exp.run import sweep

ARGUMENTS = ["-m", "seed=0,1"]


def test_two_sweeps_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stopped = r"hydra\.sweep\.dir='(.*?)'"
    first = sweep.check_and_claim([*ARGUMENTS, "hydra.sweep.dir=outputs/x/sweeps/now"])
    assert not first.sweep_dir.exists()  # named: it may be a sweep that goes on
    config = tmp_path / "conf" / "sweep"
    config.mkdir(parents=True)
    (config / "here.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweep:\n    dir: outputs/${now:%Y}\n"
    )
    line = ["--config-dir", str(tmp_path / "conf"), "sweep=here", "seed=0,1"]
    found = [sweep.check_and_claim(line) for _ in range(3)]
    year = found[0].sweep_dir.name
    assert [command.sweep_dir.name for command in found] == [year, f"{year}-2", f"{year}-3"]
    assert all(command.sweep_dir.is_dir() for command in found)
    texts = [re.search(stopped, " ".join(command.arguments))[1] for command in found]
    assert texts == [str(command.sweep_dir) for command in found]


def test_one_that_was_quicker_gets_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claimed = []

    def claim(folder):
        claimed.append(folder)
        if len(claimed) == 1:
            folder.mkdir(parents=True)  # the other sweep, between our look and our claim
            return False
        return True

    monkeypatch.setattr(sweep, "claim_folder", claim)
    sweep.check_and_claim(ARGUMENTS)
    assert len(claimed) == 2 and claimed[0] != claimed[1]


def test_what_is_only_shown_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep.check_and_claim([*ARGUMENTS, "--cfg", "job"])
    sweep.check_and_claim(["seed=1"])
    assert not (tmp_path / "outputs").exists()
