"""What can be done to messages: flags, expunging, copying, moving."""

from __future__ import annotations

from twisted.python.failure import Failure

from mailplat.errors import NoSuchMailbox, NotPermitted
from mailplat.interfaces import IMailbox, IMovesMessages
from mailplat.testing.contract.base import StoreCase, body, named, some, wants
from mailplat.uids import EVERYTHING, NOTHING, UIDSet
from mailplat.values import FlagChange

__all__ = ["Copying", "Expunging", "Flags", "Moving"]


def adding(*names: str) -> FlagChange:
    return FlagChange(add=frozenset(names))


def removing(*names: str) -> FlagChange:
    return FlagChange(remove=frozenset(names))


class Flags(StoreCase):
    """`set_flags`."""

    async def uids_of(self, mailbox: IMailbox) -> list[int]:
        return list((await mailbox.columns(EVERYTHING)).uids)

    @wants("keeps_flags")
    async def test_add_remove_replace(self) -> None:
        mailbox = await self.filled(2)
        one, two = await self.uids_of(mailbox)
        await mailbox.set_flags(some(one), adding("\\Seen", "$Label"))
        self.assertEqual(await self.flags(mailbox), {one: {"\\Seen", "$Label"}, two: set()})
        await mailbox.set_flags(EVERYTHING, adding("\\Flagged"))
        await mailbox.set_flags(some(one), removing("\\Seen", "$Never"))
        self.assertEqual(await self.flags(mailbox), {one: {"\\Flagged", "$Label"}, two: {"\\Flagged"}})
        both = FlagChange(add=frozenset({"\\Draft"}), remove=frozenset({"\\Flagged"}))
        await mailbox.set_flags(some(two), both)
        self.assertEqual((await self.flags(mailbox))[two], {"\\Draft"})
        new = FlagChange(add=frozenset({"\\Answered", "other"}), replace=True)
        await mailbox.set_flags(EVERYTHING, new)
        self.assertEqual(set(map(frozenset, (await self.flags(mailbox)).values())), {new.add})
        await mailbox.set_flags(EVERYTHING, FlagChange(replace=True))
        self.assertEqual(await self.flags(mailbox), {one: set(), two: set()})
        self.assertNotIn("$Never", mailbox.keywords)

    @wants("keeps_flags")
    async def test_case_does_not_matter(self) -> None:
        mailbox = await self.filled(1)
        await mailbox.set_flags(EVERYTHING, adding("\\SEEN", "Work"))
        await mailbox.set_flags(EVERYTHING, adding("\\seen", "WORK"))
        self.assertEqual(list((await self.flags(mailbox)).values()), [{"\\Seen", "Work"}])
        await mailbox.set_flags(EVERYTHING, removing("wOrK"))
        self.assertEqual(list((await self.flags(mailbox)).values()), [{"\\Seen"}])

    @wants("keeps_flags")
    async def test_unseen_is_counted(self) -> None:
        mailbox = await self.filled(3)
        uids = await self.uids_of(mailbox)
        await mailbox.set_flags(some(*uids[:2]), adding("\\Seen"))
        self.assertEqual((await mailbox.status()).unseen, 1)
        await mailbox.set_flags(some(uids[0]), removing("\\Seen"))
        self.assertEqual((await mailbox.status()).unseen, 2)

    @wants("keeps_flags")
    async def test_only_what_differs_changes(self) -> None:
        mailbox = await self.filled(3)
        one, two, three = await self.uids_of(mailbox)
        first = await mailbox.set_flags(some(one, two), adding("\\Seen"))
        self.assertEqual(list(first.changed.uids), [one, two])
        self.assertEqual(named(mailbox, first.changed), {one: {"\\Seen"}, two: {"\\Seen"}})
        (modseq,) = set(first.changed.modseqs)
        self.assertEqual((await mailbox.status()).highest_modseq, modseq)
        second = await mailbox.set_flags(EVERYTHING, adding("\\Seen"))
        self.assertEqual(list(second.changed.uids), [three])
        columns = await mailbox.columns(EVERYTHING)
        self.assertEqual(list(columns.modseqs)[:2], [modseq, modseq])
        self.assertGreater(columns.modseqs[2], modseq)
        third = await mailbox.set_flags(EVERYTHING, adding("\\Seen"))
        self.assertEqual(len(third.changed), 0)
        self.assertEqual(list((await mailbox.columns(EVERYTHING)).rows()), list(columns.rows()))

    @wants("keeps_flags")
    async def test_size_and_date_stay(self) -> None:
        mailbox = await self.filled(2)
        before = await mailbox.columns(EVERYTHING)
        await mailbox.set_flags(EVERYTHING, adding("\\Flagged"))
        after = await mailbox.columns(EVERYTHING)
        self.assertEqual((after.sizes, after.dates), (before.sizes, before.dates))

    @wants("keeps_flags")
    async def test_nobody_there(self) -> None:
        mailbox = await self.filled(1)
        (uid,) = await self.uids_of(mailbox)
        for uids in (NOTHING, some(uid + 7)):
            answer = await mailbox.set_flags(uids, adding("\\Seen"))
            self.assertEqual((len(answer.changed), answer.refused), (0, NOTHING))
        self.assertEqual(await self.flags(mailbox), {uid: set()})

    @wants("keeps_flags")
    async def test_unchanged_since(self) -> None:
        mailbox = await self.filled(3)
        one, two, three = await self.uids_of(mailbox)
        seen = (await mailbox.status()).highest_modseq
        await mailbox.set_flags(some(two), adding("\\Seen"))
        answer = await mailbox.set_flags(EVERYTHING, adding("\\Deleted"), unchanged_since=seen)
        self.assertEqual(answer.refused, some(two))
        self.assertEqual(list(answer.changed.uids), [one, three])
        self.assertEqual(
            await self.flags(mailbox), {one: {"\\Deleted"}, two: {"\\Seen"}, three: {"\\Deleted"}}
        )
        # A message that would not change is refused all the same (RFC 7162 §3.1.3).
        again = await mailbox.set_flags(some(two), adding("\\Seen"), unchanged_since=seen)
        self.assertEqual((len(again.changed), again.refused), (0, some(two)))
        now = (await mailbox.status()).highest_modseq
        last = await mailbox.set_flags(EVERYTHING, adding("\\Draft"), unchanged_since=now)
        self.assertEqual((len(last.changed), last.refused), (3, NOTHING))

    @wants("keeps_flags")
    async def test_one_of_many_wins(self) -> None:
        """Of those who change a message they all saw in one state, one succeeds."""
        mailbox = await self.filled(1)
        (uid,) = await self.uids_of(mailbox)
        seen = (await mailbox.status()).highest_modseq
        answers = await self.at_once(
            [mailbox.set_flags(some(uid), adding(f"k{n}"), unchanged_since=seen) for n in range(6)]
        )
        self.assertEqual(sorted(len(answer.changed) for answer in answers), [0] * 5 + [1])
        self.assertEqual(len((await self.flags(mailbox))[uid]), 1)

    @wants("keeps_flags")
    async def test_nothing_is_lost_between_calls(self) -> None:
        mailbox = await self.filled(2)
        names = {f"keyword{number}" for number in range(20)}
        await self.at_once([mailbox.set_flags(EVERYTHING, adding(name)) for name in sorted(names)])
        self.assertEqual(list((await self.flags(mailbox)).values()), [names, names])
        columns = await mailbox.columns(EVERYTHING)
        self.assertEqual(len(set(columns.modseqs)), 1)


