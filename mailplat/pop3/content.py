"""
How a message travels in a multi-line response: piece by piece, dots doubled, cut for TOP.
"""

from __future__ import annotations


def stuffed(message: bytes) -> bytes:
    """A whole message as it is sent, end and all: what a `Stuffer` makes of a single piece."""
    octets = message.replace(b"\n.", b"\n..")
    if message[:1] == b".":
        octets = b"." + octets
    return octets + (b".\r\n" if message[-2:] in (b"\r\n", b"") else b"\r\n.\r\n")


class Stuffer:
    """
    Doubles the dots that begin lines (RFC 1939 §3), in pieces that may end anywhere.

    A dot after a lone LF is doubled too: some clients end lines there, and must not be
    made to believe that the message is over.
    """

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def feed(self, piece: bytes) -> bytes:
        """What to send for the message's next piece."""
        if not piece:
            return piece
        stuffed = piece.replace(b"\n.", b"\n..")
        if piece[:1] == b"." and self._tail.endswith(b"\n"):
            stuffed = b"." + stuffed
        self._tail = (self._tail + piece)[-2:] if len(piece) == 1 else piece[-2:]
        return stuffed

    def end(self) -> bytes:
        """What to send after the last piece; completes the last line where it must."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"


class Top:
    """
    Cuts a message after its header and so many lines of its body (RFC 1939 §7 TOP).

    Args:
        lines: of the body.

    Attributes:
        complete: nothing more of the message is needed.
    """

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._in_body = False
        # As if a line ended before the message, so that an empty header is found.
        self._tail = b"\r\n"
        self.complete = False

    def feed(self, piece: bytes) -> bytes:
        """As much of the message's next piece as belongs to the answer."""
        header = 0
        if not self._in_body:
            joined = self._tail + piece
            blank = joined.find(b"\r\n\r\n")
            if blank < 0:
                self._tail = joined[-3:]
                return piece
            self._in_body = True
            header = blank + 4 - len(self._tail)
        body = piece[header:] if header else piece
        if not self._lines:
            self.complete = True
            return piece[:header]
        rest = body.split(b"\n", self._lines)
        if len(rest) <= self._lines:
            self._lines -= len(rest) - 1
            return piece
        self.complete = True
        return piece[: len(piece) - len(rest[-1])]
