"""Records: what a source gives, before any tokenizer has seen it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """A stretch of a document that counts in the loss as a whole or not at all.

    text: the text; where `token` is set, what is written instead if the tokenizer has no such token.
    counts: whether its tokens are targets of the loss under `loss_on=completion`.
    token: "bos", "eos", the name of a special token such as "<|eot_id|>", or None for plain text.
    """

    text: str
    counts: bool = True
    token: str | None = None


@dataclass(frozen=True)
class Record:
    """One document, or a part of a long one: its records follow each other.

    source: where it comes from, for messages (file:line, qualified name, record number).
    pieces: its content in order.
    group: the text whose hash decides between training and validation; records of one group stay together.
    begins, ends: whether the document begins and ends with this record; of a document in parts, all text is its group.
    """

    source: str
    pieces: tuple[Piece, ...]
    group: str
    begins: bool = True
    ends: bool = True

    @property
    def text(self) -> str:
        """The plain text in it, without special tokens."""
        return "".join(piece.text for piece in self.pieces if piece.token is None)

    @property
    def is_plain(self) -> bool:
        """Whether all of its text counts: it may be cut anywhere, as no question stands before an answer."""
        return all(piece.counts or piece.token is not None for piece in self.pieces)


BOS = Piece("", counts=False, token="bos")
EOS = Piece("", counts=True, token="eos")


def document(source: str, text: str, begins: bool = True, ends: bool = True) -> Record:
    """A record of plain text, all of which counts; of a long text, a part that may be its beginning and its end."""
    pieces = (*([BOS] if begins else []), Piece(text), *([EOS] if ends else []))
    return Record(source, pieces, text, begins, ends)


def pair(source: str, prompt: str, completion: str, group: str | None = None) -> Record:
    """A record whose completion counts and whose prompt does not; nothing is put between the two."""
    pieces = (BOS, Piece(prompt, counts=False), Piece(completion), EOS)
    return Record(source, pieces, prompt + completion if group is None else group)
