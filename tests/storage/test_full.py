"""
The embedded store on a disk that is full, fails to sync, or fails in the index.

Whatever fails, and wherever: the operation is told `StorageFull`, nothing of it is there, what was there
can be read, and the same operation works once the disk does.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from itertools import count
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase

from mailplat.errors import StorageFull
from mailplat.interfaces import NewMessage
from mailplat.storage import loading, writer
from mailplat.storage.packs import LARGE, PACKS, Disk
from mailplat.storage.spool import Spool
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import new_message
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import FlagChange
from tests.storage.teller import state

ALICE = "alice@example.test"


class FailingDisk(Disk):
    """
    Fails at the call after `healthy` more, and at all after it, until that is None again.

    Attributes:
        error: with which number.
        links: False if the spool is on another file system.
        calls: their names, since the test last emptied it.
    """

    def __init__(self) -> None:
        self.healthy: int | None = None
        self.error = errno.ENOSPC
        self.links = True
        self.calls: list[str] = []

    def _may_fail(self, what: str) -> None:
        self.calls.append(what)
        if self.healthy is not None:
            self.healthy -= 1
            if self.healthy < 0:
                raise OSError(self.error, os.strerror(self.error))

    def open(self, path, flags):
        self._may_fail("open")
        return super().open(path, flags)

    def write(self, descriptor, buffers):
        try:
            self._may_fail("write")
        except OSError:
            # As a disk does that has room for some of it.
            super().write(descriptor, [b"".join(buffers)[:-100]])
            raise
        super().write(descriptor, buffers)

    def sync(self, descriptor):
        self._may_fail("sync")
        super().sync(descriptor)

    def sync_directory(self, path):
        self._may_fail("sync_directory")
        super().sync_directory(path)

    def link(self, source, target):
        if not self.links:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        self._may_fail("link")
        super().link(source, target)

    def unlink(self, path):
        self._may_fail("unlink")
        super().unlink(path)


class Connection:
    """A connection to an index that cannot grow, or whose COMMIT fails, while the case says so."""

    def __init__(self, case: StoreCase, connection: sqlite3.Connection) -> None:
        self._case = case
        self._connection = connection
        if case.full:
            connection.execute("PRAGMA max_page_count = 1")

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, statement, *arguments):
        if statement == "COMMIT" and self._case.failing_commit:
            if self._case.failing_commit == "late":
                # The disk has it, and nobody can know: the sync failed.
                self._connection.execute(statement)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return self._connection.execute(statement, *arguments)


class StoreCase(TestCase):
    full = False
    failing_commit = ""

    async def begin(self):
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = os.path.join(scratch.name, "store")
        self.spool = Spool(
            os.path.join(scratch.name, "spool"), None, in_memory=2000, in_thread=lambda f, *a: succeed(f(*a))
        )
        self.spool.start()
        connect = writer.connect
        self.patch(writer, "connect", lambda directory: Connection(self, connect(directory)))
        self.disk = FailingDisk()
        self.made = 0
        await self.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.store.stop()))
        await self.store.create_account(ALICE)
        await self.open()

    async def start(self):
        self.store = SQLiteStore(self.directory, reactor, few=0, disk=self.disk)
        await self.store.start()

    async def open(self):
        self.account = await self.store.account(ALICE)
        self.inbox = await self.account.open("INBOX")

    async def restart(self):
        await self.store.stop()
        await self.start()
        await self.open()

    def small(self):
        self.made += 1
        return new_message(b"Subject: %d\r\n\r\n" % self.made + b"x" * 1000 + b"\r\n")

    async def large(self):
        body = self.spool.begin()
        self.made += 1
        await body.write(b"Subject: large %d\r\n\r\n" % self.made + b"yes\r\n" * 1000)
        message = await body.finish()
        self.addCleanup(message.close)
        return NewMessage(message, b"X: y\r\n", frozenset({"\\Seen"}), 0)

    async def refused(self, awaitable):
        with self.assertRaises(StorageFull):
            await awaitable

    def octets(self):
        """In files of bodies."""
        return sum(
            os.stat(os.path.join(self.directory, folder, name)).st_size
            for folder in (PACKS, LARGE)
            for name in os.listdir(os.path.join(self.directory, folder))
        )

    async def is_well(self):
        """Whole, also for the next process, and without garbage then."""
        before = await state(self.store, ALICE)
        self.assertEqual(await self.store.verify(), [])
        await self.restart()
        self.assertEqual(await state(self.store, ALICE), before)
        self.assertEqual(await self.store.verify(), [])
        known = {name for (name,) in self.store._watch.execute("SELECT name FROM files WHERE id > 0")}
        there = {f"{f}/{n}" for f in (PACKS, LARGE) for n in os.listdir(os.path.join(self.directory, f))}
        self.assertEqual(there, known)


class DiskTests(StoreCase):
    async def sweep(self, act, calls):
        """`act` with the disk failing from its first call on, from its second on and so on."""
        for error in (errno.ENOSPC, errno.EIO):
            for healthy in count():
                before = await state(self.store, ALICE)
                self.disk.error, self.disk.healthy, self.disk.calls = error, healthy, []
                try:
                    await act()
                except StorageFull:
                    refused = True
                else:
                    refused = False
                failed = self.disk.healthy < 0
                self.disk.healthy = None
                # All can be read, and only what was not acknowledged is missing.
                after = await state(self.store, ALICE)
                self.assertEqual(after == before, refused)
                if not failed:
                    self.assertFalse(refused)
                    self.assertEqual(self.disk.calls, calls)
                    break
                if refused:
                    await act()
                    self.assertNotEqual(await state(self.store, ALICE), before)
        await self.is_well()

    async def test_append(self):
        await self.begin()
        await self.inbox.append([self.small()])

        async def act():
            await self.inbox.append([self.small(), self.small()])

        await self.sweep(act, ["write", "sync"])

    async def test_new_pack(self):
        await self.begin()

        async def act():
            self.store._writer.packs.abandon()
            await self.inbox.append([self.small()])

        await self.sweep(act, ["open", "sync_directory", "write", "sync"])

    async def test_link(self):
        await self.begin()
        await self.inbox.append([self.small()])

        async def act():
            await self.inbox.append([await self.large(), self.small(), await self.large()])

        await self.sweep(act, ["link", "link", "sync_directory", "write", "sync"])

    async def test_copy_from_another_file_system(self):
        await self.begin()
        self.disk.links = False

        async def act():
            await self.inbox.append([await self.large()])

        await self.sweep(act, ["open", "sync", "sync_directory"])

    async def test_a_file_that_cannot_be_removed(self):
        """It is removed at a later start; the expunge is done."""
        await self.begin()
        uids = await self.inbox.append([await self.large(), await self.large()])
        self.disk.healthy = 0
        await self.inbox.expunge(UIDSet.of(uids[:1]), deleted_only=False)
        self.disk.healthy = None
        self.assertEqual(len(os.listdir(os.path.join(self.directory, LARGE))), 2)
        await self.is_well()
        self.assertEqual(len(os.listdir(os.path.join(self.directory, LARGE))), 1)

    async def test_a_failed_sync_is_not_tried_again(self):
        """The next sync of a file may report success for pages that were dropped: it has to be another."""
        await self.begin()
        await self.inbox.append([self.small()])
        (first,) = os.listdir(os.path.join(self.directory, PACKS))
        self.disk.healthy, self.disk.error = 1, errno.EIO
        await self.refused(self.inbox.append([self.small()]))
        self.disk.healthy = None
        size = os.stat(os.path.join(self.directory, PACKS, first)).st_size
        await self.inbox.append([self.small()])
        self.assertEqual(len(os.listdir(os.path.join(self.directory, PACKS))), 2)
        self.assertEqual(os.stat(os.path.join(self.directory, PACKS, first)).st_size, size)
        await self.is_well()

    async def test_one_of_many(self):
        """What waits while the disk fails is refused together; what comes later is not."""
        await self.begin()
        self.disk.healthy = 0
        waiting = [Deferred.fromCoroutine(self.inbox.append([self.small()])) for _ in range(20)]
        for each in waiting:
            await self.refused(each)
        self.disk.healthy = None
        self.assertEqual(len(await self.inbox.append([self.small()])), 1)
        await self.is_well()


class IndexTests(StoreCase):
    async def cannot_grow(self):
        """From now on; the next operation finds out."""
        self.full = True
        self.store._writer._reopen()

    async def fill(self):
        """Operations until one is refused."""
        for number in range(1000):
            try:
                await self.account.create(f"{number} " + "x" * 900)
            except StorageFull:
                return
        self.fail("it never became full")

    async def test_full(self):
        await self.begin()
        (uid,) = await self.inbox.append([self.small()])
        await self.cannot_grow()
        await self.fill()
        before = await state(self.store, ALICE)
        octets = self.octets()
        for _ in range(20):
            await self.refused(self.inbox.append([self.small() for _ in range(20)]))
        await self.refused(self.account.create("y" * 1000))
        self.assertEqual(await state(self.store, ALICE), before)
        # What could not be indexed does not take more of the room that is missing.
        self.assertEqual(self.octets(), octets)
        self.full = False
        await self.inbox.append([self.small() for _ in range(20)])
        await self.inbox.set_flags(UIDSet.of([uid]), FlagChange(add=frozenset({"\\Seen"})))
        await self.is_well()

    async def test_full_for_a_snapshot(self):
        """It can be done without, and is taken when there is room."""
        await self.begin()
        await self.inbox.append([self.small() for _ in range(100)])
        for _ in range(5):
            await self.inbox.copy(EVERYTHING, "INBOX")
        number, rows = self.inbox._row.id, list((await self.inbox.columns(EVERYTHING)).rows())
        await self.cannot_grow()
        await self.fill()
        await self.store.take_snapshot(number)
        self.assertEqual((await self.store.readers.do(loading.outdated, number)).all, True)
        self.assertEqual(list((await self.inbox.columns(EVERYTHING)).rows()), rows)
        self.full = False
        await self.store.take_snapshot(number)
        self.assertEqual((await self.store.readers.do(loading.outdated, number)).pieces, {})
        self.assertEqual(list((await self.inbox.columns(EVERYTHING)).rows()), rows)
        await self.is_well()

    async def every_change_is_refused(self):
        uids = UIDSet.of((await self.inbox.columns(EVERYTHING)).uids[:1])
        change = FlagChange(add=frozenset({"new"}))
        for act in (
            lambda: self.inbox.append([self.small()]),
            lambda: self.inbox.set_flags(uids, change),
            lambda: self.inbox.expunge(uids, deleted_only=False),
            lambda: self.inbox.copy(uids, "Drafts"),
            lambda: self.inbox.move(uids, "Drafts"),
            lambda: self.account.create("new"),
            lambda: self.account.delete("Junk"),
            lambda: self.account.rename("INBOX", "old"),
            lambda: self.account.subscribe("new", True),
            lambda: self.store.create_account("new@example.test"),
        ):
            await self.refused(act())

    async def test_commit_fails(self):
        await self.begin()
        await self.inbox.append([self.small(), self.small()])
        before = await state(self.store, ALICE)
        self.failing_commit = "early"
        await self.every_change_is_refused()
        await self.refused(self.inbox.append([await self.large()]))
        self.assertEqual(await state(self.store, ALICE), before)
        self.failing_commit = ""
        await self.inbox.append([self.small(), await self.large()])
        await self.is_well()

    async def test_commit_that_failed_is_found_later(self):
        """Its sync failed, so it counts as not done; if it is found after all, it is whole."""
        await self.begin()
        self.failing_commit = "late"
        await self.refused(self.inbox.append([self.small(), await self.large()]))
        self.failing_commit = ""
        # Nothing that happens afterwards takes away what it points to.
        self.disk.healthy = 0
        await self.refused(self.inbox.append([self.small()]))
        self.disk.healthy = None
        await self.inbox.append([self.small()])
        await self.is_well()
        self.assertEqual(len((await self.inbox.columns(EVERYTHING)).uids), 3)
