"""POP3 sessions where something goes wrong, is slow, or is large."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailplat.errors import (
    LoginUnavailable,
    MessageRefused,
    NoSuchAccount,
    NoSuchMessage,
    OverQuota,
    StorageFull,
)
from mailplat.interfaces import IMaildrop
from mailplat.pop3.content import stuffed
from mailplat.pop3.engine import Limits
from mailplat.pop3.server import POP3Factory
from mailplat.pop3.session import LISTED, PIECE
from mailplat.testing.fakes import MemoryChecker, MemoryMessage
from mailplat.testing.wire import FakeWire
from mailplat.values import TLSInfo
from tests.auth.scram_client import ScramClient
from tests.pop3.support import ALICE

IN = b"USER alice@example.test\r\nPASS secret\r\n"


@implementer(IMaildrop)
class Drop:
    """A maildrop of messages in a list; an exception in it is raised when it is read."""

    def __init__(self, *messages: Any) -> None:
        self.contents = [MemoryMessage(m) if isinstance(m, bytes) else m for m in messages]
        self.deleted: list[int] | None = None
        self.failure: Exception | None = None
        self.slow: Deferred[None] | None = None
        self.released = 0

    def messages(self) -> Any:
        return [(f"id{n}", getattr(content, "size", 10)) for n, content in enumerate(self.contents)]

    async def content(self, index: int) -> Any:
        if isinstance(self.contents[index], Exception):
            raise self.contents[index]
        return self.contents[index]

    async def delete(self, indexes: Any) -> None:
        if self.slow is not None:
            await self.slow
        if self.failure is not None:
            raise self.failure
        self.deleted = list(indexes)

    def release(self) -> None:
        self.released += 1


class Broken(MemoryMessage):
    """Fails, or ends, after so many octets."""

    def __init__(self, size: int, good: int, failure: Exception | None = None) -> None:
        super().__init__(b"x" * size)
        self.good = good
        self.failure = failure

    async def read(self, start: int, length: int) -> bytes:
        if start >= self.good:
            if self.failure is not None:
                raise self.failure
            return b""
        return await super().read(start, min(length, self.good - start))


class Slow(MemoryMessage):
    """One that is read once the test says that it is `ready`."""

    def __init__(self, octets: bytes) -> None:
        super().__init__(octets)
        self.ready: Deferred[None] = Deferred()

    async def read(self, start: int, length: int) -> bytes:
        await self.ready
        return await super().read(start, length)


@implementer(IRealm)
class Realm:
    def __init__(self, drop: Any) -> None:
        self.drop = drop

    def requestAvatar(self, identity: Any, mind: Any, *interfaces: Any) -> Any:
        if isinstance(self.drop, Exception):
            raise self.drop
        return interfaces[0], self.drop, self.drop.release


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.checker = MemoryChecker({ALICE: "secret"})

    def start(self, drop: Any, wire: FakeWire | None = None, limits: Limits | None = None) -> FakeWire:
        wire = wire or FakeWire("pop3")
        portal = Portal(Realm(drop), [self.checker])
        factory = POP3Factory(portal, Clock(), hostname="mail.test", limits=limits)
        wire.start(factory.session(wire))
        return wire

    def enter(self, *messages: Any, limits: Limits | None = None) -> tuple[FakeWire, Drop]:
        drop = Drop(*messages)
        wire = self.start(drop, limits=limits)
        self.assertIn(b"+OK %d messages" % len(messages), wire.send(IN))
        return wire, drop

    def incidents(self, kind: type[Exception], count: int = 1) -> None:
        self.assertEqual(len(self.flushLoggedErrors(kind)), count)


class LargeMessages(Case):
    def test_piece_by_piece(self) -> None:
        message = b"Subject: large\r\n\r\n" + b".....\r\n" * 300_000
        wire, drop = self.enter(message)
        sent = wire.send(b"RETR 1\r\n")
        header, _, rest = sent.partition(b"\r\n")
        self.assertEqual(header, b"+OK %d octets" % len(message))
        self.assertEqual(rest, message.replace(b"\n.", b"\n..") + b".\r\n")
        self.assertTrue(all(length <= PIECE for _, length in drop.contents[0].reads))
        self.assertLess(wire.most_undrained, 2 * PIECE)
        self.assertGreaterEqual(wire.pauses, len(message) // PIECE)
        self.assertEqual(drop.contents[0].closed, 1)

    def test_a_peer_that_stops_reading(self) -> None:
        wire, drop = self.enter(b"x" * PIECE * 20)
        wire.choke()
        self.assertLess(len(wire.send(b"RETR 1\r\n")), 2 * PIECE)
        self.assertEqual(len(drop.contents[0].reads), 1)
        wire.hang_up()
        self.assertTrue(wire.ended)
        self.assertEqual((drop.contents[0].closed, drop.released, drop.deleted), (1, 1, None))

    def test_top_reads_no_more_than_it_needs(self) -> None:
        wire, drop = self.enter(b"Subject: large\r\n\r\n" + b"line\r\n" * 100_000)
        self.assertTrue(wire.send(b"TOP 1 1\r\n").endswith(b"\r\n\r\nline\r\n.\r\n"))
        self.assertEqual(len(drop.contents[0].reads), 1)

    def test_many_messages(self) -> None:
        count = 3 * LISTED + 1
        wire, _ = self.enter(*[MemoryMessage(b"")] * count)
        for command in (b"LIST\r\n", b"UIDL\r\n"):
            lines = wire.send(command).split(b"\r\n")
            self.assertEqual(len(lines), count + 3)
            self.assertEqual(lines[-2:], [b".", b""])
        self.assertGreaterEqual(wire.pauses, 6)
        self.assertLess(wire.most_undrained, PIECE)


class ReadAhead(Case):
    """While a client takes a message the next one is read."""

    def read(self, drop: Drop) -> list[int]:
        """How often each message was read."""
        return [len(content.reads) for content in drop.contents]

    def test_one_after_the_other(self) -> None:
        messages = [b"one\r\n", b".two\r\n.", b"", b"four\r\n"]
        wire, drop = self.enter(*messages)
        for number, message in enumerate(messages, 1):
            answer = b"+OK %d octets\r\n%b" % (len(message), stuffed(message))
            self.assertEqual(wire.send(b"RETR %d\r\n" % number), answer)
            self.assertEqual(wire.send(b"DELE %d\r\n" % number), b"+OK Marked for deletion\r\n")
            self.assertEqual(self.read(drop), [1] * min(number + 1, 4) + [0] * (3 - number))
        self.assertEqual([content.closed for content in drop.contents], [1, 1, 1, 1])

    def test_only_for_who_goes_on(self) -> None:
        wire, drop = self.enter(*[b""] * 5)
        for number, read in ((4, [0, 0, 0, 1, 0]), (2, [0, 1, 0, 1, 0]), (3, [0, 1, 1, 2, 0])):
            wire.send(b"RETR %d\r\n" % number)
            self.assertEqual(self.read(drop), read)
        # Another one than was expected.
        self.assertEqual(wire.send(b"RETR 1\r\nRETR 4\r\n"), b"+OK 0 octets\r\n.\r\n" * 2)
        self.assertEqual(self.read(drop), [1, 1, 1, 3, 0])

    def test_not_for_who_asked_already(self) -> None:
        wire, drop = self.enter(b"", b"", b"", b"")
        wire.send(b"RETR 1\r\nRETR 2\r\nNOOP\r\n")
        self.assertEqual(self.read(drop), [1, 1, 0, 0])
        wire.send(b"RETR 3\r\n")
        self.assertEqual(self.read(drop), [1, 1, 1, 1])

    def test_marked_meanwhile(self) -> None:
        wire, _ = self.enter(b"", b"")
        wire.send(b"RETR 1\r\nDELE 2\r\n")
        self.assertEqual(wire.send(b"RETR 2\r\n"), b"-ERR The message is marked for deletion\r\n")
        wire.send(b"RSET\r\n")
        self.assertEqual(wire.send(b"RETR 2\r\n"), b"+OK 0 octets\r\n.\r\n")

    def test_the_client_has_its_message_before(self) -> None:
        slow = Slow(b"there\r\n")
        wire, _ = self.enter(b"", slow)
        self.assertEqual(wire.send(b"RETR 1\r\n"), b"+OK 0 octets\r\n.\r\n")
        self.assertEqual(wire.send(b"RETR 2\r\nQUIT\r\n"), b"")
        slow.ready.callback(None)
        self.assertEqual(wire.taken(), b"+OK 7 octets\r\nthere\r\n.\r\n+OK Goodbye\r\n")
        self.assertTrue(wire.ended)

    def test_gone_while_it_is_read(self) -> None:
        slow = Slow(b"there\r\n")
        wire, drop = self.enter(b"", slow)
        wire.send(b"RETR 1\r\n")
        wire.hang_up()
        slow.ready.callback(None)
        self.assertTrue(wire.ended)
        self.assertEqual((drop.contents[1].closed, drop.released), (1, 1))

    def test_trouble_is_told_when_it_is_asked_for(self) -> None:
        broken = Broken(10, 0, StorageFull())
        wire, _ = self.enter(b"", ZeroDivisionError("secret"), broken, NoSuchMessage(), b"good\r\n")
        self.assertEqual(wire.send(b"RETR 1\r\n"), b"+OK 0 octets\r\n.\r\n")
        self.incidents(ZeroDivisionError, 0)
        self.assertRegex(wire.send(b"RETR 2\r\n"), rb"^-ERR \[SYS/TEMP\] Internal error")
        self.incidents(ZeroDivisionError, 1)
        self.assertRegex(wire.send(b"RETR 3\r\n"), rb"^-ERR \[SYS/TEMP\] Storage")
        self.assertEqual(wire.send(b"RETR 4\r\n"), b"-ERR No such message\r\n")
        self.assertEqual(wire.send(b"RETR 5\r\n"), b"+OK 6 octets\r\ngood\r\n.\r\n")

    def test_trouble_that_has_passed(self) -> None:
        wire, drop = self.enter(b"", StorageFull())
        wire.send(b"RETR 1\r\n")
        drop.contents[1] = MemoryMessage(b"good\r\n")
        self.assertTrue(wire.send(b"RETR 2\r\n").endswith(b" octets\r\ngood\r\n.\r\n"))

    def test_large_messages_are_not(self) -> None:
        wire, drop = self.enter(b"", b"x" * 8, b"", b"x" * 9, limits=Limits(ahead=8))
        wire.send(b"RETR 1\r\n")
        self.assertEqual(self.read(drop), [1, 1, 0, 0])
        wire.send(b"RETR 2\r\n")
        wire.send(b"RETR 3\r\n")
        self.assertEqual(self.read(drop), [1, 1, 1, 0])

    def test_more_than_the_maildrop_said(self) -> None:
        content = MemoryMessage(b"x" * PIECE * 2)
        drop = Drop(b"", content)
        drop.messages = lambda: [("1", 0), ("2", 10)]  # type: ignore[method-assign]
        wire = self.start(drop)
        wire.send(IN)
        wire.send(b"RETR 1\r\n")
        self.assertEqual(len(wire.send(b"RETR 2\r\n").split(b"\r\n")[1]), PIECE * 2)
        self.assertEqual(content.closed, 2)

    def test_all_connections_together(self) -> None:
        answer = len(b"+OK 8 octets\r\nxxxxxxxx\r\n.\r\n")
        drops = [Drop(b"", b"x" * 8, b"x" * 8) for _ in range(3)]
        portal = Portal(Realm(None), [self.checker])
        factory = POP3Factory(portal, Clock(), hostname="mail.test", limits=Limits(ahead_together=answer + 8))
        wires = []
        for drop in drops:
            portal.realm.drop = drop
            wires.append(wire := FakeWire("pop3"))
            wire.start(factory.session(wire))
            wire.send(IN + b"RETR 1\r\n")
        # The third finds no room.
        self.assertEqual([self.read(drop) for drop in drops], [[1, 1, 0], [1, 1, 0], [1, 0, 0]])
        wires[2].send(b"RETR 2\r\n")
        self.assertEqual(self.read(drops[2]), [1, 1, 0])
        # Who has gone makes some.
        wires[0].hang_up()
        wires[1].send(b"QUIT\r\n")
        wires[2].send(b"RETR 3\r\nRETR 1\r\n")
        wires[2].send(b"RETR 2\r\n")
        self.assertEqual(self.read(drops[2]), [2, 2, 2])


class Trouble(Case):
    def test_reading(self) -> None:
        """One message that can't be read spoils nothing but its own RETR and TOP."""
        wire, _ = self.enter(
            NoSuchMessage(),
            StorageFull(),
            ZeroDivisionError("secret"),
            MessageRefused("A virus"),
            b"good\r\n",
        )
        for command in (b"RETR %d\r\n", b"TOP %d 0\r\n"):
            self.assertEqual(wire.send(command % 1), b"-ERR No such message\r\n")
            self.assertRegex(wire.send(command % 2), rb"^-ERR \[SYS/TEMP\] Storage")
            self.assertRegex(
                wire.send(command % 3), rb"^-ERR \[SYS/TEMP\] Internal error, incident fake-\d\r\n$"
            )
            self.assertEqual(wire.send(command % 4), b"-ERR A virus\r\n")
            self.assertRegex(wire.send(command % 5), rb"^\+OK .*\r\ngood\r\n\.\r\n$")
        self.incidents(ZeroDivisionError, 2)

    def test_reading_fails_before_anything_was_promised(self) -> None:
        broken = Broken(10, 0, StorageFull())
        wire, _ = self.enter(broken)
        self.assertRegex(wire.send(b"RETR 1\r\n"), rb"^-ERR \[SYS/TEMP\]")
        self.assertEqual(broken.closed, 1)
        self.assertFalse(wire.ended)

    def test_reading_fails_in_the_middle(self) -> None:
        """The client must not take a part for the whole, nor a message for deleted."""
        for failure, kind in ((StorageFull(), StorageFull), (None, EOFError)):
            wire, drop = self.enter(Broken(2 * PIECE, PIECE, failure), b"")
            sent = wire.send(b"DELE 2\r\nRETR 1\r\nQUIT\r\n")
            self.assertNotIn(b"\r\n.\r\n", sent)
            self.assertTrue(wire.ended)
            self.assertEqual((drop.contents[0].closed, drop.deleted, drop.released), (1, None, 1))
            self.incidents(kind)

    def test_deleting(self) -> None:
        for failure, told in (
            (StorageFull(), rb"-ERR \[SYS/TEMP\] Storage.*\r\n"),
            (OverQuota("No room\r\n+OK"), rb"-ERR No room \+OK\r\n"),
            (ZeroDivisionError(), rb"-ERR \[SYS/TEMP\] Internal error.*\r\n"),
        ):
            wire, drop = self.enter(b"", b"")
            drop.failure = failure
            self.assertRegex(wire.send(b"DELE 1\r\nQUIT\r\n").split(b"\r\n", 1)[1], rb"^" + told + rb"$")
            self.assertTrue(wire.ended)
            self.assertEqual((drop.deleted, drop.released), (None, 1))
        self.incidents(ZeroDivisionError)

    def test_goodbye_is_said_when_it_is_true(self) -> None:
        wire, drop = self.enter(b"", b"", b"")
        drop.slow = Deferred()
        self.assertEqual(wire.send(b"DELE 3\r\nDELE 1\r\nQUIT\r\n").count(b"\r\n"), 2)
        self.assertEqual(drop.released, 0)
        drop.slow.callback(None)
        self.assertEqual(wire.taken(), b"+OK Goodbye\r\n")
        self.assertEqual((drop.deleted, drop.released), ([0, 2], 1))

    def test_nothing_to_delete(self) -> None:
        wire, drop = self.enter(b"")
        drop.failure = ZeroDivisionError()
        self.assertEqual(wire.send(b"DELE 1\r\nRSET\r\nQUIT\r\n").split(b"\r\n")[-2], b"+OK Goodbye")

    def test_gone_without_goodbye(self) -> None:
        for how in ("hang_up", "stop"):
            wire, drop = self.enter(b"")
            wire.send(b"DELE 1\r\n")
            getattr(wire, how)()
            self.assertTrue(wire.ended)
            self.assertEqual((drop.deleted, drop.released), (None, 1))

    def test_logout_that_fails(self) -> None:
        wire, drop = self.enter()
        drop.release = lambda: 1 // 0  # type: ignore[method-assign,assignment]
        wire._session._logout = drop.release  # type: ignore[attr-defined,union-attr]
        self.assertEqual(wire.send(b"QUIT\r\n"), b"+OK Goodbye\r\n")
        self.incidents(ZeroDivisionError)


