"""What is suggested after a run."""

import dataclasses

from in_memory import prepared

from llama_exp.config.check import check_arguments
from llama_exp.dataset.chat import built_in
from llama_exp.dataset.records import Record
from llama_exp.limits.dataset import ChatTemplate
from llama_exp.run.next_commands import next_commands
from llama_exp.tokenizer import byte_pair

TOKENIZER = byte_pair.from_merges([])
TEXTS = [f"Some text of number {i}." for i in range(10)]


def conversation(number):
    messages = [{"role": "user", "content": f"How {number}?"}, {"role": "assistant", "content": "So."}]
    return Record(f"#{number}", built_in.render(ChatTemplate.llama3, messages), str(number))


CHATS = [conversation(number) for number in range(10)]


def suggested(tmp_path, records, *arguments):
    config = check_arguments(["dataset=jsonl", f"dataset.files=[{tmp_path}/x.jsonl]", *arguments]).config
    examples = prepared(records, TOKENIZER, tmp_path / "cache", sequence_length=64, packing="none")
    return next_commands(config, tmp_path / "a run", examples, TOKENIZER)


def test_a_model_of_text_writes_and_one_of_conversations_talks(tmp_path, monkeypatch):
    (tmp_path / "x.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    assert suggested(tmp_path, TEXTS) == {"generate": "llama-exp generate 'a run' --prompt The"}
    prompts = "trainer.sample_prompts=[Return the]"
    assert suggested(tmp_path, TEXTS, prompts) == {"generate": "llama-exp generate 'a run' --prompt 'Return the'"}
    llama3 = "dataset.chat_template=llama3"
    assert suggested(tmp_path, CHATS, llama3) == {"chat": "llama-exp chat 'a run'"}
    assert "generate" in suggested(tmp_path, TEXTS, llama3)  # the same section reads texts


def test_adapters_on_random_weights_are_of_no_use(tmp_path):
    (tmp_path / "x.jsonl").write_text("")
    assert suggested(tmp_path, TEXTS, "lora.rank=4") == {}
    config = check_arguments(["lora.rank=4"]).config
    config = dataclasses.replace(config, preset=dataclasses.replace(config.preset, source="somewhere"))
    examples = prepared(TEXTS, TOKENIZER, tmp_path / "cache")
    assert list(next_commands(config, tmp_path, examples, TOKENIZER)) == ["generate"]
