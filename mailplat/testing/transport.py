"""
A connection in memory: two transports joined by a pipe, with flow control and real TLS.

Bytes move only in `Pipe.pump`, so nothing happens inside the stack of whoever wrote, and
a test decides when the network moves (`mailplat.testing.network` has a clock do it).  What
Twisted's own TCP transports do and mail protocols rely on is done here too: a reader may
pause, a writer's producer is told when its peer does not read, a close lets what was written
arrive first, the end of a peer's input reaches `IHalfCloseableProtocol`, and `startTLS` puts
OpenSSL in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

#: A writer is told to pause when its peer has left more than this unread, in octets.
WINDOW = 64 * 1024

#: What arrives at one time, in octets.
ARRIVAL = 64 * 1024

Stirred = Callable[[Callable[[], bool]], object]


class _End:
    """One end of a pipe below TLS: what TLS, or the plain transport, writes through."""

    other: _End

    def __init__(self, address: IAddress, stirred: Stirred) -> None:
        self.address = address
        self._stirred = stirred
        self.protocol: Any = None
        self.inbox: list[bytes] = []
        self.paused = False
        self.closing = False  # nothing more is written; gone when all has arrived
        self.aborting = False  # gone whatever has arrived
        self.told_end = False
        self.lost = False
        self.disconnecting = False
        self._producer: Any = None
        self._choked = False

    @property
    def unread(self) -> int:
        return sum(map(len, self.inbox))

    def write(self, data: bytes) -> None:
        if self.lost or self.closing or not data:
            return
        self.other.inbox.append(bytes(data))
        self._stirred(self.other.deliver)
        if self._producer is not None and not self._choked and self.other.unread > WINDOW:
            self._choked = True
            self._producer.pauseProducing()

    def writeSequence(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if not streaming:
            raise ValueError("mail protocols register push producers only")
        if self.lost:
            producer.stopProducing()
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None
        self._choked = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self._stirred(self.deliver)

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        self.closing = self.disconnecting = True
        self._stirred(self.other.deliver)
        self._stirred(self.deliver)

    def abortConnection(self) -> None:
        # As Twisted's: nobody hears of it inside the stack of whoever aborts.
        if not self.lost:
            self.aborting = self.closing = self.disconnecting = True
            self._stirred(self.deliver)
            self._stirred(self.other.deliver)

    def cut(self) -> None:
        self.inbox.clear()
        self.other.inbox.clear()
        self.lose(ConnectionAborted())
        self.other.lose(ConnectionLost())

    def getPeer(self) -> Any:
        return self.other.address

    def getHost(self) -> Any:
        return self.address

    def lose(self, reason: Exception) -> None:
        if not self.lost:
            self.lost = self.disconnecting = True
            failure: Any = Failure  # Twisted has no types for it yet
            self.protocol.connectionLost(failure(reason))
            self._stirred(self.deliver)

    def deliver(self) -> bool:
        """Hand over what has arrived; True if that was anything."""
        if self.lost:
            return False
        if self.aborting or self.other.aborting:
            (self if self.aborting else self.other).cut()
            return True
        if self.paused:
            return False
        if self.inbox:
            data = b"".join(self.inbox)
            self.inbox[:] = [data[ARRIVAL:]] if len(data) > ARRIVAL else []
            self.protocol.dataReceived(data[:ARRIVAL])
            other = self.other
            if other._choked and not self.unread:
                other._choked = False
                other._producer.resumeProducing()
            return True
        if self.other.closing and not self.told_end:
            self.told_end = True
            if IHalfCloseableProtocol.providedBy(self.protocol) and not self.closing:
                self.protocol.readConnectionLost()
            else:
                self.lose(ConnectionDone())
                self.other.lose(ConnectionDone())
            return True
        if self.closing and self.other.closing and not self.other.inbox:
            self.lose(ConnectionDone())
            self.other.lose(ConnectionDone())
            return True
        return False


@implementer(ITCPTransport, ITLSTransport, IPushProducer)
class MemoryTransport:
    """
    What a protocol at one end of a pipe sees.

    Args:
        end: its end.
        client: this side speaks first in a TLS handshake.
        clock: what the TLS layer schedules its writes with.
    """

    def __init__(self, end: _End, client: bool, clock: IReactorTime) -> None:
        self._end = end
        self._client = client
        self._clock = clock
        self._layer: Any = end
        self._producer: Any = None

    @property
    def disconnecting(self) -> bool:
        return bool(self._layer.disconnecting)

    def write(self, data: bytes) -> None:
        if not self._end.lost:
            self._layer.write(data)

    def writeSequence(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        if not self._end.lost:
            self._layer.loseConnection()

    def abortConnection(self) -> None:
        if not self._end.lost:
            self._layer.abortConnection()

    def loseWriteConnection(self) -> None:
        self._end.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        self._layer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._producer = None
        self._layer.unregisterProducer()

    def pauseProducing(self) -> None:
        self._end.pauseProducing()

    def resumeProducing(self) -> None:
        self._end.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> Any:
        return self._end.getPeer()

    def getHost(self) -> Any:
        return self._end.getHost()

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no Nagle in memory."""

    def getTcpKeepAlive(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nobody vanishes without a word in memory."""

    def startTLS(self, contextFactory: Any) -> None:
        producer = self._producer
        if producer is not None:
            self.unregisterProducer()
        # False: the protocol has a transport already, and it is this.
        tls = _tls(contextFactory, self._client, self._clock, self._end.protocol, False)
        self._end.protocol = self._layer = tls
        alsoProvides(self, ISSLTransport)
        tls.makeConnection(self._end)
        if producer is not None:
            self.registerProducer(producer, True)

    def getHandle(self) -> Any:
        return self._layer.getHandle()

    def getPeerCertificate(self) -> Any:
        return self._layer.getPeerCertificate()


def _tls(context: Any, client: bool, clock: IReactorTime, protocol: Any, connect: bool) -> Any:
    factory = TLSMemoryBIOFactory(context, client, Factory(), clock)
    return factory.protocol(factory, protocol, connect)


class Pipe:
    """
    A connection between a client protocol and a server protocol.

    Args:
        client, server: the protocols; `makeConnection` is called on both.
        client_address, server_address: what `getPeer` and `getHost` answer.
        clock: see `MemoryTransport`.
        tls: (client context factory, server context factory) for TLS from the start; None for a
            protocol that brings its TLS with it.
        stirred: called when something is on its way to an end, and when an end is lost, with
            that end's `deliver`, which hands over what has arrived there and tells if it was
            anything; to be called later instead of `pump`.
    """

    def __init__(
        self,
        client: Any,
        server: Any,
        client_address: IAddress,
        server_address: IAddress,
        clock: IReactorTime,
        tls: tuple[Any, Any] | None = None,
        stirred: Stirred = lambda deliver: None,
    ) -> None:
        self._ends = near, far = _End(client_address, stirred), _End(server_address, stirred)
        near.other, far.other = far, near
        for end, protocol, is_client in ((near, client, True), (far, server, False)):
            context = None if tls is None else tls[0 if is_client else 1]
            if context is not None:
                protocol = _tls(context, is_client, clock, protocol, True)
            end.protocol = protocol
            protocol.makeConnection(MemoryTransport(end, is_client, clock))

    def pump(self) -> bool:
        """Deliver what was written on both sides so far; False if there was nothing."""
        near, far = self._ends
        moved = far.deliver()
        return near.deliver() or moved

    def hold(self, held: bool, server: bool = False) -> None:
        """Make the client, or the server, stop reading, or read again."""
        self._ends[server].paused = held

    def cut(self) -> None:
        """Break the connection, as a dying network does."""
        self._ends[0].cut()

    @property
    def lost(self) -> bool:
        """The connection is gone at both ends."""
        return all(end.lost for end in self._ends)
