"""
A disk that is full: temporary answers, nothing acknowledged lost, reading goes on meanwhile, and service again
when there is room.
"""

from __future__ import annotations

import os
import poplib
import resource
import smtplib
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.interop.house import PASSWORD, House, address, without_prefix

KIB = 1024


def message(number: int, size: int = 3 * KIB) -> bytes:
    return b"Subject: %d\r\n\r\n" % number + b"x" * 78 * (size // 80) + b"\r\n"


class FullTests:
    """Combined with what makes the disk full, and with a test case."""

    house: House

    def fill(self) -> None: ...

    def free(self) -> None: ...

    def smtp(self, body: bytes) -> tuple[int, bytes]:
        """The last reply of a transaction."""
        with smtplib.SMTP("127.0.0.1", self.house.port["smtp"], timeout=30) as client:
            client.ehlo()
            for code, text in (client.mail("a@elsewhere.test"), client.rcpt(address("alice"))):
                if code != 250:
                    return code, text
            return client.data(body)

    def lmtp(self, body: bytes) -> list[int]:
        """A code for each of two recipients."""
        with smtplib.LMTP(str(self.house.lmtp), 0) as client:
            client.ehlo()
            client.mail("a@elsewhere.test")
            client.rcpt(address("bob"))
            client.rcpt(address("carol"))
            return [client.data(body)[0], client.getreply()[0]]

    def refuses(self, answer) -> None:
        kind, (text, *_) = answer
        self.assertEqual((kind, text.split()[0]), ("NO", b"[UNAVAILABLE]"), answer)

    def accepts(self, answer) -> None:
        self.assertEqual(answer[0], "OK", answer)

    def test_full_and_free_again(self) -> None:
        house = self.house
        sent = [message(number) for number in range(40)]
        for body in sent:
            self.assertEqual(self.smtp(body)[0], 250)
        with house.imap() as client:
            client.select()
            self.accepts(client.uid("STORE", "1", "+FLAGS", "(\\Deleted)"))
            self.fill()
            for body in (message(100, 200 * KIB), message(101, 2000 * KIB), message(102)):
                code, text = self.smtp(body)
                self.assertEqual((code, text[:5]), (452, b"4.3.1"))
                self.assertEqual(self.lmtp(body), [452, 452])
                self.refuses(client.append("INBOX", "()", None, body))
            self.refuses(client.uid("STORE", "2:20", "+FLAGS", "(\\Flagged)"))
            self.refuses(client.expunge())
            self.refuses(client.uid("COPY", "2", "Drafts"))
            self.refuses(client.create("new"))
            pop3 = self.pop3()
            pop3.dele(1)
            with self.assertRaisesRegex(poplib.error_proto, r"-ERR \[SYS/TEMP\]"):
                pop3.quit()
            # Reading needs no room.
            self.check(sent)
            self.free()
            sent += [message(200), message(201, 2000 * KIB), message(202)]
            for body in sent[-3:]:
                self.assertEqual(self.smtp(body)[0], 250)
            self.assertEqual(self.lmtp(message(203)), [250, 250])
            self.accepts(client.append("Drafts", "()", None, message(204)))
            self.accepts(client.uid("STORE", "2", "+FLAGS", "(\\Flagged)"))
            self.accepts(client.expunge())
        self.check(sent[1:])
        self.assertEqual(list(map(without_prefix, house.bodies("bob"))), [message(203)])
        house.mailplat("check")
        self.assertEqual(house.complaints(), "")
        self.assertEqual(os.listdir(house.data / "spool"), [])

    def check(self, sent: list[bytes]) -> None:
        self.assertEqual([without_prefix(body) for body in self.house.bodies()], sent)
        client = self.pop3()
        self.assertEqual(len(client.list()[1]), len(sent))
        client.quit()

    def pop3(self) -> poplib.POP3:
        client = poplib.POP3("127.0.0.1", self.house.port["pop3"], timeout=30)
        self.addCleanup(client.close)
        client.user(address("alice"))
        client.pass_(PASSWORD)
        return client


class NoFileMayGrow(FullTests, unittest.TestCase):
    """With the limit of the process on the size of files, which needs no privileges."""

    def setUp(self) -> None:
        self.house = House().start()
        self.addCleanup(self.house.stop)

    def limit(self, octets: int) -> None:
        resource.prlimit(self.house.process.pid, resource.RLIMIT_FSIZE, (octets, resource.RLIM_INFINITY))

    def fill(self) -> None:
        # Less than the index's log has already; the server's own log has less.
        self.limit(64 * KIB)

    def free(self) -> None:
        self.limit(resource.RLIM_INFINITY)


class SmallDisk(FullTests, unittest.TestCase):
    """A file system that is really full, where one may be mounted."""

    def setUp(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="mp-disk-", dir="/tmp"))
        self.addCleanup(self.data.rmdir)
        mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs", str(self.data)]
        if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
            self.skipTest("no file system can be mounted")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.data)], check=True)
        self.house = House(data=self.data).start()
        self.addCleanup(self.house.stop)

    def fill(self) -> None:
        with open(self.data / "filler", "wb", buffering=0) as filler:
            size = 1024 * KIB
            while size:
                try:
                    filler.write(b"x" * size)
                except OSError:
                    size //= 2

    def free(self) -> None:
        (self.data / "filler").unlink()
