"""What `mailplat check` finds in a store that something happened to."""

import glob
import os
import sqlite3
from dataclasses import replace
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailplat.interfaces import Delivery, NewItem, NewMessage
from mailplat.storage.spool import Spool
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import MemoryMessage
from mailplat.values import NEVER, Address, Envelope, QueuedRecipient, Settled, Target

ALICE = "alice@example.test"


class Filled:
    """A store with two messages."""

    async def filled(self):
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = scratch.name
        store = SQLiteStore(self.directory, reactor, few=0)
        await store.start()
        await store.create_account(ALICE)
        inbox = await (await store.account(ALICE)).open("INBOX")
        for text in (b"one", b"two"):
            body = MemoryMessage(b"Subject: x\r\n\r\n" + text * 100 + b"\r\n")
            await inbox.append([NewMessage(body, b"", frozenset({"\\Seen"}), 0)])
        await store.stop()

    async def problems(self):
        store = SQLiteStore(self.directory, reactor, few=0)
        await store.start()
        try:
            return await store.verify()
        finally:
            await store.stop()

    def index(self, statement):
        (path,) = glob.glob(os.path.join(self.directory, "*index*"))[:1] or [None]
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()

    def pack(self):
        (path,) = glob.glob(os.path.join(self.directory, "packs", "*"))
        return path


class VerifyTests(Filled, TestCase):
    async def test_well(self):
        await self.filled()
        self.assertEqual(await self.problems(), [])

    async def test_something_made_of_other_messages(self):
        await self.filled()
        for values in ((1, 1, "a", 2), (1, 1, "b", 7), (99, 1, "c", 2)):
            self.index(f"INSERT INTO derived (mailbox, block, kind, messages, octets) VALUES {(*values, '')}")
        self.index("UPDATE mailboxes SET uid_next = 300 WHERE id = 1")
        self.assertEqual(
            await self.problems(),
            [
                "mailbox 1: the b kept for block 1 is not of the messages there",
                "mailbox 99: the c kept for block 1 is not of the messages there",
            ],
        )
        self.index("UPDATE mailboxes SET uid_next = 3 WHERE id = 1")
        self.assertEqual(len(await self.problems()), 3)

    async def test_changed_octet_of_a_large_message(self):
        """One that has a file of its own."""
        await self.filled()
        with TemporaryDirectory(dir=self.directory) as directory:
            spool = Spool(directory, reactor, in_memory=1000)
            body = spool.begin()
            await body.write(b"Subject: large\r\n\r\n" + b"0123456789abcd\r\n" * 100_000)
            message = await body.finish()
            store = SQLiteStore(self.directory, reactor, few=0)
            await store.start()
            inbox = await (await store.account(ALICE)).open("INBOX")
            await inbox.append([NewMessage(message, b"", frozenset(), 0)])
            await store.stop()
            message.close()
        self.assertEqual(await self.problems(), [])
        (path,) = glob.glob(os.path.join(self.directory, "large", "*"))
        with open(path, "r+b") as file:
            file.seek(1_500_000)
            file.write(b"X")
        (problem,) = await self.problems()
        self.assertIn("is not what was written", problem)

    async def test_changed_octet(self):
        await self.filled()
        with open(self.pack(), "r+b") as pack:
            content = pack.read()
            pack.seek(content.index(b"twotwo"))
            pack.write(b"T")
        (problem,) = await self.problems()
        self.assertIn("is not what was written", problem)

    async def test_short_pack(self):
        await self.filled()
        with open(self.pack(), "r+b") as pack:
            pack.truncate(pack.read().index(b"twotwo"))
        (problem,) = await self.problems()
        self.assertIn("there are", problem)

    async def test_missing_pack(self):
        await self.filled()
        os.unlink(self.pack())
        problems = await self.problems()
        self.assertTrue(problems and all("No such file" in problem for problem in problems), problems)

    async def test_wrong_counter(self):
        await self.filled()
        self.index("UPDATE mailboxes SET messages = messages + 1 WHERE name = 'INBOX'")
        (problem,) = await self.problems()
        self.assertIn("counters say", problem)


