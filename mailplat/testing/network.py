"""
A network in memory: machines, a name service and a clock, all in one test.

    network = Network()
    here = network.host("relay.example.net", "192.0.2.1")
    mx = network.mail_server("mx.example.com", "198.51.100.1")
    network.domain("example.com", "mx.example.com")

    network.run(send_something(reactor=here, resolver=network.resolver))
    assert len(mx.messages) == 1
    network.advance(5 * 86400)

Each `Host` is the *reactor* of what runs on it: real endpoints, real servers and real clients
use it as they would use Twisted's, and what they send each other goes through
`mailplat.testing.transport`, flow control and TLS included.  All hosts share one clock, which
stands still until `advance` or `run` moves it from one event to the next: five days in which
little happens take milliseconds.

Things go wrong as they do outside.  A host can be down (nobody answers), a port closed (the
connection is refused), a name unknown or its server silent (`FakeResolver`), and a mail server
can say anything at any point, or nothing, or too much: see `ScriptedServer`.

A test that needs no files and no threads runs the same way each time; pass a seeded
`random.Random` to what asks for randomness.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionRefusedError,
    NoRouteError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorFromThreads,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from mailplat.errors import MailError, NoSuchDomain
from mailplat.interfaces import IResolver
from mailplat.smtp.server import SMTPFactory
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import InstantPool, MemorySpool, RecordingReceiver, portal_for
from mailplat.testing.scripted import Script, ScriptedServer
from mailplat.testing.transport import Pipe
from mailplat.values import Envelope

T = TypeVar("T")

#: When a network begins: 2026-01-01 00:00 UTC.
BEGINNING = 1_767_225_600


# Names


@implementer(IResolver)
class FakeResolver:
    """
    A DNS that a test writes.  A name of which nothing is known does not exist.

    Args:
        clock: what slow answers wait for.

    Attributes:
        exchangers: domain -> (preference, host name) pairs; (0, "") is a null MX.
        hosts: host name -> addresses, in the order in which they are told.
        failures: name -> the error that looking it up raises.
        delays: name -> seconds that an answer takes.
        asked: all names that were looked up, in order.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.exchangers: dict[str, list[tuple[int, str]]] = {}
        self.hosts: dict[str, list[str]] = {}
        self.failures: dict[str, MailError] = {}
        self.delays: dict[str, float] = {}
        self.asked: list[str] = []

    async def mail_exchangers(self, domain: str) -> Sequence[tuple[int, str]]:
        await self._look_up(domain)
        return sorted(self.exchangers.get(domain, ()), key=lambda pair: pair[0])

    async def addresses(self, host: str) -> Sequence[str]:
        await self._look_up(host)
        return list(self.hosts.get(host, ()))

    async def _look_up(self, name: str) -> None:
        self.asked.append(name)
        if delay := self.delays.get(name):
            await deferLater(self._clock, delay)
        if error := self.failures.get(name):
            raise error
        if name not in self.exchangers and name not in self.hosts:
            raise NoSuchDomain()


