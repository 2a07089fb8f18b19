"""What the SMTP tests share: one session on a fake wire, and what stands behind it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mailplat.interfaces import IMailReceiver, ISpooledMessage
from mailplat.smtp.engine import Limits
from mailplat.smtp.session import SMTPSession
from mailplat.testing.fakes import AnonymousChecker, MemoryChecker, MemorySpool, RecordingReceiver
from mailplat.testing.wire import FakeWire
from mailplat.values import Address, Envelope, Outcome, TLSInfo

TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")


class Receiver(RecordingReceiver):
    """
    A recording receiver that can be slow.

    Attributes:
        asked: what it was asked, in order: "sender", a recipient's address, "message".
        held: while not None, every answer waits; see `answer`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.held: list[Deferred[None]] | None = None

    @property
    def messages(self) -> list[bytes]:
        return [data for _, data in self.received]

    def answer(self) -> None:
        """Let the oldest answer go."""
        assert self.held
        self.held.pop(0).callback(None)

    async def sender(self, envelope: Envelope) -> None:
        await self._asked("sender")
        await super().sender(envelope)

    async def recipient(self, envelope: Envelope, recipient: Address) -> None:
        await self._asked(str(recipient))
        await super().recipient(envelope, recipient)

    async def message(self, envelope: Envelope, message: ISpooledMessage) -> Sequence[Outcome]:
        await self._asked("message")
        return await super().message(envelope, message)

    async def _asked(self, question: str) -> None:
        self.asked.append(question)
        if self.held is not None:
            held: Deferred[None] = Deferred()
            self.held.append(held)
            await held


@implementer(IRealm)
class Realm:
    """
    Gives the same receiver to everybody.

    Attributes:
        entered: (name, peer) of each login; an anonymous peer's name is ().
        present: how many have not logged out.
        answering: awaited before an avatar is given, if set.
    """

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.entered: list[tuple[Any, Any]] = []
        self.present = 0
        self.answering: Callable[[], Awaitable[object]] | None = None

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        assert IMailReceiver in interfaces
        return Deferred.fromCoroutine(self._avatar(avatarId, mind))

    async def _avatar(self, name: Any, peer: Any) -> Any:
        if self.answering is not None:
            await self.answering()
        self.entered.append((name, peer))
        self.present += 1
        return IMailReceiver, self.receiver, self._left

    def _left(self) -> None:
        self.present -= 1


class Server:
    """
    One session on a fake wire.

    Attributes:
        greeting: what it said first.
        wire, receiver, spool, realm, checker: what it was built from.
    """

    def __init__(
        self,
        service: str = "smtp",
        *,
        limits: Limits | None = None,
        tls: TLSInfo | None = None,
        secured: TLSInfo | None = None,
        host: str = "127.0.0.1",
        plaintext_login: str = "loopback",
        anonymous: bool = True,
    ) -> None:
        self.receiver = Receiver()
        self.realm = Realm(self.receiver)
        self.checker = MemoryChecker({"alice@example.test": "secret"})
        self.spool = MemorySpool(outline=lambda body: b"")
        self.wire = FakeWire(service, host=host, tls=tls, secured=secured)
        checkers = [self.checker, AnonymousChecker()] if anonymous else [self.checker]
        self.session = SMTPSession(
            self.wire,
            Portal(self.realm, checkers),
            self.spool,
            hostname="mx.example.test",
            plaintext_login=plaintext_login,
            limits=limits or Limits(),
            log=Logger(namespace="mailplat.smtp"),
        )
        self.greeting = self.wire.start(self.session)

    def say(self, *lines: str) -> list[str]:
        """Send lines; the replies, without CR LF."""
        return self.send("".join(f"{line}\r\n" for line in lines).encode())

    def send(self, data: bytes) -> list[str]:
        return replies(self.wire.send(data))

    def codes(self, *lines: str) -> list[str]:
        """Send lines; the first word of each reply's last line."""
        return [line[:3] for line in self.say(*lines) if line[3:4] != "-"]

    def hello(self) -> Server:
        self.say(
            "LHLO client.example.test" if self.wire.peer.service == "lmtp" else "EHLO client.example.test"
        )
        return self

    def shapes(self, *lines: str) -> list[str]:
        """Send lines; code and enhanced code of each reply."""
        return shapes(self.wire.send("".join(f"{line}\r\n" for line in lines).encode()))

    def begin(self, *recipients: str) -> Server:
        self.say("MAIL FROM:<sender@example.test>", *(f"RCPT TO:<{to}>" for to in recipients))
        return self


def replies(data: bytes) -> list[str]:
    assert not data or data.endswith(b"\r\n"), data
    return data.decode("ascii").split("\r\n")[:-1]


def shapes(data: bytes) -> list[str]:
    """A reply's code and enhanced code, without its text."""
    return [" ".join(line.split(" ")[:2]) for line in replies(data) if line[3:4] != "-"]


def plain(name: str = "alice@example.test", password: str = "secret", authzid: str = "") -> str:
    """An initial response of PLAIN."""
    return b64encode(f"{authzid}\0{name}\0{password}".encode()).decode()
