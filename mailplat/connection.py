"""
The one place where an engine meets a transport.

A `Connection` is a Twisted protocol on one side and a `mailplat.wire.Wire` on the other.
In between stands very little: bytes that arrive go to the engine, and the session (one
coroutine, started here) takes events out of it.  The session is always in one of four
places, and only the first three are ours:

    waiting for data      in `event`; bytes, a wake-up, silence or the end resume it
    waiting for room      in `drained`; the peer has not read what it was sent
    waiting for its turn  in `pause`; others run first
    busy                  awaiting a store or an agent, or running

Output is collected and sent when the session starts to wait, so the replies to all
commands that came in one segment leave in one write.  In clear it is given to the kernel
at once, and the transport keeps only what the kernel did not take.

Memory is bounded on both sides.  Reading stops while the engine holds more than it
wants; no further event is handed out while the peer leaves our output unread.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from math import inf
from secrets import token_hex
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailplat.tls import tls_info
from mailplat.values import Peer, TLSInfo
from mailplat.wire import Engine, Need, PeerGone, Stopping, TimedOut, Wake, Wire, WireError

#: What an engine answers when it has no event.
NOTHING_YET = Need.DATA

#: Output is sent once this much has gathered, in octets: a piece of 128 KiB leaves with what is around it.
GATHER = 192 * 1024

#: Less than this, in octets, is not worth a packet while there is more to say; and it is joined before it is
#: sent, as the kernel takes one buffer more quickly than many.
FEW = 16 * 1024

#: Buffers for one sendmsg; the least IOV_MAX that POSIX systems have in practice.
_BUFFERS = 1024

#: How long one session may keep the reactor before others get a turn, in seconds.
TURN = 0.005


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """
    What a factory's connections may cost.

    Attributes:
        most: connections at one time, in all.
        most_per_address: connections at one time from one address; UNIX sockets and
            loopback are not counted by address.
        write_timeout: seconds in which a peer must take something of what it is sent.
        handshake_timeout: seconds for a TLS handshake on a port that speaks TLS at once.
    """

    most: int = 10_000
    most_per_address: int = 200
    write_timeout: float = 120.0
    handshake_timeout: float = 60.0


class Session(Protocol):
    """A protocol's side of a connection: an engine, and a coroutine that runs it."""

    engine: Engine

    def run(self) -> Coroutine[Any, Any, None]:
        """From the greeting to the end; the connection is closed when it returns."""


class Observer(Protocol):
    """Is told what happens on a connection, for example to write it down; it must not raise."""

    def received(self, event: Any) -> None:
        """The engine gave this event to the session."""

    def sent(self, data: bytes) -> None:
        """The session wrote this."""

    def secured(self, tls: TLSInfo | None) -> None:
        """TLS begins; called again with what was negotiated."""

    def ended(self, why: str) -> None:
        """The connection is lost."""


Observe = Callable[[Peer], Observer | None]


class Owner(Protocol):
    """Who makes connections: `MailFactory` for peers that come, `mailplat.dialing` for hosts we go to."""

    service: str
    reactor: Any
    tls: Any
    connection_limits: ConnectionLimits
    observe: Observe | None
    log: Logger

    def session(self, wire: Connection) -> Session: ...

    def gone(self, connection: Connection) -> None: ...


class _Wait(Deferred[None]):
    """
    What a session awaits of its connection.

    Who runs the session sees it once and then resumes the session: the connection itself does that
    without firing it, so that the next wait can be the same object.  Awaited by a coroutine that
    Twisted runs, within a login for example, it is fired as any Deferred is.
    """

    def __await__(self) -> Generator[Deferred[None], None, None]:
        yield self


