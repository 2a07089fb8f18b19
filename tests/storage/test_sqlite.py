"""The embedded store keeps the contract, also over a restart."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import new_message
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
