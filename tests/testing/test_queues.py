"""The queue contract notices: each way to break a promise, and the tests that must fail then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.interfaces import NewItem
from mailplat.storage import memory_queue
from mailplat.storage.memory_queue import MemoryQueue
from mailplat.testing.contract.queue import QueueCase
from mailplat.testing.queues import QueueStoreContract
from mailplat.values import NEVER, QueuedRecipient, Settled


class Contract(QueueStoreContract, TestCase):
    __test__ = False  # run by the tests below only
    shortens = False

    def make_queue(self) -> MemoryQueue:
        return MemoryQueue()


class Whole(SynchronousTestCase):
    def test_no_test_hides_another(self) -> None:
        seen: set[str] = set()
        for topic in (topic for topic in Contract.__mro__ if issubclass(topic, QueueCase)):
            names = {name for name in vars(topic) if name.startswith("test_")}
            self.assertEqual(seen & names, set(), topic.__name__)
            seen |= names
        self.assertGreater(len(seen), 45)


original: dict[str, Any] = {
    name: getattr(MemoryQueue, name)
    for name in (
        "add",
        "take",
        "take_overdue",
        "give_back",
        "settle",
        "change",
        "places",
        "tell",
        "_take",
        "put",
    )
}


async def settle_early(self: Any, results: Sequence[Settled], items: Sequence[NewItem] = ()) -> None:
    """Lets go before it has written."""
    for result in results:
        self.give_back(result.item, (result.number,))
    await original["settle"](self, results, items)


async def settle_without_reports(
    self: Any, results: Sequence[Settled], items: Sequence[NewItem] = ()
) -> None:
    await original["settle"](self, results)


async def places_with_held(self: Any, most: int, besides: Any) -> Any:
    found = {(r.target.agent, r.target.place, min(r.due, NEVER - 1)) for _, r in self._everybody()}
    return sorted((one for one in found if one[:2] not in besides), key=lambda one: one[2])[:most]


async def change_ends_taking(self: Any, recipients: Sequence[Settled]) -> int:
    for one in recipients:
        self.give_back(one.item, (one.number,))
    changed: int = await original["change"](self, recipients)
    return changed


def keep(self: Any, item: int, numbers: Any) -> None:
    """Gives nothing back."""


def take_and_forget(self: Any, before: int, most: int, when: Any) -> Any:
    found = original["_take"](self, before, most, when)
    self._taken.clear()
    return found


def take_too_much(self: Any, before: int, most: int, when: Any) -> Any:
    return original["_take"](self, before, most + 1, when)


def use_ids_again(self: Any, arrivals: Any) -> Any:
    self._next = max(self._items, default=0) + 1
    return original["put"](self, arrivals)


def tell_nobody(self: Any) -> None:
    pass


def attempt_wins(
    new: QueuedRecipient, old: QueuedRecipient, taken: QueuedRecipient | None
) -> QueuedRecipient:
    return memory_queue.replace(new, number=old.number)


MUTANTS: list[tuple[Any, str, Callable[..., Any], tuple[str, ...]]] = [
    (MemoryQueue, "settle", settle_early, ("test_what_was_decided_meanwhile_holds",)),
    (MemoryQueue, "settle", settle_without_reports, ("test_with_reports",)),
    (MemoryQueue, "places", places_with_held, ("test_the_held_do_not_count", "test_story")),
    (
        MemoryQueue,
        "change",
        change_ends_taking,
        ("test_what_is_taken_stays_taken", "test_story"),
    ),
    (MemoryQueue, "give_back", keep, ("test_given_back", "test_story", "test_story_at_once")),
    (
        MemoryQueue,
        "_take",
        take_and_forget,
        ("test_what_is_due", "test_once_taken_neither_hands_it_out", "test_story"),
    ),
    (MemoryQueue, "_take", take_too_much, ("test_none_asked_for", "test_soonest_first_by_item")),
    (MemoryQueue, "put", use_ids_again, ("test_ids_are_never_used_again",)),
    (memory_queue, "merged", attempt_wins, ("test_what_was_decided_meanwhile_holds",)),
]


class Notices(TestCase):
    async def fails(self, name: str) -> bool:
        case = Contract(name)
        await case._begin()
        try:
            await getattr(case, name)()
        except Exception:
            return True
        return False

    async def test_broken_queues(self) -> None:
        for owner, attribute, replacement, tests in MUTANTS:
            sound = getattr(owner, attribute)
            setattr(owner, attribute, replacement)
            try:
                for name in tests:
                    self.assertTrue(await self.fails(name), f"{name} did not notice {replacement.__name__}")
            finally:
                setattr(owner, attribute, sound)
        for name in sorted({name for *_, tests in MUTANTS for name in tests}):
            self.assertFalse(await self.fails(name), name)

    async def test_a_queue_that_hints_at_nothing(self) -> None:
        self.patch(MemoryQueue, "tell", tell_nobody)
        case = Contract("test_hints")
        await case._begin()
        told: list[int] = []
        case.queue.watch(lambda: told.append(1))
        await case.add()
        with self.assertRaises(AssertionError):
            await case.until(lambda: bool(told), seconds=0.01)
