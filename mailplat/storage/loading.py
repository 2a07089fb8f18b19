"""
How the columns of the embedded store's mailboxes are read: row by row, and large ones from a snapshot.

A snapshot (`storage/snapshot`) is a copy of the rows as they once were.  What may have changed
since is known from the change log or, where that begins later, from a look at all rows that stays
within SQLite; only this is read from the rows, and takes its place in the copy.

Each function is to be called within a read transaction, as those of `storage/reading`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mailplat.storage import snapshot
from mailplat.storage.ledger import EXPUNGED, MailboxRow, columns_of
from mailplat.storage.reading import mailbox
from mailplat.uids import LARGEST, Run, UIDSet
from mailplat.values import Changes, Columns

T = TypeVar("T")

#: Rows that are Python's objects at the same time, on their way into arrays.
AT_ONCE = 8192

#: A piece of a snapshot in which more runs of UIDs may have changed is read from its rows as a whole.
MOST_RUNS = 512

_ROWS = (
    "SELECT uid, flags, modseq, size, date FROM messages "
    "WHERE mailbox = ? AND uid BETWEEN ? AND ? ORDER BY uid"
)
_NEWEST = (
    "SELECT uid FROM messages WHERE mailbox = ? AND uid BETWEEN ? AND ? AND modseq <= ? "
    "ORDER BY uid DESC LIMIT 1"
)
_NEXT = "SELECT uid FROM messages WHERE mailbox = ? AND uid >= ? ORDER BY uid LIMIT 1"
_PIECES = "SELECT uid >> ? AS piece, max(modseq), count(*) FROM messages WHERE mailbox = ? GROUP BY piece"
_LOG = "SELECT kind, uids FROM changes WHERE mailbox = ? AND modseq > ?"

#: Number of a piece -> the runs of UIDs in it that may differ from the rows.
Differing = dict[int, list[Run]]


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """
    What was read.

    Attributes:
        row: of the mailbox, of the same moment; None if it was deleted.
        result: what was asked for.
        effort: how many rows and runs of UIDs had to be looked at.
    """

    row: MailboxRow | None
    result: T
    effort: int


@dataclass(frozen=True, slots=True)
class Outdated:
    """
    What makes a mailbox's snapshot hold for a later modseq.

    Attributes:
        modseq: the mailbox's.
        pieces: those that have to be made anew.
        all: there was no snapshot, so that these are all there are.
    """

    modseq: int
    pieces: Differing
    all: bool


def columns(connection: sqlite3.Connection, number: int, uids: UIDSet) -> Found[Columns]:
    """See `IMailbox.columns`."""
    row = mailbox(connection, number)
    if row is None:
        return Found(None, Columns(), 0)
    result, effort = _columns(connection, row, uids)
    return Found(row, result, effort)


def changes(connection: sqlite3.Connection, number: int, since: int) -> Found[Changes | None]:
    """See `IMailbox.changes`; None if the mailbox was deleted."""
    row = mailbox(connection, number)
    if row is None:
        return Found(None, None, 0)
    if since >= row.modseq:
        return Found(row, Changes(row.modseq, Columns()), 0)
    everybody = UIDSet(((1, row.uid_next - 1),))
    if since <= 0:
        result, effort = _columns(connection, row, everybody)
        return Found(row, Changes(row.modseq, result), effort)
    if since < row.log_from:
        # The log begins later.  Rows know their modseq, and who is not there has vanished.
        there, effort = _columns(connection, row, everybody)
        changed = Columns.of(values for values in there.rows() if values[2] > since)
        return Found(row, Changes(row.modseq, changed, everybody - UIDSet.of(there.uids)), effort)
    touched, vanished = _logged(connection, row, since)
    changed, effort = _columns(connection, row, touched - vanished)
    return Found(row, Changes(row.modseq, changed, vanished), effort)


def outdated(connection: sqlite3.Connection, number: int) -> Outdated:
    """What of a mailbox's snapshot is not as the rows are."""
    row = mailbox(connection, number)
    if row is None:
        return Outdated(0, {}, False)
    since = snapshot.claimed(connection, number)
    if since is not None:
        return Outdated(row.modseq, _differing(connection, row, since)[0], False)
    return Outdated(row.modseq, {which: [snapshot.span(which)] for which in _there(connection, number)}, True)


def piece(connection: sqlite3.Connection, number: int, which: int, runs: Sequence[Run]) -> snapshot.Packed:
    """A piece for a mailbox's snapshot as it is now; `runs` of it may differ from what is kept."""
    return snapshot.pack(_piece(connection, number, which, runs)[0])


def contradicts(connection: sqlite3.Connection, number: int) -> bool:
    """Whether a mailbox's snapshot, brought up to date, says otherwise than its rows."""
    row, since = mailbox(connection, number), snapshot.claimed(connection, number)
    if row is None or since is None:
        return False
    differing, _ = _differing(connection, row, since)
    kept = snapshot.numbers(connection, number)
    for which in {*kept, *differing, *_there(connection, number)}:
        try:
            said, _ = _piece(connection, number, which, differing.get(which, ()))
        except ValueError:
            return True
        if snapshot.pack(said) != snapshot.pack(_rows(connection, number, [snapshot.span(which)])):
            return True
    return since > row.modseq


