"""
Stand-ins for the parts beside the one that is tested.

They do what their interfaces promise, in memory and at once, keep what they were told,
and fail where a test asks them to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IAnonymous, ICredentials, IUsernamePassword
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from mailplat import sasl
from mailplat.auth.realm import MailRealm
from mailplat.errors import LoginFailed, MailError
from mailplat.interfaces import (
    IDeliveryAgent,
    IMailReceiver,
    IMailStore,
    IScramCredentials,
    ISpool,
    ISpooledMessage,
    ISpoolWriter,
    NewMessage,
)
from mailplat.message.structure import Scanner
from mailplat.values import Address, Envelope, Outcome, Peer, ScramRecord, Target

# Messages


@implementer(ISpooledMessage)
class MemoryMessage:
    """
    A spooled message made of bytes.

    Args:
        body: lines ended by CR LF.
        outline: what stands beside it; see `outline_of`.

    Attributes:
        closed: how often `close` was called.
        reads: the (start, length) of each `read`.
        hidden: with True, `data` is None, as for a message that is in no memory.
    """

    path: str | None = None

    def __init__(self, body: bytes, outline: bytes = b"", hidden: bool = False) -> None:
        self._body = body
        self.data = None if hidden else body
        self.size = len(body)
        self.outline = outline
        self.closed = 0
        self.reads: list[tuple[int, int]] = []

    async def read(self, start: int, length: int) -> bytes:
        self.reads.append((start, length))
        return self._body[start : start + length]

    def close(self) -> None:
        self.closed += 1


def outline_of(body: bytes) -> bytes:
    """The outline that the server's own spool would make of these bytes."""
    scanner = Scanner()
    scanner.feed(body)
    return scanner.record()


def new_message(
    body: bytes = b"Subject: test\r\n\r\nHello\r\n",
    flags: Iterable[str] = (),
    date: int = 1_000_000_000,
    prefix: bytes = b"",
    outline: bytes | None = None,
) -> NewMessage:
    """A message for `IMailbox.append`, with the outline that its bytes have if none is given."""
    record = outline_of(body) if outline is None else outline
    return NewMessage(MemoryMessage(body, record), prefix, frozenset(flags), date)


@implementer(ISpool)
class MemorySpool:
    """
    A spool that never touches a disk.

    Args:
        outline: makes the outline of a finished message; `lambda body: b""` spares its cost.

    Attributes:
        fail: raised by the next `write` or `finish`, once.
        open: writers neither finished nor abandoned.
        messages: all that were finished.
    """

    def __init__(self, outline: Callable[[bytes], bytes] = outline_of) -> None:
        self.outline = outline
        self.fail: MailError | None = None
        self.open = 0
        self.messages: list[MemoryMessage] = []

    def begin(self) -> MemorySpoolWriter:
        self.open += 1
        return MemorySpoolWriter(self)


@implementer(ISpoolWriter)
class MemorySpoolWriter:
    """See `MemorySpool`."""

    def __init__(self, spool: MemorySpool) -> None:
        self._spool = spool
        self._pieces: list[bytes] = []
        self._done = False
        self.size = 0

    async def write(self, chunk: bytes) -> None:
        self._may_fail()
        self._pieces.append(bytes(chunk))
        self.size += len(chunk)

    async def finish(self) -> ISpooledMessage:
        self._may_fail()
        body = b"".join(self._pieces)
        message = MemoryMessage(body, self._spool.outline(body))
        self._spool.messages.append(message)
        self._end()
        return message

    def abandon(self) -> None:
        self._pieces.clear()
        self._end()

    def _end(self) -> None:
        if not self._done:
            self._done = True
            self._spool.open -= 1

    def _may_fail(self) -> None:
        if self._spool.fail is not None:
            fail, self._spool.fail = self._spool.fail, None
            raise fail


# Delivery

#: What a test may make fail: a word for everybody, or one for each recipient it names.
Refusals = dict[str, MailError]


@implementer(IMailReceiver)
class RecordingReceiver:
    """
    Accepts all mail, but for what a test told it to refuse.

    Attributes:
        received: (envelope, body) of each message taken.
        senders: envelopes passed to `sender`.
        refused_senders, refused_recipients: address as text -> the error to raise.
        outcomes: address as text -> the error of its outcome.
        failure: raised by `message`, if set; may be any exception.
        before_message: awaited at the start of `message`; a Deferred a test holds keeps
            the delivery waiting.
    """

    def __init__(self) -> None:
        self.received: list[tuple[Envelope, bytes]] = []
        self.senders: list[Envelope] = []
        self.refused_senders: Refusals = {}
        self.refused_recipients: Refusals = {}
        self.outcomes: Refusals = {}
        self.failure: Exception | None = None
        self.before_message: Awaitable[object] | None = None

    async def sender(self, envelope: Envelope) -> None:
        self.senders.append(envelope)
        if error := self.refused_senders.get(str(envelope.sender or "")):
            raise error

    async def recipient(self, envelope: Envelope, recipient: Address) -> None:
        if error := self.refused_recipients.get(str(recipient)):
            raise error

    async def message(self, envelope: Envelope, message: ISpooledMessage) -> Sequence[Outcome]:
        if self.before_message is not None:
            await self.before_message
        if self.failure is not None:
            raise self.failure
        self.received.append((envelope, await message.read(0, message.size)))
        return [Outcome(recipient, self.outcomes.get(str(recipient))) for recipient in envelope.recipients]


