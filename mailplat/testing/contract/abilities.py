"""The abilities that have no better place, and what outlives the process."""

from __future__ import annotations

from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest

from mailplat.errors import NoSuchAccount, NoSuchMailbox, NoSuchMessage
from mailplat.interfaces import (
    Delivery,
    IClaimsRecent,
    ICommitsTogether,
    IKeepsDerived,
    IMailbox,
    IMovesMessages,
    IQueueStore,
    IReadsMany,
    IReadsOutlines,
    NewMessage,
)
from mailplat.storage.spool import whole
from mailplat.testing.contract.base import ALICE, BOB, StoreCase, body, given, some, wants
from mailplat.testing.contract.queue import new_item
from mailplat.testing.fakes import MemoryMessage
from mailplat.uids import EVERYTHING, NOTHING, UIDSet
from mailplat.values import BLOCK, NEVER, Derived, FlagChange, Settled

__all__ = [
    "CommittingItems",
    "CommittingTogether",
    "KeepingDerived",
    "ReadingMany",
    "ReadingOutlines",
    "Recent",
    "Restart",
]


class CommittingTogether(StoreCase):
    """`ICommitsTogether`."""

    @wants(ICommitsTogether)
    async def test_one_message_for_many(self) -> None:
        store = ICommitsTogether(self.store)
        inbox = await self.filled(1)
        junk = await self.filled(0, "Junk")
        await self.place(BOB, "INBOX", [])
        message = MemoryMessage(body(5), b"outline")
        places = [(ALICE, "INBOX"), (BOB, "INBOX"), (ALICE, "INBOX"), (ALICE, "Junk")]
        uids, _ = await store.commit(
            [
                Delivery(account, mailbox, NewMessage(message, b"X: %d\r\n" % n, frozenset({f"k{n}"}), n))
                for n, (account, mailbox) in enumerate(places)
            ]
        )
        self.assertEqual(message.closed, 0)
        bobs = await (await self.store.account(BOB)).open("INBOX")
        self.assertGreater(uids[2], uids[0])
        for number, mailbox in enumerate((inbox, bobs, inbox, junk)):
            data = await self.whole(mailbox, uids[number])
            self.assertEqual(data, b"X: %d\r\n" % number + body(5))
            self.assertEqual((await self.flags(mailbox))[uids[number]], {f"k{number}"})
        self.assertEqual((await inbox.status()).messages, 3)

    @wants(ICommitsTogether)
    async def test_all_or_none(self) -> None:
        store = ICommitsTogether(self.store)
        inbox = await self.filled(0)
        before = await inbox.status()
        good = Delivery(ALICE, "INBOX", self.message(flags={"new"}))
        for error, account, mailbox in (
            (NoSuchAccount, BOB, "INBOX"),
            (NoSuchMailbox, ALICE, "nowhere"),
        ):
            bad = Delivery(account, mailbox, self.message())
            await self.raises(error, store.commit([good, bad]))
            await self.raises(error, store.commit([bad, good]))
        self.assertEqual(await inbox.status(), before)

    @wants(ICommitsTogether)
    async def test_commit_nothing(self) -> None:
        uids, items = await ICommitsTogether(self.store).commit([])
        self.assertEqual((list(uids), list(items)), ([], []))

    @wants(ICommitsTogether)
    async def test_watchers_hear(self) -> None:
        inbox = await self.filled(0)
        hinted: list[int] = []
        stop = inbox.watch(lambda: hinted.append(1))
        await ICommitsTogether(self.store).commit([Delivery(ALICE, "INBOX", self.message())])
        await self.until(lambda: bool(hinted))
        stop()

    @wants(ICommitsTogether)
    async def test_at_once_with_others(self) -> None:
        """One that fails takes nobody with it."""
        store = ICommitsTogether(self.store)
        inbox = await self.filled(0)
        good = [Delivery(ALICE, "INBOX", self.message())] * 2
        bad = [*good, Delivery(ALICE, "nowhere", self.message())]
        calls = [store.commit(bad if number % 3 == 1 else good) for number in range(9)]
        results = await self.at_once([*calls, inbox.append([self.message()])])
        failed = [number for number, result in enumerate(results) if isinstance(result, Failure)]
        self.assertEqual(failed, [1, 4, 7])
        self.assertEqual((await inbox.status()).messages, 6 * 2 + 1)


