"""The factory, on transports in memory and on a real socket."""

from __future__ import annotations

import os
import smtplib
import tempfile

from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.connection import ConnectionLimits
from mailplat.smtp.server import SMTPFactory
from mailplat.testing.fakes import AnonymousChecker, MemorySpool
from tests.smtp.support import Realm, Receiver


def factory(clock: object, receiver: Receiver | None = None, **settings: object) -> SMTPFactory:
    portal = Portal(Realm(receiver or Receiver()), [AnonymousChecker()])
    return SMTPFactory(portal, MemorySpool(lambda body: b""), clock, hostname="mx.example.test", **settings)


class Factories(SynchronousTestCase):
    def test_mistakes(self) -> None:
        for wrong in ({"service": "imap"}, {"plaintext_login": "sometimes"}):
            with self.assertRaises(ValueError):
                factory(Clock(), **wrong)
        for name in ("", "two words", "mx\r\n250", "mx.exämple.test"):
            with self.assertRaises(ValueError):
                SMTPFactory(Portal(Realm(Receiver())), MemorySpool(), Clock(), hostname=name)

    def test_too_many(self) -> None:
        full = factory(Clock(), connections=ConnectionLimits(most=1))
        heard = []
        for _ in range(2):
            protocol = full.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1000))
            transport = StringTransport()
            protocol.makeConnection(transport)
            heard.append(transport.value())
        self.assertEqual(heard[0], b"220 mx.example.test ESMTP\r\n")
        self.assertEqual(heard[1], b"421 4.3.2 mx.example.test Too many connections, try again later\r\n")
        self.assertTrue(transport.disconnecting)

    def test_replies_of_one_segment_are_one_write(self) -> None:
        writes: list[bytes] = []

        class Counting(StringTransport):
            def write(self, data: bytes) -> None:
                writes.append(data)
                super().write(data)

        protocol = factory(Clock()).buildProtocol(IPv4Address("TCP", "192.0.2.1", 1000))
        protocol.makeConnection(Counting())
        writes.clear()
        protocol.dataReceived(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
        self.assertEqual(len(writes), 1)
        writes.clear()
        protocol.dataReceived(b"text\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
        self.assertEqual(len(writes), 1)


class Sockets(TestCase):
    @inlineCallbacks
    def test_lmtp_over_a_unix_socket(self) -> None:
        receiver = Receiver()
        # The path of a socket has to be short, and smtplib wants it absolute.
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "lmtp")
        server = factory(reactor, receiver, service="lmtp")
        port = yield UNIXServerEndpoint(reactor, path).listen(server)

        def talk() -> dict[str, object]:
            with smtplib.LMTP(path, local_hostname="client.example.test") as client:
                return client.sendmail("a@example.test", ["b@example.test"], b"Subject: x\r\n\r\n.x\r\n")

        try:
            self.assertEqual((yield deferToThread(talk)), {})
        finally:
            yield port.stopListening()
            yield server.stop(5)
        self.assertEqual(receiver.messages, [b"Subject: x\r\n\r\n.x\r\n"])

    def test_ehlo_from_a_unix_socket(self) -> None:
        protocol = factory(Clock()).buildProtocol(UNIXAddress(None))
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(b"EHLO a\r\n")
        self.assertIn(b"250-PIPELINING\r\n", transport.value())
