"""ENVELOPE and BODYSTRUCTURE of whole mailboxes: what is kept is what would be cut out anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.errors import StorageFull
from mailplat.imap.commands import FetchItem, FetchPlan, Item
from mailplat.imap.derived import BlockForms, blocks_of
from mailplat.imap.fetch import Fetching
from mailplat.imap.outlines import FORMS, Outlines
from mailplat.imap.responses import RowRenderer
from mailplat.imap.view import Rows, Selected, Views
from mailplat.interfaces import IKeepsDerived, IReadsOutlines
from mailplat.message import outline
from mailplat.message.compose import InternalDates
from mailplat.storage import reading
from mailplat.storage.ledger import Transaction
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.contract.base import Case
from mailplat.testing.fakes import new_message
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import BLOCK, Derived
from tests.imap.support import ALICE, Server, now

KINDS = (Item.ENVELOPE, Item.BODY, Item.BODYSTRUCTURE)

#: Subjects that could be taken for a part of a format, a separator or an end.
SUBJECTS = (b"plain", b"100 %d %% %b", b'"quoted" \\', b"=?utf-8?q?=00?=", b"caf\xc3\xa9", b")\x01(", b"")


def messages(first: int, count: int) -> list[Any]:
    return [
        new_message(b"Subject: %b %d\r\n\r\nText\r\n" % (SUBJECTS[number % len(SUBJECTS)], number))
        for number in range(first, first + count)
    ]


class Paper:
    """A wire that everything is written to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    async def drained(self) -> None:
        pass

    async def pause(self) -> None:
        pass


class House:
    """A server's memory over a store."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.views = Views()
        self.outlines = Outlines()
        self.dates = InternalDates()

    async def select(self, name: str = "INBOX") -> Selected:
        mailbox = await (await self.store.account(ALICE)).open(name)
        view = self.views.of(mailbox)
        await view.refresh()
        return Selected(view, False, lambda: None)

    async def fetch(
        self, kinds: Sequence[Item], selected: Selected | None = None, uids: UIDSet = EVERYTHING
    ) -> bytes:
        """What is told; what was handed over is kept when this returns."""
        selected = selected or await self.select()
        plan = FetchPlan.of(tuple(FetchItem(kind, kind.value.encode()) for kind in kinds))
        paper: Any = Paper()
        renderer = RowRenderer(selected.view.mailbox, self.dates)
        fetching = Fetching(selected, plan, renderer, self.outlines, paper)
        await fetching.run(selected.known(uids), None)
        await self.outlines.blocks.hand_over()
        await self.settled()
        return b"".join(paper.written)

    async def settled(self) -> None:
        lock = self.outlines.blocks._lock
        await lock.acquire()
        lock.release()


async def anew(selected: Selected, kinds: Sequence[Item], uids: UIDSet = EVERYTHING) -> bytes:
    """The same, each message by itself out of its outline."""
    mailbox = selected.view.mailbox
    there = list(selected.view.columns.uids)
    lines = []
    for one in await mailbox.outlines(uids):
        words = [b"UID %d" % one.uid] if Item.UID in kinds else []
        words += [
            b"%b %b" % (kind.value.encode(), outline.rendered(one.outline, FORMS[kind]))
            for kind in kinds
            if kind in FORMS
        ]
        lines.append(b"* %d FETCH (%b)\r\n" % (there.index(one.uid) + 1, b" ".join(words)))
    return b"".join(lines)


class HouseCase(Case, TestCase):
    async def begin(self, directory: str | None = None) -> SQLiteStore:
        self.directory = directory or self.new_directory()
        store = SQLiteStore(self.directory, reactor, poll=0)
        await store.start()
        if directory is None:
            await store.create_account(ALICE)
        return store

    async def filled(self, count: int) -> House:
        store = await self.begin()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        house = House(store)
        await (await house.select()).view.mailbox.append(messages(0, count))
        return house

    def noted(self, *names: str) -> list[tuple[str, Any]]:
        """What is read from now on by these functions."""
        asked: list[tuple[str, Any]] = []

        def note(name: str) -> None:
            function = getattr(reading, name)

            def noted(connection: Any, number: int, *arguments: Any) -> Any:
                asked.append((name, arguments[-1]))
                return function(connection, number, *arguments)

            self.patch(reading, name, noted)

        for name in names:
            note(name)
        return asked


class KeptTests(HouseCase):
    async def test_told_three_times(self) -> None:
        """Out of outlines, out of what was kept, and as it was said before."""
        house = await self.filled(3 * BLOCK + 10)
        for kinds in ([Item.UID, Item.ENVELOPE], [Item.BODYSTRUCTURE], [Item.ENVELOPE, Item.BODY, Item.UID]):
            selected = await house.select()
            kinds = [kind for kind in kinds if kind not in FORMS] + [kind for kind in kinds if kind in FORMS]
            expected = await anew(selected, kinds)
            house.store.fresh.forget(1)
            self.assertEqual(await house.fetch(kinds), expected)
            again = House(house.store)
            asked = self.noted("records", "outlines", "derived")
            self.assertEqual(await again.fetch(kinds), expected)
            self.assertEqual([uids for name, uids in asked if name == "records"], [UIDSet(((769, 778),))])
            self.assertEqual([name for name, _ in asked if name == "outlines"], [])
            del asked[:]
            self.assertEqual(await again.fetch(kinds), expected)
            self.assertEqual(asked, [])
        self.assertEqual(await house.store.verify(), [])

    async def test_over_a_restart(self) -> None:
        house = await self.filled(2 * BLOCK)
        expected = await house.fetch([Item.ENVELOPE])
        await house.store.stop()
        store = await self.begin(self.directory)
        asked = self.noted("records", "derived")
        self.assertEqual(await House(store).fetch([Item.ENVELOPE]), expected)
        self.assertEqual([name for name, _ in asked], ["derived"] * len(asked))
        await store.stop()
        await house.store.start()

    async def test_just_come_in(self) -> None:
        """Whoever watches asks for what this process has in its hands."""
        house = await self.filled(20)
        asked = self.noted("records", "outlines")
        selected = await house.select()
        first = await house.fetch([Item.ENVELOPE], selected, UIDSet(((3, 20),)))
        self.assertEqual(asked, [])
        self.assertEqual(first, await anew(selected, [Item.ENVELOPE], UIDSet(((3, 20),))))

    async def test_another_version(self) -> None:
        """What an earlier version of outlines was cut out of is cut out again, and kept in its place."""
        house = await self.filled(BLOCK)
        selected = await house.select()
        mailbox = selected.view.mailbox
        old = Derived("ENVELOPE", 1, BLOCK, bytes([outline.VERSION - 1]) + b"\0" * BLOCK)
        await mailbox.keep_derived([old])
        expected = await anew(selected, [Item.ENVELOPE])
        self.assertEqual(await house.fetch([Item.ENVELOPE], selected), expected)
        (new,) = await mailbox.derived(["ENVELOPE"], UIDSet.of([1]))
        self.assertEqual(new.octets[0], outline.VERSION)
        self.assertEqual(new.octets.count(b"\0"), BLOCK)

    async def test_no_room(self) -> None:
        """The answer is given all the same, and the disk is asked once."""
        house = await self.filled(2 * BLOCK)
        calls = []

        def full(*arguments: Any) -> None:
            calls.append(arguments)
            raise StorageFull()

        self.patch(Transaction, "keep_derived", full)
        selected = await house.select()
        for kind in (Item.ENVELOPE, Item.BODY):
            self.assertEqual(await house.fetch([kind], selected), await anew(selected, [kind]))
        self.assertEqual(len(calls), 1)

    async def test_gone_while_it_is_told(self) -> None:
        """Of what another process expunged nothing is told, also if this one does not know yet."""
        house = await self.filled(2 * BLOCK)
        other = await self.begin(self.directory)
        self.addCleanup(lambda: Deferred.fromCoroutine(other.stop()))
        house.store.fresh.forget(1)
        await house.fetch([Item.ENVELOPE])
        again = House(house.store)
        selected = await again.select()
        theirs = await (await other.account(ALICE)).open("INBOX")
        await theirs.expunge(UIDSet.of([7, BLOCK + 1]), deleted_only=False)
        told = await again.fetch([Item.ENVELOPE], selected)
        self.assertEqual(told, await anew(selected, [Item.ENVELOPE]))
        self.assertEqual(told.count(b"\n*") + 1, 2 * BLOCK - 2)

    async def test_the_other_process_keeps_less(self) -> None:
        """It saw the mailbox after an expunge that we have not heard of."""
        house = await self.filled(BLOCK)
        other = await self.begin(self.directory)
        self.addCleanup(lambda: Deferred.fromCoroutine(other.stop()))
        house.store.fresh.forget(1)
        selected = await house.select()
        theirs = House(other)
        await (await theirs.select()).view.mailbox.expunge(UIDSet.of([9]), deleted_only=False)
        await theirs.fetch([Item.ENVELOPE])
        self.assertEqual(
            await house.fetch([Item.ENVELOPE], selected), await anew(selected, [Item.ENVELOPE])
        )

    async def test_any_story(self) -> None:
        """However messages come, go and are asked for, by two processes and over restarts."""
        await self.each_story(_steps, self._tell)

    async def _tell(self, story: list[Any], number: int) -> None:
        stores = [await self.begin()]
        stores.append(await self.begin(self.directory))
        houses = [House(store) for store in stores]
        came = 0
        for who, what, *more in story:
            house = houses[who]
            selected = await house.select()
            mailbox = selected.view.mailbox
            uids = selected.view.columns.uids
            if what == "append":
                await mailbox.append(messages(came, more[0]))
                came += more[0]
            elif what == "expunge" and uids:
                first, length = more
                run = uids[first % len(uids)], uids[min(first % len(uids) + length, len(uids) - 1)]
                await mailbox.expunge(UIDSet((run,)), deleted_only=False)
            elif what == "restart":
                await house.store.stop()
                await house.store.start()
                houses[who] = House(house.store)
            elif what == "fetch":
                kinds, whole = more
                wanted = EVERYTHING if whole else UIDSet(((BLOCK // 2, 2 * BLOCK),))
                told = await house.fetch(kinds, selected, wanted)
                self.assertEqual(told, await anew(selected, kinds, selected.known(wanted)))
            selected.close()
        self.assertEqual(await stores[0].verify(), [])
        for store in stores:
            await store.stop()


def _steps(st: Any) -> Any:
    kinds = [[Item.UID, Item.ENVELOPE], [Item.BODYSTRUCTURE], [Item.ENVELOPE, Item.BODY]]
    return st.tuples(
        st.integers(0, 1),
        st.one_of(
            st.tuples(st.just("append"), st.integers(50, BLOCK)),
            st.tuples(st.just("expunge"), st.integers(0, 1000), st.sampled_from((0, 3, BLOCK))),
            st.tuples(st.just("restart")),
            st.tuples(st.just("fetch"), st.sampled_from(kinds), st.booleans()),
            st.tuples(st.just("fetch"), st.sampled_from(kinds), st.booleans()),
        ),
    ).map(lambda step: (step[0], *step[1]))


class BlockTests(SynchronousTestCase):
    def rows(self, uids: Iterable[int], most: int = BLOCK) -> tuple[Selected, list[Rows]]:
        wanted = set(uids)
        server = Server(*[b"\r\n"] * max(wanted))
        gone = UIDSet(((1, max(wanted)),)) - UIDSet.of(wanted)
        now(server.inbox.expunge(gone, deleted_only=False))
        view = Views().of(server.inbox)
        now(view.refresh())
        selected = Selected(view, False, lambda: None)
        return selected, list(selected.pieces(EVERYTHING, most, blocks=True))

    def test_pieces_end_where_blocks_do(self) -> None:
        _, pieces = self.rows([*range(1, 201), *range(300, 500), *range(513, 600)])
        self.assertEqual([len(rows.columns) for rows in pieces], [200, 200, 87])
        # Also where there would be room for a part of the next one; but a block may be larger than a piece.
        _, pieces = self.rows([*range(1, 51), *range(300, 500)], 120)
        self.assertEqual([len(rows.columns) for rows in pieces], [50, 120, 80])

    def test_pieces_of_a_set_with_gaps(self) -> None:
        selected, _ = self.rows(range(1, 600))
        uids = UIDSet(((5, 100), (200, 300), (310, 520), (530, 540), (590, 599)))
        found = [list(rows.columns.uids) for rows in selected.pieces(uids, BLOCK, blocks=True)]
        self.assertEqual([uid for uids in found for uid in uids], list(uids))
        self.assertEqual([(uids[0], uids[-1]) for uids in found], [(5, 300), (310, 599)])

    def test_whole_blocks(self) -> None:
        selected, pieces = self.rows([*range(1, 201), *range(300, 500), *range(513, 600)])
        self.assertEqual(
            [dict(blocks_of(selected.view, rows)) for rows in pieces], [{1: 200}, {2: 200}, {}]
        )
        cases = ((1, 200), {1: 200}), ((2, 200), {}), ((1, 199), {}), ((1, 499), {1: 200, 2: 200})
        for run, expected in cases:
            (rows,) = selected.pieces(UIDSet((run,)), 1000)
            self.assertEqual(dict(blocks_of(selected.view, rows)), expected)

    def test_few_messages_are_not_worth_it(self) -> None:
        selected, pieces = self.rows([1, 10, 300, 2000])
        self.assertEqual([dict(blocks_of(selected.view, rows)) for rows in pieces], [{}])

    def test_a_mailbox_that_keeps_nothing(self) -> None:
        selected, pieces = self.rows(range(1, BLOCK + 1))
        self.assertFalse(IKeepsDerived.providedBy(selected.view.mailbox))
        forms = BlockForms()
        self.assertEqual(now(forms.ready(selected.view, KINDS, pieces)), [None])
        forms.keep(selected.view, pieces[0], KINDS, [[b"x"] * BLOCK] * 3)
        self.assertIsNone(now(forms.hand_over(last=True)))
        self.assertFalse(IReadsOutlines.providedBy(selected.view.mailbox))
        _, records = now(Outlines().read(selected.view, KINDS, pieces))
        self.assertEqual(len(records.uids), 0)

    def test_bounded(self) -> None:
        """What waits is handed over when it has become much, and not while others are on their way."""
        selected, pieces = self.rows(range(1, BLOCK + 1))
        view = selected.view
        given: list[Sequence[Derived]] = []
        answers: list[Deferred[None]] = []

        class Keeps:
            def keep_derived(self, some: Sequence[Derived]) -> Deferred[None]:
                given.append(some)
                answers.append(Deferred())
                return answers[-1]

        from zope.interface import directlyProvides

        keeps = Keeps()
        directlyProvides(keeps, IKeepsDerived)
        view.mailbox = keeps
        forms = BlockForms(most=3 * BLOCK)
        keep = [[b"x"] * BLOCK]
        forms.keep(view, pieces[0], [Item.BODY], keep)
        now(forms.hand_over())
        self.assertEqual(given, [])
        for _ in range(2):
            forms.keep(view, pieces[0], [Item.BODY], [[b"%d" % number for number in range(BLOCK)]])
        now(forms.hand_over())
        self.assertEqual([len(some) for some in given], [3])
        octets = b"\0".join((bytes([outline.VERSION]), *keep[0]))
        self.assertEqual(given[0][0], Derived("BODY", 1, BLOCK, octets))
        forms.keep(view, pieces[0], [Item.BODY], keep)
        waiting = Deferred.fromCoroutine(forms.hand_over(last=True))
        self.assertEqual(len(given), 1)
        answers[0].callback(None)
        self.successResultOf(waiting)
        self.assertEqual(len(given), 2)
        # A mailbox that fails is not asked again.
        answers[1].errback(StorageFull())
        forms.keep(view, pieces[0], [Item.BODY], keep)
        now(forms.hand_over(last=True))
        self.assertEqual(len(given), 2)

    def test_what_is_ready_is_told_as_it_is(self) -> None:
        selected, (rows,) = self.rows([1, 2])
        renderer = RowRenderer(selected.view.mailbox, InternalDates())
        forms = [b"(%d %b %%)", b"(\r\n)"]
        listed = {Item.ENVELOPE: forms, Item.BODY: forms[::-1]}
        joined = {kind: b"\0".join(some) for kind, some in listed.items()}
        for kinds in ([Item.ENVELOPE], [Item.UID, Item.ENVELOPE], [Item.UID, Item.ENVELOPE, Item.BODY]):
            told = [
                renderer.lines(rows.numbers, rows.columns, kinds, EVERYTHING, ready)
                for ready in (listed, joined)
            ]
            self.assertEqual(told[0], told[1])
        self.assertIn(b"* 1 FETCH (UID 1 ENVELOPE (%d %b %%) BODY (\r\n))\r\n", told[0])


class PauseTests(SynchronousTestCase):
    def test_nothing_is_left_under_way(self) -> None:
        """A client that goes away in the middle leaves no unhandled error behind."""
        server = Server(*[b"Subject: x\r\n\r\n"] * (3 * BLOCK))
        view = Views().of(server.inbox)
        now(view.refresh())
        paper: Any = Paper()

        async def gone() -> None:
            raise ConnectionError

        paper.drained = gone
        plan = FetchPlan.of((FetchItem(Item.ENVELOPE, b"ENVELOPE"),))
        renderer = RowRenderer(server.inbox, InternalDates())
        outlines = Outlines()
        selected = Selected(view, False, lambda: None)
        waiting: list[Deferred[Any]] = []

        async def read(*arguments: Any) -> Any:
            found = await Outlines.read(outlines, *arguments)
            if waiting:
                await waiting[-1]
            waiting.append(Deferred())
            return found

        self.patch(outlines, "read", read)
        with self.assertRaises(ConnectionError):
            now(Fetching(selected, plan, renderer, outlines, paper).run(EVERYTHING, None))
        # What was read ahead is not waited for.
        self.assertTrue(waiting[0].called)
        self.assertEqual(self.flushLoggedErrors(), [])
