"""Which template a model has, and that the built-in ones are those of the data sets."""

import pytest
from chat_templates import CHATS

from llama_exp.dataset.chat import built_in
from llama_exp.dataset.records import BOS, EOS
from llama_exp.errors import InputError
from llama_exp.limits.dataset import ChatTemplate
from llama_exp.tokenizer import byte_pair, chat_template

pytestmark = pytest.mark.process  # a template has a process of its own


@pytest.mark.parametrize("name", chat_template.BUILT_IN)
def test_built_in_templates_are_those_of_the_data_sets(name):
    """Text of pieces, up to the token that ends a document, which a prompt must not have."""
    for messages in CHATS[1:]:
        messages = messages if messages[-1]["role"] == "assistant" else messages[:-1]
        pieces = built_in.render(name, messages)
        tokens = {BOS: "<s>", EOS: "</s>" if name is ChatTemplate.llama2 else ""}
        expected = "".join(tokens.get(piece, piece.text) for piece in pieces)
        found = chat_template.render(
            messages, chat_template.BUILT_IN[name], add_generation_prompt=False, bos_token="<s>", eos_token="</s>"
        )
        assert found == expected
    question = CHATS[0]
    prompt = chat_template.render(question, chat_template.BUILT_IN[name])
    answer = [*question, {"role": "assistant", "content": "Yes"}]
    assert chat_template.render(answer, chat_template.BUILT_IN[name], add_generation_prompt=False).startswith(prompt)


def test_whose_template():
    plain = byte_pair.from_merges([])
    own = byte_pair.BytePairTokenizer(plain._vocabulary, [], chat_template="own")
    assert chat_template.find_template(own, "anything") == "own"
    for source in ("llama3_instruct_8b_en", "kaggle://keras/llama3/keras/llama3.1_instruct_8b"):
        assert chat_template.find_template(plain, source) == chat_template.BUILT_IN[ChatTemplate.llama3]
    for source in ("llama3_8b_en", "/home/somebody/instruct", "vicuna_1.5_7b_en"):
        with pytest.raises(InputError, match="no chat template"):
            chat_template.find_template(plain, source)
