"""
What can be done to the embedded store's queue: items added, settled, changed.

Each function acts in a `Transaction` and checks what can be refused before it changes
anything.  An item is a row of `queue_items`, which points to a row of `copies` as a message
does; its recipients are rows of `queue_recipients`, each of which points to its next hop in
`queue_places`.  A next hop knows when the first of its recipients is due, and is there as long as
it has any; the counters of the whole are one row of `queue`.  So what the queue is asked all the
time is answered without looking at what waits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from mailplat.interfaces import NewItem
from mailplat.storage.ledger import Transaction
from mailplat.storage.packs import Place
from mailplat.storage.queue_rules import merged, stated
from mailplat.values import (
    NEVER,
    NO_REQUEST,
    Address,
    Envelope,
    QueuedRecipient,
    ReportRequest,
    Settled,
    Target,
)

_ITEM = "INSERT INTO queue_items (copy, size, account, arrived, envelope) VALUES (?, ?, ?, ?, ?)"
_RECIPIENT = "INSERT INTO queue_recipients VALUES (?, ?, ?, ?, ?, ?)"

#: The columns of a recipient, as `recipient_of` takes them.
RECIPIENT = "r.number, p.agent, p.place, r.due, r.notice, r.rest"

_FIND = (
    f"SELECT r.place, {RECIPIENT} FROM queue_recipients AS r CROSS JOIN queue_places AS p ON p.id = r.place "
    "WHERE r.item = ? AND r.number = ?"
)
_WRITE = "UPDATE queue_recipients SET place = ?, due = ?, notice = ?, rest = ? WHERE item = ? AND number = ?"
_REMOVE = "DELETE FROM queue_recipients WHERE item = ? AND number = ? RETURNING place, due"
_REMOVE_ITEM = (
    "DELETE FROM queue_items WHERE id = ? "
    "AND NOT EXISTS (SELECT 1 FROM queue_recipients WHERE item = ?) RETURNING copy"
)
_SOONEST = "SELECT min(due) FROM queue_recipients WHERE place = ?"
_COUNT = "UPDATE queue SET items = items + ?, recipients = recipients + ?, held = held + ?"
_NEW_PLACE = "INSERT INTO queue_places (agent, place, due, rest) VALUES (?, ?, ?, 0)"
_PLACE = "SELECT id FROM queue_places WHERE agent = ? AND place = ?"

#: Each finds its rows by an index.
QUERIES = (_FIND, _WRITE, _REMOVE, _REMOVE_ITEM, _SOONEST, _PLACE)


def add(txn: Transaction, items: Sequence[NewItem], places: dict[int, Place | Exception]) -> list[int]:
    """
    See `IQueueStore.add`.

    Args:
        places: id of a body -> where its bytes are.
    """
    for new in items:
        place = places[id(new.body)]
        if isinstance(place, Exception):
            raise place
    if not items:
        return []
    work = _Work(txn)
    ids = [work.add(new, places) for new in items]
    work.finish()
    return ids


def settle(
    txn: Transaction,
    results: Sequence[Settled],
    taken: Sequence[QueuedRecipient | None],
    items: Sequence[NewItem],
    places: dict[int, Place | Exception],
) -> None:
    """
    See `IQueueStore.settle`.

    Args:
        taken: each of `results` as it was handed out, None if it was not.
    """
    for new in items:
        place = places[id(new.body)]
        if isinstance(place, Exception):
            raise place
    work = _Work(txn)
    work.change(results, taken)
    for new in items:
        work.add(new, places)
    work.finish()


def change(txn: Transaction, recipients: Sequence[Settled]) -> int:
    """See `IQueueStore.change`."""
    work = _Work(txn)
    changed = work.change(recipients, [None] * len(recipients))
    work.finish()
    if changed:
        txn.queued = True
    return changed


def rest(txn: Transaction, agent: str, place: str, until: int) -> None:
    """See `IQueueStore.rest`."""
    found = txn.connection.execute(_PLACE, (agent, place)).fetchone()
    if found is not None:
        (number,) = found
        txn.changes += 1
        txn.queued = txn.queued or not until
        (due,) = txn.connection.execute(_SOONEST, (number,)).fetchone()
        txn.connection.execute(
            "UPDATE queue_places SET rest = ?, due = ? WHERE id = ?", (until, max(due, until), number)
        )


class _Work:
    """One act: rows are written at once, what is counted and who is due first at its end."""

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn
        self._execute = txn.connection.execute
        self._places: dict[tuple[str, str], int] = {}
        self._touched: set[int] = set()
        self._items = 0
        self._recipients = 0
        self._held = 0

    def add(self, new: NewItem, places: dict[int, Place | Exception]) -> int:
        txn = self._txn
        txn.changes += 1
        txn.queued = True
        copy, size = txn.hold(new.body, new.prefix, places)
        envelope = stored_envelope(stated(new.envelope))
        item = self._execute(_ITEM, (copy, size, new.account, new.arrived, envelope)).lastrowid
        assert item is not None
        rows = [
            (item, number, self._place(one.target), one.due, one.notice, stored_rest(one))
            for number, one in enumerate(new.recipients)
        ]
        txn.connection.executemany(_RECIPIENT, rows)
        self._items += 1
        self._recipients += len(rows)
        self._held += sum(one.due == NEVER for one in new.recipients)
        return item

    def change(self, results: Sequence[Settled], taken: Iterable[QueuedRecipient | None]) -> int:
        """Returns how many were there."""
        changed = 0
        lessened: set[int] = set()
        for result, before in zip(results, taken, strict=True):
            key = result.item, result.number
            if result.recipient is None:
                row = self._execute(_REMOVE, key).fetchone()
                if row is None:
                    continue
                place, due = row
                self._recipients -= 1
                self._held -= due == NEVER
                lessened.add(result.item)
            else:
                row = self._execute(_FIND, key).fetchone()
                if row is None:
                    continue
                place, *columns = row
                old = recipient_of(*columns)
                new = merged(result.recipient, old, before)
                target = place if new.target == old.target else self._place(new.target)
                self._execute(_WRITE, (target, new.due, new.notice, stored_rest(new), *key))
                self._held += (new.due == NEVER) - (old.due == NEVER)
                self._touched.add(target)
            self._touched.add(place)
            self._txn.changes += 1
            changed += 1
        copies = []
        for item in lessened:
            for (copy,) in self._execute(_REMOVE_ITEM, (item, item)).fetchall():
                self._items -= 1
                copies.append(copy)
        if copies:
            self._txn.release(copies)
        return changed

    def finish(self) -> None:
        for place in self._touched:
            (due,) = self._execute(_SOONEST, (place,)).fetchone()
            if due is None:
                self._execute("DELETE FROM queue_places WHERE id = ?", (place,))
            else:
                self._execute("UPDATE queue_places SET due = max(?, rest) WHERE id = ?", (due, place))
        if self._items or self._recipients or self._held:
            self._execute(_COUNT, (self._items, self._recipients, self._held))

    def _place(self, target: Target) -> int:
        """The next hop's row; it is looked at again at the end of the act."""
        key = target.agent, target.place
        place = self._places.get(key)
        if place is None:
            found = self._execute(_PLACE, key).fetchone()
            if found is not None:
                (place,) = found
            else:
                place = self._execute(_NEW_PLACE, (*key, NEVER)).lastrowid
            assert place is not None
            self._places[key] = place
            self._touched.add(place)
        return place


