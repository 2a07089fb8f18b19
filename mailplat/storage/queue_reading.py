"""
How the embedded store's queue is read: functions over a connection, each one hop to a thread.

Each sees one moment of the store.  Every question is answered from an index, and stops where
enough was found.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence

from mailplat.errors import NoSuchMessage
from mailplat.interfaces import ISpooledMessage
from mailplat.storage.packs import LARGE, OpenFiles
from mailplat.storage.queue_ledger import RECIPIENT, envelope_of, recipient_of
from mailplat.storage.reading import held
from mailplat.storage.spool import InFile, InMemory
from mailplat.values import NEVER, QueuedRecipient, QueueItem, QueueStatus

PLACES = f"SELECT agent, place, due FROM queue_places WHERE due < {NEVER} ORDER BY due, agent, place"

DUE = (
    "SELECT item, number FROM queue_recipients "
    "WHERE place = (SELECT id FROM queue_places WHERE agent = ?1 AND place = ?2 AND rest <= ?3) "
    "AND due <= ?3 "
    "ORDER BY due, item, number"
)

OVERDUE = "SELECT item, number FROM queue_recipients WHERE notice <= ? ORDER BY notice, item, number"

ITEMS = (
    "SELECT q.id, q.envelope, q.account, q.arrived, q.size "
    "FROM json_each(?) AS j CROSS JOIN queue_items AS q ON q.id = j.value"
)

RECIPIENTS = (
    f"SELECT r.item, {RECIPIENT} FROM json_each(?) AS j CROSS JOIN queue_recipients AS r ON r.item = j.value "
    "CROSS JOIN queue_places AS p ON p.id = r.place"
)

AFTER = "SELECT id FROM queue_items WHERE id > ? ORDER BY id LIMIT ?"

COUNTERS = "SELECT items, recipients, held FROM queue"

OLDEST = "SELECT min(arrived) FROM queue_items"

BODY = (
    "SELECT c.prefix, b.id, b.position, b.size, b.outline, f.id, f.name, f.large FROM queue_items AS q "
    "CROSS JOIN copies AS c ON c.id = q.copy CROSS JOIN bodies AS b ON b.id = c.body "
    "CROSS JOIN files AS f ON f.id = b.file WHERE q.id = ?"
)

#: (item, number) of recipients.
Keys = frozenset[tuple[int, int]]


def places(
    connection: sqlite3.Connection, most: int, besides: Collection[tuple[str, str]]
) -> list[tuple[str, str, int]]:
    """See `IQueueStore.places`."""
    found: list[tuple[str, str, int]] = []
    left_out = frozenset(besides)
    for agent, place, due in connection.execute(PLACES):
        if len(found) >= most:
            break
        if (agent, place) not in left_out:
            found.append((agent, place, due))
    return found


def due(
    connection: sqlite3.Connection, agent: str, place: str, before: int, most: int, taken: Keys
) -> list[QueueItem]:
    """See `IQueueStore.take`; `taken` are not handed out."""
    rows = connection.execute(DUE, (agent, place, before))
    return _items(
        connection,
        _first(rows, most, taken),
        lambda item, one: (
            (one.target.agent, one.target.place) == (agent, place)
            and one.due <= before
            and (item, one.number) not in taken
        ),
    )


def overdue(connection: sqlite3.Connection, before: int, most: int, taken: Keys) -> list[QueueItem]:
    """See `IQueueStore.take_overdue`; `taken` are not handed out."""
    return _items(
        connection,
        _first(connection.execute(OVERDUE, (before,)), most, taken),
        lambda item, one: one.notice <= before and (item, one.number) not in taken,
    )


def _first(rows: Iterable[tuple[int, int]], most: int, taken: Keys) -> list[int]:
    """The first items among the rows, once each."""
    chosen: dict[int, None] = {}
    for key in rows:
        if key[0] not in chosen and key not in taken:
            if len(chosen) >= most:
                break
            chosen[key[0]] = None
    return list(chosen)


def items(connection: sqlite3.Connection, after: int, most: int) -> list[QueueItem]:
    """See `IQueueStore.items`."""
    return _items(connection, [item for (item,) in connection.execute(AFTER, (after, most))])


def item(connection: sqlite3.Connection, number: int) -> QueueItem:
    """See `IQueueStore.item`."""
    for found in _items(connection, [number]):
        return found
    raise NoSuchMessage()


def _items(
    connection: sqlite3.Connection,
    numbers: Sequence[int],
    wanted: Callable[[int, QueuedRecipient], bool] = lambda item, one: True,
) -> list[QueueItem]:
    """These items in this order, with those recipients."""
    listed = json.dumps(numbers)
    recipients: dict[int, list[QueuedRecipient]] = {}
    for number, *columns in connection.execute(RECIPIENTS, (listed,)):
        one = recipient_of(*columns)
        if wanted(number, one):
            recipients.setdefault(number, []).append(one)
    return [
        QueueItem(number, envelope_of(envelope), account, arrived, size, tuple(recipients[number]))
        for number, envelope, account, arrived, size in connection.execute(ITEMS, (listed,))
    ]


def status(connection: sqlite3.Connection) -> QueueStatus:
    """See `IQueueStore.status`."""
    waiting, recipients, held = connection.execute(COUNTERS).fetchone()
    (oldest,) = connection.execute(OLDEST).fetchone()
    return QueueStatus(waiting, recipients, held, oldest or 0)


def message(
    connection: sqlite3.Connection, number: int, files: OpenFiles, directory: str
) -> tuple[ISpooledMessage, bytes]:
    """See `IQueueStore.message`."""
    row = connection.execute(BODY, (number,)).fetchone()
    if row is None:
        raise NoSuchMessage()
    prefix, body, position, size, outline, file, name, large = row
    try:
        if not large:
            there = files.get(file, name) if file else held(connection, body)
            return InMemory(there.read(position, size), outline or b""), prefix
        path = _linked(directory, name)
        return InFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path, size, outline or b""), prefix
    except FileNotFoundError:
        # Removed while this transaction still sees its row: the item is gone.
        raise NoSuchMessage() from None


def _linked(directory: str, name: str) -> str:
    """
    A name of the file's own for whoever holds the message: the item may go meanwhile, by the doing of
    another process even.  If this one is killed, it is garbage that the next start removes.
    """
    path = os.path.join(directory, LARGE, uuid.uuid4().hex)
    try:
        os.link(os.path.join(directory, name), path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        # A file system without links.
        shutil.copyfile(os.path.join(directory, name), path)
        with open(path, "rb") as copy:
            os.fsync(copy.fileno())
    return path