@implementer(IHandshakeListener, IHalfCloseableProtocol, IPushProducer)
class Connection(TwistedProtocol):
    """One peer.  Made by its owner's `buildProtocol`; lives as long as its transport."""

    factory: Owner
    transport: Any
    engine: Engine
    _running = False
    _over: WireError | None = None  # why no further event comes
    _lost = False
    _secured = False  # TLS was started or was there from the start
    _choked = False  # the peer has not read what it was sent
    _socket: socket.socket | None = None  # takes bytes at once, see `flush`
    _coroutine: Coroutine[Any, Any, None] | None = None  # the session
    _direct = False  # it waits for us, and nobody runs it in between
    _reading = True
    _woken = False
    _wakeable = False
    _waiting_for = ""  # "data", "room" or "turn"
    _deadline = 0.0
    _patience = _most_patience = inf  # seconds that the peer may have us wait in this phase
    _earned = 0.0  # seconds of it that an octet gives back
    _since = 0.0  # waiting up to here has been counted
    _timer: IDelayedCall | None = None
    _due = inf  # when it fires
    _closing: IDelayedCall | None = None
    _turn = 0.0
    _observer: Observer | None = None

    def __init__(self, factory: Owner, address: IAddress | None) -> None:
        self.factory = factory
        self._reactor = factory.reactor
        self._out: list[bytes] = []
        self._gathered = 0
        self._waiting = _Wait()
        self._id = token_hex(6)
        self._peer = _peer(factory.service, address, self._id)

    # What Twisted calls

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            # Replies are small and wait for nobody (Nagle and delayed acknowledgement cost
            # 40 ms); a peer that vanished without a word is found out some day.
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        secured = ISSLTransport.providedBy(self.transport)
        # A wrapper around a transport is none: its bytes are not those that are sent.
        if isinstance(self.transport, TCPConnection) and not secured:
            self._socket = self.transport.getHandle()
        # A producer that is pulled is called when everything has been sent, one that pushes
        # when too much is waiting and then no more.
        self.transport.registerProducer(self, self._socket is None)
        if secured:
            # The session greets only once it knows what TLS it speaks.
            self._secured = True
            self._timer = self._reactor.callLater(
                self.factory.connection_limits.handshake_timeout, self._handshake_too_slow
            )
        else:
            self._start()

    def handshakeCompleted(self) -> None:
        self._peer = replace(self._peer, tls=tls_info(self.transport))
        if self._observer is not None:
            self._observer.secured(self._peer.tls)
        if not self._running and not self._lost:
            self._cancel_timer()
            self._start()

    def dataReceived(self, data: bytes) -> None:
        if not self._running:
            return
        engine = self.engine
        engine.receive(data)
        if self._earned:
            if self._waiting_for == "data":
                now = self._reactor.seconds()
                self._patience -= now - self._since
                self._since = now
            self._patience = min(self._patience + len(data) * self._earned, self._most_patience)
        if self._waiting_for == "data":
            self._resume()
        if self._waiting_for == "data" or not self._reading or self._lost:
            # The session took all that there was, or nothing more comes.
            return
        if engine.buffered > engine.most_buffered:
            self._reading = False
            self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """The peer has said all it will; it may still listen to our last replies."""
        if self._over is None:
            self._over = PeerGone()
        if not self._running:
            self.transport.loseConnection()
        elif self._waiting_for == "data":
            self._resume()

    def writeConnectionLost(self) -> None:
        """The peer no longer reads: the next write finds out."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        clean = isinstance(reason.value, ConnectionDone | ConnectionLost | ConnectionAborted)
        self._over = PeerGone() if clean else PeerGone(reason.getErrorMessage())
        self._out.clear()
        self._cancel_timer()
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        if self._waiting_for:
            self._resume()
        if self._observer is not None:
            self._observer.ended(reason.getErrorMessage())
        if not clean:
            self.factory.log.debug(
                "{service} connection {connection} lost: {reason}",
                service=self.factory.service,
                connection=self._id,
                reason=reason.getErrorMessage(),
            )
        self.factory.gone(self)

    def pauseProducing(self) -> None:
        self._choked = True

    def resumeProducing(self) -> None:
        self._choked = False
        if self._waiting_for == "room":
            self._resume()

    def stopProducing(self) -> None:
        """`connectionLost` says the same."""

    # What the factory calls

    def stop(self) -> None:
        """Have the session say goodbye at its next event, or now if it waits for one."""
        if self._over is None:
            self._over = Stopping()
        if not self._running:
            self.transport.loseConnection()
        elif self._waiting_for == "data":
            self._resume()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        if not self._lost:
            self.transport.abortConnection()

    @property
    def host(self) -> str:
        """The peer's address as in `Peer.host`."""
        return self._peer.host

    @property
    def over(self) -> WireError | None:
        """Why no further event comes; None while one may."""
        return self._over

    # What the session sees (mailplat.wire.Wire)

    @property
    def peer(self) -> Peer:
        return self._peer

    @property
    def can_start_tls(self) -> bool:
        return self.factory.tls is not None and not self._secured

    async def event(self, timeout: float, wakeable: bool = False) -> Any:
        engine = self.engine
        if self._choked:
            await self.drained()
        deadline = 0.0
        while True:
            if self._over is not None and isinstance(self._over, Stopping):
                raise self._over
            event = engine.next_event()
            if event is not NOTHING_YET:
                if self._observer is not None:
                    self._observer.received(event)
                if not self._reading and engine.buffered <= engine.most_buffered:
                    self._read_on()
                # Only who goes on without waiting has to let others run.
                if self._reactor.seconds() - self._turn > TURN:
                    await self.pause()
                return event
            if self._over is not None:
                raise self._over
            if wakeable and self._woken:
                self._woken = False
                return Wake.NEWS
            if not self._reading:
                self._read_on()
            self.flush()
            now = self._reactor.seconds()
            # One deadline for the whole event: a peer that sends a byte now and then is
            # as silent as one that sends none.
            deadline = deadline or now + min(timeout, self._patience)
            if now >= deadline:
                raise TimedOut()
            self._wakeable = wakeable
            self._deadline = deadline
            if self._due > deadline:
                self._watch_clock()
            self._since = now
            self._waiting_for = "data"
            await self._waiting
            self._wakeable = False
            # Only while we wait for the peer does time run against it.
            self._patience -= self._turn - self._since

    def phase(self, patience: float | None, rate: float = 0.0) -> None:
        self._patience = self._most_patience = inf if patience is None else patience
        self._earned = 1 / rate if rate else 0.0

    def write(self, data: bytes) -> None:
        if self._observer is not None:
            self._observer.sent(data)
        self._out.append(data)
        self._gathered += len(data)
        if self._gathered >= GATHER:
            self.flush()

    async def drained(self) -> None:
        if self._gathered < FEW and not self._choked and not self._lost:
            return
        self.flush()
        while self._choked and not self._lost:
            self._deadline = self._reactor.seconds() + self.factory.connection_limits.write_timeout
            self._watch_clock()
            self._waiting_for = "room"
            await self._waiting
            if self._choked and not self._lost and self._reactor.seconds() >= self._deadline:
                # Nothing can be said to a peer that does not read.
                self.transport.abortConnection()
                raise PeerGone()
        if self._lost:
            raise PeerGone()

    async def pause(self) -> None:
        if self._reactor.seconds() - self._turn > TURN:
            self.flush()
            self._reactor.callLater(0, self._next_turn)
            self._waiting_for = "turn"
            await self._waiting
        if self._lost:
            raise PeerGone()

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            if self._wakeable:
                # Later, so that many hints of one turn are one wake-up, and nobody runs
                # inside the stack of whoever gave the hint.
                self._reactor.callLater(0, self._wake_up)

    def start_tls(self) -> None:
        self.flush()
        # RFC 3207 §4.2, RFC 3501 §6.2.1, RFC 2595 §4: what came in clear is forgotten, so that
        # nobody on the path can put commands into the encrypted session.
        self.engine.discard()
        self._secured = True
        if self._observer is not None:
            self._observer.secured(None)
        if not self._lost:
            if self._socket is not None:
                self._socket, self._choked = None, False
                self.transport.unregisterProducer()
                self.transport.startTLS(self.factory.tls)
                self.transport.registerProducer(self, True)
            else:
                self.transport.startTLS(self.factory.tls)

    # Inside

    def _start(self) -> None:
        if self.factory.observe is not None:
            self._observer = self.factory.observe(self._peer)
        session = self.factory.session(self)
        self.engine = session.engine
        self._running = True
        self._turn = self._reactor.seconds()
        self._coroutine = session.run()
        self._context: Context = copy_context()
        self._go_on()

    def _go_on(self, result: object = None) -> None:
        """
        Run the session until it waits again, for us or for somebody's Deferred.

        What `Deferred.fromCoroutine` does, without a new Deferred and its callbacks for each
        command: while the session waits for us `_resume` comes here by itself.
        """
        coroutine, run = self._coroutine, self._context.run
        assert coroutine is not None
        try:
            if isinstance(result, Failure):
                awaited = run(result.throwExceptionIntoGenerator, coroutine)
            else:
                awaited = run(coroutine.send, None)
        except StopIteration:
            self._ended(None)
        except BaseException:
            self._ended(Failure())
        else:
            if awaited is self._waiting:
                self._direct = True
            elif isinstance(awaited, Deferred):
                awaited.addBoth(self._go_on)
            else:
                self._go_on(Failure(TypeError(f"a session awaits {awaited!r}, which is no Deferred")))

    def _ended(self, result: Failure | None) -> None:
        self._running = False
        self._coroutine = None
        self._cancel_timer()
        if result is not None and not isinstance(result.value, WireError):
            self.factory.log.failure(
                "{service} session {connection} failed",
                failure=result,
                service=self.factory.service,
                connection=self._id,
            )
        if self._lost:
            return
        # The transport has to take a turn to close anyway, and sends the last words in it.
        self._socket = None
        self.flush()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        # A peer that does not read its last reply is not waited for.
        self._closing = self._reactor.callLater(self.factory.connection_limits.write_timeout, self.abort)

    def flush(self) -> None:
        """
        Send what has gathered; in clear now, not at the reactor's next turn: to be told that a socket can
        be written to, which it almost always can, takes three system calls more.
        """
        out, size = self._out, self._gathered
        if not out:
            return
        self._out, self._gathered = [], 0
        if self._lost:
            return
        sent = 0
        if self._socket is not None and not self._choked:
            if len(out) > 1 and (size < FEW or len(out) > _BUFFERS):
                out = [b"".join(out)]
            try:
                sent = self._socket.send(out[0]) if len(out) == 1 else self._socket.sendmsg(out)
            except OSError:
                # There is no room, or the connection broke, which the reactor finds out by itself.
                sent = 0
            if sent == size:
                return
            self._choked = True
        data = out[0] if len(out) == 1 else b"".join(out)
        self.transport.write(data[sent:] if sent else data)

    def _resume(self) -> None:
        self._waiting_for = ""
        self._turn = self._reactor.seconds()
        if self._direct:
            self._direct = False
            self._go_on()
        else:
            waiting, self._waiting = self._waiting, _Wait()
            waiting.callback(None)

    def _wake_up(self) -> None:
        if self._wakeable and self._waiting_for == "data":
            self._resume()

    def _next_turn(self) -> None:
        if self._waiting_for == "turn":
            self._resume()

    def _read_on(self) -> None:
        self._reading = True
        if not self._lost:
            self.transport.resumeProducing()

    def _watch_clock(self) -> None:
        """
        Have `_resume` called at `_deadline`, unless something happens before.

        The timer is only ever moved forward to an earlier deadline: a later one is seen to
        when the timer fires, which spares two timer operations for each command.
        """
        if self._due > self._deadline:
            self._due = self._deadline
            delay = max(0.0, self._deadline - self._reactor.seconds())
            if self._timer is None:
                self._timer = self._reactor.callLater(delay, self._time_passed)
            else:
                self._timer.reset(delay)

    def _time_passed(self) -> None:
        self._timer, self._due = None, inf
        if self._waiting_for in ("data", "room"):
            if self._reactor.seconds() >= self._deadline:
                self._resume()
            else:
                self._watch_clock()

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer, self._due = None, inf

    def _handshake_too_slow(self) -> None:
        self._timer = None
        self.abort()


