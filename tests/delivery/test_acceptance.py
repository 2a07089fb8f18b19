"""Whoever reads the reply may forget the message: where each copy is by then."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailplat.delivery.intake import Intake
from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.queue import Queue
from mailplat.delivery.routing import Router
from mailplat.errors import NoSuchAccount, OverQuota, RelayDenied, StorageFull
from mailplat.values import Envelope, Peer, ReportRequest
from tests.delivery.house import BODY, OneByOne, Spooled, address, messages_of, names, now, store_with

ALICE, BOB, FAR = "alice@example.test", "bob@example.test", "x@far.test"
ALIASES = {"out": ["y@far.test"], "mixed": ["alice", "y@far.test"], "team": ["alice", "bob"]}
SMTP = Peer("smtp", "192.0.2.1", 1234, hello="client.test")
LMTP = replace(SMTP, service="lmtp")
START = 1_700_000_000


class AcceptanceTestCase(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.clock.advance(START)
        self.store = now(store_with(ALICE, BOB))
        # Not started: what is in it stays in it.
        self.queue = Queue(self.store.queue, {}, None, self.clock)
        self.delivery_store = self.store

    def send(self, *recipients, peer=SMTP, account=ALICE, **envelope):
        router = Router(names(), self.store, ALIASES)
        local = LocalDelivery(self.delivery_store, self.clock)
        intake = Intake(router, local, "mx.example.test", self.clock, queue=self.queue)
        receiver = intake(peer, account)
        envelope = Envelope(address(ALICE), **envelope)
        now(receiver.sender(envelope))
        for recipient in map(address, recipients):
            now(receiver.recipient(envelope, recipient))
            envelope = replace(envelope, recipients=(*envelope.recipients, recipient))
        self.before_message()
        return [outcome.error for outcome in now(receiver.message(envelope, Spooled()))]

    def before_message(self):
        pass

    def queued(self):
        """(agent, address, ORCPT) of all that waits."""
        return [
            (one.target.agent, str(one.target.address), one.request.original)
            for item in now(self.store.queue.items(0, 100))
            for one in item.recipients
        ]

    def inboxes(self):
        return [len(now(messages_of(self.store, name))) for name in (ALICE, BOB)]


class TogetherTests(AcceptanceTestCase):
    def test_local_mail_is_not_queued(self):
        self.assertEqual(self.send(ALICE, BOB), [None, None])
        self.assertEqual((self.inboxes(), self.queued()), ([1, 1], []))

    def test_near_and_far_in_one_commit(self):
        commits = []
        commit = self.store.commit

        async def counted(deliveries, items=(), results=()):
            commits.append((len(deliveries), len(items)))
            return await commit(deliveries, items, results)

        self.store.commit = counted
        self.assertEqual(self.send(ALICE, FAR, BOB), [None] * 3)
        self.assertEqual(commits, [(2, 1)])
        self.assertEqual((self.inboxes(), self.queued()), ([1, 1], [("relay", FAR, "")]))

    def test_all_or_none(self):
        async def full(deliveries, items=(), results=()):
            raise StorageFull

        self.store.commit = full
        self.assertRaises(StorageFull, self.send, ALICE, FAR)
        self.assertEqual((self.inboxes(), self.queued()), ([0, 0], []))

    def test_an_account_that_goes_is_left_to_the_queue(self):
        self.before_message = lambda: now(self.store.remove_account(BOB))
        self.assertEqual(self.send(ALICE, BOB, FAR), [None] * 3)
        self.assertEqual(self.queued(), [("local", ALICE, ""), ("local", BOB, ""), ("relay", FAR, "")])

    def test_what_is_queued(self):
        request = ReportRequest(frozenset({"DELAY"}), "rfc822;z@far.test")
        self.send(FAR, returns="HDRS", envelope_id="e1", utf8=True, requests={address(FAR): request})
        (item,) = now(self.store.queue.items(0, 10))
        self.assertEqual((item.account, item.arrived), (ALICE, START))
        self.assertEqual(item.envelope, Envelope(address(ALICE), returns="HDRS", envelope_id="e1", utf8=True))
        (one,) = item.recipients
        self.assertEqual((one.due, one.request), (START, request))
        message, prefix = now(self.store.queue.message(item.id))
        self.assertTrue(prefix.startswith(b"Received: from client.test"))
        self.assertEqual(message.data, Spooled().data)

    def test_release(self):
        self.send(ALICE, release=START + 60)
        self.assertEqual((self.inboxes(), self.queued()), ([0, 0], [("local", ALICE, "")]))
        (item,) = now(self.store.queue.items(0, 10))
        self.assertEqual(item.recipients[0].due, START + 60)

    def test_who_wants_to_hear_of_success_is_told_by_the_queue(self):
        wish = {address(ALICE): ReportRequest(frozenset({"SUCCESS"}))}
        self.send(ALICE, BOB, requests=wish)
        self.assertEqual((self.inboxes(), self.queued()), ([0, 1], [("local", ALICE, "")]))


class AliasTests(AcceptanceTestCase):
    def test_an_alias_may_lead_out_for_strangers_too(self):
        self.assertEqual(self.send("mixed@example.test", account=None), [None])
        self.assertEqual(
            (self.inboxes(), self.queued()), ([1, 0], [("relay", "y@far.test", "rfc822;mixed@example.test")])
        )

    def test_strangers_may_not_relay(self):
        self.assertRaises(RelayDenied, self.send, FAR, account=None)

    def test_without_a_queue_nothing_leaves(self):
        self.queue = None
        self.assertRaises(RelayDenied, self.send, FAR)
        self.assertRaises(RelayDenied, self.send, "out@example.test")


class PartlyTests(AcceptanceTestCase):
    """Some of the copies behind one reply failed."""

    def fail(self, **errors):
        deliver = LocalDelivery.deliver

        async def failing(agent, envelope, message, prefix, targets):
            outcomes = await deliver(agent, envelope, message, prefix, targets)
            return [
                replace(o, error=errors.get(t.place.partition("@")[0], o.error))
                for o, t in zip(outcomes, targets, strict=True)
            ]

        self.patch(LocalDelivery, "deliver", failing)

    def test_smtp_has_one_reply(self):
        for error in (OverQuota(), StorageFull()):
            self.fail(bob=error)
            self.assertEqual(self.send(ALICE, BOB), [None, None])
        self.assertEqual(self.queued(), [("local", BOB, "")] * 2)

    def test_all_failed(self):
        self.fail(alice=StorageFull(), bob=OverQuota())
        self.assertEqual([type(e) for e in self.send(ALICE, BOB)], [StorageFull, OverQuota])
        self.assertEqual(self.queued(), [])

    def test_lmtp_has_a_reply_for_each(self):
        self.fail(bob=OverQuota())
        errors = self.send(ALICE, BOB, "team@example.test", peer=LMTP)
        self.assertEqual([type(e) for e in errors], [type(None), OverQuota, type(None)])
        # Behind the alias alice got it, so bob's copy cannot be refused.
        self.assertEqual(self.queued(), [("local", "team@example.test", "")])

    def test_a_queue_that_is_full_refuses_all(self):
        async def full(items):
            raise StorageFull

        self.fail(bob=StorageFull())
        self.store.queue.add = full
        self.assertRaises(StorageFull, self.send, ALICE, BOB)


class ApartTests(AcceptanceTestCase):
    """The queue is not the store's own."""

    def setUp(self):
        super().setUp()
        self.delivery_store = OneByOne(self.store)

    def test_near_and_far_are_both_queued(self):
        self.assertEqual(self.send(ALICE, FAR), [None, None])
        self.assertEqual(
            (self.inboxes(), self.queued()), ([0, 0], [("local", ALICE, ""), ("relay", FAR, "")])
        )

    def test_local_mail_is_not_queued(self):
        self.assertEqual(self.send(ALICE, BOB), [None, None])
        self.assertEqual((self.inboxes(), self.queued()), ([1, 1], []))

    def test_an_account_that_went(self):
        self.before_message = lambda: now(self.store.remove_account(BOB))
        (error,) = self.send(BOB)
        self.assertIsInstance(error, NoSuchAccount)


class LogTests(AcceptanceTestCase):
    """One line for each message that is taken over."""

    def line(self, *recipients, peer=SMTP, **settings):
        with capturedLogs() as events:
            self.send(*recipients, peer=replace(peer, connection="c7"), **settings)
        (line,) = self.accepted(events)
        return line

    def accepted(self, events):
        return [line for line in map(formatEvent, events) if line.startswith("Accepted")]

    def test_near(self):
        self.assertEqual(
            self.line(ALICE, BOB),
            "Accepted on smtp from 192.0.2.1, alice@example.test, connection c7: alice@example.test to 2 "
            f"recipients, {len(BODY)} octets: 2 delivered, 0 queued, 0 failed",
        )

    def test_far(self):
        line = self.line(ALICE, "x@elsewhere.test")
        (item,) = now(self.store.queue.items(0, 9))
        self.assertTrue(line.endswith(f": 1 delivered, 1 queued, 0 failed, queue item {item.id}"), line)

    def test_refused(self):
        """Who sent it was told; there is nothing that is here now."""

        async def full(deliveries, items=(), results=()):
            raise StorageFull()

        self.store.commit = full
        with capturedLogs() as events:
            self.send(ALICE)
        self.assertEqual(self.accepted(events), [])
