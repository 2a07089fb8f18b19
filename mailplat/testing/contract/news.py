"""What those hear who have a mailbox open: `changes` and `watch`."""

from __future__ import annotations

from random import Random

from mailplat.interfaces import IMailbox
from mailplat.testing.contract.base import ALICE, StoreCase, body, named, some, wants
from mailplat.uids import EVERYTHING, NOTHING, UIDSet
from mailplat.values import Changes, FlagChange

__all__ = ["Follower", "News"]


class Follower:
    """
    Somebody who has a mailbox open and knows of it only what `changes` says.

    Attributes:
        rows: UID -> row of columns, as far as it was told.
    """

    def __init__(self, mailbox: IMailbox) -> None:
        self.mailbox = mailbox
        self.rows: dict[int, tuple[int, int, int, int, int]] = {}
        self.gone: set[int] = set()
        self.cursor = 0

    async def follow(self) -> Changes:
        """
        Ask for what happened since the last time.

        Raises:
            AssertionError: the answer cannot be true, whatever happened.
        """
        since = self.cursor
        news = await self.mailbox.changes(since)
        changed = list(news.changed.rows())
        uids = [row[0] for row in changed]
        assert news.upto >= since, f"upto went back from {since} to {news.upto}"
        assert uids == sorted(set(uids)), f"not ascending: {uids}"
        early = [row for row in changed if row[2] <= since and since > 0]
        assert not early, f"reported after {since}, with an earlier modseq: {early}"
        late = [row for row in changed if row[2] > news.upto]
        assert not late, f"upto is {news.upto}, but there are later rows: {late}"
        back = self.gone.intersection(uids)
        assert not back, f"UIDs came back from the dead: {back}"
        self.rows.update((row[0], row) for row in changed)
        if news.vanished is None:
            there = set((await self.mailbox.columns(EVERYTHING)).uids)
            gone = set(self.rows) - there
        else:
            both = UIDSet.of(uids) & news.vanished
            assert not both, f"both changed and vanished: {both}"
            gone = {uid for uid in self.rows if uid in news.vanished}
        for uid in gone:
            del self.rows[uid]
        self.gone |= gone
        self.cursor = news.upto
        return news

    def seen(self) -> list[tuple[int, int, int, int, int]]:
        return [self.rows[uid] for uid in sorted(self.rows)]