class _Refused(TwistedProtocol):
    """A peer that may not come in is told so, in its protocol's words, and let go."""

    transport: Any

    def __init__(self, factory: MailFactory) -> None:
        self._farewell = factory.refusal()

    def connectionMade(self) -> None:
        self.transport.write(self._farewell)
        self.transport.loseConnection()


class MailFactory(ServerFactory):
    """
    Makes connections, counts them, and lets them go when the server stops.

    Args:
        service: "smtp", "submission", "lmtp", "imap" or "pop3"; becomes `Peer.service`.
        reactor: provides IReactorTime.
        tls: what STARTTLS hands to `ITLSTransport.startTLS`, or None to not offer it.
        limits: see `ConnectionLimits`.

    Attributes:
        observe: called with the peer of each connection that begins; its observer, if any.

    Subclasses give `session` and `refusal`.
    """

    noisy = False
    observe: Observe | None = None

    def __init__(
        self, service: str, reactor: Any, *, tls: Any = None, limits: ConnectionLimits | None = None
    ) -> None:
        self.service = service
        self.reactor = reactor
        self.tls = tls
        self.connection_limits = limits or ConnectionLimits()
        self.log = Logger(namespace=f"mailplat.{service}")
        self.connections: set[Connection] = set()
        self._by_host: Counter[str] = Counter()
        self._stopping = False
        self._empty: list[Deferred[None]] = []

    def session(self, wire: Wire) -> Session:
        """The session of a new connection, with its engine; not started."""
        raise TypeError(f"{type(self).__name__} makes no sessions")

    def refusal(self) -> bytes:
        """What a peer is told that may not come in, CR LF included."""
        raise TypeError(f"{type(self).__name__} has no words of refusal")

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol:
        connection = Connection(self, addr)
        limits = self.connection_limits
        counted = not connection.peer.is_loopback
        if (
            self._stopping
            or len(self.connections) >= limits.most
            or (counted and self._by_host[connection.host] >= limits.most_per_address)
        ):
            self.log.warn(
                "{service} refuses {host}: too many connections", service=self.service, host=connection.host
            )
            return _Refused(self)
        self.connections.add(connection)
        self._by_host[connection.host] += 1
        return connection

    def gone(self, connection: Connection) -> None:
        """Called by a connection when it is closed."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._by_host[connection.host] -= 1
            if not self._by_host[connection.host]:
                del self._by_host[connection.host]
        if not self.connections:
            waiting, self._empty = self._empty, []
            for deferred in waiting:
                deferred.callback(None)

    def start(self) -> None:
        """Accept connections again after a `stop`."""
        self._stopping = False

    def stop(self, grace: float) -> Deferred[None]:
        """
        Let all peers go: sessions say goodbye once they finished what is under way.

        Args:
            grace: seconds after which connections still open are cut.

        Returns:
            fires when the last connection is closed.
        """
        self._stopping = True
        if not self.connections:
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._empty.append(empty)
        cut = self.reactor.callLater(grace, self._cut)
        empty.addCallback(lambda _: cut.cancel() if cut.active() else None)
        for connection in list(self.connections):
            connection.stop()
        return empty

    def _cut(self) -> None:
        for connection in list(self.connections):
            connection.abort()


def _peer(service: str, address: IAddress | None, connection: str) -> Peer:
    if isinstance(address, IPv4Address | IPv6Address):
        host = address.host.partition("%")[0]
        # ::ffff:192.0.2.1 is an IPv4 peer that came in by a dual-stack socket.
        if host.startswith("::ffff:") and "." in host:
            host = host[7:]
        return Peer(service, host, address.port, connection=connection)
    return Peer(service, "", 0, connection=connection)
