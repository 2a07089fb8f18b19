"""The memory store keeps the contract."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from mailplat.storage.memory import MemoryStore
from mailplat.testing.stores import MailboxStoreContract


class MemoryStoreTests(MailboxStoreContract, TestCase):
    def make_store(self) -> MemoryStore:
        return MemoryStore()
