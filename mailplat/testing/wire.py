"""
A wire without a network: run one session with bytes in and bytes out.

    wire = FakeWire("pop3")
    wire.start(factory.session(wire))
    assert wire.taken() == b"+OK ready\\r\\n"
    assert wire.send(b"QUIT\\r\\n") == b"+OK bye\\r\\n"
    assert wire.ended

`Dialogue`, which plays a whole conversation from a file over the real connection, is in
`mailplat.testing.dialogue` and can be imported from here too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from math import inf
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailplat.testing.dialogue import Dialogue, DialogueError, add_dialogues
from mailplat.values import Peer, TLSInfo
from mailplat.wire import Engine, Need, PeerGone, Stopping, TimedOut, Wake, WireError

__all__ = ["Dialogue", "DialogueError", "FakeWire", "add_dialogues"]


class Session(Protocol):
    """As `mailplat.connection.Session`."""

    engine: Engine

    def run(self) -> Coroutine[Any, Any, None]: ...


class FakeWire:
    """
    A `mailplat.wire.Wire` that a test holds the other end of.

    Args:
        service: see `Peer.service`.
        host: the peer's address.
        tls: what the peer's TLS is from the start, or None for a peer in clear.
        secured: what `peer.tls` becomes after `start_tls`, or None if there is no
            certificate.
        clock: for the timeouts of `event`; one of its own if not given.

    Attributes:
        clock: a `twisted.internet.task.Clock`.
        ended: the session has ended, so the connection would be closed.
        pauses: how often the session offered others a turn.
        most_undrained: the most octets that were written without awaiting `drained`
            or `event`, which is what a peer that does not read costs in memory.
        on_pause: called at each `pause`, for what happens meanwhile.
    """

    def __init__(
        self,
        service: str,
        *,
        host: str = "127.0.0.1",
        tls: TLSInfo | None = None,
        secured: TLSInfo | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.peer = Peer(service, host, 40000, tls=tls, connection="fake")
        self.clock = Clock() if clock is None else clock
        self.pauses = 0
        self.most_undrained = 0
        self.on_pause: Callable[[], object] = lambda: None
        self._secured = secured
        self._session: Session | None = None
        self._written = bytearray()
        self._undrained = 0
        self._patience = self._most_patience = inf
        self._earned = 0.0
        self._since = 0.0
        self._over: WireError | None = None
        self._woken = False
        self._choked = False
        self._waiting: Deferred[None] | None = None
        self._result: object = None
        self.ended = False

    # The test's end

    def start(self, session: Session) -> bytes:
        """Run the session until it waits.  Returns what it wrote."""
        self._session = session
        Deferred.fromCoroutine(session.run()).addBoth(self._end)
        return self.taken()

    def send(self, data: bytes) -> bytes:
        """
        Give the session bytes and run it until it waits for more.

        Returns:
            what it wrote since the last time it was asked.

        Raises:
            whatever the session let pass, apart from `WireError`s.
        """
        assert self._session is not None, "start a session first"
        self._session.engine.receive(data)
        if self._waiting is not None:
            self._count_waiting()
        self._patience = min(self._patience + len(data) * self._earned, self._most_patience)
        self._resume()
        return self.taken()

    def send_slowly(self, data: bytes) -> bytes:
        """As `send`, byte by byte."""
        return b"".join([self.send(data[index : index + 1]) for index in range(len(data))])

    def taken(self) -> bytes:
        """What was written since the last time it was asked."""
        if isinstance(self._result, Failure):
            failure, self._result = self._result, None
            failure.raiseException()
        data = bytes(self._written)
        self._written.clear()
        return data

    def advance(self, seconds: float) -> bytes:
        """Let time pass.  Returns what was written."""
        self.clock.advance(seconds)
        return self.taken()

    def hang_up(self) -> bytes:
        """The peer goes; returns what the session still wrote, which nobody reads."""
        self._over = PeerGone()
        self._choked = False
        self._resume()
        return self.taken()

    def stop(self) -> bytes:
        """The server goes down.  Returns the farewell."""
        if self._over is None:
            self._over = Stopping()
        self._resume()
        return self.taken()

    def choke(self, choked: bool = True) -> bytes:
        """Make the peer stop reading, so that `drained` waits, or read again."""
        self._choked = choked
        if not choked:
            self._resume()
        return self.taken()

    # The session's end (mailplat.wire.Wire)

    @property
    def can_start_tls(self) -> bool:
        return self._secured is not None and self.peer.tls is None

    async def event(self, timeout: float, wakeable: bool = False) -> Any:
        assert self._session is not None
        engine = self._session.engine
        if self._choked:
            await self.drained()
        self._undrained = 0
        deadline = self.clock.seconds() + min(timeout, self._patience)
        while True:
            if isinstance(self._over, Stopping):
                raise self._over
            event = engine.next_event()
            if event is not Need.DATA:
                return event
            if self._over is not None:
                raise self._over
            if wakeable and self._woken:
                self._woken = False
                return Wake.NEWS
            if self.clock.seconds() >= deadline:
                raise TimedOut()
            timer = self.clock.callLater(deadline - self.clock.seconds(), self._resume)
            self._since = self.clock.seconds()
            await self._wait()
            self._count_waiting()
            if timer.active():
                timer.cancel()

    def phase(self, patience: float | None, rate: float = 0.0) -> None:
        self._patience = self._most_patience = inf if patience is None else patience
        self._earned = 1 / rate if rate else 0.0

    def write(self, data: bytes) -> None:
        self._written += data
        self._undrained += len(data)
        self.most_undrained = max(self.most_undrained, self._undrained)

    def flush(self) -> None:
        """What was written can be `taken` at once."""

    async def drained(self) -> None:
        self._undrained = 0
        while self._choked:
            await self._wait()
        if isinstance(self._over, PeerGone):
            raise self._over

    async def pause(self) -> None:
        self.pauses += 1
        self.on_pause()
        if isinstance(self._over, PeerGone):
            raise self._over

    def wake(self) -> None:
        """As in the real wire the session is woken later: by the next step of the test."""
        if not self._woken:
            self._woken = True
            self.clock.callLater(0, self._resume)

    def start_tls(self) -> None:
        assert self._session is not None and self.can_start_tls
        self._session.engine.discard()
        self.peer = replace(self.peer, tls=self._secured)

    # Inside

    def _count_waiting(self) -> None:
        now = self.clock.seconds()
        self._patience -= now - self._since
        self._since = now

    def _wait(self) -> Deferred[None]:
        self._waiting = Deferred()
        return self._waiting

    def _resume(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _end(self, result: object) -> None:
        self.ended = True
        if not (isinstance(result, Failure) and isinstance(result.value, WireError)):
            self._result = result
