"""
How a server ends, and what others do while it runs: SIGTERM in the middle of everything, `mailplat` commands while
mail arrives.
"""

from __future__ import annotations

import imaplib
import poplib
import signal
import smtplib
import socket
import threading
import time
import unittest

from tests.interop.house import PASSWORD, House, address, without_prefix

#: How twistd ends after SIGTERM: by the same signal, once all is put away.
ENDED = (0, -signal.SIGTERM)


def message(name: str) -> bytes:
    return b"Subject: %b\r\n\r\n" % name.encode() + b"A line of text.\r\n" * 50


class Sender(threading.Thread):
    """Sends one message after the other until the server is gone or `enough` is set."""

    def __init__(self, house: House, name: str) -> None:
        super().__init__(daemon=True)
        self.house, self.prefix = house, name
        self.acknowledged: list[str] = []
        self.last: tuple[int, bytes] = (0, b"")
        self.enough = threading.Event()
        self.started = threading.Event()

    def run(self) -> None:
        try:
            with smtplib.SMTP("127.0.0.1", self.house.port["smtp"], timeout=30) as client:
                while not self.enough.is_set():
                    name = f"{self.prefix}-{len(self.acknowledged)}"
                    client.sendmail("a@elsewhere.test", [address("alice")], message(name))
                    self.acknowledged.append(name)
                    self.started.set()
        except smtplib.SMTPResponseException as error:
            self.last = error.smtp_code, error.smtp_error
        except (OSError, smtplib.SMTPException):
            pass


class Raw:
    """A connection read by lines."""

    def __init__(self, place: int | str) -> None:
        family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(30)
        self.socket.connect(place if isinstance(place, str) else ("127.0.0.1", place))
        self.file = self.socket.makefile("rb")
        self.greeting = self.file.readline()

    def ask(self, text: bytes, until: bytes) -> None:
        self.socket.sendall(text + b"\r\n")
        while not (line := self.file.readline()).startswith(until):
            assert line, f"closed after {text!r}"

    def rest(self) -> bytes:
        """Everything until the server closes."""
        return self.file.read()

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class HouseCase(unittest.TestCase):
    def setUp(self) -> None:
        self.house = House().start()
        self.addCleanup(self.house.stop)

    def raw(self, place: int | str) -> Raw:
        raw = Raw(place)
        self.addCleanup(raw.close)
        return raw

    def subjects(self) -> list[str]:
        found = []
        for body in map(without_prefix, self.house.bodies()):
            found.append(body.partition(b"\r\n")[0].removeprefix(b"Subject: ").decode())
            self.assertEqual(body, message(found[-1]))
        return found


