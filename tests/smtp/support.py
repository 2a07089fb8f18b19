"""What the SMTP tests share: a receiver and a spool that remember, and ways to run a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.logger import Logger
from zope.interface import implementer

from mailplat import errors
from mailplat.interfaces import IMailReceiver, ISpool, ISpooledMessage, ISpoolWriter
from mailplat.smtp.engine import Limits
from mailplat.smtp.session import SMTPSession
from mailplat.testing.wire import FakeWire
from mailplat.values import Address, Envelope, Outcome, TLSInfo

TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")


@implementer(ISpooledMessage)
class Spooled:
    path = None
    outline = b""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.closed = False

    async def read(self, start: int, length: int) -> bytes:
        return self.data[start : start + length]

    def close(self) -> None:
        self.closed = True


@implementer(ISpoolWriter)
class Writer:
    def __init__(self, spool: Spool) -> None:
        self.size = 0
        self._spool = spool
        self._pieces: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        if self._spool.full_after is not None and self.size + len(chunk) > self._spool.full_after:
            raise self._spool.error
        self._pieces.append(chunk)
        self.size += len(chunk)

    async def finish(self) -> Spooled:
        message = Spooled(b"".join(self._pieces))
        self._spool.finished.append(message)
        return message

    def abandon(self) -> None:
        self._spool.abandoned += 1


@implementer(ISpool)
class Spool:
    """Keeps messages in memory; raises `error` for octets after `full_after`."""

    def __init__(self) -> None:
        self.finished: list[Spooled] = []
        self.abandoned = 0
        self.full_after: int | None = None
        self.error: Exception = errors.StorageFull()

    def begin(self) -> Writer:
        return Writer(self)


@implementer(IMailReceiver)
class Receiver:
    """
    Takes everything, except what its dictionaries say otherwise: address to error.

    `before`, if set, is awaited before each answer; its argument is a word for the question.
    """

    def __init__(self) -> None:
        self.received: list[tuple[Envelope, bytes]] = []
        self.refused: dict[str, Exception] = {}
        self.undelivered: dict[str, errors.MailError] = {}
        self.failure: Exception | None = None
        self.before: Callable[[str], object] | None = None

    async def _wait(self, question: str) -> None:
        if self.before is not None:
            await self.before(question)

    async def sender(self, envelope: Envelope) -> None:
        await self._wait("sender")
        if str(envelope.sender) in self.refused:
            raise self.refused[str(envelope.sender)]

    async def recipient(self, envelope: Envelope, recipient: Address) -> None:
        await self._wait(str(recipient))
        if str(recipient) in self.refused:
            raise self.refused[str(recipient)]

    async def message(self, envelope: Envelope, message: Spooled) -> Sequence[Outcome]:
        await self._wait("message")
        if self.failure is not None:
            raise self.failure
        data = await message.read(0, message.size)
        self.received.append((envelope, data))
        return [Outcome(to, self.undelivered.get(str(to))) for to in envelope.recipients]

    @property
    def messages(self) -> list[bytes]:
        return [data for _, data in self.received]


@implementer(IRealm)
class Realm:
    """Gives the same receiver to everybody and keeps count."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.minds: list[object] = []
        self.names: list[object] = []
        self.present = 0

    def requestAvatar(self, avatarId, mind, *interfaces):
        assert IMailReceiver in interfaces
        self.minds.append(mind)
        self.names.append(avatarId)
        self.present += 1

        def logout() -> None:
            self.present -= 1

        return IMailReceiver, self.receiver, logout


def portal(realm: Realm, *, anonymous: bool = True) -> Portal:
    checkers: list[object] = [InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")]
    if anonymous:
        checkers.append(AllowAnonymousAccess())
    return Portal(realm, checkers)


class Server:
    """
    One session on a fake wire.

    Attributes:
        wire, receiver, spool, realm: what it was built from.
        greeting: what it said first.
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
        spool: Spool | None = None,
    ) -> None:
        self.receiver = Receiver()
        self.realm = Realm(self.receiver)
        self.spool = spool or Spool()
        self.wire = FakeWire(service, host=host, tls=tls, secured=secured)
        self.session = SMTPSession(
            self.wire,
            portal(self.realm, anonymous=anonymous),
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

    def begin(self, *recipients: str) -> Server:
        self.say("MAIL FROM:<sender@example.test>", *(f"RCPT TO:<{to}>" for to in recipients))
        return self


def replies(data: bytes) -> list[str]:
    assert not data or data.endswith(b"\r\n"), data
    return data.decode("ascii").split("\r\n")[:-1]


def shapes(data: bytes) -> list[str]:
    """A reply's code and enhanced code, without its text."""
    return [" ".join(line.split(" ")[:2]) for line in replies(data) if line[3:4] != "-"]
