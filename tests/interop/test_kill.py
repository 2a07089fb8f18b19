"""
kill -9 at any instant, while mail arrives by SMTP and LMTP and is appended, flagged, moved and expunged.

After each restart everything that was acknowledged is there exactly once and whole, what was under way happened
completely or not at all, UIDs only grow, UIDVALIDITY is unchanged, and `mailplat check` is clean.
"""

import contextlib
import hashlib
import imaplib
import random
import re
import smtplib
import threading
import time
import unittest

from tests.interop.house import PASSWORD, House, address, without_prefix

ROUNDS = 20


def message(name: str) -> bytes:
    """A message whose every octet follows from its name; sizes differ, one in twenty is large."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    lines = int(digest[:4], 16) % 40 + 1
    if digest[4] == "0" and digest[5] < "c":
        lines = 3000
    body = "".join(f"{digest} {i}\r\n" for i in range(lines))
    return f"Subject: {name}\r\nFrom: a@elsewhere.test\r\n\r\n{body}".encode()


def subject(body: bytes) -> str:
    return re.search(rb"^Subject: (\S+)\r\n", body, re.M)[1].decode()


class Sender(threading.Thread):
    """Sends by SMTP or LMTP until the server is gone; remembers what was acknowledged."""

    def __init__(self, house: House, kind: str, users: tuple[str, ...], round_: int) -> None:
        super().__init__(daemon=True)
        self.house, self.kind, self.users, self.round = house, kind, users, round_
        self.acknowledged: list[str] = []
        self.tried: list[str] = []

    def run(self) -> None:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            if self.kind == "smtp":
                client = smtplib.SMTP("127.0.0.1", self.house.port["smtp"], timeout=30)
            else:
                client = smtplib.LMTP(str(self.house.lmtp), 0)
            client.ehlo()
            for number in range(100_000):
                name = f"{self.kind}-{self.round}-{number}"
                client.mail("a@elsewhere.test")
                for user in self.users:
                    client.rcpt(address(user))
                self.tried.append(name)
                code, _ = client.data(message(name))
                for _ in self.users[1:] if self.kind == "lmtp" else ():
                    code = max(code, client.getreply()[0])
                if code != 250:
                    raise AssertionError(f"{self.kind} answered {code}")
                self.acknowledged.append(name)


class Reader(threading.Thread):
    """
    Appends, flags, moves and expunges in its own account until the server is gone.

    `belief` is what the acknowledgements say: name -> (mailbox, uid, flagged).  `doing` is the
    operation that was not answered.
    """

    def __init__(self, house: House, user: str, belief: dict, gone: set, round_: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.house, self.user, self.belief, self.gone, self.round = house, user, belief, gone, round_
        self.random = random.Random(seed)
        self.doing = None

    def run(self) -> None:
        with contextlib.suppress(OSError, imaplib.IMAP4.abort, EOFError):
            client = imaplib.IMAP4("127.0.0.1", self.house.port["imap"], timeout=30)
            client.login(address(self.user), PASSWORD)
            client.select("Work")
            for number in range(100_000):
                self.step(client, number)

    def step(self, client: imaplib.IMAP4, number: int) -> None:
        here = [name for name, (mailbox, _, _) in self.belief.items() if mailbox == "Work"]
        kind = self.random.choice(("append", "append", "store", "move", "expunge")) if here else "append"
        name = self.random.choice(here) if kind != "append" else f"append-{self.user}-{self.round}-{number}"
        self.doing = (kind, name)
        if kind == "append":
            self.answer(client.append("Work", "()", None, message(name)))
            uid = int(re.search(rb"APPENDUID \d+ (\d+)", self.said)[1])
            self.belief[name] = ("Work", uid, False)
        else:
            _, uid, _ = self.belief[name]
            if kind == "store":
                self.answer(client.uid("STORE", str(uid), "+FLAGS", "(\\Flagged)"))
                self.belief[name] = ("Work", uid, True)
            elif kind == "move":
                self.answer(client.uid("MOVE", str(uid), "Moved"))
                self.belief[name] = ("Moved", None, self.belief[name][2])
            else:
                self.answer(client.uid("STORE", str(uid), "+FLAGS.SILENT", "(\\Deleted)"))
                self.answer(client.uid("EXPUNGE", str(uid)))
                del self.belief[name]
                self.gone.add(name)
        self.doing = None

    def answer(self, reply: tuple[str, list[bytes]]) -> None:
        kind, self.said = reply[0], b" ".join(item for item in reply[1] if isinstance(item, bytes))
        if kind != "OK":
            raise AssertionError(f"{self.doing} answered {reply}")


class KillTests(unittest.TestCase):
    def test_rounds(self) -> None:
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        chance = random.Random(seed)
        house = House()
        self.addCleanup(house.stop)
        house.start()
        for user in ("alice", "bob"):
            with house.imap(user) as client:
                client.create("Work")
                client.create("Moved")
        sent: dict[str, tuple[str, ...]] = {}
        tried: set[str] = set()
        belief: dict[str, dict] = {"alice": {}, "bob": {}}
        gone: dict[str, set] = {"alice": set(), "bob": set()}
        seen: dict[tuple[str, str], tuple[int, int]] = {}
        acknowledged = 0
        for round_ in range(ROUNDS):
            senders = [Sender(house, "smtp", ("alice",), round_), Sender(house, "lmtp", ("bob", "carol"), round_)]
            readers = [
                Reader(house, user, belief[user], gone[user], round_, chance.randrange(1 << 32)) for user in belief
            ]
            for thread in (*senders, *readers):
                thread.start()
            # At any instant, and not before there is something to lose, however slow the machine is.
            wanted, deadline = chance.randrange(40), time.monotonic() + 30
            while sum(len(one.acknowledged) for one in senders) < wanted and time.monotonic() < deadline:
                senders[0].join(0.01)
            senders[0].join(chance.uniform(0, 0.1))
            house.kill()
            for thread in (*senders, *readers):
                thread.join(60)
                self.assertFalse(thread.is_alive())
            for sender in senders:
                sent.update(dict.fromkeys(sender.acknowledged, sender.users))
                tried.update(sender.tried)
            acknowledged = len(sent)
            house.mailplat("check")
            house.start()
            with self.subTest(seed=seed, round=round_):
                self.check_mail(house, sent, tried)
                for reader in readers:
                    self.check_mailboxes(house, reader)
                self.check_uids(house, seen)
        self.assertGreater(acknowledged, 100)
        self.assertEqual(house.complaints(), "")

    def check_mail(self, house: House, sent: dict[str, tuple[str, ...]], tried: set[str]) -> None:
        for user in ("alice", "bob", "carol"):
            names = []
            for body in house.bodies(user):
                own = without_prefix(body)
                names.append(subject(own))
                self.assertEqual(own, message(names[-1]))
            self.assertEqual(len(names), len(set(names)), "something is there twice")
            missing = {name for name, users in sent.items() if user in users} - set(names)
            self.assertEqual(missing, set())
            self.assertEqual(set(names) - tried, set())

    def check_mailboxes(self, house: House, reader: Reader) -> None:
        found: dict[str, tuple[str, int, bool]] = {}
        with house.imap(reader.user) as client:
            for mailbox in ("Work", "Moved"):
                client.select(mailbox, readonly=True)
                _, answer = client.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[])")
                for item in answer:
                    if isinstance(item, tuple):
                        name = subject(item[1])
                        self.assertEqual(item[1], message(name))
                        self.assertNotIn(name, found, "something is there twice")
                        uid = int(re.search(rb"UID (\d+)", item[0])[1])
                        found[name] = (mailbox, uid, b"\\Flagged" in item[0])
        if reader.doing is not None:
            # Not answered: it happened or it did not, and now it is known.
            _, name = reader.doing
            if name in found:
                reader.belief[name] = found[name]
            elif reader.doing[0] in ("append", "expunge"):
                reader.belief.pop(name, None)
        self.assertEqual(set(found), set(reader.belief))
        for name, (mailbox, uid, flagged) in reader.belief.items():
            self.assertEqual((found[name][0], found[name][2]), (mailbox, flagged), name)
            if uid is not None:
                self.assertEqual(found[name][1], uid, name)
        self.assertEqual(set(found) & reader.gone, set())

    def check_uids(self, house: House, seen: dict[tuple[str, str], tuple[int, int]]) -> None:
        for user, mailbox in (("alice", "INBOX"), ("alice", "Work"), ("bob", "Moved"), ("carol", "INBOX")):
            with house.imap(user) as client:
                if mailbox == "Moved" and client.select(mailbox)[0] != "OK":
                    continue
                _, (line,) = client.status(mailbox, "(UIDNEXT UIDVALIDITY)")
            uid_next = int(re.search(rb"UIDNEXT (\d+)", line)[1])
            validity = int(re.search(rb"UIDVALIDITY (\d+)", line)[1])
            before = seen.get((user, mailbox), (0, validity))
            self.assertGreaterEqual(uid_next, before[0])
            self.assertEqual(validity, before[1])
            seen[user, mailbox] = (uid_next, validity)