class CommittingItems(StoreCase):
    """`ICommitsTogether` of a store that has a queue."""

    def together(self) -> tuple[ICommitsTogether, IQueueStore]:
        store = ICommitsTogether(self.store)
        if store.queue is None:
            raise SkipTest("the store has no queue")
        return store, store.queue

    @wants(ICommitsTogether)
    async def test_deliveries_and_items(self) -> None:
        store, queue = self.together()
        inbox = await self.filled(0)
        message = MemoryMessage(body(5), b"outline")
        new = new_item(message=message, prefix=b"Q: 1\r\n")
        delivery = Delivery(ALICE, "INBOX", NewMessage(message, b"L: 1\r\n", frozenset(), 1))
        hinted: list[str] = []
        self.addCleanup(inbox.watch(lambda: hinted.append("inbox")))
        self.addCleanup(queue.watch(lambda: hinted.append("queue")))
        uids, ids = await store.commit([delivery, delivery], [new, new])
        await self.until(lambda: {"inbox", "queue"} <= set(hinted))
        self.assertEqual((len(uids), len(ids), message.closed), (2, 2, 0))
        self.assertLess(ids[0], ids[1])
        # Each goes its own way: the body is there as long as one of them needs it.
        await inbox.expunge(some(uids[0]), deleted_only=False)
        await queue.settle([Settled(ids[0], 0, None)])
        self.assertEqual(await self.whole(inbox, uids[1]), b"L: 1\r\n" + body(5))
        await inbox.expunge(some(uids[1]), deleted_only=False)
        waiting, prefix = await queue.message(ids[1])
        self.assertEqual((prefix, await whole(waiting)), (b"Q: 1\r\n", body(5)))
        waiting.close()
        _, (alone,) = await store.commit([], [new])
        self.assertGreater(alone, ids[1])

    @wants(ICommitsTogether)
    async def test_items_all_or_none(self) -> None:
        store, queue = self.together()
        inbox = await self.filled(0)
        before = await inbox.status()
        good = Delivery(ALICE, "INBOX", self.message())
        bad = Delivery(ALICE, "nowhere", self.message())
        calls = [store.commit([good, bad] if n % 2 else [bad], [new_item()]) for n in range(4)]
        answers = await self.at_once([*calls, queue.add([new_item(number=7)])])
        self.assertEqual([type(answer) is Failure for answer in answers], [True] * 4 + [False])
        self.assertEqual(await inbox.status(), before)
        self.assertEqual([item.id for item in await queue.items(0, 9)], list(answers[4]))

    @wants(ICommitsTogether)
    async def test_results_all_or_none(self) -> None:
        """What waited is delivered and done with, and a report about it waits, or nothing happened."""
        store, queue = self.together()
        inbox = await self.filled(0)
        await queue.add([new_item(number=1)])
        ((agent, place, _),) = await queue.places(9, ())
        (item,) = await queue.take(agent, place, NEVER - 1, 9)
        numbers = [recipient.number for recipient in item.recipients]
        done = [Settled(item.id, number, None) for number in numbers]
        waiting, prefix = await queue.message(item.id)
        good = Delivery(ALICE, "INBOX", NewMessage(waiting, prefix, frozenset(), 1))
        bad = Delivery(ALICE, "nowhere", NewMessage(waiting, prefix, frozenset(), 1))
        await self.raises(NoSuchMailbox, store.commit([good, bad], [new_item()], done))
        self.assertEqual((await inbox.status()).messages, 0)
        self.assertEqual([one.id for one in await queue.items(0, 9)], [item.id])
        # It is still taken: the attempt may go on in another way.
        self.assertEqual(list(await queue.take(agent, place, NEVER - 1, 9)), [])
        (uid,), (report,) = await store.commit([good], [new_item(number=2)], done)
        waiting.close()
        self.assertEqual([one.id for one in await queue.items(0, 9)], [report])
        await queue.settle([Settled(report, one, None) for one in numbers])
        # The body goes on in the mailbox.
        self.assertEqual(await self.whole(inbox, uid), prefix + body(1))


