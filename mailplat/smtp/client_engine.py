"""
What a client hears of SMTP or LMTP: bytes in, replies out, no waiting and no meaning.

A reply is a `Reply` once its last line is there (RFC 5321 §4.2.1).  What is no reply, or
more than a limit allows, is a `Broken`, and then nothing more comes: where the next reply
would begin, nobody knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from mailplat.smtp.grammar import Malformed, Reply
from mailplat.wire import Need


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """
    What another host may cost us; sizes in octets, times in seconds of silence.

    Attributes:
        reply_line: of a line of a reply with its CR LF; RFC 5321 §4.5.3.1.5 says 512.
        reply_lines: of one reply.
        reply: of one whole reply.
        buffered: the connection stops reading while more than this is waiting.
        pipelined: commands under way at one time (RFC 2920).
        chunk: of a piece of a message, and of a chunk of BDAT.
        chunks: chunks under way at one time.
        iterations: of PBKDF2 that a host may ask for in a SCRAM login.
        connect_timeout: for a connection to be there.
        greeting_timeout, mail_timeout, rcpt_timeout, data_timeout, block_timeout,
            end_timeout: RFC 5321 §4.5.3.2.1 to .6, in this order.
        command_timeout: for EHLO, STARTTLS, AUTH and RSET.
        idle_timeout: how long a connection is kept that has nothing to do.
        quit_timeout: for the farewell.  RFC 5321 gives no time; nothing depends on it.
    """

    reply_line: int = 4096
    reply_lines: int = 500
    reply: int = 65536
    buffered: int = 65536
    pipelined: int = 100
    chunk: int = 131072
    chunks: int = 8
    iterations: int = 1_000_000
    connect_timeout: float = 30.0
    greeting_timeout: float = 300.0
    mail_timeout: float = 300.0
    rcpt_timeout: float = 300.0
    data_timeout: float = 120.0
    block_timeout: float = 180.0
    end_timeout: float = 600.0
    command_timeout: float = 300.0
    idle_timeout: float = 300.0
    quit_timeout: float = 10.0


class Broken(Enum):
    """Why no further reply can be read."""

    NO_REPLY = "said something that is no SMTP reply"
    TOO_LONG = "sent a reply with an endless line"
    TOO_MUCH = "sent an endless reply"


# Of a line that is not the last of its reply.
_MORE = re.compile(rb"[2-5][0-9][0-9]-")


class ReplyEngine:
    """Bytes to replies (see `mailplat.wire.Engine`)."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._line = 0  # where the line under way begins
        self._lines = 0  # lines of the reply under way before it
        self._broken: Broken | None = None

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def most_buffered(self) -> int:
        return self._limits.buffered

    def receive(self, data: bytes) -> None:
        if self._broken is None:
            self._buffer += data

    def discard(self) -> None:
        self._buffer.clear()
        self._line = self._lines = 0

    def next_event(self) -> Reply | Broken | Need:
        if self._broken is not None:
            return self._broken
        buffer, limits = self._buffer, self._limits
        while True:
            start = self._line
            end = buffer.find(b"\n", start) + 1
            if (end or len(buffer)) - start > limits.reply_line:
                return self._break(Broken.TOO_LONG)
            if not end:
                return Need.DATA
            self._line = end
            self._lines += 1
            if self._lines > limits.reply_lines or end > limits.reply:
                return self._break(Broken.TOO_MUCH)
            if not _MORE.match(buffer, start):
                break
        raw = bytes(buffer[:end])
        del buffer[:end]
        self._line = self._lines = 0
        # Kindness: some hosts end lines with LF alone, and nothing hangs on it here.
        if not raw.endswith(b"\r\n"):
            raw = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        try:
            return Reply.parse(raw)
        except Malformed:
            return self._break(Broken.NO_REPLY)

    def _break(self, why: Broken) -> Broken:
        self._broken = why
        self._buffer.clear()
        return why
