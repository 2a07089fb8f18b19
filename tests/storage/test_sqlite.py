"""The embedded store keeps the contract, also over a restart."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailplat.errors import NoSuchMessage
from mailplat.interfaces import NewMessage
from mailplat.storage.packs import OpenFile
from mailplat.storage.spool import InPieces
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import MemoryMessage, new_message, outline_of
from mailplat.testing.stores import MailboxStoreContract
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import DELETED, FlagChange


class SQLiteStoreTests(MailboxStoreContract, TestCase):
    def make_store(self) -> SQLiteStore:
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = scratch.name
        return SQLiteStore(self.directory, reactor)

    def restart_store(self, store: SQLiteStore) -> SQLiteStore:
        return SQLiteStore(self.directory, reactor)

    async def test_two_processes_make_the_directory_at_once(self):
        """The other one is faster, after this one has seen that a folder is not there."""
        store = self.make_store()
        isdir = os.path.isdir

        def looked(path):
            found = isdir(path)
            if not found:
                os.mkdir(path)
            return found

        self.patch(os.path, "isdir", looked)
        await store.start()
        await store.stop()

    async def test_every_other_message(self):
        """Many runs of UIDs are read in one piece, and only those that are meant are touched."""
        store = self.make_store()
        await store.start()
        self.addCleanup(store.stop)
        await store.create_account("alice")
        account = await store.account("alice")
        inbox = await account.open("INBOX")
        await inbox.append([new_message(b"Subject: %d\r\n\r\n" % number) for number in range(20)])
        odd = UIDSet.of(range(1, 21, 2))
        await inbox.set_flags(odd, FlagChange(add=frozenset({"\\Deleted"})))
        words = (await inbox.columns(EVERYTHING)).flags
        self.assertEqual([bool(word & DELETED) for word in words], [True, False] * 10)
        # Copies of all and once more of some: rows of bodies are shared, and counted.
        await inbox.copy(EVERYTHING, "Archive")
        await inbox.copy(UIDSet(((1, 3), (5, 20))), "Archive")
        archive = await account.open("Archive")
        some = UIDSet(((1, 21), (30, 30)))
        self.assertEqual(await archive.expunge(some, deleted_only=False), some)
        self.assertEqual(list(await inbox.expunge(odd)), list(odd))
        self.assertEqual(await store.verify(), [])
        await archive.expunge(EVERYTHING, deleted_only=False)
        await inbox.expunge(EVERYTHING, deleted_only=False)
        self.assertEqual(await store.verify(), [])
        with closing(sqlite3.connect(f"{self.directory}/index.sqlite")) as index:
            self.assertEqual(index.execute("SELECT count(*) FROM copies").fetchone(), (0,))

    async def test_what_is_rolled_back_is_forgotten(self):
        """The next transaction believes nothing of what the failed one has changed in memory."""
        store = self.make_store()
        await store.start()
        self.addCleanup(store.stop)
        await store.create_account("alice")
        inbox = await (await store.account("alice")).open("INBOX")
        await inbox.append([new_message(b"Subject: 1\r\n\r\n")])

        def broken(txn, _):
            txn.expunge(txn.box(inbox._row.id), EVERYTHING, False)
            raise RuntimeError("after it has changed something")

        await self.assertFailure(store.write(broken), RuntimeError)
        self.assertEqual(list(await inbox.append([new_message(b"Subject: 2\r\n\r\n")])), [2])
        self.assertEqual((await inbox.status()).messages, 2)
        self.assertEqual(await store.verify(), [])

    async def test_in_pieces(self):
        """Of any size, beside others, the same body as if it had come whole."""
        store = self.make_store()
        await store.start()
        self.addCleanup(store.stop)
        await store.create_account("alice")
        inbox = await (await store.account("alice")).open("INBOX")
        whole = [b"Subject: %d\r\n\r\n" % size + b"x" * size for size in (10, 900_000, 5)]
        bodies = []
        for text in whole:
            pieces = [text[start : start + 70_000] for start in range(0, len(text), 70_000)]
            bodies.append(InPieces(pieces, len(text), outline_of(text)))
        await inbox.append([NewMessage(body, b"", frozenset(), 0) for body in bodies * 2])
        await inbox.append([NewMessage(InPieces([b"X: y\r\n", b"\r\n"], 8, b""), b"", frozenset(), 0)])
        expected = list(enumerate([*whole, *whole, b"X: y\r\n\r\n"], 1))
        self.assertEqual(await inbox.contents(EVERYTHING, 10**7), expected)
        self.assertEqual(await store.verify(), [])
        self.assertEqual(len(bodies[1].pieces), 13)


class AheadTests(TestCase):
    """Where the next messages are is looked up together, and forgotten when something changes."""

    async def filled(self, count: int, size: int) -> Any:
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        store = SQLiteStore(scratch.name, reactor)
        await store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        await store.create_account("a@example.test")
        self.mailbox = await (await store.account("a@example.test")).open("INBOX")
        self.bodies = {uid: b"Subject: %d\r\n\r\n" % uid + b"." * size for uid in range(1, count + 1)}
        messages = [
            NewMessage(MemoryMessage(body, outline_of(body)), b"X: y\r\n", frozenset(), 0)
            for body in self.bodies.values()
        ]
        await self.mailbox.append(messages)
        self.calls = 0
        do = store.readers.do

        def counted(*arguments: Any) -> Deferred[Any]:
            self.calls += 1
            return do(*arguments)

        self.patch(store.readers, "do", counted)
        return self.mailbox

    def whole(self, *uids: int) -> list[tuple[int, bytes]]:
        return [(uid, b"X: y\r\n" + self.bodies[uid]) for uid in uids]

    async def test_contents(self) -> None:
        mailbox = await self.filled(20, 1000)
        for first in range(1, 20, 2):
            found = await mailbox.contents(UIDSet(((first, 20),)), 2500)
            self.assertEqual(list(found), self.whole(first, first + 1))
        # The last two fit, and whether there are more had to be asked.
        self.assertLessEqual(self.calls, 2)

    async def test_others_than_looked_up(self) -> None:
        mailbox = await self.filled(9, 1000)
        await mailbox.contents(UIDSet(((3, 7),)), 1500)
        for uids, limit, expected in (
            (UIDSet(((1, 7),)), 1500, (1,)),
            (UIDSet.of([4, 6, 7]), 2500, (4, 6)),
            (UIDSet(((6, 9),)), 9000, (6, 7, 8, 9)),
            (UIDSet.of([2, 9]), 9000, (2, 9)),
            (UIDSet.of([5]), 10, ()),
        ):
            self.assertEqual(list(await mailbox.contents(uids, limit)), self.whole(*expected))

    async def test_single_ones(self) -> None:
        mailbox = await self.filled(20, 1000)
        for uid in range(1, 21):
            content = await mailbox.content(uid)
            self.assertEqual(await content.read(0, 10_000), self.whole(uid)[0][1])
            self.assertEqual(await content.read(3, 10), self.whole(uid)[0][1][3:13])
            content.close()
        self.assertEqual(self.calls, 1)

    async def test_more_are_looked_up_for_who_asks_in_a_row(self) -> None:
        mailbox = await self.filled(600, 10)
        for uid in range(1, 601):
            (await mailbox.content(uid)).close()
        # 32, 129, and 256 at most.
        self.assertEqual(self.calls, 4)
        for uid in (1, 500, 100):
            (await mailbox.content(uid)).close()
        # Who does not knows little more than what was asked for.
        self.assertEqual(self.calls, 7)
        self.assertIsNone(mailbox._ahead.body(133))

    async def test_more_are_looked_up_than_were_named(self) -> None:
        mailbox = await self.filled(100, 10)
        for uid in range(1, 101):
            self.assertEqual(list(await mailbox.contents(UIDSet.of([uid]), 1000)), self.whole(uid))
        self.assertEqual(self.calls, 2)
        self.assertEqual(list(await mailbox.contents(UIDSet(), 1000)), [])

    async def test_what_waits_in_the_index_is_looked_up_too(self) -> None:
        mailbox = await self.filled(20, 2000)
        for uid in range(21, 41):
            body = self.bodies[uid] = b"Subject: %d\r\n\r\n" % uid
            message = NewMessage(MemoryMessage(body, outline_of(body)), b"X: y\r\n", frozenset(), 0)
            await mailbox.append([message])
        self.calls = 0
        for uid in range(1, 41):
            content = await mailbox.content(uid)
            self.assertEqual(await content.read(0, 10_000), self.whole(uid)[0][1])
        self.assertEqual(self.calls, 2)

    async def test_neighbours_are_read_together(self) -> None:
        # Large enough for a pack, and not one behind the other everywhere.
        mailbox = await self.filled(20, 3000)
        other = [new_message(b"Subject: of somebody else\r\n\r\n" + b"." * 40_000)]
        await (await mailbox._store.account("a@example.test")).create("Other")
        await (await (await mailbox._store.account("a@example.test")).open("Other")).append(other)
        bodies = [b"Subject: %d\r\n\r\n" % uid + b"." * 10_000 for uid in range(21, 25)]
        self.bodies.update(enumerate(bodies, 21))
        messages = [
            NewMessage(MemoryMessage(body, outline_of(body)), b"X: y\r\n", frozenset(), 0) for body in bodies
        ]
        await mailbox.append(messages)
        reads: list[tuple[int, int]] = []
        read_now = OpenFile.read_now

        def counted(file: OpenFile, start: int, length: int) -> Any:
            reads.append((start, length))
            return read_now(file, start, length)

        self.patch(OpenFile, "read_now", counted)
        await mailbox.content(1)
        found = await mailbox.contents(UIDSet(((3, 24),)), 128_000)
        self.assertEqual(list(found), self.whole(*range(3, 25)))
        size = len(self.bodies[3])
        lengths = [7 * size + 11 * (size + 1), 4 * len(bodies[0])]
        self.assertEqual([length for _, length in reads], lengths)
        # One in between is not wanted.
        reads.clear()
        self.assertEqual(list(await mailbox.contents(UIDSet.of([3, 4, 6]), 100_000)), self.whole(3, 4, 6))
        self.assertEqual([length for _, length in reads], [2 * size, size])

    async def test_what_is_not_in_memory_is_waited_for(self) -> None:
        mailbox = await self.filled(20, 3000)
        await mailbox.content(1)
        self.patch(OpenFile, "read_now", lambda *_: None)
        self.calls = 0
        found = await mailbox.contents(UIDSet(((1, 20),)), 100_000)
        self.assertEqual(list(found), self.whole(*range(1, 21)))
        self.assertEqual(self.calls, 1)

    async def test_a_pack_that_has_become_shorter(self) -> None:
        """What is there of its messages is read, as a verification would find; nothing else suffers."""
        mailbox = await self.filled(20, 3000)
        await mailbox.content(1)
        (pack,) = os.listdir(packs := f"{mailbox._store.directory}/packs")
        os.truncate(f"{packs}/{pack}", os.path.getsize(f"{packs}/{pack}") - 100)
        found = list(await mailbox.contents(UIDSet(((1, 20),)), 100_000))
        self.assertEqual(found[:19], self.whole(*range(1, 20)))
        self.assertEqual(found[19], (20, self.whole(20)[0][1][:-100]))

    async def test_what_is_gone_is_gone(self) -> None:
        mailbox = await self.filled(5, 1000)
        await mailbox.contents(UIDSet(((1, 5),)), 1500)
        await mailbox.expunge(UIDSet.of([3]), deleted_only=False)
        self.assertEqual(list(await mailbox.contents(UIDSet(((2, 5),)), 9000)), self.whole(2, 4, 5))
        await mailbox.content(1)
        await mailbox.expunge(UIDSet.of([2]), deleted_only=False)
        with self.assertRaises(NoSuchMessage):
            await mailbox.content(2)