class Expunging(StoreCase):
    """`expunge`."""

    @wants("expunges_mail", "keeps_flags")
    async def test_the_deleted(self) -> None:
        mailbox = await self.filled(4)
        one, two, three, four = (await mailbox.columns(EVERYTHING)).uids
        await mailbox.set_flags(some(one, three, four), adding("\\Deleted"))
        self.assertEqual(await mailbox.expunge(some(one, two, three)), some(one, three))
        self.assertEqual(list((await mailbox.columns(EVERYTHING)).uids), [two, four])
        self.assertEqual(await mailbox.expunge(EVERYTHING), some(four))
        self.assertEqual(await mailbox.expunge(EVERYTHING), NOTHING)

    @wants("expunges_mail")
    async def test_any(self) -> None:
        mailbox = await self.filled(3)
        one, two, three = (await mailbox.columns(EVERYTHING)).uids
        self.assertEqual(await mailbox.expunge(EVERYTHING), NOTHING)
        before = await mailbox.status()
        gone = await mailbox.expunge(some(one, three, three + 9), deleted_only=False)
        self.assertEqual(gone, some(one, three))
        after = await mailbox.status()
        self.assertEqual((after.messages, after.unseen, after.size), (1, 1, len(body(1))))
        self.assertEqual(after.uid_next, before.uid_next)
        self.assertGreater(after.highest_modseq, before.highest_modseq)
        self.assertEqual(await self.whole(mailbox, two), body(1))
        self.assertEqual([outlined.uid for outlined in await mailbox.outlines(EVERYTHING)], [two])

    @wants("expunges_mail")
    async def test_each_once(self) -> None:
        """However many expunge at once, each message is somebody's."""
        mailbox = await self.filled(6)
        uids = UIDSet.of((await mailbox.columns(EVERYTHING)).uids)
        answers = await self.at_once([mailbox.expunge(EVERYTHING, deleted_only=False) for _ in range(4)])
        self.assertEqual(sum(len(answer) for answer in answers), 6)
        self.assertEqual(answers[0] | answers[1] | answers[2] | answers[3], uids)


