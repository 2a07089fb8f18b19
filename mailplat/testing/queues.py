"""
The contract of a queue store, as tests: for our queues and for yours.

A queue's test file is this:

    from twisted.trial.unittest import TestCase
    from mailplat.testing.queues import QueueStoreContract

    class MyQueueTests(QueueStoreContract, TestCase):
        def make_queue(self):                   # a new, empty one, ready for use
            return MyQueue(self.new_directory())

Run it with trial or pytest.  A queue that outlives its process, that several processes may use,
or whose disk a test can fill, says how; see `mailplat.testing.contract.queue.QueueCase`:

        async def restart_queue(self, queue): ...
        async def other_queue(self, queue): ...
        def fill_disk(self, full): ...

What a store that `ICommitsTogether` does with its queue is tested by
`mailplat.testing.stores.MailboxStoreContract`.
"""

from __future__ import annotations

from mailplat.testing.contract.queue import (
    Adding,
    Changing,
    Listing,
    Messages,
    Places,
    QueueStories,
    Restarting,
    Resting,
    RunningFull,
    Settling,
    Sharing,
    Taking,
    Watching,
)

__all__ = ["QueueStoreContract"]


class QueueStoreContract(
    Adding,
    Messages,
    Places,
    Resting,
    Taking,
    Settling,
    Changing,
    Listing,
    Watching,
    Restarting,
    Sharing,
    RunningFull,
    QueueStories,
):
    """All topics.  Combine it with `twisted.trial.unittest.TestCase`."""
