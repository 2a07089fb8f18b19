"""
kill -9 at any instant, while accounts send to other hosts that do all that other hosts do.

Each remote domain is a server of this test's own: one takes everything, one says 4xx, one 5xx, one hangs, one hangs up
at any point, and one takes a message and hangs up without a word.  In the end everything that was accepted arrived, or
was reported once where it was refused; and twice arrived only what SMTP cannot know: the reply was lost, or the server
was killed before it could write down what it had read.
"""

from __future__ import annotations

import contextlib
import email
import random
import re
import smtplib
import socketserver
import sqlite3
import threading
import time
import unittest
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message

from tests.interop.house import DOMAIN, PASSWORD, House, address

ROUNDS = 30

#: Messages that one sender hands in until the server is killed, at the most.
EACH = 6

POINTS = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "BODY", ".")

SETTINGS = """
[relay]
networks = ["127.0.0.0/8"]

[relay.routes]
{routes}

[limits.schedule]
retries = [1]
delay_notice = 0

[limits.relay]
rest = 0.5

[limits.client]
greeting_timeout = 2.0
mail_timeout = 2.0
rcpt_timeout = 2.0
data_timeout = 2.0
end_timeout = 2.0
command_timeout = 2.0
quit_timeout = 1.0
"""


@dataclass
class Copy:
    """
    A message that came in whole.

    Attributes:
        answered: when its 250 was said, None if that was not said.
        left: when the client was gone, if it said nothing more.
    """

    answered: float | None = None
    left: float | None = None

    def is_uncertain(self, kills: list[float], commit: float) -> bool:
        """
        Whether the client can have missed the reply, or died before it was on disk.

        Args:
            commit: seconds that this may take.
        """
        said = self.answered
        if said is None or (self.left is not None and self.left - said < commit):
            return True
        return any(said <= kill < said + commit for kill in kills)


class Remote(socketserver.ThreadingTCPServer):
    """
    Args:
        domain: whose host it is; its first label says what it does.

    Attributes:
        calm: it behaves from now on, unless refusing is all it does.
        copies: Message-ID -> what came in.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 100

    def __init__(self, domain: str, chance: random.Random) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.kind = domain.partition(".")[0]
        self.calm = threading.Event()
        self.copies: dict[str, list[Copy]] = {}
        self._chance = chance
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    def fault(self) -> tuple[str, str]:
        """What is done wrong in a transaction, and where."""
        with self._lock:
            sick = self.kind != "good" and self._chance.random() < 0.5
            point = self._chance.choice(POINTS)
        if self.kind == "refuse":
            return "refuse", point if point in ("RCPT", "DATA", ".") else "RCPT"
        if not sick or self.calm.is_set():
            return "", ""
        return self.kind, "." if self.kind == "lose" else point

    def keep(self, message: bytes) -> Copy:
        name = re.search(rb"(?m)^Message-ID: <([\w.-]+)@", message)[1].decode()
        with self._lock:
            copy = Copy()
            self.copies.setdefault(name, []).append(copy)
            return copy

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever was spoken to was killed."""


class Left(Exception):
    """The connection is over."""


