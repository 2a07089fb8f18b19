"""
The content of a message as SMTP carries it: after DATA, and in chunks (BDAT).

For both directions: the readers take it off the wire, `DataWriter` puts it there, and
`LineCheck` sees to it that what we pass on has no lone line break either.

DATA (RFC 5321 §4.5.2) ends at CR LF "." CR LF and at nothing else, and lines carry a "."
more where they begin with one.  BDAT (RFC 3030 §2) counts octets.  In both, CR and LF
may occur only together (RFC 5321 §2.3.8): whoever takes a lone one for the end of a line
sees other lines than we do, and that is how a second message is smuggled past a check.
A message with a lone CR or LF is therefore refused as a whole, at its real end.

Both readers work on blocks as they came from the network, with a few searches at C speed
a block and no loop over lines; how the bytes were cut into blocks never changes the
result.  Pieces of a message that turns out bad may have been handed out before: the
caller forgets them when the end comes with a `Fault`.
"""

from __future__ import annotations

from enum import Enum

_END = b"\r\n.\r\n"
_DOT = b"\r\n."


class Fault(Enum):
    """Why a message is refused at its end; the value may be shown to the peer."""

    LONE_LINE_BREAK = "Message contains a CR or LF that is not part of CR LF"
    TOO_LARGE = "Message too large"


class LoneLineBreak(ValueError):
    """The message has a CR or LF that is not part of CR LF."""


def has_lone_line_break(block: bytes) -> bool:
    """A CR without LF after it, or an LF without CR before it, the ends of `block` included."""
    # Taking out all CRs and putting one before each LF restores it if none was elsewhere.  Both are
    # searches for a single octet, which cost a third of everything else that was tried.
    return block.replace(b"\r", b"").replace(b"\n", b"\r\n") != block


class _Reader:
    """
    What both readers keep.

    Attributes:
        size: octets of the message so far, as they will be stored.
        fault: what is wrong with it, None so far.  A lone line break outdoes the size,
            wherever the two were met.
        silent: hand out no more pieces; the rest is only read to find its end.
    """

    def __init__(self, limit: int) -> None:
        self.size = 0
        self.fault: Fault | None = None
        self.silent = False
        self._limit = limit

    @property
    def quiet(self) -> bool:
        """No more pieces will be handed out."""
        return self.silent or self.fault is not None

    def _check(self, block: bytes) -> None:
        if self.fault is not Fault.LONE_LINE_BREAK and has_lone_line_break(block):
            self.fault = Fault.LONE_LINE_BREAK

    def _count(self, piece: bytes) -> bytes:
        self.size += len(piece)
        if self.size > self._limit and self.fault is None:
            self.fault = Fault.TOO_LARGE
        return b"" if self.quiet else piece


class DataReader(_Reader):
    """
    Reads one message after DATA.

    Args:
        limit: the most octets of a message, without the dots added for transport.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        # What may be the beginning of the end is held back.  A message that is only
        # "." CR LF is empty: the line break before its dot is the one after DATA, so
        # reading begins with that one held, to be left out of the first piece.
        self._held = b"\r\n"
        self._left_out = 2

    def feed(self, block: bytes) -> tuple[bytes, int]:
        """
        Take bytes.

        Returns:
            a piece of the message (may be empty), and how many octets of `block` come
            after the end of the message, or -1 if the end is yet to come.
        """
        if self._held:
            block = self._held + block
        after = -1
        # Text has dots, but few at the beginning of a line; base64 has none, which costs next to nothing.
        dot = block.find(_DOT) if b"." in block else -1
        end = block.find(_END, dot) if dot >= 0 else -1
        if end >= 0:
            cut = end + 2
            after = len(block) - end - 5
        else:
            cut = len(block) - _begun(block)
        self._held = b"" if end >= 0 else block[cut:]
        piece = block[:cut]
        self._check(piece)
        if 0 <= dot < cut - 2:
            piece = piece.replace(_DOT, b"\r\n")
        if self._left_out and piece:
            piece = piece[self._left_out :]
            self._left_out = 0
        return self._count(piece), after


class DataWriter:
    """Writes one message after DATA: the inverse of `DataReader`."""

    def __init__(self) -> None:
        # The line break after DATA is before the first line.
        self._before = b"\r\n"

    def feed(self, piece: bytes) -> bytes:
        """What is sent for the next octets, which may end anywhere (RFC 5321 §4.5.2)."""
        before, joined = self._before, self._before + piece
        self._before = joined[-2:]
        if _DOT in joined:
            joined = joined.replace(_DOT, b"\r\n..")
        return joined[len(before) :]

    def finish(self) -> bytes:
        """The end of the data; a last line that is not ended is, so that the end can be seen."""
        return b".\r\n" if self._before == b"\r\n" else _END


class LineCheck:
    """Cuts a message that is to be sent so that no piece ends between CR and LF, and checks it."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """
        The octets to send now.

        Raises:
            LoneLineBreak: there is one; nothing of this message may be sent any more.
        """
        block = self._held + piece if self._held else piece
        self._held = b""
        if block.endswith(b"\r"):
            block, self._held = block[:-1], b"\r"
        if has_lone_line_break(block):
            raise LoneLineBreak
        return block

    def finish(self) -> None:
        """
        Raises:
            LoneLineBreak: the last octet is a CR.
        """
        if self._held:
            raise LoneLineBreak


def _begun(block: bytes) -> int:
    # How many octets at the end of `block` may be the beginning of the end of the data.
    if block.endswith(b"\n"):
        return 2 if block.endswith(b"\r\n") else 0
    if block.endswith(b"\r"):
        return 4 if block.endswith(b"\r\n.\r") else 1
    return 3 if block.endswith(b"\r\n.") else 0


class ChunkReader(_Reader):
    """
    Reads one message that comes in chunks, any number of them one after the other.

    Args:
        limit: the most octets of a message.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._held = b""
        self._left = 0
        self._last = False

    def begin(self, size: int, last: bool) -> None:
        """A chunk of `size` octets follows; `feed` must be called at least once for it."""
        self._left = size
        self._last = last
        # Known already, so that nothing of a chunk that cannot fit is handed out.
        if self.size + len(self._held) + size > self._limit and self.fault is None:
            self.fault = Fault.TOO_LARGE

    def feed(self, block: bytes) -> tuple[bytes, int]:
        """
        Take bytes.

        Returns:
            a piece of the message (may be empty), and how many octets of `block` come
            after the chunk, or -1 if the chunk goes on.
        """
        after = len(block) - self._left
        if after > 0:
            block = block[: self._left]
        self._left -= len(block)
        if self._held:
            block = self._held + block
            self._held = b""
        # A line break may be cut by the edge of a chunk as well as by that of a block.
        if block.endswith(b"\r") and not (self._last and after >= 0):
            block = block[:-1]
            self._held = b"\r"
        self._check(block)
        return self._count(block), max(after, -1)
