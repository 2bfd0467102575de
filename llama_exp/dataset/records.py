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
    """One document.

    source: where it comes from, for messages (file:line, qualified name, record number).
    pieces: its content in order.
    group: the text whose hash decides between training and validation; records of one group stay together.
    """

    source: str
    pieces: tuple[Piece, ...]
    group: str

    @property
    def text(self) -> str:
        """The plain text in it, without special tokens."""
        return "".join(piece.text for piece in self.pieces if piece.token is None)


BOS = Piece("", counts=False, token="bos")
EOS = Piece("", counts=True, token="eos")


def document(source: str, text: str) -> Record:
    """A record of plain text, all of which counts."""
    return Record(source, (BOS, Piece(text), EOS), text)


def pair(source: str, prompt: str, completion: str, group: str | None = None) -> Record:
    """A record whose completion counts and whose prompt does not; nothing is put between the two."""
    pieces = (BOS, Piece(prompt, counts=False), Piece(completion), EOS)
    return Record(source, pieces, prompt + completion if group is None else group)
