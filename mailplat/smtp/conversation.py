"""
Commands and replies: what greeting, logging in and sending have in common.

A `Conversation` reads the replies of one host, one at a time and each within its time, and
turns whatever ends the connection into `Over`.  Here too stands what a reply means: only
its first digit counts (RFC 5321 §4.3.2), and its text is cleaned before it goes anywhere.
"""

from __future__ import annotations

from mailplat.errors import HostUnreachable, MailError, PermanentError, TemporaryError
from mailplat.smtp.client_engine import Broken, ClientLimits
from mailplat.smtp.grammar import Reply
from mailplat.wire import PeerGone, Stopping, TimedOut, Wire

#: Characters of a host's words that are passed on.
MOST_TEXT = 500


class Over(Exception):
    """
    Nothing more can be said or heard in this connection.

    Attributes:
        error: why, for all that was still to be done.
        reply: the host's last words, if it said why.
    """

    def __init__(self, error: MailError, reply: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.reply = reply


class Conversation:
    """
    One host.

    Args:
        wire: its engine is a `ReplyEngine`.
        host: its name, for errors.
    """

    def __init__(self, wire: Wire, host: str, limits: ClientLimits) -> None:
        self.wire = wire
        self.host = host
        self.limits = limits

    async def ask(self, line: str, timeout: float) -> Reply:
        """
        One command, and the reply to it.

        Raises:
            Over.
        """
        self.wire.write(f"{line}\r\n".encode())
        return await self.reply(timeout)

    async def reply(self, timeout: float) -> Reply:
        """
        The next reply.

        Raises:
            Over: also for 421, which a host may say instead of any reply (RFC 5321 §3.8).
        """
        try:
            event = await self.wire.event(timeout)
        except TimedOut:
            raise Over(TemporaryError(f"{self.host} did not answer in time")) from None
        except PeerGone as gone:
            raise self.lost(gone) from None
        except Stopping:
            raise Over(TemporaryError("We are shutting down")) from None
        if isinstance(event, Broken):
            raise Over(TemporaryError(f"{self.host} {event.value}"))
        reply: Reply = event
        if reply.code == 421:
            raise Over(_told(HostUnreachable, reply), text_of(reply))
        return reply

    async def drained(self) -> None:
        """
        Wait until the host has taken most of what was written.

        Raises:
            Over.
        """
        try:
            await self.wire.drained()
        except PeerGone as gone:
            raise self.lost(gone) from None

    def lost(self, gone: PeerGone) -> Over:
        """The connection is closed or broken."""
        return Over(TemporaryError(f"{self.host} closed the connection", reason=str(gone)))

    def unexpected(self, reply: Reply) -> Over:
        """A reply of a kind that its command does not have: who knows to what it is the answer."""
        text = text_of(reply)
        return Over(TemporaryError(f"{self.host} gave an unexpected reply: {text}"), text)


def text_of(reply: Reply) -> str:
    """Code and text in one line of printable ASCII, shortened."""
    text = f"{reply.code} {reply.enhanced} " if reply.enhanced else f"{reply.code} "
    text += " ".join(line.strip() for line in reply.lines)
    if not (text.isascii() and text.isprintable()):
        text = "".join(char if " " <= char <= "~" else "?" for char in text)
    return text[:MOST_TEXT].rstrip()


def accepts(reply: Reply) -> bool:
    """2yz: positive completion."""
    return 200 <= reply.code <= 299


def refuses(reply: Reply) -> bool:
    """4yz or 5yz."""
    return reply.code >= 400


def refusal(reply: Reply) -> MailError:
    """The error that a 4yz or 5yz reply tells of, in the host's words and with its status."""
    return _told(PermanentError if reply.code >= 500 else TemporaryError, reply)


def _told(kind: type[MailError], reply: Reply) -> MailError:
    error = kind(text_of(reply))
    if reply.enhanced:
        error.status = reply.enhanced
    return error
