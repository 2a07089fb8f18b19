"""The running queue: schedule, next hops side by side, and what senders hear."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.queue import Queue, QueueLimits, Schedule
from mailplat.errors import HostUnreachable, PermanentError, StorageFull, TemporaryError
from mailplat.interfaces import IDeliveryAgent
from mailplat.storage.memory_queue import MemoryQueue
from mailplat.testing.fakes import MemoryMessage
from mailplat.values import NEVER, Address, Envelope, Outcome, ReportRequest, Settled, Target
from tests.delivery.house import messages_of, now, store_with

START = 1_700_000_000
SENDER = Address("alice", "example.test")
DAY = 86400


@implementer(IDeliveryAgent)
class Agent:
    """
    Answers as a test says: `answers` by the recipient's local part is an error, or None for
    success, or "hang"; `raises` is raised for all.
    """

    def __init__(self, clock):
        self.clock = clock
        self.answers = {}
        self.raises = None
        self.attempts = []  # (seconds since the start, local parts, place)
        self.under_way = 0
        self.most = 0
        self.hanging = []

    async def deliver(self, envelope, message, prefix, targets):
        self.attempts.append(
            (int(self.clock.seconds()) - START, [t.address.local for t in targets], targets[0].place)
        )
        self.envelope, self.data = envelope, prefix + await message.read(0, message.size)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.raises is not None:
                raise self.raises
            errors = [self.answers.get(t.address.local) for t in targets]
            if "hang" in errors:
                waiting = Deferred()
                self.hanging.append(waiting)
                await waiting
                errors = [None for _ in targets]
            return [
                Outcome(t.address, e, "mx.test", "" if e is None else e.text)
                for t, e in zip(targets, errors, strict=True)
            ]
        finally:
            self.under_way -= 1

    @property
    def times(self):
        return [when for when, _, _ in self.attempts]


class Reporter:
    """Writes down what it was asked to tell; `fail` is raised, if set."""

    def __init__(self):
        self.told = []
        self.fail = None

    async def report(self, item, about, message, prefix):
        if self.fail:
            raise self.fail
        for one, outcome in about:
            kind = type(outcome.error).__name__ if outcome.error else "delivered"
            self.told.append((one.target.address.local, kind))
        return None


class QueueTestCase(SynchronousTestCase):
    schedule = Schedule(jitter=0.0)
    limits = QueueLimits()

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(START)
        self.store = MemoryQueue()
        self.agent = Agent(self.clock)
        self.reporter = Reporter()
        self.queue = self.make()
        self.queue.start()

    def make(self):
        return Queue(
            self.store,
            {"relay": self.agent},
            self.reporter,
            self.clock,
            schedule=self.schedule,
            limits=self.limits,
            random=Random(1),
        )

    def add(self, *locals, place="far.test", request=None, sender=SENDER, **envelope):
        targets = [
            (Target("relay", place, Address(local, "far.test")), request or ReportRequest())
            for local in locals
        ]
        body = MemoryMessage(b"Subject: x\r\n\r\nbody\r\n")
        new = self.queue.item(Envelope(sender, **envelope), targets, body, b"Received: x\r\n", "alice")
        now(self.store.add([new]))
        self.clock.advance(self.limits.pause)

    def run_for(self, seconds, step=30.0):
        for _ in range(int(seconds // step)):
            self.clock.advance(step)

    def left(self):
        return [item.id for item in now(self.store.items(0, 100))]


class ScheduleTests(SynchronousTestCase):
    def test_intervals(self):
        schedule = Schedule()
        self.assertEqual([schedule.interval(n, 0.5) for n in (1, 2, 3, 4)], [300, 600, 1200, 2400])
        self.assertEqual(schedule.interval(99, 0.5), 14400)

    def test_jitter(self):
        self.assertEqual([Schedule().interval(1, chance) for chance in (0, 1)], [285, 315])

    def test_a_report_is_given_up_sooner(self):
        schedule = Schedule()
        self.assertEqual(schedule.end(Envelope(None), 0), 2 * DAY)
        self.assertEqual(schedule.end(Envelope(SENDER), 0), 5 * DAY)

    def test_no_delay_notice(self):
        self.assertEqual(Schedule(delay_notice=0).first_notice(Envelope(SENDER), 0), 5 * DAY)


class ScheduleLimitsTests(SynchronousTestCase):
    def test_limit_retries(self):
        schedule = Schedule(retries=(10, 20), jitter=0.0)
        self.assertEqual([schedule.interval(n, 0.5) for n in (1, 2, 3, 100)], [10, 20, 20, 20])

    def test_limit_lifetime(self):
        schedule = Schedule(lifetime=100, report_lifetime=50, delay_notice=60)
        self.assertEqual(schedule.end(Envelope(SENDER), 1000), 1100)
        self.assertEqual(schedule.end(Envelope(None), 1000), 1050)
        self.assertEqual(schedule.first_notice(Envelope(SENDER), 1000), 1060)
        self.assertEqual(schedule.first_notice(Envelope(None), 1000), 1050)


class AttemptTests(QueueTestCase):
    def test_delivered_at_once(self):
        self.add("bob")
        self.assertEqual(self.agent.times, [0])
        self.assertEqual(self.agent.data, b"Received: x\r\nSubject: x\r\n\r\nbody\r\n")
        self.assertEqual(self.agent.envelope.recipients, (Address("bob", "far.test"),))
        self.assertEqual(self.agent.envelope.sender, SENDER)
        self.assertEqual(self.left(), [])
        self.assertEqual(self.reporter.told, [("bob", "delivered")])

    def test_what_was_there_at_the_start(self):
        self.queue.stop()
        self.add("bob")
        self.assertEqual(self.agent.times, [])
        self.queue = self.make()
        self.queue.start()
        self.assertEqual(self.agent.times, [0])

    def test_recipients_of_one_item_and_place_go_together(self):
        self.add("bob", "carol")
        self.assertEqual([names for _, names, _ in self.agent.attempts], [["bob", "carol"]])

    def test_tried_again_by_the_schedule(self):
        self.agent.answers = {"bob": TemporaryError("not now")}
        self.add("bob", "carol")
        self.run_for(3 * 3600)
        self.assertEqual(self.agent.times, [0, 300, 900, 2100, 4500, 9300])
        self.assertEqual(self.agent.attempts[1][1], ["bob"])
        (item,) = now(self.store.items(0, 10))
        (bob,) = item.recipients
        self.assertEqual((bob.attempts, bob.reply, bob.host), (6, "not now", "mx.test"))

    def test_refused(self):
        self.agent.answers = {"bob": PermanentError("no such user")}
        self.add("bob", "carol")
        self.assertEqual(self.reporter.told, [("bob", "PermanentError"), ("carol", "delivered")])
        self.assertEqual(self.left(), [])

    def test_five_days(self):
        self.agent.answers = {"bob": TemporaryError("not now")}
        self.add("bob")
        self.run_for(4 * 3600 + 60)
        self.assertEqual(self.reporter.told, [("bob", "TemporaryError")])
        self.run_for(5 * DAY, step=300)
        self.assertEqual(self.reporter.told, [("bob", "TemporaryError"), ("bob", "Expired")])
        self.assertEqual(self.left(), [])
        self.assertLess(len(self.agent.times), 50)

    def test_release(self):
        self.add("bob", release=START + 3600)
        self.run_for(3570)
        self.assertEqual(self.agent.times, [])
        self.run_for(60)
        self.assertEqual(self.agent.times, [3600])

    def test_a_bug_in_an_agent(self):
        self.agent.raises = ZeroDivisionError()
        self.add("bob")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.agent.raises = None
        self.run_for(300)
        self.assertEqual(self.left(), [])

    def test_an_agent_that_is_gone(self):
        self.add("bob")
        body = MemoryMessage(b"x\r\n")
        target = Target("pigeon", "far.test", Address("bob", "far.test"))
        now(self.store.add([self.queue.item(Envelope(SENDER), [(target, ReportRequest())], body, b"")]))
        self.clock.advance(1)
        (item,) = now(self.store.items(0, 10))
        self.assertIn("pigeon", item.recipients[0].reply)


class ReportTests(QueueTestCase):
    def test_a_failure_that_cannot_be_told_is_not_forgotten(self):
        self.reporter.fail = StorageFull()
        self.agent.answers = {"bob": PermanentError("no")}
        self.add("bob", "carol")
        (item,) = now(self.store.items(0, 10))
        self.assertEqual([one.target.address.local for one in item.recipients], ["bob"])
        self.reporter.fail = None
        self.run_for(600)
        self.assertEqual(self.reporter.told, [("bob", "PermanentError")])
        self.assertEqual(self.left(), [])

    def test_a_delay_that_cannot_be_told_is_told_later(self):
        self.agent.answers = {"bob": TemporaryError("not now")}
        self.add("bob")
        self.reporter.fail = StorageFull()
        self.run_for(4 * 3600 + 60)
        self.assertEqual(self.reporter.told, [])
        self.reporter.fail = None
        self.run_for(120)
        self.assertEqual(self.reporter.told, [("bob", "TemporaryError")])

    def test_report_and_outcome_are_one_commit(self):
        report = self.queue.item(
            Envelope(None),
            [(Target("relay", "near.test", SENDER), ReportRequest())],
            MemoryMessage(b"report\r\n"),
            b"",
        )

        async def make(item, about, message, prefix):
            self.reporter.told.append((item.id, [type(outcome.error) for _, outcome in about]))
            return report if item.id == 1 else None

        self.reporter.report = make
        self.agent.answers = {"bob": PermanentError()}
        self.add("bob")
        self.assertEqual(self.reporter.told[0], (1, [PermanentError]))
        self.clock.advance(1)
        self.assertEqual([place for _, _, place in self.agent.attempts], ["far.test", "near.test"])
        self.assertEqual(report.body.closed, 1)
        self.assertEqual(self.left(), [])


class PlacesTests(QueueTestCase):
    limits = QueueLimits(attempts=100, attempts_per_place=3)

    def test_limit_attempts_per_place(self):
        self.agent.answers = {"slow": "hang"}
        for _ in range(10):
            self.add("slow")
        self.clock.advance(1)
        self.assertEqual((self.agent.most, len(self.agent.attempts)), (3, 3))
        while self.agent.hanging:
            self.agent.hanging.pop().callback(None)
        self.assertEqual(self.left(), [])
        self.assertEqual(self.agent.most, 3)

    def test_a_slow_place_holds_up_nobody_else(self):
        self.agent.answers = {"slow": "hang"}
        for _ in range(10):
            self.add("slow", place="slow.test")
        self.add("bob")
        self.clock.advance(1)
        self.assertIn(["bob"], [names for _, names, _ in self.agent.attempts])

    def test_limit_attempts(self):
        self.limits = QueueLimits(attempts=2, attempts_per_place=3)
        self.queue.stop()
        self.queue = self.make()
        self.queue.start()
        self.agent.answers = {"slow": "hang"}
        for number in range(5):
            self.add("slow", place=f"{number}.test")
        self.clock.advance(1)
        self.assertEqual(self.agent.most, 2)
        for _ in range(5):
            self.agent.hanging.pop(0).callback(None)
            self.clock.advance(1)
        self.assertEqual((self.left(), self.agent.most), ([], 2))

    def test_a_place_that_cannot_be_reached_rests(self):
        self.agent.raises = HostUnreachable("connection refused")
        for _ in range(50):
            self.add("bob")
        self.clock.advance(1)
        first = len(self.agent.attempts)
        self.assertLessEqual(first, 3)
        self.run_for(3600)
        # One at a time: after 5, 10, 20 minutes.
        self.assertLessEqual(len(self.agent.attempts), first + 3)
        self.agent.raises = None
        self.run_for(3600)
        self.assertEqual(self.left(), [])

    def test_senders_are_told_though_there_is_no_attempt(self):
        self.agent.raises = HostUnreachable("connection refused")
        for _ in range(20):
            self.add("bob")
        self.run_for(6 * DAY, step=600)
        self.assertEqual(self.reporter.told.count(("bob", "TemporaryError")), 20)
        self.assertEqual(self.reporter.told.count(("bob", "Expired")), 20)
        self.assertEqual(self.left(), [])
        self.assertLess(len(self.agent.attempts), 100)

    def test_next_hops_beyond_count(self):
        self.agent.raises = HostUnreachable()
        for number in range(300):
            self.add("bob", place=f"{number}.test")
        self.run_for(60)
        self.assertEqual(len({place for _, _, place in self.agent.attempts}), 300)


class LimitsTests(QueueTestCase):
    def again(self, **limits):
        """The queue under other limits, not started."""
        self.queue.stop()
        self.limits = QueueLimits(**limits)
        self.queue = self.make()

    def test_limit_line(self):
        asked = []
        take = self.store.take

        async def taking(agent, place, before, most):
            asked.append(most)
            return await take(agent, place, before, most)

        self.store.take = taking
        self.again(line=2)
        for _ in range(5):
            self.add("bob")
        self.queue.start()
        self.clock.advance(1)
        self.assertEqual(self.left(), [])
        self.assertEqual(set(asked), {2})

    def test_limit_failing(self):
        self.again(failing=1)
        self.agent.raises = HostUnreachable()
        self.queue.start()
        for place in ("a.test", "a.test", "a.test", "b.test"):
            self.add("bob", place=place)
        self.run_for(330)
        # a.test was forgotten when b.test failed: it rests for the first interval again.
        times = [when for when, _, place in self.agent.attempts if place == "a.test"]
        self.assertEqual(len(times), 2)
        self.run_for(330)
        times = [when for when, _, place in self.agent.attempts if place == "a.test"]
        self.assertEqual(len(times), 3)

    def test_limit_look(self):
        self.again(look=600.0)
        self.store.watch = lambda hint: lambda: None
        self.queue.start()
        self.add("bob")
        self.run_for(570)
        self.assertEqual(self.agent.attempts, [])
        self.run_for(60)
        self.assertEqual(len(self.agent.attempts), 1)

    def test_limit_pause(self):
        looks = []
        places = self.store.places

        async def looking(*arguments):
            looks.append(self.clock.seconds())
            return await places(*arguments)

        self.again(pause=2.0)
        self.store.places = looking
        self.queue.start()
        for _ in range(100):
            self.queue.kick()
        self.clock.advance(1)
        self.assertEqual(len(looks), 1)
        self.clock.advance(1)
        self.assertEqual(len(looks), 2)

    def test_limit_again(self):
        self.again(again=50.0)
        settle, failures = self.store.settle, [StorageFull()]

        async def failing(results, items=()):
            if failures:
                raise failures.pop()
            await settle(results, items)

        self.store.settle = failing
        self.queue.start()
        self.add("bob")
        self.clock.advance(49)
        self.assertEqual(self.left(), [1])
        self.clock.advance(1)
        self.assertEqual(self.left(), [])

    def test_limit_stop(self):
        self.again(stop=2.0)
        self.agent.answers = {"bob": "hang"}
        self.queue.start()
        self.add("bob")
        stopped = []
        self.queue.stop().addCallback(stopped.append)
        self.clock.advance(1.9)
        self.assertEqual(stopped, [])
        self.clock.advance(0.1)
        self.assertEqual(stopped, [None])


class OperatorTests(QueueTestCase):
    def held(self, held):
        changes = []
        for item in now(self.store.items(0, 100)):
            for one in item.recipients:
                due, notice = (NEVER, NEVER) if held else (START, START + 2 * DAY)
                changes.append(Settled(item.id, one.number, replace(one, due=due, notice=notice)))
        now(self.store.change(changes))

    def test_hold_and_release(self):
        self.agent.answers = {"bob": TemporaryError()}
        self.add("bob")
        self.held(True)
        self.run_for(DAY)
        self.assertEqual(self.agent.times, [0])
        self.assertEqual(self.reporter.told, [])
        self.agent.answers = {}
        self.held(False)
        self.clock.advance(1)
        self.assertEqual(self.left(), [])

    def test_cancelled_while_under_way(self):
        self.agent.answers = {"bob": "hang"}
        self.add("bob")
        now(self.store.change([Settled(1, 0, None)]))
        self.agent.hanging.pop().callback(None)
        self.assertEqual(self.left(), [])


class TroubleTests(QueueTestCase):
    def test_a_store_that_cannot_write_is_asked_until_it_can(self):
        settle, failures = self.store.settle, [StorageFull(), StorageFull()]

        async def failing(results, items=()):
            if failures:
                raise failures.pop()
            await settle(results, items)

        self.store.settle = failing
        self.add("bob")
        self.run_for(20, step=5)
        self.assertEqual(self.left(), [])
        self.assertEqual(len(self.agent.attempts), 1)

    def test_a_store_that_cannot_be_read_is_asked_again(self):
        places, failures = self.store.places, [StorageFull()]

        async def failing(*arguments):
            if failures:
                raise failures.pop()
            return await places(*arguments)

        self.store.places = failing
        self.add("bob")
        self.run_for(20, step=5)
        self.assertEqual(self.left(), [])

    def test_an_item_without_a_message(self):
        async def gone(item):
            raise StorageFull

        self.store.message, message = gone, self.store.message
        self.add("bob")
        self.store.message = message
        self.run_for(600)
        self.assertEqual(self.left(), [])


class StopTests(QueueTestCase):
    def test_what_is_under_way_is_waited_for(self):
        self.agent.answers = {"bob": "hang"}
        self.add("bob")
        self.add("bob")
        stopped = []
        self.queue.stop().addCallback(stopped.append)
        self.assertEqual(stopped, [])
        for waiting in self.agent.hanging:
            waiting.callback(None)
        self.assertEqual(stopped, [None])
        self.assertEqual(self.left(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_is_begun_any_more(self):
        self.queue.stop()
        self.add("bob")
        self.clock.advance(100)
        self.assertEqual(self.agent.attempts, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_was_in_line_is_given_back(self):
        self.agent.answers = {"slow": "hang"}
        for _ in range(30):
            self.add("slow")
        self.clock.advance(1)
        stopped = []
        self.queue.stop().addCallback(stopped.append)
        while self.agent.hanging:
            self.agent.hanging.pop().callback(None)
        self.assertEqual(stopped, [None])
        waiting = self.left()
        self.agent.answers = {}
        self.queue = self.make()
        self.queue.start()
        self.clock.advance(1)
        self.assertTrue(waiting)
        self.assertEqual(self.left(), [])


class PuttingOffTests(QueueTestCase):
    """Short intervals are kept too, whenever the store would be looked at anyway."""

    schedule = Schedule(retries=(2, 7, 100), jitter=0.0)

    def test_a_message(self):
        self.agent.answers = {"bob": TemporaryError("not now")}
        self.add("bob")
        self.run_for(150, step=1.0)
        self.assertEqual(self.agent.times, [0, 2, 9, 109])

    def test_a_next_hop(self):
        self.agent.raises = HostUnreachable()
        self.add("bob")
        self.run_for(150, step=1.0)
        self.assertEqual(self.agent.times, [0, 2, 9, 109])


class AskingTests(QueueTestCase):
    def test_what_comes_while_the_store_is_asked(self):
        """The answer does not know it, and nobody else would ask for a minute."""
        take, waiting = self.store.take, Deferred()

        async def slow(*question):
            self.store.take = take
            items = await take(*question)
            await waiting
            return items

        self.store.take = slow
        self.add("bob")
        self.add("carol")
        self.clock.advance(1)
        waiting.callback(None)
        self.clock.advance(1)
        self.assertEqual(self.left(), [])


class OneCommit(QueueTestCase):
    """Our own mailboxes: delivered and written down at once, so that no crash delivers twice."""

    def setUp(self):
        super().setUp()
        self.mail = now(store_with("bob@example.test"))
        self.store = self.mail.queue
        self.agent = LocalDelivery(self.mail, self.clock)
        self.queue = self.make()
        self.settled = []
        self.store.settle = self.settle

    async def settle(self, results, items=()):
        self.settled += results
        await MemoryQueue.settle(self.store, results, items)

    def arrives(self, *locals):
        for local in locals:
            self.add(local, place=f"{local}@example.test", request=ReportRequest(frozenset(["SUCCESS"])))
        self.queue.start()
        return [len(now(messages_of(self.mail, "bob@example.test"))), now(self.store.status()).recipients]

    def test_delivered(self):
        self.assertEqual(self.arrives("bob"), [1, 0])
        self.assertEqual(self.settled, [])
        self.assertEqual(self.reporter.told, [("bob", "delivered")])

    def test_refused(self):
        """Then the outcome is told as ever."""
        self.assertEqual(self.arrives("carol"), [0, 0])
        self.assertEqual(len(self.settled), 1)
        self.assertEqual(self.reporter.told[-1], ("carol", "NoSuchAccount"))

    def test_killed_before_the_commit(self):
        """Nothing happened, and the next process does it all."""
        commit, lost = self.mail.commit, Deferred()
        self.mail.commit = lambda *arguments: lost
        self.assertEqual(self.arrives("bob"), [0, 1])
        self.mail.commit = commit
        self.store._taken.clear()
        self.queue = self.make()
        self.queue.start()
        self.assertEqual(len(now(messages_of(self.mail, "bob@example.test"))), 1)

    def test_a_queue_of_its_own(self):
        """A store elsewhere: the mailbox first, then the books; a crash between them delivers again."""
        self.agent = LocalDelivery(now(store_with("bob@example.test")), self.clock)
        self.queue = self.make()
        self.arrives("bob")
        self.assertEqual(len(self.settled), 1)
