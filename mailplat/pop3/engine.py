"""
POP3's framing: bytes in, lines out, no waiting and no meaning.

A line is a `Command`, or after `expect_response` the `Response` of a SASL exchange; what
is neither is a `Bad`, and reading goes on at the next line.  A line ends at CR LF and
nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mailplat.wire import Need


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What a peer may do; sizes in octets, times in seconds.

    Attributes:
        line: of a command line with its CR LF.  RFC 2449 §4 says 255; names and passwords
            in UTF-8 may be longer.
        auth_line: of an AUTH command or a SASL response (RFC 5034 §4).
        pipelined: the connection stops reading while more than this is waiting.
        ahead: of a message that is read before it is asked for, while the client takes the one
            before; 0 for none.
        ahead_together: of those of all connections.
        errors: commands refused, then the connection is closed.
        logins: failed logins, then the connection is closed.
        timeout: of silence; RFC 1939 §3 asks for ten minutes at least.
        login_timeout: of silence within a SASL exchange.
        before_login: of silence up to the login, all of it together.
    """

    line: int = 1024
    auth_line: int = 12288
    pipelined: int = 65536
    ahead: int = 65536
    ahead_together: int = 33554432
    errors: int = 100
    logins: int = 5
    timeout: float = 600.0
    login_timeout: float = 120.0
    before_login: float = 300.0


class Command(NamedTuple):
    """
    A command line.

    `verb` is in capitals; `argument` is all that follows the first space, as it came: a
    password may have spaces, at its ends too (RFC 1939 §7 PASS).
    """

    verb: str
    argument: bytes


class Response(NamedTuple):
    """The client's line in a SASL exchange, as it came, without CR LF."""

    line: bytes


class Bad(Enum):
    """A line that is no command; the value may be shown to the peer."""

    TOO_LONG = "Line too long"
    NOT_TEXT = "Line contains characters that no command has"


Event = Command | Response | Bad | Need

# Arguments in UTF-8 (RFC 6856 §2.2).
_UTF8_VERBS = frozenset(("USER", "PASS"))

_CONTROLS = bytes(range(32)) + b"\x7f"
_NOT_IN_LINES = b"\0\r\n"


class POP3Engine:
    """Bytes to events (see `mailplat.wire.Engine`)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""
        self._start = 0  # what lies before it in the buffer is done with
        self._swallowing = False  # in a line that is too long
        self._responding = False

    @property
    def buffered(self) -> int:
        return len(self._buffer) - self._start

    @property
    def most_buffered(self) -> int:
        return self._limits.pipelined

    def receive(self, data: bytes) -> None:
        self._buffer = self._buffer[self._start :] + data
        self._start = 0

    def discard(self) -> None:
        self._buffer = b""
        self._start = 0
        self._swallowing = self._responding = False

    def expect_response(self) -> None:
        """The next line is the client's response to a SASL challenge."""
        self._responding = True

    def next_event(self) -> Event:
        buffer, start = self._buffer, self._start
        stop = buffer.find(b"\r\n", start)
        if stop < 0:
            if start == len(buffer):
                return Need.DATA
            if self._swallowing or len(buffer) - start >= self._longest():
                self._swallowing = True
                # Its last octet may be the first half of the line break.
                self._buffer = b"\r" if buffer.endswith(b"\r") else b""
                self._start = 0
            return Need.DATA
        size = stop + 2 - start
        too_long = self._swallowing or (size > self._limits.line and size > self._longest())
        self._start = stop + 2
        responding, self._responding = self._responding, False
        if too_long:
            self._swallowing = False
            return Bad.TOO_LONG
        line = buffer[start:stop]
        return Response(line) if responding else _command(line)

    def _longest(self) -> int:
        login = self._responding or self._buffer[self._start : self._start + 5].upper() == b"AUTH "
        return self._limits.auth_line if login else self._limits.line


def _command(line: bytes) -> Command | Bad:
    word, _, argument = line.partition(b" ")
    verb = word.decode("ascii", "replace").upper()
    if verb in _UTF8_VERBS:
        # A password is hashed, not printed: control characters are its owner's affair.
        refused = _NOT_IN_LINES
    elif line.isascii():
        refused = _CONTROLS
    else:
        return Bad.NOT_TEXT
    if len(line.translate(None, refused)) != len(line):
        return Bad.NOT_TEXT
    return Command(verb, argument)