class News(StoreCase):
    """`changes`, `watch`, and two who have the same mailbox open."""

    async def test_all_rows(self) -> None:
        mailbox = await self.filled(3)
        news = await mailbox.changes(0)
        self.assertEqual(list(news.changed.rows()), list((await mailbox.columns(EVERYTHING)).rows()))
        self.assertEqual(news.upto, (await mailbox.status()).highest_modseq)

    async def test_nothing_new(self) -> None:
        mailbox = await self.filled(2)
        upto = (await mailbox.changes(0)).upto
        for since in (upto, upto + 100):
            news = await mailbox.changes(since)
            self.assertEqual(len(news.changed), 0)
            self.assertFalse(news.vanished)
            self.assertGreaterEqual(news.upto, upto)

    async def test_new_mail(self) -> None:
        mailbox = await self.filled(1)
        first = await mailbox.changes(0)
        await self.place(ALICE, "INBOX", [body(7), body(8)])
        news = await mailbox.changes(first.upto)
        self.assertEqual(len(news.changed), 2)
        self.assertGreater(min(news.changed.uids), max(first.changed.uids))
        self.assertEqual(news.vanished or NOTHING, NOTHING)
        self.assertEqual(await self.whole(mailbox, news.changed.uids[1]), body(8))
        self.assertEqual(len((await mailbox.changes(news.upto)).changed), 0)

    @wants("keeps_flags")
    async def test_changed_flags(self) -> None:
        mailbox = await self.filled(3)
        upto = (await mailbox.changes(0)).upto
        uids = (await mailbox.columns(EVERYTHING)).uids
        for names in ("\\Seen", "key", "\\Flagged"):
            await mailbox.set_flags(some(uids[1]), FlagChange(add=frozenset({names})))
        news = await mailbox.changes(upto)
        # Three changes of one message, told once, as it is now.
        self.assertEqual(named(mailbox, news.changed), {uids[1]: {"\\Seen", "\\Flagged", "key"}})

    @wants("expunges_mail")
    async def test_vanished(self) -> None:
        mailbox = await self.filled(4)
        one, two, three, four = (await mailbox.columns(EVERYTHING)).uids
        upto = (await mailbox.changes(0)).upto
        await mailbox.expunge(some(two, four), deleted_only=False)
        middle = await mailbox.changes(upto)
        self.assertEqual(len(middle.changed), 0)
        await mailbox.expunge(some(one), deleted_only=False)
        news = await mailbox.changes(upto)
        last = await mailbox.changes(middle.upto)
        self.assertEqual(list((await mailbox.changes(0)).changed.uids), [three])
        if news.vanished is not None and middle.vanished is not None and last.vanished is not None:
            self.assertEqual(middle.vanished & some(one, two, three, four), some(two, four))
            self.assertEqual(news.vanished & some(one, two, three, four), some(one, two, four))
            self.assertEqual(last.vanished & some(one, two, three, four), some(one))

    @wants("accepts_mail", "expunges_mail")
    async def test_counters_and_what_came_after(self) -> None:
        """SELECT may be answered with counters alone: the rows and news that come later bear them out."""
        mailbox = await self.filled(5)
        one, two, *others = (await mailbox.columns(EVERYTHING)).uids
        await mailbox.expunge(some(one), deleted_only=False)
        counted = await mailbox.status()
        await mailbox.expunge(some(two), deleted_only=False)
        await mailbox.append([self.message()])
        uids = (await mailbox.changes(0)).changed.uids
        self.assertEqual([uid for uid in uids if uid < counted.uid_next], others)
        self.assertEqual(counted.messages, len(others) + 1)
        news = await mailbox.changes(counted.highest_modseq)
        self.assertEqual([uid for uid in news.changed.uids if uid < counted.uid_next], [])
        if news.vanished is not None:
            self.assertIn(two, news.vanished)

    @wants("accepts_mail", "expunges_mail", "keeps_flags")
    async def test_never_changed_and_vanished(self) -> None:
        mailbox = await self.filled(1)
        upto = (await mailbox.changes(0)).upto
        (uid,) = await mailbox.append([self.message()])
        await mailbox.set_flags(some(uid), FlagChange(add=frozenset({"\\Seen"})))
        await mailbox.expunge(some(uid), deleted_only=False)
        news = await mailbox.changes(upto)
        self.assertEqual(len(news.changed), 0)
        self.assertGreater(news.upto, upto)

    @wants("accepts_mail", "expunges_mail", "keeps_flags")
    async def test_from_every_moment(self) -> None:
        """Whoever looked last at whatever moment of a story catches up with its end in one step."""
        chance = Random(3)
        mailbox = await self.filled(2)
        followers = []
        for _ in range(60):
            followers.append(Follower(mailbox))
            await followers[-1].follow()
            uids = (await mailbox.columns(EVERYTHING)).uids
            chosen = some(*chance.sample(uids, min(len(uids), chance.randrange(1, 4))))
            step = chance.randrange(4)
            if step < 2:
                await mailbox.append([self.message() for _ in range(chance.randrange(1, 4))])
            elif step == 2:
                await mailbox.set_flags(chosen, FlagChange(add=frozenset({f"key{chance.randrange(5)}"})))
            else:
                await mailbox.expunge(chosen, deleted_only=False)
        there = list((await mailbox.columns(EVERYTHING)).rows())
        for follower in followers:
            await follower.follow()
            self.assertEqual(follower.seen(), there)

    @wants("makes_mailboxes")
    async def test_a_deleted_mailbox_is_empty(self) -> None:
        mailbox = await self.filled(2, "a")
        follower = Follower(mailbox)
        await follower.follow()
        await self.account.delete("a")
        await follower.follow()
        self.assertEqual(follower.seen(), [])

    @wants("keeps_flags")
    async def test_hints(self) -> None:
        mailbox = await self.filled(2)
        upto = (await mailbox.changes(0)).upto
        hinted: list[str] = []
        stop = mailbox.watch(lambda: hinted.append("one"))
        stop_other = mailbox.watch(lambda: hinted.append("other"))
        await mailbox.set_flags(EVERYTHING, FlagChange(add=frozenset({"\\Seen"})))
        await self.until(lambda: {"one", "other"} <= set(hinted))
        self.assertEqual(len((await mailbox.changes(upto)).changed), 2)
        stop()
        stop()
        hinted.clear()
        await mailbox.set_flags(EVERYTHING, FlagChange(replace=True))
        await self.until(lambda: "other" in hinted)
        self.assertNotIn("one", hinted)
        stop_other()

    @wants("accepts_mail")
    async def test_a_hint_comes_after_what_it_hints_at(self) -> None:
        """Whoever asks when told finds it; at the end nobody lacks anything."""
        mailbox = await self.filled(0)
        follower = Follower(mailbox)
        told: list[int] = []
        stop = mailbox.watch(lambda: told.append(1))
        uids: list[int] = []
        for number in range(5):
            told.clear()
            uids += await mailbox.append([self.message(body(number))])
            await self.until(lambda: bool(told))
            await follower.follow()
            self.assertEqual([row[0] for row in follower.seen()], uids)
        stop()

    @wants("accepts_mail")
    async def test_hints_at_both_ends_of_a_copy(self) -> None:
        mailbox = await self.filled(1)
        target = await self.filled(0, "target")
        hinted: list[str] = []
        stop = target.watch(lambda: hinted.append("target"))
        await mailbox.copy(EVERYTHING, "target")
        await self.until(lambda: bool(hinted))
        self.assertEqual(len((await target.changes(0)).changed), 1)
        stop()

    @wants("accepts_mail", "keeps_flags", "expunges_mail")
    async def test_two_followers(self) -> None:
        """They ask at different times, and end with the same."""
        mailbox = await self.filled(3)
        often, seldom = Follower(mailbox), Follower(await self.account.open("INBOX"))
        await seldom.follow()
        for number in range(6):
            await often.follow()
            (uid,) = await mailbox.append([self.message(body(number), flags={f"k{number}"})])
            await often.follow()
            await mailbox.set_flags(EVERYTHING, FlagChange(add=frozenset({f"all{number}"})))
            if number % 2:
                await mailbox.expunge(some(uid, uid - 1), deleted_only=False)
            if number == 3:
                await seldom.follow()
        await often.follow()
        await seldom.follow()
        rows = list((await mailbox.columns(EVERYTHING)).rows())
        self.assertEqual(often.seen(), rows)
        self.assertEqual(seldom.seen(), rows)
