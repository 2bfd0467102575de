"""Text <-> token ids.

The factories that a config names: `auto`, `bpe`, `byte`, `preset`, `sentencepiece`, `hf_json`; and `load`, which reads
a tokenizer back from a preset folder. A tokenizer is any object with

    encode(text, continuation=False) -> list[int]          no special tokens, whatever the text says
    encode_batch(texts, continuation=False) -> list[list[int]]
    encode_with_special_tokens(text) -> list[int]           their names stand for them: for a rendered chat only
    decode(token_ids, skip_special_tokens=True) -> str      an id that is no token shows as [no token: 272]
    special_tokens                                          their names
    special_id(token) -> int | None                         the id of a special token such as <|eot_id|>
    vocabulary_size, bos_id, eos_id, pad_id                 int; the last three may be None
    begin_id                                                bos_id if the model expects it in front of a text, else None
    stop_ids                                                the ids that end a text or a turn (ends.py says whence)
    holes                                                   ids below vocabulary_size that are no tokens
    fingerprint                                             hexadecimal SHA-256 of everything that decides the ids
    chat_template, generation_config                        text or None; dict
    save(folder)                                            writes the assets as they lie in a KerasHub preset
    save_hugging_face(folder)                               writes the files that transformers reads

`continuation=True` encodes text that follows other text of the same document: SentencePiece then adds no space.
"""

from llama_exp.tokenizer.assets import load
from llama_exp.tokenizer.factories import auto, bpe, byte, hf_json, preset, sentencepiece

__all__ = ["auto", "bpe", "byte", "hf_json", "load", "preset", "sentencepiece"]
