"""Sessions in trouble: hints that are lost, stores that fail, messages that cannot be read."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailplat.errors import NotPermitted, StorageFull
from mailplat.imap.reading import PIECE
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import FlagChange
from tests.auth.scram_client import ScramClient
from tests.imap.support import ALICE, PASSWORD, Client, Server, now

BODY = b"Subject: x\r\n\r\nhello\r\n"


def failing(error: Exception) -> Any:
    async def fail(*arguments: Any) -> Any:
        raise error

    return fail


def deaf(server: Server) -> None:
    """From now on nobody hears of what happens in INBOX."""
    server.inbox.watch = lambda hint: lambda: None


class IdleTests(SynchronousTestCase):
    """RFC 2177."""

    def test_a_lost_hint_is_made_up_for(self) -> None:
        server = Server(BODY, idle_interval=60.0)
        deaf(server)
        client = server.client()
        self.assertEqual(client("IDLE"), ["+ idling"])
        server.add(BODY)
        self.assertEqual(client.wire.advance(59), b"")
        self.assertEqual(client.wire.advance(1), b"* 2 EXISTS\r\n* 2 RECENT\r\n")
        now(server.inbox.expunge(UIDSet.of([1]), deleted_only=False))
        self.assertEqual(client.wire.advance(59), b"")
        self.assertEqual(client.wire.advance(1), b"* 1 EXPUNGE\r\n* 1 RECENT\r\n")
        self.assertEqual(client.send(b"DONE\r\n"), ["t3 OK IDLE completed"])

    def test_silence_ends_it(self) -> None:
        for select in ("SELECT INBOX", ""):
            server = Server(BODY, idle_timeout=150.0, idle_interval=60.0)
            client = server.client(select)
            client("IDLE")
            self.assertEqual(client.wire.advance(60) + client.wire.advance(60) + client.wire.advance(29), b"")
            self.assertTrue(client.wire.advance(1).startswith(b"* BYE Autologout"))
            self.assertTrue(client.wire.ended)

    def test_a_mailbox_that_fails_is_asked_again(self) -> None:
        server = Server(BODY)
        client = server.client()
        client("IDLE")
        server.inbox.changes = failing(StorageFull())
        server.add(BODY)
        self.assertEqual(client.wire.advance(0), b"")
        self.assertEqual(client.wire.advance(60), b"")
        del server.inbox.changes
        self.assertEqual(client.wire.advance(60), b"* 2 EXISTS\r\n* 2 RECENT\r\n")

    def test_a_literal_without_end_ends_the_connection(self) -> None:
        client = Server(skipped=1000, append_size=1000).client()
        client("IDLE")
        self.assertEqual(client.send(b"x {1001+}\r\n"), ["* BYE Literal too large"])
        self.assertTrue(client.wire.ended)


class NewsTests(SynchronousTestCase):
    def test_a_command_that_was_done_is_ok_though_there_is_no_news(self) -> None:
        server = Server(BODY)
        client = server.client()
        server.inbox.changes = failing(StorageFull())
        answer = client("APPEND INBOX {2+}\r\nab")
        self.assertTrue(answer[-1].startswith("OK [APPENDUID "), answer)
        del server.inbox.changes
        self.assertEqual(client("NOOP"), ["* 2 EXISTS", "* 2 RECENT", "OK Completed"])

    def test_a_fault_of_ours_in_it_is_logged(self) -> None:
        server = Server(BODY)
        client = server.client()
        server.inbox.changes = failing(ZeroDivisionError())
        self.assertEqual(client("NOOP"), ["OK Completed"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class SeenTests(SynchronousTestCase):
    """FETCH that sets \\Seen, RFC 3501 §6.4.5."""

    def test_it_cannot_be_set(self) -> None:
        server = Server(*[BODY] * 600)
        client = server.client()
        asked = []

        async def set_flags(uids: UIDSet, *rest: object) -> object:
            asked.append(uids)
            raise StorageFull

        server.inbox.set_flags = set_flags
        answer = client("FETCH 1:600 (BODY[TEXT])")
        self.assertEqual(answer[:3], ["* 1 FETCH (BODY[TEXT] {7}", "hello", ")"])
        self.assertEqual(len(answer), 3 * 600 + 2)
        text = "\\Seen was not set: Storage is unavailable, please try again later"
        self.assertEqual(answer[-2:], [f"* NO [UNAVAILABLE] {text}", "OK FETCH completed"])
        # It is not tried again for every piece.
        self.assertEqual(len(asked), 1)

    def test_not_permitted(self) -> None:
        server = Server(BODY)
        client = server.client()
        server.inbox.set_flags = failing(NotPermitted())
        self.assertIn("* NO [NOPERM] \\Seen was not set: Not permitted", client("FETCH 1 RFC822"))

    def test_not_in_a_mailbox_that_is_read_only(self) -> None:
        server = Server(BODY)
        for client in (server.client("EXAMINE INBOX"), self.read_only(server)):
            client("FETCH 1 BODY[]")
            self.assertNotIn("Seen", client("FETCH 1 FLAGS")[0])
            self.assertEqual(client("STORE 1 +FLAGS (\\Seen)"), ["NO [READ-ONLY] The mailbox is read-only"])

    def read_only(self, server: Server) -> Client:
        server.inbox.read_only = True
        client = server.client("")
        self.assertEqual(client("SELECT INBOX")[-1], "OK [READ-ONLY] Selected")
        return client


class RecentTests(SynchronousTestCase):
    """RFC 3501 §2.3.2, §6.3.2: a session that only looks leaves \\Recent to others."""

    def test_examine(self) -> None:
        server = Server(BODY)
        server.client()
        server.add(BODY, BODY)
        for _ in range(2):
            looker = server.client("")
            self.assertIn("* 2 RECENT", looker("EXAMINE INBOX"))
            self.assertEqual(looker("SEARCH RECENT")[0], "* SEARCH 2 3")
        server.add(BODY)
        self.assertEqual(looker("NOOP"), ["* 4 EXISTS", "* 3 RECENT", "OK Completed"])
        owner = server.client("")
        self.assertIn("* 3 RECENT", owner("SELECT INBOX"))
        self.assertIn("* 0 RECENT", server.client("")("EXAMINE INBOX"))
        # What it saw as recent stays so for it.
        self.assertEqual(looker("SEARCH RECENT")[0], "* SEARCH 2 3 4")
        self.assertEqual(owner("SEARCH OLD")[0], "* SEARCH 1")

    def test_the_last_one_goes(self) -> None:
        server = Server(BODY)
        server.client()
        server.add(BODY)
        client = server.client()
        now(server.inbox.expunge(UIDSet.of([1]), deleted_only=False))
        self.assertEqual(client("NOOP"), ["* 1 EXPUNGE", "OK Completed"])
        now(server.inbox.expunge(UIDSet.of([2]), deleted_only=False))
        self.assertEqual(client("NOOP"), ["* 1 EXPUNGE", "* 0 RECENT", "OK Completed"])


class TornTests(SynchronousTestCase):
    """A literal that was announced and cannot be had: nothing that is said now would be understood."""

    def torn(self, command: str, error: Exception) -> list[str]:
        server = Server(b"Subject: x\r\nX: %b\r\n\r\n" % (b"x" * 300_000) + b"y" * 300_000)
        client = server.client()
        content = now(server.inbox.content(1))
        reads = 0

        async def read(start: int, length: int) -> bytes:
            nonlocal reads
            reads += 1
            if reads > 1:
                raise error
            data: bytes = await type(content).read(content, start, length)
            return data

        content.read = read

        async def opened(uid: int) -> Any:
            return content

        server.inbox.content = opened
        answer = client(command)
        self.assertTrue(client.wire.ended)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        return answer

    def test_in_a_body(self) -> None:
        for error in (StorageFull(), OSError("gone")):
            answer = self.torn("FETCH 1 BODY.PEEK[]", error)
            self.assertEqual(answer, ["* 1 FETCH (BODY[] {600019}", "Subject: x"])

    def test_in_a_header(self) -> None:
        answer = self.torn("FETCH 1 BODY.PEEK[HEADER.FIELDS (X)]", StorageFull())
        self.assertEqual(answer, [])

    def test_a_message_that_became_shorter(self) -> None:
        server = Server(b"Subject: x\r\n\r\n" + b"y" * 2 * PIECE)
        client = server.client()
        content = now(server.inbox.content(1))
        content.size += 10

        async def opened(uid: int) -> Any:
            return content

        server.inbox.content = opened
        client("FETCH 1 BODY.PEEK[]")
        self.assertTrue(client.wire.ended)
        self.flushLoggedErrors()


class ExpungeTests(SynchronousTestCase):
    """RFC 3501 §6.4.2, §6.4.3: all that have \\Deleted, whether the client knows or not."""

    def setUp(self) -> None:
        self.server = Server(BODY, BODY, BODY)

    def somebody_else(self) -> None:
        now(self.server.inbox.set_flags(UIDSet.of([2]), FlagChange(add=frozenset({"\\Deleted"}))))
        self.server.add(BODY, flags=("\\Deleted",))
        self.server.add(BODY)

    def left(self) -> list[int]:
        return list(now(self.server.inbox.columns(EVERYTHING)).uids)

    def test_expunge(self) -> None:
        client = self.server.client()
        self.somebody_else()
        # Of 4, which came and went, it never hears.
        self.assertEqual(
            client("EXPUNGE"), ["* 2 EXPUNGE", "* 3 EXISTS", "* 3 RECENT", "OK EXPUNGE completed"]
        )
        self.assertEqual(self.left(), [1, 3, 5])

    def test_close(self) -> None:
        client = self.server.client()
        self.somebody_else()
        self.assertEqual(client("CLOSE"), ["OK Completed"])
        self.assertEqual(self.left(), [1, 3, 5])

    def test_close_and_unselect_that_leave_all(self) -> None:
        for select, command in (("EXAMINE INBOX", "CLOSE"), ("SELECT INBOX", "UNSELECT")):
            client = self.server.client(select)
            self.somebody_else()
            self.assertEqual(client(command), ["OK Completed"])
            self.assertIn(2, self.left())


class LoginTests(SynchronousTestCase):
    def test_login_and_authenticate_share_one_limit(self) -> None:
        client = Server(failed_logins=3).client(login=False)
        failed = "NO [AUTHENTICATIONFAILED] Authentication failed"
        self.assertEqual(client(f"LOGIN {ALICE} wrong"), [failed])
        self.assertEqual(client("AUTHENTICATE PLAIN AGFsaWNlQGV4YW1wbGUudGVzdAB3cm9uZw=="), [failed])
        # What is no attempt at a password does not count.
        self.assertTrue(client("AUTHENTICATE PLAIN =")[-1].startswith("BAD"))
        self.assertTrue(client("AUTHENTICATE GSSAPI")[-1].startswith("NO"))
        answer = client(f"LOGIN nobody {PASSWORD}")
        self.assertEqual(answer[-1], "* BYE Too many failed logins")
        self.assertTrue(client.wire.ended)

    def test_scram(self) -> None:
        client = Server().client(login=False)
        scram = ScramClient(ALICE, PASSWORD)
        (challenge,) = client.send(b"a AUTHENTICATE SCRAM-SHA-256 %b\r\n" % b64encode(scram.first()))
        (proof,) = client.send(b64encode(scram.final(b64decode(challenge[2:]))) + b"\r\n")
        self.assertTrue(scram.trusts(b64decode(proof[2:])))
        # The server's proof goes as a challenge, as OK has no room for it (RFC 5802 §5).
        (answer,) = client.send(b"\r\n")
        self.assertTrue(answer.startswith("a OK [CAPABILITY "), answer)
        self.assertTrue(client("SELECT INBOX")[-1].startswith("OK"))

    def test_cancelled(self) -> None:
        """RFC 3501 §6.2.2: a tagged BAD."""
        client = Server().client(login=False)
        self.assertEqual(client("AUTHENTICATE PLAIN"), ["+ "])
        self.assertEqual(client.send(b"*\r\n"), ["t1 BAD Authentication cancelled"])

    def test_a_literal_without_end_ends_the_connection(self) -> None:
        client = Server(skipped=1000, append_size=1000).client(login=False)
        client("AUTHENTICATE PLAIN")
        self.assertEqual(client.send(b"{1001+}\r\n"), ["* BYE Literal too large"])
        self.assertTrue(client.wire.ended)


class AppendTests(SynchronousTestCase):
    def test_a_literal_without_end_ends_the_connection(self) -> None:
        client = Server(skipped=1000, append_size=1000).client()
        answer = client.send(b"a APPEND INBOX {2+}\r\nhi {1001+}\r\n")
        self.assertEqual(answer, ["* BYE Literal too large"])
        self.assertTrue(client.wire.ended)

    def test_the_spool_is_left_clean(self) -> None:
        server = Server()
        client = server.client()
        server.spool.fail = StorageFull()
        answer = client("APPEND INBOX {2+}\r\nab")
        self.assertTrue(answer[-1].startswith("NO [UNAVAILABLE]"))
        self.assertEqual(server.spool.open, 0)
        client.send(b"a APPEND INBOX {20+}\r\nab")
        client.wire.hang_up()
        self.assertEqual(server.spool.open, 0)
        server.inbox.append = failing(StorageFull())
        client = server.client("")
        self.assertTrue(client("APPEND INBOX {2+}\r\nab")[-1].startswith("NO [UNAVAILABLE]"))
        self.assertEqual(server.spool.messages[-1].closed, 1)


class FaultTests(SynchronousTestCase):
    def test_a_fault_of_ours_is_a_number_for_the_client(self) -> None:
        server = Server(BODY)
        client = server.client()
        server.inbox.copy = failing(ZeroDivisionError())
        self.assertEqual(client("COPY 1 Sent"), ["NO [SERVERBUG] Internal error, incident fake-1"])
        self.assertEqual(client("NOOP"), ["OK Completed"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_the_server_goes_down(self) -> None:
        client = Server().client()
        self.assertEqual(client.wire.stop(), b"* BYE The server is going down\r\n")


class WaitingTests(SynchronousTestCase):
    def test_a_select_that_failed_leaves_nothing_selected(self) -> None:
        server = Server(BODY)
        client = server.client()
        drafts = now(server.account.open("Drafts"))
        drafts.changes = failing(StorageFull())
        self.assertTrue(client("SELECT Drafts")[-1].startswith("NO [UNAVAILABLE]"))
        self.assertEqual(client("FETCH 1 FLAGS"), ["BAD Select a mailbox first"])
        del drafts.changes
        self.assertTrue(client("SELECT Drafts")[-1].startswith("OK"))

    def test_commands_wait_for_the_one_before(self) -> None:
        server = Server(BODY)
        client = server.client()
        waiting: Deferred[None] = Deferred()
        copy = server.inbox.copy

        async def slowly(*arguments: Any) -> Any:
            await waiting
            return await copy(*arguments)

        server.inbox.copy = slowly
        self.assertEqual(client.send(b"a COPY 1 Sent\r\nb NOOP\r\n"), [])
        waiting.callback(None)
        answer = client.wire.taken().decode().split("\r\n")
        self.assertTrue(answer[0].startswith("a OK [COPYUID"))
        self.assertEqual(answer[1], "b OK Completed")
