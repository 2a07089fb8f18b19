"""The network in memory: its clock, its hosts, its names, and servers that misbehave."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import (
    CannotListenError,
    ConnectionDone,
    ConnectionRefusedError,
    NoRouteError,
    TimeoutError,
)
from twisted.internet.interfaces import IReactorTCP, IReactorTime, IReactorUNIX
from twisted.internet.protocol import Factory, Protocol, ReconnectingClientFactory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailplat.errors import NoSuchDomain, NoSuchRecipient, NotResolved
from mailplat.interfaces import IResolver
from mailplat.testing.fakes import server_tls
from mailplat.testing.network import BEGINNING, Attempt, Network
from mailplat.testing.scripted import DROP, HANG, RESET, Flood, Raw, Slow


class Client(Protocol):
    """Collects what it is sent."""

    def __init__(self):
        self.data = b""
        self.lost = None

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.lost = reason.value

    def say(self, *lines):
        self.transport.write("".join(f"{line}\r\n" for line in lines).encode())


class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


def codes(replies):
    return [line[:3] for line in replies]


class NetworkCase(SynchronousTestCase):
    def setUp(self):
        self.network = Network()
        self.here = self.network.host("here.test", "192.0.2.1", "2001:db8::1")

    def connect(self, address="198.51.100.1", port=25, **arguments):
        endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        return connectProtocol(endpoint(self.here, address, port, **arguments), Client())

    def scripted(self, script=None, **settings):
        self.server = self.network.scripted_server("mx.test", "198.51.100.1", script=script, **settings)
        return self.network.run(self.connect())

    def talk(self, client, *lines, seconds=1.0):
        """Say lines; what is answered within so many seconds."""
        client.data = b""
        client.say(*lines)
        self.network.advance(seconds)
        return client.data.decode().split("\r\n")[:-1]


class Time(NetworkCase):
    def test_stands_still(self):
        self.assertEqual(self.here.seconds(), BEGINNING)
        self.network.advance(5)
        self.assertEqual(self.here.seconds(), BEGINNING + 5)

    def test_each_event_at_its_time(self):
        seen = []

        async def often():
            for _ in range(3):
                await deferLater(self.here, 1.5)
                seen.append(self.here.seconds() - BEGINNING)

        self.network.start(often())
        self.network.advance(3)
        self.assertEqual(seen, [1.5, 3.0])
        self.network.advance(86400)
        self.assertEqual(seen, [1.5, 3.0, 4.5])

    def test_five_days_of_retries(self):
        attempts = []

        async def forever():
            while True:
                attempts.append(self.here.seconds())
                await deferLater(self.here, 300)

        self.network.start(forever())
        self.network.advance(5 * 86400)
        self.assertEqual(len(attempts), 5 * 288 + 1)

    def test_run(self):
        async def answer():
            await deferLater(self.here, 7)
            return 42

        async def fail():
            raise KeyError("x")

        self.assertEqual(self.network.run(answer()), 42)
        self.assertEqual(self.here.seconds(), BEGINNING + 7)
        self.assertRaises(KeyError, self.network.run, fail())
        self.assertRaises(AssertionError, self.network.run, answer(), within=6)
        self.assertRaises(TypeError, self.network.run, None)
        self.assertRaises(AssertionError, self.network.run, Deferred())


class Hosts(NetworkCase):
    def listen(
        self, protocol=Echo, port=7, name="there.test", addresses=("198.51.100.1", "2001:db8::2"), **where
    ):
        host = self.network.host(name, *addresses)
        return host, host.listenTCP(port, Factory.forProtocol(protocol), **where)

    def test_provides(self):
        for interface in (IReactorTime, IReactorTCP, IReactorUNIX):
            verifyObject(interface, self.here)
        verifyObject(IResolver, self.network.resolver)

    def test_both_ways(self):
        _, port = self.listen()
        for address in ("198.51.100.1", "2001:db8::2"):
            client = self.network.run(self.connect(address, 7))
            self.assertEqual(self.talk(client, "hello"), ["hello"])
            self.assertEqual(client.transport.getPeer().host, address)
            self.assertIn(client.transport.getHost().host, self.here.addresses)
        self.assertEqual(self.network.connections, 2)
        client.transport.loseConnection()
        self.network.advance(1)
        self.assertIsInstance(client.lost, ConnectionDone)
        self.assertEqual(self.network.connections, 1)
        self.assertEqual(
            self.network.attempts,
            [
                Attempt(BEGINNING, "here.test", "198.51.100.1", 7),
                Attempt(self.network.attempts[1].time, "here.test", "2001:db8::2", 7),
            ],
        )

    def test_latency(self):
        self.network.latency = 0.5
        self.listen()
        client = self.network.run(self.connect(port=7))
        began = self.here.seconds()
        self.assertEqual(began, BEGINNING + 1)
        client.say("hello")
        self.network.advance(0.9)
        self.assertEqual(client.data, b"")
        self.network.advance(0.2)
        self.assertEqual(client.data, b"hello\r\n")

    def test_a_lot(self):
        """A megabyte does not arrive in one piece, and a reader that pauses is waited for."""
        pieces = []

        class Sink(Protocol):
            def dataReceived(self, data):
                pieces.append(len(data))

        self.listen(Sink)
        client = self.network.run(self.connect(port=7))
        client.transport.write(bytes(1 << 20))
        self.network.advance(10)
        self.assertEqual(sum(pieces), 1 << 20)
        self.assertLessEqual(max(pieces), 65536)

    def test_refused(self):
        _, port = self.listen()
        self.assertRaises(ConnectionRefusedError, self.network.run, self.connect(port=8))
        port.stopListening()
        self.assertRaises(ConnectionRefusedError, self.network.run, self.connect(port=7))

    def test_nobody_answers(self):
        host, _ = self.listen()
        host.down = True
        for address in ("198.51.100.1", "203.0.113.9"):
            began = self.here.seconds()
            self.assertRaises(TimeoutError, self.network.run, self.connect(address, 7, timeout=20))
            self.assertAlmostEqual(self.here.seconds() - began, 20, 3)

    def test_down_for_a_while(self):
        host, _ = self.listen()
        client = self.network.run(self.connect(port=7))
        host.down = True
        self.assertEqual(self.talk(client, "hello", seconds=100), [])
        host.down = False
        self.network.advance(2)
        self.assertEqual(client.data, b"hello\r\n")

    def test_no_way(self):
        self.listen()
        self.here = self.network.host("old.test", "192.0.2.4")
        self.assertRaises(NoRouteError, self.network.run, self.connect("2001:db8::2", 7))
        self.assertRaises(NoRouteError, self.network.run, self.connect(port=7, bindAddress=("192.0.2.77", 0)))

    def test_source(self):
        self.here = self.network.host("two.test", "192.0.2.4", "192.0.2.5")
        self.listen()
        client = self.network.run(self.connect(port=7, bindAddress=("192.0.2.5", 0)))
        self.assertEqual(client.transport.getHost().host, "192.0.2.5")

    def test_loopback_is_ones_own(self):
        self.listen()
        self.here.listenTCP(7, Factory.forProtocol(Echo), interface="127.0.0.1")
        client = self.network.run(self.connect("127.0.0.1", 7))
        self.assertEqual(self.talk(client, "me"), ["me"])
        self.assertRaises(ConnectionRefusedError, self.network.run, self.connect("192.0.2.1", 7))

    def test_unix(self):
        self.here.listenUNIX("/run/lmtp", Factory.forProtocol(Echo))
        client = self.network.run(connectProtocol(UNIXClientEndpoint(self.here, "/run/lmtp"), Client()))
        self.assertEqual(self.talk(client, "local"), ["local"])
        endpoint = UNIXClientEndpoint(self.here, "/run/other")
        self.assertRaises(ConnectionRefusedError, self.network.run, connectProtocol(endpoint, Client()))

    def test_taken(self):
        host, _ = self.listen()
        self.assertRaises(CannotListenError, host.listenTCP, 7, Factory.forProtocol(Echo))
        self.assertRaises(ValueError, self.network.host, "other.test", "198.51.100.1")
        ports = {host.listenTCP(0, Factory.forProtocol(Echo)).getHost().port for _ in range(3)}
        self.assertEqual(len(ports), 3)

    def test_given_up(self):
        self.network.host("there.test", "198.51.100.1").down = True
        attempt = self.connect(port=7)
        attempt.cancel()
        self.failureResultOf(attempt)
        self.network.advance(60)
        self.assertEqual(self.here.getDelayedCalls(), [])

    def test_reconnecting(self):
        """A connector hears of the end, and may connect again."""
        made = []

        class Once(Protocol):
            def connectionMade(self):
                made.append(self)
                self.transport.loseConnection()

        self.listen(Once)
        factory = ReconnectingClientFactory()
        factory.protocol, factory.clock, factory.noisy = Client, self.here, False
        self.here.connectTCP("198.51.100.1", 7, factory)
        self.network.advance(5)
        self.assertGreater(len(made), 1)


class Names(NetworkCase):
    def test_hosts_and_domains(self):
        resolver, run = self.network.resolver, self.network.run
        self.network.domain("example.com", "mx1.example.com", "mx2.example.com")
        self.network.domain("other.example", (5, "b.example"), (1, "a.example"))
        self.assertEqual(run(resolver.addresses("here.test")), ["192.0.2.1", "2001:db8::1"])
        self.assertEqual(run(resolver.mail_exchangers("here.test")), [])
        self.assertEqual(
            run(resolver.mail_exchangers("example.com")), [(10, "mx1.example.com"), (20, "mx2.example.com")]
        )
        self.assertEqual(run(resolver.mail_exchangers("other.example")), [(1, "a.example"), (5, "b.example")])
        self.assertEqual(run(resolver.addresses("example.com")), [])
        self.assertRaises(NoSuchDomain, run, resolver.mail_exchangers("nowhere.test"))
        self.assertRaises(NoSuchDomain, run, resolver.addresses("nowhere.test"))
        self.assertEqual(resolver.asked[-2:], ["nowhere.test"] * 2)

    def test_failing_and_slow(self):
        resolver = self.network.resolver
        resolver.failures["here.test"] = NotResolved()
        resolver.delays["here.test"] = 30
        self.assertRaises(NotResolved, self.network.run, resolver.addresses("here.test"))
        self.assertEqual(self.here.seconds(), BEGINNING + 30)


class Mail(NetworkCase):
    LINES = ("MAIL FROM:<a@here.test>", "RCPT TO:<b@example.com>", "DATA")

    def test_real_server(self):
        mx = self.network.mail_server("mx.test", "198.51.100.1", tls=server_tls())
        client = self.network.run(self.connect())
        self.network.advance(1)
        self.assertEqual(self.talk(client, "EHLO here.test")[0], "250-mx.test")
        self.assertEqual([line[:3] for line in self.talk(client, *self.LINES)], ["250", "250", "354"])
        self.assertEqual(
            [line[:3] for line in self.talk(client, "Subject: x", "", "hello", ".", "QUIT")], ["250", "221"]
        )
        ((envelope, data),) = mx.messages
        self.assertEqual(str(envelope.sender), "a@here.test")
        self.assertEqual(data, b"Subject: x\r\n\r\nhello\r\n")
        self.assertEqual(self.network.connections, 0)

    def test_several_full_servers(self):
        """Each is itself: what one is told to refuse, another takes, and a week's silence ends them all."""
        servers = [self.network.mail_server(f"mx{n}.test", f"198.51.100.{n}") for n in range(1, 4)]
        servers[1].receiver.refused_recipients["b@example.com"] = NoSuchRecipient()
        clients = [self.network.run(self.connect(f"198.51.100.{n}")) for n in range(1, 4)]
        for client in clients:
            client.say("EHLO here.test", *self.LINES[:2])
        self.network.advance(1)
        for client in clients:
            client.say("DATA")
        self.network.advance(1)
        for client in clients:
            client.say("Subject: x", "", ".")
        self.network.advance(1)
        self.assertEqual([len(server.messages) for server in servers], [1, 0, 1])
        self.assertEqual(self.network.connections, 3)
        self.network.advance(7 * 86400)
        self.assertEqual([type(client.lost) for client in clients], [ConnectionDone] * 3)
        self.assertEqual((self.network.connections, self.here.getDelayedCalls()), (0, []))

    def test_closed_port(self):
        self.network.mail_server("mx.test", "198.51.100.1")
        self.assertIs(self.network.at("198.51.100.1"), self.network.hosts["mx.test"])
        self.network.hosts["mx.test"].close(25)
        self.assertRaises(ConnectionRefusedError, self.network.run, self.connect())

    def test_tls(self):
        for number, server in enumerate(
            (
                lambda: self.network.mail_server("mx.test", "198.51.100.1", tls=server_tls()),
                lambda: self.network.scripted_server("mx2.test", "198.51.100.2", tls=True),
            ),
            1,
        ):
            server()
            client = self.network.run(self.connect(f"198.51.100.{number}"))
            self.assertIn(
                "250-STARTTLS",
                {line.replace(" STARTTLS", "-STARTTLS") for line in self.talk(client, "EHLO here.test")},
            )
            self.talk(client, "STARTTLS")
            client.transport.startTLS(CertificateOptions())
            answer = self.talk(client, "EHLO here.test")
            self.assertEqual(answer[0][:3], "250")
            self.assertNotIn("STARTTLS", "".join(answer))


