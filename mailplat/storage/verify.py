"""
Does the embedded store still have everything, and whole?

One read transaction over the index, and every body read once and compared with its checksum.  Other
processes may go on using the store meanwhile: what they remove while it is read is no fault.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from zlib import crc32

from mailplat.storage import loading
from mailplat.storage.packs import checksum_of
from mailplat.values import BLOCK, NEVER

#: Counters of mailboxes that differ from what is counted.
_COUNTERS = """
SELECT a.name, m.name, m.messages, m.unseen, m.size,
       count(x.uid), coalesce(sum(unseen(x.flags)), 0), coalesce(sum(x.size), 0),
       coalesce(max(x.uid), 0), m.uid_next, coalesce(max(x.modseq), 0), m.modseq
FROM mailboxes m JOIN accounts a ON a.id = m.account LEFT JOIN messages x ON x.mailbox = m.id
GROUP BY m.id
"""

#: What points to something that is not there.
_LOOSE = (
    ("message", "SELECT m.uid FROM messages m LEFT JOIN copies c ON c.id = m.copy WHERE c.id IS NULL"),
    ("copy", "SELECT c.id FROM copies c LEFT JOIN bodies b ON b.id = c.body WHERE b.id IS NULL"),
    ("body", "SELECT b.id FROM bodies b LEFT JOIN files f ON f.id = b.file WHERE f.id IS NULL"),
    ("queue item", "SELECT q.id FROM queue_items q LEFT JOIN copies c ON c.id = q.copy WHERE c.id IS NULL"),
    (
        "piece of a snapshot",
        "SELECT p.rowid FROM snapshot_pieces p LEFT JOIN mailboxes m ON m.id = p.mailbox WHERE m.id IS NULL",
    ),
    (
        "recipient of queue item",
        "SELECT DISTINCT r.item FROM queue_recipients r LEFT JOIN queue_items q ON q.id = r.item "
        "LEFT JOIN queue_places p ON p.id = r.place WHERE q.id IS NULL OR p.id IS NULL",
    ),
)

#: Copies and bodies that would be removed too early or never.
_COUNTS = (
    (
        "copy",
        "SELECT c.id, c.messages, count(x.copy) FROM copies c LEFT JOIN "
        "(SELECT copy FROM messages UNION ALL SELECT copy FROM queue_items) x ON x.copy = c.id "
        "WHERE c.messages > 0 GROUP BY c.id HAVING c.messages <> count(x.copy)",
    ),
    (
        "body",
        "SELECT b.id, b.copies, count(c.id) FROM bodies b LEFT JOIN copies c ON c.body = b.id "
        "WHERE b.copies > 0 GROUP BY b.id HAVING b.copies <> count(c.id)",
    ),
)

#: What was made of other messages than there are.
_DERIVED = f"""
SELECT d.mailbox, d.block, d.kind FROM derived d LEFT JOIN mailboxes m ON m.id = d.mailbox
WHERE m.id IS NULL OR m.uid_next <= d.block * {BLOCK} OR d.messages <> (
    SELECT count(*) FROM messages WHERE mailbox = d.mailbox
    AND uid BETWEEN (d.block - 1) * {BLOCK} + 1 AND d.block * {BLOCK}
)
"""

#: Next hops that believe something else than what waits for them.
_PLACES = """
SELECT p.agent, p.place, p.due, min(r.due)
FROM queue_places p LEFT JOIN queue_recipients r ON r.place = p.id
GROUP BY p.id HAVING max(min(r.due), p.rest) IS NOT p.due
"""

_QUEUE = f"""
SELECT items, recipients, held, (SELECT count(*) FROM queue_items),
       (SELECT count(*) FROM queue_recipients), (SELECT count(*) FROM queue_recipients WHERE due = {NEVER})
