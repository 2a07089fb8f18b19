"""
The embedded store after a crash at every single moment of a story.

While each operation runs, the disk is photographed before every call that changes it, in the middle
of every write, and before every statement of the index's transaction.  Each picture is then opened as
a store: it must be whole, and as it was before the operation or as it is after it.  There are two kinds
of pictures.  One has all that was written, as after `kill -9`; the other only what was synced, as after
a power cut, with a torn or garbled tail.  Where the index's log grew between two pictures, it is torn
as well.
"""

from __future__ import annotations

import errno
import os
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase

from mailplat.interfaces import Delivery, NewMessage
from mailplat.storage import snapshot, writer
from mailplat.storage.packs import LARGE, PACKS, Disk
from mailplat.storage.spool import Spool
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import new_message
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import BLOCK, Derived, FlagChange
from tests.storage.teller import state

ALICE, BOB = "alice@example.test", "bob@example.test"

LOG = "index.sqlite-wal"

#: Small, so that the story leaves, buries and removes packs.
ROLL = 3000


class Camera(Disk):
    """
    A disk that is photographed whenever it is about to change.

    A picture is {path: content}; `pictures` has those that differ from the last one of their kind.
    """

    def __init__(self, directory: str, links: bool) -> None:
        self.directory = directory
        self.links = links
        self.pictures: list[dict[str, bytes]] = []
        self.synced: dict[int, int] = {}  # inode -> octets on disk for certain
        self.names: set[str] = set()  # of files whose name is on disk for certain
        self._last: tuple[dict[str, bytes], ...] = ({}, {})
        self.tails = 0

    def photograph(self, *_: object) -> None:
        written, synced = {}, {}
        for folder in ("", PACKS, LARGE):
            for entry in os.scandir(os.path.join(self.directory, folder)):
                name = os.path.join(folder, entry.name)
                if entry.is_dir() or name == "lock" or name.endswith("-shm"):
                    continue
                with open(entry.path, "rb") as file:
                    written[name] = file.read()
                    inode = os.fstat(file.fileno()).st_ino
                if not folder:
                    # SQLite syncs its own files; what it has not synced is in no transaction that counts.
                    synced[name] = written[name]
                elif name in self.names:
                    certain = self.synced.get(inode, 0)
                    rest = len(written[name]) - certain
                    # Now nothing of what was not synced, now half of it, now all of it but garbled.
                    self.tails += 1
                    tail = (b"", written[name][certain : certain + rest // 2], b"\xff" * rest)[self.tails % 3]
                    synced[name] = written[name][:certain] + tail
        self.pictures += [now for now, last in zip((written, synced), self._last, strict=True) if now != last]
        self._last = (written, synced)

    def open(self, path, flags):
        self.photograph()
        return super().open(path, flags)

    def write(self, descriptor, buffers):
        self.photograph()
        whole = b"".join(buffers)
        os.write(descriptor, whole[: len(whole) // 2])
        self.photograph()
        super().write(descriptor, [whole[len(whole) // 2 :]])

    def sync(self, descriptor):
        self.photograph()
        super().sync(descriptor)
        status = os.fstat(descriptor)
        self.synced[status.st_ino] = status.st_size

    def sync_directory(self, path):
        self.photograph()
        super().sync_directory(path)
        for entry in os.listdir(path):
            self.names.add(os.path.relpath(os.path.join(path, entry), self.directory))

    def truncate(self, descriptor, size):
        self.photograph()
        super().truncate(descriptor, size)

    def link(self, source, target):
        self.photograph()
        if not self.links:
            raise OSError(errno.EXDEV, "another file system")
        super().link(source, target)
        # The spool has synced it.
        self.synced[os.stat(target).st_ino] = os.stat(target).st_size

    def unlink(self, path):
        self.photograph()
        super().unlink(path)


def torn(pictures: list[dict[str, bytes]]) -> list[dict[str, bytes]]:
    """These, and between them those with half of what the index's log has grown by."""
    found, last = [], 0
    for picture in pictures:
        log = picture.get(LOG, b"")
        if len(log) > last > 0:
            found.append({**picture, LOG: log[: (last + len(log)) // 2]})
        found.append(picture)
        last = len(log)
    return found


def watched(connect, camera):
    """`schema.connect`, with the camera clicking before every statement."""

    def connected(directory, **arguments):
        connection = connect(directory, **arguments)
        connection.set_trace_callback(camera.photograph)
        return connection

    return connected


class CrashTests(TestCase):
    async def begin(self, links: bool = True, few: int = 0):
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = scratch.name
        self.directory = os.path.join(scratch.name, "store")
        os.mkdir(self.directory)
        for folder in (PACKS, LARGE):
            os.mkdir(os.path.join(self.directory, folder))
        self.camera = Camera(self.directory, links)
        self.patch(writer, "connect", watched(writer.connect, self.camera))
        self.store = SQLiteStore(
            self.directory, reactor, roll=ROLL, few=few, waiting=2 * few, disk=self.camera
        )
        self.spool = Spool(
            os.path.join(scratch.name, "spool"), None, in_memory=2000, in_thread=lambda f, *a: succeed(f(*a))
        )
        self.spool.start()
        await self.store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.store.stop()))
        self.count = self.developed = 0

    async def dump(self, store):
        return {name: await state(store, name) for name in await store.accounts()}

    async def step(self, what, awaitable):
        """One operation, and what a crash at each of its moments would have left."""
        before, self.camera.pictures = await self.dump(self.store), []
        result = await awaitable
        during, self.camera.pictures, self.camera._last = self.camera.pictures, [], ({}, {})
        self.camera.photograph()
        acknowledged, self.camera.pictures = self.camera.pictures, []
        after = await self.dump(self.store)
        for number, picture in enumerate(torn(during + acknowledged)):
            await self.develop(picture, [before, after], f"{what}, picture {number} of {len(during)}")
        for picture in acknowledged:
            await self.develop(picture, [after], f"{what}, acknowledged")
        self.developed += len(during) + len(acknowledged)
        return result

    async def develop(self, picture, possible, where):
        with TemporaryDirectory() as directory:
            for folder in (PACKS, LARGE):
                os.mkdir(os.path.join(directory, folder))
            for name, content in picture.items():
                with open(os.path.join(directory, name), "wb") as file:
                    file.write(content)
            store = SQLiteStore(directory, reactor, roll=ROLL)
            await store.start()
            try:
                self.assertEqual(await store.verify(), [], where)
                found = await self.dump(store)
                self.assertIn(found, possible, where)
                known = {name for (name,) in store._watch.execute("SELECT name FROM files WHERE id > 0")}
                there = {f"{f}/{n}" for f in (PACKS, LARGE) for n in os.listdir(os.path.join(directory, f))}
                self.assertEqual(there, known, where)
                for name, boxes in found.items():
                    # It goes on, too: with the next UID, and without touching what is there.
                    inbox = await (await store.account(name)).open("INBOX")
                    self.assertEqual(await inbox.append([new_message()]), [boxes["INBOX"][1]], where)
                self.assertEqual(await store.verify(), [], where)
            finally:
                await store.stop()

    def message(self, size: int = 500, **arguments) -> NewMessage:
        self.count += 1
        return new_message(b"Subject: %d\r\n\r\n" % self.count + b"x" * size + b"\r\n", **arguments)

    async def large(self) -> NewMessage:
        body = self.spool.begin()
        self.count += 1
        await body.write(b"Subject: large %d\r\n\r\n" % self.count + b"yes\r\n" * 1000)
        message = await body.finish()
        self.addCleanup(message.close)
        return NewMessage(message, b"X: y\r\n", frozenset({"\\Seen"}), 0)

    async def test_a_story(self):
        await self.begin()
        await self.tell()

    async def test_a_story_of_bodies_that_wait_in_the_index(self):
        await self.begin(few=800)
        await self.tell()

    async def tell(self):
        store, step = self.store, self.step
        await step("account", store.create_account(ALICE))
        await step("another account", store.create_account(BOB))
        alice = await store.account(ALICE)
        inbox = await alice.open("INBOX")
        await step("append", inbox.append([self.message(flags=("key", "\\Seen"))]))
        await step("append more", inbox.append([self.message(), await self.large(), self.message()]))
        shared = self.message(prefix=b"Delivered-To: x\r\n")
        deliveries = [Delivery(name, "INBOX", shared) for name in (ALICE, BOB)]
        await step("commit", store.commit(deliveries))
        await step("flags", inbox.set_flags(UIDSet.of((1, 3)), FlagChange(add=frozenset({"other"}))))
        await step("create", alice.create("a/b"))
        await step("copy", inbox.copy(EVERYTHING, "a/b"))
        await step("rename", alice.rename("a", "b"))
        below = await alice.open("b/b")
        await step("move", below.move(UIDSet.of((1, 2)), "INBOX"))
        await step("expunge", inbox.expunge(UIDSet.of((2, 3)), deleted_only=False))
        await step("fill a pack", inbox.append([self.message(4000)]))
        await step("go on in another", inbox.append([self.message()]))
        await step("delete", alice.delete("b/b"))
        await step("rename INBOX", alice.rename("INBOX", "old"))
        old = await alice.open("old")
        await step("all is gone", old.expunge(EVERYTHING, deleted_only=False))
        await step("the last of the shared body", store.remove_account(BOB))
        print(f"{self.developed} pictures")
        self.assertGreater(self.developed, 40)

    async def test_large_bodies_from_another_file_system(self):
        await self.begin(links=False)
        await self.store.create_account(ALICE)
        inbox = await (await self.store.account(ALICE)).open("INBOX")
        await self.step("append", inbox.append([await self.large(), self.message()]))
        await self.step("expunge", inbox.expunge(EVERYTHING, deleted_only=False))

    async def test_snapshots(self):
        """Nobody waits for one, and a part of one is none."""
        await self.begin()
        self.patch(snapshot, "BITS", 2)
        await self.store.create_account(ALICE)
        inbox = await (await self.store.account(ALICE)).open("INBOX")
        await inbox.append([self.message(10) for _ in range(9)])
        number = inbox._row.id
        await self.step("the first", self.store.take_snapshot(number))
        await self.step("flags", inbox.set_flags(UIDSet.of((1, 8)), FlagChange(add=frozenset({"\\Seen"}))))
        await inbox.expunge(UIDSet.of((4, 5, 6, 7)), deleted_only=False)
        await self.step("another", self.store.take_snapshot(number))
        await self.step("gone with all", self.store.remove_account(ALICE))
        self.assertGreater(self.developed, 20)

    async def test_derived(self):
        """What is kept of messages is of those that are there."""
        await self.begin()
        await self.store.create_account(ALICE)
        inbox = await (await self.store.account(ALICE)).open("INBOX")
        await inbox.append([self.message(10) for _ in range(BLOCK)])
        await self.step("kept", inbox.keep_derived([Derived("a", 1, BLOCK, b"x" * 5000)]))
        await self.step("forgotten", inbox.expunge(UIDSet.of((7,)), deleted_only=False))
        await inbox.keep_derived([Derived("a", 1, BLOCK - 1, b"y" * 5000)])
        await self.step("gone with all", self.store.remove_account(ALICE))
        self.assertGreater(self.developed, 10)
