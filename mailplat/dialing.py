"""
Going out: a connection to another host, with a client's session on it.

`dial` connects by any Twisted stream endpoint and answers the session, which runs on the
same `mailplat.connection.Connection` as those of the servers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from mailplat.connection import Connection, ConnectionLimits, Observe, Session
from mailplat.errors import HostUnreachable, TLSFailed

S = TypeVar("S", bound=Session)


class Dialer(Factory, Generic[S]):
    """
    Makes one connection, as `mailplat.connection.Owner` does.

    Attributes:
        made: fires with the session, which is about to run, or fails with what ended the
            connection before there was one.
    """

    noisy = False

    def __init__(
        self,
        service: str,
        make: Callable[[Connection], S],
        reactor: Any,
        tls: Any,
        limits: ConnectionLimits,
        observe: Observe | None = None,
    ) -> None:
        self.observe = observe
        self.service = service
        self.reactor = reactor
        self.tls = tls
        self.connection_limits = limits
        self.log = Logger(namespace=f"mailplat.{service}")
        self.made: Deferred[S] = Deferred()
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol:
        return Connection(self, addr)

    def session(self, wire: Connection) -> S:
        session = self._make(wire)
        self.made.callback(session)
        return session

    def gone(self, connection: Connection) -> None:
        if not self.made.called:
            self.made.errback(connection.over or HostUnreachable())


async def dial(
    endpoint: IStreamClientEndpoint,
    service: str,
    make: Callable[[Connection], S],
    reactor: Any,
    *,
    tls: Any = None,
    implicit_tls: bool = False,
    timeout: float = 30.0,
    limits: ConnectionLimits,
    observe: Observe | None = None,
) -> S:
    """
    Connect.

    Args:
        service: becomes `Peer.service`.
        make: makes the session for a connection; not called if there is none.
        reactor: provides IReactorTime.
        tls: provides IOpenSSLClientConnectionCreator; None for a connection that stays in clear.
        implicit_tls: speak TLS from the first byte (RFC 8314 §3).
        timeout: seconds for connecting, without TLS.
        observe: as `MailFactory.observe`.

    Returns:
        the session; its `run` has begun, or is about to.

    Raises:
        HostUnreachable, TLSFailed.
    """
    dialer = Dialer(service, make, reactor, tls, limits, observe)
    factory: Any = TLSMemoryBIOFactory(tls, True, dialer, reactor) if implicit_tls else dialer
    try:
        connected: Deferred[Any] = endpoint.connect(factory)
        await connected.addTimeout(timeout, reactor)
    except TimeoutError:
        raise HostUnreachable("Connecting took too long") from None
    except (ConnectError, ConnectingCancelledError, OSError) as error:
        raise HostUnreachable("Cannot connect", reason=str(error)) from error
    try:
        return await dialer.made
    except Exception as error:
        if implicit_tls:
            raise TLSFailed(reason=str(error)) from error
        raise HostUnreachable(reason=str(error)) from error