class Conversation(socketserver.StreamRequestHandler):
    server: Remote

    def handle(self) -> None:
        self.fault = self.server.fault()
        self.copy: Copy | None = None
        with contextlib.suppress(Left, OSError):
            self.point("CONNECT", "220 remote.test ESMTP")
            while True:
                word = self.line().split()[0].upper()
                if word == "DATA":
                    self.data()
                elif word == "EHLO":
                    self.point(word, "250-remote.test\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES")
                elif word == "QUIT":
                    return self.say("221 2.0.0 Bye")
                else:
                    self.point(word, "250 2.0.0 OK")

    def data(self) -> None:
        if not self.point("DATA", "354 Go ahead"):
            return
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line.endswith(b"\r\n"):
                raise Left
            lines.append(line.removeprefix(b"."))
            self.point("BODY", "")
        fault, where = self.fault
        if where == "." and fault in ("later", "refuse"):
            self.say("451 4.3.0 Later" if fault == "later" else "554 5.7.1 No")
        else:
            copy = self.server.keep(b"".join(lines))
            if where == ".":
                self.point(".", "")
            copy.answered = time.monotonic()
            self.copy = copy
            self.say("250 2.0.0 Taken")
        self.fault = self.server.fault()

    def point(self, point: str, text: str) -> bool:
        """Say this, or what is to be done wrong here; True if it went well."""
        fault, where = self.fault
        if where == point:
            if fault in ("drop", "lose"):
                raise Left
            if fault == "hang":
                # Until the client has enough of it.
                while self.rfile.read(1):
                    pass
                raise Left
            if point in ("MAIL", "RCPT", "DATA"):
                self.say("451 4.3.0 Later" if fault == "later" else "550 5.1.1 No")
                return False
        if text:
            self.say(text)
        return True

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def line(self) -> str:
        line = self.rfile.readline()
        if not line.endswith(b"\r\n"):
            if self.copy is not None:
                self.copy.left = time.monotonic()
            raise Left
        self.copy = None
        return line.decode()


class Sender(threading.Thread):
    """
    Sends as alice until the server is gone.

    Attributes:
        sent: Message-ID -> recipients, for all that was tried.
        accepted: those that were answered with 250.
        slowest: seconds that the slowest answer took.
    """

    def __init__(self, house: House, name: str, domains: list[str], seed: int) -> None:
        super().__init__(daemon=True)
        self.house, self.prefix, self.domains = house, name, domains
        self.random = random.Random(seed)
        self.sent: dict[str, set[str]] = {}
        self.accepted: set[str] = set()
        self.slowest = 0.0

    def run(self) -> None:
        with contextlib.suppress(OSError, smtplib.SMTPServerDisconnected):
            client = smtplib.SMTP("127.0.0.1", self.house.port["submission"], timeout=30)
            client.login(address("alice"), PASSWORD)
            for number in range(EACH):
                name = f"{self.prefix}.{number}"
                domains = self.random.sample(self.domains, self.random.randint(1, len(self.domains)))
                recipients = {f"someone@{domain}" for domain in domains}
                if self.random.random() < 0.5:
                    recipients.add(address("bob"))
                body = "line\r\n" * self.random.choice((1, 100, 5_000))
                text = f"From: {address('alice')}\r\nMessage-ID: <{name}@{DOMAIN}>\r\nSubject: {name}\r\n\r\n{body}"
                self.sent[name] = recipients
                begun = time.monotonic()
                refused = client.sendmail(address("alice"), sorted(recipients), text)
                if refused:
                    raise AssertionError(refused)
                self.accepted.add(name)
                self.slowest = max(self.slowest, time.monotonic() - begun)


