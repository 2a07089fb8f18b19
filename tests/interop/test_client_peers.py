"""Our SMTP and LMTP client with servers that others wrote: aiosmtpd, Postfix, Dovecot, twisted.mail."""

from __future__ import annotations

import importlib.util
import os
import unittest
from io import BytesIO
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.mail import smtp
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailplat.errors import HostUnreachable, PermanentError, TemporaryError
from mailplat.smtp.client import ClientSettings, Login, SMTPClient, connect
from mailplat.testing.fakes import MemoryMessage, outline_of
from mailplat.trust import Trust
from mailplat.values import Address, Envelope, Outcome, ReportRequest, TLSRequirement
from tests.interop.house import MESSAGES
from tests.interop.remote import Dovecot, Postfix, Remote, Sink, found

ALICE, BOB, NOBODY = (Address(name, "b.test") for name in ("alice", "bob", "nobody"))
SENDER = Address("sender", "a.test")


def as_file(message: bytes) -> bytes:
    """As programs keep it that have lines end in LF."""
    return message.replace(b"\r\n", b"\n")


class Peers(TestCase):
    timeout = 60

    async def connect(self, port: int, host: str = "peer.test", **settings: Any) -> SMTPClient:
        made = ClientSettings("client.test", **settings)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        client = await connect(endpoint, host, made, reactor, Trust())
        self.addCleanup(client.quit)
        return client

    def start(self, remote: Remote) -> Any:
        self.addCleanup(remote.stop)
        return remote

    async def send(
        self, client: SMTPClient, message: bytes, *recipients: Address, **envelope: Any
    ) -> list[Outcome]:
        to = recipients or (ALICE,)
        made = Envelope(envelope.pop("sender", SENDER), to, **envelope)
        spooled = MemoryMessage(message, outline_of(message))
        return list(await client.send(made, spooled, b"X-Prefix: yes\r\n", to))

    def all_there(self, bodies: list[bytes], endings: list[bytes]) -> None:
        """Each of `endings` is how one of the messages ends, in whatever order they were kept."""
        left = list(bodies)
        for ending in sorted(endings, key=len, reverse=True):
            fitting = [body for body in left if body.rstrip(b"\n").endswith(ending.rstrip(b"\n"))]
            self.assertTrue(fitting, f"{ending!r} is not in {left}")
            left.remove(fitting[0])
        self.assertEqual(left, [])

    def all_well(self, outcomes: list[Outcome]) -> None:
        self.assertEqual([outcome.error for outcome in outcomes], [None] * len(outcomes))


@unittest.skipUnless(found("smtp-sink"), "smtp-sink (Debian: postfix) is not installed")
class SinkTests(Peers):
    async def test_messages(self) -> None:
        for options in ((), ("-p",), ("-e",), ("-8",)):
            sink = self.start(Sink(*options))
            client = await self.connect(sink.port)
            # -p: no PIPELINING, -e: no ESMTP, -8: no 8BITMIME
            self.assertEqual(client.extensions.pipelining, options in ((), ("-8",)))
            for message in MESSAGES.values():
                self.all_well(await self.send(client, message, ALICE, BOB))
            await client.quit()
            kept = sink.messages()
            for body in kept:
                self.assertIn(b"X-Rcpt-Args: <bob@b.test>", body)
            whole = [as_file(b"X-Prefix: yes\r\n" + message) for message in MESSAGES.values()]
            if not client.extensions.eight_bit:
                whole = [body if body.isascii() else b"=C3=B6d=C3=A9.\n" for body in whole]
            self.all_there(kept, whole)

    async def test_lmtp(self) -> None:
        sink = self.start(Sink("-L"))
        client = await self.connect(sink.port, lmtp=True)
        outcomes = await self.send(client, MESSAGES["plain"], ALICE, BOB)
        self.all_well(outcomes)
        self.assertFalse(outcomes[0].relayed)

    async def test_refusals(self) -> None:
        """Each command refused for now, and for good."""
        for option, error in (("-r", TemporaryError), ("-f", PermanentError)):
            for command in ("MAIL", "RCPT", "DATA", "."):
                sink = self.start(Sink(option, command))
                client = await self.connect(sink.port)
                for _ in range(2):
                    for outcome in await self.send(client, MESSAGES["plain"], ALICE, BOB):
                        self.assertIsInstance(outcome.error, error, command)
                self.assertTrue(client.usable)

    async def test_disconnects(self) -> None:
        for command in ("RCPT", "DATA", "."):
            sink = self.start(Sink("-q", command))
            client = await self.connect(sink.port)
            try:
                outcomes = await self.send(client, MESSAGES["plain"], ALICE, BOB)
            except HostUnreachable:
                # The replies were lost with the connection: it can be tried at once.
                self.assertEqual(command, "RCPT")
            else:
                for outcome in outcomes:
                    self.assertIsInstance(outcome.error, TemporaryError, command)
            self.assertFalse(client.usable)


