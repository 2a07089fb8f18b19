"""The relay with servers that others wrote, over real sockets and names looked up by the real resolver."""

from __future__ import annotations

import importlib.util
import socket
import unittest
from random import Random

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client
from twisted.internet.threads import deferToThread
from twisted.names import dns
from twisted.trial.unittest import TestCase

from mailplat.delivery.exchangers import Exchangers
from mailplat.delivery.relay import Relay, RelayLimits
from mailplat.delivery.tls_policy import ConfiguredTLS
from mailplat.dns import DNSResolver
from mailplat.errors import HostUnreachable, PermanentError, TemporaryError
from mailplat.testing.fakes import MemoryMessage, outline_of
from mailplat.testing.scripted import ScriptedServer
from mailplat.trust import Trust
from mailplat.values import RELAY, Envelope, Target
from tests.delivery.house import BODY, address
from tests.interop.house import free_ports
from tests.interop.remote import Sink, found
from tests.name_server import NameServer


class Peers(TestCase):
    timeout = 60

    def setUp(self):
        self.names = NameServer().start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.names.stop()))
        self.names.add("mx.b.test", dns.Record_A("127.0.0.1"))
        self.resolver = DNSResolver(reactor, [self.names.address], hosts="", families=["ipv4"])
        self.addCleanup(self.resolver.close)
        self.make()

    def make(self, **limits):
        self.relay = Relay(
            reactor,
            Exchangers(self.resolver, Random(1), private=["127.0.0.0/8"]),
            hostname="relay.test",
            policy=ConfiguredTLS(),
            trust=Trust(),
            limits=RelayLimits(**limits),
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(self.close(self.relay)))

    async def close(self, relay):
        await relay.stop()
        # The last that is heard of a connection comes a few turns of the reactor later.
        while any(isinstance(reader, Client) for reader in reactor.getReaders()):
            await deferLater(reactor, 0)

    async def send(self, port, *recipients, body=BODY, place="smtp:mx.b.test"):
        recipients = [address(recipient) for recipient in recipients or ["b@b.test"]]
        targets = [Target(RELAY, f"{place}:{port}", recipient) for recipient in recipients]
        message = MemoryMessage(body, outline_of(body))
        envelope = Envelope(address("a@a.test"), tuple(recipients))
        return await self.relay.deliver(envelope, message, b"Received: by relay.test\r\n", targets)

    async def fails(self, error, port, **settings):
        try:
            outcomes = await self.send(port, **settings)
        except error as raised:
            return raised
        self.fail(f"{error.__name__} expected, not {outcomes}")


@unittest.skipUnless(found("smtp-sink"), "smtp-sink (Debian: postfix) is not installed")
class SinkTests(Peers):
    def sink(self, *options):
        sink = Sink(*options)
        self.addCleanup(sink.stop)
        return sink

    async def test_many(self):
        """All of them arrive once, whatever the number of connections."""
        sink = self.sink()
        self.make(per_hop=4, messages=10)
        bodies = [b"Subject: %d\r\n\r\nHello\r\n" % number for number in range(100)]
        sending = [Deferred.fromCoroutine(self.send(sink.port, body=body)) for body in bodies]
        for outcomes in await gatherResults(sending):
            self.assertIsNone(outcomes[0].error)
        self.relay.stop()
        kept = await deferToThread(sink.messages)
        subjects = sorted(int(body.split(b"Subject: ")[1].split(b"\n")[0]) for body in kept)
        self.assertEqual(subjects, list(range(100)))

    async def test_what_it_says(self):
        for option, command, error in (
            ("-r", "RCPT", TemporaryError), ("-f", "RCPT", PermanentError), ("-r", "MAIL", TemporaryError),
            ("-f", "DATA", PermanentError), ("-r", ".", TemporaryError), ("-f", ".", PermanentError),
            ("-q", "RCPT", TemporaryError), ("-q", ".", TemporaryError), ("-Q", ".", TemporaryError),
        ):  # fmt: skip
            (outcome,) = await self.send(self.sink(option, command).port)
            self.assertIsInstance(outcome.error, error, (option, command))
            self.assertEqual(outcome.host, "mx.b.test")

    async def test_it_will_not_have_us(self):
        for option, command, error in (
            ("-q", "CONNECT", HostUnreachable), ("-Q", "EHLO", HostUnreachable), ("-q", "MAIL", HostUnreachable),
        ):  # fmt: skip
            await self.fails(error, self.sink(option, command).port)


@unittest.skipUnless(importlib.util.find_spec("aiosmtpd"), "aiosmtpd is not installed")
class AiosmtpdTests(Peers):
    async def test_a_message(self):
        from aiosmtpd.controller import Controller

        class Handler:
            kept = []

            async def handle_RCPT(self, server, session, envelope, recipient, options):
                if recipient.startswith("nobody"):
                    return "550 5.1.1 Nobody here"
                envelope.rcpt_tos.append(recipient)
                return "250 OK"

            async def handle_DATA(self, server, session, envelope):
                self.kept.append((envelope.mail_from, list(envelope.rcpt_tos), envelope.content))
                return "250 Kept"

        handler = Handler()
        [port] = free_ports(1)
        controller = Controller(handler, hostname="127.0.0.1", port=port)
        await deferToThread(controller.start)
        self.addCleanup(deferToThread, controller.stop)
        outcomes = await self.send(port, "b@b.test", "nobody@b.test", "c@b.test")
        self.assertEqual(
            [type(outcome.error) for outcome in outcomes], [type(None), PermanentError, type(None)]
        )
        ((sender, recipients, content),) = handler.kept
        self.assertEqual((sender, recipients), ("a@a.test", ["b@b.test", "c@b.test"]))
        self.assertTrue(content.endswith(BODY), content)


class OurOwn(Peers):
    def listen(self, factory, interface="127.0.0.1", port=0):
        listening = reactor.listenTCP(port, factory, interface=interface)
        self.addCleanup(listening.stopListening)
        return listening.getHost().port

    async def test_the_next_address(self):
        """The first refuses connections."""
        # A port that is bound and not listened on refuses, and nobody else can take it meanwhile.
        refusing = socket.socket()
        self.addCleanup(refusing.close)
        refusing.bind(("127.0.0.1", 0))
        server = ScriptedServer()
        port = self.listen(server, "127.0.0.2", refusing.getsockname()[1])
        self.names.add("mx.b.test", dns.Record_A("127.0.0.2"))
        (outcome,) = await self.send(port)
        self.assertIsNone(outcome.error)
        self.assertEqual(len(server.received), 1)

    async def test_nobody(self):
        port = self.listen(Factory())
        self.names.records["mx.b.test", dns.A] = [dns.Record_A("127.0.0.3")]
        error = await self.fails(HostUnreachable, port)
        self.assertIn("mx.b.test[127.0.0.3]", error.text)
