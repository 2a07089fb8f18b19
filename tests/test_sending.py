"""What a connection sends at once and what it leaves to the transport, over real sockets."""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailplat.connection import FEW, GATHER, MailFactory
from mailplat.wire import Need, PeerGone

#: More than the kernel keeps for one connection.
BLOCKS = 1000


class NoEngine:
    buffered, most_buffered = 0, 1

    def receive(self, data):
        pass

    def next_event(self):
        return Need.DATA


#: Enough not to be held back.
GREETING = b"220 " + b"x" * FEW + b"\r\n"


class Flood:
    """Writes numbered blocks as fast as the peer takes them, and a last word."""

    engine = NoEngine()

    def __init__(self, wire, factory):
        self.wire, self.factory = wire, factory

    async def run(self):
        factory = self.factory
        try:
            for number in range(BLOCKS):
                block = b"%08d" % number * (GATHER // 8)
                # In one piece, in some, and in more than one system call takes.
                size = (GATHER, GATHER // 3 + 1, 100)[number % 3]
                for start in range(0, GATHER, size):
                    self.wire.write(block[start : start + size])
                factory.most = max(factory.most, self.wire.transport._tempDataLen)
                if self.wire._choked and not factory.full.called:
                    factory.full.callback(None)
                await self.wire.drained()
            self.wire.write(b"end")
        except PeerGone:
            factory.gone_early.callback(None)


class FloodFactory(MailFactory):
    most = 0

    def session(self, wire):
        return Flood(wire, self)


class SendingTests(TestCase):
    def connect(self):
        factory = FloodFactory("smtp", reactor)
        factory.full, factory.gone_early = Deferred(), Deferred()
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(lambda: factory.stop(0))
        self.addCleanup(port.stopListening)
        return factory, socket.create_connection(("127.0.0.1", port.getHost().port), 30)

    async def test_a_peer_that_does_not_read_for_a_while_gets_all_in_order(self):
        factory, peer = self.connect()
        with peer:
            await factory.full

            def read():
                pieces = []
                while piece := peer.recv(1 << 20):
                    pieces.append(piece)
                return b"".join(pieces)

            got = await deferToThread(read)
        expected = b"".join(b"%08d" % number * (GATHER // 8) for number in range(BLOCKS)) + b"end"
        self.assertTrue(got == expected, f"{len(got)} octets of {len(expected)}")
        # Of all that, what the kernel did not take was never more than one block.
        self.assertLessEqual(factory.most, GATHER)

    async def test_a_peer_that_goes_while_we_wait_for_it(self):
        factory, peer = self.connect()
        await factory.full
        peer.close()
        await factory.gone_early

    async def test_a_reply_is_with_the_peer_before_the_reactor_turns(self):
        factory, sent = MailFactory("smtp", reactor), Deferred()

        class Greeting:
            engine = NoEngine()

            def __init__(self, wire):
                self.wire = wire

            async def run(self):
                self.wire.write(GREETING)
                await self.wire.drained()
                # Nothing waits in the transport.
                sent.callback(self.wire.transport._tempDataLen)
                await Deferred()

        factory.session = Greeting
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(lambda: factory.stop(0))
        self.addCleanup(port.stopListening)
        received = Deferred()

        class Client(Protocol):
            def dataReceived(self, data):
                received.callback(data)
                self.transport.loseConnection()

        client = ClientFactory.forProtocol(Client)
        client.noisy = False
        reactor.connectTCP("127.0.0.1", port.getHost().port, client)
        self.assertEqual(await sent, 0)
        self.assertTrue(GREETING.startswith(await received))