@unittest.skipUnless(
    found("postfix") and os.geteuid() == 0, "postfix is not installed, or this is not root, whom it needs"
)
class PostfixTests(Peers):
    async def test_messages(self) -> None:
        postfix = self.start(Postfix())
        client = await self.connect(postfix.port)
        extensions = client.extensions
        self.assertTrue(
            extensions.pipelining and extensions.chunking and extensions.dsn and extensions.utf8, extensions
        )
        for message in MESSAGES.values():
            [alice, nobody] = await self.send(client, message, ALICE, NOBODY)
            self.assertIsNone(alice.error)
            self.assertTrue(alice.passed_on)
            self.assertIsInstance(nobody.error, PermanentError)
            self.assertIn("550 5.1.1", nobody.reply)
        large = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 200_000
        self.all_well(await self.send(client, large, BOB))
        kept = await deferToThread(postfix.messages, "alice", len(MESSAGES))
        # Where a header is not complete, Postfix puts lines of its own before the body.
        self.all_there(kept, [as_file(message.partition(b"\r\n\r\n")[2]) for message in MESSAGES.values()])
        [body] = await deferToThread(postfix.messages, "bob", 1)
        self.assertTrue(body.endswith(as_file(large.partition(b"\r\n\r\n")[2])))

    async def test_without_chunking(self) -> None:
        postfix = self.start(
            Postfix("smtpd_discard_ehlo_keywords = chunking, dsn, 8bitmime, smtputf8", "message_size_limit = 100000")
        )
        client = await self.connect(postfix.port)
        self.assertFalse(client.extensions.chunking)
        names = ("plain", "dots", "multipart", "long line")
        for name in names:
            [outcome] = await self.send(client, MESSAGES[name])
            self.assertTrue(outcome.relayed)
        [outcome] = await self.send(client, MESSAGES["8bit"])
        self.assertIsNone(outcome.error)
        [outcome] = await self.send(client, b"x" * 998 + b"\r\n" * 100_000)
        self.assertIsInstance(outcome.error, PermanentError)
        kept = await deferToThread(postfix.messages, "alice", len(names) + 1)
        bodies = [as_file(MESSAGES[name].partition(b"\r\n\r\n")[2]) for name in names]
        self.all_there(kept, [*bodies, b"Gr=C3=BC=C3=9Fe, =C3=9Cn=C3=AFc=C3=B6d=C3=A9.\n"])

    async def test_reports_and_utf8(self) -> None:
        postfix = self.start(Postfix())
        client = await self.connect(postfix.port)
        request = ReportRequest(frozenset(("SUCCESS", "FAILURE")), "utf-8;jürgen+x@a.test")
        self.all_well(
            await self.send(
                client, MESSAGES["plain"], returns="HDRS", envelope_id="id+1", requests={ALICE: request}
            )
        )
        [outcome] = await self.send(client, "Subject: Grüße\r\n\r\nhallo\r\n".encode(), utf8=True, body="8BITMIME",
                                    sender=Address("jürgen", "a.test"))  # fmt: skip
        self.assertIsNone(outcome.error)


@unittest.skipUnless(
    found("dovecot") and os.path.exists("/usr/lib/dovecot/lmtp") and os.geteuid() == 0,
    "Dovecot's LMTP server is not installed, or this is not root, who may give its mail to anybody",
)
class DovecotTests(Peers):
    async def test_messages(self) -> None:
        dovecot = self.start(Dovecot())
        client = await self.connect(dovecot.port, lmtp=True)
        for message in MESSAGES.values():
            [alice, nobody, bob] = await self.send(client, message, ALICE, NOBODY, BOB)
            self.assertEqual((alice.error, bob.error), (None, None))
            self.assertFalse(alice.relayed)
            self.assertIsInstance(nobody.error, PermanentError)
        for user in ("alice", "bob"):
            whole = [as_file(b"X-Prefix: yes\r\n" + message) for message in MESSAGES.values()]
            self.all_there(dovecot.messages(user), whole)
        large = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 200_000
        self.all_well(await self.send(client, large, ALICE, BOB))


