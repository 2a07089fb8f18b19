"""
The embedded store's queue, as the reactor's thread sees it.

Changes go to the store's writer, so an item is committed together with whatever else waits,
local mail among it; questions go to its readers.  Who has taken what is known here only and
ends with the process: a queue that starts finds everything as it was last settled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from mailplat.interfaces import IQueueStore, ISpooledMessage, NewItem
from mailplat.storage import queue_ledger, queue_reading
from mailplat.storage.packs import OpenFiles
from mailplat.storage.reading import Readers
from mailplat.values import QueuedRecipient, QueueItem, QueueStatus, Settled


class Store(Protocol):
    """What the queue needs of the store that it is part of."""

    directory: str
    files: OpenFiles
    readers: Readers

    def write(
        self, act: Callable[..., Any], bodies: Sequence[Any] = (), lazy: bool = False
    ) -> Deferred[Any]: ...

    def watched(self, watcher: object, watched: bool) -> None: ...


@implementer(IQueueStore)
class SQLiteQueue:
    """See `IQueueStore`."""

    _log = Logger()

    def __init__(self, store: Store) -> None:
        self._store = store
        # (item, number) -> the recipient as it was handed out.
        self._taken: dict[tuple[int, int], QueuedRecipient] = {}
        self._taking = DeferredLock()
        self._hints: dict[object, Callable[[], None]] = {}

    def begin(self) -> None:
        """The store has started: nobody has taken anything."""
        self._taken.clear()

    async def add(self, items: Sequence[NewItem]) -> Sequence[int]:
        ids: list[int] = await self._store.write(
            lambda txn, places: queue_ledger.add(txn, items, places), [new.body for new in items]
        )
        return ids

    async def places(self, most: int, besides: Collection[tuple[str, str]]) -> Sequence[tuple[str, str, int]]:
        return await self._store.readers.do(queue_reading.places, most, besides)

    async def rest(self, agent: str, place: str, until: int) -> None:
        await self._store.write(lambda txn, _: queue_ledger.rest(txn, agent, place, until), lazy=True)

    async def take(self, agent: str, place: str, before: int, most: int) -> Sequence[QueueItem]:
        return await self._take(queue_reading.due, agent, place, before, most)

    async def take_overdue(self, before: int, most: int) -> Sequence[QueueItem]:
        return await self._take(queue_reading.overdue, before, most)

    def give_back(self, item: int, numbers: Collection[int]) -> None:
        for number in numbers:
            self._taken.pop((item, number), None)

    async def message(self, item: int) -> tuple[ISpooledMessage, bytes]:
        store = self._store
        return await store.readers.do(queue_reading.message, item, store.files, store.directory)

    async def settle(self, results: Sequence[Settled], items: Sequence[NewItem] = ()) -> None:
        taken = self.taken(results)
        await self._store.write(
            lambda txn, places: queue_ledger.settle(txn, results, taken, items, places),
            [new.body for new in items],
        )
        # Not before: until it is committed it is still due as it was.
        self.settled(results)

    async def status(self) -> QueueStatus:
        return await self._store.readers.do(queue_reading.status)

    async def items(self, after: int, most: int) -> Sequence[QueueItem]:
        return await self._store.readers.do(queue_reading.items, after, most)

    async def item(self, item: int) -> QueueItem:
        return await self._store.readers.do(queue_reading.item, item)

    async def change(self, recipients: Sequence[Settled]) -> int:
        changed: int = await self._store.write(lambda txn, _: queue_ledger.change(txn, recipients))
        return changed

    def watch(self, hint: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._hints[key] = hint
        self._store.watched(self, True)

        def stop() -> None:
            if self._hints.pop(key, None) is not None and not self._hints:
                self._store.watched(self, False)

        return stop

    def tell(self) -> None:
        """Something was committed, by this process or by another."""
        for hint in list(self._hints.values()):
            try:
                hint()
            except Exception:
                self._log.failure("A watcher of the queue failed")

    # For the store that settles together with deliveries

    def taken(self, results: Sequence[Settled]) -> list[QueuedRecipient | None]:
        """Each as it was handed out, None if it was not."""
        return [self._taken.get((result.item, result.number)) for result in results]

    def settled(self, results: Sequence[Settled]) -> None:
        """They are committed, and not taken any more."""
        for result in results:
            self._taken.pop((result.item, result.number), None)

    async def _take(self, question: Callable[..., list[QueueItem]], *arguments: Any) -> Sequence[QueueItem]:
        # One at a time, or two would find the same.
        await self._taking.acquire()
        try:
            # What is settled while this is read may be read as it was: those count as taken, too.
            found = await self._store.readers.do(question, *arguments, frozenset(self._taken))
            for item in found:
                self._taken.update(((item.id, one.number), one) for one in item.recipients)
            return found
        finally:
            self._taking.release()
