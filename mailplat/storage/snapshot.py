"""
A mailbox's rows once more, packed as they are in memory, so that a large mailbox opens fast.

The rows of `messages` are the truth, and whoever changes them knows nothing of this copy.  It is in
pieces by UID, and `snapshots` has the modseq that the whole of it holds for: a row that did not
change after it is in the copy as it is, and none is there that was expunged before it.  What changed
later is read from the rows when the mailbox is loaded (`storage/loading`).

The writer brings it up to date piece by piece, one lazy operation each, and says at the end which
modseq now holds.  So every piece is at least as new as the whole claims to be, whatever stops in
between and however many processes do it at the same time; a piece may be newer, as what is read once
more does no harm.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Mapping
from sys import byteorder

from mailplat.storage.ledger import Transaction
from mailplat.uids import Run
from mailplat.values import Columns

#: So many bits of a UID tell messages of one piece apart; the others are its number.  All processes that
#: use a directory must agree on it.
BITS = 13

#: uids, flags, modseqs, sizes, dates, overflow
Packed = tuple[bytes, bytes, bytes, bytes, bytes, str]

# Never by an older one: somebody else may be about to claim more than that.
_KEEP = (
    "INSERT INTO snapshot_pieces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "modseq = excluded.modseq, uids = excluded.uids, flags = excluded.flags, modseqs = excluded.modseqs, "
    "sizes = excluded.sizes, dates = excluded.dates, overflow = excluded.overflow "
    "WHERE excluded.modseq > modseq"
)
_CLAIM = "INSERT OR REPLACE INTO snapshots VALUES (?, ?)"
_PIECE = (
    "SELECT uids, flags, modseqs, sizes, dates, overflow FROM snapshot_pieces WHERE mailbox = ? AND piece = ?"
)


def span(piece: int) -> Run:
    """The first and the last UID that are of a piece."""
    return piece << BITS, (piece + 1 << BITS) - 1


def pack(columns: Columns) -> Packed:
    """What `unpack` takes: each column's octets, little-endian; only one element's if all are equal."""
    uids, flags, modseqs, sizes, dates = map(_octets, columns.arrays())
    # Sorted, so that two that are equal are packed equally.
    overflow = json.dumps(columns.overflow, sort_keys=True) if columns.overflow else ""
    return uids, flags, modseqs, sizes, dates, overflow


def unpack(packed: Packed) -> Columns:
    """A piece as it was packed."""
    columns = Columns()
    uids, flags, modseqs, sizes, dates, overflow = packed
    count = len(uids) // columns.uids.itemsize
    for column, octets in zip(columns.arrays(), (uids, flags, modseqs, sizes, dates), strict=True):
        column.frombytes(octets)
        if len(column) < count:
            column *= count
        if byteorder == "big":
            column.byteswap()
    if overflow:
        columns.overflow = _overflow(overflow)
    return columns


def _overflow(text: str) -> dict[int, int]:
    return {int(uid): word for uid, word in json.loads(text).items()}


def _octets(column: array[int]) -> bytes:
    if byteorder == "big":
        column = column[:]
        column.byteswap()
    octets = column.tobytes()
    first = octets[: column.itemsize]
    return first if octets == first * len(column) else octets


def claimed(connection: sqlite3.Connection, mailbox: int) -> int | None:
    """The modseq that a mailbox's snapshot holds for; None if there is none, or not yet a whole one."""
    found = connection.execute("SELECT modseq FROM snapshots WHERE mailbox = ?", (mailbox,)).fetchone()
    return found[0] if found else None


def numbers(connection: sqlite3.Connection, mailbox: int) -> dict[int, tuple[int, int]]:
    """The pieces of a mailbox's snapshot: number -> the modseq that it holds for, how many messages."""
    rows = connection.execute(
        "SELECT piece, modseq, length(uids) / 4 FROM snapshot_pieces WHERE mailbox = ?", (mailbox,)
    )
    return {number: (modseq, count) for number, modseq, count in rows}


def whole(connection: sqlite3.Connection, mailbox: int, instead: Mapping[int, Packed]) -> Columns:
    """
    All pieces of a mailbox's snapshot together.

    Args:
        instead: what to take for the pieces of these numbers, whether they are there or not.
    """
    counts = {number: count for number, (_, count) in numbers(connection, mailbox).items()}
    counts.update((number, len(packed[0]) // 4) for number, packed in instead.items())
    found = Columns()
    # Made in one go: arrays that grow are copied again and again, and memory that is touched for the first
    # time is what takes longest here.
    total = sum(counts.values())
    found.uids, found.flags, found.modseqs, found.sizes, found.dates = arrays = tuple(
        array(column.typecode, bytes(column.itemsize)) * total for column in found.arrays()
    )
    places = [memoryview(column).cast("B") for column in arrays]
    start = 0
    for number in sorted(counts):
        packed = instead.get(number) or connection.execute(_PIECE, (mailbox, number)).fetchone()
        count = counts[number]
        for column, place, octets in zip(arrays, places, packed[:-1], strict=True):
            size = column.itemsize
            place[start * size : (start + count) * size] = octets * count if len(octets) == size else octets
        if packed[-1]:
            found.overflow.update(_overflow(packed[-1]))
        start += count
    if byteorder == "big":
        for column in arrays:
            column.byteswap()
    return found


def piece(connection: sqlite3.Connection, mailbox: int, number: int) -> Columns:
    """A piece of a mailbox's snapshot, empty if it is not there."""
    packed = connection.execute(_PIECE, (mailbox, number)).fetchone()
    return unpack(packed) if packed else Columns()


# Acts of the writer


def keep(txn: Transaction, mailbox: int, modseq: int, number: int, packed: Packed) -> None:
    """
    Keep a piece of a mailbox's snapshot as it is after `modseq`, or later.

    Raises:
        NoSuchMailbox: it was deleted meanwhile.
    """
    if _is_news(txn, mailbox, modseq):
        txn.connection.execute(_KEEP, (mailbox, number, modseq, *packed))


def claim(txn: Transaction, mailbox: int, modseq: int, only: bool) -> None:
    """
    The pieces of a mailbox's snapshot hold for `modseq` now.

    Args:
        only: no pieces count but those that were kept for `modseq` or later.

    Raises:
        NoSuchMailbox: it was deleted meanwhile.
    """
    if _is_news(txn, mailbox, modseq):
        if only:
            txn.connection.execute(
                "DELETE FROM snapshot_pieces WHERE mailbox = ? AND modseq < ?", (mailbox, modseq)
            )
        txn.connection.execute(_CLAIM, (mailbox, modseq))


def _is_news(txn: Transaction, mailbox: int, modseq: int) -> bool:
    """False if somebody else was faster: another process may have seen a later moment."""
    txn.box(mailbox)
    txn.changes += 1
    return (claimed(txn.connection, mailbox) or 0) < modseq
