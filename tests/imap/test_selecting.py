"""SELECT of a large mailbox: it is answered from counters, and what needs rows waits for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailplat.errors import StorageFull
from mailplat.imap import mailboxes
from mailplat.imap.view import Views
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import Changes, FlagChange
from tests.imap.support import Client, Server, lines, now

BODY = b"Subject: x\r\n\r\nhello\r\n"

#: How the connection of a client ends that cannot be told what it believes in.
BYE = "* BYE The mailbox changed too much while it was opened, please connect again"


class Held:
    """
    INBOX as it is, but for `changes`: what it answers waits for the test, and so may the question.

    Attributes:
        asked: since when.
    """

    def __init__(self, server: Server) -> None:
        self.inbox = server.inbox
        self.asked: list[int] = []
        self._waiting: list[Deferred[Any]] = []
        self.inbox.changes = self._changes

    def _changes(self, since: int) -> Deferred[Any]:
        self.asked.append(since)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def answer(self, **otherwise: Any) -> None:
        """Answer the first question, as it is now."""
        since = self.asked[-len(self._waiting)]
        found = now(type(self.inbox).changes(self.inbox, since))
        upto, changed, vanished = found.upto, found.changed, found.vanished
        answer = {"upto": upto, "changed": changed, "vanished": vanished} | otherwise
        self._waiting.pop(0).callback(Changes(**answer))

    def fail(self, error: Exception) -> None:
        self._waiting.pop(0).errback(error)

    def release(self) -> None:
        """Answer all, and hold nothing from now on."""
        del self.inbox.changes
        while self._waiting:
            self.answer()


class SelectingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(mailboxes, "FEW", 2)
        self.server = Server(BODY, BODY, BODY, BODY)
        # Nothing is recent, unless a test says so.
        now(self.server.inbox.claim_recent())
        self.held = Held(self.server)

    def expunge(self, *uids: int) -> None:
        now(self.server.inbox.expunge(UIDSet.of(uids), deleted_only=False))

    def flag(self, uid: int, flag: str) -> None:
        now(self.server.inbox.set_flags(UIDSet.of([uid]), FlagChange(frozenset({flag}))))

    def taken(self, client: Client) -> list[str]:
        return lines(client.wire.taken())

    def test_the_answer_does_not_wait_for_rows(self) -> None:
        client = self.server.client("")
        answer = client("SELECT INBOX")
        self.assertTrue(answer.pop(4).startswith("* OK [UIDVALIDITY "))
        self.assertEqual(
            answer[2:],
            [
                "* 4 EXISTS",
                "* 0 RECENT",
                "* OK [UIDNEXT 5] Predicted next UID",
                "* OK [HIGHESTMODSEQ 2] Highest",
                "OK [READ-WRITE] Selected",
            ],
        )
        # They are asked for once the answer is on its way, though nobody needs them yet.
        self.assertEqual(self.held.asked, [])
        client.wire.advance(0)
        self.assertEqual(self.held.asked, [0])
        self.assertEqual(client("FETCH 1:* UID"), [])
        self.held.release()
        self.assertEqual(self.taken(client)[-2:], ["* 4 FETCH (UID 4)", "t3 OK FETCH completed"])

    def test_examine_does_not_wait_either(self) -> None:
        answer = self.server.client("")("EXAMINE INBOX")
        self.assertEqual(answer[-1], "OK [READ-ONLY] Selected")
        self.assertIn("* 0 RECENT", answer)
        self.assertEqual(self.held.asked, [])

    def test_few_rows_are_waited_for(self) -> None:
        self.expunge(1, 2)
        client = self.server.client("")
        self.assertEqual(client("SELECT INBOX"), [])
        self.held.release()
        self.assertIn("* OK [UNSEEN 1] First unseen", self.taken(client))

    def test_rows_that_are_there_are_used(self) -> None:
        self.held.release()
        client = self.server.client()
        client("NOOP")
        self.assertIn("* OK [UNSEEN 1] First unseen", client("SELECT INBOX"))

    def test_in_one_go_with_what_needs_rows(self) -> None:
        client = self.server.client("")
        said = client.send(b"a SELECT INBOX\r\nb FETCH 4 UID\r\nc NOOP\r\n")
        self.assertEqual(said[-1], "a OK [READ-WRITE] Selected")
        self.held.release()
        expected = ["* 4 FETCH (UID 4)", "b OK FETCH completed", "c OK Completed"]
        self.assertEqual(self.taken(client), expected)

    def test_what_happens_meanwhile(self) -> None:
        client = self.server.client()
        client.wire.advance(0)
        self.expunge(2)
        self.flag(3, "\\Flagged")
        self.held.answer()
        self.server.add(BODY)
        self.assertEqual(client("FETCH 3 (UID FLAGS)"), [])
        self.held.release()
        # RFC 3501 §7.4.1: no EXPUNGE during FETCH, and so the numbers are the old ones.
        self.assertEqual(
            self.taken(client),
            ["* 3 FETCH (UID 3 FLAGS (\\Flagged))", "* 5 EXISTS", "* 1 RECENT", "t3 OK FETCH completed"],
        )
        self.assertEqual(client("NOOP"), ["* 2 EXPUNGE", "OK Completed"])
        self.assertEqual(client("FETCH 2:4 UID")[:-1], [f"* {n} FETCH (UID {n + 1})" for n in (2, 3, 4)])

    def test_flags_that_change_meanwhile_are_told(self) -> None:
        client = self.server.client()
        client.wire.advance(0)
        self.flag(3, "\\Flagged")
        self.assertEqual(client("NOOP"), [])
        self.held.release()
        self.assertEqual(self.taken(client), ["* 3 FETCH (FLAGS (\\Flagged))", "t3 OK Completed"])

    def test_two_clients(self) -> None:
        first = self.server.client()
        self.expunge(1)
        second = self.server.client()
        first.wire.advance(0)
        self.assertEqual(self.held.asked, [0])
        for client in (first, second):
            self.assertEqual(client("FETCH 2 UID"), [])
        self.held.release()
        self.assertEqual(self.taken(first), ["* 2 FETCH (UID 2)", "t3 OK FETCH completed"])
        self.assertEqual(self.taken(second), ["* 2 FETCH (UID 3)", "t3 OK FETCH completed"])
        self.assertEqual(first("NOOP"), ["* 1 EXPUNGE", "OK Completed"])
        self.assertEqual(second("NOOP"), ["OK Completed"])

    def test_commands_that_need_no_rows_are_told_news_as_ever(self) -> None:
        client = self.server.client()
        self.assertEqual(client("STATUS INBOX (MESSAGES)"), ["* STATUS INBOX (MESSAGES 4)"])
        self.expunge(1)
        self.held.release()
        self.assertEqual(self.taken(client), ["* 1 EXPUNGE", "t3 OK STATUS completed"])

    def test_idle(self) -> None:
        client = self.server.client()
        self.assertEqual(client("IDLE"), ["+ idling"])
        self.expunge(1)
        self.held.release()
        self.assertEqual(self.taken(client), ["* 1 EXPUNGE"])
        self.assertEqual(client.send(b"DONE\r\n"), ["t3 OK IDLE completed"])

    def test_the_modseq_is_the_one_of_the_counters(self) -> None:
        client = self.server.client()
        told = ["* OK [HIGHESTMODSEQ 2] Modseqs are told from now on", "* ENABLED CONDSTORE"]
        self.assertEqual(client("ENABLE CONDSTORE"), told)
        self.flag(1, "\\Seen")
        self.held.release()
        told = ["* 1 FETCH (FLAGS (\\Seen) UID 1 MODSEQ (3))", "t3 OK ENABLE completed"]
        self.assertEqual(self.taken(client), told)

    # When rows do not come

    def test_a_store_that_fails(self) -> None:
        client = self.server.client()
        client.wire.advance(0)
        self.held.fail(StorageFull())
        self.assertEqual(client("FETCH 1 UID"), [])
        self.held.fail(StorageFull())
        text = "NO [UNAVAILABLE] Storage is unavailable, please try again later"
        self.assertEqual(self.taken(client), [f"t3 {text}"])
        # The mailbox is still selected, and the client believes what it was told.
        self.expunge(1)
        self.held.release()
        self.assertEqual(client("FETCH 2 UID"), ["* 2 FETCH (UID 2)", "OK FETCH completed"])
        self.assertEqual(client("NOOP"), ["* 1 EXPUNGE", "OK Completed"])

    def test_a_fault_is_logged_where_it_is_told(self) -> None:
        client = self.server.client()
        client.wire.advance(0)
        self.held.fail(ZeroDivisionError())
        self.assertEqual(self.flushLoggedErrors(ZeroDivisionError), [])
        client("FETCH 1 UID")
        self.held.fail(ZeroDivisionError())
        self.assertTrue(self.taken(client)[-1].startswith("t3 NO [SERVERBUG] "))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_store_that_fails_a_client_that_idles(self) -> None:
        client = self.server.client()
        client("IDLE")
        self.held.fail(StorageFull())
        self.expunge(1)
        self.held.release()
        self.assertEqual(lines(client.wire.advance(0)), ["* 1 EXPUNGE"])

    def test_a_claim_that_fails(self) -> None:
        self.server.add(BODY)

        async def claim_recent() -> UIDSet:
            raise StorageFull

        self.server.inbox.claim_recent = claim_recent
        client = self.server.client("")
        self.assertTrue(client("SELECT INBOX")[-1].startswith("NO [UNAVAILABLE] "))
        self.assertEqual(client("FETCH 1 UID"), ["BAD Select a mailbox first"])
        client.wire.advance(0)
        self.assertEqual(self.held.asked, [])

    def forget(self) -> None:
        """
        From now on the store knows what is there, and nothing of when the others vanished, as if its log
        had just been cut; some had before.
        """
        self.held.release()
        self.expunge(2)
        inbox = self.server.inbox

        async def changes(since: int) -> Changes:
            found = await type(inbox).changes(inbox, since)
            status, there = await inbox.status(), await inbox.columns(EVERYTHING)
            return replace(found, vanished=UIDSet(((1, status.uid_next - 1),)) - UIDSet.of(there.uids))

        inbox.changes = changes

    def test_what_cannot_be_known_is_said(self) -> None:
        self.forget()
        for command in (b"x FETCH 1 UID\r\n", b"x NOOP\r\n", b"x UID SEARCH ALL\r\n", b"x IDLE\r\n"):
            self.server.add(BODY)
            server = self.server.client("")
            client = self.server.client()
            self.expunge(now(self.server.inbox.columns(EVERYTHING)).uids[-1])
            self.assertEqual(client.send(command)[-1], BYE)
            self.assertTrue(client.wire.ended)
            # Who comes after that is told of rows.
            self.assertEqual(server("SELECT INBOX")[2], "* 3 EXISTS")
            self.assertEqual(server("FETCH 2 UID")[0], "* 2 FETCH (UID 3)")
            self.forget_rows()

    def forget_rows(self) -> None:
        """Nobody has INBOX selected, and no room for its rows."""
        self.server.factory._views = Views(most_idle=0)

    def test_others_are_not_concerned(self) -> None:
        self.forget()
        client, other = self.server.client(), self.server.client("")
        self.expunge(1)
        other("EXAMINE INBOX")
        self.assertEqual(other("FETCH 1 UID"), ["* 1 FETCH (UID 3)", "OK FETCH completed"])
        self.assertEqual(client("NOOP"), [BYE])
        self.assertEqual(other("NOOP"), ["OK Completed"])

    def test_nothing_vanished_of_what_the_client_believes_in(self) -> None:
        self.forget()
        client = self.server.client()
        self.server.add(BODY)
        self.assertEqual(client("FETCH 3 UID")[0], "* 3 FETCH (UID 4)")

    def test_the_mailbox_is_deleted(self) -> None:
        now(self.server.account.create("Large"))
        mailbox = self.server.inbox = now(self.server.account.open("Large"))
        self.server.add(BODY, BODY, BODY)
        self.held = Held(self.server)
        client = self.server.client("SELECT Large")
        client.wire.advance(0)
        now(self.server.account.delete("Large"))
        self.assertEqual(client("NOOP"), [])
        self.held.release()
        told = ["* 3 EXPUNGE", "* 2 EXPUNGE", "* 1 EXPUNGE", "* 0 RECENT", "t3 OK Completed"]
        self.assertEqual(self.taken(client), told)
        self.assertEqual(now(mailbox.status()).messages, 0)

    # When nobody waits for them any more

    def test_leaving_does_not_wait(self) -> None:
        for command in ("UNSELECT", "CLOSE", "SELECT Sent", "LOGOUT"):
            client = self.server.client()
            self.assertTrue(client(command)[-1].split()[0] == "OK", command)
            client.wire.advance(0)
            client.wire.hang_up()
        self.assertEqual(self.held.asked, [])

    def test_leaving_while_they_are_on_their_way(self) -> None:
        for leave in (lambda client: client("UNSELECT"), lambda client: client.wire.hang_up()):
            client = self.server.client()
            client.wire.advance(0)
            leave(client)
        self.assertEqual(self.held.asked, [0])
        client = self.server.client()
        self.held.release()
        self.assertEqual(client("FETCH 4 UID"), ["* 4 FETCH (UID 4)", "OK FETCH completed"])

    def test_close_expunges(self) -> None:
        self.flag(2, "\\Deleted")
        client = self.server.client()
        self.assertEqual(client("CLOSE"), ["OK Completed"])
        self.assertEqual(now(self.server.inbox.status()).messages, 3)

    # RFC 3501 §2.3.2, §6.3.2

    def test_recent(self) -> None:
        self.server.add(BODY, BODY)
        client, late = (self.server.client("") for _ in range(2))
        self.assertIn("* 2 RECENT", client("SELECT INBOX"))
        self.assertIn("* 0 RECENT", late("SELECT INBOX"))
        self.held.release()
        for one, recent in ((client, "* SEARCH 5 6"), (late, "* SEARCH")):
            self.assertEqual(one("SEARCH RECENT")[0], recent)
        self.assertEqual(client("FETCH 5 FLAGS")[0], "* 5 FETCH (FLAGS (\\Recent))")

    def test_recent_to_a_client_that_only_looks(self) -> None:
        self.server.add(BODY, BODY)
        client = self.server.client("")
        # Which they are is not in the counters.
        self.assertEqual(client("EXAMINE INBOX"), [])
        self.held.release()
        self.assertIn("* 2 RECENT", self.taken(client))
        self.assertEqual(client("SEARCH RECENT")[0], "* SEARCH 5 6")
        self.assertIn("* 2 RECENT", self.server.client("")("SELECT INBOX"))