class Logins(Case):
    def test_unavailable(self) -> None:
        """Says nothing about the password, and does not count against the peer."""
        wire = self.start(Drop(), limits=Limits(logins=2))
        for failure, told in (
            (LoginUnavailable(), b"Login is unavailable, please try again later"),
            (ZeroDivisionError(), b"Login is unavailable, please try again later"),
        ):
            self.checker.failure = failure
            for _ in range(3):
                self.assertEqual(wire.send(IN).split(b"\r\n")[1], b"-ERR [SYS/TEMP] " + told)
        self.checker.failure = None
        self.assertIn(b"+OK 0 messages", wire.send(IN))
        self.incidents(ZeroDivisionError, 3)

    def test_realm(self) -> None:
        wire = self.start(StorageFull())
        self.assertIn(b"-ERR [SYS/TEMP] Storage", wire.send(IN))

    def test_unknown_and_wrong_are_alike(self) -> None:
        wire = self.start(Drop())
        answers = [
            wire.send(b"USER " + name + b"\r\nPASS wrong\r\n") for name in (b"alice@example.test", b"nobody")
        ]
        self.assertEqual(answers[0], answers[1])
        self.assertIn(b"[AUTH]", answers[0])

    def test_scram(self) -> None:
        wire = self.start(Drop(b""))
        client = ScramClient(ALICE, "secret")
        challenge = wire.send(b"AUTH SCRAM-SHA-256 " + b64encode(client.first()) + b"\r\n")
        self.assertTrue(challenge.startswith(b"+ "))
        proof = wire.send(b64encode(client.final(b64decode(challenge[2:]))) + b"\r\n")
        self.assertTrue(client.trusts(b64decode(proof[2:])))
        self.assertEqual(wire.send(b"\r\n"), b"+OK 1 messages (0 octets)\r\n")

    def test_scram_bound_to_tls(self) -> None:
        tls = TLSInfo("TLSv1.3", "X", b"E" * 32, b"P" * 32)
        wire = self.start(Drop(), FakeWire("pop3", host="192.0.2.1", secured=tls))
        wire.send(b"STLS\r\n")
        for binding, told in ((b"M" * 32, b"-ERR [AUTH]"), (b"E" * 32, b"+ ")):
            client = ScramClient(ALICE, "secret", gs2="p=tls-exporter,,", binding=binding)
            challenge = wire.send(b"AUTH SCRAM-SHA-256-PLUS " + b64encode(client.first()) + b"\r\n")
            answer = wire.send(b64encode(client.final(b64decode(challenge[2:]))) + b"\r\n")
            self.assertTrue(answer.startswith(told), answer)
        self.assertEqual(wire.send(b"\r\n"), b"+OK 0 messages (0 octets)\r\n")

    def test_gone_in_the_middle(self) -> None:
        drop = Drop()
        client = ScramClient(ALICE, "secret")
        wire = self.start(drop)
        challenge = wire.send(b"AUTH SCRAM-SHA-256 " + b64encode(client.first()) + b"\r\n")
        wire.send(b64encode(client.final(b64decode(challenge[2:]))) + b"\r\n")
        # Known, let in, and gone before the last word: the maildrop is free again.
        wire.hang_up()
        self.assertTrue(wire.ended)
        self.assertEqual(drop.released, 1)

    def test_no_passwords_at_all(self) -> None:
        """What is offered follows from the checkers."""
        wire = FakeWire("pop3")
        factory = POP3Factory(Portal(Realm(Drop())), Clock(), hostname="mail.test")
        wire.start(factory.session(wire))
        self.assertNotIn(b"SASL", wire.send(b"CAPA\r\n"))
        self.assertEqual(wire.send(IN).split(b"\r\n")[1], b"-ERR [AUTH] Authentication failed")


