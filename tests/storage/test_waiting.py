"""Small bodies wait in the index and are moved to a pack together, and nobody who reads sees a difference."""

from __future__ import annotations

import os
from contextlib import closing
from tempfile import TemporaryDirectory

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailplat.interfaces import NewItem
from mailplat.storage import waiting
from mailplat.storage.packs import Disk
from mailplat.storage.schema import _UNCOUNTED, STEPS, connect, prepare
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import MemoryMessage, new_message
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import Address, Envelope, QueuedRecipient, Target
from tests.storage.teller import content
from tests.storage.test_sqlite_queue import FullDisk

ALICE = "alice@example.test"


class WaitingTests(TestCase):
    disk: Disk | None = None

    async def started(self, **words):
        if not hasattr(self, "directory"):
            scratch = TemporaryDirectory()
            self.addCleanup(scratch.cleanup)
            self.directory = scratch.name
        store = SQLiteStore(self.directory, reactor, disk=self.disk, **{"few": 500, "waiting": 1000, **words})
        await store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.finish(store)))
        return store

    async def finish(self, store):
        self.assertEqual(await store.verify(), [])
        await store.stop()

    async def inbox(self, store):
        if not await store.has_account(ALICE):
            await store.create_account(ALICE)
        return await (await store.account(ALICE)).open("INBOX")

    def text(self, number, size=300):
        return b"Subject: %d\r\n\r\n" % number + b"x" * size

    async def append(self, inbox, *numbers, size=300):
        messages = [new_message(self.text(number, size), prefix=b"P: %d\r\n" % number) for number in numbers]
        return await inbox.append(messages)

    async def asked(self, store, query):
        return await store.readers.do(lambda connection: connection.execute(query).fetchall())

    async def numbers(self, store):
        """Of the bodies that wait."""
        return [number for (number,) in await self.asked(store, "SELECT body FROM waiting ORDER BY body")]

    async def until_moved(self, store):
        await self.until(store, lambda numbers: not numbers)

    async def until(self, store, holds):
        """Until it holds for the numbers of the bodies that wait."""
        for _ in range(500):
            if holds(await self.numbers(store)):
                return
            await task.deferLater(reactor, 0.01)
        self.fail("nothing was moved")

    async def check_content(self, inbox, numbers):
        uids = list((await inbox.columns(EVERYTHING)).uids)
        whole = [b"P: %d\r\n" % number + self.text(number) for number in numbers]
        self.assertEqual([await content(inbox, uid) for uid in uids], whole)
        self.assertEqual(await inbox.contents(EVERYTHING, 10**6), list(zip(uids, whole, strict=True)))

    async def test_alone(self):
        store = await self.started()
        inbox = await self.inbox(store)
        await self.append(inbox, 1)
        self.assertEqual((await self.numbers(store), os.listdir(f"{self.directory}/packs")), ([1], []))
        await self.check_content(inbox, [1])
        again = await self.started()
        await self.check_content(await self.inbox(again), [1])

    async def test_enough_are_moved(self):
        store = await self.started()
        inbox = await self.inbox(store)
        for number in range(1, 5):
            await self.append(inbox, number)
        await self.until_moved(store)
        self.assertEqual(len(os.listdir(f"{self.directory}/packs")), 1)
        await self.append(inbox, 5)
        self.assertEqual(len(await self.numbers(store)), 1)
        await self.check_content(inbox, [1, 2, 3, 4, 5])
        again = await self.started()
        await self.check_content(await self.inbox(again), [1, 2, 3, 4, 5])

    async def test_many_together_go_to_a_pack_at_once(self):
        store = await self.started()
        await self.append(await self.inbox(store), 1, 2, 3)
        self.assertEqual(await self.numbers(store), [])

    async def test_more_than_are_moved_at_once(self):
        """What was left is still counted, and follows."""
        self.patch(waiting, "OLDEST", waiting.OLDEST.replace("1024", "2"))
        store = await self.started()
        inbox = await self.inbox(store)
        for number in range(1, 31):
            await self.append(inbox, number)
        await self.until(store, lambda numbers: len(numbers) < 5)
        await self.check_content(inbox, range(1, 31))

    async def test_tiny_ones_are_moved(self):
        """However little they are together: whoever waits for more would wait for ever."""
        self.patch(waiting, "OLDEST", waiting.OLDEST.replace("1024", "1"))
        store = await self.started(few=2000)
        inbox = await self.inbox(store)
        for number in range(1, 31):
            await self.append(inbox, number)
        await self.until(store, lambda numbers: len(numbers) < 5)
        await self.check_content(inbox, range(1, 31))

    async def test_removed_while_they_wait(self):
        store = await self.started(waiting=10**6)
        inbox = await self.inbox(store)
        for number in range(1, 4):
            await self.append(inbox, number)
        await inbox.copy(UIDSet.of([2]), "INBOX")
        await inbox.expunge(UIDSet.of([1, 2]), deleted_only=False)
        self.assertEqual(await self.numbers(store), [2, 3])
        await store.remove_account(ALICE)
        self.assertEqual(await self.numbers(store), [])
        self.assertEqual(await self.asked(store, "SELECT bodies FROM files"), [(1,)])

    async def test_queue(self):
        store = await self.started()
        recipient = QueuedRecipient(0, Target("relay", "there", Address("x", "there")), due=5)
        item = NewItem(Envelope(None), MemoryMessage(self.text(7)), b"P: 7\r\n", [recipient], "", 1)
        (number,) = await store.queue.add([item])
        self.assertEqual(len(await self.numbers(store)), 1)
        message, prefix = await store.queue.message(number)
        self.assertEqual((prefix, message.data), (b"P: 7\r\n", self.text(7)))

    async def test_moved_by_another_process_or_gone(self):
        """Both look at what waits, and a client expunges; then each comes with its own copies."""
        store, other = await self.started(waiting=10**6), await self.started(waiting=10**6)
        inbox = await self.inbox(store)
        for number in range(1, 5):
            await self.append(inbox, number)
        ours = await self.looked(store)
        theirs = await self.looked(other)
        await inbox.expunge(UIDSet.of([2]), deleted_only=False)
        for who, bodies in ((other, theirs), (store, ours)):
            await who.write(lambda txn, places, bodies=bodies: waiting.move(txn, bodies, places), bodies)
            self.assertEqual(await self.numbers(store), [])
            self.assertEqual(await store.verify(), [])
        await self.check_content(inbox, [1, 3, 4])
        counted = "SELECT sum(bodies) FROM files WHERE id > 0"
        self.assertEqual(await self.asked(store, counted), [(3,)])

    async def looked(self, store):
        return await store.readers.do(waiting.oldest)

    async def test_a_store_that_counted_them(self):
        self.directory = (scratch := TemporaryDirectory()).name
        self.addCleanup(scratch.cleanup)
        prepare(self.directory, STEPS[: STEPS.index(_UNCOUNTED)])
        with closing(connect(self.directory)) as index:
            index.execute("UPDATE files SET bodies = 7 WHERE id = 0")
        store = await self.started()
        self.assertEqual(await self.asked(store, "SELECT id, bodies FROM files"), [(0, 1)])
        inbox = await self.inbox(store)
        await self.append(inbox, 1)
        await self.check_content(inbox, [1])
        await inbox.expunge(EVERYTHING, deleted_only=False)
        self.assertEqual(await self.asked(store, "SELECT id, bodies FROM files"), [(0, 1)])

    async def test_few_are_left(self):
        """Not worth a pack: they wait on."""
        store = await self.started(waiting=10**6)
        inbox = await self.inbox(store)
        await self.append(inbox, 1)
        bodies = await self.looked(store)
        await store.write(lambda txn, places: waiting.move(txn, bodies, places), bodies)
        self.assertEqual(await self.numbers(store), [1])
        await self.check_content(inbox, [1])

    async def test_no_room_in_packs(self):
        self.disk = FullDisk()
        store = await self.started()
        inbox = await self.inbox(store)
        self.disk.full = True
        for number in range(1, 6):
            await self.append(inbox, number)
        await self.check_content(inbox, [1, 2, 3, 4, 5])
        self.assertEqual(len(await self.numbers(store)), 5)
        self.disk.full = False
        for number in range(6, 9):
            await self.append(inbox, number)
        await self.until_moved(store)
        await self.check_content(inbox, range(1, 9))

    async def test_damage_is_found(self):
        store = await self.started()
        await self.append(await self.inbox(store), 1)
        number = (await self.numbers(store))[0]
        for statement, found in (
            ("UPDATE waiting SET data = x'00'", f"body {number} in the index is not what was written"),
            ("DELETE FROM waiting", f"body {number} should wait in the index, and does not"),
            ("INSERT INTO waiting VALUES (99, x'00')", "body 99 waits in the index, and is elsewhere"),
        ):
            await store.write(lambda txn, _, statement=statement: txn.connection.execute(statement).rowcount)
            self.assertIn(found, await store.verify())
        await store.write(lambda txn, _: txn.connection.execute("DELETE FROM waiting").rowcount)
        await store.remove_account(ALICE)
