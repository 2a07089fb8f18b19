"""The embedded store's queue: the contract, over restarts, between processes and on a full disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.storage import queue_ledger, queue_reading
from mailplat.storage.packs import Disk
from mailplat.storage.schema import connect, prepare
from mailplat.storage.sqlite import SQLiteStore
from mailplat.storage.sqlite_queue import SQLiteQueue
from mailplat.testing.contract.queue import new_item
from mailplat.testing.queues import QueueStoreContract
from mailplat.uids import EVERYTHING

VERSION1 = Path(__file__).parent / "version1"


class FullDisk(Disk):
    """A disk that a test can fill."""

    full = False

    def write(self, descriptor: int, buffers: Any) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().write(descriptor, buffers)


class SQLiteQueueTests(QueueStoreContract, TestCase):
    """A store without accounts, used for its queue."""

    async def make_queue(self) -> SQLiteQueue:
        self.directory = self.new_directory()
        self.disk = FullDisk()
        return await self.started()

    async def started(self) -> SQLiteQueue:
        self.store = store = SQLiteStore(self.directory, reactor, few=0, disk=self.disk, poll=0.01)
        await store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.finish(store)))
        return store.queue

    async def finish(self, store: SQLiteStore) -> None:
        """Whatever a test did, the index is as it should be, and no file is left that nobody needs."""
        if store is self.store:
            self.assertEqual(await store.verify(), [])
            large = len(os.listdir(os.path.join(self.directory, "large")))
            await store.stop()
            await (again := SQLiteStore(self.directory, reactor)).start()
            self.assertEqual(len(os.listdir(os.path.join(self.directory, "large"))), large)
            await again.stop()

    async def restart_queue(self, queue: SQLiteQueue) -> SQLiteQueue:
        await self.store.stop()
        return await self.started()

    async def other_queue(self, queue: SQLiteQueue) -> SQLiteQueue:
        other = SQLiteStore(self.directory, reactor, poll=0.01)
        await other.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(other.stop()))
        return other.queue

    def fill_disk(self, full: bool) -> None:
        self.disk.full = full


class Index(SynchronousTestCase):
    """A million items are no reason to look at more than is answered."""

    def test_no_question_scans_or_sorts(self) -> None:
        with TemporaryDirectory() as directory:
            prepare(directory)
            connection = connect(directory)
            self.addCleanup(connection.close)
            for query, arguments in (
                (queue_reading.PLACES, ()),
                (queue_reading.DUE, ("", "", 0)),
                (queue_reading.OVERDUE, (0,)),
                (queue_reading.ITEMS, ("[]",)),
                (queue_reading.RECIPIENTS, ("[]",)),
                (queue_reading.AFTER, (0, 0)),
                (queue_reading.OLDEST, ()),
                (queue_reading.BODY, (0,)),
                *((query, (0,) * query.count("?")) for query in queue_ledger.QUERIES),
            ):
                plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", arguments)]
                for step in plan:
                    self.assertNotIn("TEMP B-TREE", step, query)
                    if step.startswith("SCAN"):
                        self.assertTrue(step.startswith("SCAN j VIRTUAL TABLE"), (step, query))


class Upgrade(TestCase):
    """A directory of version 1, as it was made then (`version1`), gets a queue and keeps its mail."""

    async def test_upgrade(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        shutil.copytree(VERSION1, directory.name, dirs_exist_ok=True)
        connection = sqlite3.connect(os.path.join(directory.name, "index.sqlite"))
        connection.executescript((VERSION1 / "index.sql").read_text("utf-8"))
        connection.close()
        store = SQLiteStore(directory.name, reactor)
        await store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        self.assertEqual(await store.accounts(), ["alice@example.test"])
        inbox = await (await store.account("alice@example.test")).open("INBOX")
        self.assertEqual(list((await inbox.columns(EVERYTHING)).uids), [1, 3])
        content = await inbox.content(1)
        self.assertEqual(await content.read(0, 100), b"X: 1\r\nSubject: one\r\n\r\nFirst\r\n")
        self.assertEqual((await inbox.status()).uid_validity, 1_700_000_000)
        (item,) = await store.queue.add([new_item()])
        self.assertEqual((await store.queue.item(item)).account, "")
        self.assertEqual(await store.verify(), [])
