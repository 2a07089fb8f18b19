"""
SMTP's framing: bytes in, events out, no waiting and no meaning.

The engine is in one of four modes, and the session alone changes them:

* command lines, each a `Command` or a `Bad`;
* one line of a SASL exchange (`expect_response`), a `Response` or a `Bad`;
* the content after DATA (`begin_data`): pieces as `bytes`, then an `End`;
* a chunk after BDAT (`begin_chunk`): pieces as `bytes`, then an `End`.

Pieces may be empty, where content that is skipped goes by.

After `Response` and `End` it is back at command lines.  Pipelined input waits in the
buffer until the session has said in which mode it is to be read.  A line ends at CR LF
and nowhere else (RFC 5321 §2.3.8); whatever is wrong with a line, reading goes on at the
next one, and whatever is wrong with a message, after its real end.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mailplat.smtp.data import ChunkReader, DataReader, Fault
from mailplat.smtp.grammar import Command, is_text
from mailplat.wire import Need


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What a peer may do; sizes in octets, times in seconds.

    Attributes:
        line: of a command line with its CR LF.  RFC 5321 §4.5.3.1.4 says 512, and the
            extensions add to it: SIZE 26, BODY 17, SMTPUTF8 10, AUTH= 500.
        auth_line: of an AUTH command or a SASL response (RFC 4954 §4).
        pipelined: the connection stops reading while more than this is waiting.
        message: of a message; what SIZE advertises.
        recipients: in one transaction (RFC 5321 §4.5.3.1.8 asks for 100 at least).
        errors: permanent errors since the last accepted message, then 421.
        idle_commands: commands since the last accepted message that brought none
            nearer (NOOP, RSET, EHLO and the like), then 421.
        transactions: messages in one connection, then 421.
        logins: failed logins, then 421.
        command_timeout: RFC 5321 §4.5.3.2.7.
        data_timeout: of silence within a message; kinder than RFC 5321 §4.5.3.2.5.
        data_rate: so many octets of a message make up for a second of silence in it; all silence
            that is not made up for may last `data_timeout` together, so a peer must on
            the whole be this fast.  A modem of 2400 bit/s is more than twice as fast.
        idle_time: of silence between commands, all of it together since the connection was
            made or the last message was complete.
        before_login: the same on a submission port, up to the login.
        login_timeout: of silence within a SASL exchange.
    """

    line: int = 2048
    auth_line: int = 12288
    pipelined: int = 65536
    message: int = 52428800
    recipients: int = 1000
    errors: int = 50
    idle_commands: int = 1000
    transactions: int = 100_000
    logins: int = 5
    command_timeout: float = 300.0
    data_timeout: float = 300.0
    data_rate: float = 100.0
    idle_time: float = 3600.0
    before_login: float = 300.0
    login_timeout: float = 120.0


class Response(NamedTuple):
    """The client's line in a SASL exchange, as it came, without CR LF."""

    line: bytes


class Bad(Enum):
    """A line that is no command; the value may be shown to the peer."""

    TOO_LONG = "Line too long"
    NOT_TEXT = "Line contains characters that no command has"


class End(NamedTuple):
    """The content is complete, or was refused for `fault`."""

    fault: Fault | None


Event = Command | Response | Bad | bytes | End | Need

_COMPLETE = End(None)

# Commands in which an address may be in UTF-8 (RFC 6531 §3.4, §3.7.4.2).
_UTF8_VERBS = frozenset(("MAIL", "RCPT", "VRFY", "EXPN"))