@implementer(IDeliveryAgent)
class RecordingAgent:
    """
    Delivers to a list.

    Attributes:
        delivered: (envelope, prefix + body, place) of each copy.
        outcomes: place -> the error of its outcome; such copies are not delivered.
        failure: raised by `deliver`, if set.
    """

    def __init__(self) -> None:
        self.delivered: list[tuple[Envelope, bytes, str]] = []
        self.outcomes: Refusals = {}
        self.failure: Exception | None = None

    async def deliver(
        self,
        envelope: Envelope,
        message: ISpooledMessage,
        prefix: bytes,
        targets: Sequence[Target],
    ) -> Sequence[Outcome]:
        if self.failure is not None:
            raise self.failure
        data = prefix + await message.read(0, message.size)
        for place in dict.fromkeys(target.place for target in targets):
            if place not in self.outcomes:
                self.delivered.append((envelope, data, place))
        return [Outcome(target.address, self.outcomes.get(target.place)) for target in targets]


# Logging in


@implementer(ICredentialsChecker)
class MemoryChecker:
    """
    Passwords in a dictionary, for PLAIN, LOGIN and SCRAM.

    Args:
        passwords: canonical account name -> password.

    Attributes:
        failure: raised for any credentials, if set.
    """

    credentialInterfaces = (IUsernamePassword, IScramCredentials)

    #: Far too few for passwords that anybody keeps.
    iterations = 4096

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self.passwords = dict(passwords)
        self.failure: Exception | None = None

    def requestAvatarId(self, credentials: ICredentials) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._verified(credentials))

    async def _verified(self, credentials: ICredentials) -> bytes | tuple[()]:
        if self.failure is not None:
            raise self.failure
        username: bytes = getattr(credentials, "username", b"")
        name = username.decode("utf-8", "replace").lower()
        password = self.passwords.get(name)
        if IScramCredentials.providedBy(credentials):
            ok = await credentials.exchange(self._record(name, password))
        else:
            ok = password is not None and getattr(credentials, "password", b"") == password.encode("utf-8")
        if not ok or password is None:
            raise LoginFailed()
        return name.encode("utf-8")

    def _record(self, name: str, password: str | None) -> ScramRecord:
        salt = name.encode("utf-8").ljust(16, b".")
        salted = sasl.salted_password((password or "").encode("utf-8"), salt, self.iterations)
        record = sasl.record_of(salted, salt, self.iterations)
        if password is None:
            record = ScramRecord(salt, self.iterations, record.stored_key, record.server_key, known=False)
        return record


@implementer(ICredentialsChecker)
class AnonymousChecker:
    """Lets peers without credentials in, as on port 25."""

    credentialInterfaces = (IAnonymous,)

    def requestAvatarId(self, credentials: ICredentials) -> Deferred[bytes | tuple[()]]:
        return succeed(())


def portal_for(
    passwords: Mapping[str, str],
    store: IMailStore,
    receivers: Callable[[Peer, str | None], IMailReceiver] | None = None,
) -> Portal:
    """
    A portal over the server's own realm.

    Args:
        passwords: canonical account name -> password; the accounts must be in `store`
            by the time somebody logs in.
        receivers: see `MailRealm`; by default one `RecordingReceiver` serves everybody.
            Anonymous peers are admitted.
    """
    everybody = RecordingReceiver()
    realm = MailRealm(store, receivers or (lambda peer, account: everybody))
    return Portal(realm, [MemoryChecker(passwords), AnonymousChecker()])


def server_tls() -> Any:
    """A context factory for a server that calls itself localhost, with a certificate made just now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    options: Any = CertificateOptions  # whose types lag behind what pyOpenSSL takes
    return options(privateKey=key, certificate=certificate)


# The reactor


class InstantPool:
    """A thread pool without threads: work is done when it is handed in."""

    def callInThread(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)

    def callInThreadWithCallback(
        self,
        onResult: Callable[[bool, Any], object] | None,
        function: Callable[..., object],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException:
            failure: Any = Failure
            if onResult is not None:
                onResult(False, failure())
        else:
            if onResult is not None:
                onResult(True, result)

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""


@implementer(IReactorThreads, IReactorFromThreads)
class InstantReactor(Clock):
    """
    A `Clock` whose threads have done their work before they are asked.

    What is called "from a thread" is called at once, so a part that works in threads
    runs step by step in a synchronous test.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pool = InstantPool()

    def getThreadPool(self) -> Any:
        return self._pool

    def callInThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        callable(*args, **kwargs)

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        callable(*args, **kwargs)

    def suggestThreadPoolSize(self, size: int) -> None:
        """There are no threads."""
