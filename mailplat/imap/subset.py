"""
A subset of a header's fields, whatever the header's size (RFC 3501 §6.4.5, HEADER.FIELDS).

A header may be as long as a message may be: what has no empty line is nothing but header.  So a
large one is looked through in pieces and never held.
"""

from __future__ import annotations

import re

#: Of a line so long that has no end yet, the field's name is looked for in what is there.
LONG = 4096

_NAME = re.compile(rb"[^\r\n:]*+")


class FieldFilter:
    """
    Pieces of a header in, pieces of the chosen fields out.

    Args:
        names: in lower case.
        negate: choose the fields that are not in `names`.

    What comes out, joined, is what `sections.select_fields` makes of the whole header.
    """

    def __init__(self, names: frozenset[bytes], negate: bool) -> None:
        self._names = names
        self._negate = negate
        self._rest = b""  # a line that has no end yet
        self._within = False  # of a line whose beginning was given out or dropped
        self._keep = negate  # the field that this line belongs to
        self._over = False  # the empty line came
        self._ended = True  # what was given out ends with a line end

    def feed(self, piece: bytes) -> bytes:
        """What is chosen of this piece and what was held back before."""
        *lines, rest = (self._rest + piece).split(b"\n")
        chosen = [self._line(line + b"\n") for line in lines]
        if len(rest) > LONG:
            chosen.append(self._line(rest))
            rest = b""
        self._rest = rest
        return b"".join(chosen)

    def finish(self) -> bytes:
        """The rest, and the empty line."""
        rest = self._line(self._rest) if self._rest else b""
        return rest + (b"\r\n" if self._ended else b"\r\n\r\n")

    def _line(self, line: bytes) -> bytes:
        """A line, or a piece of a long one, if it is chosen."""
        if not self._within and line[:1] not in (b" ", b"\t"):
            if line[:1] in (b"\r", b"\n"):
                self._over = True
            name = _NAME.match(line)
            assert name is not None
            self._keep = (name[0].rstrip(b" \t").lower() in self._names) is not self._negate
        ended = line.endswith(b"\n")
        self._within = not ended
        if self._over or not self._keep:
            return b""
        self._ended = ended
        return line
