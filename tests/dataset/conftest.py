"""The tokenizer of most data tests: byte b has id b, so expected ids can be written down."""

import pytest

from llama_exp.tokenizer.byte_pair import from_merges


@pytest.fixture(scope="session")
def byte_tokenizer():
    return from_merges([])
