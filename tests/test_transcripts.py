"""
Transcripts tell what was said, and no secret, however it is spelled, split or misplaced.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from base64 import b64encode
from dataclasses import replace
from itertools import pairwise
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap.limits import Limits as IMAPLimits
from mailplat.imap.server import IMAPFactory
from mailplat.pop3.server import POP3Factory
from mailplat.smtp.client import ClientLimits, ClientSettings, Login, connect
from mailplat.smtp.grammar import Reply
from mailplat.smtp.server import SMTPFactory
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import InstantReactor, MemorySpool, new_message, outline_of
from mailplat.testing.stage import Stage
from mailplat.transcripts import TranscriptLimits, Transcripts, Wish, _RelayTeller, names
from mailplat.trust import Trust
from mailplat.values import Peer, TLSRequirement
from tests.smtp.test_client_server import MemoryEndpoint, Network

NAME = "alice@example.test"
PASSWORD = "hunter2-Xy9_secret"
CONTENT = b"Subject: Treasure-map\r\nFrom: Captain-Flint <flint@x.test>\r\n\r\nGold-under-palm\r\n"


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


PLAIN = encoded(f"\0{NAME}\0{PASSWORD}")
WORD = encoded(PASSWORD)

#: What no transcript may have; of base64 not even a part.
SECRETS = (PASSWORD, *(text[n : n + 8] for text in (PLAIN[16:], WORD) for n in range(len(text) - 8)))
CONTENTS = ("Treasure-map", "Gold-under", "Captain-Flint")


class TranscriptCase(SynchronousTestCase):
    def setUp(self) -> None:
        parent = tempfile.mkdtemp(prefix="mailplat-")
        self.addCleanup(shutil.rmtree, parent)
        self.directory = os.path.join(parent, "transcripts")
        self.reactor = InstantReactor()
        self.reactor.advance(1_800_000_000)
        self.transcripts = Transcripts(self.directory, self.reactor.seconds)

    def want(self, **words) -> None:
        Wish(self.reactor.seconds() + 3600, **words).write(self.directory)

    def factory(self, service: str):
        store = MemoryStore(self.reactor.seconds)
        stage = Stage(store)
        self.result(stage.account(NAME, PASSWORD))
        inbox = self.result(self.result(store.account(NAME)).open("INBOX"))
        self.result(inbox.append([new_message(CONTENT)]))
        if service == "imap":
            factory = IMAPFactory(
                stage.portal,
                MemorySpool(outline=outline_of),
                self.reactor,
                limits=IMAPLimits(bad_commands=1000),
            )
        elif service == "pop3":
            factory = POP3Factory(stage.portal, self.reactor, hostname="mx.test")
        else:
            factory = SMTPFactory(
                stage.portal,
                MemorySpool(outline=outline_of),
                self.reactor,
                hostname="mx.test",
                service=service,
            )
        factory.observe = self.transcripts.observe
        return factory

    def result(self, awaitable):
        async def wait():
            return await awaitable

        return self.successResultOf(Deferred.fromCoroutine(wait()))

    def talk(self, service: str, *pieces: bytes) -> tuple[bytes, str]:
        """What the peer was told, and the transcript."""
        self.reactor.advance(0.001)
        factory = self.factory(service)
        connection = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40000))
        transport = StringTransport()
        connection.makeConnection(transport)
        for piece in pieces:
            connection.dataReceived(piece)
        answers = transport.value()
        connection.readConnectionLost()
        connection.connectionLost(_closed())
        return answers, self.last()

    def last(self) -> str:
        with open(os.path.join(self.directory, names(self.directory)[-1]), encoding="utf-8") as file:
            return file.read()

    def said(self, text: str) -> list[str]:
        """The lines of a transcript without their times."""
        return [line[10:] for line in text.splitlines()]


def _closed():
    from twisted.internet.protocol import connectionDone

    return connectionDone


class WhatIsToldTests(TranscriptCase):
    maxDiff = None

    def test_submission(self) -> None:
        self.want()
        _, text = self.talk(
            "submission",
            b"EHLO client.test\r\n",
            f"AUTH PLAIN {PLAIN}\r\n".encode(),
            b"MAIL FROM:<alice@example.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n",
            CONTENT + b".\r\nQUIT\r\n",
        )
        lines = self.said(text)
        self.assertRegex(
            lines[0],
            r"^-- submission from 127\.0\.0\.1:40000, connection [0-9a-f]{12}, 2027-01-15 08:00:00 UTC$",
        )
        for line in (
            "S: 220 mx.test ESMTP",
            "C: EHLO client.test",
            f"C: AUTH PLAIN [{len(PLAIN)} octets]",
            "C: MAIL FROM:<alice@example.test>",
            "C: RCPT TO:<bob@example.test>",
            "C: DATA",
            f"C: [{len(CONTENT)} octets]",
            "C: QUIT",
        ):
            self.assertIn(line, lines)
        self.assertTrue([line for line in lines if line.startswith("S: 235 ")])
        self.assertTrue([line for line in lines if line.startswith("S: 354 ")])
        self.assertEqual(lines[-1], "-- the connection ended: Connection was closed cleanly.")
        self.assertRegex(text, r"(?m)^    0\.000 C: QUIT$")

    def test_pop3(self) -> None:
        self.want(service="pop3")
        _, text = self.talk(
            "pop3",
            f"USER {NAME}\r\nPASS {PASSWORD}\r\n".encode(),
            b"STAT\r\nLIST\r\nTOP 1 0\r\nRETR 1\r\nDELE 2\r\nQUIT\r\n",
        )
        lines = self.said(text)
        for line in (
            f"C: USER {NAME}",
            f"C: PASS [{len(PASSWORD)} octets]",
            "C: LIST",
            f"S: 1 {len(CONTENT)}",
            "C: RETR 1",
            f"S: [{len(CONTENT) + 3} octets]",
            "C: DELE 2",
        ):
            self.assertIn(line, lines)

    def test_imap(self) -> None:
        self.want(peer="127.0.0.0/8")
        answers, text = self.talk(
            "imap",
            f"a1 login {NAME} {PASSWORD}\r\na2 select inbox\r\n".encode(),
            b"a3 uid fetch 1:* (flags envelope body.peek[])\r\n",
            b"a4 append INBOX (\\Seen) {%d}\r\n" % len(CONTENT),
            CONTENT + b"\r\n",
            b"a5 search text Gold-under\r\na6 store 1 +flags (Lost)\r\na7 idle\r\ndone\r\na8 nonsense\r\n",
            b"a9 logout\r\n",
        )
        self.assertIn(b"Gold-under-palm", answers)
        lines = self.said(text)
        for line in (
            f"C: a1 LOGIN {NAME} [{len(PASSWORD)} octets]",
            "C: a2 SELECT mailbox='INBOX' condstore=False",
            "C: a3 UID FETCH 1:* (UID FLAGS ENVELOPE BODY[])",
            "C: a6 STORE numbers=1 change=+(Lost) silent=False unchanged_since=None",
            f"C: [{len(CONTENT)} octets]",
            "C: a5 SEARCH",
            "C: a7 IDLE",
            "C: DONE",
            "C: [no command]",
            "C: a9 LOGOUT",
            "S: * SEARCH 1 2",
        ):
            self.assertIn(line, lines)
        (fetched,) = [line for line in lines if line.startswith("S: * 1 FETCH (UID")]
        self.assertTrue(fetched.endswith(f" BODY[] [{len(CONTENT)} octets])"), fetched)
        self.assertTrue([line for line in lines if line.startswith("S: [tag] BAD ")])

    def test_contents_that_are_wanted(self) -> None:
        self.want(content=True)
        for service, pieces in (
            (
                "imap",
                [
                    f"a login {NAME} {PASSWORD}\r\n".encode(),
                    b"a select inbox\r\na fetch 1 (envelope body[])\r\n",
                ],
            ),
            ("pop3", [f"USER {NAME}\r\nPASS {PASSWORD}\r\n".encode(), b"RETR 1\r\nQUIT\r\n"]),
            ("smtp", [b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n", CONTENT + b".\r\n"]),
        ):
            _, text = self.talk(service, *pieces)
            for word in CONTENTS:
                self.assertIn(word, text, service)
            self.assertNotIn(PASSWORD, text)
            self.assertEqual(len([line for line in self.said(text) if "Gold-under-palm" in line]), 1, text)

    def test_nothing_obeys_the_peer(self) -> None:
        self.want(content=True)
        _, text = self.talk(
            "smtp", b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n", b"\x1b[2J\xff\x00\r\n.\r\n"
        )
        self.assertIn(r"C: \x1b[2J\xff\x00", text)

    def test_the_relay(self) -> None:
        for service, chunking in (("submission", True), ("submission", False), ("lmtp", True)):
            network = Network(service)
            self.reactor = network.clock
            self.directory += "x"
            self.transcripts = Transcripts(self.directory, network.clock.seconds)
            self.want(service="relay")
            made = ClientSettings(
                "client.test",
                lmtp=service == "lmtp",
                login=None if service == "lmtp" else Login(NAME, "secret"),
                limits=ClientLimits(chunk=30),
            )
            client = network.result(
                connect(
                    MemoryEndpoint(network),
                    "mx.test",
                    made,
                    network.clock,
                    Trust(),
                    self.transcripts.observe,
                )
            )
            if not chunking:
                client._sending.extensions = replace(client.extensions, chunking=False, pipelining=False)
            for _ in range(2):
                network.send(client, CONTENT, hidden=True)
            network.result(client.quit())
            text = self.last()
            lines = self.said(text)
            self.assertIn("C: RCPT TO:<alice@example.test>", lines)
            self.assertEqual(
                len([line for line in lines if line.startswith("C: MAIL FROM:<sender@")]), 2, text
            )
            logins = [line for line in lines if line.startswith("C: AUTH SCRAM-SHA-256 [")]
            self.assertEqual(len(logins), int(service != "lmtp"), text)
            self.assertIn("C: QUIT", lines)
            self.assertIn("mtp-client to 127.0.0.1:25", lines[0])
            for word in (*CONTENTS, encoded("secret")):
                self.assertNotIn(word, text)
            if not chunking:
                self.assertEqual(lines.count(f"C: [{len(CONTENT)} octets]"), 2, text)

    def test_tls(self) -> None:
        network = Network("submission", tls=True)
        self.reactor = network.clock
        self.transcripts = Transcripts(self.directory, network.clock.seconds)
        self.want()
        network.factory.observe = self.transcripts.observe
        made = ClientSettings(
            "client.test", login=Login(NAME, "secret"), requirement=TLSRequirement("encrypt")
        )
        connecting = connect(
            MemoryEndpoint(network), "mx.test", made, network.clock, Trust(), self.transcripts.observe
        )
        network.result(network.result(connecting).quit())
        found = names(self.directory)
        self.assertEqual(len(found), 2)
        for name in found:
            with open(os.path.join(self.directory, name)) as file:
                lines = self.said(file.read())
            before = lines.index("-- TLS begins")
            self.assertEqual(lines[before - 2 : before][0], "C: STARTTLS")
            self.assertTrue([line for line in lines[before:] if line.startswith("-- TLSv1.3 TLS_")], lines)
            self.assertTrue([line for line in lines[before:] if line.startswith("C: AUTH SCRAM-")], lines)


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


#: What a peer may do with its password, well or badly.
SPELLINGS = {
    "submission": [
        f"AUTH PLAIN {PLAIN}",
        f"auth  plain {PLAIN}",
        f"AUTH PLAIN\r\n{PLAIN}",
        f"AUTH LOGIN\r\n{encoded(NAME)}\r\n{WORD}",
        f"AUTH LOGIN {encoded(NAME)}\r\n{WORD}",
        f"AUTH NONSENSE {PLAIN}",
        f"AUTH {PLAIN}",
        f"AUTH PLAIN {PLAIN} {PLAIN}",
        f"AUTH PLAIN {WORD}=",
        f"AUTH PLAIN\r\n*\r\n{PLAIN}",
        f"AUTH SCRAM-SHA-256 {PLAIN}",
        PLAIN,
        WORD,
        PASSWORD,
        f"PASS {PASSWORD}",
        f"PASS:{PASSWORD}",
        f"NOOP {PASSWORD}",
        f"QUIT{PASSWORD}",
        f"HELP {PLAIN}",
        f"RSET {PLAIN}",
        f"DATA {PLAIN}",
        f"STARTTLS {PLAIN}",
        f"\x00{PASSWORD}",
        f"é {PASSWORD}",
        f"{PASSWORD}{'x' * 3000}",
        f"AUTH PLAIN {PLAIN * 300}",
    ],
    "pop3": [
        f"USER {NAME}\r\nPASS {PASSWORD}",
        f"USER {NAME}\r\nPASS {PASSWORD}x",
        f"user {NAME}\r\npass {PASSWORD} ",
        f"PASS {PASSWORD}",
        f"APOP {NAME} {PASSWORD}",
        f"AUTH PLAIN {PLAIN}",
        f"AUTH PLAIN\r\n{PLAIN}",
        f"AUTH LOGIN\r\n{encoded(NAME)}\r\n{WORD}",
        f"AUTH {PLAIN}",
        f"AUTH PLAIN\r\n*\r\n{PLAIN}",
        f"AUTH SCRAM-SHA-256 {PLAIN}",
        PLAIN,
        WORD,
        PASSWORD,
        f"LOGIN {NAME} {PASSWORD}",
        f"NOOP {PASSWORD}",
        f"QUIT{PASSWORD}",
        f"CAPA {PASSWORD}",
        f"\x00{PASSWORD}",
        f"PASS {PASSWORD}{'x' * 3000}",
    ],
    "imap": [
        f"a LOGIN {NAME} {PASSWORD}",
        f'a login "{NAME}" "{PASSWORD}"',
        f"a LOGIN {NAME} {{{len(PASSWORD)}+}}\r\n{PASSWORD}",
        f"a LOGIN {{{len(NAME)}}}\r\n{NAME} {{{len(PASSWORD)}}}\r\n{PASSWORD}",
        f"a LOGIN {NAME} {PASSWORD}x",
        f"a LOGIN {NAME} {PASSWORD} more",
        f"a LOGIN {PASSWORD}",
        f"a LOGIN {NAME} {{99999999}}\r\n{PASSWORD}",
        f"a LOGIN {NAME} {{{len(PASSWORD)}}}\r\n{PASSWORD} {{9}}",
        f"LOGIN {NAME} {PASSWORD}",
        f"a {PASSWORD}",
        f"{PASSWORD} a",
        f"{PASSWORD}",
        f"PASS {PASSWORD}",
        f"a AUTHENTICATE PLAIN {PLAIN}",
        f"a authenticate plain\r\n{PLAIN}",
        f"a AUTHENTICATE LOGIN\r\n{encoded(NAME)}\r\n{WORD}",
        f"a AUTHENTICATE PLAIN\r\n*\r\n{PLAIN}",
        f"a AUTHENTICATE {PLAIN}",
        f"a AUTHENTICATE {WORD.rstrip('=')}",
        f"a AUTHENTICATE NONSENSE {PLAIN}",
        f"a AUTHENTICATE PLAIN {PLAIN} {PLAIN}",
        f"a AUTHENTICATE SCRAM-SHA-256 {PLAIN}",
        f"{PLAIN}",
        f"{PLAIN} x",
        f"{WORD}",
        f"a NOOP {PASSWORD}",
        f"a\x00 LOGIN {PASSWORD}",
        f"a LOGIN é {PASSWORD}",
        f"a LOGIN {NAME} {PASSWORD * 500}",
    ],
}

AFTER = {
    "submission": [b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + CONTENT + b".\r\n",
                   b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT %d LAST\r\n%b" % (len(CONTENT), CONTENT),
                   b"MAIL FROM:<a@b>\r\nBDAT %d\r\n%b" % (len(CONTENT), CONTENT)],
    "pop3": [b"RETR 1\r\n", b"TOP 1 5\r\n", b"RETR 1\r\nRETR 1\r\nLIST\r\n"],
    "imap": [b"b SELECT INBOX\r\nb FETCH 1 (ENVELOPE BODY[] BODYSTRUCTURE)\r\n",
             b"b SELECT INBOX\r\nb UID FETCH 1 (BODY[HEADER.FIELDS (SUBJECT FROM)] BODY[TEXT])\r\n",
             b"b APPEND INBOX {%d+}\r\n%b\r\n" % (len(CONTENT), CONTENT),
             b"b SELECT INBOX\r\nb SEARCH SUBJECT Treasure-map\r\n"],
}  # fmt: skip

CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)


class SecretsTests(TranscriptCase):
    def safe(self, text: str, what: object) -> None:
        # Verbs and mechanisms are told in capitals.
        text = text.lower()
        for word in (*SECRETS, *CONTENTS):
            self.assertNotIn(word.lower(), text, what)

    def test_each_spelling_whole_and_octet_by_octet(self) -> None:
        self.want()
        for service, spellings in SPELLINGS.items():
            for spelling in spellings:
                data = _bytes(spelling) + b"\r\n"
                greeting = b"EHLO x\r\n" * (service == "submission")
                for pieces in ([greeting + data], [greeting, *(data[n : n + 1] for n in range(len(data)))]):
                    if len(pieces) > 1000:
                        continue
                    _, text = self.talk(service, *pieces)
                    self.safe(text, spelling)
        self.assertFalse(self.flushLoggedErrors())

    @settings(max_examples=60)
    @given(st.data())
    def test_any_order_and_any_segments(self, data) -> None:
        if not os.path.exists(self.directory):
            self.want()
        service = data.draw(st.sampled_from(sorted(SPELLINGS)))
        parts = data.draw(
            st.lists(
                st.one_of(
                    st.sampled_from([_bytes(text) + b"\r\n" for text in SPELLINGS[service]]),
                    st.sampled_from(AFTER[service]),
                ),
                min_size=1,
                max_size=6,
            )
        )
        if service == "submission":
            parts.insert(0, b"EHLO x\r\n")
        if data.draw(st.booleans()):
            login = {"submission": f"AUTH PLAIN {PLAIN}", "pop3": f"AUTH PLAIN {PLAIN}"}
            parts.insert(1, login.get(service, f"x LOGIN {NAME} {PASSWORD}").encode() + b"\r\n")
        _, text = self.talk(service, *chunked(b"".join(parts), data.draw(CUTS)))
        # A message whose transaction was refused is no message: its lines are commands, or none.
        self.safe(text, parts)

    @given(CUTS, st.booleans(), st.booleans())
    def test_as_a_client(self, cuts, told, pipelined) -> None:
        teller = _RelayTeller(told)
        lines: list[str] = []

        def say(data: bytes) -> None:
            for piece in chunked(data, cuts):
                lines.extend(teller.sent(piece))

        def hear(code: int, text: str) -> None:
            lines.extend(teller.received(Reply(code, (text,))))

        for attempt in (
            [f"AUTH PLAIN {PLAIN}", (535, f"No such command: {PLAIN}")],
            ["AUTH LOGIN", (334, "VXNlcm5hbWU6"), encoded(NAME), (334, WORD), WORD, (235, PLAIN)],
        ):
            for step in attempt:
                if isinstance(step, str):
                    say(step.encode() + b"\r\n")
                else:
                    hear(*step)
        for _ in range(2):
            say(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + b"DATA\r\n" * pipelined)
            hear(250, "ok")
            hear(250, "ok")
            if not pipelined:
                say(b"DATA\r\n")
            hear(354, "go on")
            say(CONTENT + b"..\r\nMAIL FROM:<Gold-under>\r\n" + b".\r\n")
            hear(250, "taken")
        say(b"BDAT %d\r\n%bBDAT %d LAST\r\n%bQUIT\r\n" % (len(CONTENT), CONTENT, len(CONTENT), CONTENT))
        text = "\n".join(lines)
        for word in SECRETS if told else (*SECRETS, *CONTENTS):
            self.assertNotIn(word, text)
        self.assertEqual(text.count("MAIL FROM:<a@b>"), 2)
        self.assertEqual(lines[-1], "QUIT")
        if told:
            self.assertEqual(text.count("Gold-under-palm"), 4)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8")


class FilesTests(TranscriptCase):
    def peer(self, service: str = "imap", host: str = "192.0.2.7", port: int = 5) -> Peer:
        return Peer(service, host, port, connection=f"c{port:05}")

    def test_nothing_is_wanted(self) -> None:
        self.assertIsNone(self.transcripts.observe(self.peer()))
        self.assertFalse(os.path.exists(self.directory))
        factory = self.factory("imap")
        connection = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40000))
        connection.makeConnection(StringTransport())
        self.assertIsNone(connection._observer)

    def test_for_the_owner_only(self) -> None:
        self.want()
        self.transcripts.observe(self.peer()).ended("so")
        self.assertEqual(stat.S_IMODE(os.stat(self.directory).st_mode), 0o700)
        for name in os.listdir(self.directory):
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.directory, name)).st_mode), 0o600, name)
        self.assertEqual(names(self.directory), ["20270115-080000-000-imap-192.0.2.7-c00005.txt"])

    def test_which(self) -> None:
        for words, peer, meant in [
            ({}, self.peer(), True),
            ({}, self.peer(host=""), True),
            ({}, self.peer("local"), False),
            ({"service": "imap"}, self.peer(), True),
            ({"service": "smtp"}, self.peer(), False),
            ({"service": "relay"}, self.peer("smtp-client"), True),
            ({"service": "relay"}, self.peer("lmtp-client"), True),
            ({"service": "relay"}, self.peer("smtp"), False),
            ({"peer": "192.0.2.7"}, self.peer(), True),
            ({"peer": "192.0.2.0/24"}, self.peer(), True),
            ({"peer": "192.0.2.8"}, self.peer(), False),
            ({"peer": "2001:db8::/32"}, self.peer(host="2001:db8::1"), True),
            ({"peer": "2001:db8::/32"}, self.peer(), False),
            ({"peer": "192.0.2.8"}, self.peer(host=""), False),
            ({"peer": "nonsense"}, self.peer(), False),
        ]:
            self.want(**words)
            self.reactor.advance(2)
            found = self.transcripts.observe(peer)
            self.assertEqual(found is not None, meant, (words, peer))
            if found is not None:
                found.ended("so")

    def test_over_after_a_while(self) -> None:
        self.want()
        transcript = self.transcripts.observe(self.peer("smtp"))
        self.reactor.advance(3599)
        transcript.sent(b"250 one\r\n")
        self.reactor.advance(1)
        transcript.sent(b"250 two\r\n")
        transcript.ended("so")
        self.assertIsNone(self.transcripts.observe(self.peer()))
        self.assertEqual(
            self.said(self.last())[1:],
            ["S: 250 one", "-- the transcript ends here: it is not wanted any more"],
        )

    def test_turned_off(self) -> None:
        self.want()
        transcript = self.transcripts.observe(self.peer("smtp"))
        Wish.forget(self.directory)
        Wish.forget(self.directory)
        self.reactor.advance(1)
        transcript.sent(b"250 two\r\n")
        self.assertNotIn("two", self.last())
        self.assertIsNone(self.transcripts.observe(self.peer()))

    def test_turned_on_again(self) -> None:
        self.assertIsNone(self.transcripts.observe(self.peer()))
        self.want()
        self.assertIsNone(self.transcripts.observe(self.peer()))
        self.reactor.advance(1)
        self.transcripts.observe(self.peer()).ended("so")

    def test_a_wish_that_makes_no_sense(self) -> None:
        os.mkdir(self.directory)
        for text in ("", "{", "[]", "{}", '{"until": 1}', '"x"'):
            with open(os.path.join(self.directory, "wish.json"), "w") as file:
                file.write(text)
            self.assertIsNone(Wish.read(self.directory))

    def test_long_conversations(self) -> None:
        self.transcripts.limits = TranscriptLimits(size=1000)
        self.want()
        transcript = self.transcripts.observe(self.peer("smtp"))
        for _ in range(100):
            transcript.sent(b"250 and so on\r\n")
        transcript.ended("so")
        text = self.last()
        self.assertLess(len(text), 1100)
        self.assertTrue(text.endswith("-- the transcript ends here: it is long enough\n"))

    def test_many_conversations(self) -> None:
        self.transcripts.limits = TranscriptLimits(files=3)
        self.want()
        for port in range(10):
            self.transcripts.observe(self.peer(port=port)).ended("so")
            self.reactor.advance(0.001)
        self.assertEqual([name[-10:-4] for name in names(self.directory)], ["c00007", "c00008", "c00009"])

    def test_a_disk_that_fails(self) -> None:
        self.want()
        transcript = self.transcripts.observe(self.peer("smtp"))
        with mock.patch("os.write", side_effect=OSError(28, "No space left on device")):
            transcript.sent(b"250 x\r\n")
        transcript.sent(b"250 y\r\n")
        transcript.ended("so")
        self.assertEqual(len(self.said(self.last())), 1)
        shutil.rmtree(self.directory)
        with open(self.directory, "w"):
            self.assertIsNone(self.transcripts.observe(self.peer()))
        os.unlink(self.directory)

    def test_what_is_not_understood_is_not_written(self) -> None:
        self.want()
        transcript = self.transcripts.observe(self.peer("smtp"))
        transcript.received(object())
        transcript.received(PASSWORD)
        transcript.ended("so")
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertEqual(self.said(self.last())[1:], ["-- the transcript is given up"])

    def test_a_socket(self) -> None:
        self.want()
        factory = self.factory("lmtp")
        connection = factory.buildProtocol(UNIXAddress(None))
        connection.makeConnection(StringTransport())
        connection.connectionLost(_closed())
        self.assertIn("lmtp from a UNIX socket, connection ", self.last())
