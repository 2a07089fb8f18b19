"""
Stories that Hypothesis makes up, compared with a model too simple to be wrong.

Two tests.  In the first, one thing happens after the other, in two mailboxes, and after
each the store must say what the model says.  In the second several things happen at
once, so no model can know the result, but what holds however they interleave is checked.
In both, followers who know the mailboxes by `changes` alone, and ask at times of their
own, end up with the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mailplat.interfaces import IMailbox, IMovesMessages
from mailplat.testing.contract.base import ALICE, StoreCase, body, wants
from mailplat.testing.contract.news import Follower
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import SYSTEM_FLAGS, FlagChange

__all__ = ["Stories"]

FLAGS = (*SYSTEM_FLAGS, "$Junk", "work")
KINDS = ("append", "flags", "expunge", "purge", "copy", "move", "follow")

Step = tuple[str, int, list[int], list[str], int]


@dataclass
class Model:
    """A mailbox as somebody would keep it on paper: UID -> (flags, number of the body)."""

    rows: dict[int, tuple[frozenset[str], int]] = field(default_factory=dict)
    next: int = 1

    def append(self, flags: frozenset[str], number: int) -> int:
        uid, self.next = self.next, self.next + 1
        self.rows[uid] = (flags, number)
        return uid

    def chosen(self, picks: list[int]) -> list[int]:
        """UIDs by position, so that stories hit what is there; one past the end is nobody's."""
        uids = [*sorted(self.rows), self.next]
        return sorted({uids[pick % len(uids)] for pick in picks})

    def there(self, uids: list[int]) -> list[int]:
        return [uid for uid in uids if uid in self.rows]


def steps(strategies: Any) -> Any:
    """What may happen."""
    return strategies.tuples(
        strategies.sampled_from(KINDS),
        strategies.integers(0, 1),
        strategies.lists(strategies.integers(0, 9), min_size=1, max_size=4),
        strategies.lists(strategies.sampled_from(FLAGS), max_size=3),
        strategies.integers(0, 5),
    )


def changing(names: list[str], mode: int) -> FlagChange:
    flags = frozenset(names)
    return (FlagChange(add=flags), FlagChange(remove=flags), FlagChange(add=flags, replace=True))[mode % 3]


def changed(flags: frozenset[str], change: FlagChange) -> frozenset[str]:
    return change.add if change.replace else (flags | change.add) - change.remove


