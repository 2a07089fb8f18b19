"""Our client against our server, over a connection in memory: what is sent is what arrives."""

from __future__ import annotations

from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailplat.smtp.client import ClientSettings, SMTPClient, connect
from mailplat.smtp.engine import Limits
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
from mailplat.values import Address, Envelope, Outcome
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
