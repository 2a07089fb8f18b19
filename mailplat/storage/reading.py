"""
How the embedded store is read: functions over a connection, and the threads they run in.

Each function sees one moment of the store, and answers with the mailbox's row of that
moment besides what it was asked for (the row is None if the mailbox was deleted).  Each is
one hop to a thread and back, whatever the number of messages.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from operator import attrgetter
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from mailplat.errors import NoSuchMessage, StorageFull
from mailplat.storage.ledger import MAILBOX, MailboxRow
from mailplat.storage.packs import InIndex, OpenFile, OpenFiles
from mailplat.storage.schema import connect, is_full
from mailplat.uids import Run, UIDSet
from mailplat.values import Derived, MailboxInfo, Outlined, Records

T = TypeVar("T")

#: Messages up to this size are read together with the row that says where they are.
AT_ONCE = 64 * 1024

#: How many messages more than the one that is asked for are looked up, as it takes a thread.
AHEAD = 31

#: And how many at most, for who asks for one after the other or names so many.
MOST_AHEAD = 255

_OUTLINES = (
    "SELECT m.uid, length(c.prefix), b.outline FROM messages AS m "
    "CROSS JOIN copies AS c ON c.id = m.copy CROSS JOIN bodies AS b ON b.id = c.body "
    "WHERE m.mailbox = ? AND m.uid BETWEEN ? AND ? ORDER BY m.uid"
)

# SQLite puts all of them together in one step, which does not need the interpreter's lock; row by row it
# would be taken for each.  They come by ascending UID: that is how the one loop over `messages` goes.
_RECORDS = (
    "SELECT group_concat(m.uid), group_concat(ifnull(length(b.outline), 0)), "
    "CAST(group_concat(ifnull(b.outline, x''), x'') AS BLOB) FROM messages AS m "
    "CROSS JOIN copies AS c ON c.id = m.copy CROSS JOIN bodies AS b ON b.id = c.body "
    "WHERE m.mailbox = ? AND m.uid BETWEEN ? AND ?"
)

_DERIVED = (
    "SELECT kind, block, messages, octets FROM derived "
    "WHERE mailbox = ? AND kind = ? AND block BETWEEN ? AND ? ORDER BY block"
)

_PLACES = (
    "SELECT m.uid, c.prefix, b.id, b.position, b.size, f.id, f.name FROM messages AS m "
    "CROSS JOIN copies AS c ON c.id = m.copy CROSS JOIN bodies AS b ON b.id = c.body "
    "CROSS JOIN files AS f ON f.id = b.file "
    "WHERE m.mailbox = ? AND m.uid BETWEEN ? AND ? ORDER BY m.uid"
)


class Readers:
    """
    A small pool of threads, each call with a connection of its own.

    Args:
        directory: the store's.
        reactor: provides IReactorFromThreads.
        most: threads.
    """

    def __init__(self, directory: str, reactor: Any, most: int = 4) -> None:
        self._directory = directory
        self._reactor = reactor
        self._pool = ThreadPool(0, most, name="mailplat-readers")
        self._idle: list[sqlite3.Connection] = []
        self._waiting: set[Deferred[Any]] = set()

    def start(self) -> None:
        self._pool.start()

    def stop(self) -> None:
        """Waits for the calls under way, which are short."""
        self._pool.stop()
        while self._idle:
            self._idle.pop().close()

    def prepare(self) -> None:
        """In a thread: who first opens a mailbox shall not wait for a connection that can find it."""
        self._call(mailbox_named, (0, ""))

    def do(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """`function(connection, *arguments)` in a thread, within one read transaction."""
        return deferToThreadPool(self._reactor, self._pool, self._call, function, arguments)

    def call(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """`function(*arguments)` in a thread."""
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)

    def _call(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = connect(self._directory)
            try:
                connection.execute("BEGIN")
                result = function(connection, *arguments)
            except BaseException:
                connection.close()
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if is_full(error):
                raise StorageFull(reason=str(error)) from error
            raise
        self._idle.append(connection)
        return result


def news(
    connection: sqlite3.Connection, numbers: Sequence[int], newest: int
) -> tuple[int, list[MailboxRow], dict[str, int], int]:
    """
    What others may have changed.

    Returns:
        the commit counter; the rows of these mailboxes as far as they are there; name -> id of the
        accounts whose ids are greater than `newest`; how many accounts there are in all.
    """
    (commits,) = connection.execute("SELECT commits FROM store").fetchone()
    rows = [row for row in (mailbox(connection, number) for number in numbers) if row is not None]
    accounts = dict(connection.execute("SELECT name, id FROM accounts WHERE id > ?", (newest,)))
    (count,) = connection.execute("SELECT count(*) FROM accounts").fetchone()
    return commits, rows, accounts, count


def mailboxes(connection: sqlite3.Connection, number: int) -> list[MailboxInfo]:
    """See `IMailAccount.mailboxes`."""
    subscribed = {
        name for (name,) in connection.execute("SELECT name FROM subscriptions WHERE account = ?", (number,))
    }
    found = [
        MailboxInfo(name, bool(selectable), name in subscribed, special_use)
        for name, selectable, special_use in connection.execute(
            "SELECT name, selectable, special_use FROM mailboxes WHERE account = ?", (number,)
        )
    ]
    found += [
        MailboxInfo(name, selectable=False, subscribed=True, exists=False)
        for name in subscribed - {info.name for info in found}
    ]
    return sorted(found, key=lambda info: info.name)


def mailbox(connection: sqlite3.Connection, number: int) -> MailboxRow | None:
    """The row of a mailbox."""
    values = connection.execute(f"SELECT {MAILBOX} FROM mailboxes AS m WHERE m.id = ?", (number,)).fetchone()
    return MailboxRow.of(values) if values else None


def mailbox_named(connection: sqlite3.Connection, number: int, name: str) -> MailboxRow | None:
    """The row of an account's selectable mailbox."""
    values = connection.execute(
        f"SELECT {MAILBOX} FROM mailboxes AS m WHERE m.account = ? AND m.name = ? AND m.selectable",
        (number, name),
    ).fetchone()
    return MailboxRow.of(values) if values else None


