"""The client's session on a wire in memory: what it costs, and what wakes and stops it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailplat.errors import HostUnreachable, TemporaryError
from mailplat.smtp.client import ClientLimits, ClientSettings, SMTPClient
from mailplat.testing.fakes import MemoryMessage
from mailplat.testing.wire import FakeWire
from mailplat.values import Address, Envelope

ALICE = Address("alice", "b.test")
LARGE = b"0123456789abcd\r\n" * 1_000_000


async def no_salt(password: bytes, salt: bytes, iterations: int) -> bytes:
    raise AssertionError("nobody logs in")


class Sessions(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = FakeWire("smtp-client")
        settings = ClientSettings("client.test", limits=ClientLimits())
        self.client = SMTPClient(self.wire, "mx.test", settings, salted=no_salt)
        self.assertEqual(self.wire.start(self.client), b"")

    def greet(self, *offered: bytes) -> None:
        self.assertEqual(self.wire.send(b"220 mx.test\r\n"), b"EHLO client.test\r\n")
        lines = [b"mx.test", *offered]
        replies = [b"250-%b\r\n" % line for line in lines[:-1]] + [b"250 %b\r\n" % lines[-1]]
        self.assertEqual(self.wire.send(b"".join(replies)), b"")
        self.successResultOf(self.client.ready)

    def send(self, message: MemoryMessage) -> Deferred[Any]:
        sending = self.client.send(Envelope(None, (ALICE,)), message, b"", (ALICE,))
        self.wire.advance(0)
        return sending

    def test_memory_is_bounded(self) -> None:
        for offered, replies in (
            ((b"PIPELINING",), (b"250 ok\r\n" * 2 + b"354 ok\r\n", b"250 ok\r\n")),
            ((b"PIPELINING", b"CHUNKING"), (b"250 ok\r\n" * 2, b"250 ok\r\n" * 200)),
        ):
            self.setUp()
            self.greet(*offered)
            sending = self.send(MemoryMessage(LARGE, hidden=True))
            self.wire.most_undrained = 0
            for reply in replies:
                self.wire.send(reply)
            self.assertIsNone(self.successResultOf(sending)[0].error)
            self.assertLess(self.wire.most_undrained, 140_000)

    def test_a_host_that_does_not_read_is_waited_for(self) -> None:
        self.greet(b"PIPELINING", b"8BITMIME")
        message = MemoryMessage(LARGE, hidden=True)
        sending = self.send(message)
        self.wire.choke()
        written = len(self.wire.send(b"250 ok\r\n" * 2 + b"354 ok\r\n"))
        self.assertLess(written, 300_000)
        self.assertLess(len(message.reads), 3)
        self.wire.choke(False)
        self.wire.send(b"250 ok\r\n")
        self.assertIsNone(self.successResultOf(sending)[0].error)

    def test_work_that_comes_while_there_is_work(self) -> None:
        self.greet()
        first = self.send(MemoryMessage(b"first\r\n"))
        second = self.send(MemoryMessage(b"second\r\n"))
        said = b""
        for reply in (
            b"250 ok",
            b"250 ok",
            b"354 ok",
            b"250 one",
            b"250 ok",
            b"250 ok",
            b"354 ok",
            b"250 two",
        ):
            said += self.wire.send(reply + b"\r\n")
        self.assertEqual(self.successResultOf(first)[0].reply, "250 one")
        self.assertEqual(self.successResultOf(second)[0].reply, "250 two")
        self.assertLess(said.index(b"first"), said.index(b"second"))

    def test_stop(self) -> None:
        self.greet()
        sending = self.send(MemoryMessage(b"hello\r\n"))
        self.wire.send(b"250 ok\r\n")
        waiting = self.send(MemoryMessage(b"hello\r\n"))
        self.wire.stop()
        self.assertIsInstance(self.successResultOf(sending)[0].error, TemporaryError)
        self.failureResultOf(waiting, HostUnreachable)
        self.assertTrue(self.wire.ended)
        self.successResultOf(self.client.closed)

    def test_quit_before_it_is_ready(self) -> None:
        quitted = self.client.quit()
        self.wire.send(b"220 mx.test\r\n")
        self.assertEqual(self.wire.send(b"250 mx.test\r\n"), b"QUIT\r\n")
        self.assertFalse(self.client.usable)
        self.wire.send(b"221 bye\r\n")
        self.successResultOf(quitted)
        self.assertTrue(self.wire.ended)

    def test_gone_before_it_is_ready(self) -> None:
        failures: list[Failure] = []
        self.client.ready.addErrback(failures.append)
        self.wire.hang_up()
        failures[0].trap(HostUnreachable)
        self.failureResultOf(self.client.send(Envelope(None), MemoryMessage(b""), b"", ()), HostUnreachable)
        self.successResultOf(self.client.quit())

    def test_replies_byte_by_byte(self) -> None:
        self.assertEqual(self.wire.send_slowly(b"220-mx\r\n220 mx\r\n"), b"EHLO client.test\r\n")
        self.wire.send_slowly(b"250-mx\r\n250 PIPELINING\r\n")
        sending = self.send(MemoryMessage(b"hello\r\n"))
        self.wire.send_slowly(b"250 ok\r\n250 ok\r\n354 ok\r\n250 done\r\n")
        self.assertEqual(self.successResultOf(sending)[0].reply, "250 done")
