"""A run on conversations in its preset's own template: the data of a run, without its model."""

import hashlib
import json

import pytest
from chat_templates import PLAIN

from llama_exp.config.check import check_arguments
from llama_exp.config.instantiate import instantiate
from llama_exp.errors import InputError
from llama_exp.files.digest import text_digest
from llama_exp.run.building import build_data
from llama_exp.tokenizer import byte_pair
from llama_exp.tokenizer.chat_template import BUILT_IN

pytestmark = pytest.mark.process  # a template has a process of its own


@pytest.fixture
def build(tmp_path):
    """Makes tokenizer and rows of a run over a preset whose tokenizer has a template, or none."""
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    lines = [{"messages": [{"role": "system", "content": f"{n}"}, *turns]} for n in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def make(template, source, *more):
        plain = byte_pair.from_merges([])
        byte_pair.BytePairTokenizer(plain._vocabulary, [], chat_template=template).save(tmp_path / "preset")
        config = check_arguments(
            [
                *("dataset=jsonl", f"dataset.files=[{tmp_path}/a.jsonl]", "dataset.chat_template=model"),
                *(f"preset.source={source}", "tokenizer=preset"),
                *("trainer.batch_size=1", "dataset.validation_fraction=0.4", "dataset.sequence_length=256"),
                *more,
            ]
        ).config
        dataset = instantiate(config.dataset, [], "dataset")
        dataset.open(tmp_path / "cache")
        return build_data(config, dataset, str(tmp_path / "cache"), tmp_path / "preset")

    return make


def test_the_template_of_the_preset_decides_the_rows(build, tmp_path):
    made = [build(PLAIN[name], tmp_path / "preset") for name in ("zephyr", "vicuna")]
    assert len({examples["train"].fingerprint for _, examples in made}) == 2
    assert all(examples["train"].num_target_tokens for _, examples in made)
    for tokenizer, _ in made:
        file = tmp_path / f"{len(tokenizer.chat_template)}.jinja"
        file.write_text(tokenizer.chat_template)
        assert text_digest(tokenizer.chat_template) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_built_in_instruct_preset_has_its_familys(build):
    tokenizer, _ = build(None, "llama3.2_instruct_1b", "model=llama3_2_1b")
    assert tokenizer.chat_template in BUILT_IN.values()  # and so has the model that the run saves


def test_a_preset_without_one_is_refused(build, tmp_path):
    with pytest.raises(InputError, match="no chat template"):
        build(None, tmp_path / "preset")
