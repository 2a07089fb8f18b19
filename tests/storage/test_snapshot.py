"""Whatever happens between taking a snapshot and loading a mailbox: what is loaded is what the rows are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.interfaces import NewMessage
from mailplat.storage import ledger, loading, names, snapshot, sqlite
from mailplat.storage.ledger import Known, Transaction
from mailplat.storage.packs import Place, StoredFile
from mailplat.storage.schema import STEPS, connect, prepare
from mailplat.storage.sqlite import SQLiteStore
from mailplat.testing.fakes import MemoryMessage, new_message
from mailplat.testing.stores import MailboxStoreContract
from mailplat.uids import EVERYTHING, NOTHING, UIDSet
from mailplat.values import MAX_KEYWORDS, Columns, FlagChange

T = TypeVar("T")

ALICE = "alice@example.test"

#: So many keywords that the last ones do not fit the packed word, nor SQLite's integers.
KEYWORDS = [f"k{number}" for number in range(MAX_KEYWORDS)]


def small(case: Any) -> None:
    """Pieces, logs and limits so small that a few messages have all that large mailboxes have."""
    case.patch(snapshot, "BITS", 2)
    case.patch(loading, "MOST_RUNS", 1)
    case.patch(loading, "AT_ONCE", 3)
    case.patch(ledger, "LOG_KEEPS", 4)
    case.patch(sqlite, "MOST_EFFORT", 1)
    case.patch(sqlite, "REST", 0)


class PackTests(SynchronousTestCase):
    @given(
        st.lists(
            st.tuples(
                st.one_of(st.integers(0, 3), st.integers(0, (1 << 210) - 1)),
                st.integers(1, 1 << 60),
                st.integers(0, 0xFFFFFFFF),
                st.integers(-(1 << 60), 1 << 60),
            )
        )
    )
    def test_unpacked_is_what_was_packed(self, rows: list[tuple[int, int, int, int]]) -> None:
        columns = Columns.of((uid, *row) for uid, row in enumerate(rows, 3))
        again = snapshot.unpack(snapshot.pack(columns))
        self.assertEqual(list(again.rows()), list(columns.rows()))
        self.assertEqual(again.overflow, columns.overflow)

    def test_what_is_the_same_is_kept_once(self) -> None:
        columns = Columns.of((uid, 1, 7, uid, 5) for uid in range(1, 1001))
        self.assertEqual([len(some) for some in snapshot.pack(columns)], [4000, 8, 8, 4000, 8, 0])

    def test_the_other_order_of_octets(self) -> None:
        """A directory may move to a machine of another kind."""
        columns = Columns.of([(1, 2, 3, 4, 5), (6, 2, 8, 9, 10)])
        here = snapshot.pack(columns)
        with mock.patch.object(snapshot, "byteorder", "big"):
            there = snapshot.pack(columns)
            self.assertEqual(list(snapshot.unpack(there).rows()), list(columns.rows()))
        self.assertEqual(here[0], b"\1\0\0\0\6\0\0\0")
        self.assertEqual(there[0], b"\0\0\0\1\0\0\0\6")


class ColumnsTests(SynchronousTestCase):
    @given(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)), st.integers(1, 30), st.integers(0, 30))
    def test_replace(self, there: set[int], others: set[int], first: int, more: int) -> None:
        last = first + more
        columns = Columns.of((uid, 1 << (60 + uid), 1, 2, 3) for uid in sorted(there))
        rows = [(uid, 1 << (61 + uid), 4, 5, 6) for uid in sorted(others) if first <= uid <= last]
        stay = [row for row in columns.rows() if not first <= row[0] <= last]
        columns.replace(first, last, Columns.of(rows))
        self.assertEqual(list(columns.rows()), sorted(stay + rows))
        self.assertEqual(columns.overflow.keys(), {row[0] for row in columns.rows() if row[1] >> 64})


#: What happens, to which of the messages that are there (or for how many steps), and with which keyword.
steps = st.lists(
    st.tuples(
        st.sampled_from(("append", "flags", "expunge", "one takes", "other takes")),
        st.lists(st.integers(0, 40), min_size=1, max_size=6),
        st.sampled_from((0, 3, 57, 58, 59, 60, 199)),
    ),
    min_size=4,
    max_size=30,
)


class StoriesTests(SynchronousTestCase):
    """On the index itself, so that everything can happen between any two steps."""

    def setUp(self) -> None:
        small(self)

    def begin(self, directory: str) -> None:
        prepare(directory)
        self.connection = connect(directory)
        # What is tested here is not whether it is on disk.
        self.connection.execute("PRAGMA synchronous = OFF")
        self.act(lambda txn: names.create_account(txn, ALICE))
        self.number = self.act(lambda txn: txn.find(ALICE, "INBOX").id)
        self.act(lambda txn: txn.touch(row := txn.box(self.number)) or row.keywords.extend(KEYWORDS))
        self.body = MemoryMessage(b"")
        self.place = Place(StoredFile("packs/one", False), 0, 10, 0)

    def act(self, act: Callable[[Transaction], T]) -> T:
        self.connection.execute("BEGIN IMMEDIATE")
        txn = Transaction(self.connection, lambda name: -1, 0, 0, Known())
        result = act(txn)
        txn.finish()
        self.connection.execute("COMMIT")
        return result

    def read(self, function: Callable[..., T], *arguments: Any) -> T:
        self.connection.execute("BEGIN")
        result = function(self.connection, self.number, *arguments)
        self.connection.execute("COMMIT")
        return result

    def taken(self) -> Iterator[None]:
        """What `SQLiteStore.take_snapshot` does, again and again, a step at a time."""
        mailbox = self.number
        while True:
            outdated = self.read(loading.outdated)
            yield
            for number, runs in outdated.pieces.items():
                packed = self.read(loading.piece, number, runs)
                yield
                kept = partial(snapshot.keep, mailbox=mailbox, modseq=outdated.modseq)
                self.act(partial(kept, number=number, packed=packed))
                yield
            self.act(partial(snapshot.claim, mailbox=mailbox, modseq=outdated.modseq, only=outdated.all))
            yield

    def do(self, kind: str, picks: list[int], keyword: int) -> None:
        there = [uid for (uid,) in self.connection.execute("SELECT uid FROM messages ORDER BY uid")]
        uids = UIDSet.of(there[pick % len(there)] for pick in picks) if there else NOTHING
        if kind == "append":
            arrivals = [
                NewMessage(self.body, b"", frozenset({KEYWORDS[keyword]} if pick % 2 else ()), pick)
                for pick in picks
            ]
            places: Any = {id(self.body): self.place}
            self.act(lambda txn: txn.append([(txn.box(self.number), one) for one in arrivals], places))
        elif kind == "flags":
            change = FlagChange(add=frozenset({KEYWORDS[keyword]}), replace=bool(picks[0] % 2))
            self.act(lambda txn: txn.set_flags(txn.box(self.number), uids, change, None))
        elif kind == "expunge":
            self.act(lambda txn: txn.expunge(txn.box(self.number), uids, False))

    def check(self) -> None:
        row = self.read(loading.mailbox)
        assert row is not None
        found, _ = self.read(lambda *some: loading._columns(some[0], row, EVERYTHING))
        rows = self.connection.execute("SELECT uid, flags, modseq, size, date FROM messages ORDER BY uid")
        self.assertEqual(list(found.rows()), list(ledger.columns_of(rows.fetchall()).rows()))
        self.assertEqual(len(found), row.messages)
        self.assertFalse(self.read(loading.contradicts))

    def told(self, *story: str | tuple[str, list[int]]) -> None:
        """Of one and other, a step of theirs each; of other things, what and to which messages."""
        with TemporaryDirectory() as directory:
            self.begin(directory)
            with closing(self.connection):
                takers = {"one": self.taken(), "other": self.taken()}
                for step in story:
                    if isinstance(step, str):
                        next(takers[step])
                    else:
                        self.do(*step, 0)
                    self.check()

    # Each of these was wrong once the rule that it names was taken away.

    def test_pieces_without_a_claim_do_not_count(self) -> None:
        """Kept before a crash; then what was in it is gone, so that nobody makes it anew."""
        self.told(
            ("append", [0, 0, 0]), "one", "one", "one", ("expunge", [0, 1, 2]), ("append", [0, 0]),
            *["other"] * 4,
        )  # fmt: skip

    def test_a_piece_comes_late(self) -> None:
        """It was read before others claimed a later modseq."""
        self.told(
            ("append", [0, 0, 0]), "one", "one", ("expunge", [0, 1, 2]), ("append", [0, 0]), *["other"] * 4,
            "one", "one",
        )  # fmt: skip

    def test_an_older_piece_after_a_newer_one(self) -> None:
        self.told(
            ("append", [0, 0, 0]), *["one"] * 4, ("flags", [0]), "one", "one", ("flags", [1]), *["other"] * 3,
            "one", "other",
        )  # fmt: skip

    def test_an_older_claim_after_a_newer_one(self) -> None:
        """It would say less than is true, and do no harm but to be slow."""
        self.told(
            ("append", [0, 0, 0]), *["one"] * 4, ("flags", [0]), *["one"] * 3, ("flags", [1]), *["other"] * 4,
            "one",
        )  # fmt: skip

    def test_expunged_and_the_log_does_not_say_so(self) -> None:
        self.told(
            ("append", [0] * 6), *["one"] * 6, ("expunge", [0]), *[("append", [0])] * 8,
        )  # fmt: skip

    @settings(max_examples=200, deadline=None)
    @given(steps)
    def test_loaded_is_what_the_rows_are(self, story: list[tuple[str, list[int], int]]) -> None:
        with TemporaryDirectory() as directory:
            self.begin(directory)
            with closing(self.connection):
                # Two processes, neither of which knows how far the other has come.
                takers = {"one takes": self.taken(), "other takes": self.taken()}
                for kind, picks, keyword in story:
                    if kind in takers:
                        for _ in range(picks[0] + 1):
                            next(takers[kind])
                    else:
                        self.do(kind, picks, keyword)
                    self.check()


class SmallStoreTests(MailboxStoreContract, TestCase):
    """The whole contract once more, where everything large mailboxes have happens with a few messages."""

    def make_store(self) -> SQLiteStore:
        small(self)
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = scratch.name
        return SQLiteStore(self.directory, reactor)

    def restart_store(self, store: SQLiteStore) -> SQLiteStore:
        return SQLiteStore(self.directory, reactor)


class StoreTests(TestCase):
    async def begin(self, directory: str = "") -> SQLiteStore:
        if not directory:
            scratch = TemporaryDirectory()
            self.addCleanup(scratch.cleanup)
            directory = scratch.name
        store = SQLiteStore(directory, reactor)
        await store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.stop()))
        return store

    async def filled(self, count: int = 20) -> tuple[SQLiteStore, Any]:
        """A store, and a mailbox with so many messages."""
        small(self)
        store = await self.begin()
        await store.create_account(ALICE)
        mailbox = await (await store.account(ALICE)).open("INBOX")
        await mailbox.append([new_message(b"Subject: %d\r\n\r\n" % number) for number in range(count)])
        return store, mailbox

    def counts(self, store: SQLiteStore) -> tuple[int, int]:
        """How many snapshots and pieces of them the index has."""
        with closing(sqlite3.connect(f"{store.directory}/index.sqlite")) as index:
            (snapshots,) = index.execute("SELECT count(*) FROM snapshots").fetchone()
            (pieces,) = index.execute("SELECT count(*) FROM snapshot_pieces").fetchone()
        return snapshots, pieces

    async def effort(self, store: SQLiteStore, mailbox: Any) -> int:
        """How much there is to look at to load it."""
        found = await store.readers.do(loading.changes, mailbox._row.id, 0)
        return found.effort

    async def test_loading_much_takes_a_snapshot(self) -> None:
        store, mailbox = await self.filled()
        taken: list[int] = []
        done: Deferred[None] = Deferred()
        take = store.take_snapshot

        async def told(number: int) -> None:
            await take(number)
            taken.append(number)
            done.callback(None)

        self.patch(store, "take_snapshot", told)
        self.patch(sqlite, "MOST_EFFORT", 20)
        await mailbox.columns(UIDSet(((1, 10),)))
        self.assertEqual(self.counts(store), (0, 0))
        await mailbox.changes(0)
        await done
        self.assertEqual(taken, [mailbox._row.id])
        self.assertEqual(self.counts(store), (1, 6))
        self.assertEqual(await self.effort(store, mailbox), 0)
        # Nor is there a reason to take another.
        for _ in range(5):
            self.assertEqual(list((await mailbox.changes(0)).changed.uids), list(range(1, 21)))
        self.assertEqual(taken, [mailbox._row.id])

    async def test_small_mailboxes_get_none(self) -> None:
        store, mailbox = await self.filled()
        self.patch(sqlite, "MOST_EFFORT", 21)
        self.patch(store, "take_snapshot", None)
        for _ in range(5):
            await mailbox.changes(0)

    async def test_only_what_changed_is_made_anew(self) -> None:
        store, mailbox = await self.filled()
        await store.take_snapshot(mailbox._row.id)
        await mailbox.set_flags(UIDSet.of([5]), FlagChange(add=frozenset({"\\Seen"})))
        await mailbox.append([new_message()])
        outdated = await store.readers.do(loading.outdated, mailbox._row.id)
        self.assertEqual(outdated.pieces, {1: [(5, 5)], 5: [(21, 21)]})
        self.assertEqual(await self.effort(store, mailbox), 2 + 2 + 2)
        await store.take_snapshot(mailbox._row.id)
        self.assertEqual(await self.effort(store, mailbox), 0)
        self.assertEqual(await store.verify(), [])

    async def test_another_process(self) -> None:
        ours, mine = await self.filled()
        await ours.take_snapshot(mine._row.id)
        theirs = await self.begin(ours.directory)
        other = await (await theirs.account(ALICE)).open("INBOX")
        await other.expunge(UIDSet.of([1, 2, 7]), deleted_only=False)
        await other.set_flags(UIDSet.of([9]), FlagChange(add=frozenset({"word"})))
        both = [Deferred.fromCoroutine(store.take_snapshot(mine._row.id)) for store in (ours, theirs)]
        await other.append([new_message()])
        await gatherResults(both)
        rows = [list((await mailbox.columns(EVERYTHING)).rows()) for mailbox in (mine, other)]
        self.assertEqual(rows[0], rows[1])
        self.assertEqual([row[0] for row in rows[0]], [3, 4, 5, 6, *range(8, 22)])
        self.assertEqual(await ours.verify(), [])

    async def test_deleted_meanwhile(self) -> None:
        store, inbox = await self.filled()
        account = await store.account(ALICE)
        for late in (False, True):
            await inbox.copy(EVERYTHING, "Archive")
            number = (await account.open("Archive"))._row.id
            if late:
                await store.take_snapshot(number)
            taking = Deferred.fromCoroutine(store.take_snapshot(number))
            await account.delete("Archive")
            await taking
            self.assertEqual(self.counts(store), (0, 0))
            # The same name, another mailbox.
            await account.create("Archive")
            archive = await account.open("Archive")
            await store.take_snapshot(archive._row.id)
            self.assertEqual(list((await archive.columns(EVERYTHING)).uids), [])
            self.assertEqual(await store.verify(), [])
            await account.delete("Archive")
            await account.create("Archive")

    async def test_stopped_before(self) -> None:
        """Whoever has just opened a mailbox has a while for more questions."""
        store, mailbox = await self.filled()
        self.patch(sqlite, "REST", 3600)
        self.patch(store, "take_snapshot", None)
        for _ in range(5):
            await mailbox.changes(0)
        self.assertEqual(self.counts(store), (0, 0))

    async def test_stopped_meanwhile(self) -> None:
        first, _ = await self.filled()
        store = SQLiteStore(first.directory, reactor)
        await store.start()
        mailbox = await (await store.account(ALICE)).open("INBOX")
        await mailbox.changes(0)
        await store.stop()
        again = await self.begin(first.directory)
        self.assertEqual(await again.verify(), [])
        inbox = await (await again.account(ALICE)).open("INBOX")
        self.assertEqual(list((await inbox.changes(0)).changed.uids), list(range(1, 21)))

    async def test_a_directory_of_an_earlier_version(self) -> None:
        small(self)
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        earlier = STEPS[: next(number for number, step in enumerate(STEPS) if "snapshots" in step)]
        prepare(scratch.name, earlier)
        with closing(sqlite3.connect(f"{scratch.name}/index.sqlite")) as index, index:
            index.executescript(
                """
                INSERT INTO accounts VALUES (1, 'alice@example.test');
                INSERT INTO mailboxes
                    VALUES (7, 1, 'INBOX', NULL, 1, 9, 99, 31, 44, 40, 10, 10, 50, 0, 31, '');
                INSERT INTO files VALUES (1, 'packs/1', 0, 1);
                INSERT INTO bodies VALUES (1, 1, 0, 0, 0, 1, NULL);
                INSERT INTO copies VALUES (1, 1, 10, 'From:');
                INSERT INTO changes VALUES (7, 44, 1, '1:20');
                """
            )
            index.executemany(
                "INSERT INTO messages VALUES (7, ?, 0, 3, 5, 0, 1)", [(uid,) for uid in range(21, 31)]
            )
        store = await self.begin(scratch.name)
        inbox = await (await store.account(ALICE)).open("INBOX")
        for _ in range(2):
            self.assertEqual(list((await inbox.changes(0)).changed.uids), list(range(21, 31)))
            await store.take_snapshot(7)
        self.assertEqual(self.counts(store), (1, 3))
        self.assertFalse([line for line in await store.verify() if "INBOX" in line])
