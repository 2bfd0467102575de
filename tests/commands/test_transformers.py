"""What `convert` writes, in transformers: the same chat, the same ids, the same next tokens."""

import pytest
from small_models import TOKENIZER, make

from llama_exp import cli
from llama_exp.models import LlamaCausalLM
from llama_exp.tokenizer import chat_template

pytestmark = pytest.mark.neutral
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")


def test_a_converted_model_chats_as_ours(tmp_path):
    make(tmp_path / "one", name="llama_3_2")
    with pytest.raises(SystemExit) as stop:
        cli.main(["convert", "--from", str(tmp_path / "one"), "--to", str(tmp_path / "two"), "--format", "hf"])
    assert stop.value.code == 0
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi é <|eot_id|>?"}]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "two")
    text = chat_template.render(messages, TOKENIZER.chat_template, bos_token="<|begin_of_text|>")
    ids = TOKENIZER.encode_with_special_tokens(text)
    assert theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "two")
    assert set(model.generation_config.eos_token_id) == set(TOKENIZER.stop_ids)
    inputs = transformers.BatchEncoding({"input_ids": [ids]}, tensor_type="pt")
    expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0].tolist()
    ours = LlamaCausalLM.from_preset(tmp_path / "one")
    assert ours.generate([ids], max_length=len(ids) + 12)[0].tolist() == expected
