"""What IMAP tests share: a server in memory, and a client that sends text and reads text."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailplat.imap.limits import Limits
from mailplat.imap.server import IMAPFactory
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import MemorySpool, new_message, portal_for
from mailplat.testing.wire import FakeWire

ALICE = "alice@example.test"
PASSWORD = "secret"

__all__ = ["ALICE", "PASSWORD", "Client", "Server", "now"]


class Server:
    """
    A server in memory with the account of Alice.

    Args:
        limits: those that differ from the default.
        bodies: messages in her INBOX.
    """

    def __init__(self, *bodies: bytes, **limits: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        now(self.store.create_account(ALICE))
        self.account = now(self.store.account(ALICE))
        self.inbox: Any = now(self.account.open("INBOX"))
        self.add(*bodies)
        self.spool = MemorySpool()
        portal = portal_for({ALICE: PASSWORD}, self.store)
        self.factory = IMAPFactory(
            portal, self.spool, self.clock, plaintext_login="always", limits=Limits(**limits)
        )

    def add(self, *bodies: bytes, flags: tuple[str, ...] = (), outline: bytes | None = None) -> None:
        """Messages come into INBOX."""
        now(self.inbox.append([new_message(body, flags, outline=outline) for body in bodies]))

    def client(self, select: str = "SELECT INBOX", login: bool = True) -> Client:
        """A client that is logged in and has done `select`, unless told otherwise."""
        return Client(self, select if login else "", login)


class Client:
    """One connection."""

    def __init__(self, server: Server, select: str, login: bool) -> None:
        self.wire = FakeWire("imap", clock=server.clock)
        self.greeting = self.wire.start(server.factory.session(self.wire))
        self._count = 0
        if login:
            assert self(f"LOGIN {ALICE} {PASSWORD}")[-1].startswith("OK")
        if select:
            assert self(select)[-1].startswith("OK"), select

    def send(self, data: bytes) -> list[str]:
        """The lines that come in answer."""
        return lines(self.wire.send(data))

    def __call__(self, command: str) -> list[str]:
        """The lines of a command's answer, the tag taken off the last."""
        self._count += 1
        tag = f"t{self._count} "
        answer = self.send(f"{tag}{command}\r\n".encode())
        return [*answer[:-1], answer[-1].removeprefix(tag)] if answer else []


def lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "backslashreplace").split("\r\n")[:-1] if data else []


def now(awaitable: Any) -> Any:
    """The result of what needs no waiting, or what it raised."""
    results: list[Any] = []

    async def run() -> Any:
        return await awaitable

    Deferred.fromCoroutine(run()).addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
