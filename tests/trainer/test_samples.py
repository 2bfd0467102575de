"""What a run shows of its model: stated prompts, or the beginnings of what it is validated on."""

import numpy as np
import pytest
from in_memory import prepared

from llama_exp.dataset.chat import built_in
from llama_exp.dataset.records import Record, document, pair
from llama_exp.limits.dataset import ChatTemplate
from llama_exp.tokenizer import byte_pair
from llama_exp.trainer.samples import SampleWriter, validation_prompts

TOKENIZER = byte_pair.from_merges([])


class Echo:
    """A model that answers `!`."""

    tokenizer = TOKENIZER

    def generate(self, token_ids, max_length, temperature, seed):
        self.arguments = (max_length - len(token_ids), temperature, seed)
        return np.array([*token_ids, *TOKENIZER.encode("!")], np.int32)


def examples(records, tmp_path, **options):
    options = {"sequence_length": 96, "overlong": "truncate", "packing": "none", **options}
    return prepared(records, TOKENIZER, tmp_path, **options)["validation"]


def shown(split):
    return [TOKENIZER.decode(ids.tolist()) for ids in validation_prompts(split, TOKENIZER)]


def conversation(number, question, answer):
    said = [("user", question), ("assistant", answer), ("user", "And?"), ("assistant", "More.")]
    messages = [{"role": role, "content": content} for role, content in said]
    return Record(f"#{number}", built_in.render(ChatTemplate.chatml, messages), question)


def test_a_text_is_begun_with_whole_words(tmp_path):
    texts = [f"The number {'abcde'[i % 5] * 3} is followed by the word of it {i}." for i in range(10)]
    split = examples(texts, tmp_path)
    assert shown(split) == ["The number eee", "The number eee"][:1]  # the same beginning is shown once


def test_a_short_text_is_not_shown_whole(tmp_path):
    split = examples([f"{'abcdefghij'[i]} bc de" for i in range(10)], tmp_path)
    assert shown(split) == ["e bc", "j bc"]
    split = examples([f"{'abcdefghij'[i]}xyz" for i in range(10)], tmp_path / "one word")
    assert shown(split) == ["ex", "jx"]


def test_a_prompt_is_shown_whole_and_a_conversation_up_to_the_first_answer(tmp_path):
    split = examples([pair(f"#{i}", f"Q {i}: why? A:", f" because {i}") for i in range(10)], tmp_path)
    assert shown(split) == ["Q 4: why? A:", "Q 9: why? A:"]
    split = examples([conversation(i, f"How {i}?", f"So {i}.") for i in range(10)], tmp_path / "chat")
    assert shown(split)[0] == "<|im_start|>user\nHow 4?<|im_end|>\n<|im_start|>assistant\n"
    assert shown(split)[1] == "<|im_start|>user\nHow 9?<|im_end|>\n<|im_start|>assistant\n"
    (first, _) = validation_prompts(split, TOKENIZER)
    assert first[0] == TOKENIZER.begin_id and (first[1:] != TOKENIZER.begin_id).all()


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_of_a_packed_row_the_first_document_counts(tmp_path, packing):
    records = [pair(f"#{i}", f"Q{i}?", f" yes {i}") for i in range(20)]
    split = examples(records, tmp_path, packing=packing, overlong="split" if packing == "concat" else "truncate")
    assert shown(split)[0] in ("Q4?", "Q9?", "Q14?", "Q19?")


def test_rows_that_count_nothing_begin_somewhere(tmp_path):
    split = examples([document(f"#{i}", "") for i in range(5)] + ["some text of words"] * 10, tmp_path)
    assert all(len(ids) for ids in validation_prompts(split, TOKENIZER))


def test_samples_are_prompt_and_continuation_and_differ_by_step(tmp_path):
    model = Echo()
    writer = SampleWriter(model, None, prompts=["ab", "c"], num_tokens=7, temperature=0.5, seed=-3)
    assert list(writer(2)) == [("ab", "ab!"), ("c", "c!")]
    assert model.arguments == (7, 0.5, 3 + 2 * 1009 + 1)
    split = examples([f"{'abcdefghij'[i]} bc de" for i in range(10)], tmp_path)
    writer = SampleWriter(model, split, prompts=None, num_tokens=7, temperature=0.5, seed=0)
    assert list(writer(0)) == [("e bc", "e bc!"), ("j bc", "j bc!")]
    assert list(SampleWriter(model, split, prompts=[], num_tokens=7, temperature=0.5, seed=0)(0)) == []
