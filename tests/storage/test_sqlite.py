"""The embedded store keeps the contract, also over a restart."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.stores import MailboxStoreContract


class SQLiteStoreTests(MailboxStoreContract, TestCase):
    def make_store(self) -> SQLiteStore:
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = scratch.name
        return SQLiteStore(self.directory, reactor)

    def restart_store(self, store: SQLiteStore) -> SQLiteStore:
        return SQLiteStore(self.directory, reactor)
