"""
The embedded default store: one directory, an SQLite index and files of message bytes.

What stands here is the face in the reactor's thread: the store, its accounts, its
mailboxes.  Changes go to the writer's thread (`writer`), which commits what waits
together; questions that need the disk go to a small pool of readers (`reading`).  What is
asked all the time is answered at once from memory: a mailbox in use has its row here,
advanced by our own commits, and one look at the store's commit counter tells whether
another process changed something meanwhile.

Nothing is acknowledged before it is durable.  UIDs, modseqs and UIDVALIDITY are given out
inside the transaction and never go back.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from mailplat.errors import DataDirectoryError, NoSuchAccount, NoSuchMailbox, StorageFull
from mailplat.interfaces import (
    Delivery,
    IClaimsRecent,
    ICommitsTogether,
    IKeepsDerived,
    IMailAccount,
    IMailbox,
    IMailStore,
    IMessageContent,
    IMovesMessages,
    IReadsMany,
    IReadsOutlines,
    IVerifiable,
    NewItem,
    NewMessage,
)
from mailplat.storage import loading, names, queue_ledger, reading, snapshot, verify
from mailplat.storage.fresh import Fresh
from mailplat.storage.ledger import MailboxRow, Transaction
from mailplat.storage.packs import FEW, LARGE, PACKS, ROLL, Disk, OpenFiles
from mailplat.storage.reading import AHEAD, Ahead, Body, Readers
from mailplat.storage.schema import LOCK, connect, is_full, prepare
from mailplat.storage.sqlite_queue import SQLiteQueue
from mailplat.storage.waiting import WAITING
from mailplat.storage.writer import Places, Published, Writer
from mailplat.uids import NOTHING, Run, UIDSet
from mailplat.values import (
    BLOCK,
    Changes,
    Columns,
    Copied,
    Derived,
    FlagChange,
    FlagsSet,
    MailboxInfo,
    MailboxStatus,
    Outlined,
    Records,
    Settled,
)

T = TypeVar("T")

#: How often a mailbox that somebody watches is looked at for what other processes did, in seconds.
POLL = 1.0

#: Rows of a mailbox that are looked at before a snapshot is worth its while.
MOST_EFFORT = 4096

#: Seconds until it is taken, as whoever has just opened a mailbox asks for more.
REST = 1.0

#: Mailboxes that are found by name without a look at the index.
MOST_RECENT = 256


@implementer(IMessageContent)
class SQLiteContent:
    """See `IMessageContent`."""

    def __init__(self, readers: Readers, body: Body, data: bytes | None) -> None:
        self.size = body.length
        self._readers = readers
        self._body: Body | None = body
        self._data = data

    async def read(self, start: int, length: int) -> bytes:
        body = self._body
        if body is None:
            raise ValueError("the content is closed")
        if self._data is not None:
            return self._data[start : start + length]
        if not start and length >= self.size and (whole := body.read_now()) is not None:
            return whole
        end = min(start + length, self.size)
        cut = len(body.prefix)
        if end <= cut:
            return body.prefix[start:end]
        first, last = max(0, start - cut), end - cut
        if last <= first:
            return b""
        position = body.position + first
        # Most of what is read is in the page cache, and a hop costs more than the copy.
        piece: bytes | bytearray | None = body.file.read_now(position, last - first)
        if piece is None:
            piece = await self._readers.call(body.file.read, position, last - first)
        return b"".join((body.prefix[start:], piece))

    def close(self) -> None:
        self._body = self._data = None


@implementer(IMailbox, IMovesMessages, IReadsMany, IReadsOutlines, IKeepsDerived, IClaimsRecent)
class SQLiteMailbox:
    """See `IMailbox`."""

    read_only = False

    def __init__(self, store: SQLiteStore, row: MailboxRow) -> None:
        self._store = store
        self._row = row
        self._gone = False
        self._ahead: Ahead | None = None
        self._effort = 0
        self._hints: dict[object, Callable[[], None]] = {}
        self.uid_validity = row.uid_validity
        self.keywords: list[str] = row.keywords

    @property
    def name(self) -> str:
        return self._row.name

    # Reading

    async def status(self) -> MailboxStatus:
        await self._store.catch_up()
        row = self._row
        return MailboxStatus(
            messages=row.messages,
            unseen=row.unseen,
            recent=row.recent,
            uid_next=row.uid_next,
            uid_validity=row.uid_validity,
            highest_modseq=row.modseq,
            size=row.size,
        )

    async def columns(self, uids: UIDSet) -> Columns:
        if not self._row.messages and self._store.is_current():
            return Columns()
        return self._looked(await self._store.readers.do(loading.columns, self._row.id, uids))

    async def outlines(self, uids: UIDSet) -> Sequence[Outlined]:
        row, found = await self._store.readers.do(reading.outlines, self._row.id, uids)
        self._compare(row)
        return found

    async def records(self, uids: UIDSet) -> Records:
        fresh = self._store.fresh.records(self._row.id, uids) if uids else None
        if fresh is not None:
            return fresh
        row, found = await self._store.readers.do(reading.records, self._row.id, uids)
        self._compare(row)
        return found

    async def derived(self, kinds: Collection[str], blocks: UIDSet) -> Sequence[Derived]:
        if self._store.fresh.has(self._row.id, (blocks.first - 1) * BLOCK + 1, blocks.last * BLOCK):
            # Of what has just come in nothing was kept, or others kept it.
            return []
        row, found = await self._store.readers.do(reading.derived, self._row.id, kinds, blocks)
        self._compare(row)
        return found

    async def content(self, uid: int) -> SQLiteContent:
        store, row, ahead = self._store, self._row, self._ahead
        known = ahead.body(uid) if ahead is not None else None
        if known is not None:
            return SQLiteContent(store.readers, known, None)
        more = ahead.more(uid) if ahead is not None else AHEAD
        body, data, ahead = await store.readers.do(reading.content, row.id, uid, more, store.files)
        self._look_ahead(row, ahead)
        return SQLiteContent(store.readers, body, data)

    async def contents(self, uids: UIDSet, limit: int) -> Sequence[tuple[int, bytes]]:
        store, row, ahead = self._store, self._row, self._ahead
        known = ahead.contents(uids, limit) if ahead is not None else None
        if known is not None or not uids:
            return known or ()
        more = ahead.more(uids.first) if ahead is not None else AHEAD
        found, ahead = await store.readers.do(reading.contents, row.id, uids, limit, more, store.files)
        self._look_ahead(row, ahead)
        return found

    def _look_ahead(self, row: MailboxRow, ahead: Ahead | None) -> None:
        """Keep what was looked up, unless something has changed since."""
        self._ahead = ahead if self._row is row and not self._gone else None

    async def changes(self, since: int) -> Changes:
        row = self._row
        if since >= row.modseq and self._store.is_current():
            return Changes(row.modseq, Columns())
        found = self._looked(await self._store.readers.do(loading.changes, row.id, since))
        if found is None:
            # Deleted: to those who have it open, all its messages vanish.
            row = self._row
            return Changes(row.modseq, Columns(), UIDSet(((1, row.uid_next - 1),)))
        return found

    def watch(self, hint: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._hints[key] = hint
        self._store.watched(self, True)

        def stop() -> None:
            if self._hints.pop(key, None) is not None and not self._hints:
                self._store.watched(self, False)

        return stop

    # Changing

    async def append(self, messages: Sequence[NewMessage]) -> Sequence[int]:
        number = self._row.id

        def act(txn: Transaction, places: Places) -> list[int]:
            row = txn.box(number)
            return txn.append([(row, message) for message in messages], places)

        uids = await self._store.write(act, [message.body for message in messages])
        for uid, message in zip(uids, messages, strict=True):
            self._store.fresh.add(number, uid, message.body.outline)
        return uids

    async def set_flags(
        self, uids: UIDSet, change: FlagChange, unchanged_since: int | None = None
    ) -> FlagsSet:
        number = self._row.id
        if self._gone or not uids:
            return FlagsSet(Columns())
        return await self._store.write(
            lambda txn, _: txn.set_flags(txn.box(number), uids, change, unchanged_since)
        )

    async def expunge(self, uids: UIDSet, deleted_only: bool = True) -> UIDSet:
        number = self._row.id
        if self._gone or not uids:
            return NOTHING
        return await self._store.write(lambda txn, _: txn.expunge(txn.box(number), uids, deleted_only))

    async def copy(self, uids: UIDSet, destination: str) -> Copied:
        return await self._transfer(Transaction.copy, uids, destination)

    async def move(self, uids: UIDSet, destination: str) -> Copied:
        return await self._transfer(Transaction.move, uids, destination)

    async def keep_derived(self, some: Sequence[Derived]) -> None:
        number = self._row.id
        await self._store.write(lambda txn, _: txn.keep_derived(number, some), lazy=True)
        self._store.fresh.forget(number)

    async def claim_recent(self) -> UIDSet:
        await self._store.catch_up()
        row = self._row
        if self._gone or row.recent_from == row.uid_next:
            return NOTHING
        number = row.id
        # A claim lost in a crash makes a message recent twice, which RFC 3501 §2.3.2 lives with.
        return await self._store.write(lambda txn, _: txn.claim_recent(txn.box(number)), lazy=True)

    # Beneath them

    async def _transfer(
        self,
        act: Callable[[Transaction, MailboxRow, UIDSet, MailboxRow], Copied],
        uids: UIDSet,
        destination: str,
    ) -> Copied:
        number, account = self._row.id, self._row.account

        def transfer(txn: Transaction, _: Places) -> Copied:
            target = txn.box_named(account, destination)
            return act(txn, txn.box(number), uids, target)

        return await self._store.write(transfer)

    def _looked(self, found: loading.Found[T]) -> T:
        """What was read; if that was much work, the next time shall be less."""
        self._compare(found.row)
        self._effort += found.effort
        if self._effort >= MOST_EFFORT and self._row.messages >= MOST_EFFORT:
            self._effort = 0
            self._store.take_snapshot_later(self._row.id)
        return found.result

    def _compare(self, row: MailboxRow | None) -> None:
        """The row as it was just read."""
        if row is None:
            self.close()
        elif self.advance(row):
            # Another process was faster than the poll.
            self.tell()

    def advance(self, row: MailboxRow) -> bool:
        """Take this row if it is newer; True if there is something that `changes` tells."""
        old = self._row
        if row.version <= old.version or self._gone:
            return False
        self._row = row
        self.keywords = row.keywords
        # What was expunged must not be found any more.
        self._ahead = None
        if row.uid_next - old.uid_next != row.messages - old.messages:
            self._store.fresh.forget(row.id)
        return row.modseq != old.modseq

    def close(self) -> None:
        """The mailbox was deleted."""
        if not self._gone:
            self._gone = True
            self._ahead = None
            row = self._row
            row.modseq += 1
            row.messages = row.unseen = row.recent = row.size = 0
            row.recent_from = row.uid_next
            self.tell()

    def tell(self) -> None:
        for hint in list(self._hints.values()):
            try:
                hint()
            except Exception:
                self._store.log.failure("A watcher of a mailbox failed")


@implementer(IMailAccount)
class SQLiteAccount:
    """See `IMailAccount`."""

    abilities: frozenset[InterfaceClass] = frozenset(
        (ICommitsTogether, IMovesMessages, IReadsMany, IReadsOutlines, IKeepsDerived, IClaimsRecent)
    )

    def __init__(self, store: SQLiteStore, number: int, name: str) -> None:
        self.name = name
        self._store = store
        self._number = number

    async def mailboxes(self) -> Sequence[MailboxInfo]:
        return await self._store.readers.do(reading.mailboxes, self._number)

    async def open(self, name: str) -> SQLiteMailbox:
        return await self._store.open(self._number, name)

    async def create(self, name: str, special_use: str | None = None) -> None:
        await self._store.write(lambda txn, _: names.create(txn, self._number, name, special_use))

    async def delete(self, name: str) -> None:
        await self._store.write(lambda txn, _: names.delete(txn, self._number, name))

    async def rename(self, old: str, new: str) -> None:
        await self._store.write(lambda txn, _: names.rename(txn, self._number, old, new))

    async def subscribe(self, name: str, subscribed: bool) -> None:
        await self._store.write(lambda txn, _: names.subscribe(txn, self._number, name, subscribed))


@implementer(IMailStore, ICommitsTogether, IVerifiable)
class SQLiteStore:
    """
    See `IMailStore`.  Several processes may have the same directory open.

    Args:
        directory: made if it is missing; a file system that other processes on this
            machine see as one, with working locks (not NFS).
        reactor: provides IReactorTime and IReactorFromThreads.
        clock: seconds since 1970; a new mailbox's UIDVALIDITY is this or, if the store has
            given that already, the next number.
        roll: octets after which a new pack is begun.
        few: bodies of no more octets together go into the index first.
        waiting: octets of those that are moved to a pack together.
        disk: what writes message bytes.
        poll: how often watched mailboxes are compared with what other processes did.
    """

    log = Logger()

    def __init__(
        self,
        directory: str,
        reactor: Any,
        *,
        clock: Callable[[], float] = time.time,
        roll: int = ROLL,
        few: int = FEW,
        waiting: int = WAITING,
        disk: Disk | None = None,
        poll: float = POLL,
    ) -> None:
        self.directory = directory
        self._reactor = reactor
        self._clock = clock
        self._roll = roll
        self._few = few
        self._waiting = waiting
        self._disk = disk or Disk()
        self._poll = poll
        self._lock = -1
        self.queue = SQLiteQueue(self)
        self.fresh = Fresh()
        self._accounts: dict[str, int] = {}
        # Ids of accounts only ever grow: up to this one all that are there are known.
        self._newest = 0
        self._looked = 0.0
        self._recent: OrderedDict[tuple[int, str], SQLiteMailbox] = OrderedDict()
        self._live: WeakValueDictionary[int, SQLiteMailbox] = WeakValueDictionary()
        self._watched: set[object] = set()
        self._poll_call: Any = None
        self._snapshot_calls: dict[int, Any] = {}
        # What we know of other processes' commits: see is_current.
        self._absorbed = 0
        self._absorbed_foreign = 0
        self._own_accounts = 0
        self._renamings = 0

    # Life

    async def start(self) -> None:
        self.files = OpenFiles(self.directory)
        self.readers = Readers(self.directory, self._reactor)
        self._writer = Writer(
            self.directory,
            self._reactor,
            self._published,
            clock=self._clock,
            disk=self._disk,
            roll=self._roll,
            few=self._few,
            most_waiting=self._waiting,
        )
        self.readers.start()
        try:
            await self.readers.call(self._open)
        except BaseException:
            self.readers.stop()
            self._close_lock()
            raise
        self._writer.start()
        self.queue.begin()

    def _open(self) -> None:
        """In a thread: everything that `start` does on disk."""
        try:
            for name in ("", PACKS, LARGE):
                path = os.path.join(self.directory, name)
                if not os.path.isdir(path):
                    os.makedirs(path, 0o700, exist_ok=True)
                    self._disk.sync_directory(os.path.dirname(path.rstrip("/")) or ".")
            alone = self._take_lock()
            prepare(self.directory)
            self._disk.sync_directory(self.directory)
            self._watch = connect(self.directory, wait=0)
            if alone:
                self._remove_garbage()
            self._writer.open(bury=alone)
            self._absorbed, _, self._accounts, _ = reading.news(self._watch, (), 0)
            self._newest = max(self._accounts.values(), default=0)
            self.readers.prepare()
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        except PermissionError as error:
            raise DataDirectoryError(f"{self.directory} cannot be used: {error.strerror}") from error
        except OSError as error:
            raise StorageFull(reason=str(error)) from error
        except sqlite3.Error as error:
            if is_full(error):
                raise StorageFull(reason=str(error)) from error
            raise DataDirectoryError(f"{self.directory} cannot be used: {error}") from error

    def _take_lock(self) -> bool:
        """Be among those who use the directory; True if nobody else is, and until we say so."""
        self._lock = os.open(os.path.join(self.directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            return False
        return True

    def _close_lock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _remove_garbage(self) -> None:
        """Files that a crash left without a row.  Nobody else is here who could be about to write one."""
        known = {name for (name,) in self._watch.execute("SELECT name FROM files")}
        for folder in (PACKS, LARGE):
            for entry in os.listdir(os.path.join(self.directory, folder)):
                if f"{folder}/{entry}" not in known:
                    os.unlink(os.path.join(self.directory, folder, entry))

    async def verify(self) -> Sequence[str]:
        return await self.readers.do(verify.problems, self.directory)

    async def stop(self) -> None:
        if self._poll_call is not None:
            self._poll_call.cancel()
            self._poll_call = None
        for call in self._snapshot_calls.values():
            call.cancel()
        self._snapshot_calls.clear()
        await self._writer.stop()
        self.readers.stop()
        self._watch.close()
        self.files.close()
        self._recent.clear()
        self._live.clear()
        self._watched.clear()
        self._close_lock()

    # Accounts

    async def accounts(self) -> Sequence[str]:
        await self.catch_up()
        return sorted(self._accounts)

    async def has_account(self, name: str) -> bool:
        if name in self._accounts and self._reactor.seconds() - self._looked < self._poll:
            # If another process removed it just now, the commit will say so.
            return True
        await self.catch_up()
        return name in self._accounts

    async def account(self, name: str) -> SQLiteAccount:
        await self.catch_up()
        number = self._accounts.get(name)
        if number is None:
            raise NoSuchAccount()
        return SQLiteAccount(self, number, name)

    async def create_account(self, name: str) -> None:
        await self.write(lambda txn, _: names.create_account(txn, name))

    async def remove_account(self, name: str) -> None:
        await self.write(lambda txn, _: names.remove_account(txn, name))

    async def commit(
        self,
        deliveries: Sequence[Delivery],
        items: Sequence[NewItem] = (),
        results: Sequence[Settled] = (),
    ) -> tuple[Sequence[int], Sequence[int]]:
        taken = self.queue.taken(results)

        def act(txn: Transaction, places: Places) -> tuple[list[int], list[int], list[int]]:
            targets = [(txn.find(item.account, item.mailbox), item.message) for item in deliveries]
            uids, ids = txn.append(targets, places), queue_ledger.add(txn, items, places)
            queue_ledger.settle(txn, results, taken, (), places)
            return uids, ids, [row.id for row, _ in targets]

        bodies = [item.message.body for item in deliveries]
        uids, ids, mailboxes = await self.write(act, bodies + [new.body for new in items])
        for mailbox, uid, item in zip(mailboxes, uids, deliveries, strict=True):
            self.fresh.add(mailbox, uid, item.message.body.outline)
        self.queue.settled(results)
        return uids, ids

    # For the mailboxes

    def write(
        self,
        act: Callable[[Transaction, Places], T],
        bodies: Sequence[Any] = (),
        lazy: bool = False,
    ) -> Deferred[T]:
        """See `Writer.do`."""
        return self._writer.do(act, bodies, lazy)

    def take_snapshot_later(self, mailbox: int) -> None:
        """`take_snapshot`, after `REST`."""

        def take() -> None:
            del self._snapshot_calls[mailbox]
            Deferred.fromCoroutine(self.take_snapshot(mailbox)).addErrback(
                lambda failure: self.log.failure("A snapshot of a mailbox could not be taken", failure)
            )

        if mailbox not in self._snapshot_calls:
            self._snapshot_calls[mailbox] = self._reactor.callLater(REST, take)

    async def take_snapshot(self, mailbox: int) -> None:
        """Bring a mailbox's snapshot up to date, a piece at a time, so that nobody waits for it long."""
        try:
            outdated = await self.readers.do(loading.outdated, mailbox)
            modseq = outdated.modseq
            for number, runs in outdated.pieces.items():
                await self._take_piece(mailbox, modseq, number, runs)
            await self.write(lambda txn, _: snapshot.claim(txn, mailbox, modseq, outdated.all), lazy=True)
        except (NoSuchMailbox, StorageFull):
            # It can be done without.
            return

    async def _take_piece(self, mailbox: int, modseq: int, number: int, runs: Sequence[Run]) -> None:
        packed = await self.readers.do(loading.piece, mailbox, number, runs)
        await self.write(lambda txn, _: snapshot.keep(txn, mailbox, modseq, number, packed), lazy=True)

    async def open(self, account: int, name: str) -> SQLiteMailbox:
        """
        Raises:
            NoSuchMailbox
        """
        await self.catch_up()
        mailbox = self._recent.get((account, name))
        if mailbox is None:
            renamings = self._renamings
            row = await self.readers.do(reading.mailbox_named, account, name)
            if row is None:
                raise NoSuchMailbox()
            mailbox = self._live_one(row)
            if renamings == self._renamings:
                self._recent[account, name] = mailbox
                if len(self._recent) > MOST_RECENT:
                    self._recent.popitem(last=False)
        else:
            self._recent.move_to_end((account, name))
        return mailbox

    def _live_one(self, row: MailboxRow) -> SQLiteMailbox:
        """The one object for a mailbox."""
        mailbox = self._live.get(row.id)
        if mailbox is None:
            mailbox = self._live[row.id] = SQLiteMailbox(self, row)
        elif mailbox.advance(row):
            mailbox.tell()
        return mailbox

    def watched(self, watcher: object, watched: bool) -> None:
        """Somebody watches this mailbox or the queue, or nobody does any more."""
        if watched:
            self._watched.add(watcher)
            if self._poll_call is None:
                self._poll_call = self._reactor.callLater(self._poll, self._look)
        else:
            self._watched.discard(watcher)

    # What other processes do

    def is_current(self) -> bool:
        """Whether what we have in memory is what the store says: one look, without a thread."""
        try:
            (commits,) = self._watch.execute("SELECT commits FROM store").fetchone()
        except sqlite3.Error:
            return False
        # Our own may be counted already and not yet there to be seen.
        if commits > max(self._writer.commits, self._absorbed):
            return False
        # Looked at last, as the writer sets it first.
        if self._writer.foreign != self._absorbed_foreign:
            return False
        self._looked = self._reactor.seconds()
        return True

    async def catch_up(self) -> None:
        """Read again what other processes changed, if they did."""
        if self.is_current():
            return
        newest = self._newest
        while True:
            foreign, own = self._writer.foreign, self._own_accounts
            numbers = list(self._live.keys())
            commits, rows, accounts, count = await self.readers.do(reading.news, numbers, newest)
            if commits < self._absorbed:
                # Somebody else read later.
                break
            if own != self._own_accounts:
                # Accounts came or went through us meanwhile, which this reading may not know.
                continue
            known = self._accounts if newest else {}
            if len(known) + sum(name not in known for name in accounts) != count:
                # Some are gone, and only a look at all says which.
                newest = 0
                continue
            known.update(accounts)
            self._accounts = known
            self._newest = max(self._newest, *accounts.values(), 0)
            self._absorbed = commits
            self._absorbed_foreign = foreign
            self._looked = self._reactor.seconds()
            break
        self._forget_names()
        self._advance(rows)
        there = {row.id for row in rows}
        for number in numbers:
            if number not in there and (mailbox := self._live.get(number)) is not None:
                mailbox.close()
        self.queue.tell()

    def _look(self) -> None:
        self._poll_call = None
        if self._watched:
            self._poll_call = self._reactor.callLater(self._poll, self._look)
            if not self.is_current():
                Deferred.fromCoroutine(self.catch_up()).addErrback(
                    lambda failure: self.log.failure("Looking for other processes' changes failed", failure)
                )

    def _published(self, published: Published) -> None:
        """Our own commit, in the reactor's thread."""
        self._own_accounts += len(published.accounts)
        for name, number in published.accounts.items():
            if number is not None:
                self._accounts[name] = number
            else:
                self._accounts.pop(name, None)
        if published.renamed:
            self._forget_names()
        self.files.forget(published.files)
        self._advance(published.rows)
        for number in published.gone:
            self.fresh.forget(number)
            if (mailbox := self._live.get(number)) is not None:
                mailbox.close()
        if published.queued:
            self.queue.tell()

    def _forget_names(self) -> None:
        """Mailboxes found by name may have another name by now."""
        self._renamings += 1
        self._recent.clear()

    def _advance(self, rows: Sequence[MailboxRow]) -> None:
        told = [
            mailbox
            for row in rows
            if (mailbox := self._live.get(row.id)) is not None and mailbox.advance(row)
        ]
        for mailbox in told:
            mailbox.tell()