FROM queue
"""


def problems(connection: sqlite3.Connection, directory: str) -> list[str]:
    """
    One line for each thing that is wrong.

    Args:
        connection: within a read transaction.
        directory: the store's.
    """
    found = [f"the index: {line}" for (line,) in connection.execute("PRAGMA quick_check") if line != "ok"]
    found += _counters(connection)
    for what, query in _LOOSE:
        for (number,) in connection.execute(query):
            found.append(f"{what} {number} refers to something that is not there")
    for what, query in _COUNTS:
        for number, said, counted in connection.execute(query):
            found.append(f"{what} {number}: {said} are said to need it, {counted} do")
    for number, block, kind in connection.execute(_DERIVED):
        found.append(f"mailbox {number}: the {kind} kept for block {block} is not of the messages there")
    found += _queue(connection)
    found += _waiting(connection)
    found += _snapshots(connection)
    return found + list(_bodies(connection, directory))


def _counters(connection: sqlite3.Connection) -> Iterator[str]:
    connection.create_function("unseen", 1, _unseen, deterministic=True)
    for account, name, *rest in connection.execute(_COUNTERS):
        said, counted = rest[:3], rest[3:6]
        last_uid, uid_next, last_modseq, modseq = rest[6:]
        if said != counted:
            yield f"{account} {name}: counters say {said}, there are {counted} (messages, unseen, octets)"
        if last_uid >= uid_next:
            yield f"{account} {name}: UID {last_uid} is there, UIDNEXT is {uid_next}"
        if last_modseq > modseq:
            yield f"{account} {name}: modseq {last_modseq} is there, the highest is {modseq}"


def _queue(connection: sqlite3.Connection) -> Iterator[str]:
    *numbers, held = connection.execute(_QUEUE).fetchone()
    said, counted = tuple(numbers[:3]), (*numbers[3:], held)
    if said != counted:
        yield f"the queue: counters say {said}, there are {counted} (items, recipients, held)"
    for agent, place, due, first in connection.execute(_PLACES):
        yield f"the queue for {agent} {place}: due at {due}, the first recipient at {first}"
    for (item,) in connection.execute(
        "SELECT id FROM queue_items q WHERE NOT EXISTS (SELECT 1 FROM queue_recipients WHERE item = q.id)"
    ):
        yield f"queue item {item} has no recipients"


def _snapshots(connection: sqlite3.Connection) -> Iterator[str]:
    for mailbox, account, name in connection.execute(
        "SELECT m.id, a.name, m.name FROM snapshots s JOIN mailboxes m ON m.id = s.mailbox "
        "JOIN accounts a ON a.id = m.account"
    ):
        if loading.contradicts(connection, mailbox):
            yield f"{account} {name}: its snapshot in the index is not what its messages are"


def _unseen(flags: int | bytes | None) -> int:
    """1 if the flag word lacks \\Seen, which is its lowest bit; 0 where there is no message."""
    if flags is None:
        return 0
    return 1 - ((flags[-1] if isinstance(flags, bytes) else flags) & 1)


def _bodies(connection: sqlite3.Connection, directory: str) -> Iterator[str]:
    rows = connection.execute(
        "SELECT b.id, f.name, b.position, b.size, b.checksum FROM bodies b JOIN files f ON f.id = b.file"
        " WHERE b.copies > 0 AND b.file > 0 ORDER BY b.file, b.position"
    )
    name, descriptor = "", -1
    try:
        for body, file, position, size, checksum in rows:
            if file != name:
                if descriptor >= 0:
                    os.close(descriptor)
                name, descriptor = file, -1
                try:
                    descriptor = os.open(os.path.join(directory, file), os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:
                    if _still_there(connection, body):
                        yield f"{file}: {error.strerror}"
            if descriptor >= 0:
                length, computed = checksum_of(descriptor, position, size)
                if length < size:
                    yield f"{file}: body {body} should be {size} octets at {position}, there are {length}"
                # Of large messages an earlier mailplat computed none.
                elif checksum is not None and computed != checksum:
                    yield f"{file}: body {body} at {position} is not what was written"
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _waiting(connection: sqlite3.Connection) -> Iterator[str]:
    for body, checksum, data in connection.execute(
        "SELECT b.id, b.checksum, w.data FROM bodies b LEFT JOIN waiting w ON w.body = b.id WHERE b.file = 0"
    ):
        if data is None:
            yield f"body {body} should wait in the index, and does not"
        elif crc32(data) != checksum:
            yield f"body {body} in the index is not what was written"
    for (body,) in connection.execute(
        "SELECT w.body FROM waiting w LEFT JOIN bodies b ON b.id = w.body WHERE b.file IS NOT 0"
    ):
        yield f"body {body} waits in the index, and is elsewhere"


def _still_there(connection: sqlite3.Connection, body: int) -> bool:
    """The transaction sees the past: ask the present whether the body was removed meanwhile."""
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    present = sqlite3.connect(path)
    try:
        return present.execute("SELECT 1 FROM bodies WHERE id = ?", (body,)).fetchone() is not None
    finally:
        present.close()
