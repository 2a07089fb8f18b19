"""
What a session sees of its connection.

A session is one coroutine: it takes events from its engine through `Wire.event`, awaits
stores and agents, and hands bytes to `Wire.write`.  It never sees a transport, a reactor
or a clock, so a test runs it with bytes in and bytes out.  `mailplat.connection` is the
real wire.

The engine, in its turn, is pure: bytes in, events out (`Engine`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from enum import Enum
from typing import Any, Protocol

from mailplat.values import Peer


class Need(Enum):
    """Not an event yet."""

    DATA = "more bytes are needed before there is an event"


class Wake(Enum):
    """Not the peer's doing."""

    NEWS = "somebody called Wire.wake"


class Engine(Protocol):
    """
    Bytes to events, without waiting.

    Attributes:
        buffered: octets received and not yet turned into events.
        most_buffered: the connection stops reading while `buffered` is above this.
    """

    @property
    def buffered(self) -> int: ...

    @property
    def most_buffered(self) -> int: ...

    def receive(self, data: bytes) -> None:
        """Take bytes as they came.  Never raises for what a peer sends."""

    def next_event(self) -> Any:
        """The next event, or `Need.DATA`.  Bad input is an event too."""

    def discard(self) -> None:
        """
        Forget all that is buffered and every half-read command: TLS starts here
        (RFC 3207 §4.2, RFC 3501 §6.2.1, RFC 2595 §4).
        """


class WireError(Exception):
    """The session cannot go on as before."""


class PeerGone(WireError):
    """The peer closed the connection or it broke; nothing can be written any more."""


class TimedOut(WireError):
    """The peer was silent for too long.  A farewell may still be written."""


class Stopping(WireError):
    """The server is going down.  A farewell may still be written."""


class Wire(Protocol):
    """A connection as its session sees it."""

    @property
    def peer(self) -> Peer:
        """Address and TLS state as they are now."""

    def event(self, timeout: float, wakeable: bool = False) -> Awaitable[Any]:
        """
        The engine's next event.  What was written is sent before waiting.

        Args:
            timeout: seconds of silence to allow.
            wakeable: also return when `wake` was called, with `Wake.NEWS`.

        Raises:
            PeerGone, TimedOut, Stopping.
        """

    def phase(self, patience: float | None, rate: float = 0.0) -> None:
        """
        From now on the peer may have us wait so long in all, however it spreads it.

        When that is used up `event` raises TimedOut, whatever its own timeout.

        Args:
            patience: seconds; None for no bound.
            rate: so many octets received make up for a second of waiting, but never more
                than there was to begin with; 0 if none do.
        """

    def write(self, data: bytes) -> None:
        """Send bytes, in order; they may be held back until the session next waits."""

    def flush(self) -> None:
        """Send what was written: there is something to do that the peer need not wait for."""

    def drained(self) -> Awaitable[None]:
        """
        Wait until the peer has taken most of what was written.

        Little is held back until the session next waits for its peer.  To be awaited at least
        every 128 KiB, so that memory stays bounded when the peer stops reading.  Immediate while
        the peer keeps up.

        Raises:
            PeerGone: the peer is gone, or took nothing for too long.
        """

    def pause(self) -> Awaitable[None]:
        """
        Let others run if this turn has lasted longer than 5 ms; what was written is sent.

        Long loops await it between pieces.  Immediate most of the time.

        Raises:
            PeerGone.
        """

    def wake(self) -> None:
        """Make a wakeable `event` return, now or when it is next awaited."""

    def start_tls(self) -> None:
        """
        Send what was written, discard the engine's buffer and start TLS.

        The handshake happens while the next `event` is awaited; `peer.tls` tells.
        """

    @property
    def can_start_tls(self) -> bool:
        """There is a certificate and the connection is still in clear."""
