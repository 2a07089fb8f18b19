"""The memory store keeps the contract."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from mailplat.storage.memory import MemoryStore
from mailplat.testing.stores import MailboxStoreContract


class MemoryStoreTests(MailboxStoreContract, TestCase):
    def make_store(self) -> MemoryStore:
        return MemoryStore()

    async def test_the_next_process_does_not_take_up_uids(self) -> None:
        """Its messages are others, and a client that comes back must not take them for those it knows."""
        now = 1_000_000.0

        async def inbox(store: MemoryStore, name: str) -> int:
            await store.create_account(name)
            return (await (await store.account(name)).open("INBOX")).uid_validity

        first = MemoryStore(clock=lambda: now)
        before = [await inbox(first, name) for name in ("a@example.test", "b@example.test")]
        self.assertEqual(len(set(before)), 2)
        now += 1
        after = [await inbox(MemoryStore(clock=lambda: now), "a@example.test")]
        self.assertGreater(after[0], before[0])
        now += 10
        self.assertGreaterEqual(await inbox(first, "c@example.test"), now)
        now -= 1000
        self.assertGreater(await inbox(first, "d@example.test"), before[1])