# What the index keeps as text
#
# Nothing is asked for by what stands in it, and it has only letters that any file can hold.


def stored_envelope(envelope: Envelope) -> str:
    sender = envelope.sender
    path = None if sender is None else [sender.local, sender.domain]
    return json.dumps([path, envelope.body, envelope.utf8, envelope.returns, envelope.envelope_id])


def envelope_of(text: str) -> Envelope:
    """What `stored_envelope` was given."""
    path, body, utf8, returns, envelope_id = json.loads(text)
    sender = None if path is None else Address(*path)
    return Envelope(sender, body=body, utf8=utf8, returns=returns, envelope_id=envelope_id)


def stored_rest(one: QueuedRecipient) -> str:
    """What of a recipient has no column of its own."""
    address, request = one.target.address, one.request
    notify = None if request.notify is None else sorted(request.notify)
    return json.dumps(
        [
            address.local,
            address.domain,
            notify,
            request.original,
            one.attempts,
            one.host,
            one.reply,
            one.delayed,
        ]
    )


def recipient_of(number: int, agent: str, place: str, due: int, notice: int, rest: str) -> QueuedRecipient:
    """A recipient from its columns."""
    local, domain, notify, original, attempts, host, reply, delayed = json.loads(rest)
    request = NO_REQUEST
    if notify is not None or original:
        request = ReportRequest(None if notify is None else frozenset(notify), original)
    target = Target(agent, place, Address(local, domain))
    return QueuedRecipient(number, target, request, due, notice, attempts, host, reply, delayed)
