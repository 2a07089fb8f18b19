from __future__ import annotations

import os
import shutil
import socket
import tempfile

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailplat.errors import CannotListen
from mailplat.listening import bind, is_unix, shown, speaks_tls
from mailplat.settings import KINDS, Listener

IMAP = next(kind for kind in KINDS if kind.word == "imap")


class Greeter(Protocol):
    def connectionMade(self):
        self.transport.write(b"hello")
        self.transport.loseConnection()


def read_all(address, family=socket.AF_INET):
    with socket.socket(family) as client:
        client.settimeout(20)
        client.connect(address)
        return client.recv(100)


class BindTests(TestCase):
    def setUp(self):
        # Short: a UNIX socket's path must fit in 108 octets.
        self.directory = tempfile.mkdtemp(prefix="mp-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "s:o=c")
        self.unix = f"unix:{self.path}".replace("s:o=c", "s\\:o\\=c")

    def bind(self, endpoint):
        bound = bind(Listener(IMAP, endpoint), reactor)
        self.addCleanup(bound.close)
        return bound

    def refused(self, endpoint):
        return self.assertRaises(CannotListen, self.bind, endpoint).text

    def leave_socket(self):
        """A socket nobody listens on, as a killed process leaves it."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
            dead.listen()

    async def test_nobody_is_let_in_before_the_door_opens(self):
        bound = self.bind("tcp:0:interface=127.0.0.1")
        reading = deferToThread(read_all, (bound.address.host, bound.address.port))
        # The peer is in the kernel's queue, and has heard nothing for some turns of the reactor.
        for _ in range(5):
            turn = Deferred()
            reactor.callLater(0.01, turn.callback, None)
            await turn
        self.assertFalse(reading.called)
        bound.open(Factory.forProtocol(Greeter))
        self.assertEqual(await reading, b"hello")

    async def test_a_socket_that_was_left_behind_is_replaced(self):
        self.leave_socket()
        bound = self.bind(self.unix + ":mode=600")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        bound.open(Factory.forProtocol(Greeter))
        self.assertEqual(await deferToThread(read_all, self.path, socket.AF_UNIX), b"hello")
        self.assertEqual(os.listdir(self.directory), ["s:o=c"])  # and no lock file
        await bound.close()
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_socket_in_use_is_left_alone(self):
        self.bind(self.unix)
        self.assertEqual(
            self.refused(self.unix), f"cannot listen for imap on {self.unix}: somebody listens there already"
        )
        self.assertTrue(os.path.exists(self.path))

    def test_what_is_not_a_socket_is_left_alone(self):
        with open(self.path, "w"):
            pass
        self.assertIn("there is something that is not a socket", self.refused(self.unix))
        self.assertTrue(os.path.isfile(self.path))

    def test_the_path_may_be_named(self):
        self.leave_socket()
        self.bind(self.unix.replace("unix:", "unix:mode=600:address="))

    def test_a_lock_file_that_was_asked_for(self):
        self.bind(self.unix + ":lockfile=1")
        self.assertEqual(sorted(os.listdir(self.directory)), ["s:o=c", "s:o=c.lock"])

    def test_a_port_in_use(self):
        port = self.bind("tcp:0:interface=127.0.0.1").address.port
        self.assertEqual(
            self.refused(f"tcp:{port}:interface=127.0.0.1"),
            f"cannot listen for imap on tcp:{port}:interface=127.0.0.1: Address already in use",
        )

    def test_an_address_that_is_not_ours(self):
        self.assertIn("Cannot assign requested address", self.refused("tcp:0:interface=203.0.113.7"))

    def test_a_path_that_is_too_long(self):
        self.assertIn("too long", self.refused(f"unix:{self.directory}/{'x' * 120}"))

    def test_a_directory_that_is_not_there(self):
        self.assertIn("No such file or directory", self.refused(f"unix:{self.directory}/none/x"))

    def test_addresses_as_people_write_them(self):
        self.assertRegex(shown(self.bind("tcp:0:interface=127.0.0.1").address), r"^127\.0\.0\.1:\d+$")
        self.assertEqual(shown(self.bind(self.unix).address), self.path)

    def test_kinds_of_endpoints(self):
        self.assertTrue(is_unix(Listener(IMAP, "unix:x")))
        self.assertFalse(is_unix(Listener(IMAP, "tcp:1")))
        self.assertTrue(speaks_tls(Listener(IMAP, "ssl:1")))
        self.assertTrue(speaks_tls(Listener(IMAP, "tls:x:port=1")))
        self.assertFalse(speaks_tls(Listener(IMAP, "tcp:1")))
