"""
Outlines of messages that have just come in, in memory: whoever watches a mailbox asks for them next.

UIDs are given out one after the other, so what came to a mailbox through this process is a list; where
another process came between, or a message went, it begins anew.  Outlines never change.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict

from mailplat.uids import UIDSet
from mailplat.values import Records


class Arrivals:
    """The last messages of one mailbox, the first of which has the UID `first`."""

    __slots__ = ("first", "records", "size")

    def __init__(self, first: int) -> None:
        self.first = first
        self.records: list[bytes] = []
        self.size = 0


class Fresh:
    """
    Arrivals by mailbox; the mailbox where nothing came for longest goes first.

    Args:
        most: octets that are kept.
    """

    def __init__(self, most: int = 16 * 1024 * 1024) -> None:
        self._most = most
        self._size = 0
        self._arrivals: OrderedDict[int, Arrivals] = OrderedDict()

    def add(self, mailbox: int, uid: int, outline: bytes) -> None:
        """A message was committed."""
        arrivals = self._arrivals.get(mailbox)
        if arrivals is None or uid != arrivals.first + len(arrivals.records):
            self.forget(mailbox)
            arrivals = self._arrivals[mailbox] = Arrivals(uid)
        arrivals.records.append(outline)
        size = len(outline) + _OVERHEAD
        arrivals.size += size
        self._size += size
        self._arrivals.move_to_end(mailbox)
        while self._size > self._most:
            self.forget(next(iter(self._arrivals)))

    def forget(self, mailbox: int) -> None:
        """The mailbox is gone, or nobody needs it."""
        arrivals = self._arrivals.pop(mailbox, None)
        if arrivals is not None:
            self._size -= arrivals.size

    def has(self, mailbox: int, first: int, last: int) -> bool:
        """All messages with these UIDs are known, whatever became of them."""
        known = self._arrivals.get(mailbox)
        return known is not None and known.first <= first and last < known.first + len(known.records)

    def records(self, mailbox: int, uids: UIDSet) -> Records | None:
        """
        Those of these messages, and of others between them; None if not all of them are known.

        Args:
            uids: at least one.
        """
        if not self.has(mailbox, uids.first, uids.last):
            return None
        arrivals = self._arrivals[mailbox]
        start, stop = uids.first - arrivals.first, uids.last + 1 - arrivals.first
        return Records(array("I", range(uids.first, uids.last + 1)), arrivals.records[start:stop])


#: What a record takes beside its octets: an object's head, and its place in a list.
_OVERHEAD = 48
