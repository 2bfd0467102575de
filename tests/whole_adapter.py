"""All of an adapter on disk at once."""

from llama_exp.formats import open_adapter


def read_adapter(path, config):
    """Path of a linear layer -> A (I, R), B (R, O) and the scale."""
    with open_adapter(path, config) as adapter:
        return {name: (*adapter.read(name)[:2], adapter.scale_of(name)) for name in adapter.ranks}
