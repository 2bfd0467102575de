"""Small tokenizer files, made on the spot."""

import functools
import io

import sentencepiece


@functools.cache
def sentence_piece_model() -> bytes:
    """A BPE model with Llama 2's settings: byte fallback, identity normalization, white space kept."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumped over the lazy dog", "a fox, a dog: ed s"] * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=320,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    return model.getvalue()