def outlines(
    connection: sqlite3.Connection, number: int, uids: UIDSet
) -> tuple[MailboxRow | None, list[Outlined]]:
    """See `IMailbox.outlines`."""
    row = mailbox(connection, number)
    return row, [
        Outlined(*values)
        for first, last in _present(row, uids)
        for values in connection.execute(_OUTLINES, (number, first, last))
    ]


def records(
    connection: sqlite3.Connection, number: int, uids: UIDSet
) -> tuple[MailboxRow | None, Records]:
    """See `IReadsOutlines.records`."""
    row = mailbox(connection, number)
    numbers = array("I")
    found: list[bytes] = []
    for first, last in _present(row, uids):
        ((some, lengths, octets),) = connection.execute(_RECORDS, (number, first, last))
        if some is not None:
            numbers.extend(map(int, some.split(",")))
            ends = list(accumulate(map(int, lengths.split(",")), initial=0))
            found += map(octets.__getitem__, map(slice, ends, ends[1:]))
    return row, Records(numbers, found)


def derived(
    connection: sqlite3.Connection, number: int, kinds: Collection[str], blocks: UIDSet
) -> tuple[MailboxRow | None, list[Derived]]:
    """See `IKeepsDerived.derived`."""
    return mailbox(connection, number), [
        Derived(*values)
        for kind in kinds
        for first, last in blocks.runs
        for values in connection.execute(_DERIVED, (number, kind, first, last))
    ]


def _present(row: MailboxRow | None, uids: UIDSet) -> Iterator[Run]:
    """The runs of these UIDs up to the last one that the mailbox gave."""
    if row is not None:
        for first, last in uids.runs:
            if first >= row.uid_next:
                break
            yield first, last


class Body:
    """
    Where a message's bytes are: its prefix, and a range of a file.

    Attributes:
        uid: the message.
        length: its octets, all together.
    """

    __slots__ = ("file", "length", "position", "prefix", "size", "uid")

    def __init__(self, uid: int, prefix: bytes, file: OpenFile | InIndex, position: int, size: int) -> None:
        self.uid = uid
        self.prefix = prefix
        self.file = file
        self.position = position
        self.size = size
        self.length = len(prefix) + size

    def read(self) -> bytes:
        """The whole message."""
        return self.prefix + self.file.read(self.position, self.size)

    def read_now(self) -> bytes | None:
        """The same if it is in memory already, so that it cannot wait; else None."""
        body = self.file.read_now(self.position, self.size)
        return None if body is None else b"".join((self.prefix, body))


def content(
    connection: sqlite3.Connection, number: int, uid: int, more: int, files: OpenFiles
) -> tuple[Body, bytes | None, Ahead]:
    """A message, its bytes if they are few, and where `more` of the next ones are.  Raises NoSuchMessage."""
    uids = UIDSet(((uid, uid + more),))
    bodies = _bodies(connection, number, uids, files)
    body = next(bodies, None)
    if body is None or body.uid != uid:
        raise NoSuchMessage()
    return body, body.read() if body.length <= AT_ONCE else None, Ahead(uids, body, bodies)


def contents(
    connection: sqlite3.Connection, number: int, uids: UIDSet, limit: int, more: int, files: OpenFiles
) -> tuple[list[tuple[int, bytes]], Ahead | None]:
    """See `IReadsMany.contents`; and where the next ones are: what did not fit, and `more` besides."""
    last = uids.last
    uids |= UIDSet(((last + 1, last + more),))
    bodies = _bodies(connection, number, uids, files)
    found: list[tuple[int, bytes]] = []
    for body in bodies:
        limit -= body.length
        if limit < 0 or body.uid > last:
            return found, Ahead(uids, body, bodies)
        found.append((body.uid, body.read()))
    return found, None


class Ahead:
    """
    Where messages are that somebody is going to ask for: some that follow each other in one file, so that
    not more than one is kept open, or in the index, and then with their octets.

    Args:
        uids: what is looked up.
        first: the first message among it that is wanted.
        others: those after it, ascending.
    """

    __slots__ = ("_bodies", "_uids", "_unknown")

    def __init__(self, uids: UIDSet, first: Body, others: Iterator[Body]) -> None:
        self._bodies = [first, *_beside(first, others)]
        # What comes after the last one is not known.
        last = self._bodies[-1].uid
        self._uids = uids & UIDSet(((first.uid, last),))
        self._unknown = UIDSet(((1, last),)) - self._uids

    def body(self, uid: int) -> Body | None:
        """A message; None if it is not known."""
        index = bisect_left(self._bodies, uid, key=_uid)
        found = index < len(self._bodies) and self._bodies[index].uid == uid
        return self._bodies[index] if found else None

    def more(self, uid: int) -> int:
        """How many messages to look up beside this one: more of them the more were asked for in a row."""
        following = self._uids.first < uid <= self._uids.last + AHEAD
        return min(4 * len(self._bodies), MOST_AHEAD) if following else AHEAD

    def contents(self, uids: UIDSet, limit: int) -> list[tuple[int, bytes]] | None:
        """As `contents`, without waiting for a disk; None if more has to be known or read for that."""
        if uids & self._unknown:
            return None
        chosen: list[Body] = []
        for first, last in uids.runs:
            start = bisect_left(self._bodies, first, key=_uid)
            for body in self._bodies[start : bisect_right(self._bodies, last, start, key=_uid)]:
                limit -= body.length
                if limit < 0:
                    return _read_now(chosen)
                chosen.append(body)
        return _read_now(chosen) if uids.last <= self._uids.last else None


_uid = attrgetter("uid")


def _read_now(bodies: Iterable[Body]) -> list[tuple[int, bytes]] | None:
    """(uid, prefix and body) of each; None if some are not in memory, and would have to be waited for."""
    found: list[tuple[int, bytes]] = []
    for some in _adjacent(bodies):
        start = some[0].position
        octets = some[0].file.read_now(start, some[-1].position + some[-1].size - start)
        if octets is None:
            return None
        view = memoryview(octets)
        for body in some:
            begin = body.position - start
            found.append((body.uid, b"".join((body.prefix, view[begin : begin + body.size]))))
    return found


def _adjacent(bodies: Iterable[Body]) -> Iterator[list[Body]]:
    """Those that lie one behind the other in a file, together: one read is enough for them."""
    some: list[Body] = []
    for body in bodies:
        if some and (body.file is not some[-1].file or body.position != some[-1].position + some[-1].size):
            yield some
            some = []
        some.append(body)
    if some:
        yield some


def _beside(first: Body, others: Iterator[Body]) -> Iterator[Body]:
    """Those that may be kept together with the first one."""
    file = first.file
    room = AT_ONCE
    for body in islice(others, MOST_AHEAD):
        if isinstance(body.file, InIndex):
            room -= body.size
            if room < 0:
                break
        elif isinstance(file, InIndex):
            file = body.file
        elif body.file is not file:
            break
        yield body


def held(connection: sqlite3.Connection, body: int) -> InIndex:
    """A body that waits in the index."""
    (data,) = connection.execute("SELECT data FROM waiting WHERE body = ?", (body,)).fetchone()
    return InIndex(data)


def _bodies(connection: sqlite3.Connection, number: int, uids: UIDSet, files: OpenFiles) -> Iterator[Body]:
    for first, last in uids.runs:
        rows = connection.execute(_PLACES, (number, first, last))
        for uid, prefix, body, position, size, file, name in rows:
            try:
                there = files.get(file, name) if file else held(connection, body)
                yield Body(uid, prefix, there, position, size)
            except FileNotFoundError:
                # Removed while this transaction still sees its row: the message is expunged.
                continue
