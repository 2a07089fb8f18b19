"""
The tables of the embedded store, and how a connection to them is opened.

One directory holds everything:

    index.sqlite    names, counters, flags, the change log, the queue, where bodies are, the newest small ones
    packs/          message bodies one after the other, in files that only grow
    large/          one file for each large body
    lock            held shared by each process that uses the directory

A message is a row of `messages`, or of `queue_items` if it waits in the queue; it points to a
row of `copies`, which has the prefix that is this copy's own; that points to a row of
`bodies`, which says where the body is and has its outline; that points to a row of `files`, or
to none, file 0, as long as the body waits in `waiting` (storage/waiting.py).
Each of the lower three counts what points to it, so nothing ever has to be searched for to
know that it is dead.

`snapshots` and `snapshot_pieces` repeat what `messages` says, for speed alone (storage/snapshot.py).
What is in `derived` can be made again, and goes with what it was made of.

The index is in WAL mode: readers never wait for the writer, nor it for them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence

from mailplat.errors import DataDirectoryError, StorageFull

INDEX = "index.sqlite"
LOCK = "lock"

#: Marks the file as ours ("mplt").
APPLICATION = 0x6D706C74

_UNAVAILABLE = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )
)

#: How long a connection waits for another process's commit, in seconds.
BUSY = 30.0

# mailboxes.version counts every change of the row, so that of two readings the newer one is
# known.  mailboxes.log_from: the change log answers for what came after this modseq.
# messages.flags has no type: a word of more than 63 bits is kept as a blob, big-endian.
# changes.kind: 0 flags changed (in an older store also: new), 1 expunged.
_FIRST = """
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    commits INTEGER NOT NULL,
    uid_validity INTEGER NOT NULL
);
INSERT INTO store VALUES (1, 0, 0);

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE mailboxes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL,
    name TEXT NOT NULL,
    special_use TEXT,
    selectable INTEGER NOT NULL,
    version INTEGER NOT NULL,
    uid_validity INTEGER NOT NULL,
    uid_next INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    log_from INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    unseen INTEGER NOT NULL,
    size INTEGER NOT NULL,
    recent INTEGER NOT NULL,
    recent_from INTEGER NOT NULL,
    keywords TEXT NOT NULL,
    UNIQUE (account, name)
);

CREATE TABLE subscriptions (
    account INTEGER NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;

CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    large INTEGER NOT NULL,
    bodies INTEGER NOT NULL
);
CREATE INDEX dead_files ON files (id) WHERE bodies <= 0;

CREATE TABLE bodies (
    id INTEGER PRIMARY KEY,
    file INTEGER NOT NULL,
    position INTEGER NOT NULL,
    size INTEGER NOT NULL,
    checksum INTEGER,
    copies INTEGER NOT NULL,
    outline BLOB
);
CREATE INDEX dead_bodies ON bodies (id) WHERE copies <= 0;

CREATE TABLE copies (
    id INTEGER PRIMARY KEY,
    body INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    prefix BLOB NOT NULL
);
CREATE INDEX dead_copies ON copies (id) WHERE messages <= 0;

CREATE TABLE messages (
    mailbox INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    flags NOT NULL,
    modseq INTEGER NOT NULL,
    size INTEGER NOT NULL,
    date INTEGER NOT NULL,
    copy INTEGER NOT NULL,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;

CREATE TABLE changes (
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    uids TEXT NOT NULL,
    PRIMARY KEY (mailbox, modseq, kind)
) WITHOUT ROWID;
"""

# copies.messages counts queue_items as well.  queue_places.due is that of the first of its recipients, and
# 1 << 62 (values.NEVER) if all are held, but not before queue_places.rest; a place that has none is not
# there.  queue_items.envelope and queue_recipients.rest are JSON (storage/queue_ledger.py).
_QUEUE = """
CREATE TABLE queue (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    items INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    held INTEGER NOT NULL
);
INSERT INTO queue VALUES (1, 0, 0, 0);

CREATE TABLE queue_items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    copy INTEGER NOT NULL,
    size INTEGER NOT NULL,
    account TEXT NOT NULL,
    arrived INTEGER NOT NULL,
    envelope TEXT NOT NULL
);
CREATE INDEX queue_arrived ON queue_items (arrived);

