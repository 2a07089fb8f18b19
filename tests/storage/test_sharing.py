"""What one process learns of what another did to names: two stores on one directory."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailplat.errors import NoSuchAccount, NoSuchMailbox
from mailplat.storage import loading, reading
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import new_message
from mailplat.uids import EVERYTHING, UIDSet

ALICE, BOB, CAROL = "alice@example.test", "bob@example.test", "carol@example.test"


class SharingTests(TestCase):
    async def stores(self, **words):
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        stores = []
        for _ in range(2):
            store = SQLiteStore(scratch.name, reactor, **words)
            await store.start()
            self.addCleanup(store.stop)
            stores.append(store)
        return stores

    def readings(self):
        """What is asked of the index from now on: ids beyond which accounts were read."""
        asked = []
        news = reading.news

        def noted(connection, numbers, newest):
            asked.append(newest)
            return news(connection, numbers, newest)

        self.patch(reading, "news", noted)
        return asked

    async def test_accounts_come(self):
        ours, theirs = await self.stores()
        for name in (ALICE, BOB):
            await ours.create_account(name)
        await theirs.create_account(CAROL)
        asked = self.readings()
        self.assertTrue(await ours.has_account(CAROL))
        self.assertEqual(await ours.accounts(), [ALICE, BOB, CAROL])
        self.assertEqual(len(asked), 1)
        self.assertEqual(await theirs.accounts(), [ALICE, BOB, CAROL])
        # Nobody reads all accounts because one came.
        del asked[:]
        await theirs.create_account("dave@example.test")
        self.assertTrue(await ours.has_account("dave@example.test"))
        self.assertEqual(len(asked), 1)
        self.assertGreater(asked[0], 0)

    async def test_accounts_go(self):
        # Without patience: an account is looked for each time.
        ours, theirs = await self.stores(poll=0)
        for name in (ALICE, BOB):
            await ours.create_account(name)
        await theirs.remove_account(ALICE)
        self.assertFalse(await ours.has_account(ALICE))
        await self.assertFailure(Deferred.fromCoroutine(ours.account(ALICE)), NoSuchAccount)
        self.assertTrue(await ours.has_account(BOB))
        self.assertEqual(await ours.accounts(), [BOB])

    async def test_one_goes_and_another_comes(self):
        ours, theirs = await self.stores(poll=0)
        await ours.create_account(ALICE)
        await theirs.remove_account(ALICE)
        await theirs.create_account(ALICE)
        await theirs.create_account(BOB)
        await theirs.remove_account(BOB)
        await theirs.create_account(CAROL)
        self.assertEqual(await ours.accounts(), [ALICE, CAROL])
        # It is a new one, and not what the old one's id means.
        mine, other = [await (await store.account(ALICE)).open("INBOX") for store in (ours, theirs)]
        self.assertEqual(mine.uid_validity, other.uid_validity)

    async def test_a_mailbox_is_opened_by_its_name_of_now(self):
        ours, theirs = await self.stores()
        await ours.create_account(ALICE)
        account, other = await ours.account(ALICE), await theirs.account(ALICE)
        await account.create("one")
        first = await account.open("one")
        self.assertIs(await account.open("one"), first)
        await other.rename("one", "two")
        await self.assertFailure(Deferred.fromCoroutine(account.open("one")), NoSuchMailbox)
        self.assertIs(await account.open("two"), first)
        await other.create("one")
        self.assertIsNot(await account.open("one"), first)
        await account.delete("one")
        await self.assertFailure(Deferred.fromCoroutine(account.open("one")), NoSuchMailbox)

    async def test_messages_by_turns(self):
        """What one writer still knows of its last commit is worth nothing after one of the other's."""
        stores = await self.stores()
        await stores[0].create_account(ALICE)
        mailboxes = [await (await store.account(ALICE)).open("INBOX") for store in stores]
        uids = []
        for turn in (0, 0, 1, 0, 1, 1, 0):
            uids += await mailboxes[turn].append([new_message(b"Subject: %d\r\n\r\n" % len(uids))])
        self.assertEqual(uids, [1, 2, 3, 4, 5, 6, 7])
        await mailboxes[1].expunge(UIDSet(((6, 7),)), deleted_only=False)
        self.assertEqual(list(await mailboxes[0].append([new_message(b"Subject: x\r\n\r\n")])), [8])
        for store, mailbox in zip(stores, mailboxes, strict=True):
            self.assertEqual((await mailbox.status()).messages, 6)
            self.assertEqual(await store.verify(), [])

    async def test_one_look_for_our_own_commits(self):
        ours, _ = await self.stores()
        asked = self.readings()
        await ours.create_account(ALICE)
        account = await ours.account(ALICE)
        for number in range(20):
            creating = account.create(f"mailbox {number}")
            # While it is under way as well.
            made = Deferred.fromCoroutine(creating)
            await account.open("INBOX")
            await made
        self.assertEqual(asked, [])

    async def test_an_empty_mailbox_is_read_without_a_thread(self):
        ours, _ = await self.stores()
        await ours.create_account(ALICE)
        mailbox = await (await ours.account(ALICE)).open("INBOX")
        self.patch(loading, "columns", None)
        self.assertEqual(list((await mailbox.columns(EVERYTHING)).uids), [])
