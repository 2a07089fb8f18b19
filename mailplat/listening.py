"""
Binding endpoints: all of them or none, and nobody is let in before the house is ready.

A port is bound early, while the process still may (twistd gives privileges up after that), and
with a `Door` in place of a factory; peers that come meanwhile wait in the kernel.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IReadDescriptor
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from mailplat.errors import CannotListen
from mailplat.settings import Listener


class Door(ServerFactory):
    """The factory of a port, as long as the real one is not there yet."""

    noisy = False
    inner: Any = None

    def __init__(self, word: str) -> None:
        self._word = word

    def logPrefix(self) -> str:
        return self._word

    def buildProtocol(self, addr: IAddress | None) -> Any:
        # None has Twisted close the connection.
        return None if self.inner is None else self.inner.buildProtocol(addr)


@dataclass(frozen=True, slots=True)
class Bound:
    """A listener and its port."""

    listener: Listener
    port: Any
    door: Door

    @property
    def address(self) -> Any:
        """Where it listens (an IAddress), with the port's number even if that was given as 0."""
        return self.port.getHost()

    def pause(self) -> None:
        # All ports that have a socket can do this, though no interface says so.
        if IReadDescriptor.providedBy(self.port):
            port: Any = self.port
            port.stopReading()

    def open(self, factory: Any) -> None:
        """Let peers in."""
        self.door.inner = factory
        if IReadDescriptor.providedBy(self.port):
            port: Any = self.port
            port.startReading()

    def close(self) -> Deferred[None]:
        """Accept nobody any more; connections stay."""
        result: Any = self.port.stopListening()
        return result if isinstance(result, Deferred) else _done()


def bind(listener: Listener, reactor: Any) -> Bound:
    """
    Bind an endpoint, paused.

    Raises:
        CannotListen: and why not.
    """
    door = Door(listener.kind.word)
    listening: Deferred[Any] = serverFromString(reactor, _prepared(listener)).listen(door)
    results: list[Any] = []
    listening.addBoth(results.append)
    if not results:
        # No endpoint that Twisted has waits for anything.
        listening.cancel()
        raise CannotListen(f"{_name(listener)}: this kind of endpoint cannot be bound at once")
    (port,) = results
    if isinstance(port, Failure):
        raise CannotListen(f"{_name(listener)}: {_why(port.value)}") from port.value
    bound = Bound(listener, port, door)
    bound.pause()
    return bound


def is_unix(listener: Listener) -> bool:
    """It is a UNIX socket."""
    return listener.endpoint.startswith("unix:")


def speaks_tls(listener: Listener) -> bool:
    """The endpoint itself speaks TLS, so nobody else has to."""
    return re.match(r"(ssl|tls):", listener.endpoint) is not None


def shown(address: Any) -> str:
    """An address as people write it."""
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, UNIXAddress):
        return os.fsdecode(address.name or b"")
    return str(address)


def _name(listener: Listener) -> str:
    return f"cannot listen for {listener.kind.word} on {listener.endpoint}"


def _why(error: BaseException | None) -> str:
    if isinstance(error, CannotListenError):
        error = error.socketError if isinstance(error.socketError, BaseException) else error
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _prepared(listener: Listener) -> str:
    """
    The endpoint string to use: for a UNIX socket one without Twisted's lock file.

    That file outlives a killed process and may then name any other process, even our own.
    Whether somebody listens on a socket is found out by asking.
    """
    endpoint = listener.endpoint
    if not is_unix(listener) or "lockfile=" in endpoint:
        return endpoint
    _remove_if_dead(listener, _path(endpoint))
    return endpoint + ":lockfile=0"


def _path(endpoint: str) -> str:
    """The path in a UNIX endpoint string (see `twisted.internet.endpoints.serverFromString`)."""
    words = re.findall(r"(?:[^\\:]|\\.)+", endpoint, re.DOTALL)[1:]
    named = [word.removeprefix("address=") for word in words if word.startswith("address=")]
    plain = [word for word in words if not re.match(r"[a-z]+=", word)]
    return re.sub(r"\\(.)", r"\1", (named + plain)[0], flags=re.DOTALL)


def _remove_if_dead(listener: Listener, path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise CannotListen(f"{_name(listener)}: there is something that is not a socket")
    except FileNotFoundError:
        return
    except OSError as error:
        raise CannotListen(f"{_name(listener)}: {error.strerror}") from error
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass
        except OSError as error:
            raise CannotListen(f"{_name(listener)}: {error.strerror or error}") from error
        else:
            raise CannotListen(f"{_name(listener)}: somebody listens there already")
    # Nobody: what a killed process left.
    os.unlink(path)


def _done() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done
