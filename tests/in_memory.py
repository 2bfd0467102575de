"""A data set of given records, for tests of what comes after the source."""

from llama_exp.dataset.base import Dataset
from llama_exp.dataset.cache import content_key
from llama_exp.dataset.records import document


class InMemory(Dataset):
    """Records given as such, or as strings; every fifth one is validation."""

    name = "in_memory"

    def __init__(self, records, **options):
        defaults = {"sequence_length": 8, "packing": "concat", "overlong": "split", "validation_fraction": 0.5}
        super().__init__(**defaults | options)
        self._records = [document(f"#{i}", item) if isinstance(item, str) else item for i, item in enumerate(records)]

    def open(self, cache_dir):
        self._fingerprint = content_key(records=[repr(record) for record in self._records])

    def documents(self):
        for number, record in enumerate(self._records):
            yield "validation" if number % 5 == 4 else "train", record


def prepared(records, tokenizer, cache_dir, loss_on="completion", **options):
    """Both splits of an in-memory data set."""
    dataset = InMemory(records, **options)
    dataset.open(cache_dir)
    return dataset.prepare(tokenizer, cache_dir=cache_dir, loss_on=loss_on)