class Scripts(NetworkCase):
    LINES = Mail.LINES

    def send(self, client, body="hello"):
        return [reply for line in self.LINES for reply in self.talk(client, line)] + self.talk(
            client, body, "."
        )

    def test_well_behaved(self):
        client = self.scripted()
        self.assertEqual(self.talk(client), ["220 mx.test ESMTP"])
        self.assertEqual(
            self.talk(client, "EHLO here.test"),
            ["250-mx.test", "250-PIPELINING", "250-SIZE 10000000", "250-8BITMIME", "250 ENHANCEDSTATUSCODES"],
        )
        self.assertEqual(codes(self.send(client, "..dot")), ["250", "250", "354", "250"])
        (received,) = self.server.received
        self.assertEqual(
            (received.sender, received.recipients), ("FROM:<a@here.test>", ("TO:<b@example.com>",))
        )
        self.assertEqual(received.data, b".dot\r\n")
        self.assertEqual(self.talk(client, "BDAT 5"), [])
        client.transport.write(b"12345")
        self.network.advance(1)
        self.assertEqual(client.data, b"250 2.0.0 Chunk taken\r\n")
        client.say("BDAT 2 LAST")
        client.transport.write(b"67QUIT\r\n")
        self.network.advance(1)
        self.assertEqual(self.server.received[1].data, b"1234567")
        self.assertIsInstance(client.lost, ConnectionDone)
        self.assertEqual((self.server.open, self.server.most_open), (0, 1))
        self.assertEqual(self.server.commands[-1], "QUIT")

    def test_replies(self):
        client = self.scripted({"RCPT": ["250 OK", "450 4.2.1 Busy"], "MAIL": "250-Long\n250 yes"})
        self.assertEqual(
            self.talk(client, "MAIL FROM:<>", "RCPT TO:<a>", "RCPT TO:<b>", "RCPT TO:<c>")[-5:],
            ["250-Long", "250 yes", "250 OK", "450 4.2.1 Busy", "450 4.2.1 Busy"],
        )
        self.server.script["RCPT"] = lambda argument: f"550 5.1.1 {argument}"
        self.assertEqual(self.talk(client, "RCPT TO:<d>"), ["550 5.1.1 TO:<d>"])

    def test_faults_at_each_point(self):
        for word in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."):
            for fault in (HANG, DROP, RESET):
                self.network = Network()
                self.here = self.network.host("here.test", "192.0.2.1")
                client = self.scripted({word: fault})
                said = self.talk(client) + self.talk(client, "EHLO here.test") + self.send(client)
                expected = {"CONNECT": 0, "EHLO": 1, "MAIL": 6, "RCPT": 7, "DATA": 8, ".": 9}[word]
                self.assertEqual(len(said), expected, word)
                self.assertEqual(client.lost is None, fault is HANG)
                self.assertEqual(len(self.server.received), word == ".")

    def test_slow(self):
        client = self.scripted({"MAIL": Slow(30, "250 At last"), ".": Slow(60, Slow(30, DROP))})
        self.assertEqual(len(self.talk(client, "EHLO here.test", *self.LINES, seconds=29)), 6)
        self.assertEqual(codes(self.talk(client, seconds=2)), ["250", "250", "354"])
        self.assertEqual(self.talk(client, "hello", ".", seconds=89), [])
        self.assertIsNone(client.lost)
        self.network.advance(2)
        self.assertIsNotNone(client.lost)

    def test_flood(self):
        client = self.scripted({"EHLO": Flood("250-x", 100_000, "250 y"), "NOOP": Flood("250-z")})
        said = self.talk(client, "EHLO here.test", "MAIL FROM:<>", seconds=60)
        self.assertEqual(len(said), 100_003)
        self.assertEqual(said[-2:], ["250 y", "250 2.0.0 OK"])
        # Nobody reads: the flood waits.
        self.talk(client, "NOOP", seconds=0.02)
        client.transport.pauseProducing()
        self.network.advance(3600)
        self.assertLess(len(client.data), 1 << 20)
        client.transport.abortConnection()
        self.network.advance(1)

    def test_raw(self):
        client = self.scripted({"CONNECT": Raw(b"\xff\x00no line end")})
        self.network.advance(1)
        self.assertEqual(client.data, b"\xff\x00no line end")

    def test_lmtp(self):
        def taken(recipient):
            return "450 4.2.2 Full" if "c@" in recipient else Slow(1, "250 2.1.5 Taken")

        client = self.scripted({".": taken}, lmtp=True)
        self.assertEqual(codes(self.talk(client, "EHLO here.test"))[-1], "500")
        recipients = (f"RCPT TO:<{name}@x>" for name in "bcd")
        self.talk(client, "LHLO here.test", "MAIL FROM:<>", *recipients, "DATA")
        self.assertEqual(
            self.talk(client, "hello", ".", seconds=5),
            ["250 2.1.5 Taken", "450 4.2.2 Full", "250 2.1.5 Taken"],
        )

    def test_auth(self):
        client = self.scripted(extensions=["AUTH PLAIN"])
        self.assertEqual(self.talk(client, "AUTH PLAIN AGEAYg==")[-1][:3], "235")
