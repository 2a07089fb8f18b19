"""A message of 100 MB passes through SMTP, FETCH, APPEND and RETR in little memory."""

import hashlib
import socket
import unittest

from tests.interop.house import PASSWORD, House, address

MIB = 1 << 20
LINE = b"%075d\r\n"


def pieces():
    """100 MB of a message, in pieces of about 64 KiB."""
    yield b"From: a@elsewhere.test\r\nSubject: large\r\n\r\n"
    for block in range(1300):
        yield b"".join(LINE % (block * 1024 + line) for line in range(1024))


SIZE = sum(map(len, pieces()))


class Peer:
    """A socket read by lines or by octets, never holding a message."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.file = self.socket.makefile("rb", 1 << 16)

    def line(self) -> bytes:
        return self.file.readline()

    def say(self, text: bytes) -> None:
        self.socket.sendall(text + b"\r\n")

    def ask(self, text: bytes, until: bytes) -> bytes:
        self.say(text)
        while not (line := self.line()).startswith(until):
            if not line:
                raise AssertionError(f"closed after {text!r}")
        return line

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class LargeTests(unittest.TestCase):
    def setUp(self):
        self.house = House("--message-size-limit", str(128 * MIB)).start()
        self.addCleanup(self.house.stop)

    def peer(self, name):
        peer = Peer(self.house.port[name])
        self.addCleanup(peer.close)
        peer.line()
        return peer

    def test_every_way(self):
        digest = hashlib.sha256()
        for piece in pieces():
            digest.update(piece)
        # A small message goes every way first: what is loaded once is not growth.
        for name in ("smtp", "append", "fetch", "retr"):
            getattr(self, f"by_{name}")([b"Subject: small\r\n\r\nx\r\n"], None)
        self.clean()
        before = self.house.memory()
        for name in ("smtp", "append", "fetch", "retr"):
            with self.subTest(name):
                getattr(self, f"by_{name}")(pieces(), digest.hexdigest())
                growth = (self.house.memory() - before) / MIB
                self.assertLess(growth, 64, f"{name} took {growth:.0f} MiB")

    def clean(self):
        with self.house.imap() as client:
            client.select()
            client.uid("STORE", "1:*", "+FLAGS.SILENT", "(\\Deleted)")
            client.expunge()

    def by_smtp(self, content, digest):
        smtp = self.peer("smtp")
        smtp.ask(b"EHLO client.example", b"250 ")
        smtp.ask(b"MAIL FROM:<a@elsewhere.test>", b"250")
        smtp.ask(b"RCPT TO:<" + address("alice").encode() + b">", b"250")
        smtp.ask(b"DATA", b"354")
        for piece in content:
            smtp.socket.sendall(piece)
        self.assertEqual(smtp.ask(b".", b"")[:4], b"250 ")

    def login(self):
        imap = self.peer("imap")
        imap.ask(f"a LOGIN {address('alice')} {PASSWORD}".encode(), b"a OK")
        return imap

    def by_append(self, content, digest):
        imap = self.login()
        size = SIZE if digest else sum(map(len, content))
        imap.ask(b"b APPEND Drafts {%d}" % size, b"+")
        for piece in content:
            imap.socket.sendall(piece)
        self.assertTrue(imap.ask(b"", b"b ").startswith(b"b OK"))

    def read(self, file, size):
        digest = hashlib.sha256()
        while size:
            piece = file.read(min(size, 1 << 16))
            digest.update(piece)
            size -= len(piece)
        return digest.hexdigest()

    def by_fetch(self, content, digest):
        imap = self.login()
        for mailbox, prefix in ((b"Drafts", False), (b"INBOX", True)):
            imap.ask(b"c SELECT " + mailbox, b"c OK")
            imap.say(b"d UID FETCH * (BODY.PEEK[])")
            line = imap.line()
            size = int(line.rpartition(b"{")[2].partition(b"}")[0])
            if digest:
                # The body is the message's end; the trace headers before it are the server's.
                imap.file.read(size - SIZE)
                self.assertTrue(prefix or size == SIZE)
                self.assertEqual(self.read(imap.file, SIZE), digest)
            else:
                self.read(imap.file, size)
            self.assertEqual(imap.line(), b")\r\n")

    def by_retr(self, content, digest):
        pop3 = self.peer("pop3")
        pop3.ask(b"USER " + address("alice").encode(), b"+OK")
        pop3.ask(b"PASS " + PASSWORD.encode(), b"+OK")
        pop3.ask(b"RETR 1", b"+OK")
        found, skipping = hashlib.sha256(), True
        while (line := pop3.line()) != b".\r\n":
            skipping = skipping and not line.startswith(b"From: ")
            if not skipping:
                found.update(line)
        pop3.ask(b"QUIT", b"+OK")
        if digest:
            self.assertEqual(found.hexdigest(), digest)