class Copying(StoreCase):
    """`copy`."""

    @wants("accepts_mail")
    async def test_copy(self) -> None:
        mailbox = await self.filled(0)
        keywords = [{"one"}, {"two", "\\Seen"}, {"three"}]
        uids = await mailbox.append(
            [
                self.message(body(n), flags=flags, date=n, prefix=b"X: %d\r\n" % n)
                for n, flags in enumerate(keywords)
            ]
        )
        # There the same names stand for other bits.
        target = await self.filled(2, "target")
        *_, last = (await target.columns(EVERYTHING)).uids
        await target.append([self.message(flags={"three", "two"})])
        copied = await mailbox.copy(some(uids[0], uids[1], uids[2] + 50), "target")
        self.assertEqual(copied.uid_validity, target.uid_validity)
        self.assertEqual(list(copied.sources), list(uids[:2]))
        self.assertEqual(list(copied.copies), [last + 2, last + 3])
        found = await self.flags(target)
        self.assertEqual([found[uid] for uid in copied.copies], keywords[:2])
        columns = await target.columns(UIDSet.of(copied.copies))
        self.assertEqual(list(columns.dates), [0, 1])
        for number, uid in enumerate(copied.copies):
            self.assertEqual(await self.whole(target, uid), b"X: %d\r\n" % number + body(number))
        outlined = await target.outlines(UIDSet.of(copied.copies))
        self.assertEqual([one.prefix_size for one in outlined], [6, 6])
        self.assertEqual((await mailbox.status()).messages, 3)

    @wants("accepts_mail")
    async def test_onto_itself(self) -> None:
        mailbox = await self.filled(2)
        uids = list((await mailbox.columns(EVERYTHING)).uids)
        copied = await mailbox.copy(EVERYTHING, "INBOX")
        self.assertEqual(list(copied.sources), uids)
        self.assertEqual(len(await mailbox.columns(EVERYTHING)), 4)
        self.assertEqual(await self.whole(mailbox, copied.copies[1]), body(1))

    @wants("accepts_mail")
    async def test_copy_nothing(self) -> None:
        mailbox = await self.filled(1)
        copied = await mailbox.copy(NOTHING, "INBOX")
        self.assertEqual((list(copied.sources), list(copied.copies)), ([], []))
        self.assertEqual((await mailbox.status()).messages, 1)

    @wants("accepts_mail")
    async def test_to_nowhere(self) -> None:
        mailbox = await self.filled(1)
        await self.raises(NoSuchMailbox, mailbox.copy(EVERYTHING, "nowhere"))
        self.assertNotIn("nowhere", [info.name for info in await self.account.mailboxes()])

    @wants("accepts_mail", "expunges_mail")
    async def test_a_copy_outlives_its_source(self) -> None:
        mailbox = await self.filled(1)
        target = await self.filled(0, "target")
        copied = await mailbox.copy(EVERYTHING, "target")
        await mailbox.expunge(EVERYTHING, deleted_only=False)
        self.assertEqual(await self.whole(target, copied.copies[0]), body(0))


class Moving(StoreCase):
    """`IMovesMessages`."""

    async def movable(self, count: int) -> tuple[IMailbox, IMovesMessages]:
        mailbox = await self.filled(count)
        return mailbox, IMovesMessages(mailbox)

    @wants(IMovesMessages)
    async def test_move(self) -> None:
        mailbox, moves = await self.movable(3)
        one, two, three = (await mailbox.columns(EVERYTHING)).uids
        await mailbox.set_flags(some(one), adding("\\Flagged", "key"))
        target = await self.filled(1, "target")
        since = (await mailbox.status()).highest_modseq
        moved = await moves.move(some(one, three, three + 5), "target")
        self.assertEqual(moved.uid_validity, target.uid_validity)
        self.assertEqual(list(moved.sources), [one, three])
        self.assertEqual(list((await mailbox.columns(EVERYTHING)).uids), [two])
        found = await self.flags(target)
        self.assertEqual([found[uid] for uid in moved.copies], [{"\\Flagged", "key"}, set()])
        for number, uid in zip((0, 2), moved.copies, strict=True):
            self.assertEqual(await self.whole(target, uid), body(number))
        vanished = (await mailbox.changes(since)).vanished
        if vanished is not None:
            self.assertEqual(vanished, some(one, three))

    @wants(IMovesMessages)
    async def test_refused(self) -> None:
        mailbox, moves = await self.movable(2)
        await self.raises(NotPermitted, moves.move(EVERYTHING, "INBOX"))
        await self.raises(NoSuchMailbox, moves.move(EVERYTHING, "nowhere"))
        self.assertEqual((await mailbox.status()).messages, 2)

    @wants(IMovesMessages)
    async def test_each_moves_once(self) -> None:
        mailbox, moves = await self.movable(5)
        one, other = await self.filled(0, "one"), await self.filled(0, "other")
        answers = await self.at_once([moves.move(EVERYTHING, name) for name in ("one", "other") * 2])
        self.assertFalse([answer for answer in answers if isinstance(answer, Failure)])
        self.assertEqual(sum(len(answer.sources) for answer in answers), 5)
        there = [await mailbox.status() for mailbox in (mailbox, one, other)]
        self.assertEqual(there[0].messages, 0)
        self.assertEqual(there[1].messages + there[2].messages, 5)