class ReadingMany(StoreCase):
    """`IReadsMany`."""

    @wants(IReadsMany)
    async def test_contents(self) -> None:
        mailbox = await self.filled(5)
        reads = IReadsMany(mailbox)
        uids = list((await mailbox.columns(EVERYTHING)).uids)
        size = len(body(0))
        expected = [(uid, body(number)) for number, uid in enumerate(uids)]
        self.assertEqual(list(await reads.contents(EVERYTHING, 100_000)), expected)
        self.assertEqual(list(await reads.contents(some(*uids[1:3]), 100_000)), expected[1:3])
        for limit, count in ((size * 2, 2), (size * 3 - 1, 2), (size - 1, 0), (0, 0)):
            self.assertEqual(list(await reads.contents(EVERYTHING, limit)), expected[:count])
        self.assertEqual(list(await reads.contents(NOTHING, 1000)), [])

    @wants(IReadsMany)
    async def test_a_smaller_one_does_not_jump_the_queue(self) -> None:
        await self.place(ALICE, "INBOX", [body(0) * 10, body(1)])
        mailbox = await self.account.open("INBOX")
        self.assertEqual(list(await IReadsMany(mailbox).contents(EVERYTHING, len(body(1)))), [])

    @wants(IReadsMany, "expunges_mail")
    async def test_those_gone_are_passed_over(self) -> None:
        mailbox = await self.filled(3)
        uids = list((await mailbox.columns(EVERYTHING)).uids)
        await mailbox.expunge(some(uids[1]), deleted_only=False)
        found = await IReadsMany(mailbox).contents(EVERYTHING, 10_000)
        self.assertEqual(list(found), [(uids[0], body(0)), (uids[2], body(2))])

    @wants(IReadsMany, "accepts_mail")
    async def test_the_prefix_is_in_it(self) -> None:
        mailbox = await self.filled(0)
        (uid,) = await mailbox.append([self.message(body(0), prefix=b"A: b\r\n")])
        whole = b"A: b\r\n" + body(0)
        reads = IReadsMany(mailbox)
        self.assertEqual(list(await reads.contents(EVERYTHING, len(whole))), [(uid, whole)])
        self.assertEqual(list(await reads.contents(EVERYTHING, len(whole) - 1)), [])


class ReadingOutlines(StoreCase):
    """`IReadsOutlines`."""

    async def check(self, mailbox: IMailbox, uids: UIDSet) -> None:
        expected = {one.uid: one.outline or b"" for one in await mailbox.outlines(uids)}
        found = await IReadsOutlines(mailbox).records(uids)
        self.assertEqual(list(found.uids), sorted(found.uids))
        self.assertEqual(len(found.uids), len(found.records))
        there = dict(zip(found.uids, found.records, strict=True))
        self.assertEqual({uid: there.get(uid) for uid in expected}, expected)

    @wants(IReadsOutlines)
    async def test_records(self) -> None:
        mailbox = await self.filled(5)
        uids = (await mailbox.columns(EVERYTHING)).uids
        for wanted in (EVERYTHING, some(*uids[1:3]), some(uids[0], uids[2], uids[4]), some(uids[4]), NOTHING):
            await self.check(mailbox, wanted)

    @wants(IReadsOutlines, "accepts_mail")
    async def test_each_its_own(self) -> None:
        """Octets of any kind, one of them none; in several steps, and through other ways."""
        mailbox = await self.filled(0)
        for outlines in ([b"\0\xff,", b"", b"x" * 10_000], [b"\0"], [b"", b""]):
            await mailbox.append([self.message(outline=outline) for outline in outlines])
            await self.check(mailbox, EVERYTHING)
        await self.place(ALICE, "INBOX", [body(1)])
        await mailbox.copy(EVERYTHING, "INBOX")
        await mailbox.append([self.message(outline=b"last")])
        last = (await mailbox.columns(EVERYTHING)).uids[-1]
        for wanted in (EVERYTHING, some(last), some(last - 1, last)):
            await self.check(mailbox, wanted)

    @wants(IReadsOutlines, "expunges_mail")
    async def test_beside_those_gone(self) -> None:
        mailbox = await self.filled(5)
        uids = (await mailbox.columns(EVERYTHING)).uids
        await mailbox.expunge(some(uids[0], uids[3]), deleted_only=False)
        for wanted in (EVERYTHING, some(*uids[:2]), some(uids[3])):
            await self.check(mailbox, wanted)