class StopTests(HouseCase):
    def test_everybody_is_told_and_nothing_is_lost(self) -> None:
        house, port = self.house, self.house.port
        login = f"a LOGIN {address('alice')} {PASSWORD}".encode()
        smtp, lmtp = self.raw(port["smtp"]), self.raw(str(house.lmtp))
        lmtp.ask(b"LHLO client.test", b"250 ")
        lmtp.ask(b"MAIL FROM:<>", b"250")
        lmtp.ask(f"RCPT TO:<{address('bob')}>".encode(), b"250")
        lmtp.ask(b"DATA", b"354")
        lmtp.socket.sendall(b"half a mess")
        imap, idling, appending = (self.raw(port["imap"]) for _ in range(3))
        for each in (imap, idling, appending):
            each.ask(login, b"a OK")
        idling.ask(b"b SELECT INBOX", b"b OK")
        idling.ask(b"c IDLE", b"+")
        appending.ask(b"b APPEND Drafts {1000}", b"+")
        appending.socket.sendall(b"half a mess")
        pop3, marked = self.raw(port["pop3"]), self.raw(port["pop3"])
        # Whoever reads nothing cannot hold the others up either.
        deaf = self.raw(port["imap"])
        deaf.ask(login, b"a OK")
        senders = [Sender(house, f"s{number}") for number in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            self.assertTrue(sender.started.wait(30))
        marked.ask(f"USER {address('alice')}".encode(), b"+OK")
        marked.ask(f"PASS {PASSWORD}".encode(), b"+OK")
        marked.ask(b"DELE 1", b"+OK")
        deaf.ask(b"b SELECT INBOX", b"b OK")
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.socket.sendall(b"".join(b"c%d FETCH 1:* (BODY.PEEK[])\r\n" % number for number in range(500)))

        began = time.monotonic()
        self.assertIn(house.terminate(), ENDED)
        self.assertLess(time.monotonic() - began, 10)
        with self.assertRaises(OSError):
            Raw(port["smtp"])
        self.assertTrue(smtp.rest().startswith(b"421 4.3.2 "))
        self.assertTrue(lmtp.rest().startswith(b"421 4.3.2 "))
        for each in (imap, appending):
            self.assertTrue(each.rest().startswith(b"* BYE "))
        self.assertIn(b"* BYE ", idling.rest())
        for each in (pop3, marked):
            self.assertTrue(each.rest().startswith(b"-ERR [SYS/TEMP] "))
        for sender in senders:
            sender.join(30)
            self.assertFalse(sender.is_alive())
            self.assertIn(sender.last[0], (0, 421))
        house.mailplat("check")
        house.start()
        subjects = self.subjects()
        self.assertEqual(len(subjects), len(set(subjects)))
        acknowledged = {name for sender in senders for name in sender.acknowledged}
        self.assertEqual(acknowledged - set(subjects), set())
        self.assertEqual(house.bodies("bob"), [])
        self.assertEqual(house.bodies(mailbox="Drafts"), [])
        self.assertEqual(house.complaints(), "")


class LockTests(HouseCase):
    def pop3(self) -> poplib.POP3:
        client = poplib.POP3("127.0.0.1", self.house.port["pop3"], timeout=30)
        client.user(address("alice"))
        client.pass_(PASSWORD)
        return client

    def test_a_maildrop_is_free_after_kill_9(self) -> None:
        self.house.send(message("one"))
        held = self.pop3()
        self.addCleanup(held.close)
        held.dele(1)
        with self.assertRaisesRegex(poplib.error_proto, "IN-USE"):
            self.pop3()
        self.house.kill()
        self.house.start()
        client = self.pop3()
        self.assertEqual(len(client.list()[1]), 1)
        client.quit()


class CommandTests(HouseCase):
    def test_commands_while_mail_arrives(self) -> None:
        house = self.house
        senders = [Sender(house, f"s{number}") for number in range(2)]
        for sender in senders:
            sender.start()
        for number in range(2):
            user = f"new{number}"
            for words in (("add", address(user)), ("password", address(user))):
                account = ("account", *words, "--password-stdin")
                house.mailplat(*account, stdin=f"{PASSWORD}\n")
            house.send(message(user), user)
            self.assertEqual([without_prefix(body) for body in house.bodies(user)], [message(user)])
            house.mailplat("check")
            self.assertIn(address(user), house.mailplat("account", "list").stdout)
            house.mailplat("account", "remove", address(user), "--yes")
            # At RCPT, or when the commit finds out what another process did.
            with self.assertRaises((smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)) as refused:
                house.send(message(user), user)
            self.assertIn("5.1.1", str(refused.exception))
            with self.assertRaises(imaplib.IMAP4.error):
                house.imap(user)
        for sender in senders:
            sender.enough.set()
            sender.join(30)
            self.assertEqual(sender.last, (0, b""))
        acknowledged = [name for sender in senders for name in sender.acknowledged]
        self.assertGreater(len(acknowledged), 10)
        self.assertEqual(sorted(self.subjects()), sorted(acknowledged))
        house.mailplat("check")
        self.assertEqual(house.complaints(), "")