# The network


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    A connection that somebody tried to make.

    Attributes:
        time: seconds since 1970, when it began.
        source: the name of the host it came from.
        address, port: where to; a path and 0 for a UNIX socket.
    """

    time: float
    source: str
    address: str
    port: int


class Network:
    """
    Args:
        latency: seconds that bytes are on their way; a connection takes twice that.

    Attributes:
        clock: a `twisted.internet.task.Clock`, shared by all.
        resolver: knows the hosts and what `domain` was told.
        hosts: by their names.
        attempts: every connection that was tried, in order.
    """

    def __init__(self, latency: float = 0.01) -> None:
        self.clock = Clock()
        self.clock.advance(BEGINNING)
        self.latency = latency
        self.resolver = FakeResolver(self.clock)
        self.attempts: list[Attempt] = []
        self.hosts: dict[str, Host] = {}
        self._by_address: dict[str, Host] = {}
        self._links: list[_Link] = []

    def host(self, name: str, *addresses: str) -> Host:
        """A new machine, whose name the DNS knows."""
        host = Host(self, name, addresses)
        for address in host.addresses:
            if address in self._by_address:
                raise ValueError(f"{address} is {self._by_address[address].name} already")
            self._by_address[address] = host
        self.hosts[name] = host
        self.resolver.hosts[name] = list(host.addresses)
        return host

    def domain(self, name: str, *exchangers: str | tuple[int, str]) -> None:
        """A domain with these MX records: host names, of preference 10, 20, ..., or pairs."""
        self.resolver.exchangers[name] = [
            (10 * number, exchanger) if isinstance(exchanger, str) else exchanger
            for number, exchanger in enumerate(exchangers, 1)
        ]

    def mail_server(
        self,
        name: str,
        *addresses: str,
        port: int = 25,
        service: str = "smtp",
        tls: Any = None,
        passwords: Mapping[str, str] | None = None,
    ) -> MailServer:
        """
        A new machine with a real server of mailplat's on it.

        Args:
            tls: a context factory for STARTTLS; None for a server without.
            passwords: account name -> password, for "submission".
        """
        return MailServer(self.host(name, *addresses), port, service, tls, passwords or {})

    def scripted_server(
        self, name: str, *addresses: str, port: int = 25, script: Script | None = None, **settings: Any
    ) -> ScriptedServer:
        """A new machine with a `ScriptedServer` on it."""
        host = self.host(name, *addresses)
        server = ScriptedServer(script, hostname=name, clock=host, **settings)
        host.listenTCP(port, server)
        return server

    @property
    def connections(self) -> int:
        """How many are open now."""
        return sum(not link.pipe.lost for link in self._links)

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that happens meanwhile, each at its own time."""
        end = self.clock.seconds() + seconds
        while self._step(end):
            pass
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    def run(self, awaitable: Awaitable[T], within: float = 3600.0) -> T:
        """
        Let time pass until there is a result, and return it, or raise what it failed with.

        Raises:
            AssertionError: it is not there `within` seconds.
        """
        results: list[Any] = []
        self.start(awaitable).addBoth(results.append)
        end = self.clock.seconds() + within
        while not results:
            if not self._step(end):
                raise AssertionError(f"it still waits after {within} seconds")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        result: T = results[0]
        return result

    def start(self, awaitable: Awaitable[T]) -> Deferred[T]:
        """Begin something that goes on while other things are run."""
        if isinstance(awaitable, Deferred):
            return awaitable
        if not isinstance(awaitable, Coroutine):
            raise TypeError(f"a coroutine or a Deferred, not {awaitable!r}")
        return Deferred.fromCoroutine(awaitable)

    def _step(self, end: float) -> bool:
        """Go to the next event, if there is one before `end`."""
        calls = self.clock.getDelayedCalls()
        now = self.clock.seconds()
        # Clock adds up fractions: an event may lie a little before the present.
        soonest = min((call.getTime() for call in calls), default=end + 1.0)
        if soonest > end:
            return False
        self.clock.advance(max(0.0, soonest - now))
        if self.clock.seconds() < soonest:
            # What is added to the present may not quite reach it; nothing lies in between.
            self.clock.rightNow = soonest
            self.clock.advance(0.0)
        return True

    def at(self, address: str) -> Host | None:
        """The host that has this address."""
        return self._by_address.get(address)


class _Link:
    """A pipe whose bytes are moved by the clock."""

    def __init__(self, network: Network, hosts: tuple[Host, Host], lost: Callable[[], object]) -> None:
        self._network = network
        self._hosts = hosts
        self._lost = lost
        self._moving: set[Callable[[], bool]] = set()
        self.pipe: Pipe

    def stirred(self, deliver: Callable[[], bool], delay: float | None = None) -> None:
        if deliver not in self._moving:
            self._moving.add(deliver)
            network = self._network
            network.clock.callLater(network.latency if delay is None else delay, self._move, deliver)

    def _move(self, deliver: Callable[[], bool]) -> None:
        self._moving.discard(deliver)
        # What is sent to a host that is down is not lost: it arrives when the host is up again,
        # as what TCP sends again does.
        if any(host.down for host in self._hosts):
            self.stirred(deliver, 1.0)
        elif not self.pipe.lost:
            if deliver():
                self.stirred(deliver)
        elif self in self._network._links:
            self._network._links.remove(self)
            self._lost()


@implementer(IReactorTime, IReactorTCP, IReactorUNIX, IReactorThreads, IReactorFromThreads)
class Host:
    """
    A machine, and the reactor of what runs on it; made by `Network.host`.

    Threads do their work at once.

    Attributes:
        name: its name in the DNS.
        addresses: its own, besides loopback.
        down: nobody can reach it, and it can reach nobody, until this is False again.
    """

    def __init__(self, network: Network, name: str, addresses: Sequence[str]) -> None:
        self._network = network
        self._clock = network.clock
        self._listening: dict[tuple[str, int], _Listening] = {}
        self._next_port = 40_000
        self._pool = InstantPool()
        self.name = name
        self.addresses = tuple(str(ip_address(address)) for address in addresses)
        self.down = False

    def close(self, port: int) -> None:
        """Listen on this port no more: connections are refused from now on."""
        for key, listening in list(self._listening.items()):
            if key[1] == port:
                listening.stopListening()

    # IReactorTime

    def seconds(self) -> float:
        return self._clock.seconds()

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        return self._clock.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Any:
        return self._clock.getDelayedCalls()

    # IReactorTCP

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        if port == 0:
            port = self._free_port()
        return _Listening(self, factory, interface, port)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        address = str(ip_address(host))
        return _Connector(self, factory, address, port, timeout, (bindAddress or ("",))[0])

    # IReactorUNIX

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        return _Listening(self, factory, address, 0)

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30, checkPID: bool = False
    ) -> IConnector:
        return _Connector(self, factory, address, 0, timeout, "")

    # IReactorThreads, IReactorFromThreads

    def getThreadPool(self) -> Any:
        return self._pool

    def callInThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        callable(*args, **kwargs)

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        callable(*args, **kwargs)

    def suggestThreadPoolSize(self, size: int) -> None:
        """There are no threads."""

    # Inside

    def _free_port(self) -> int:
        self._next_port += 1
        return self._next_port

    def _listens(self, address: str, port: int) -> _Listening | None:
        return self._listening.get((address, port)) or (self._listening.get(("", port)) if port else None)

    def _source(self, destination: str, wanted: str) -> str | None:
        """The address that a connection comes from; None if there is no way."""
        if destination in _LOOPBACK:
            return destination
        if wanted:
            return wanted if wanted in self.addresses else None
        family = ":" in destination
        return next((address for address in self.addresses if (":" in address) == family), None)