class VerifySnapshotTests(Filled, TestCase):
    """With a snapshot of a mailbox."""

    async def filled(self):
        await super().filled()
        store = SQLiteStore(self.directory, reactor)
        await store.start()
        inbox = await (await store.account(ALICE)).open("INBOX")
        await store.take_snapshot(inbox._row.id)
        await store.stop()

    async def test_well(self):
        await self.filled()
        self.assertEqual(await self.problems(), [])

    async def test_damage(self):
        otherwise = f"{ALICE} INBOX: its snapshot in the index is not what its messages are"
        for statement, complaint in (
            ("UPDATE snapshot_pieces SET sizes = x'01000000'", otherwise),
            ("UPDATE snapshot_pieces SET flags = x'00'", otherwise),
            ("UPDATE snapshot_pieces SET overflow = '{'", otherwise),
            ("UPDATE snapshot_pieces SET piece = 1", otherwise),
            ("UPDATE snapshots SET modseq = modseq + 1", otherwise),
            ("DELETE FROM snapshot_pieces", otherwise),
            ("UPDATE snapshot_pieces SET mailbox = 99", "piece of a snapshot 1 refers to something that is"),
        ):
            await self.filled()
            self.index(statement)
            problems = await self.problems()
            self.assertTrue(any(complaint in problem for problem in problems), (statement, problems))


class VerifyQueueTests(Filled, TestCase):
    """With a queue that has something in it."""

    async def filled(self):
        await super().filled()
        store = SQLiteStore(self.directory, reactor, few=0)
        await store.start()
        one = QueuedRecipient(0, Target("relay", "there", Address("x", "there")), due=5)
        bodies = [MemoryMessage(b"Subject: x\r\n\r\n" + text * 100 + b"\r\n") for text in (b"three", b"four")]
        item = NewItem(Envelope(None), bodies[0], b"P: x\r\n", [one, replace(one, due=NEVER)], "", 1)
        await store.commit(
            [Delivery(ALICE, "INBOX", NewMessage(bodies[0], b"", frozenset({"\\Seen"}), 0))], [item, item]
        )
        await store.queue.add([replace(item, body=bodies[1])])
        await store.queue.settle([Settled(2, 0, None), Settled(2, 1, None), Settled(3, 0, None)])
        await store.stop()

    async def test_well(self):
        await self.filled()
        self.assertEqual(await self.problems(), [])

    async def test_changed_octet_of_an_item(self):
        await self.filled()
        with open(self.pack(), "r+b") as pack:
            content = pack.read()
            pack.seek(content.index(b"fourfour"))
            pack.write(b"F")
        (problem,) = await self.problems()
        self.assertIn("is not what was written", problem)

    async def test_damage(self):
        for statement, complaint in (
            ("UPDATE queue SET held = held + 1", "the queue: counters say (2, 3, 3), there are (2, 3, 2)"),
            ("UPDATE queue_places SET due = 6", "the queue for relay there: due at 6"),
            ("DELETE FROM queue_recipients WHERE item = 3", "queue item 3 has no recipients"),
            ("UPDATE queue_recipients SET item = 2 WHERE item = 3", "recipient of queue item 2 refers"),
            ("UPDATE queue_recipients SET place = 99 WHERE item = 3", "recipient of queue item 3 refers"),
            ("UPDATE queue_items SET copy = 99 WHERE id = 3", "queue item 3 refers"),
            ("UPDATE copies SET messages = messages + 1 WHERE length(prefix) = 6", "are said to need it"),
            ("UPDATE bodies SET copies = copies + 1", "are said to need it"),
        ):
            await self.filled()
            self.index(statement)
            problems = await self.problems()
            self.assertTrue(any(complaint in problem for problem in problems), (statement, problems))
