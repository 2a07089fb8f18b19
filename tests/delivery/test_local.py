from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailplat.delivery.local import LocalDelivery
from mailplat.errors import NoSuchAccount, OverQuota, StorageFull, TemporaryError
from mailplat.interfaces import ICommitsTogether, IDeliveryAgent, IMailStore
from mailplat.values import LOCAL, Envelope, Target
from tests.delivery.house import BODY, OneByOne, Spooled, address, messages_of, now, store_with

ALICE, BOB = "alice@example.test", "bob@example.test"
ENVELOPE = Envelope(address("carol@elsewhere.test"))
TRACE = b"Received: somehow\r\n"


@implementer(IMailStore, ICommitsTogether)
class Commits:
    """Counts commits, and lets them fail."""

    def __init__(self, store, fail=None):
        self._store = store
        self.commits = 0
        self.fail = fail

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, deliveries):
        self.commits += 1
        if self.fail:
            raise self.fail
        return await self._store.commit(deliveries)


class LocalDeliveryTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1_700_000_000.9)
        self.store = now(store_with(ALICE, BOB))

    def deliver(self, store, *pairs, envelope=ENVELOPE):
        targets = [Target(LOCAL, account, address(given)) for given, account in pairs]
        agent = LocalDelivery(store, self.clock)
        return now(agent.deliver(envelope, Spooled(), TRACE, targets))

    def inbox(self, account):
        return now(messages_of(self.store, account))

    def test_it_is_an_agent(self):
        verifyObject(IDeliveryAgent, LocalDelivery(self.store, self.clock))

    def test_a_copy_has_its_own_prefix(self):
        outcomes = self.deliver(self.store, ("Alice+x@example.test", ALICE), (BOB, BOB))
        self.assertEqual(
            [(str(o.recipient), o.error) for o in outcomes], [("Alice+x@example.test", None), (BOB, None)]
        )
        self.assertEqual(
            self.inbox(ALICE),
            [
                b"Return-Path: <carol@elsewhere.test>\r\nDelivered-To: Alice+x@example.test\r\n"
                b"Received: somehow\r\n" + BODY
            ],
        )
        self.assertEqual(
            self.inbox(BOB),
            [
                b"Return-Path: <carol@elsewhere.test>\r\nDelivered-To: bob@example.test\r\n"
                b"Received: somehow\r\n" + BODY
            ],
        )

    def test_the_null_sender(self):
        self.deliver(self.store, (ALICE, ALICE), envelope=Envelope(None))
        self.assertTrue(self.inbox(ALICE)[0].startswith(b"Return-Path: <>\r\n"))

    def test_the_date_is_now(self):
        self.deliver(self.store, (ALICE, ALICE))
        inbox = now(now(self.store.account(ALICE)).open("INBOX"))
        self.assertEqual(list(now(inbox.changes(0)).changed.dates), [1_700_000_000])

    def test_one_commit_for_all(self):
        store = Commits(self.store)
        self.deliver(store, (ALICE, ALICE), (BOB, BOB))
        self.assertEqual(store.commits, 1)

    def test_the_same_target_gets_one_copy(self):
        for store in (self.store, OneByOne(self.store)):
            before = len(self.inbox(ALICE))
            outcomes = self.deliver(store, (ALICE, ALICE), ("sales@example.test", ALICE))
            self.assertEqual(
                [(str(o.recipient), o.error) for o in outcomes], [(ALICE, None), ("sales@example.test", None)]
            )
            self.assertEqual(len(self.inbox(ALICE)), before + 1)

    def test_one_account_that_is_gone_does_not_spoil_the_others(self):
        for store in (self.store, OneByOne(self.store)):
            before = len(self.inbox(BOB))
            gone, bob = self.deliver(store, ("gone@example.test", "gone@example.test"), (BOB, BOB))
            self.assertIsInstance(gone.error, NoSuchAccount)
            self.assertIsNone(bob.error)
            self.assertEqual(len(self.inbox(BOB)), before + 1)

    def test_a_single_refusal_is_not_tried_again(self):
        store = Commits(self.store, OverQuota())
        (outcome,) = self.deliver(store, (ALICE, ALICE))
        self.assertIsInstance(outcome.error, OverQuota)
        self.assertEqual(self.inbox(ALICE), [])

    def test_a_full_disk_fails_all(self):
        store = Commits(self.store, StorageFull())
        outcomes = self.deliver(store, (ALICE, ALICE), (BOB, BOB))
        self.assertEqual([type(o.error) for o in outcomes], [StorageFull, StorageFull])
        self.assertEqual(self.inbox(ALICE), [])

    def test_a_bug_in_one_append_is_told_as_temporary(self):
        store = OneByOne(self.store)
        account = store.account

        async def broken(name):
            if name == BOB:
                raise ZeroDivisionError("a bug")
            return await account(name)

        store.account = broken
        alice, bob = self.deliver(store, (ALICE, ALICE), (BOB, BOB))
        self.assertIsNone(alice.error)
        self.assertEqual(type(bob.error), TemporaryError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
