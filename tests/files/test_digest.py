"""Digests of files."""

import hashlib

from llama_exp.files.digest import digest_of, file_digest, size_and_digest


def test_digests(tmp_path):
    content = b"abc" * 100_000
    (tmp_path / "a").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert file_digest(tmp_path / "a") == expected
    assert size_and_digest(tmp_path / "a") == {"bytes": len(content), "sha256": expected}
    with open(tmp_path / "a", "rb", buffering=0) as file:
        assert digest_of(file) == expected


def test_a_hasher_may_know_a_beginning_that_the_file_lacks(tmp_path):
    """Git's digest of a file (`git hash-object`)."""
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a", hashlib.sha1(b"blob 3\0")) == "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"
