"""The fake wire behaves as the real one, as far as a session can tell."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailplat.testing.wire import FakeWire
from mailplat.values import TLSInfo
from tests.testing.echo import EchoSession

TLS = TLSInfo("TLSv1.3", "none")


class FakeWireTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = FakeWire("imap", host="192.0.2.1", secured=TLS)
        self.session = EchoSession(self.wire)
        self.assertEqual(self.wire.start(self.session), b"+OK ready\r\n")

    def test_bytes_in_bytes_out(self) -> None:
        self.assertEqual(self.wire.send(b"one\r\ntwo\r\nthr"), b"one\r\ntwo\r\n")
        self.assertEqual(self.wire.send_slowly(b"ee\r\nquit\r\n"), b"three\r\nbye\r\n")
        self.assertTrue(self.wire.ended)
        self.assertEqual(self.wire.clock.getDelayedCalls(), [])

    def test_silence(self) -> None:
        self.assertEqual(self.wire.advance(59), b"")
        self.wire.send(b"half")
        # One deadline for a whole event, however slowly it comes.
        self.assertEqual(self.wire.advance(1), b"timeout\r\n")
        self.assertTrue(self.wire.ended)

    def test_hang_up(self) -> None:
        self.assertEqual(self.wire.hang_up(), b"")
        self.assertTrue(self.session.ended)

    def test_stop(self) -> None:
        self.assertEqual(self.wire.stop(), b"going down\r\n")
        self.assertTrue(self.wire.ended)

    def test_wake(self) -> None:
        self.wire.wake()
        self.wire.wake()
        self.assertEqual(self.wire.taken(), b"")
        self.assertEqual(self.wire.advance(0), b"news\r\n")

    def test_tls(self) -> None:
        self.assertTrue(self.wire.can_start_tls)
        self.assertEqual(self.wire.send(b"starttls\r\ninjected\r\n"), b"go\r\n")
        self.assertFalse(self.wire.can_start_tls)
        self.assertEqual(self.wire.send(b"peer\r\n"), b"192.0.2.1 TLSv1.3\r\n")

    def test_a_peer_that_does_not_read(self) -> None:
        self.wire.choke()
        self.assertEqual(len(self.wire.send(b"big\r\n")), 10_002)
        rest = self.wire.choke(False)
        self.assertTrue(rest.endswith(b"end\r\n"))
        self.assertLess(self.wire.most_undrained, 11_000)
        self.assertEqual(self.wire.pauses, 100)

    def test_what_the_session_lets_pass(self) -> None:
        self.assertRaises(ZeroDivisionError, self.wire.send, b"fail\r\n")
        self.assertTrue(self.wire.ended)
