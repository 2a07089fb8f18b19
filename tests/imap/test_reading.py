"""Messages come in pieces that fit, and outlines that no store keeps are kept for a while."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailplat.errors import NoSuchMessage
from mailplat.imap import fetch
from mailplat.imap.commands import Item
from mailplat.imap.kept import Kept
from mailplat.imap.outlines import Outlines
from mailplat.imap.reading import PIECE, Source, sources
from mailplat.imap.responses import RowRenderer
from mailplat.imap.view import MailboxView, Selected
from mailplat.message.outline import BODY, ENVELOPE, rendered
from mailplat.message.structure import Scanner
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import Outlined
from tests.imap.support import Server, now

HEAD = b"Subject: x\r\n\r\n"


def outline(body: bytes) -> bytes:
    scanner = Scanner()
    scanner.feed(body)
    return scanner.finish().to_bytes()


async def _after(wait: Deferred[None]) -> None:
    await wait


class SourcesTests(SynchronousTestCase):
    def taken(self, mailbox: Any, bodies: list[bytes], start: int = 0) -> list[Source | None]:
        uids = list(range(1, len(bodies) + 1))
        found: list[Source | None] = now(sources(mailbox, uids, [len(body) for body in bodies], start))
        return found

    def test_many_small_ones_at_once(self) -> None:
        bodies = [HEAD + b"y" * (number * 100) for number in range(20)]
        found = self.taken(Server(*bodies).inbox, bodies)
        self.assertEqual([now(source.read(0, 10**6)) for source in found if source], bodies)

    def test_as_many_as_fit(self) -> None:
        bodies = [HEAD + b"y" * (PIECE // 4 - len(HEAD))] * 10
        server = Server(*bodies)
        self.assertEqual(len(self.taken(server.inbox, bodies)), 4)
        self.assertEqual(len(self.taken(server.inbox, bodies, 8)), 2)

    def test_no_more_are_named_than_fit(self) -> None:
        bodies = [HEAD + b"y" * (PIECE // 4 - len(HEAD))] * 10
        inbox = Server(*bodies).inbox
        named: list[UIDSet] = []
        contents = inbox.contents

        async def noted(uids: UIDSet, limit: int) -> Any:
            named.append(uids)
            return await contents(uids, limit)

        self.patch(inbox, "contents", noted)
        self.taken(inbox, bodies, 2)
        self.assertEqual(named, [UIDSet(((3, 6),))])

    def test_a_large_one_alone(self) -> None:
        bodies = [HEAD, HEAD, HEAD + b"y" * PIECE, HEAD]
        server = Server(*bodies)
        self.assertEqual([len(self.taken(server.inbox, bodies, at)) for at in range(4)], [2, 1, 1, 1])

    def test_one_that_is_gone(self) -> None:
        bodies = [HEAD] * 3
        server = Server(*bodies)
        now(server.inbox.expunge(UIDSet.of([2]), deleted_only=False))
        self.assertEqual(
            [source is None for source in self.taken(server.inbox, bodies)], [False, True, False]
        )
        self.assertEqual(self.taken(server.inbox, [HEAD, HEAD], 1), [None])

    def test_ranges(self) -> None:
        asked: list[tuple[int, int]] = []

        class Content:
            size = 3 * PIECE
            closed = 0

            async def read(self, start: int, length: int) -> bytes:
                asked.append((start, length))
                return b"x" * length

            def close(self) -> None:
                self.closed += 1

        content = Content()
        source = Source(1, None, content)
        self.assertEqual(len(now(source.read(10, 2 * PIECE))), 2 * PIECE)
        self.assertEqual(asked, [(10, PIECE), (10 + PIECE, PIECE)])
        self.assertEqual(len(now(source.read(PIECE, 10 * PIECE))), 2 * PIECE)
        source.close()
        self.assertEqual(content.closed, 1)


class OutlinesTests(SynchronousTestCase):
    def record(self, outlines: Outlines, uid: int, body: bytes, kept: bytes | None = None) -> bytes:
        source = Source(uid, body)
        found: bytes = now(outlines.record(1, Outlined(uid, 0, kept), source, lambda: succeed(None)))
        return found

    def test_what_the_store_keeps_is_used(self) -> None:
        kept = outline(HEAD)
        self.assertIs(self.record(Outlines(), 1, b"something else", kept), kept)

    def test_what_it_does_not_keep_or_kept_long_ago_is_made(self) -> None:
        for kept in (None, b"", b"\xffof another version"):
            outlines = Outlines()
            self.assertIsNone(outlines.known(1, Outlined(1, 0, kept)))
            self.assertEqual(self.record(outlines, 1, HEAD, kept), outline(HEAD))
            self.assertIsNotNone(outlines.known(1, Outlined(1, 0, kept)))
            self.assertIsNone(outlines.known(2, Outlined(1, 0, kept)))

    def test_the_prefix_is_no_part_of_it(self) -> None:
        source = Source(1, b"Received: y\r\n" + HEAD)
        found = now(Outlines().record(1, Outlined(1, 13, None), source, lambda: succeed(None)))
        self.assertEqual(found, outline(HEAD))

    def test_a_message_that_is_gone(self) -> None:
        with self.assertRaises(NoSuchMessage):
            now(Outlines().record(1, Outlined(1, 0, None), None, lambda: succeed(None)))

    def test_bounded_by_octets(self) -> None:
        size = len(outline(HEAD))
        outlines = Outlines(most=3 * size)
        for uid in (1, 2, 3, 1, 4):
            self.record(outlines, uid, HEAD)
        known = [outlines.known(1, Outlined(uid, 0, None)) is not None for uid in range(1, 5)]
        self.assertEqual(known, [True, False, True, True])

    def test_made_twice_counts_once(self) -> None:
        """Two sessions may scan the same message at once."""
        size = len(outline(HEAD))
        outlines = Outlines(most=3 * size)
        wait: Deferred[None] = Deferred()
        for _ in range(2):
            making = outlines.record(1, Outlined(1, 0, None), Source(1, HEAD), lambda: _after(wait))
            Deferred.fromCoroutine(making)
        wait.callback(None)
        for uid in (2, 3):
            self.record(outlines, uid, HEAD)
        self.assertIsNotNone(outlines.known(1, Outlined(1, 0, None)))


class CutTests(SynchronousTestCase):
    def test_what_no_store_keeps(self) -> None:
        """Or what was kept by an earlier version: it is read once."""
        for kept in (None, b"of another version"):
            server = Server()
            server.add(HEAD, HEAD, outline=kept)
            view = MailboxView(server.inbox)
            now(view.refresh())
            (rows,) = Selected(view, False, lambda: None).pieces(EVERYTHING, 10)
            outlines = Outlines()
            scanned: list[int] = []
            record = outlines.record

            async def noted(
                view: int, outlined: Outlined, *arguments: Any, record: Any = record, scanned: Any = scanned
            ) -> bytes:
                scanned.append(outlined.uid)
                made: bytes = await record(view, outlined, *arguments)
                return made

            self.patch(outlines, "record", noted)

            def cut(kinds: list[Item], view: Any = view, rows: Any = rows, outlines: Any = outlines) -> Any:
                ready, records = now(outlines.read(view, kinds, [rows]))
                self.assertEqual(ready, [None])
                return now(outlines.cut(view, records, kinds, rows, lambda: succeed(None)))

            (envelopes,) = cut([Item.ENVELOPE])
            self.assertEqual(list(envelopes), [rendered(outline(HEAD), ENVELOPE)] * 2)
            now(server.inbox.expunge(UIDSet.of([1]), deleted_only=False))
            envelopes, bodies = cut([Item.ENVELOPE, Item.BODY])
            self.assertEqual(list(envelopes), [None, rendered(outline(HEAD), ENVELOPE)])
            self.assertEqual(list(bodies), [None, rendered(outline(HEAD), BODY)])
            self.assertEqual(scanned, [1, 2] if kept else [])


class KeptTests(SynchronousTestCase):
    def test_bounded_by_octets(self) -> None:
        kept = Kept(10)
        for key in ("a", "b", "c", "a", "d"):
            kept.get(key)
            kept.keep(key, b"123")
        self.assertEqual([kept.get(key) is not None for key in "abcd"], [True, False, True, True])
        kept.keep("large", b"x" * 100)
        self.assertEqual(kept.get("large"), b"x" * 100)
        self.assertIsNone(kept.get("d"))
        kept.keep("e", b"y")
        self.assertIsNone(kept.get("large"))

    def rendered(self) -> list[Any]:
        """What is rendered from now on."""
        rendered: list[Any] = []
        lines = RowRenderer.lines

        def counted(*arguments: Any) -> bytes:
            rendered.append(arguments[1])
            return lines(*arguments)

        self.patch(RowRenderer, "lines", counted)
        return rendered

    def test_what_was_said_of_rows_is_said_again_until_they_change(self) -> None:
        server = Server(*[HEAD] * 5)
        one, two = server.client(), server.client()
        rendered = self.rendered()
        both = "FETCH 1:* (UID FLAGS)"
        first = one(both)
        two(both)
        self.assertEqual(one(both), first)
        # \\Recent is told to the first one only.
        self.assertEqual(len(rendered), 2)
        self.assertIn("Recent", first[0])
        self.assertEqual(two(both)[0], "* 1 FETCH (UID 1 FLAGS ())")
        one("STORE 2 +FLAGS.SILENT (\\Seen)")
        self.assertIn("* 2 FETCH (UID 2 FLAGS (\\Seen))", two(both))
        one("STORE 3 +FLAGS.SILENT (\\Deleted)")
        one("EXPUNGE")
        two("NOOP")
        self.assertEqual(
            [line.split()[1:5:3] for line in two(both)[:-1]], [["1", "1"], ["2", "2"], ["3", "4"], ["4", "5"]]
        )
        self.assertEqual(
            two("FETCH 1,3 (UID FLAGS)")[:-1], ["* 1 FETCH (UID 1 FLAGS ())", "* 3 FETCH (UID 4 FLAGS ())"]
        )

    def test_nothing_is_kept_that_was_said_of_a_very_large_mailbox(self) -> None:
        rendered = self.rendered()
        for most, times in ((5, 1), (4, 2)):
            self.patch(fetch, "MOST_KEPT", most)
            client = Server(*[HEAD] * 5).client()
            self.assertEqual(client("FETCH 1:* (UID FLAGS)"), client("FETCH 1:* (UID FLAGS)"))
            self.assertEqual(len(rendered), times)
            rendered.clear()