def _there(connection: sqlite3.Connection, number: int) -> Iterator[int]:
    """The numbers of the pieces in which a mailbox has messages, ascending."""
    uid = 0
    while found := connection.execute(_NEXT, (number, uid)).fetchone():
        which = found[0] >> snapshot.BITS
        yield which
        uid = snapshot.span(which)[1] + 1


def _columns(connection: sqlite3.Connection, row: MailboxRow, uids: UIDSet) -> tuple[Columns, int]:
    """These rows, and how much there was to look at."""
    present = [run for run in uids.runs if run[0] < row.uid_next]
    if present and present[0][0] == 1 and present[0][1] >= row.uid_next - 1:
        since = snapshot.claimed(connection, row.id)
        if since is not None:
            return _brought_up_to_date(connection, row, since)
    found = _rows(connection, row.id, present)
    return found, len(found) + len(present)


def _brought_up_to_date(connection: sqlite3.Connection, row: MailboxRow, since: int) -> tuple[Columns, int]:
    """All rows, from a snapshot that holds for modseq `since`."""
    differing, effort = _differing(connection, row, since)
    anew: dict[int, snapshot.Packed] = {}
    for which, runs in differing.items():
        found, more = _piece(connection, row.id, which, runs)
        anew[which] = snapshot.pack(found)
        effort += more
    return snapshot.whole(connection, row.id, anew), effort


def _piece(
    connection: sqlite3.Connection, number: int, which: int, runs: Sequence[Run]
) -> tuple[Columns, int]:
    """The rows of a piece, and how much there was to look at."""
    if len(runs) > MOST_RUNS:
        runs = [snapshot.span(which)]
    if len(runs) == 1 and runs[0] == snapshot.span(which):
        found = _rows(connection, number, runs)
        return found, len(found)
    found = snapshot.piece(connection, number, which)
    effort = len(runs)
    for first, last in runs:
        rows = _rows(connection, number, ((first, last),))
        found.replace(first, last, rows)
        effort += len(rows)
    return found, effort


def _differing(connection: sqlite3.Connection, row: MailboxRow, since: int) -> tuple[Differing, int]:
    """What may differ from a snapshot that holds for modseq `since`, and how much there was to look at."""
    pieces: Differing = {}
    if since >= row.log_from:
        touched, vanished = _logged(connection, row, since)
        for first, last in _by_piece(touched | vanished):
            pieces.setdefault(first >> snapshot.BITS, []).append((first, last))
        # However few runs they make, each change is a line of the log.
        return pieces, row.modseq - since
    # The log begins later.  A row that is new or was changed has a modseq greater than its piece's, and
    # one that was expunged is missing in the count; it does not come back.
    kept = snapshot.numbers(connection, row.id)
    rows = connection.execute(_PIECES, (snapshot.BITS, row.id))
    there = {number: (modseq, count) for number, modseq, count in rows}
    for number in kept.keys() | there.keys():
        holds_for, messages = kept.get(number, (0, 0))
        newest, count = there.get(number, (0, 0))
        if newest > holds_for or count != messages:
            pieces[number] = [snapshot.span(number)]
    return pieces, row.messages


def _by_piece(uids: UIDSet) -> Iterator[Run]:
    """The runs of these UIDs, cut where pieces of a snapshot end."""
    for first, last in uids.runs:
        while (end := snapshot.span(first >> snapshot.BITS)[1]) < last:
            yield first, end
            first = end + 1
        yield first, last


def _logged(connection: sqlite3.Connection, row: MailboxRow, since: int) -> tuple[UIDSet, UIDSet]:
    """What came or changed after a modseq, and what was expunged."""
    touched: tuple[list[Run], list[Run]] = ([], [])
    for kind, text in connection.execute(_LOG, (row.id, since)):
        for run in text.split(","):
            first, _, last = run.partition(":")
            touched[kind].append((int(first), int(last or first)))
    changed, vanished = UIDSet(touched[1 - EXPUNGED]), UIDSet(touched[EXPUNGED])
    everybody = UIDSet(((1, row.uid_next - 1),))
    return changed | _arrived(connection, row, everybody - changed - vanished, since), vanished


def _arrived(connection: sqlite3.Connection, row: MailboxRow, untouched: UIDSet, since: int) -> UIDSet:
    """Those of these UIDs, all without an entry in the log since then, whose messages came since then."""
    for first, last in reversed(untouched.runs):
        newest = connection.execute(_NEWEST, (row.id, first, last, since)).fetchone()
        if newest is not None:
            # It was here already, and so was everything with a lower UID.
            return untouched & UIDSet(((newest[0] + 1, LARGEST),))
    return untouched


def _rows(connection: sqlite3.Connection, number: int, runs: Iterable[Run]) -> Columns:
    found = Columns()
    waiting: list[tuple[Any, ...]] = []
    for first, last in runs:
        cursor = connection.execute(_ROWS, (number, first, last))
        while True:
            room = AT_ONCE - len(waiting)
            more = cursor.fetchmany(room)
            waiting += more
            if len(more) < room:
                break
            found.extend(columns_of(waiting))
            waiting = []
    found.extend(columns_of(waiting))
    return found
