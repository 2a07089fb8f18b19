"""What `mailplat check` finds in a store that something happened to."""

import glob
import os
import sqlite3
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailplat.interfaces import NewMessage
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import MemoryMessage

ALICE = "alice@example.test"


class VerifyTests(TestCase):
    async def filled(self):
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = scratch.name
        store = SQLiteStore(self.directory, reactor)
        await store.start()
        await store.create_account(ALICE)
        inbox = await (await store.account(ALICE)).open("INBOX")
        for text in (b"one", b"two"):
            body = MemoryMessage(b"Subject: x\r\n\r\n" + text * 100 + b"\r\n")
            await inbox.append([NewMessage(body, b"", frozenset({"\\Seen"}), 0)])
        await store.stop()

    async def problems(self):
        store = SQLiteStore(self.directory, reactor)
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

    async def test_well(self):
        await self.filled()
        self.assertEqual(await self.problems(), [])

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
