"""
One write transaction of the embedded store, and what can be done to messages in it.

The writer thread makes a `Transaction` for each batch, lets every waiting operation act on
it, and commits them together.  Counters of the mailboxes touched are kept here as objects
and new rows as lists, so that a batch of deliveries becomes a handful of statements; they
are written when somebody needs to read them and at the end.

An act first checks everything that can be refused and only then begins to change, so a
refused operation leaves nothing behind and the others of its batch are not disturbed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from mailplat.errors import LimitExceeded, MessageTooLarge, NoSuchAccount, NoSuchMailbox, NotPermitted
from mailplat.interfaces import ISpooledMessage, NewMessage
from mailplat.storage.packs import Place, StoredFile
from mailplat.uids import LARGEST, NOTHING, UIDSet
from mailplat.values import (
    BLOCK,
    DELETED,
    SEEN,
    Columns,
    Copied,
    Derived,
    FlagChange,
    FlagsSet,
    block_of,
    flag_names,
    flag_word,
)

#: Kinds of entries in the change log.  New messages have none: they are the ones with the highest UIDs,
#: and their rows know the modseq they came with.
CHANGED, EXPUNGED = 0, 1

#: How many of a mailbox's changes the log keeps at least.  What came before is found by
#: looking at every row, so this is about speed, not about what can be answered.
LOG_KEEPS = 4096

#: Runs of UIDs that are on the average no further apart than this are read in one piece.
DENSE = 4

#: SQLite's integers are signed.
_LARGEST_INTEGER = (1 << 63) - 1


@dataclass(slots=True)
class MailboxRow:
    """
    A row of `mailboxes`, attributes in the order of its columns.

    Only transactions change it, in the writer's thread; what they hand out is a copy, and a value.
    """

    id: int
    account: int
    name: str
    special_use: str | None
    selectable: int
    version: int
    uid_validity: int
    uid_next: int
    modseq: int
    log_from: int
    messages: int
    unseen: int
    size: int
    recent: int
    recent_from: int
    keywords: list[str]

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> MailboxRow:
        return cls(*(*values[:-1], json.loads(values[-1]) if values[-1] else []))

    def values(self) -> tuple[Any, ...]:
        """What `of` takes."""
        keywords = json.dumps(self.keywords) if self.keywords else ""
        return (*_plain(self), keywords)

    def copy(self) -> MailboxRow:
        """A value that stays as it is."""
        return MailboxRow(*(*_plain(self), list(self.keywords)))


_NAMES = tuple(column.name for column in fields(MailboxRow))
_plain = attrgetter(*_NAMES[:-1])

#: The columns of a MailboxRow, for SELECT.
MAILBOX = ", ".join(f"m.{name}" for name in _NAMES)

# Not the names, which change by themselves (storage/names.py): to set them is to write their index too.
_COUNTERS = _NAMES[_NAMES.index("version") :]
_WRITE = "UPDATE mailboxes SET {} WHERE id = ?".format(", ".join(f"{name} = ?" for name in _COUNTERS))

_FIND = (
    f"SELECT {MAILBOX} FROM accounts AS a JOIN mailboxes AS m ON m.account = a.id "
    "WHERE a.name = ? AND m.name = ? AND m.selectable"
)


@dataclass(slots=True)
class Known:
    """
    What one transaction leaves in memory for the next, which need not read it again.

    It is true as long as nobody else commits and nothing is rolled back.

    Attributes:
        boxes: mailboxes by id.
        found: the same by names of account and mailbox.
        next_body, next_copy: ids that no row has, nor any above; 0 if they are to be looked up.
    """

    boxes: dict[int, MailboxRow] = field(default_factory=dict)
    found: dict[tuple[str, str], MailboxRow] = field(default_factory=dict)
    next_body: int = 0
    next_copy: int = 0


#: uid, flags, modseq, size, date, copy
Message = tuple[int, int, int, int, int, int]

_ROWS = (
    "SELECT uid, flags, modseq, size, date, copy FROM messages "
    "WHERE mailbox = ? AND uid BETWEEN ? AND ? ORDER BY uid"
)


# The mailbox's row may be behind what this transaction gave to it: then there are more UIDs than it says.
_KEEP = f"""
INSERT OR REPLACE INTO derived (mailbox, block, kind, messages, octets)
SELECT m.id, ?2, ?3, ?4, ?5 FROM mailboxes AS m WHERE m.id = ?1 AND m.uid_next > ?2 * {BLOCK} AND ?4 = (
    SELECT count(*) FROM messages WHERE mailbox = ?1 AND uid BETWEEN (?2 - 1) * {BLOCK} + 1 AND ?2 * {BLOCK}
)
"""


def stored(word: int) -> int | bytes:
    """A flag word as the table keeps it."""
    return word if word <= _LARGEST_INTEGER else word.to_bytes((word.bit_length() + 7) // 8, "big")


def loaded(flags: int | bytes) -> int:
    """A flag word as it was before `stored`."""
    return int.from_bytes(flags, "big") if isinstance(flags, bytes) else flags


def columns_of(rows: Sequence[tuple[Any, ...]]) -> Columns:
    """`Columns` of (uid, flags as stored, modseq, size, date) rows."""
    try:
        return Columns.of(rows)
    except TypeError:
        # A word of more than 63 bits is among them.
        return Columns.of((uid, loaded(flags), *rest) for uid, flags, *rest in rows)


class Transaction:
    """
    Args:
        connection: has begun a transaction; the caller commits it after `finish`.
        guard: asked for a dead pack's name, gives a descriptor that keeps others from
            appending to it, or -1 if it must stay.
        now: seconds since 1970.
        commits: the store's commit counter, with this one.
        known: what the one before has left.

    Attributes:
        changes: how often something was changed; an act that failed without raising it
            left nothing behind.
        dirty: ids of those that were changed.
        gone: ids of mailboxes deleted.
        accounts: name -> id of accounts made, None for those removed.
        renamed: mailboxes or accounts were made, renamed or removed.
        queued: something was added to the queue or changed in it.
        inserted: files that got a row here.
        waiting: octets of bodies that were written into the index.
        dead: (row, name, descriptor or -1) of files that lost theirs.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        guard: Callable[[str], int],
        now: int,
        commits: int,
        known: Known,
    ) -> None:
        self.connection = connection
        self.now = now
        self.commits = commits
        self.changes = 0
        self.dirty: set[int] = set()
        self.gone: set[int] = set()
        self.accounts: dict[str, int | None] = {}
        self.renamed = False
        self.queued = False
        self.inserted: list[StoredFile] = []
        self.waiting = 0
        self.dead: list[tuple[int, str, int]] = []
        self._guard = guard
        self._freed = False
        self._known = known
        self._bodies: dict[int, list[Any]] = {}
        self._copies: dict[tuple[int, bytes], list[Any]] = {}
        self._messages: list[tuple[Any, ...]] = []
        self._log: list[tuple[int, int, int, str]] = []

    # Finding mailboxes

    def find(self, account: str, name: str) -> MailboxRow:
        """A mailbox by names.  Raises NoSuchAccount, NoSuchMailbox."""
        row = self._known.found.get((account, name))
        if row is not None:
            return row
        values = self.connection.execute(_FIND, (account, name)).fetchone()
        if values is None:
            known = self.connection.execute("SELECT 1 FROM accounts WHERE name = ?", (account,)).fetchone()
            raise NoSuchMailbox() if known else NoSuchAccount()
        row = self._known.found[account, name] = self._one(values)
        return row

    def box(self, mailbox: int) -> MailboxRow:
        """A mailbox by id.  Raises NoSuchMailbox."""
        row = self._known.boxes.get(mailbox)
        if row is None:
            values = self.connection.execute(
                f"SELECT {MAILBOX} FROM mailboxes AS m WHERE m.id = ?", (mailbox,)
            ).fetchone()
            if values is None:
                raise NoSuchMailbox()
            row = self._one(values)
        return row

    def box_named(self, account: int, name: str) -> MailboxRow:
        """A mailbox by the account's id and its own name.  Raises NoSuchMailbox."""
        values = self.connection.execute(
            f"SELECT {MAILBOX} FROM mailboxes AS m WHERE m.account = ? AND m.name = ? AND m.selectable",
            (account, name),
        ).fetchone()
        if values is None:
            raise NoSuchMailbox()
        return self._one(values)

    def _one(self, values: tuple[Any, ...]) -> MailboxRow:
        # The object may have counters that the table has not got yet.
        row = self._known.boxes.get(values[0])
        if row is None:
            row = self._known.boxes[values[0]] = MailboxRow.of(values)
        return row

    def names_changed(self) -> None:
        """Mailboxes or accounts were made, renamed or removed: forget what was found by name."""
        self.renamed = True
        self._known.found.clear()

    # Acts on messages

    def append(
        self, targets: Sequence[tuple[MailboxRow, NewMessage]], places: dict[int, Place | Exception]
    ) -> list[int]:
        """
        Append each message to its mailbox.

        Args:
            places: id of a body -> where its bytes are.

        Returns:
            the UIDs in the order of `targets`.
        """
        for row, message in targets:
            place = places[id(message.body)]
            if isinstance(place, Exception):
                raise place
            if place.size + len(message.prefix) > LARGEST:
                raise MessageTooLarge()
            self._has_room(row, len(targets))
        begun: set[int] = set()
        uids: list[int] = []
        for row, message in targets:
            place = places[id(message.body)]
            assert isinstance(place, Place)
            if row.id not in begun:
                begun.add(row.id)
                self._touch(row)
                row.modseq += 1
            word = flag_word(message.flags, row.keywords) if message.flags else 0
            uids.append(
                self._add(
                    row,
                    word,
                    len(message.prefix) + place.size,
                    message.date,
                    self._copy_of(place, message.body.outline, message.prefix),
                )
            )
        return uids

    def set_flags(
        self, row: MailboxRow, uids: UIDSet, change: FlagChange, unchanged_since: int | None
    ) -> FlagsSet:
        """See `IMailbox.set_flags`."""
        rows = self.rows(row, uids)
        refused = NOTHING
        if unchanged_since is not None:
            refused = UIDSet.of(message[0] for message in rows if message[2] > unchanged_since)
            rows = [message for message in rows if message[2] <= unchanged_since]
        if not rows:
            return FlagsSet(Columns(), refused)
        keywords = list(row.keywords)
        add = flag_word(change.add, keywords)
        # With a limit of 0 no name is new: what nobody has cannot be taken away.
        remove = flag_word(change.remove, keywords, limit=0)
        keep = 0 if change.replace else ~remove
        add &= ~remove if not change.replace else ~0
        changed: list[tuple[int, int, int, int, int]] = []
        unseen = 0
        modseq = row.modseq + 1
        for uid, word, _, size, date, _ in rows:
            new = (word & keep) | add
            if new != word:
                changed.append((uid, new, modseq, size, date))
                unseen += (word & SEEN) - (new & SEEN)
        if changed or len(keywords) != len(row.keywords):
            self._touch(row)
            row.keywords[:] = keywords
        if changed:
            row.modseq = modseq
            row.unseen += unseen
            same: dict[int, list[int]] = {}
            for message in changed:
                same.setdefault(message[1], []).append(message[0])
            self.connection.executemany(
                f"UPDATE messages SET flags = ?, modseq = {modseq} "
                f"WHERE mailbox = {row.id} AND uid BETWEEN ? AND ?",
                [(stored(word), *run) for word, having in same.items() for run in UIDSet.of(having).runs],
            )
            self._note(row, CHANGED, str(UIDSet.of(message[0] for message in changed)))
        return FlagsSet(Columns.of(changed), refused)

    def expunge(self, row: MailboxRow, uids: UIDSet, deleted_only: bool) -> UIDSet:
        """See `IMailbox.expunge`."""
        rows = [message for message in self.rows(row, uids) if message[1] & DELETED or not deleted_only]
        return self._remove(row, rows, free=True)

    def copy(self, row: MailboxRow, uids: UIDSet, target: MailboxRow) -> Copied:
        """See `IMailbox.copy`."""
        rows = self.rows(row, uids)
        copied = self._copy(row, rows, target)
        self._count(rows, 1)
        return copied

    def move(self, row: MailboxRow, uids: UIDSet, target: MailboxRow) -> Copied:
        """See `IMovesMessages.move`."""
        if target is row:
            raise NotPermitted("Cannot move messages to the mailbox they are in")
        rows = self.rows(row, uids)
        moved = self._copy(row, rows, target)
        self._remove(row, rows, free=False)
        return moved

    def claim_recent(self, row: MailboxRow) -> UIDSet:
        """See `IClaimsRecent.claim_recent`."""
        claimed = UIDSet.of(message[0] for message in self.rows(row, UIDSet(((row.recent_from, LARGEST),))))
        if row.recent_from != row.uid_next:
            self._touch(row)
            row.recent = 0
            row.recent_from = row.uid_next
        return claimed

    def remove_mailbox(self, row: MailboxRow) -> None:
        """Take a mailbox and all its messages away."""
        self._touch(row)
        self.flush()
        self._freed = True
        self.connection.execute(
            "UPDATE copies SET messages = messages - d.n FROM (SELECT copy, count(*) AS n FROM messages "
            "WHERE mailbox = ? GROUP BY copy) AS d WHERE copies.id = d.copy",
            (row.id,),
        )
        for table in ("messages", "changes", "derived", "snapshots", "snapshot_pieces"):
            self.connection.execute(f"DELETE FROM {table} WHERE mailbox = ?", (row.id,))
        self.connection.execute("DELETE FROM mailboxes WHERE id = ?", (row.id,))
        self._known.boxes.pop(row.id, None)
        self.dirty.discard(row.id)
        self.gone.add(row.id)
        self.names_changed()

    def keep_derived(self, mailbox: int, some: Sequence[Derived]) -> None:
        """See `IKeepsDerived.keep_derived`; nothing is kept for a mailbox that was deleted."""
        self.flush()
        self.changes += 1
        self.connection.executemany(
            _KEEP, [(mailbox, one.block, one.kind, one.messages, one.octets) for one in some]
        )

    # Bodies for others than mailboxes

    def hold(
        self, body: ISpooledMessage, prefix: bytes, places: dict[int, Place | Exception]
    ) -> tuple[int, int]:
        """
        A row of `copies` with this body and prefix, to which one more row points.

        Args:
            places: id of a body -> where its bytes are; the caller has looked for exceptions.

        Returns:
            its id, and the octets of body and prefix.
        """
        place = places[id(body)]
        assert isinstance(place, Place)
        return self._copy_of(place, body.outline, prefix), place.size + len(prefix)

    def release(self, copies: Iterable[int]) -> None:
        """One row less points to each of these."""
        self.flush()
        self._freed = True
        self.connection.executemany(
            "UPDATE copies SET messages = messages - 1 WHERE id = ?", [(copy,) for copy in copies]
        )

    # Beneath them

    def rows(self, row: MailboxRow, uids: UIDSet) -> list[Message]:
        """The messages with these UIDs, ascending, flag words as they are in Python."""
        self.flush()
        runs = [run for run in uids.runs if run[0] < row.uid_next]
        spans = runs
        if runs and min(runs[-1][1], row.uid_next) - runs[0][0] < DENSE * len(runs):
            # Such as every other message: to look at all between costs less than to ask for each.
            spans = [(runs[0][0], runs[-1][1])]
        found: list[Message] = []
        for first, last in spans:
            found += self.connection.execute(_ROWS, (row.id, first, last)).fetchall()
        if len(spans) < len(runs):
            found = [message for message in found if message[0] in uids]
        if any(isinstance(message[1], bytes) for message in found):
            found = [(uid, loaded(flags), *rest) for uid, flags, *rest in found]  # type: ignore[misc]  # star
        return found

    def _touch(self, row: MailboxRow) -> None:
        self.changes += 1
        if row.id not in self.dirty:
            self.dirty.add(row.id)
            row.version += 1

    def touch(self, row: MailboxRow) -> None:
        """The caller changes attributes of this row."""
        self._touch(row)

    def _has_room(self, row: MailboxRow, count: int) -> None:
        if row.uid_next + count > LARGEST:
            raise LimitExceeded("The mailbox has no UIDs left")

    def _add(self, row: MailboxRow, word: int, size: int, date: int, copy: int) -> int:
        """One more message, of the mailbox's current modseq."""
        uid = row.uid_next
        row.uid_next = uid + 1
        row.messages += 1
        row.recent += 1
        row.size += size
        if not word & SEEN:
            row.unseen += 1
        self._messages.append((row.id, uid, stored(word), row.modseq, size, date, copy))
        return uid

    def _copy_of(self, place: Place, outline: bytes, prefix: bytes) -> int:
        """The row of `copies` for a new body with a prefix, one more message pointing to it."""
        known = self._known
        body = self._bodies.get(id(place))
        if body is None:
            known.next_body = known.next_body or self._next("bodies")
            # The place is kept in the list: its id() must stay its own until the flush.
            body = self._bodies[id(place)] = [known.next_body, place, outline or None, 0]
            known.next_body += 1
        copy = self._copies.get((body[0], prefix))
        if copy is None:
            known.next_copy = known.next_copy or self._next("copies")
            copy = self._copies[body[0], prefix] = [known.next_copy, body[0], 0, prefix]
            known.next_copy += 1
            body[3] += 1
        copy[2] += 1
        return int(copy[0])

    def _next(self, table: str) -> int:
        (number,) = self.connection.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()
        return int(number)

    def _note(self, row: MailboxRow, kind: int, uids: str) -> None:
        self._log.append((row.id, row.modseq, kind, uids))
        if row.modseq - row.log_from >= 2 * LOG_KEEPS:
            row.log_from = row.modseq - LOG_KEEPS
            self.connection.execute(
                "DELETE FROM changes WHERE mailbox = ? AND modseq <= ?", (row.id, row.log_from)
            )

    def _copy(self, row: MailboxRow, rows: list[Message], target: MailboxRow) -> Copied:
        """New messages in `target` that point where `rows` do, not yet counted in `copies`."""
        if not rows:
            return Copied(target.uid_validity, [], [])
        self._has_room(target, len(rows))
        self._touch(target)
        target.modseq += 1
        first = target.uid_next
        words = {word: 0 for _, word, *_ in rows}
        for word in words:
            words[word] = flag_word(flag_names(word, row.keywords), target.keywords)
        mailbox, modseq = target.id, target.modseq
        self._messages += [
            (mailbox, uid, stored(words[word]), modseq, size, date, copy)
            for uid, (_, word, _, size, date, copy) in enumerate(rows, first)
        ]
        target.uid_next += len(rows)
        target.messages += len(rows)
        target.recent += len(rows)
        target.size += sum(message[3] for message in rows)
        target.unseen += sum(not message[1] & SEEN for message in rows)
        return Copied(
            target.uid_validity, [message[0] for message in rows], list(range(first, target.uid_next))
        )

    def _remove(self, row: MailboxRow, rows: list[Message], free: bool) -> UIDSet:
        """Take these messages out of their mailbox; `free` if nothing else took them over."""
        if not rows:
            return NOTHING
        self._touch(row)
        row.modseq += 1
        removed = UIDSet.of(message[0] for message in rows)
        for uid, word, _, size, _, _ in rows:
            row.messages -= 1
            row.size -= size
            if not word & SEEN:
                row.unseen -= 1
            if uid >= row.recent_from:
                row.recent -= 1
        if free:
            self._freed = True
            self._count(rows, -1)
        self.connection.executemany(
            f"DELETE FROM messages WHERE mailbox = {row.id} AND uid BETWEEN ? AND ?", removed.runs
        )
        blocks = UIDSet((block_of(first), block_of(last)) for first, last in removed.runs)
        self.connection.executemany(
            f"DELETE FROM derived WHERE mailbox = {row.id} AND block BETWEEN ? AND ?", blocks.runs
        )
        self._note(row, EXPUNGED, str(removed))
        return removed

    def _count(self, rows: list[Message], more: int) -> None:
        """For each of these messages, so many more point to its row of `copies`."""
        copies = {message[5] for message in rows}
        if len(copies) == len(rows):
            # Messages that came one after the other have copies with ids in a row.
            self.connection.executemany(
                f"UPDATE copies SET messages = messages + {more} WHERE id BETWEEN ? AND ?",
                UIDSet.of(copies).runs,
            )
        else:
            self.connection.executemany(
                f"UPDATE copies SET messages = messages + {more} WHERE id = ?",
                [(message[5],) for message in rows],
            )

    # Writing

    def flush(self) -> None:
        """Write new rows, so that statements see them."""
        execute = self.connection.executemany
        if self._copies:
            self._write_bodies(self._bodies.values())
            execute("INSERT INTO copies VALUES (?, ?, ?, ?)", self._copies.values())
            # A body delivered again after this gets a second row; both point to the same bytes.
            self._bodies, self._copies = {}, {}
        if self._messages:
            execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", self._messages)
            self._messages = []
        if self._log:
            execute("INSERT INTO changes VALUES (?, ?, ?, ?)", self._log)
            self._log = []

    def _write_bodies(self, bodies: Iterable[list[Any]]) -> None:
        counts: dict[int, int] = {}
        rows, waiting = [], []
        for body, place, outline, copies in bodies:
            if place.file is None:
                file = 0
                self.waiting += place.size
                waiting.append((body, place.data))
            else:
                file = self.row_of(place.file)
                counts[file] = counts.get(file, 0) + 1
            rows.append((body, file, place.position, place.size, place.checksum, copies, outline))
        self.connection.executemany("INSERT INTO bodies VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        if waiting:
            self.connection.executemany("INSERT INTO waiting VALUES (?, ?)", waiting)
        if counts:
            self.connection.executemany(
                "UPDATE files SET bodies = bodies + ? WHERE id = ?",
                [(count, row) for row, count in counts.items()],
            )

    def row_of(self, file: StoredFile) -> int:
        """The row of a file, made if it has none."""
        if file.row is None:
            file.row = self.connection.execute(
                "INSERT INTO files (name, large, bodies) VALUES (?, ?, 0)", (file.name, int(file.large))
            ).lastrowid
            self.inserted.append(file)
        assert file.row is not None
        return file.row

    def changed(self) -> list[MailboxRow]:
        """The mailboxes that were changed, as they are now."""
        return [self._known.boxes[mailbox].copy() for mailbox in self.dirty]

    def finish(self) -> None:
        """Write everything; the caller commits."""
        self.flush()
        if self.dirty:
            rows = [self._known.boxes[mailbox].values() for mailbox in self.dirty]
            self.connection.executemany(
                _WRITE, [(*values[-len(_COUNTERS) :], values[0]) for values in rows]
            )
        if self._freed:
            self.bury()

    def bury(self) -> None:
        """Remove the rows that nothing points to, down to the files."""
        for statement in _BURY:
            self.connection.execute(statement)
        dead = self.connection.execute("SELECT id, name, large FROM files WHERE bodies <= 0").fetchall()
        for row, name, large in dead:
            descriptor = -1
            if not large:
                descriptor = self._guard(name)
                if descriptor < 0:
                    continue
            self.connection.execute("DELETE FROM files WHERE id = ?", (row,))
            self.dead.append((row, name, descriptor))


_BURY = (
    "UPDATE bodies SET copies = copies - d.n FROM ("
    "SELECT body, count(*) AS n FROM copies WHERE messages <= 0 GROUP BY body) AS d WHERE bodies.id = d.body",
    "DELETE FROM copies WHERE messages <= 0",
    "UPDATE files SET bodies = bodies - d.n FROM ("
    "SELECT file, count(*) AS n FROM bodies WHERE copies <= 0 AND file > 0 GROUP BY file"
    ") AS d WHERE files.id = d.file",
    "DELETE FROM waiting WHERE body IN (SELECT id FROM bodies WHERE copies <= 0)",
    "DELETE FROM bodies WHERE copies <= 0",
)
