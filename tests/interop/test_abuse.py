"""
Peers that send garbage, endless lines, or read nothing: the others don't notice, and memory stays bounded.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
import unittest

from tests.interop.house import PASSWORD, House, address

MIB = 1 << 20
PROTOCOLS = ("smtp", "submission", "imap", "pop3")

#: How the answer to a line that is no command begins, after the greeting.
REFUSALS = {
    "smtp": re.compile(rb"500 |421 "),
    "submission": re.compile(rb"500 |421 "),
    "imap": re.compile(rb"\S+ BAD |\* BYE "),
    "pop3": re.compile(rb"-ERR "),
}

#: What everybody else may be kept waiting, in seconds; a machine with other work to do is slow by itself.
PATIENCE = 15.0


class Abuse(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.house = House().start()
        cls.addClassCleanup(cls.house.stop)
        for _ in range(3):
            cls.everything(cls.house)
        cls.before = cls.house.memory()

    @staticmethod
    def everything(house: House) -> None:
        """What somebody else does meanwhile."""
        house.send(b"Subject: x\r\n\r\nx\r\n", "bob")
        with house.imap("bob") as client:
            client.select()
            client.fetch("1:*", "(FLAGS BODY.PEEK[])")

    def others_do_not_notice(self) -> None:
        for _ in range(3):
            began = time.monotonic()
            self.everything(self.house)
            self.assertLess(time.monotonic() - began, PATIENCE)

    def memory_is_bounded(self, octets: int = 16 * MIB) -> None:
        self.assertLess(self.house.memory() - self.before, octets)
        self.assertEqual(self.house.complaints(), "")

    def connect(self, name: str) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", self.house.port[name]), 30)
        self.addCleanup(peer.close)
        self.assertTrue(peer.recv(4096).endswith(b"\r\n"))
        return peer

    def pour(self, peer: socket.socket, piece: bytes, octets: int) -> None:
        """Send so much, unless the server closes before."""
        with contextlib.suppress(ConnectionError):
            for _ in range(octets // len(piece)):
                peer.sendall(piece)

    def refused(self, peer: socket.socket, name: str) -> bytes:
        """All that is said from here on, every line of it a refusal."""
        said = b""
        with contextlib.suppress(ConnectionError):
            peer.shutdown(socket.SHUT_WR)
            while piece := peer.recv(65536):
                said += piece
        for line in said.split(b"\r\n")[:-1]:
            self.assertRegex(line, REFUSALS[name], name)
        return said

    def test_garbage(self) -> None:
        pieces = (
            os.urandom(64).replace(b"\n", b"") + b"\r\n",
            b"\0\0\0\0\r\n",
            "\u00fc\u00f6\r\n".encode(),
            b"a bare\rCR\r\n",
            b"a bare\nLF\r\n",
            b"\xff\xfe\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",  # a TLS hello on a port in clear
        )
        for name in PROTOCOLS:
            for piece in pieces:
                with self.subTest(name, piece=piece):
                    peer = self.connect(name)
                    peer.sendall(piece)
                    self.assertNotEqual(self.refused(peer, name), b"")
        self.others_do_not_notice()
        self.memory_is_bounded()

    def test_a_line_without_end(self) -> None:
        for name in PROTOCOLS:
            with self.subTest(name):
                peer = self.connect(name)
                self.pour(peer, b"x" * 65536, 32 * MIB)
                with contextlib.suppress(ConnectionError):
                    peer.sendall(b"\r\n")
                self.refused(peer, name)
        self.others_do_not_notice()
        self.memory_is_bounded()

    def test_literals_without_end(self) -> None:
        peer = self.connect("imap")
        peer.sendall(b"a LOGIN {99999999999}\r\n")
        self.assertTrue(peer.recv(4096).startswith(b"a "))
        peer = self.connect("imap")
        peer.sendall(b"a LOGIN {4000000000+}\r\n")
        self.pour(peer, b"x" * 65536, 32 * MIB)
        self.others_do_not_notice()
        self.memory_is_bounded()

    def test_commands_without_end(self) -> None:
        """Pipelined without ever reading an answer."""
        lines = {
            "smtp": b"NOOP\r\n",
            "submission": b"NOOP\r\n",
            "imap": b"a CAPABILITY\r\n",
            "pop3": b"CAPA\r\n",
        }
        peers = [(self.connect(name), lines[name] * 1000) for name in PROTOCOLS]
        for peer, _ in peers:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.settimeout(1)

        def pour(peer: socket.socket, piece: bytes) -> None:
            # Until the server takes no more: it stops reading while its answers stay unread.
            with contextlib.suppress(OSError):
                for _ in range(10_000):
                    peer.sendall(piece)

        threads = [threading.Thread(target=pour, args=one, daemon=True) for one in peers]
        for thread in threads:
            thread.start()
        self.others_do_not_notice()
        for thread in threads:
            thread.join(60)
            self.assertFalse(thread.is_alive())
        self.others_do_not_notice()
        self.memory_is_bounded()

    def test_a_reader_that_stops(self) -> None:
        """FETCH and RETR of more than anybody holds in memory."""
        self.house.send(b"Subject: large\r\n\r\n" + b"x" * 78 * 20 + b"\r\n" * 400_000)
        imap, pop3 = self.connect("imap"), self.connect("pop3")
        imap.sendall(f"a LOGIN {address('alice')} {PASSWORD}\r\nb SELECT INBOX\r\n".encode())
        imap.sendall(b"".join(b"c%d UID FETCH 1:* (BODY.PEEK[])\r\n" % number for number in range(500)))
        pop3.sendall(f"USER {address('alice')}\r\nPASS {PASSWORD}\r\n".encode() + b"RETR 1\r\n" * 500)
        self.others_do_not_notice()
        self.memory_is_bounded()

    def test_connections_that_say_nothing(self) -> None:
        peers = [self.connect(name) for name in PROTOCOLS for _ in range(50)]
        self.others_do_not_notice()
        self.memory_is_bounded()
        for peer in peers:
            peer.close()

    def test_message_of_one_line(self) -> None:
        """Without a line break, and with a lone one at its end: refused at the real end, and the next goes through."""
        peer = self.connect("smtp")
        peer.sendall(f"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<{address('carol')}>\r\nDATA\r\n".encode())
        self.pour(peer, b"x" * 65536, 8 * MIB)
        peer.sendall(b"\n.\r\n\r\n.\r\nQUIT\r\n")
        said = b""
        while piece := peer.recv(65536):
            said += piece
        self.assertIn(b"\r\n550 5.6.0 ", said)
        self.assertEqual(self.house.bodies("carol"), [])
        self.others_do_not_notice()
        self.memory_is_bounded(32 * MIB)
