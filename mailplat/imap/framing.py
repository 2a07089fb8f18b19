r"""
Where an IMAP command ends, before anybody asks what it means.

A command is text, CR LF at its end, with literals inside: `{n}` at the end of a line says
that n octets follow which are no text, and that the command goes on after them (RFC 3501
§4.3).  With `{n}` the client waits for "+"; with `{n+}` it does not (RFC 7888), so these
octets come whatever we think of the command.  That is why framing and refusing belong
together: once a command is refused, the rest of it, the literals that will come included,
is skipped here and never mistaken for the next command.

A `Framer` knows no command and no state.  It gives `Complete` commands, and stops at each
literal with `Announced`, whereupon its user must decide: `take` it into the command, have
it `stream`ed in pieces, or `refuse` the command.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailplat.imap.grammar import PLACE


@dataclass(frozen=True, slots=True)
class Complete:
    """
    A whole command.

    Attributes:
        text: without CRLF; `grammar.PLACE` in place of each literal.  It is ASCII and
            has no CR, no LF and no other NUL.
        literals: the octets of the literals, in order.
    """

    text: bytes
    literals: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Announced:
    """
    A literal was announced.

    Attributes:
        text: the command up to it, as in `Complete`.
        literals: those before it.
        size: octets.
        synchronizing: the client waits for "+".
    """

    text: bytes
    literals: tuple[bytes, ...]
    size: int
    synchronizing: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Octets of a streamed literal, never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Wrong:
    """
    A command that cannot be one; the rest of it is skipped.

    Attributes:
        text: its beginning, whatever octets these are.
        why: for the peer.
    """

    text: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Endless:
    """More octets must be skipped than is worth it: the connection should be closed."""


Piece = Complete | Announced | Chunk | Wrong | Endless

_LITERAL_RE = re.compile(rb"\{([0-9]+)(\+?)\}\r?\n\Z")
_ENDLESS_RE = re.compile(rb"[0-9]+(\+?)\}\r?\n\Z")

#: A literal's announcement is looked for in so many octets at the end of a line.
_TAIL = 64

#: How much of a wrong command is kept, for its tag.
_HEAD = 256

#: Stands for a size with more digits than make sense.
_HUGE = 10**19


class Framer:
    """
    Octets in, pieces out.

    Args:
        most_skipped: octets of one literal that are skipped at most.
    """

    __slots__ = (
        "_announced",
        "_buffer",
        "_coming",
        "_held",
        "_literals",
        "_scanned",
        "_skipping",
        "_tail",
        "_text",
        "_use",
        "most_skipped",
    )

    def __init__(self, most_skipped: int) -> None:
        self.most_skipped = most_skipped
        self._buffer = bytearray()
        self.discard()

    def receive(self, data: bytes) -> None:
        self._buffer += data

    @property
    def buffered(self) -> int:
        """Octets received and not given out."""
        return len(self._buffer) + self._held

    def discard(self) -> None:
        """Forget everything."""
        self._buffer.clear()
        self._announced: Announced | None = None  # waits for a decision
        self._use = ""  # inside a literal: "take", "stream" or "skip"
        self._coming = 0  # octets of that literal still to come
        self._tail = b""  # the end of what was dropped of an overlong line
        self._scanned = 0  # octets of the buffer known to have no LF
        self._begin()

    def _begin(self) -> None:
        """Be at the beginning of a command."""
        self._skipping = False  # this command was refused
        self._text = b""
        self._literals: list[bytes] = []
        self._held = 0

    def _give_up(self) -> None:
        """Skip the rest of this command."""
        self._begin()
        self._skipping = True

    # What to do with an announced literal

    def take(self) -> None:
        """Make it part of the command."""
        announced = self._decided("take")
        self._text = announced.text
        self._held += len(announced.text)

    def stream(self) -> None:
        """
        Give it out as `Chunk`s.

        What follows on the line that it stands in is the next `Complete` then, whose text
        is empty if nothing does.
        """
        self._decided("stream")
        self._begin()

    def refuse(self) -> None:
        """
        Give up this command, without another word about it.

        A client that waits for "+" is done with it; otherwise the literal comes and is
        skipped, and so is what the client sends of the command after it.
        """
        if self._decided("skip").synchronizing:
            self._use = ""
            self._begin()
        else:
            self._give_up()

    def _decided(self, use: str) -> Announced:
        announced = self._announced
        if announced is None:
            raise RuntimeError("No literal was announced")
        self._announced = None
        self._use = use
        self._coming = announced.size
        return announced

    # Pieces

    def next_piece(self, most_text: int) -> Piece | None:
        """
        The next piece, or None if more octets are needed.

        Args:
            most_text: octets that the text of the command may have.
        """
        if self._announced is not None:
            raise RuntimeError("The announced literal waits for a decision")
        piece: Piece | None
        while True:
            if self._use:
                piece = self._literal()
                if piece is not None or self._use:
                    return piece
            newline = self._buffer.find(b"\n", self._scanned)
            if newline < 0:
                return self._unfinished(most_text)
            line = bytes(self._buffer[: newline + 1])
            del self._buffer[: newline + 1]
            self._scanned = 0
            piece = self._line(line, most_text)
            if piece is not None:
                return piece

    def _literal(self) -> Chunk | None:
        """Go on with the literal under way; `_use` is empty after its end."""
        here = min(self._coming, len(self._buffer))
        if self._use == "take":
            if here < self._coming:
                return None
            self._literals.append(bytes(self._buffer[:here]))
            self._text += PLACE
            self._held += here
        chunk = Chunk(bytes(self._buffer[:here])) if self._use == "stream" and here else None
        del self._buffer[:here]
        self._coming -= here
        if not self._coming:
            self._use = ""
        return chunk

    def _unfinished(self, most_text: int) -> Wrong | None:
        """A line that has no end yet."""
        self._scanned = len(self._buffer)
        if not self._skipping and len(self._text) + self._scanned <= most_text + _TAIL:
            return None
        wrong = None
        if not self._skipping:
            wrong = Wrong((self._text + self._buffer[:_HEAD])[:_HEAD], "Command too long")
            self._give_up()
        # The line may yet end in a literal that will come.
        self._tail = (self._tail + self._buffer[-_TAIL:])[-_TAIL:]
        self._buffer.clear()
        self._scanned = 0
        return wrong

    def _line(self, line: bytes, most_text: int) -> Piece | None:
        """A line that ended with LF; None if it was skipped."""
        tail = self._tail + line[-_TAIL:]
        self._tail = b""
        size: int | None = None
        synchronizing = True
        found = _LITERAL_RE.search(tail) or (len(tail) >= _TAIL and _ENDLESS_RE.fullmatch(tail[-_TAIL:]))
        if found:
            synchronizing = not found[found.re.groups]
            digits = found[1] if found.re is _LITERAL_RE else b""
            size = int(digits) if 0 < len(digits) < 20 else _HUGE

        wrong = None if self._skipping else self._fault(line, most_text)
        if size is not None and not synchronizing:
            if size > self.most_skipped:
                self._give_up()
                self._use, self._coming = "skip", size
                return Endless()
            if wrong or self._skipping:
                self._give_up()
                self._use, self._coming = "skip", size
                return wrong
        elif wrong or self._skipping:
            self._begin()
            return wrong

        if size is not None:
            text = self._text + line.rpartition(b"{")[0]
            self._announced = Announced(text, tuple(self._literals), size, synchronizing)
            return self._announced
        complete = Complete(self._text + line[:-2], tuple(self._literals))
        self._begin()
        return complete

    def _fault(self, line: bytes, most_text: int) -> Wrong | None:
        """What is wrong with a line whatever it means."""
        if len(self._text) + len(line) - 2 > most_text:
            why = "Command too long"
        elif not line.endswith(b"\r\n"):
            why = "Line ends with a bare LF"
        elif line.find(b"\r") < len(line) - 2:
            why = "Bare CR in a command"
        elif b"\0" in line:
            why = "NUL in a command"
        elif not line.isascii():
            why = "8-bit characters outside of a literal"
        else:
            return None
        return Wrong((self._text + line[:_HEAD])[:_HEAD], why)