class KeepingDerived(StoreCase):
    """`IKeepsDerived`, of a store that gives UIDs from 1 on, without gaps."""

    async def kept(self, mailbox: IMailbox, *kinds: str) -> dict[tuple[str, int], bytes]:
        found = await IKeepsDerived(mailbox).derived(kinds or ("a", "b"), UIDSet(((1, 1000),)))
        return {(one.kind, one.block): one.octets for one in found}

    async def blocks(self, name: str = "INBOX") -> IMailbox:
        """A mailbox with two whole blocks, and with two things kept of the first and one of the second."""
        mailbox = await self.filled(2 * BLOCK, name)
        made = [Derived("a", 1, BLOCK, b"\0one"), Derived("b", 1, BLOCK, b""), Derived("a", 2, BLOCK, b"two")]
        await IKeepsDerived(mailbox).keep_derived(made)
        return mailbox

    @wants(IKeepsDerived, "accepts_mail")
    async def test_kept_by_kind_and_block(self) -> None:
        mailbox = await self.blocks()
        self.assertEqual(await self.kept(mailbox), {("a", 1): b"\0one", ("b", 1): b"", ("a", 2): b"two"})
        self.assertEqual(await self.kept(mailbox, "b", "c"), {("b", 1): b""})
        await IKeepsDerived(mailbox).keep_derived([Derived("a", 1, BLOCK, b"other")])
        self.assertEqual(await self.kept(mailbox, "a"), {("a", 1): b"other", ("a", 2): b"two"})
        (one,) = await IKeepsDerived(mailbox).derived(["a"], some(2))
        self.assertEqual(one, Derived("a", 2, BLOCK, b"two"))
        self.assertEqual(list(await IKeepsDerived(mailbox).derived(["a"], NOTHING)), [])
        self.assertEqual(await self.kept(await self.filled(1, "Drafts")), {})

    @wants(IKeepsDerived, "accepts_mail", "keeps_flags")
    async def test_flags_and_new_messages_change_nothing(self) -> None:
        mailbox = await self.blocks()
        before = await self.kept(mailbox)
        await mailbox.set_flags(EVERYTHING, FlagChange(add=frozenset({"\\Seen"})))
        await mailbox.append([self.message()])
        self.assertEqual(await self.kept(mailbox), before)

    @wants(IKeepsDerived, "accepts_mail")
    async def test_only_of_all_that_can_be(self) -> None:
        mailbox = await self.filled(BLOCK - 1)
        keeps = IKeepsDerived(mailbox)
        await keeps.keep_derived([Derived("a", 1, BLOCK - 1, b"x")])
        self.assertEqual(await self.kept(mailbox), {})
        await mailbox.append([self.message()])
        for count in (BLOCK - 1, BLOCK + 1):
            await keeps.keep_derived([Derived("a", 1, count, b"x"), Derived("b", 1, BLOCK, b"y")])
            self.assertEqual(await self.kept(mailbox), {("b", 1): b"y"})

    @wants(IKeepsDerived, "accepts_mail", "expunges_mail")
    async def test_forgotten_with_a_message(self) -> None:
        mailbox = await self.blocks()
        await mailbox.expunge(some(BLOCK + 1), deleted_only=False)
        self.assertEqual(await self.kept(mailbox), {("a", 1): b"\0one", ("b", 1): b""})
        await IKeepsDerived(mailbox).keep_derived([Derived("a", 2, BLOCK, b"x")])
        self.assertEqual(len(await self.kept(mailbox)), 2)
        await IKeepsDerived(mailbox).keep_derived([Derived("a", 2, BLOCK - 1, b"x")])
        self.assertEqual(len(await self.kept(mailbox)), 3)
        await mailbox.expunge(some(1, BLOCK, 2 * BLOCK), deleted_only=False)
        self.assertEqual(await self.kept(mailbox), {})

    @wants(IKeepsDerived, IMovesMessages, "accepts_mail")
    async def test_forgotten_when_moved(self) -> None:
        mailbox = await self.blocks()
        await self.filled(0, "Archive")
        await IMovesMessages(mailbox).move(some(1), "Archive")
        self.assertEqual(await self.kept(mailbox), {("a", 2): b"two"})

    @wants(IKeepsDerived, "accepts_mail", "makes_mailboxes")
    async def test_forgotten_with_the_mailbox(self) -> None:
        mailbox = await self.blocks("Lists")
        await self.account.rename("Lists", "Others")
        self.assertEqual(len(await self.kept(await self.account.open("Others"))), 3)
        await self.account.delete("Others")
        await IKeepsDerived(mailbox).keep_derived([Derived("a", 1, BLOCK, b"x")])
        self.assertEqual(await self.kept(mailbox), {})
        self.assertEqual(await self.kept(await self.filled(2 * BLOCK, "Others")), {})