@unittest.skipUnless(importlib.util.find_spec("aiosmtpd"), "aiosmtpd is not installed")
class AiosmtpdTests(Peers):
    def serve(self, **arguments: Any) -> Any:
        from aiosmtpd.controller import Controller

        from tests.interop.house import free_ports

        class Handler:
            def __init__(self) -> None:
                self.received: list[Any] = []

            async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
                if address.startswith("nobody"):
                    return "550 5.1.1 no such user"
                envelope.rcpt_tos.append(address)
                return "250 OK"

            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                self.received.append(envelope)
                return "250 2.0.0 kept"

        handler = Handler()
        [port] = free_ports(1)
        controller = Controller(handler, hostname="127.0.0.1", port=port, **arguments)
        controller.start()
        self.addCleanup(controller.stop)
        handler.port = port  # type: ignore[attr-defined]
        return handler

    async def test_messages(self) -> None:
        handler = self.serve(enable_SMTPUTF8=True)
        client = await self.connect(handler.port)
        for message in MESSAGES.values():
            [alice, nobody] = await self.send(client, message, ALICE, NOBODY)
            self.assertEqual((alice.error, alice.reply), (None, "250 2.0.0 kept"))
            self.assertEqual(nobody.reply, "550 5.1.1 no such user")
        self.all_well(await self.send(client, MESSAGES["plain"], Address("käthe", "b.test")))
        kept = [envelope.content for envelope in handler.received]
        expected = [*MESSAGES.values(), MESSAGES["plain"]]
        self.assertEqual(kept, [b"X-Prefix: yes\r\n" + message for message in expected])
        self.assertEqual(handler.received[-1].rcpt_tos, ["käthe@b.test"])

    async def test_login(self) -> None:
        from aiosmtpd.smtp import AuthResult

        def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
            return AuthResult(success=(data.login, data.password) == (b"alice", b"secret"), handled=False)

        handler = self.serve(authenticator=authenticate, auth_require_tls=False)
        for mechanism in ("PLAIN", "LOGIN"):
            client = await self.connect(handler.port, login=Login("alice", "secret"))
            self.assertIn(mechanism, client.extensions.mechanisms)
            self.all_well(await self.send(client, MESSAGES["plain"]))
        with self.assertRaises(HostUnreachable):
            await self.connect(handler.port, login=Login("alice", "wrong"))

    async def test_starttls(self) -> None:
        import ssl

        from mailplat.tls import self_signed

        directory = self.mktemp()
        os.mkdir(directory)
        path = self_signed(directory, "peer.test")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        handler = self.serve(tls_context=context, require_starttls=True)
        client = await self.connect(handler.port, requirement=TLSRequirement("encrypt"))
        self.all_well(await self.send(client, MESSAGES["plain"]))
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", handler.port)
        settings = ClientSettings("client.test", requirement=TLSRequirement("verify"))
        client = await connect(endpoint, "peer.test", settings, reactor, Trust(path))
        assert client.tls is not None
        self.all_well(await self.send(client, MESSAGES["8bit"]))
        await client.quit()
        with self.assertRaises(HostUnreachable):
            await connect(endpoint, "other.test", settings, reactor, Trust(path))


@implementer(smtp.IMessageDelivery)
class TwistedDelivery:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b""

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: Any) -> Any:
        if user.dest.local == b"nobody":
            raise smtp.SMTPBadRcpt(user)
        return lambda: TwistedMessage(self)


@implementer(smtp.IMessage)
class TwistedMessage:
    def __init__(self, delivery: TwistedDelivery) -> None:
        self.delivery = delivery
        self.file = BytesIO()

    def lineReceived(self, line: bytes) -> None:
        self.file.write(line + b"\r\n")

    def eomReceived(self) -> Deferred[None]:
        self.delivery.received.append(self.file.getvalue())
        return succeed(None)

    def connectionLost(self) -> None:
        """It was never complete."""


class TwistedServerTests(Peers):
    async def test_messages(self) -> None:
        delivery = TwistedDelivery()

        class Factory(smtp.SMTPFactory):
            protocol = smtp.ESMTP
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                made = super().buildProtocol(addr)
                made.delivery = delivery
                return made

        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        client = await self.connect(port.getHost().port)
        names = [name for name, message in MESSAGES.items() if message.isascii()]
        for name in names:
            [alice, nobody] = await self.send(client, MESSAGES[name], ALICE, NOBODY)
            self.assertIsNone(alice.error)
            self.assertIsInstance(nobody.error, PermanentError)
        # It puts a line between what it takes for a header and the rest.
        for name, body in zip(names, delivery.received, strict=True):
            self.assertIn(MESSAGES[name].partition(b"\r\n\r\n")[2], body)
        [alice] = await self.send(client, MESSAGES["8bit"])
        self.assertIsNone(alice.error)
        self.assertTrue(delivery.received[-1].isascii())