class KillTests(unittest.TestCase):
    def setUp(self) -> None:
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        self.chance = random.Random(seed)
        kinds = ("good", "later", "refuse", "hang", "drop", "lose")
        self.remotes = {
            f"{kind}.test": Remote(f"{kind}.test", random.Random(self.chance.random())) for kind in kinds
        }
        for remote in self.remotes.values():
            self.addCleanup(remote.server_close)
            self.addCleanup(remote.shutdown)
        routes = "\n".join(
            f'"{domain}" = "smtp:127.0.0.1:{remote.server_address[1]}"'
            for domain, remote in self.remotes.items()
        )
        self.house = House()
        self.addCleanup(self.house.stop)
        file = self.house.directory / "settings.toml"
        file.write_text(SETTINGS.format(routes=routes))
        self.house.arguments = ("--config", str(file))

    def test_rounds(self) -> None:
        house = self.house
        sent: dict[str, set[str]] = {}
        accepted: set[str] = set()
        kills: list[float] = []
        slowest = 0.0
        house.start()
        for round_ in range(ROUNDS):
            senders = [
                Sender(house, f"m{round_}.{number}", list(self.remotes), self.chance.randrange(1 << 32))
                for number in range(3)
            ]
            for sender in senders:
                sender.start()
            threading.Event().wait(self.chance.uniform(0.05, 0.8))
            house.kill()
            kills.append(time.monotonic())
            for sender in senders:
                sender.join(60)
                self.assertFalse(sender.is_alive())
                sent.update(sender.sent)
                accepted |= sender.accepted
                slowest = max(slowest, sender.slowest)
            # While the server starts again: a check may run at any time.
            with ThreadPoolExecutor(1) as beside:
                check = beside.submit(house.mailplat, "check")
                house.start()
                check.result()
        self.assertGreater(len(accepted), ROUNDS)
        for remote in self.remotes.values():
            remote.calm.set()
        self.wait_until_done()
        house.terminate()
        self.assertEqual(house.complaints(), "")
        self.assertEqual(self.waiting(), 0)
        house.mailplat("check")
        house.start()
        # A submission is one commit too: on a busy machine both take long.
        self.check(sent, accepted, kills, 0.3 + 3 * slowest)

    def wait_until_done(self) -> None:
        """Nothing tells when all is delivered but the queue itself, which is empty then."""
        deadline = time.monotonic() + 120
        pause = threading.Event()
        while self.waiting() and time.monotonic() < deadline:
            pause.wait(0.2)

    def waiting(self) -> int:
        """Recipients in the queue, by its own books, while the server runs or does not."""
        (index,) = self.house.data.glob("**/index.sqlite")
        with contextlib.closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True, timeout=30)) as books:
            [(recipients,)] = books.execute("SELECT recipients FROM queue").fetchall()
        return int(recipients)

    def check(self, sent: dict[str, set[str]], accepted: set[str], kills: list[float], commit: float) -> None:
        refused = reports(self.house.bodies("alice"))
        own = Counter(
            email.message_from_bytes(body)["Message-ID"].strip("<>").partition("@")[0]
            for body in self.house.bodies("bob")
        )
        twice = 0
        for name, recipients in sent.items():
            found = {}
            for recipient in recipients:
                domain = recipient.partition("@")[2]
                if domain == DOMAIN:
                    found[recipient] = own[name]
                elif domain == "refuse.test":
                    found[recipient] = refused[name, recipient]
                else:
                    copies = self.remotes[domain].copies.get(name, [])
                    found[recipient] = len(copies)
                    *before, _ = copies or [None]
                    for copy in before:
                        self.assertTrue(
                            copy.is_uncertain(kills, commit), f"{name} to {recipient}: {copies}, {kills}"
                        )
                    twice += len(before)
                    continue
                self.assertLessEqual(found[recipient], 1, f"{name} to {recipient}")
            # What was not acknowledged may have been accepted: then for all of its recipients.
            if name in accepted or any(found.values()):
                self.assertNotIn(0, found.values(), f"{name}: {found}")
        self.assertEqual({name for name, _ in refused} - set(sent), set())
        self.assertEqual({recipient for _, recipient in refused}, {"someone@refuse.test"})
        self.assertGreater(twice, 0, "nothing was lost that could be")
        print(
            f"{len(accepted)} of {len(sent)} accepted, {sum(refused.values())} reports, {twice} came twice, {commit:.2f} s"
        )


def reports(bodies: list[bytes]) -> Counter[tuple[str, str]]:
    """(Message-ID, recipient) of each failure that is reported."""
    found: Counter[tuple[str, str]] = Counter()
    for body in bodies:
        report = email.message_from_bytes(body)
        _, status, original = report.get_payload()
        name = re.search(r"(?mi)^Message-ID: <([\w.-]+)@", str(original))[1]
        _, *recipients = status.get_payload()
        for one in recipients:
            assert isinstance(one, Message) and one["Action"] == "failed", str(one)
            found[name, one["Final-Recipient"].partition(";")[2].strip()] += 1
    return found