class Recent(StoreCase):
    """`IClaimsRecent`."""

    @wants(IClaimsRecent)
    async def test_each_message_is_recent_once(self) -> None:
        mailbox = await self.filled(2)
        claims = IClaimsRecent(mailbox)
        uids = (await mailbox.columns(EVERYTHING)).uids
        self.assertEqual((await mailbox.status()).recent, 2)
        self.assertEqual(await claims.claim_recent(), some(*uids))
        self.assertEqual((await mailbox.status()).recent, 0)
        self.assertEqual(await claims.claim_recent(), NOTHING)
        await self.place(ALICE, "INBOX", [body(3)])
        *_, last = (await mailbox.columns(EVERYTHING)).uids
        self.assertEqual(await claims.claim_recent(), some(last))

    @wants(IClaimsRecent, "expunges_mail")
    async def test_the_expunged_are_nobodys(self) -> None:
        mailbox = await self.filled(3)
        uids = (await mailbox.columns(EVERYTHING)).uids
        await mailbox.expunge(some(uids[1]), deleted_only=False)
        self.assertEqual((await mailbox.status()).recent, 2)
        self.assertEqual(await IClaimsRecent(mailbox).claim_recent(), some(uids[0], uids[2]))

    @wants(IClaimsRecent)
    async def test_one_claims(self) -> None:
        mailbox = await self.filled(4)
        answers = await self.at_once([IClaimsRecent(mailbox).claim_recent() for _ in range(4)])
        self.assertEqual(sum(len(answer) for answer in answers), 4)