class Stories(StoreCase):
    """Interleavings by Hypothesis."""

    @wants("makes_mailboxes", "accepts_mail", "keeps_flags", "expunges_mail")
    async def test_one_after_the_other(self) -> None:
        await self.each_story(steps, self.told)

    @wants("makes_mailboxes", "accepts_mail", "keeps_flags", "expunges_mail")
    async def test_at_once(self) -> None:
        await self.each_story(steps, self.told_at_once)

    async def two(self, number: int) -> tuple[list[str], list[IMailbox]]:
        names = [f"one{number}", f"two{number}"]
        for name in names:
            await self.place(ALICE, name, [])
        return names, [await self.account.open(name) for name in names]

    async def told(self, story: list[Step], number: int) -> None:
        names, mailboxes = await self.two(number)
        models = [Model(), Model()]
        followers = [Follower(mailbox) for mailbox in mailboxes for _ in range(2)]
        for serial, (kind, where, picks, flags, mode) in enumerate(story):
            mailbox, model, other = mailboxes[where], models[where], models[1 - where]
            picked = model.chosen(picks)
            there, uids = model.there(picked), UIDSet.of(picked)
            if kind == "append":
                arrivals = [self.message(body(serial), flags=flags) for _ in range(mode % 3 + 1)]
                expected = [model.append(frozenset(flags), serial) for _ in arrivals]
                self.assertEqual(list(await mailbox.append(arrivals)), expected)
            elif kind == "flags":
                change = changing(flags, mode)
                differ = [uid for uid in there if changed(model.rows[uid][0], change) != model.rows[uid][0]]
                answer = await mailbox.set_flags(uids, change)
                self.assertEqual(list(answer.changed.uids), differ)
                for uid in there:
                    model.rows[uid] = (changed(model.rows[uid][0], change), model.rows[uid][1])
            elif kind in ("expunge", "purge"):
                deleted_only = kind == "expunge"
                gone = [uid for uid in there if not deleted_only or "\\Deleted" in model.rows[uid][0]]
                self.assertEqual(list(await mailbox.expunge(uids, deleted_only)), gone)
                for uid in gone:
                    del model.rows[uid]
            elif kind == "copy" or (kind == "move" and IMovesMessages in self.account.abilities):
                moving = kind == "move"
                copies = [other.append(*model.rows[uid]) for uid in there]
                call = IMovesMessages(mailbox).move if moving else mailbox.copy
                copied = await call(uids, names[1 - where])
                self.assertEqual((list(copied.sources), list(copied.copies)), (there, copies))
                for uid in there if moving else ():
                    del model.rows[uid]
            elif kind == "follow":
                await followers[where * 2 + 1].follow()
            # One follower asks after each step, the other when the story says so.
            await followers[where * 2].follow()
            for mailbox, model in zip(mailboxes, models, strict=True):
                await self.agrees(mailbox, model)
        for index, follower in enumerate(followers):
            await follower.follow()
            rows = list((await mailboxes[index // 2].columns(EVERYTHING)).rows())
            self.assertEqual(follower.seen(), rows)
        for mailbox, model in zip(mailboxes, models, strict=True):
            for uid, (_, serial) in model.rows.items():
                self.assertEqual(await self.whole(mailbox, uid), body(serial))

    async def agrees(self, mailbox: IMailbox, model: Model) -> None:
        expected = {uid: set(flags) for uid, (flags, _) in model.rows.items()}
        self.assertEqual(await self.flags(mailbox), expected)
        status = await mailbox.status()
        self.assertEqual((status.messages, status.uid_next), (len(expected), model.next))
        self.assertEqual(status.unseen, sum("\\Seen" not in flags for flags in expected.values()))

    async def counted(self, mailbox: IMailbox) -> None:
        """Counters are of one moment: what is there of it, and what vanished since, is at least as much."""
        status = await mailbox.status()
        uids = (await mailbox.changes(0)).changed.uids
        vanished = (await mailbox.changes(status.highest_modseq)).vanished
        believed = UIDSet(((1, status.uid_next - 1),))
        there = UIDSet.of(uids) & believed
        self.assertLessEqual(len(there), status.messages)
        if vanished is not None:
            self.assertGreaterEqual(len(there | (vanished & believed)), status.messages)

    async def told_at_once(self, story: list[Step], number: int) -> None:
        names, mailboxes = await self.two(number)
        followers = [Follower(mailbox) for mailbox in mailboxes for _ in range(2)]
        for mailbox in mailboxes:
            await mailbox.append([self.message(body(serial)) for serial in range(3)])
        arrived = [3, 3]
        removed = [0, 0]

        async def do(kind: str, where: int, picks: list[int], flags: list[str], mode: int) -> None:
            mailbox = mailboxes[where]
            uids = UIDSet.of(pick + 1 for pick in picks)
            # Counted after awaiting: "n += await" would take n from before.
            if kind == "append":
                new = await mailbox.append([self.message(flags=flags)] * (mode + 1))
                arrived[where] += len(new)
            elif kind == "flags":
                await mailbox.set_flags(uids, changing(flags, mode))
            elif kind in ("expunge", "purge"):
                gone = await mailbox.expunge(uids, kind == "expunge")
                removed[where] += len(gone)
            elif kind == "copy":
                copied = await mailbox.copy(uids, names[1 - where])
                arrived[1 - where] += len(copied.copies)
            elif kind == "move" and IMovesMessages in self.account.abilities:
                moved = await IMovesMessages(mailbox).move(uids, names[1 - where])
                arrived[1 - where] += len(moved.copies)
                removed[where] += len(moved.sources)
            elif kind == "follow":
                await followers[where * 2].follow()
                await self.counted(mailbox)

        for start in range(0, len(story), 4):
            # One follower has one question under way at a time, as a connection has.
            asked: set[int] = set()
            batch = []
            for step in story[start : start + 4]:
                if step[0] == "follow":
                    if step[1] in asked:
                        continue
                    asked.add(step[1])
                batch.append(step)
            for result in await self.at_once([do(*step) for step in batch]):
                if result is not None:
                    result.raiseException()
        for index, follower in enumerate(followers):
            await follower.follow()
            columns = await mailboxes[index // 2].columns(EVERYTHING)
            self.assertEqual(follower.seen(), list(columns.rows()))
        for where, mailbox in enumerate(mailboxes):
            status = await mailbox.status()
            self.assertEqual(status.messages, arrived[where] - removed[where])
            # Every UID was given once, and none was left out.
            self.assertEqual(status.uid_next, arrived[where] + 1)
