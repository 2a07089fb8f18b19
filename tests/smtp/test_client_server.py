"""Our client against our server, over a connection in memory: what is sent is what arrives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError, DNSLookupError, TimeoutError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailplat.errors import (
    ConfigurationError,
    HostUnreachable,
    InvalidMessage,
    MessageTooLarge,
    NoSuchRecipient,
    PermanentError,
    StorageFull,
    TemporaryError,
    TLSFailed,
    TooBusy,
)
from mailplat.smtp.client import ClientLimits, ClientSettings, Extensions, Login, SMTPClient, connect
from mailplat.smtp.engine import Limits, SMTPEngine
from mailplat.smtp.server import SMTPFactory
from mailplat.testing.fakes import (
    AnonymousChecker,
    InstantReactor,
    MemoryChecker,
    MemoryMessage,
    MemorySpool,
    outline_of,
    server_tls,
)
from mailplat.testing.transport import Pipe
from mailplat.trust import Trust
from mailplat.values import Address, Envelope, Outcome, TLSRequirement
from tests.smtp.support import Realm, Receiver

ALICE, BOB, CAROL = (Address(name, "example.test") for name in ("alice", "bob", "carol"))
SENDER = Address("sender", "elsewhere.test")
MESSAGE = b"Subject: test\r\n\r\nHello\r\n"


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """Connects to a factory in memory."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        network = self.network
        here, there = IPv4Address("TCP", "127.0.0.1", 40000), IPv4Address("TCP", network.host, 25)
        client, server = protocolFactory.buildProtocol(there), network.factory.buildProtocol(here)
        network.pipes.append(Pipe(client, server, here, there, network.clock))
        return succeed(client)


class Network:
    """
    A server, and a client that can reach it.

    Attributes:
        receiver: what the server was given.
        factory: the server.
    """

    tls: Any = None

    def __init__(
        self,
        service: str = "smtp",
        *,
        host: str = "127.0.0.1",
        tls: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.clock = InstantReactor()
        self.host = host
        self.pipes: list[Pipe] = []
        self.receiver = Receiver()
        if tls and Network.tls is None:
            Network.tls = server_tls()
        checkers = [MemoryChecker({"alice@example.test": "secret"})]
        if service != "submission":
            checkers.append(AnonymousChecker())
        self.factory = SMTPFactory(
            Portal(Realm(self.receiver), checkers),
            MemorySpool(outline=lambda body: b""),
            self.clock,
            hostname="mx.example.test",
            service=service,
            tls=Network.tls if tls else None,
            plaintext_login="always",
            limits=limits,
        )

    def pump(self) -> None:
        for _ in range(1_000_000):
            self.clock.advance(0)
            moved = [pipe.pump() for pipe in self.pipes]
            due = any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls())
            if not due and not any(moved):
                return
        raise AssertionError("the network does not come to rest")

    def result(self, coroutine: Any) -> Any:
        """What a coroutine or Deferred comes to without time passing."""
        deferred = coroutine if isinstance(coroutine, Deferred) else Deferred.fromCoroutine(coroutine)
        found: list[Any] = []
        deferred.addBoth(found.append)
        self.pump()
        assert found, "nothing came of it"
        if hasattr(found[0], "raiseException"):
            found[0].raiseException()
        return found[0]

    def connect(self, **settings: Any) -> SMTPClient:
        lmtp = self.factory.service == "lmtp"
        made = ClientSettings("client.example.test", lmtp=lmtp, **settings)
        client: SMTPClient = self.result(
            connect(MemoryEndpoint(self), "mx.example.test", made, self.clock, Trust())
        )
        return client

    def send(
        self,
        client: SMTPClient,
        body: bytes,
        *recipients: Address,
        hidden: bool = False,
        prefix: bytes = b"",
        **envelope: Any,
    ) -> list[Outcome]:
        to = recipients or (ALICE,)
        message = MemoryMessage(body, outline_of(body), hidden)
        made = Envelope(envelope.pop("sender", SENDER), to, **envelope)
        return list(self.result(client.send(made, message, prefix, to)))