CREATE TABLE queue_places (
    id INTEGER PRIMARY KEY,
    agent TEXT NOT NULL,
    place TEXT NOT NULL,
    due INTEGER NOT NULL,
    rest INTEGER NOT NULL,
    UNIQUE (agent, place)
);
CREATE INDEX queue_soonest ON queue_places (due, agent, place);

CREATE TABLE queue_recipients (
    item INTEGER NOT NULL,
    number INTEGER NOT NULL,
    place INTEGER NOT NULL,
    due INTEGER NOT NULL,
    notice INTEGER NOT NULL,
    rest TEXT NOT NULL,
    PRIMARY KEY (item, number)
) WITHOUT ROWID;
CREATE INDEX queue_due ON queue_recipients (place, due);
CREATE INDEX queue_notice ON queue_recipients (notice);
"""

# Bodies that have no file yet are of file 0, which is none.
_WAITING = """
CREATE TABLE waiting (
    body INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);
INSERT INTO files (id, name, large, bodies) VALUES (0, '', 0, 1);
"""

# snapshot_pieces: a mailbox's rows by UID, each column packed as snapshot.pack does it.  Both modseqs say how
# old what is said may be at most; pieces count only if `snapshots` has the mailbox.
_SNAPSHOTS = """
CREATE TABLE snapshots (
    mailbox INTEGER PRIMARY KEY,
    modseq INTEGER NOT NULL
);

CREATE TABLE snapshot_pieces (
    mailbox INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    uids BLOB NOT NULL,
    flags BLOB NOT NULL,
    modseqs BLOB NOT NULL,
    sizes BLOB NOT NULL,
    dates BLOB NOT NULL,
    overflow TEXT NOT NULL,
    PRIMARY KEY (mailbox, piece)
);
"""

# derived.octets were made of so many messages: all that the mailbox has in this block of UIDs (values.BLOCK).
_DERIVED = """
CREATE TABLE derived (
    id INTEGER PRIMARY KEY,
    mailbox INTEGER NOT NULL,
    block INTEGER NOT NULL,
    kind TEXT NOT NULL,
    messages INTEGER NOT NULL,
    octets BLOB NOT NULL,
    UNIQUE (mailbox, block, kind)
);
"""

# File 0 counts nothing, and never dies: its row need not be written with each small message.
_UNCOUNTED = "UPDATE files SET bodies = 1 WHERE id = 0"

#: Step n makes version n out of version n-1; a released step never changes.
STEPS: tuple[str, ...] = (_FIRST, _QUEUE, _WAITING, _SNAPSHOTS, _DERIVED, _UNCOUNTED)


def connect(directory: str, *, wait: float = BUSY) -> sqlite3.Connection:
    """
    A connection to a store's index, in any thread, one thread at a time.

    Transactions are begun and ended by the caller; a commit returns after it is synced.
    """
    connection = sqlite3.connect(
        os.path.join(directory, INDEX),
        timeout=wait,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def prepare(directory: str, steps: Sequence[str] = STEPS) -> None:
    """
    Make the index, or bring it up to the version that `steps` ends with.

    Raises:
        DataDirectoryError: a later version made it, or it is something else.
        StorageFull: there is no room.
    """
    path = os.path.join(directory, INDEX)
    try:
        connection = connect(directory)
        try:
            _upgrade(connection, path, steps)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if is_full(error):
            raise StorageFull(reason=f"{path}: {error}") from error
        raise DataDirectoryError(f"{path} cannot be used: {error}") from error


def _upgrade(connection: sqlite3.Connection, path: str, steps: Sequence[str]) -> None:
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and mark != APPLICATION:
        raise DataDirectoryError(f"{path} is not a mail store")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read under the lock: two processes may start at the same time.
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(steps):
            raise DataDirectoryError(
                f"{path} has version {version}, made by a later mailplat; "
                f"this one knows up to version {len(steps)}"
            )
        for step in steps[version:]:
            for statement in step.split(";"):
                if statement.strip():
                    connection.execute(statement)
        if version < len(steps):
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {len(steps)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def has_no_room(error: sqlite3.Error) -> bool:
    """Whether SQLite could not write because the disk is full."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def is_full(error: sqlite3.Error) -> bool:
    """Whether SQLite failed because of the disk or of a lock, not because of what it was asked."""
    # The low byte is the error, the others say where it happened.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNAVAILABLE
