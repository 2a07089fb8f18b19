"""
The one thread that changes the embedded store: everything waiting is committed together.

An operation is an act on a transaction, with the bodies it needs written first.  The
thread takes all that wait, writes their bodies with one sync, lets each act, commits with
one more sync, and then wakes everybody with one call into the reactor.  A few small bodies go
into the index, and one sync does for all.  No operation
waits for a timer: a batch is what gathered while the last one was written.

If the disk fails, the batch counts as not written and its operations are told so; the
thread goes on with the next.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailplat.errors import MailError, StorageFull
from mailplat.storage import waiting
from mailplat.storage.ledger import Known, MailboxRow, Transaction
from mailplat.storage.packs import Disk, PackWriter, Place
from mailplat.storage.schema import connect, has_no_room, is_full

T = TypeVar("T")

Places = dict[int, Place | Exception]

#: What one batch holds at most, so that the first in it need not wait for a long tail.
MOST_OPERATIONS = 512
MOST_OCTETS = 16 * 1024 * 1024

#: Mailboxes that are not read again from one transaction to the next.
MOST_KNOWN = 4096


class Operation:
    """
    An act waiting to be committed.

    Attributes:
        lazy: need not be durable before it is answered.
        cancelled: nobody waits for it any more; if it has not begun it never will.
    """

    __slots__ = ("act", "bodies", "cancelled", "deferred", "error", "lazy", "result")

    def __init__(self, act: Callable[[Transaction, Places], Any], bodies: Sequence[Any], lazy: bool) -> None:
        self.act = act
        self.bodies = bodies
        self.lazy = lazy
        self.cancelled = False
        self.deferred: Deferred[Any] = Deferred(self._cancel)
        self.result: Any = None
        self.error: BaseException | None = None

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled = True


@dataclass(slots=True)
class Published:
    """
    What a commit changed, for those who keep it in memory.

    Attributes:
        rows: mailboxes as they are now.
        gone: ids of mailboxes deleted.
        accounts: name -> its id, None if it is gone.
    renamed: mailboxes or accounts were made, renamed or removed.
        files: rows of files that are being removed.
        queued: something was added to the queue or changed in it.
    """

    rows: list[MailboxRow] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    accounts: dict[str, int | None] = field(default_factory=dict)
    renamed: bool = False
    files: list[int] = field(default_factory=list)
    queued: bool = False


class Writer:
    """
    Args:
        directory: the store's, made and prepared.
        reactor: provides IReactorFromThreads.
        publish: called in the reactor thread after each commit, before its operations are
            answered.
        clock: seconds since 1970; only the first UIDVALIDITY depends on it.

    Attributes:
        commits: the store's commit counter as this process last left it, or is about to.
        foreign: how often another process was found to have committed in between.
    """

    _log = Logger()

    def __init__(
        self,
        directory: str,
        reactor: Any,
        publish: Callable[[Published], None],
        *,
        clock: Callable[[], float],
        disk: Disk,
        roll: int,
        few: int,
        most_waiting: int,
    ) -> None:
        self._directory = directory
        self._reactor = reactor
        self._publish = publish
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._synchronous = True
        self.packs = PackWriter(directory, disk, self._candidates, roll, few)
        self._most_waiting = most_waiting
        self.commits = 0
        self.foreign = 0
        self._known = Known()
        self._waiting = 0  # octets that wait in the index, those of other processes not counted
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._stopped: Deferred[None] = Deferred()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="mailplat-writer", daemon=True)

    def open(self, bury: bool) -> None:
        """
        Before `start`, in any thread.

        Args:
            bury: also remove what earlier runs left dead.
        """
        connection = self._open()
        (self.commits,) = connection.execute("SELECT commits FROM store").fetchone()
        self._waiting = waiting.octets(connection)
        if bury and connection.execute("SELECT 1 FROM files WHERE bodies <= 0").fetchone():
            self._commit([Operation(lambda txn, _: txn.bury(), (), True)])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> Deferred[None]:
        """Fires when everything given before is committed and the thread has ended."""
        self._stopping = True
        self._queue.put(None)
        return self._stopped

    def do(
        self, act: Callable[[Transaction, Places], T], bodies: Sequence[Any] = (), lazy: bool = False
    ) -> Deferred[T]:
        """
        Have `act(transaction, places of the bodies)` done.  In the reactor thread.

        Fails with what the act raises, or with StorageFull.
        """
        operation = Operation(act, bodies, lazy)
        if self._stopping:
            operation.deferred.errback(StorageFull(reason="the store is stopped"))
        else:
            self._queue.put(operation)
        return operation.deferred

    # In the thread

    def _run(self) -> None:
        ended = False
        while not ended:
            batch: list[Operation] = []
            octets = 0
            try:
                operation = self._queue.get()
                while True:
                    if operation is None:
                        ended = True
                        break
                    if not operation.cancelled:
                        batch.append(operation)
                        octets += sum(body.size for body in operation.bodies)
                    if len(batch) >= MOST_OPERATIONS or octets >= MOST_OCTETS:
                        break
                    operation = self._queue.get_nowait()
            except queue.Empty:
                pass
            if batch:
                self._write(batch)
            if self._waiting >= self._most_waiting:
                self._gather()
        self.packs.close()
        if self._connection is not None:
            self._connection.close()
        self._reactor.callFromThread(self._end)

    def _gather(self) -> None:
        """Move the bodies that wait in the index to a pack."""
        try:
            connection = self._connection or self._open()
            bodies = waiting.oldest(connection)
            # Counted anew: what is left counts, that of other processes too.
            self._waiting = waiting.octets(connection) - sum(body.size for body in bodies)
        except sqlite3.Error:
            self._waiting = 0
            self._reopen()
            return
        # It need not be durable: if it is lost, they wait as before.
        gathering = Operation(lambda txn, places: waiting.move(txn, bodies, places), bodies, True)
        gathering.deferred.addErrback(
            lambda failure: self._log.info("Bodies stay in the index: {error}", error=str(failure.value))
        )
        # By itself: nobody's mail is refused because a pack cannot be written.
        self._write([gathering], moved=True)

    def _end(self) -> None:
        # The thread has nothing left to do but return.
        self._thread.join()
        self._stopped.callback(None)

    def _write(self, batch: list[Operation], moved: bool = False) -> None:
        published = Published()
        try:
            published = self._commit(batch, moved)
        except OSError as error:
            self._refuse(batch, error)
        except sqlite3.Error as error:
            self._reopen()
            self._refuse(batch, error)
        except BaseException as error:
            self._reopen()
            for operation in batch:
                operation.error = error
        self._reactor.callFromThread(self._wake, batch, published)

    def _refuse(self, batch: list[Operation], error: Exception) -> None:
        for operation in batch:
            operation.error = StorageFull(reason=str(error))

    def _wake(self, batch: list[Operation], published: Published) -> None:
        self._publish(published)
        for operation in batch:
            if operation.deferred.called:
                continue
            if operation.error is not None:
                operation.deferred.errback(operation.error)
            else:
                operation.deferred.callback(operation.result)

    def _commit(self, batch: list[Operation], moved: bool = False) -> Published:
        """
        Do the batch in one transaction.

        Args:
            moved: its bodies come from the index.

        Raises:
            OSError, sqlite3.Error: nothing of it was done.
        """
        bodies = [body for operation in batch for body in operation.bodies]
        places = self.packs.place(bodies, moved) if bodies else {}
        kept = False
        try:
            published = Published()
            transaction = self._begin(all(operation.lazy for operation in batch))
            try:
                intact = self._act(transaction, batch, places)
                if intact:
                    self._end_transaction(transaction, published)
                    kept = True
            except BaseException:
                self._roll_back(transaction)
                raise
            if not intact:
                # Something failed half way, which none should: each by itself, so that it
                # fails alone.
                self._roll_back(transaction)
                for operation in batch:
                    operation.result = operation.error = None
                    transaction = self._begin(operation.lazy)
                    try:
                        if self._act(transaction, [operation], places) and operation.error is None:
                            self._end_transaction(transaction, published)
                            kept = True
                        else:
                            self._roll_back(transaction)
                    except Exception as error:
                        self._roll_back(transaction)
                        operation.error = StorageFull(reason=str(error))
            return published
        finally:
            self.packs.settle(kept)

    def _begin(self, lazy: bool) -> Transaction:
        connection = self._connection or self._open()
        if lazy is self._synchronous:
            # Not possible inside a transaction.
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if lazy else 'FULL'}")
            self._synchronous = not lazy
        connection.execute("BEGIN IMMEDIATE")
        (commits,) = connection.execute("UPDATE store SET commits = commits + 1 RETURNING commits").fetchone()
        if commits != self.commits + 1 or len(self._known.boxes) > MOST_KNOWN:
            self._known = Known()
        return Transaction(connection, self.packs.may_remove, int(self._clock()), commits, self._known)

    def _act(self, transaction: Transaction, batch: list[Operation], places: Places) -> bool:
        """Let each act; False if one failed after it had begun to change something."""
        for operation in batch:
            before = transaction.changes
            try:
                operation.result = operation.act(transaction, places)
            except (MailError, OSError, ValueError) as error:
                operation.error = error
                if transaction.changes != before:
                    return False
            except sqlite3.Error as error:
                if is_full(error):
                    raise
                operation.error = error
                return False
            except Exception as error:
                operation.error = error
                return False
        return True

    def _end_transaction(self, transaction: Transaction, published: Published) -> None:
        transaction.finish()
        connection = transaction.connection
        before = self.commits
        # In this order, and before anybody can see the commit: who compares the counter must not
        # miss that others were there, nor take what is our own for theirs.
        if transaction.commits != before + 1:
            self.foreign += 1
        self.commits = transaction.commits
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self.commits = before
            # Without room for its last page it is no commit.  If it was written and not synced, it
            # may come to light after a crash.
            if not has_no_room(error):
                self.packs.doubt()
            raise
        for _, name, descriptor in transaction.dead:
            self.packs.remove(name)
            if descriptor >= 0:
                os.close(descriptor)
        self._waiting += transaction.waiting
        published.rows += transaction.changed()
        published.gone |= transaction.gone
        published.accounts |= transaction.accounts
        published.renamed |= transaction.renamed
        published.files += [row for row, _, _ in transaction.dead]
        published.queued |= transaction.queued

    def _roll_back(self, transaction: Transaction) -> None:
        self._known = Known()
        for file in transaction.inserted:
            file.row = None
        for _, _, descriptor in transaction.dead:
            if descriptor >= 0:
                os.close(descriptor)
        try:
            if transaction.connection.in_transaction:
                transaction.connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._reopen()

    def _open(self) -> sqlite3.Connection:
        self._connection = connect(self._directory)
        self._synchronous = True
        # Longer than the default: what is overwritten soon need not be copied each time.
        self._connection.execute("PRAGMA wal_autocheckpoint = 4000")
        self._connection.execute("PRAGMA cache_size = -16000")
        return self._connection

    def _reopen(self) -> None:
        """What the connection believes about the disk may be wrong: the next batch gets a new one."""
        connection, self._connection = self._connection, None
        self._known = Known()
        try:
            if connection is not None:
                connection.close()
        except sqlite3.Error:
            self._log.failure("Closing the index after an error failed")

    def _candidates(self) -> list[tuple[int, str]]:
        connection = self._connection or self._open()
        return connection.execute(
            "SELECT id, name FROM files WHERE id > 0 AND NOT large ORDER BY id DESC LIMIT 4"
        ).fetchall()
