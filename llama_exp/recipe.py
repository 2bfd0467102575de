"""Numbers of algorithms that decide results and that no run needs to choose: no keys, but part of the record.

Each table belongs to one algorithm, whose module takes its numbers from here. `config.identity` puts the tables of a
run's own algorithms into config.yaml and the config's hash, so that a release with other numbers is another experiment.
`version` stands for what is code: raise it when the same input becomes something else.

What a number here must not be: one that only costs time or memory, or a limit of what is read.
"""

from __future__ import annotations

from typing import Any

# --- text

PYTHON_DOCS = {
    "version": 1,  # of the choice and the cleaning of the documents
    "min_characters": 40,  # shorter docstrings are mostly labels ("Internal method.")
}
PYTHON_CODE = {
    "version": 1,  # of the choice of definitions, and of how they are written
    "min_characters": 120,  # shorter ones are aliases and empty classes
}
PYTHON_QA = {
    "version": 2,  # of questions, answers and the choice of objects
    "min_answer_characters": 24,  # shorter ones say nothing
    "max_answer_characters": 600,  # longer ones are seldom one thought
    "max_signature_characters": 120,
}
TEXT_FILES = {"version": 1}  # of the way files become documents
JSONL = {"version": 2}  # of the way lines become records, the built-in chat templates included
MODEL_CHATS = {
    "version": 1,  # of the way a model's own chat template makes a record
    "date": "2024-07-26",  # today for such a template: Llama 3's own where nobody tells it another
}
LONG_TEXTS = {
    "version": 1,  # of the way long texts are cut for tokenizers, and few documents for validation
    "part_characters": 1 << 17,  # of a document, stored together
    "stretch_characters": 1 << 14,  # encoded together; short enough to keep all processors busy
    "searched_characters": 1 << 12,  # before the end of a stretch, for the end of a word
    "tried_cuts": 64,  # if no end of a word is found
    "compared_characters": 128,  # on each side of a cut
    "line_end_characters": 2000,  # behind the end of the training share, for the end of a line
}
ROWS = {"version": 1}  # of rows, files and the meaning of a column
BYTE_PAIR_TRAINING = {
    "version": 1,  # of the training itself
    "min_frequency": 2,  # a pair seen once would only memorize its text
    "max_word_characters": 256,  # a longer word counts as several: the trainer's time grows with a word's square
    "long_word_characters": 24,  # hashes, sequences: nearly all different, and the trainer keeps all different words
    "long_words_characters": 1 << 20,  # of such words in all; later ones are left out
}
EXAMPLE_ORDER = {"version": 1, "rounds": 6}  # of the Feistel network

# --- training

INITIAL_VALUES = {"version": 1}  # of the way from a seed and a path to weights
DROPOUT = {"seeds_per_block": 64}  # a block has fewer: two of its own and one per projection with an adapter
LOSS_SCALE = {"initial": 2.0**15, "growth_steps": 2000, "smallest": 1.0}  # Keras' own, stated
NEWTON_SCHULZ: dict[str, Any] = {  # of Muon; Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
    "a": 3.4445,
    "b": -4.7750,
    "c": 2.0315,
    "steps": 5,
    "epsilon": 1e-7,  # beside the norm of a gradient's mean
}
SAMPLE_PROMPTS = {"version": 1, "prompts": 2, "rows": 16, "tokens": 16}  # of validation, where none are stated
SAMPLING = {"max_uniform": 1 - 2.0**-20}  # its product with the total weight then rounds to less than the total

# --- small types

ROUNDING = {"epsilon": 1e-7}  # keeps the scale of a zero column finite
INT4_SEARCH: dict[str, Any] = {
    "widest": 1.02,  # of a group's range
    "spacing": 0.03,
    "num_ranges": 8,
}
IMPORTANCE: dict[str, Any] = {
    "num_tokens": 128,
    "smallest": 1e-6,  # of the largest one: an input that was never seen counts a little
    "steps_per_octave": 4,
}
GPTQ: dict[str, Any] = {
    "num_sequences": 64,
    "num_tokens": 128,
    "temperature": 0.8,  # less of what the model would hardly write
    "first_share": 1 / 16,  # of the first position
    "damping": 0.2,  # share of H that is its diagonal alone: correlations are those of a few thousand tokens
    "floor": 1e-6,  # of the largest second moment: an input that was never seen counts a little
    "smallest_moment": 1e-12,  # of the largest one, of the root
    "logit_steps": 1024,  # in one unit of a logit; sums are certain to far less
    "correlation_steps": 4096,
    "moment_steps_per_octave": 16,
    "input_bits": 17,  # of a float32's 24: with 7 bits of an int8 every product is exact
    "factor_bits": 12,  # of both factors of second moments
}
