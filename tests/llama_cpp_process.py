"""What llama.cpp says of a GGUF file, as JSON on standard output; run by an interpreter that has llama-cpp-python.

Standard input: {"file": path, "texts": [...], "prompts": [...], "chats": [[message, ...], ...], "new_tokens": n}.
Imports nothing of this project: another environment runs it.
"""

import json
import sys

import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter


def greedy(model, ids, count):
    """The ids that follow, by the largest logit each time, up to an end of generation."""
    model.reset()
    found = []
    for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
        if len(found) == count or llama_cpp.llama_vocab_is_eog(model._model.vocab, token):
            break
        found.append(token)
    return found


def rendered(model, messages):
    """A conversation by the template in the file, up to where the assistant answers."""
    vocab = model._model.vocab
    formatter = Jinja2ChatFormatter(
        template=model.metadata["tokenizer.chat_template"],
        eos_token=model._model.token_get_text(llama_cpp.llama_vocab_eos(vocab)),
        bos_token=model._model.token_get_text(llama_cpp.llama_vocab_bos(vocab)),
    )
    return formatter(messages=messages).prompt


def main():
    asked = json.load(sys.stdin)
    model = llama_cpp.Llama(asked["file"], n_ctx=512, n_threads=2, n_batch=512, verbose=False, seed=0)
    count, answer = asked["new_tokens"], {"texts": [], "prompts": [], "chats": []}
    for text in asked["texts"]:
        answer["texts"].append({"ids": model.tokenize(text.encode(), add_bos=True, special=False)})
    for text in asked["prompts"]:
        ids = model.tokenize(text.encode(), add_bos=True, special=False)
        answer["prompts"].append({"ids": ids, "new": greedy(model, ids, count)})
    for messages in asked["chats"]:
        prompt = rendered(model, messages)
        ids = model.tokenize(prompt.encode(), add_bos=False, special=True)
        answer["chats"].append({"prompt": prompt, "ids": ids, "new": greedy(model, ids, count)})
    vocab = model._model.vocab
    answer["stops"] = [id_ for id_ in range(model.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, id_)]
    answer["begins"] = bool(llama_cpp.llama_vocab_get_add_bos(vocab))
    json.dump(answer, sys.stdout)


main()
