"""Text as a stream: the same documents whatever the blocks, and no document is too long."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_exp.dataset import text_blocks
from llama_exp.dataset.text_blocks import find_documents, read_blocks
from llama_exp.errors import InputError
from llama_exp.limits.dataset import Document, EncodingErrors

PATTERNS = {
    Document.line: r"[^\n]+",
    Document.paragraph: r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*",
    Document.file: r"(?s).+",
}


def in_one_go(text, kind):
    """(line, text) of each document, by a regular expression over the whole text."""
    found = [match for match in re.finditer(PATTERNS[kind], text) if match.group().strip()]
    return [(1 + text.count("\n", 0, match.start()), match.group()) for match in found]


def streamed(text, kind, block, monkeypatch, part):
    monkeypatch.setattr(text_blocks, "PART_CHARACTERS", part)
    documents, goes_on = [], False
    for line, piece, more in find_documents((text[i : i + block] for i in range(0, len(text), block)), kind):
        assert len(piece.strip()) <= max(part, block) + part
        if goes_on:
            documents[-1] = (documents[-1][0], documents[-1][1] + piece)
        else:
            documents.append((line, piece))
        goes_on = more
    assert not goes_on
    return documents


@pytest.mark.parametrize("kind", Document)
@given(text=st.text("ab \n", max_size=120), block=st.integers(1, 130), part=st.integers(1, 40))
def test_blocks_and_parts_change_no_document(kind, text, block, part):
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert streamed(text, kind, block, monkeypatch, part) == in_one_go(text, kind)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
def test_bytes_come_through_in_any_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_blocks, "_BLOCK_BYTES", block)
    text = "one\r\ntwo\rthree é — 😀\n\nend\r"
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert "".join(read_blocks(tmp_path / "a.txt", EncodingErrors.strict)) == "one\ntwo\nthree é — 😀\n\nend\n"


@pytest.mark.parametrize("block", [1, 5, 100])
def test_a_bad_byte_is_named_by_its_line(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_blocks, "_BLOCK_BYTES", block)
    (tmp_path / "a.txt").write_bytes("eins\nzwei\ndrei é\n".encode() + b"vier \xe9 f\n")
    with pytest.raises(InputError) as caught:
        list(read_blocks(tmp_path / "a.txt", EncodingErrors.strict))
    assert caught.value.problems[0].where.endswith("a.txt:4") and "0xe9" in caught.value.problems[0].found


@pytest.mark.parametrize("block", [1, 4, 1000])
def test_what_is_replaced_is_counted_and_what_was_there_is_not(tmp_path, monkeypatch, caplog, block):
    monkeypatch.setattr(text_blocks, "_BLOCK_BYTES", block)
    (tmp_path / "a.txt").write_bytes("a long enough text with \ufffd and ".encode() + b"\xff and \xe9 in it")
    text = "".join(read_blocks(tmp_path / "a.txt", EncodingErrors.replace))
    assert text.count("\ufffd") == 3 and "2 stretches of bytes" in caplog.text


def test_replacing_does_not_make_text_of_another_encoding(tmp_path):
    (tmp_path / "a.txt").write_bytes("Русский текст в другой кодировке".encode("cp1251") * 10)
    with pytest.raises(InputError) as caught:
        list(read_blocks(tmp_path / "a.txt", EncodingErrors.replace))
    assert "iconv" in caught.value.problems[0].action
