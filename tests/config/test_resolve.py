"""Places in a config: what `latest` stands for today is what is recorded and hashed."""

import pytest

from llama_exp.config.check import check_arguments, config_hash, to_dict
from llama_exp.config.run_home import in_default_place
from llama_exp.files.latest import point_latest_to

NAMES = ("2026-01-01_00-00-00_0123abcd", "2026-01-02_00-00-00_0123abcd")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """`outputs/default` with two runs, below the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        (tmp_path / "outputs/default" / name).mkdir(parents=True)
    return tmp_path / "outputs/default"


CASES = {
    "resume": ("resume={}", lambda config: config.resume, ""),
    "preset": ("preset.source={}", lambda config: config.preset.source, "/model"),
    "adapter": ("lora.source={}", lambda config: config.lora.source, "/adapter"),
    "tokenizer": ("tokenizer.file={}", lambda config: config.tokenizer.file, "/model/tokenizer.json"),
    "data": ("dataset.files=[a.txt,{}]", lambda config: config.dataset.files[1], "/samples.md"),
}
CHOICES = {"adapter": ["lora.rank=8"], "tokenizer": ["tokenizer=hf_json"], "data": ["dataset=text_files"]}


@pytest.mark.parametrize("case", CASES)
def test_latest_is_another_place_after_another_run(home, case):
    text, value, below = CASES[case]

    def config(place):
        return check_arguments([*CHOICES.get(case, []), text.format(f"outputs/default/{place}{below}")]).config

    hashes = []
    for name in NAMES:
        point_latest_to(home / name)
        found = config("latest")
        assert value(found) == f"outputs/default/{name}{below}"
        assert to_dict(found) == to_dict(config(name))
        hashes.append(config_hash(found))
    assert (hashes[0] == hashes[1]) == (case == "resume")  # which is no science


def test_the_default_place(home, monkeypatch):
    assert in_default_place(home / NAMES[0], "default")
    assert not in_default_place(home / NAMES[0], "other")
    assert not in_default_place(home / "mine", "default")
    assert not in_default_place(home / "sweeps" / NAMES[0] / "0_lora.rank-8", "default")
    monkeypatch.chdir(home)
    assert not in_default_place(home / NAMES[0], "default")
