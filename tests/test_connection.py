"""The connection between a session that only knows `wire` and a transport that only knows bytes."""

from contextvars import ContextVar

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import classImplements

from mailplat.connection import Connection, ConnectionLimits, MailFactory
from mailplat.wire import Need, PeerGone, Stopping, TimedOut, Wake


class LineEngine:
    """The smallest engine: an event is a line."""

    most_buffered = 100

    def __init__(self):
        self.buffer = b""

    @property
    def buffered(self):
        return len(self.buffer)

    def receive(self, data):
        self.buffer += data

    def next_event(self):
        line, end, rest = self.buffer.partition(b"\r\n")
        if not end:
            return Need.DATA
        self.buffer = rest
        return line

    def discard(self):
        self.buffer = b""


class LineSession:
    """Says what it is told to say, and remembers how it ended."""

    def __init__(self, wire):
        self.wire = wire
        self.engine = LineEngine()
        self.seen = []
        self.gate = None

    async def run(self):
        self.wire.write(b"hello\r\n")
        try:
            while True:
                event = await self.wire.event(300, wakeable=True)
                self.seen.append(event)
                if event is Wake.NEWS:
                    self.wire.write(b"news\r\n")
                elif event == b"quit":
                    self.wire.write(b"bye\r\n")
                    return
                elif event == b"wait":
                    self.gate = Deferred()
                    await self.gate
                    self.wire.write(b"waited\r\n")
                elif event == b"tls":
                    self.wire.write(b"go ahead\r\n")
                    self.wire.start_tls()
                elif event == b"phase":
                    self.wire.phase(10, rate=2)
                elif event == b"free":
                    self.wire.phase(None)
                elif event == b"parts":
                    for part in (b"one ", b"two", b"\r\n"):
                        self.wire.write(part)
                        await self.wire.drained()
                elif event == b"nested":
                    # As a checker does that asks the peer within `portal.login`.
                    nested = Deferred.fromCoroutine(self.twice())
                    self.wire.write(await nested + b"\r\n")
                elif event == b"stray":
                    await Stray()
                elif event == b"crash":
                    raise RuntimeError("a bug")
                elif event == b"flood":
                    for _ in range(10):
                        self.wire.write(b"x" * 70_000)
                        await self.wire.drained()
                    self.wire.write(b"flooded\r\n")
                else:
                    self.wire.write(event.upper() + b"\r\n")
        except (TimedOut, Stopping) as error:
            self.seen.append(type(error))
            self.wire.write(b"farewell\r\n")
        except PeerGone:
            self.seen.append(PeerGone)
            raise

    async def twice(self):
        return await self.wire.event(300) + b" and " + await self.wire.event(300)


class Stray:
    """Awaited by mistake: it knows another event loop."""

    def __await__(self):
        yield self


class LineFactory(MailFactory):
    def __init__(self, clock, **arguments):
        super().__init__("line", clock, **arguments)
        self.sessions = []

    def session(self, wire):
        self.sessions.append(LineSession(wire))
        return self.sessions[-1]

    def refusal(self):
        return b"full\r\n"


class Transport(StringTransport):
    """A transport that counts writes and can be full."""

    writes = 0
    tls = None
    aborted = False

    def write(self, data):
        self.writes += 1
        super().write(data)

    def startTLS(self, context):
        self.tls = context

    def abortConnection(self):
        self.aborted = True
        self.loseConnection()


PEER = IPv4Address("TCP", "192.0.2.1", 4000)


class ConnectionTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1000)

    def connect(self, address=PEER, **arguments):
        self.factory = LineFactory(self.clock, **arguments)
        return self.join(address)

    def join(self, address=PEER):
        protocol = self.factory.buildProtocol(address)
        transport = Transport()
        protocol.makeConnection(transport)
        if isinstance(protocol, Connection):
            self.session = self.factory.sessions[-1]
        self.protocol, self.transport = protocol, transport
        return protocol, transport

    def lose(self):
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def test_one_write_for_all_replies(self):
        protocol, transport = self.connect()
        self.assertEqual(transport.value(), b"hello\r\n")
        transport.clear()
        before = transport.writes
        protocol.dataReceived(b"a\r\nb\r\nc\r\n")
        self.assertEqual((transport.value(), transport.writes - before), (b"A\r\nB\r\nC\r\n", 1))

    def test_little_leaves_together_though_room_was_awaited(self):
        protocol, transport = self.connect()
        transport.clear()
        before = transport.writes
        protocol.dataReceived(b"parts\r\n")
        self.assertEqual((transport.value(), transport.writes - before), (b"one two\r\n", 1))

    def test_any_split(self):
        protocol, transport = self.connect()
        for byte in b"one\r\ntwo\r\n":
            protocol.dataReceived(bytes([byte]))
        self.assertEqual(transport.value(), b"hello\r\nONE\r\nTWO\r\n")

    def test_end_closes(self):
        protocol, transport = self.connect()
        protocol.dataReceived(b"quit\r\nafter\r\n")
        self.assertEqual(transport.value(), b"hello\r\nbye\r\n")
        self.assertTrue(transport.disconnecting)
        self.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.connections, set())

    def test_silence(self):
        protocol, transport = self.connect()
        self.clock.advance(200)
        protocol.dataReceived(b"a\r\n")
        self.clock.advance(200)
        self.assertEqual(self.session.seen, [b"a"])
        # A byte now and then is silence too.
        protocol.dataReceived(b"b")
        self.clock.advance(99)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(2)
        self.assertEqual(self.session.seen, [b"a", TimedOut])
        self.assertTrue(transport.value().endswith(b"farewell\r\n"))
        self.assertTrue(transport.disconnecting)
        self.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_phase_bounds_all_waiting(self):
        protocol, transport = self.connect()
        protocol.dataReceived(b"phase\r\n")
        for _ in range(3):
            self.clock.advance(3)
            protocol.dataReceived(b"\r\n")
        # 9 seconds of waiting, of which 6 octets made up for 3.
        self.clock.advance(3.9)
        self.assertEqual(self.session.seen, [b"phase", b"", b"", b""])
        self.clock.advance(0.2)
        self.assertEqual(self.session.seen[-1], TimedOut)
        self.assertTrue(transport.disconnecting)

    def test_patience_is_earned_up_to_what_it_was(self):
        protocol, _ = self.connect()
        protocol.dataReceived(b"phase\r\n")
        protocol.dataReceived(b"x" * 98 + b"\r\n")
        self.clock.advance(9)
        protocol.dataReceived(b"x" * 98 + b"\r\n")
        self.clock.advance(9)
        protocol.dataReceived(b"free\r\n")
        self.clock.advance(299)
        self.assertEqual(len(self.session.seen), 4)
        protocol.dataReceived(b"phase\r\n")
        protocol.dataReceived(b"x" * 98 + b"\r\n")
        self.clock.advance(11)
        self.assertEqual(self.session.seen[-1], TimedOut)

    def test_our_own_work_is_nobodys_waiting(self):
        protocol, _ = self.connect()
        protocol.dataReceived(b"phase\r\nwait\r\n")
        self.clock.advance(100)
        self.session.gate.callback(None)
        self.clock.advance(0)
        protocol.dataReceived(b"a\r\n")
        self.assertEqual(self.session.seen, [b"phase", b"wait", b"a"])

    def test_peer_gone(self):
        self.connect()
        self.lose()
        self.assertEqual(self.session.seen, [PeerGone])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peer_gone_while_busy(self):
        protocol, _ = self.connect()
        protocol.dataReceived(b"wait\r\n")
        self.lose()
        self.assertEqual(self.session.seen, [b"wait"])
        self.session.gate.callback(None)
        self.assertEqual(self.session.seen, [b"wait", PeerGone])

    def test_half_close_answers_what_was_asked(self):
        protocol, transport = self.connect()
        protocol.dataReceived(b"wait\r\nlast\r\n")
        protocol.readConnectionLost()
        self.session.gate.callback(None)
        self.assertEqual(transport.value(), b"hello\r\nwaited\r\nLAST\r\n")
        self.assertTrue(transport.disconnecting)

    def test_crash(self):
        protocol, transport = self.connect()
        protocol.dataReceived(b"crash\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_peer_is_awaited_by_a_coroutine_that_twisted_runs(self):
        protocol, transport = self.connect()
        protocol.dataReceived(b"nested\r\none\r\n")
        protocol.dataReceived(b"two\r\nthree\r\nnested\r\n")
        self.assertEqual(transport.value(), b"hello\r\none and two\r\nTHREE\r\n")
        self.clock.advance(301)
        self.assertEqual(self.session.seen[-1], TimedOut)

    def test_the_peer_goes_while_a_coroutine_that_twisted_runs_awaits_it(self):
        protocol, _ = self.connect()
        protocol.dataReceived(b"nested\r\none\r\n")
        self.lose()
        self.assertEqual(self.session.seen[-1], PeerGone)
        self.assertEqual(self.factory.connections, set())

    def test_what_is_no_deferred_cannot_be_awaited(self):
        protocol, transport = self.connect()
        protocol.dataReceived(b"stray\r\n")
        self.assertTrue(transport.disconnecting)
        (failure,) = self.flushLoggedErrors(TypeError)
        self.assertIn("Stray", str(failure.value))

    def test_a_session_has_a_context_of_its_own(self):
        variable, seen = ContextVar("variable", default="outside"), []

        class Setting(LineSession):
            async def run(self):
                variable.set("inside")
                try:
                    await self.wire.event(300)
                    seen.append(variable.get())
                    await self.wire.event(300)
                finally:
                    seen.append(variable.get())

        self.factory = LineFactory(self.clock)
        self.factory.session = Setting
        protocol = self.factory.buildProtocol(PEER)
        protocol.makeConnection(Transport())
        protocol.dataReceived(b"a\r\n")
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((seen, variable.get()), (["inside", "inside"], "outside"))

    def test_wake_once_for_many_hints(self):
        _, transport = self.connect()
        transport.clear()
        for _ in range(5):
            self.session.wire.wake()
        self.assertEqual(transport.value(), b"")
        self.clock.advance(0)
        self.assertEqual(transport.value(), b"news\r\n")

    def test_wake_while_busy(self):
        protocol, transport = self.connect()
        protocol.dataReceived(b"wait\r\n")
        self.session.wire.wake()
        self.session.gate.callback(None)
        self.assertTrue(transport.value().endswith(b"waited\r\nnews\r\n"))

    def test_reading_stops_while_busy(self):
        protocol, transport = self.connect()
        protocol.dataReceived(b"wait\r\n")
        protocol.dataReceived(b"a\r\n" * 40)
        self.assertEqual(transport.producerState, "paused")
        self.session.gate.callback(None)
        self.assertEqual(transport.producerState, "producing")
        self.assertEqual(transport.value().count(b"A\r\n"), 40)

    def test_an_unread_flood_waits(self):
        protocol, transport = self.connect()
        protocol.pauseProducing()
        protocol.dataReceived(b"flood\r\n")
        self.assertLess(len(transport.value()), 80_000)
        protocol.resumeProducing()
        self.assertTrue(transport.value().endswith(b"flooded\r\n"))

    def test_unread_replies_stop_commands(self):
        protocol, transport = self.connect()
        protocol.pauseProducing()
        protocol.dataReceived(b"a\r\nb\r\n")
        protocol.dataReceived(b"c\r\n")
        self.assertEqual(self.session.seen, [b"a"])
        protocol.resumeProducing()
        self.assertEqual(self.session.seen, [b"a", b"b", b"c"])

    def test_never_read(self):
        protocol, transport = self.connect(limits=ConnectionLimits(write_timeout=30))
        protocol.pauseProducing()
        protocol.dataReceived(b"flood\r\n")
        self.clock.advance(31)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.session.seen, [b"flood", PeerGone])

    def test_tls_forgets_clear_text(self):
        context = object()
        protocol, transport = self.connect(tls=context)
        self.assertTrue(self.session.wire.can_start_tls)
        protocol.dataReceived(b"tls\r\ninjected\r\n")
        self.assertEqual(transport.value(), b"hello\r\ngo ahead\r\n")
        self.assertIs(transport.tls, context)
        self.assertFalse(self.session.wire.can_start_tls)
        self.assertEqual(self.session.seen, [b"tls"])

    def test_no_tls(self):
        self.connect()
        self.assertFalse(self.session.wire.can_start_tls)

    def test_limits(self):
        limits = ConnectionLimits(most=3, most_per_address=2)
        _, first = self.connect(limits=limits)
        held = self.protocol
        self.join()
        _, third = self.join()
        self.assertEqual((third.value(), third.disconnecting), (b"full\r\n", True))
        self.join(IPv4Address("TCP", "192.0.2.2", 1))
        _, fifth = self.join(IPv4Address("TCP", "192.0.2.3", 1))
        self.assertEqual(fifth.value(), b"full\r\n")
        held.connectionLost(Failure(ConnectionDone()))
        _, sixth = self.join()
        self.assertEqual(sixth.value(), b"hello\r\n")

    def test_stop(self):
        protocol, transport = self.connect()
        busy, busy_transport = self.join()
        busy.dataReceived(b"wait\r\nnever\r\n")
        gone = self.factory.stop(10)
        self.assertEqual(transport.value(), b"hello\r\nfarewell\r\n")
        self.assertTrue(transport.disconnecting)
        self.session.gate.callback(None)
        self.assertEqual(busy_transport.value(), b"hello\r\nwaited\r\nfarewell\r\n")
        self.assertNoResult(gone)
        for each in (protocol, busy):
            each.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_cuts_after_grace(self):
        protocol, transport = self.connect()
        protocol.dataReceived(b"wait\r\n")
        self.factory.stop(10)
        self.assertFalse(transport.aborted)
        self.clock.advance(10)
        self.assertTrue(transport.aborted)
        self.lose()

    def test_handshake_too_slow(self):
        class SecureTransport(Transport):
            def setTcpNoDelay(self, enabled):
                self.no_delay = enabled

            def setTcpKeepAlive(self, enabled):
                self.keep_alive = enabled

        classImplements(SecureTransport, ISSLTransport)
        self.factory = LineFactory(self.clock, limits=ConnectionLimits(handshake_timeout=30))
        protocol, transport = self.factory.buildProtocol(PEER), SecureTransport()
        protocol.makeConnection(transport)
        self.clock.advance(29)
        self.assertEqual((transport.value(), transport.aborted), (b"", False))
        self.assertEqual((transport.no_delay, transport.keep_alive), (True, True))
        self.clock.advance(1)
        self.assertEqual((transport.value(), transport.aborted), (b"", True))
        self.assertEqual(self.factory.sessions, [])

    def test_peer(self):
        self.connect(IPv6Address("TCP", "::ffff:127.0.0.9", 5))
        self.assertEqual((self.protocol.peer.host, self.protocol.peer.is_loopback), ("127.0.0.9", True))
        self.join(UNIXAddress(""))
        self.assertEqual((self.protocol.peer.host, self.protocol.peer.is_loopback), ("", True))
        self.join(IPv6Address("TCP", "2001:db8::1", 5))
        self.assertEqual((self.protocol.peer.host, self.protocol.peer.is_loopback), ("2001:db8::1", False))

    def test_a_long_turn_ends(self):
        protocol, transport = self.connect()
        seconds = iter(range(2000, 9000))
        self.clock.seconds = lambda: next(seconds)
        protocol.dataReceived(b"a\r\nb\r\n")
        self.assertLess(len(self.session.seen), 2)
        del self.clock.seconds
        self.clock.advance(5000)
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual(self.session.seen[:2], [b"a", b"b"])
