"""The queue in memory keeps the contract."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from mailplat.storage.memory_queue import MemoryQueue
from mailplat.testing.queues import QueueStoreContract


class MemoryQueueTests(QueueStoreContract, TestCase):
    def make_queue(self) -> MemoryQueue:
        return MemoryQueue()
