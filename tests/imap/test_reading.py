"""Messages come in pieces that fit, and outlines that no store keeps are kept for a while."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailplat.errors import NoSuchMessage
from mailplat.imap.reading import PIECE, SMALL, Outlines, Source, sources
from mailplat.message.structure import Scanner
from mailplat.uids import UIDSet
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
        bodies = [HEAD + b"y" * (SMALL - len(HEAD))] * 10
        server = Server(*bodies)
        self.assertEqual(len(self.taken(server.inbox, bodies)), PIECE // SMALL)
        self.assertEqual(len(self.taken(server.inbox, bodies, 8)), 2)

    def test_a_large_one_alone(self) -> None:
        bodies = [HEAD, HEAD, HEAD + b"y" * SMALL, HEAD]
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
            self.assertFalse(outlines.has(1, Outlined(1, 0, kept)))
            self.assertEqual(self.record(outlines, 1, HEAD, kept), outline(HEAD))
            self.assertTrue(outlines.has(1, Outlined(1, 0, kept)))
            self.assertFalse(outlines.has(2, Outlined(1, 0, kept)))

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
        self.assertEqual([outlines.has(1, Outlined(uid, 0, None)) for uid in range(1, 5)], [1, 0, 1, 1])

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
        self.assertTrue(outlines.has(1, Outlined(1, 0, None)))