class Restart(StoreCase):
    """What a store keeps over `stop` and `start`, and over a new process (`restart_store`)."""

    async def again(self) -> None:
        """Stop the store and go on with the next process's."""
        if self.restart_store is None:
            raise SkipTest("the store does not outlive its process (no restart_store)")
        await self.store.stop()
        self.store = await given(self.restart_store(self.store))
        await self.store.start()
        self.account = await self.store.account(ALICE)

    async def test_stop_and_start(self) -> None:
        await self.filled(2)
        await self.store.stop()
        await self.store.start()
        self.account = await self.store.account(ALICE)
        mailbox = await self.account.open("INBOX")
        (first, _) = (await mailbox.columns(EVERYTHING)).uids
        self.assertEqual(await self.whole(mailbox, first), body(0))

    async def test_all_is_as_it_was(self) -> None:
        mailbox = await self.filled(4)
        uids = (await mailbox.columns(EVERYTHING)).uids
        if self.keeps_flags:
            change = FlagChange(add=frozenset({"\\Seen", "key", "other"}))
            await mailbox.set_flags(some(uids[0], uids[2]), change)
        if self.expunges_mail:
            await mailbox.expunge(some(uids[3], uids[1]), deleted_only=False)
        await self.account.subscribe("somewhere", True)
        before = (
            await mailbox.status(),
            list((await mailbox.columns(EVERYTHING)).rows()),
            list(mailbox.keywords),
            list(await mailbox.outlines(EVERYTHING)),
            list(await self.account.mailboxes()),
        )
        await self.again()
        mailbox = await self.account.open("INBOX")
        after = (
            await mailbox.status(),
            list((await mailbox.columns(EVERYTHING)).rows()),
            list(mailbox.keywords),
            list(await mailbox.outlines(EVERYTHING)),
            list(await self.account.mailboxes()),
        )
        for was, now in zip(before, after, strict=True):
            self.assertEqual(now, was)
        self.assertEqual(await self.whole(mailbox, uids[0]), body(0))

    @wants("accepts_mail", "expunges_mail")
    async def test_numbers_go_on(self) -> None:
        mailbox = await self.filled(3)
        await mailbox.expunge(EVERYTHING, deleted_only=False)
        before = await mailbox.status()
        await self.again()
        mailbox = await self.account.open("INBOX")
        self.assertEqual(await mailbox.status(), before)
        news = await mailbox.changes(before.highest_modseq)
        self.assertEqual((len(news.changed), news.vanished or NOTHING), (0, NOTHING))
        (uid,) = await mailbox.append([self.message()])
        self.assertGreaterEqual(uid, before.uid_next)
        self.assertGreater((await mailbox.status()).highest_modseq, before.highest_modseq)

    @wants("expunges_mail", "keeps_flags")
    async def test_a_cursor_goes_on(self) -> None:
        """Where the store tells what vanished, it still does after a restart, or says that it cannot."""
        mailbox = await self.filled(3)
        uids = (await mailbox.columns(EVERYTHING)).uids
        upto = (await mailbox.changes(0)).upto
        await mailbox.set_flags(some(uids[2]), FlagChange(add=frozenset({"\\Seen"})))
        await mailbox.expunge(some(uids[0]), deleted_only=False)
        await self.again()
        mailbox = await self.account.open("INBOX")
        news = await mailbox.changes(upto)
        self.assertEqual(list(news.changed.uids), [uids[2]])
        if news.vanished is not None:
            self.assertEqual(news.vanished & some(*uids), some(uids[0]))

    @wants("accepts_mail", "makes_mailboxes")
    async def test_validities_do_not_come_back(self) -> None:
        await self.account.create("a")
        before = (await self.account.open("a")).uid_validity
        await self.account.delete("a")
        await self.again()
        await self.account.create("a")
        self.assertNotEqual((await self.account.open("a")).uid_validity, before)

    @wants(IClaimsRecent)
    async def test_the_claimed_stay_claimed(self) -> None:
        mailbox = await self.filled(2)
        await IClaimsRecent(mailbox).claim_recent()
        await self.again()
        mailbox = await self.account.open("INBOX")
        self.assertEqual((await mailbox.status()).recent, 0)
        self.assertEqual(await IClaimsRecent(mailbox).claim_recent(), NOTHING)

    @wants("expunges_mail")
    async def test_contents_after_a_restart(self) -> None:
        mailbox = await self.filled(2)
        one, two = (await mailbox.columns(EVERYTHING)).uids
        await mailbox.expunge(some(one), deleted_only=False)
        await self.again()
        mailbox = await self.account.open("INBOX")
        await self.raises(NoSuchMessage, mailbox.content(one))
        self.assertEqual(await self.whole(mailbox, two), body(1))