class SMTPEngine:
    """Bytes to events, for SMTP, submission and LMTP alike (see `mailplat.wire.Engine`)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""
        self._start = 0  # what lies before it in the buffer is done with
        self._swallowing = False  # in a line that is too long
        self._responding = False
        self._reader: DataReader | ChunkReader | None = None  # of the content under way
        self._chunks: ChunkReader | None = None  # kept from chunk to chunk
        self._unfed = False  # even no octets at all complete a chunk of size 0
        self._end: End | None = None  # to come after the last piece

    @property
    def buffered(self) -> int:
        return len(self._buffer) - self._start

    @property
    def most_buffered(self) -> int:
        return self._limits.pipelined

    def receive(self, data: bytes) -> None:
        if self._start == len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._start :] + data
        self._start = 0

    def discard(self) -> None:
        self._buffer = b""
        self._start = 0
        self._swallowing = self._responding = self._unfed = False
        self._reader = self._chunks = self._end = None

    # Modes

    def expect_response(self) -> None:
        """The next line is the client's response to a SASL challenge."""
        self._responding = True

    def begin_data(self) -> None:
        """What follows is the content of a message, up to CR LF "." CR LF."""
        self._reader = DataReader(self._limits.message)

    def begin_chunk(self, size: int, last: bool) -> None:
        """
        `size` octets follow, of the message that the chunks before this one began.

        The first chunk after `forget_chunks`, or after a last one, begins a message.
        """
        if self._chunks is None:
            self._chunks = ChunkReader(self._limits.message)
        self._chunks.begin(size, last)
        self._reader = self._chunks
        self._unfed = True
        if last:
            self._chunks = None

    def forget_chunks(self) -> None:
        """The transaction is over: the next chunk begins a message."""
        self._chunks = None

    def skip_content(self) -> None:
        """No more pieces of the content under way: only its `End`."""
        if self._reader is not None:
            self._reader.silent = True

    # Events

    def next_event(self) -> Event:
        if self._reader is not None:
            return self._content(self._reader)
        if self._end is not None:
            end, self._end = self._end, None
            return end
        return self._line()

    def _line(self) -> Event:
        buffer, start = self._buffer, self._start
        stop = buffer.find(b"\r\n", start)
        if stop < 0:
            # The line has one octet more at least, so it is too long already.
            if self._swallowing or not self._fits(start, len(buffer) - start):
                self._swallowing = True
                # Its last octet may be the first half of the line break.
                self._buffer = b"\r" if buffer.endswith(b"\r") else b""
                self._start = 0
            return Need.DATA
        self._start = stop + 2
        responding, self._responding = self._responding, False
        if self._swallowing or not (
            stop + 2 - start <= self._limits.line or self._fits(start, stop + 2 - start, responding)
        ):
            self._swallowing = False
            return Bad.TOO_LONG
        line = buffer[start:stop]
        if responding:
            return Response(line)
        try:
            text = line.decode()
        except UnicodeDecodeError:
            return Bad.NOT_TEXT
        command = Command.parse(text)
        if text.isascii():
            # A tab is white space to some clients, and harmless.
            if not text.isprintable() and not text.replace("\t", " ").isprintable():
                return Bad.NOT_TEXT
        elif command.verb not in _UTF8_VERBS or not is_text(text):
            return Bad.NOT_TEXT
        return command

    def _fits(self, start: int, length: int, responding: bool = False) -> bool:
        # Whether a line of this length may begin at `start` of the buffer.
        limits = self._limits
        if length <= limits.line:
            return True
        login = responding or self._responding or self._buffer[start : start + 5].upper() == b"AUTH "
        return login and length <= limits.auth_line

    def _content(self, reader: DataReader | ChunkReader) -> bytes | End | Need:
        if self._start == len(self._buffer) and not self._unfed:
            return Need.DATA
        self._unfed = False
        piece, after = reader.feed(self._buffer[self._start :] if self._start else self._buffer)
        if after < 0:
            self._buffer = b""
            self._start = 0
            # Content that is not handed out is a sign of life all the same.
            return piece if piece or reader.quiet else Need.DATA
        self._start = len(self._buffer) - after
        self._reader = None
        end = _COMPLETE if reader.fault is None else End(reader.fault)
        if piece:
            self._end = end
            return piece
        return end