class Slowly(Case):
    def test_byte_by_byte(self) -> None:
        wire = self.start(Drop(b"Hello\r\n"))
        sent = wire.send_slowly(IN + b"STAT\r\nRETR 1\r\nQUIT\r\n")
        self.assertTrue(
            sent.endswith(b"+OK 1 7\r\n+OK 7 octets\r\nHello\r\n.\r\n+OK Goodbye\r\n"),
        )


class ResponseCodes(Case):
    """A text that begins with "[" is a response code (RFC 2449 §6.4), so no other text does."""

    def test_greeting_of_a_machine_without_a_name(self) -> None:
        wire = FakeWire("pop3")
        portal = Portal(Realm(Drop()), [self.checker])
        greeting = wire.start(POP3Factory(portal, Clock(), hostname="[192.0.2.1]").session(wire))
        self.assertEqual(greeting, b"+OK 192.0.2.1 POP3 server ready\r\n")

    def test_a_stores_words(self) -> None:
        wire, _ = self.enter(OverQuota("[x] is full"), StorageFull("[y] is full"))
        self.assertEqual(wire.send(b"RETR 1\r\n"), b"-ERR x] is full\r\n")
        self.assertEqual(wire.send(b"RETR 2\r\n"), b"-ERR [SYS/TEMP] [y] is full\r\n")

    def test_right_password_and_nothing_behind_it(self) -> None:
        """RFC 3206 §4: asking for another password would not help, only an operator can."""
        wire = self.start(NoSuchAccount())
        self.assertIn(b"-ERR [SYS/PERM] No such account\r\n", wire.send(IN))


class Factory(Case):
    def test_arguments(self) -> None:
        portal = Portal(Realm(Drop()))
        for wrong in ({"hostname": ""}, {"hostname": "ü"}, {"hostname": "a b"}, {"plaintext_login": "maybe"}):
            options: Any = {"hostname": "mail.test", **wrong}
            self.assertRaises(ValueError, POP3Factory, portal, Clock(), **options)

    def test_refusal(self) -> None:
        factory = POP3Factory(Portal(Realm(Drop())), Clock(), hostname="mail.test")
        self.assertRegex(factory.refusal(), rb"^-ERR \[SYS/TEMP\] .*\r\n$")
