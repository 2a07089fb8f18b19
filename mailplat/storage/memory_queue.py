"""
The reference queue: messages waiting in plain Python objects, gone with their process.

It is the shortest honest reading of `mailplat.interfaces.IQueueStore`: every question looks at
every recipient.  Nothing here waits, except for the bytes of a body that is not in memory;
these are fetched before anything is changed, so each call is atomic by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from zope.interface import implementer

from mailplat.errors import NoSuchMessage
from mailplat.interfaces import IQueueStore, NewItem
from mailplat.storage.queue_rules import merged, stated
from mailplat.storage.spool import InMemory, whole
from mailplat.values import NEVER, Envelope, QueuedRecipient, QueueItem, QueueStatus, Settled


@dataclass(frozen=True, slots=True)
class Arrival:
    """An item before it has an id: all of it is in memory."""

    new: NewItem
    body: bytes


async def arrival(new: NewItem) -> Arrival:
    """Fetch what an item is made of."""
    return Arrival(new, await whole(new.body))


@dataclass(slots=True)
class _Waiting:
    """An item as it is kept; `recipients` by number."""

    id: int
    envelope: Envelope
    account: str
    arrived: int
    prefix: bytes
    body: bytes
    outline: bytes
    recipients: dict[int, QueuedRecipient]

    def item(self, recipients: Iterable[QueuedRecipient]) -> QueueItem:
        return QueueItem(
            self.id,
            self.envelope,
            self.account,
            self.arrived,
            len(self.prefix) + len(self.body),
            tuple(sorted(recipients, key=lambda recipient: recipient.number)),
        )


@implementer(IQueueStore)
class MemoryQueue:
    """See `IQueueStore`."""

    def __init__(self) -> None:
        self._items: dict[int, _Waiting] = {}
        self._next = 1
        # (item, number) -> the recipient as it was handed out.
        self._taken: dict[tuple[int, int], QueuedRecipient] = {}
        self._resting: dict[tuple[str, str], int] = {}
        self._hints: dict[object, Callable[[], None]] = {}

    async def add(self, items: Sequence[NewItem]) -> Sequence[int]:
        ids = self.put([await arrival(new) for new in items])
        self.tell()
        return ids

    async def places(self, most: int, besides: Collection[tuple[str, str]]) -> Sequence[tuple[str, str, int]]:
        soonest: dict[tuple[str, str], int] = {}
        for _, recipient in self._everybody():
            target = (recipient.target.agent, recipient.target.place)
            if recipient.due != NEVER and target not in besides:
                soonest[target] = min(recipient.due, soonest.get(target, NEVER))
        found = sorted((max(due, self._resting.get(key, 0)), *key) for key, due in soonest.items())
        return [(agent, place, due) for due, agent, place in found[:most]]

    async def rest(self, agent: str, place: str, until: int) -> None:
        self._resting[agent, place] = until

    async def take(self, agent: str, place: str, before: int, most: int) -> Sequence[QueueItem]:
        if self._resting.get((agent, place), 0) > before:
            return []

        def when(recipient: QueuedRecipient) -> int:
            target = recipient.target
            return recipient.due if (target.agent, target.place) == (agent, place) else NEVER

        return self._take(before, most, when)

    async def take_overdue(self, before: int, most: int) -> Sequence[QueueItem]:
        return self._take(before, most, lambda recipient: recipient.notice)

    def give_back(self, item: int, numbers: Collection[int]) -> None:
        for number in numbers:
            self._taken.pop((item, number), None)

    async def message(self, item: int) -> tuple[InMemory, bytes]:
        waiting = self._find(item)
        return InMemory(waiting.body, waiting.outline), waiting.prefix

    async def settle(self, results: Sequence[Settled], items: Sequence[NewItem] = ()) -> None:
        arrivals = [await arrival(new) for new in items]
        self.put_down(results)
        if arrivals:
            self.put(arrivals)
            self.tell()

    async def status(self) -> QueueStatus:
        recipients = [recipient for _, recipient in self._everybody()]
        return QueueStatus(
            items=len(self._items),
            recipients=len(recipients),
            held=sum(recipient.due == NEVER for recipient in recipients),
            oldest=min((waiting.arrived for waiting in self._items.values()), default=0),
        )

    async def items(self, after: int, most: int) -> Sequence[QueueItem]:
        # Ids were given in the order of the dictionary.
        found = [waiting for waiting in self._items.values() if waiting.id > after]
        return [waiting.item(waiting.recipients.values()) for waiting in found[:most]]

    async def item(self, item: int) -> QueueItem:
        waiting = self._find(item)
        return waiting.item(waiting.recipients.values())

    async def change(self, recipients: Sequence[Settled]) -> int:
        changed = sum([self._change(one, None) for one in recipients])
        self.tell()
        return changed

    def watch(self, hint: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._hints[key] = hint

        def stop() -> None:
            self._hints.pop(key, None)

        return stop

    # For the store that commits deliveries and items together

    def put(self, arrivals: Sequence[Arrival]) -> list[int]:
        """Add these without telling anybody; `tell` is the caller's."""
        first = self._next
        for number, (new, body) in enumerate(((one.new, one.body) for one in arrivals), first):
            self._items[number] = _Waiting(
                number,
                stated(new.envelope),
                new.account,
                new.arrived,
                new.prefix,
                body,
                new.body.outline,
                {index: replace(one, number=index) for index, one in enumerate(new.recipients)},
            )
        self._next = first + len(arrivals)
        return list(range(first, self._next))

    def put_down(self, results: Sequence[Settled]) -> None:
        """Settle these."""
        for result in results:
            self._change(result, self._taken.pop((result.item, result.number), None))

    def tell(self) -> None:
        for hint in list(self._hints.values()):
            hint()

    # Beneath them

    def _everybody(self) -> Iterator[tuple[_Waiting, QueuedRecipient]]:
        for waiting in self._items.values():
            for recipient in waiting.recipients.values():
                yield waiting, recipient

    def _take(self, before: int, most: int, when: Callable[[QueuedRecipient], int]) -> list[QueueItem]:
        found: dict[int, list[QueuedRecipient]] = {}
        for waiting, recipient in self._everybody():
            if when(recipient) <= before and (waiting.id, recipient.number) not in self._taken:
                found.setdefault(waiting.id, []).append(recipient)
        order = sorted(found, key=lambda item: (min(map(when, found[item])), item))[:most]
        for item in order:
            self._taken.update(((item, recipient.number), recipient) for recipient in found[item])
        return [self._items[item].item(found[item]) for item in order]

    def _change(self, change: Settled, taken: QueuedRecipient | None) -> bool:
        """Whether the recipient was there; `taken` is what it was before the attempt that this is about."""
        waiting = self._items.get(change.item)
        if waiting is None or (old := waiting.recipients.get(change.number)) is None:
            return False
        if change.recipient is None:
            del waiting.recipients[change.number]
            if not waiting.recipients:
                del self._items[change.item]
        else:
            waiting.recipients[change.number] = merged(change.recipient, old, taken)
        return True

    def _find(self, item: int) -> _Waiting:
        if (waiting := self._items.get(item)) is None:
            raise NoSuchMessage()
        return waiting
