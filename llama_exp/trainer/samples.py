"""What the model writes while it trains: continuations of stated texts, or of what it is validated on.

A validation document is begun like this (.: not shown to the model, |: where it goes on):

    text                    its first words|..........
    prompt and completion   the whole prompt|.........
    conversation            everything before the first answer, in the form of the conversation|.......
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from llama_exp import recipe


class SampleWriter:
    """`writer(step)`: (prompt, prompt and continuation) of each prompt, as text.

    Args:
        model: a `LlamaCausalLM` with a tokenizer.
        validation: the split (`llama_exp.dataset.Examples`).
        prompts: texts; None: the beginnings of the first validation documents.
        num_tokens: new tokens of each.
        temperature: 0: greedy.
        seed: of the draws, with the step and the number of the prompt.
    """

    def __init__(self, model, validation, *, prompts: Sequence[str] | None, num_tokens: int, temperature: float, seed):
        self._model, self._validation, self._prompts = model, validation, prompts
        self._num_tokens, self._temperature, self._seed = num_tokens, temperature, seed

    def __call__(self, step: int) -> Iterator[tuple[str, str]]:
        """One after the other, so that each is told as soon as it is there."""
        tokenizer = self._model.tokenizer
        for number, (prompt, token_ids) in enumerate(self._begun()):
            output = self._model.generate(
                token_ids,
                max_length=len(token_ids) + self._num_tokens,
                temperature=self._temperature,
                seed=abs(self._seed) + 1009 * step + number,
            )
            yield prompt, tokenizer.decode(output.tolist())

    def _begun(self) -> list[tuple[str, np.ndarray]]:
        """Each prompt as text and as token ids."""
        tokenizer = self._model.tokenizer
        if self._prompts is None:
            found = validation_prompts(self._validation, tokenizer)
            return [(tokenizer.decode(token_ids.tolist()), token_ids) for token_ids in found]
        begin = [] if tokenizer.begin_id is None else [tokenizer.begin_id]
        return [(prompt, np.array([*begin, *tokenizer.encode(prompt)], np.int32)) for prompt in self._prompts]


def validation_prompts(examples, tokenizer) -> list[np.ndarray]:
    """The beginnings of the first documents of a split that begin differently, 1-D int32 token ids each."""
    rows = examples.batch(np.arange(min(len(examples), recipe.SAMPLE_PROMPTS["rows"])))
    found: dict[bytes, np.ndarray] = {}
    for row in range(len(rows["labels"])):
        prompt = _beginning({key: values[row] for key, values in rows.items()}, tokenizer)
        found.setdefault(prompt.tobytes(), prompt)
    return list(found.values())[: recipe.SAMPLE_PROMPTS["prompts"]]


def _beginning(row: Mapping[str, np.ndarray], tokenizer) -> np.ndarray:
    """What the row's first document is begun with: what does not count in the loss, else its first words."""
    token_ids = row["token_ids"][row["segment_ids"] == row["segment_ids"][0]]
    counted = np.flatnonzero(row["loss_mask"][: len(token_ids)])  # where the token behind one counts
    num_uncounted = int(counted[0]) + 1 if len(counted) else 1
    begins = int(token_ids[0] == tokenizer.begin_id)
    if num_uncounted > max(begins, 1):
        return token_ids[:num_uncounted]
    return token_ids[: begins + _num_whole_words(token_ids[begins:].tolist(), tokenizer)]


def _num_whole_words(token_ids: list[int], tokenizer) -> int:
    """Tokens of the longest beginning that is short enough and ends with a word, or of the longest at all."""
    most = max(1, min(recipe.SAMPLE_PROMPTS["tokens"], len(token_ids) // 2))
    for count in range(most, 0, -1):
        text, longer = tokenizer.decode(token_ids[:count]), tokenizer.decode(token_ids[: count + 1])
        if text.strip() and longer.startswith(text) and longer[len(text) :][:1].isspace():
            return count
    return most
