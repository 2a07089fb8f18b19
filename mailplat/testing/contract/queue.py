"""What every queue store does, by topic; see `mailplat.testing.queues` for how to use it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SkipTest
from zope.interface.verify import verifyObject

from mailplat.errors import NoSuchMessage, StorageFull
from mailplat.interfaces import IQueueStore, ISpooledMessage, NewItem
from mailplat.storage.spool import Spool, whole
from mailplat.testing.contract.base import Case, body, given
from mailplat.testing.fakes import MemoryMessage
from mailplat.values import (
    NEVER,
    Address,
    Envelope,
    QueuedRecipient,
    QueueItem,
    QueueStatus,
    ReportRequest,
    Settled,
    Target,
)

__all__ = [
    "Adding",
    "Changing",
    "Listing",
    "Messages",
    "Places",
    "QueueCase",
    "QueueStories",
    "Restarting",
    "Resting",
    "RunningFull",
    "Settling",
    "Sharing",
    "Taking",
    "Watching",
]

SENDER = Address("sender", "example.test")

#: Later than any time in these tests, but for NEVER.
LATE = 1 << 40

Numbers = list[tuple[int, list[int]]]


def recipient(
    place: str = "there", due: int = 10, notice: int = 1000, agent: str = "relay"
) -> QueuedRecipient:
    """A recipient at `place`."""
    return QueuedRecipient(0, Target(agent, place, Address("rcpt", f"{place}.test")), due=due, notice=notice)


def new_item(
    *recipients: QueuedRecipient,
    number: int = 0,
    envelope: Envelope | None = None,
    prefix: bytes = b"Received: by test\r\n",
    account: str = "",
    arrived: int = 5,
    message: ISpooledMessage | None = None,
) -> NewItem:
    """An item for these recipients, one by default, with the body of that number."""
    return NewItem(
        envelope or Envelope(SENDER),
        message or MemoryMessage(body(number), b"an outline"),
        prefix,
        recipients or (recipient(),),
        account,
        arrived,
    )


def numbers(items: Iterable[QueueItem]) -> Numbers:
    """(id, numbers of recipients) of each, in the order given."""
    return [(item.id, [one.number for one in item.recipients]) for item in items]


def done(item: int, *numbers: int) -> list[Settled]:
    return [Settled(item, number, None) for number in numbers or (0,)]


class QueueCase(Case):
    """
    Attributes:
        queue: under test.
    """

    queue: IQueueStore

    # What the queue's author gives

    def make_queue(self) -> IQueueStore | Awaitable[IQueueStore]:
        """A new, empty queue, ready for use; what it needs is stopped by `addCleanup`."""
        raise TypeError(f"{type(self).__name__} makes no queue")

    #: For a queue that outlives its process: given a queue, ends its process in an orderly way and
    #: answers with the next process's queue over the same data.  May be a coroutine.
    restart_queue: Any = None

    #: For a queue that several processes may use: given one, another process's over the same data.
    #: May be a coroutine.
    other_queue: Any = None

    #: For a queue whose disk a test can fill: given True has everything fail that would be
    #: written from now on, given False not any more.
    fill_disk: Any = None

    # What trial calls

    def setUp(self) -> Any:
        return Deferred.fromCoroutine(self._begin())

    async def _begin(self) -> None:
        self.queue = await given(self.make_queue())

    # What topics use

    async def add(self, *recipients: QueuedRecipient, **other: Any) -> int:
        """Add one item; see `new_item`."""
        (number,) = await self.queue.add([new_item(*recipients, **other)])
        return number

    async def take(self, place: str = "there", before: int = LATE, most: int = 100) -> Numbers:
        return numbers(await self.queue.take("relay", place, before, most))

    async def overdue(self, before: int = LATE, most: int = 100) -> Numbers:
        return numbers(await self.queue.take_overdue(before, most))

    async def places(
        self, most: int = 100, besides: Collection[tuple[str, str]] = ()
    ) -> list[tuple[str, int]]:
        return [(place, due) for _, place, due in await self.queue.places(most, besides)]

    async def bytes_of(self, item: int) -> bytes:
        message, prefix = await self.queue.message(item)
        try:
            return prefix + await whole(message)
        finally:
            message.close()

    async def is_empty(self) -> None:
        self.assertEqual(await self.queue.status(), QueueStatus(0, 0, 0, 0))
        self.assertEqual(list(await self.queue.items(0, 10)), [])
        self.assertEqual(await self.places(), [])

    async def large(self, octets: bytes) -> ISpooledMessage:
        """A message in a file of its own."""
        reactor: Any = None
        spool = Spool(
            os.path.join(self.new_directory(), "spool"),
            reactor,
            in_memory=0,
            in_thread=lambda function, *arguments: succeed(function(*arguments)),
        )
        spool.start()
        writer = spool.begin()
        await writer.write(octets)
        return await writer.finish()


class Adding(QueueCase):
    """`add`, and what is found again."""

    async def test_interface(self) -> None:
        self.assertTrue(verifyObject(IQueueStore, self.queue))

    async def test_empty(self) -> None:
        await self.is_empty()
        self.assertEqual(await self.take(), [])
        self.assertEqual(await self.overdue(), [])
        await self.raises(NoSuchMessage, self.queue.item(1))
        await self.raises(NoSuchMessage, self.queue.message(1))

    async def test_add_nothing(self) -> None:
        self.assertEqual(list(await self.queue.add([])), [])
        await self.queue.settle([])
        self.assertEqual(await self.queue.change([]), 0)
        await self.is_empty()

    async def test_everything_is_kept(self) -> None:
        address = Address('o"dd näme', "müller.test")
        request = ReportRequest(frozenset({"SUCCESS", "DELAY"}), "utf-8;ünder@example.test")
        recipients = [
            QueuedRecipient(
                0, Target("relay", "müller.test", address), request, 7, 9, 3, "mx.test", "451 näh", True
            ),
            QueuedRecipient(0, Target("local", "bob@example.test", Address("postmaster", ""))),
            QueuedRecipient(0, Target("relay", "x", address), ReportRequest(frozenset()), NEVER, NEVER),
        ]
        envelope = Envelope(
            Address("sénder", "[192.0.2.1]"),
            (address,),
            "8BITMIME",
            True,
            1234,
            "HDRS",
            'id "=+ ü',
            99,
            {address: request},
        )
        message = MemoryMessage(body(3), b"outline \0\xff")
        added = NewItem(envelope, message, b"X: y\r\n", recipients, "bob@example.test", 77)
        ids = await self.queue.add([added, new_item(envelope=Envelope(None))])
        self.assertEqual(list(ids), sorted(set(ids)))
        self.assertEqual(message.closed, 0)
        kept = Envelope(envelope.sender, (), "8BITMIME", True, 0, "HDRS", 'id "=+ ü', 0)
        expected = QueueItem(
            ids[0],
            kept,
            "bob@example.test",
            77,
            len(body(3)) + 6,
            tuple(replace(one, number=number) for number, one in enumerate(recipients)),
        )
        found = await self.queue.item(ids[0])
        self.assertEqual(found, expected)
        self.assertEqual((dict(found.envelope.requests), found.envelope.recipients), ({}, ()))
        self.assertEqual((await self.queue.item(ids[1])).envelope, Envelope(None))
        self.assertEqual([item.id for item in await self.queue.items(0, 10)], list(ids))
        self.assertEqual((await self.queue.items(0, 1))[0], expected)
        taken = await self.queue.take("relay", "müller.test", 7, 10)
        self.assertEqual(list(taken), [replace(expected, recipients=expected.recipients[:1])])

    async def test_ids_are_never_used_again(self) -> None:
        seen: list[int] = []
        for number in range(4):
            seen += await self.queue.add([new_item(number=number), new_item(number=number)])
            await self.queue.settle(done(seen[-1]))
        self.assertEqual(seen, sorted(set(seen)))

    async def test_at_once(self) -> None:
        answers = await self.at_once(
            [self.queue.add([new_item(number=n), new_item(number=n)]) for n in range(20)]
        )
        ids = [number for answer in answers for number in answer]
        self.assertEqual(len(set(ids)), 40)
        for number, answer in enumerate(answers):
            self.assertEqual(list(answer), sorted(answer))
            self.assertIn(body(number), await self.bytes_of(answer[1]))
        self.assertEqual((await self.queue.status()).items, 40)

    async def test_status(self) -> None:
        await self.add(recipient(), recipient(due=NEVER), arrived=50)
        first = await self.add(recipient(), arrived=20)
        self.assertEqual(await self.queue.status(), QueueStatus(2, 3, 1, 20))
        await self.queue.settle(done(first))
        self.assertEqual(await self.queue.status(), QueueStatus(1, 2, 1, 50))


class Messages(QueueCase):
    """`message`."""

    async def test_bytes(self) -> None:
        item = await self.add(number=4)
        message, prefix = await self.queue.message(item)
        self.assertEqual(prefix, b"Received: by test\r\n")
        self.assertEqual((message.size, message.outline), (len(body(4)), b"an outline"))
        self.assertEqual(await message.read(0, 10), body(4)[:10])
        self.assertEqual(await message.read(10, 1000), body(4)[10:])
        message.close()
        message.close()

    async def test_no_prefix(self) -> None:
        self.assertEqual(await self.bytes_of(await self.add(prefix=b"")), body(0))

    async def test_one_body_for_several_items(self) -> None:
        message = MemoryMessage(body(6))
        ids = await self.queue.add(
            [new_item(message=message, prefix=b"N: %d\r\n" % number) for number in range(3)]
        )
        await self.queue.settle(done(ids[1]))
        await self.raises(NoSuchMessage, self.queue.message(ids[1]))
        self.assertEqual(await self.bytes_of(ids[0]), b"N: 0\r\n" + body(6))
        self.assertEqual(await self.bytes_of(ids[2]), b"N: 2\r\n" + body(6))

    async def test_readable_until_closed(self) -> None:
        item = await self.add(number=1)
        message, _ = await self.queue.message(item)
        other, _ = await self.queue.message(item)
        other.close()
        await self.queue.settle(done(item))
        await self.raises(NoSuchMessage, self.queue.message(item))
        self.assertEqual(await message.read(0, 1000), body(1))
        message.close()

    async def test_large(self) -> None:
        octets = b"Subject: large\r\n\r\n" + b"A line of it\r\n" * 20_000
        spooled = await self.large(octets)
        item = await self.add(message=spooled)
        spooled.close()
        self.assertEqual((await self.queue.item(item)).size, len(octets) + 19)
        message, _ = await self.queue.message(item)
        other, _ = await self.queue.message(item)
        other.close()
        # It can be passed on to another queue or store even though nobody waits for it any more.
        await self.queue.settle(done(item))
        self.assertTrue(message.data is not None or message.path is not None)
        again = await self.add(message=message)
        self.assertEqual(await whole(message), octets)
        message.close()
        self.assertEqual(await self.bytes_of(again), b"Received: by test\r\n" + octets)


class Places(QueueCase):
    """`places`."""

    async def test_soonest_first(self) -> None:
        await self.add(recipient("b", 20), recipient("c", 10), recipient("b", 15))
        await self.add(recipient("a", 30), recipient("c", 40))
        self.assertEqual(await self.places(), [("c", 10), ("b", 15), ("a", 30)])
        self.assertEqual(await self.places(2), [("c", 10), ("b", 15)])
        self.assertEqual(await self.places(1, [("relay", "c"), ("local", "b")]), [("b", 15)])
        self.assertEqual(await self.places(9, {("relay", "c"), ("relay", "b"), ("relay", "x")}), [("a", 30)])

    async def test_agents_differ(self) -> None:
        await self.add(recipient("a", 20, agent="local"), recipient("a", 10))
        self.assertEqual(list(await self.queue.places(9, ())), [("relay", "a", 10), ("local", "a", 20)])
        self.assertEqual(list(await self.queue.places(9, [("relay", "a")])), [("local", "a", 20)])

    async def test_the_held_do_not_count(self) -> None:
        await self.add(recipient("a", NEVER), recipient("b", NEVER), recipient("b", 30))
        self.assertEqual(await self.places(), [("b", 30)])

    async def test_the_taken_count(self) -> None:
        item = await self.add(recipient(due=10))
        await self.take()
        self.assertEqual(await self.places(), [("there", 10)])
        await self.queue.settle([Settled(item, 0, recipient(due=50))])
        self.assertEqual(await self.places(), [("there", 50)])
        await self.queue.settle(done(item))
        self.assertEqual(await self.places(), [])

    async def test_many(self) -> None:
        await self.queue.add([new_item(recipient(f"p{n:03}", 1000 - n)) for n in range(300)])
        besides = [("relay", f"p{n:03}") for n in range(100, 300)]
        self.assertEqual(await self.places(2, besides), [("p099", 901), ("p098", 902)])


class Resting(QueueCase):
    """`rest`."""

    async def test_left_alone(self) -> None:
        await self.add(recipient("a", 10), recipient("b", 20))
        await self.queue.rest("relay", "a", 30)
        self.assertEqual(await self.places(), [("b", 20), ("a", 30)])
        self.assertEqual(list(await self.queue.take("relay", "a", 29, 9)), [])
        self.assertEqual(len(await self.queue.take("relay", "a", 30, 9)), 1)

    async def test_what_comes_meanwhile(self) -> None:
        await self.add(recipient("a", 10))
        await self.queue.rest("relay", "a", 30)
        await self.add(recipient("a", 5), recipient("a", 50))
        self.assertEqual(await self.places(), [("a", 30)])

    async def test_due_later_still(self) -> None:
        await self.add(recipient("a", 50))
        await self.queue.rest("relay", "a", 30)
        self.assertEqual(await self.places(), [("a", 50)])

    async def test_ended(self) -> None:
        await self.add(recipient("a", 10))
        await self.queue.rest("relay", "a", 30)
        await self.queue.rest("relay", "a", 0)
        self.assertEqual(await self.places(), [("a", 10)])
        self.assertEqual(len(await self.queue.take("relay", "a", 10, 9)), 1)

    async def test_senders_are_told_all_the_same(self) -> None:
        await self.queue.add([new_item(replace(recipient("a", 10), notice=20))])
        await self.queue.rest("relay", "a", 30)
        self.assertEqual(len(await self.queue.take_overdue(20, 9)), 1)

    async def test_nothing_waits_there(self) -> None:
        await self.queue.rest("relay", "nowhere", 30)
        self.assertEqual(await self.places(), [])


class Taking(QueueCase):
    """`take`, `take_overdue`, `give_back`."""

    async def test_what_is_due(self) -> None:
        one = await self.add(recipient(due=30), recipient("other", 5), recipient(due=10), recipient(due=99))
        two = await self.add(recipient(due=20))
        self.assertEqual(await self.take(before=9), [])
        self.assertEqual(await self.take("nowhere"), [])
        self.assertEqual(await self.take(before=30), [(one, [0, 2]), (two, [0])])
        self.assertEqual(await self.take(before=30), [])
        self.assertEqual(await self.take(), [(one, [3])])
        self.assertEqual(await self.take("other"), [(one, [1])])

    async def test_soonest_first_by_item(self) -> None:
        ids = list(await self.queue.add([new_item(recipient(due=due)) for due in (30, 10, 20, 10)]))
        order = [ids[1], ids[3], ids[2], ids[0]]
        self.assertEqual([item for item, _ in await self.take(most=3)], order[:3])
        self.assertEqual([item for item, _ in await self.take(most=3)], order[3:])

    async def test_an_item_is_taken_whole(self) -> None:
        """What is due of it, however far apart its recipients are."""
        one = await self.add(recipient(due=1), recipient(due=90))
        two = await self.add(recipient(due=2))
        self.assertEqual(await self.take(most=1), [(one, [0, 1])])
        self.assertEqual(await self.take(most=1), [(two, [0])])

    async def test_by_agent(self) -> None:
        item = await self.add(recipient(agent="local"), recipient())
        self.assertEqual(await self.take(), [(item, [1])])
        self.assertEqual(numbers(await self.queue.take("local", "there", LATE, 1)), [(item, [0])])

    async def test_held(self) -> None:
        await self.add(recipient(due=NEVER, notice=NEVER))
        self.assertEqual(await self.take(), [])
        self.assertEqual(await self.overdue(), [])

    async def test_given_back(self) -> None:
        item = await self.add(recipient(due=1), recipient(due=2))
        before = await self.queue.item(item)
        await self.take()
        self.queue.give_back(item, [1, 7])
        self.queue.give_back(item + 1, [0])
        self.assertEqual(await self.take(), [(item, [1])])
        self.queue.give_back(item, [0, 1])
        self.assertEqual(await self.queue.item(item), before)
        self.assertEqual(await self.take(), [(item, [0, 1])])

    async def test_overdue(self) -> None:
        one = await self.add(recipient("a", notice=30), recipient("b", notice=10), recipient("c", notice=50))
        two = await self.add(recipient("a", notice=20))
        self.assertEqual(await self.overdue(before=9), [])
        self.assertEqual(await self.overdue(before=30, most=1), [(one, [0, 1])])
        self.assertEqual(await self.overdue(before=30), [(two, [0])])
        self.assertEqual(await self.overdue(), [(one, [2])])

    async def test_once_taken_neither_hands_it_out(self) -> None:
        one = await self.add(recipient(notice=10), recipient(notice=20))
        self.assertEqual(await self.overdue(before=10), [(one, [0])])
        self.assertEqual(await self.take(), [(one, [1])])
        self.assertEqual(await self.overdue(), [])
        self.queue.give_back(one, [0])
        self.assertEqual(await self.take(), [(one, [0])])

    async def test_at_once_nobody_gets_the_same(self) -> None:
        await self.queue.add(
            [new_item(recipient(due=n), recipient("other", due=n, notice=n)) for n in range(40)]
        )
        calls = [self.queue.take("relay", "there", LATE, 7) for _ in range(8)]
        calls += [self.queue.take_overdue(LATE, 9) for _ in range(6)]
        calls += [self.queue.take("relay", "other", LATE, 7) for _ in range(8)]
        taken = [
            (item.id, one.number)
            for answer in await self.at_once(calls)
            for item in answer
            for one in item.recipients
        ]
        self.assertEqual(len(taken), 80)
        self.assertEqual(len(set(taken)), 80)

    async def test_settling_while_taking(self) -> None:
        """What was taken and is being settled is not handed out as it was before."""
        ids = list(await self.queue.add([new_item(recipient(due=n)) for n in range(30)]))
        await self.take(most=30)
        later = [Settled(item, 0, recipient(due=500)) for item in ids]
        calls: list[Any] = []
        for start in range(0, 30, 3):
            calls += [self.queue.settle(later[start : start + 3])]
            calls += [self.queue.take("relay", "there", 499, 100)]
        answers = await self.at_once(calls)
        self.assertEqual([list(answer) for answer in answers[1::2]], [[]] * 10)
        self.assertEqual(len(await self.take(before=500)), 30)


class Settling(QueueCase):
    """`settle`."""

    async def test_done_one_by_one(self) -> None:
        item = await self.add(recipient("a"), recipient("b"), recipient("c"))
        await self.queue.settle(done(item, 1))
        self.assertEqual(numbers([await self.queue.item(item)]), [(item, [0, 2])])
        self.assertEqual([place for place, _ in await self.places()], ["a", "c"])
        await self.queue.settle(done(item, 0, 2))
        await self.raises(NoSuchMessage, self.queue.item(item))
        await self.is_empty()

    async def test_tried_again_later(self) -> None:
        item = await self.add(recipient(due=1))
        await self.take()
        later = replace(
            recipient(due=60, notice=70), attempts=1, host="mx.test", reply="451 no", delayed=True
        )
        await self.queue.settle([Settled(item, 0, later)])
        self.assertEqual((await self.queue.item(item)).recipients, (later,))
        self.assertEqual(await self.take(before=59), [])
        self.assertEqual(await self.overdue(before=69), [])
        self.assertEqual(await self.take(before=60), [(item, [0])])

    async def test_what_is_gone(self) -> None:
        one = await self.add()
        two = await self.add()
        await self.queue.settle(done(one))
        later = recipient(due=60)
        await self.queue.settle(
            [
                Settled(one, 0, later),
                Settled(two, 5, later),
                *done(one),
                *done(two, 9),
                Settled(two, 0, later),
            ]
        )
        self.assertEqual(numbers(await self.queue.items(0, 9)), [(two, [0])])
        self.assertEqual(await self.places(), [("there", 60)])
        self.assertEqual((await self.queue.status()).recipients, 1)

    async def test_with_reports(self) -> None:
        item = await self.add(recipient(), recipient("b"))
        report = new_item(recipient("sender", 3), envelope=Envelope(None), number=8)
        await self.queue.settle(done(item, 0), [report])
        first, second = await self.queue.items(0, 9)
        self.assertEqual(numbers([first]), [(item, [1])])
        self.assertGreater(second.id, item)
        self.assertIsNone(second.envelope.sender)
        self.assertIn(body(8), await self.bytes_of(second.id))
        await self.queue.settle(done(item, 1), [report, report])
        self.assertEqual((await self.queue.status()).items, 3)

    async def test_another_place(self) -> None:
        item = await self.add(recipient("a", 5), recipient("a", 9))
        await self.queue.settle([Settled(item, 0, recipient("b", 7))])
        self.assertEqual(await self.places(), [("b", 7), ("a", 9)])
        self.assertEqual(await self.take("b"), [(item, [0])])

    async def test_what_was_decided_meanwhile_holds(self) -> None:
        """An attempt under way does not undo what the operator did, and says what came of it."""
        item = await self.add(recipient("a", 5), recipient("a", 5), recipient("a", 5))
        await self.take("a")
        held = replace(recipient("a", NEVER, NEVER), attempts=0)
        moved = recipient("b", 8)
        await self.queue.change([Settled(item, 0, held), Settled(item, 1, moved), Settled(item, 2, moved)])
        tried = replace(recipient("a", 60, 70), attempts=1, host="mx.test", reply="451 no")
        await self.queue.settle([Settled(item, 0, tried), Settled(item, 1, tried), *done(item, 2)])
        zero, one = (await self.queue.item(item)).recipients
        self.assertEqual(zero, replace(tried, due=NEVER, notice=NEVER))
        self.assertEqual(one, replace(tried, number=1, target=moved.target, due=8, notice=moved.notice))
        self.assertEqual(await self.places(), [("b", 8)])
        self.assertEqual((await self.queue.status()).held, 1)


class Changing(QueueCase):
    """`change`."""

    async def test_counts(self) -> None:
        item = await self.add(recipient(), recipient())
        held = recipient(due=NEVER, notice=NEVER)
        changed = await self.queue.change(
            [Settled(item, 0, held), Settled(item, 9, held), Settled(item + 1, 0, held), *done(item, 1)]
        )
        self.assertEqual(changed, 2)
        self.assertEqual((await self.queue.item(item)).recipients, (held,))
        self.assertEqual(await self.queue.status(), QueueStatus(1, 1, 1, 5))

    async def test_held_and_released(self) -> None:
        item = await self.add(recipient(due=10))
        await self.queue.change([Settled(item, 0, recipient(due=NEVER, notice=NEVER))])
        self.assertEqual((await self.places(), await self.take(), await self.overdue()), ([], [], []))
        await self.queue.change([Settled(item, 0, recipient(due=20, notice=500))])
        self.assertEqual((await self.queue.status()).held, 0)
        self.assertEqual(await self.take(before=20), [(item, [0])])

    async def test_rerouted(self) -> None:
        item = await self.add(recipient("a"))
        await self.queue.change([Settled(item, 0, recipient("b", 3))])
        self.assertEqual(await self.places(), [("b", 3)])
        self.assertEqual((await self.take("a"), await self.take("b")), ([], [(item, [0])]))

    async def test_cancelled(self) -> None:
        item = await self.add()
        await self.queue.change(done(item))
        await self.is_empty()

    async def test_what_is_taken_stays_taken(self) -> None:
        item = await self.add(recipient(due=10))
        await self.take()
        await self.queue.change([Settled(item, 0, recipient(due=3))])
        self.assertEqual(await self.take(), [])
        self.assertEqual(await self.places(), [("there", 3)])
        self.queue.give_back(item, [0])
        self.assertEqual(await self.take(), [(item, [0])])

    async def test_cancelled_while_taken(self) -> None:
        item = await self.add(recipient(), recipient())
        await self.take()
        await self.queue.change(done(item, 0, 1))
        await self.queue.settle([Settled(item, 0, recipient(due=99)), *done(item, 1)])
        await self.is_empty()


class Listing(QueueCase):
    """`items` and other answers are bounded."""

    async def test_page_by_page(self) -> None:
        ids = list(await self.queue.add([new_item(recipient("a"), recipient("b")) for _ in range(7)]))
        await self.queue.settle(done(ids[2], 0, 1))
        del ids[2]
        found: list[int] = []
        while page := await self.queue.items(found[-1] if found else 0, 2):
            self.assertLessEqual(len(page), 2)
            found += [item.id for item in page]
            self.assertEqual({len(item.recipients) for item in page}, {2})
        self.assertEqual(found, ids)

    async def test_none_asked_for(self) -> None:
        await self.add()
        self.assertEqual(list(await self.queue.items(0, 0)), [])
        self.assertEqual(
            (await self.places(0), await self.take(most=0), await self.overdue(most=0)), ([], [], [])
        )
        self.assertEqual(len(await self.take()), 1)


class Watching(QueueCase):
    """`watch`."""

    async def test_hints(self) -> None:
        hinted: list[str] = []
        stop = self.queue.watch(lambda: hinted.append("one"))
        stop_other = self.queue.watch(lambda: hinted.append("other"))
        self.addCleanup(stop_other)
        item = await self.add()
        await self.until(lambda: {"one", "other"} <= set(hinted))
        hinted.clear()
        await self.queue.change([Settled(item, 0, recipient(due=1))])
        await self.until(lambda: {"one", "other"} <= set(hinted))
        stop()
        stop()
        hinted.clear()
        await self.queue.settle(done(item), [new_item()])
        await self.until(lambda: "other" in hinted)
        self.assertNotIn("one", hinted)

    async def test_a_hint_comes_after_what_it_hints_at(self) -> None:
        told: list[int] = []
        self.addCleanup(self.queue.watch(lambda: told.append(1)))
        for number in range(4):
            told.clear()
            await self.add(recipient(f"p{number}", 100 - number))
            await self.until(lambda: bool(told))
            self.assertEqual((await self.places(1))[0], (f"p{number}", 100 - number))


class Restarting(QueueCase):
    """What outlives the process."""

    async def again(self) -> None:
        if self.restart_queue is None:
            raise SkipTest("the queue does not outlive its process (no restart_queue)")
        self.queue = await given(self.restart_queue(self.queue))

    async def test_all_waits_as_it_did(self) -> None:
        ids = list(
            await self.queue.add([new_item(recipient("a", n), recipient("b", n), number=n) for n in range(5)])
        )
        await self.take("a", before=2)
        await self.queue.settle([*done(ids[0]), Settled(ids[1], 0, recipient("c", 70))])
        before = list(await self.queue.items(0, 10)), await self.queue.status(), await self.places()
        await self.again()
        after = list(await self.queue.items(0, 10)), await self.queue.status(), await self.places()
        self.assertEqual(after, before)
        # What the process had taken when it ended is nobody's again.
        self.assertEqual(await self.take("a"), [(item, [0]) for item in ids[2:]])
        self.assertIn(body(3), await self.bytes_of(ids[3]))

    async def test_ids_go_on(self) -> None:
        ids = list(await self.queue.add([new_item(), new_item()]))
        await self.queue.settle([*done(ids[0]), *done(ids[1])])
        await self.again()
        self.assertGreater(await self.add(), ids[1])


class Sharing(QueueCase):
    """Two processes use one queue."""

    async def two(self) -> tuple[IQueueStore, IQueueStore]:
        if self.other_queue is None:
            raise SkipTest("the queue is one process's (no other_queue)")
        other: IQueueStore = await given(self.other_queue(self.queue))
        return self.queue, other

    async def test_each_sees_what_the_other_did(self) -> None:
        queue, other = await self.two()
        (one,) = await queue.add([new_item(recipient("a"))])
        (two,) = await other.add([new_item(recipient("b"), number=2)])
        self.assertGreater(two, one)
        for each in (queue, other):
            self.assertEqual(numbers(await each.items(0, 9)), [(one, [0]), (two, [0])])
        self.assertIn(body(2), await self.bytes_of(two))
        self.assertEqual(await other.change(done(one)), 1)
        await self.raises(NoSuchMessage, queue.item(one))
        self.assertEqual((await queue.status()).items, 1)
        self.assertEqual(await self.places(), [("b", 10)])

    async def test_an_operator_decides_while_it_is_tried(self) -> None:
        queue, other = await self.two()
        item = await self.add(recipient("a"), recipient("a"), recipient("b"))
        await self.take("a")
        held = recipient("a", NEVER, NEVER)
        self.assertEqual(await other.change([Settled(item, 0, held), *done(item, 1)]), 2)
        tried = replace(recipient("a", 60), attempts=1)
        await queue.settle([Settled(item, 0, tried), Settled(item, 1, tried)])
        expected = replace(tried, due=NEVER, notice=NEVER), replace(recipient("b"), number=2)
        for each in (queue, other):
            self.assertEqual((await each.item(item)).recipients, expected)

    async def test_a_message_outlives_what_others_remove(self) -> None:
        _, other = await self.two()
        octets = b"Subject: large\r\n\r\n" + b"A line of it\r\n" * 20_000
        spooled = await self.large(octets)
        item = await self.add(message=spooled)
        spooled.close()
        message, _ = await self.queue.message(item)
        await other.change(done(item))
        again = await self.add(message=message)
        message.close()
        self.assertTrue((await self.bytes_of(again)).endswith(octets))

    async def test_hints_across(self) -> None:
        queue, other = await self.two()
        hinted: list[int] = []
        self.addCleanup(queue.watch(lambda: hinted.append(1)))
        (item,) = await other.add([new_item()])
        await self.until(lambda: bool(hinted))
        hinted.clear()
        await other.change([Settled(item, 0, recipient(due=1))])
        await self.until(lambda: bool(hinted))
        self.assertEqual(await self.places(), [("there", 1)])

    async def test_at_once_from_both(self) -> None:
        queue, other = await self.two()
        answers = await self.at_once([each.add([new_item()]) for _ in range(10) for each in (queue, other)])
        ids = sorted(number for answer in answers for number in answer)
        self.assertEqual(len(set(ids)), 20)
        changes = [each.change(done(item)) for item in ids for each in (queue, other)]
        # Each is there to be cancelled once.
        self.assertEqual(sum(await self.at_once(changes)), 20)
        await self.is_empty()


class RunningFull(QueueCase):
    """Nothing is written any more."""

    async def filled(self, full: bool) -> None:
        if self.fill_disk is None:
            raise SkipTest("no test can fill the queue's disk (no fill_disk)")
        await given(self.fill_disk(full))

    async def test_full(self) -> None:
        item = await self.add(recipient(due=1), recipient("b", 2))
        await self.take()
        before = await self.queue.item(item)
        await self.filled(True)
        try:
            await self.raises(StorageFull, self.queue.add([new_item(number=1)]))
            report = new_item(number=2)
            later = Settled(item, 0, recipient(due=60))
            await self.raises(StorageFull, self.queue.settle([later, *done(item, 1)], [report]))
        finally:
            await self.filled(False)
        self.assertEqual(await self.queue.item(item), before)
        self.assertEqual((await self.queue.status()).items, 1)
        # Still taken: it was delivered, and must not be again until that could be written down.
        self.assertEqual(await self.take(), [])
        await self.queue.settle(done(item, 0, 1), [report])
        self.assertEqual((await self.queue.status()).items, 1)


# Stories


@dataclass
class Line:
    """A recipient as somebody would keep it on paper."""

    item: int
    arrived: int
    recipient: QueuedRecipient
    taken: QueuedRecipient | None = None

    @property
    def key(self) -> tuple[int, int]:
        return self.item, self.recipient.number


PLACES = ("a", "b", "c")
KINDS = ("add", "add", "take", "take", "overdue", "back", "settle", "settle", "change")

Step = tuple[str, list[int], int, int, int]


def steps(strategies: Any) -> Any:
    """What may happen, to whom, at what place, at what time, and how."""
    return strategies.tuples(
        strategies.sampled_from(KINDS),
        strategies.lists(strategies.integers(0, 9), min_size=1, max_size=4),
        strategies.integers(0, 2),
        strategies.integers(0, 9),
        strategies.integers(0, 5),
    )


class QueueStories(QueueCase):
    """Stories that Hypothesis makes up, compared with a model too simple to be wrong."""

    async def test_story(self) -> None:
        await self.each_story(steps, self.told)

    async def test_story_at_once(self) -> None:
        await self.each_story(steps, self.told_at_once)

    def outcome(self, line: Line, place: int, time: int, mode: int) -> QueuedRecipient | None:
        """What becomes of a recipient: done with, held, put off, or moved."""
        old = line.recipient
        if mode == 0:
            return None
        if mode == 1:
            return replace(old, due=NEVER, notice=NEVER)
        target = replace(old.target, place=PLACES[place]) if mode == 2 else old.target
        return replace(old, target=target, due=time, notice=time + mode, attempts=old.attempts + 1)

    async def told(self, story: list[Step], number: int) -> None:
        lines: list[Line] = []

        def handed_out(found: list[Line], when: Any, most: int) -> Numbers:
            by_item: dict[int, list[Line]] = {}
            for line in found:
                if line.taken is None:
                    by_item.setdefault(line.item, []).append(line)
            order = sorted(by_item, key=lambda item: (min(when(line) for line in by_item[item]), item))[:most]
            for item in order:
                for line in by_item[item]:
                    line.taken = line.recipient
            return [(item, sorted(line.recipient.number for line in by_item[item])) for item in order]

        async def take(place: int, before: int, most: int) -> None:
            due = [
                line
                for line in lines
                if line.recipient.target.place == PLACES[place] and line.recipient.due <= before
            ]
            expected = handed_out(due, lambda line: line.recipient.due, most)
            self.assertEqual(await self.take(PLACES[place], before, most), expected)

        for kind, picks, place, time, mode in story:
            chosen = [lines[pick % len(lines)] for pick in picks] if lines else []
            chosen = list({line.key: line for line in chosen}.values())
            if kind == "add":
                recipients = [recipient(PLACES[pick % 3], time + pick, time + 2 * pick) for pick in picks]
                item = await self.add(*recipients, arrived=time)
                lines += [Line(item, time, replace(one, number=n)) for n, one in enumerate(recipients)]
            elif kind == "take":
                await take(place, time + 4, mode + 1)
            elif kind == "overdue":
                due = [line for line in lines if line.recipient.notice <= time]
                expected = handed_out(due, lambda line: line.recipient.notice, mode + 1)
                self.assertEqual(await self.overdue(time, mode + 1), expected)
            elif kind == "back":
                for line in chosen:
                    self.queue.give_back(line.item, [line.recipient.number])
                    line.taken = None
            else:
                results = [Settled(*line.key, self.outcome(line, place, time, mode)) for line in chosen]
                if kind == "settle":
                    await self.queue.settle(results)
                else:
                    self.assertEqual(await self.queue.change(results), len(results))
                for line, result in zip(chosen, results, strict=True):
                    if result.recipient is None:
                        lines.remove(line)
                        continue
                    old, taken, new = line.recipient, line.taken, result.recipient
                    if kind == "settle":
                        line.taken = None
                        if taken is not None and _when(taken) != _when(old):
                            new = replace(new, target=old.target, due=old.due, notice=old.notice)
                    line.recipient = new
            await self.agrees(lines)
        # What is left is what nobody has.  The next story begins with nothing.
        for place in range(len(PLACES)):
            await take(place, LATE, 1000)
        self.assertEqual(
            await self.queue.change([Settled(*line.key, None) for line in lines]),
            len(lines),
        )
        await self.is_empty()

    async def agrees(self, lines: Sequence[Line]) -> None:
        soonest: dict[str, int] = {}
        for line in lines:
            place, due = line.recipient.target.place, line.recipient.due
            if due != NEVER:
                soonest[place] = min(due, soonest.get(place, NEVER))
        order = sorted((due, place) for place, due in soonest.items())
        self.assertEqual(await self.places(), [(place, due) for due, place in order])
        found = [(item.id, one) for item in await self.queue.items(0, 1000) for one in item.recipients]
        self.assertEqual(
            found, [(line.item, line.recipient) for line in sorted(lines, key=lambda line: line.key)]
        )
        expected = QueueStatus(
            len({line.item for line in lines}),
            len(lines),
            sum(line.recipient.due == NEVER for line in lines),
            min((line.arrived for line in lines), default=0),
        )
        self.assertEqual(await self.queue.status(), expected)

    async def told_at_once(self, story: list[Step], number: int) -> None:
        """Whatever interleaves: nobody has what somebody else has, and at the end nothing is lost."""
        ids = list(await self.queue.add([new_item(recipient("a", n), recipient("b", n)) for n in range(4)]))
        expected = {(item, n) for item in ids for n in (0, 1)}
        held: set[tuple[int, int]] = set()

        async def do(kind: str, picks: list[int], place: int, time: int, mode: int) -> None:
            if kind == "add":
                item = await self.add(*(recipient(PLACES[pick % 3], time) for pick in picks))
                expected.update((item, n) for n in range(len(picks)))
            elif kind in ("take", "overdue", "change"):
                call = self.overdue(LATE, mode) if kind == "overdue" else self.take(PLACES[place], LATE, mode)
                for item, numbers in await call:
                    for n in numbers:
                        self.assertNotIn((item, n), held)
                        held.add((item, n))
            elif kind == "back":
                for item, n in sorted(held)[:mode]:
                    held.discard((item, n))
                    self.queue.give_back(item, [n])
            else:
                keys = sorted(held)[:mode]
                later = recipient(PLACES[place], time)
                # Until it is settled nobody else has it; whoever is told that it is has no say any more.
                outcome = None if place else later
                held.difference_update(keys)
                if outcome is None:
                    expected.difference_update(keys)
                await self.queue.settle([Settled(*key, outcome) for key in keys])

        for start in range(0, len(story), 4):
            for result in await self.at_once([do(*step) for step in story[start : start + 4]]):
                if result is not None:
                    result.raiseException()
        left = [(item.id, one.number) for item in await self.queue.items(0, 1000) for one in item.recipients]
        self.assertEqual(left, sorted(expected))
        for key in held:
            self.queue.give_back(key[0], [key[1]])
        taken = [
            (item, n)
            for place in PLACES
            for item, numbers in await self.take(place, LATE, 1000)
            for n in numbers
        ]
        self.assertEqual(sorted(taken), left)
        await self.queue.settle([Settled(*key, None) for key in left])
        await self.is_empty()


def _when(one: QueuedRecipient) -> tuple[Target, int, int]:
    return one.target, one.due, one.notice
