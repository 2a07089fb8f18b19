"""
Small bodies that came alone: they wait in the index, until enough of them fill a good piece of a pack.

A body in a pack needs a sync of the pack beside that of the index, which is half of what a lone message
waits for.  In the index it is part of what is synced anyway.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mailplat.storage.ledger import Transaction
from mailplat.storage.packs import Place

#: Octets that may wait before they are moved to a pack.
WAITING = 256 * 1024

#: Those that are moved at once.
OLDEST = "SELECT body, data FROM waiting ORDER BY body LIMIT 1024"


class Waiting:
    """
    A body as the index has it, to be placed like any other (see `PackWriter.place`).

    Attributes:
        number: its row in `bodies`.
    """

    __slots__ = ("data", "number", "size")

    def __init__(self, number: int, data: bytes) -> None:
        self.number = number
        self.data = data
        self.size = len(data)


def octets(connection: sqlite3.Connection) -> int:
    """How much waits."""
    (found,) = connection.execute("SELECT coalesce(sum(length(data)), 0) FROM waiting").fetchone()
    return int(found)


def oldest(connection: sqlite3.Connection) -> list[Waiting]:
    """What is to be moved."""
    return [Waiting(*row) for row in connection.execute(OLDEST)]


def move(txn: Transaction, bodies: Sequence[Waiting], places: dict[int, Place | Exception]) -> None:
    """
    Say where these are now.  Those that are gone or were moved meanwhile, by another process, stay so.

    Args:
        places: id of a body -> where its bytes are.
    """
    moved: list[tuple[int, int]] = []
    row = 0
    for body in bodies:
        place = places[id(body)]
        # All are in the same pack; or, unless it was asked to move them, they are too few for one.
        if isinstance(place, Place) and place.file is not None:
            row = txn.row_of(place.file)
            moved.append((place.position, body.number))
    if not moved:
        return
    many = txn.connection.executemany
    txn.changes += 1
    count = many(f"UPDATE bodies SET file = {row}, position = ? WHERE id = ? AND file = 0", moved).rowcount
    many("DELETE FROM waiting WHERE body = ?", [(number,) for _, number in moved])
    txn.connection.execute("UPDATE files SET bodies = bodies + ? WHERE id = ?", (count, row))