_LOOPBACK = ("127.0.0.1", "::1")


@implementer(IListeningPort)
class _Listening:
    def __init__(self, host: Host, factory: IProtocolFactory, interface: str, port: int) -> None:
        self._host = host
        self._key = interface, port
        self.factory = factory
        self.startListening()

    def startListening(self) -> None:
        interface, port = self._key
        if self._key in self._host._listening:
            raise CannotListenError(interface, port, OSError("Address already in use"))
        self.factory.doStart()
        self._host._listening[self._key] = self

    def stopListening(self) -> Deferred[None]:
        if self._host._listening.pop(self._key, None) is not None:
            self.factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        interface, port = self._key
        return _address(interface or "0.0.0.0", port)

    # What Twisted's own ports have, and services call.
    loseConnection = stopListening


@implementer(IConnector)
class _Connector:
    """One connection being made."""

    def __init__(
        self, host: Host, factory: Any, address: str, port: int, timeout: float, source: str
    ) -> None:
        self._host = host
        self._factory = factory
        self._address, self._port = address, port
        self._timeout = timeout
        self._wanted = source
        self._waiting: list[IDelayedCall] = []
        self._link: _Link | None = None
        self.connect()

    def connect(self) -> None:
        host, network = self._host, self._host._network
        network.attempts.append(Attempt(host.seconds(), host.name, self._address, self._port))
        self._factory.doStart()
        self._factory.startedConnecting(self)
        self._waiting = [
            host.callLater(2 * network.latency, self._arrive),
            host.callLater(self._timeout, self._fail, TimeoutError()),
        ]

    def stopConnecting(self) -> None:
        self._fail(UserError())

    def disconnect(self) -> None:
        if self._waiting:
            self.stopConnecting()
        elif self._link is not None:
            self._link.pipe.cut()

    def getDestination(self) -> IAddress:
        return _address(self._address, self._port)

    def _arrive(self) -> None:
        network, host = self._host._network, self._host
        local = not self._port or self._address in _LOOPBACK
        there = host if local else network.at(self._address)
        source = host._source(self._address, self._wanted) if self._port else ""
        if source is None:
            return self._fail(NoRouteError())
        if host.down or there is None or there.down:
            return None  # nobody answers; the timeout says so
        listening = there._listens(self._address, self._port)
        if listening is None:
            return self._fail(ConnectionRefusedError())
        ours = _address(source, host._free_port() if self._port else 0)
        server = listening.factory.buildProtocol(ours)
        client = self._factory.buildProtocol(self.getDestination())
        if server is None or client is None:
            return self._fail(ConnectError())
        self._stop_waiting()
        link = self._link = _Link(network, (host, there), self._end)
        network._links.append(link)
        theirs = self.getDestination()
        link.pipe = Pipe(client, server, ours, theirs, network.clock, stirred=link.stirred)
        return None

    def _end(self) -> None:
        self._factory.clientConnectionLost(self, connectionDone)
        self._factory.doStop()

    def _fail(self, error: Exception) -> None:
        if self._waiting:
            self._stop_waiting()
            failure: Any = Failure
            self._factory.clientConnectionFailed(self, failure(error))
            self._factory.doStop()

    def _stop_waiting(self) -> None:
        for call in self._waiting:
            if call.active():
                call.cancel()
        self._waiting = []


def _address(host: str, port: int) -> IAddress:
    if not port:
        return UNIXAddress(host.encode() or None)
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


class MailServer:
    """
    A real `SMTPFactory` on a machine of its own; made by `Network.mail_server`.

    Attributes:
        host: the machine.
        factory: an `SMTPFactory`.
        receiver: a `RecordingReceiver`, which may be told what to refuse.
    """

    def __init__(self, host: Host, port: int, service: str, tls: Any, passwords: Mapping[str, str]) -> None:
        self.host = host
        self.receiver = RecordingReceiver()
        portal = portal_for(passwords, MemoryStore(), lambda peer, account: self.receiver)
        spool = MemorySpool(outline=lambda body: b"")
        self.factory = SMTPFactory(portal, spool, host, hostname=host.name, service=service, tls=tls)
        self.port = host.listenTCP(port, self.factory)

    @property
    def messages(self) -> list[tuple[Envelope, bytes]]:
        """What was accepted: envelope and bytes."""
        return self.receiver.received