class Delivery(SynchronousTestCase):
    def test_a_message(self) -> None:
        network = Network()
        client = network.connect()
        [outcome] = network.send(client, MESSAGE, prefix=b"Received: x\r\n")
        self.assertIsNone(outcome.error)
        self.assertEqual(outcome.host, "mx.example.test")
        self.assertEqual(outcome.reply, "250 2.0.0 Message accepted")
        self.assertTrue(outcome.relayed)
        self.assertFalse(outcome.passed_on)
        [(envelope, body)] = network.receiver.received
        self.assertEqual(body, b"Received: x\r\n" + MESSAGE)
        self.assertEqual((envelope.sender, envelope.recipients), (SENDER, (ALICE,)))
        self.assertTrue(client.usable)
        network.result(client.quit())
        self.assertFalse(client.usable)
        self.assertTrue(network.pipes[0].lost)

    def test_bytes_are_kept(self) -> None:
        """Dots, 8-bit, no line end, nothing at all; with BDAT and with DATA, in one piece and in many."""
        bodies = (
            b"",
            b".",
            b"..\r\n.\r\n\r\n.x\r\n",
            "Subject: x\r\n\r\nGrüße\r\n".encode(),
            b"Subject: x\r\n\r\n" + bytes(octet for octet in range(256) if octet not in (10, 13)) + b"\r\n",
            b"no end",
        )
        for chunking in (True, False):
            for chunk in (7, 131072):
                network = Network()
                client = network.connect(limits=ClientLimits(chunk=chunk, chunks=2))
                if not chunking:
                    client._sending.extensions = replace(client.extensions, chunking=False)
                for body in bodies:
                    for hidden in (False, True):
                        [outcome] = network.send(client, body, hidden=hidden, prefix=b"Received: x\r\n.y\r\n")
                        self.assertIsNone(outcome.error)
                        expected = b"Received: x\r\n.y\r\n" + body
                        if not chunking and not expected.endswith(b"\r\n"):
                            expected += b"\r\n"
                        self.assertEqual(network.receiver.messages.pop(), expected)

    def test_ten_megabytes(self) -> None:
        line = b"." + b"0123456789" * 7 + b"\r\n"
        body = b"Subject: large\r\n\r\n" + line * (10_000_000 // len(line))
        for chunking in (True, False):
            network = Network()
            client = network.connect()
            if not chunking:
                client._sending.extensions = replace(client.extensions, chunking=False)
            [outcome] = network.send(client, body, hidden=True)
            self.assertIsNone(outcome.error)
            self.assertEqual(network.receiver.messages, [body])

    def test_many_recipients(self) -> None:
        network = Network(limits=Limits(recipients=300))
        recipients = tuple(Address(f"user{number}", "example.test") for number in range(1000))
        network.receiver.refused_recipients["user7@example.test"] = NoSuchRecipient("none")
        outcomes = network.send(network.connect(), MESSAGE, *recipients)
        self.assertEqual([outcome.recipient for outcome in outcomes], list(recipients))
        refused = [str(outcome.recipient) for outcome in outcomes if outcome.error is not None]
        self.assertEqual(refused, ["user7@example.test"])
        delivered = [each for envelope, _ in network.receiver.received for each in envelope.recipients]
        self.assertEqual(
            sorted(map(str, delivered)), sorted(set(map(str, recipients)) - {"user7@example.test"})
        )
        self.assertEqual(len(network.receiver.received), 4)

    def test_what_the_server_says(self) -> None:
        network = Network()
        receiver = network.receiver
        client = network.connect()
        receiver.refused_recipients["bob@example.test"] = TooBusy("later")
        outcomes = network.send(client, MESSAGE, ALICE, BOB, CAROL)
        self.assertEqual([type(each.error) for each in outcomes], [type(None), TemporaryError, type(None)])
        self.assertEqual(outcomes[1].reply, "451 4.3.2 later")
        receiver.refused_senders["sender@elsewhere.test"] = PermanentError("no")
        [outcome] = network.send(client, MESSAGE)
        self.assertEqual((type(outcome.error), outcome.reply), (PermanentError, "554 5.0.0 no"))
        receiver.refused_senders.clear()
        receiver.failure = PermanentError("bad")
        [outcome] = network.send(client, MESSAGE)
        self.assertEqual((type(outcome.error), outcome.reply), (PermanentError, "554 5.0.0 bad"))
        receiver.failure = None
        self.assertIsNone(network.send(client, MESSAGE)[0].error)

    def test_too_large(self) -> None:
        network = Network(limits=Limits(message=1000))
        client = network.connect()
        [outcome] = network.send(client, b"x" * 1001)
        self.assertIsInstance(outcome.error, MessageTooLarge)
        self.assertEqual(network.receiver.senders, [])

    def test_a_lone_line_break_is_never_sent(self) -> None:
        """A message that another host may read as two (SMTP smuggling) goes nowhere."""
        for body in (b"a\nb\r\n", b"a\r.\r\n", b"a\n.\r\nMAIL FROM:<x@y.test>\r\n", b"x\r"):
            for hidden in (False, True):
                network = Network()
                client = network.connect()
                [outcome] = network.send(client, body, hidden=hidden)
                self.assertIsInstance(outcome.error, InvalidMessage)
                self.assertEqual(network.receiver.received, [])

    def test_a_message_that_cannot_be_read(self) -> None:
        network = Network()
        client = network.connect()

        class Unreadable(MemoryMessage):
            async def read(self, start: int, length: int) -> bytes:
                raise StorageFull("gone")

        sending = client.send(Envelope(SENDER, (ALICE,)), Unreadable(MESSAGE, hidden=True), b"", (ALICE,))
        self.assertRaises(StorageFull, network.result, sending)
        self.assertFalse(client.usable)
        self.assertTrue(network.pipes[0].lost)
        self.assertEqual(network.receiver.received, [])

    def test_several_messages_handed_in_at_once(self) -> None:
        network = Network()
        client = network.connect()
        sending = [
            client.send(Envelope(SENDER, (ALICE,)), MemoryMessage(b"%d\r\n" % number), b"", (ALICE,))
            for number in range(5)
        ]
        quitting = client.quit()
        late = client.send(Envelope(SENDER, (ALICE,)), MemoryMessage(b"late\r\n"), b"", (ALICE,))
        self.failureResultOf(late, HostUnreachable)
        network.result(quitting)
        for deferred in sending:
            self.assertIsNone(self.successResultOf(deferred)[0].error)
        self.assertEqual(network.receiver.messages, [b"%d\r\n" % number for number in range(5)])

    def test_abort(self) -> None:
        network = Network()
        client = network.connect()
        network.receiver.before_message = Deferred()
        sending = client.send(Envelope(SENDER, (ALICE,)), MemoryMessage(MESSAGE), b"", (ALICE,))
        network.pump()
        client.abort()
        [outcome] = network.result(sending)
        self.assertIsInstance(outcome.error, TemporaryError)
        self.assertFalse(client.usable)
        self.successResultOf(client.closed)


class LMTP(SynchronousTestCase):
    def test_outcome_per_recipient(self) -> None:
        network = Network("lmtp")
        client = network.connect()
        network.receiver.refused_recipients["bob@example.test"] = NoSuchRecipient("none")
        network.receiver.outcomes["carol@example.test"] = TooBusy("later")
        outcomes = network.send(client, MESSAGE, ALICE, BOB, CAROL)
        self.assertEqual(
            [type(each.error) for each in outcomes], [type(None), PermanentError, TemporaryError]
        )
        self.assertFalse(outcomes[0].relayed)

    def test_large(self) -> None:
        network = Network("lmtp")
        client = network.connect(limits=ClientLimits(chunk=1000))
        body = b"x" * 998 + b"\r\n"
        outcomes = network.send(client, body * 50, ALICE, BOB)
        self.assertEqual([each.error for each in outcomes], [None, None])
        self.assertEqual(network.receiver.messages, [body * 50])


class TLS(SynchronousTestCase):
    def trust(self, network: Network) -> Trust:
        """One that trusts the server's own certificate."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(network.factory.tls.certificate.public_bytes(Encoding.PEM))
        return Trust(path)

    def dial(self, network: Network, host: str, trust: Trust, **settings: Any) -> Any:
        made = ClientSettings("client.example.test", **settings)
        return network.result(connect(MemoryEndpoint(network), host, made, network.clock, trust))

    def test_verified(self) -> None:
        network = Network(tls=True)
        client = self.dial(network, "localhost", self.trust(network), requirement=TLSRequirement("verify"))
        self.assertEqual(client.tls.version, "TLSv1.3")
        self.assertIsNone(network.send(client, MESSAGE)[0].error)

    def test_another_name(self) -> None:
        network = Network(tls=True)
        trust = self.trust(network)
        verify = TLSRequirement("verify")
        self.assertRaises(TLSFailed, self.dial, network, "mx.example.test", trust, requirement=verify)
        self.assertRaises(TLSFailed, self.dial, network, "127.0.0.1", trust, requirement=verify)
        # The names that count need not be the host's.
        names = TLSRequirement("verify", ("other.test", "localhost"))
        self.assertIsNotNone(self.dial(network, "mx.example.test", trust, requirement=names).tls)
        names = TLSRequirement("verify", ("other.test",))
        self.assertRaises(TLSFailed, self.dial, network, "localhost", trust, requirement=names)

    def test_not_trusted(self) -> None:
        network = Network(tls=True)
        self.assertRaises(
            TLSFailed, self.dial, network, "localhost", Trust(), requirement=TLSRequirement("verify")
        )
        for level in ("may", "encrypt"):
            client = self.dial(network, "localhost", Trust(), requirement=TLSRequirement(level))
            self.assertIsNotNone(client.tls)

    def test_the_certificates_cannot_be_read(self) -> None:
        self.assertRaises(ConfigurationError, Trust, "/nonexistent.pem")

    def test_large_over_tls(self) -> None:
        network = Network(tls=True)
        client = network.connect()
        body = b"0123456789\r\n" * 100_000
        [outcome] = network.send(client, body, hidden=True)
        self.assertIsNone(outcome.error)
        self.assertEqual(network.receiver.messages, [body])


class LoggingIn(SynchronousTestCase):
    def connect(self, network: Network, password: str = "secret", mechanism: str = "") -> SMTPClient:
        original = Extensions.parse

        def parse(lines: Any) -> Extensions:
            offered = original(lines)
            return replace(offered, mechanisms=(mechanism,)) if mechanism else offered

        self.patch(Extensions, "parse", parse)
        return network.connect(login=Login("alice@example.test", password))

    def test_each_mechanism(self) -> None:
        for tls, mechanism in (
            (True, "SCRAM-SHA-256-PLUS"),
            (False, "SCRAM-SHA-256"),
            (False, "PLAIN"),
            (False, "LOGIN"),
            (True, ""),
            (False, ""),
        ):
            network = Network("submission", tls=tls)
            client = self.connect(network, mechanism=mechanism)
            self.assertIsNone(network.send(client, MESSAGE)[0].error)
            self.assertRaises(HostUnreachable, self.connect, network, "wrong", mechanism)

    def test_a_hidden_offer_of_channel_binding_is_noticed(self) -> None:
        """Somebody took SCRAM-SHA-256-PLUS out of what the server offers."""
        network = Network("submission", tls=True)
        self.assertRaises(HostUnreachable, self.connect, network, mechanism="SCRAM-SHA-256")

    def test_too_much_work(self) -> None:
        network = Network("submission")
        self.assertRaises(
            HostUnreachable,
            network.connect,
            login=Login("alice@example.test", "secret"),
            limits=ClientLimits(iterations=4095),
        )
        self.assertIsNotNone(
            network.connect(login=Login("alice@example.test", "secret"), limits=ClientLimits(iterations=4096))
        )

    def test_secrets_are_not_shown(self) -> None:
        settings = ClientSettings("client.example.test", login=Login("alice", "geheim"))
        self.assertNotIn("geheim", repr(settings))


class Silent:
    """A server's session that says nothing."""

    engine = SMTPEngine(Limits())

    async def run(self) -> None:
        await Deferred()


class Dialling(SynchronousTestCase):
    def failure(self, result: Deferred[Any] | Exception, advance: float = 0) -> Any:
        clock = InstantReactor()

        @implementer(IStreamClientEndpoint)
        class Endpoint:
            def connect(self, protocolFactory: Any) -> Deferred[Any]:
                return fail(result) if isinstance(result, Exception) else result

        connecting = connect(Endpoint(), "mx.test", ClientSettings("client.test"), clock, Trust())
        deferred = Deferred.fromCoroutine(connecting)
        clock.advance(advance)
        return self.failureResultOf(deferred).value

    def test_refused(self) -> None:
        for error in (ConnectionRefusedError(), DNSLookupError(), TimeoutError(), OSError("no route")):
            self.assertIsInstance(self.failure(error), HostUnreachable)

    def test_too_slow(self) -> None:
        cancelled: list[object] = []
        self.assertIsInstance(self.failure(Deferred(cancelled.append), 30), HostUnreachable)
        self.assertEqual(len(cancelled), 1)

    def test_given_up(self) -> None:
        """Whoever waits may stop waiting, and no connection is left behind."""
        network = Network()
        network.factory.session = lambda wire: Silent()
        settings = ClientSettings("client.test")
        endpoint = MemoryEndpoint(network)
        connecting = Deferred.fromCoroutine(connect(endpoint, "mx.test", settings, network.clock, Trust()))
        network.pump()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        network.pump()
        self.assertTrue(network.pipes[0].lost)

    def test_implicit_tls_with_a_host_that_speaks_none(self) -> None:
        network = Network()
        self.assertRaises(TLSFailed, network.connect, implicit_tls=True)
