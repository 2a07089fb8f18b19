"""
Reading messages for FETCH and SEARCH, a bounded piece at a time.

Small messages come many in one call where the mailbox can do that (`IReadsMany`); of larger
ones only ranges are read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import Any

from mailplat.errors import NoSuchMessage
from mailplat.interfaces import IReadsMany
from mailplat.uids import UIDSet

#: The most that is read, held and written at a time, in octets.  Messages up to this size are read whole,
#: as many together as fit; of larger ones ranges.
PIECE = 128 * 1024

#: So many messages are named in one call, at most.
MANY = 256


class Source:
    """
    The bytes of one message, in memory or to be read.

    Attributes:
        uid: the message.
        data: all of it, if it is in memory.
        size: octets, prefix and body.
    """

    __slots__ = ("_content", "data", "size", "uid")

    def __init__(self, uid: int, data: bytes | None, content: Any = None) -> None:
        self.uid = uid
        self.data = data
        self._content = content
        self.size: int = len(data) if data is not None else content.size

    async def read(self, start: int, length: int) -> bytes:
        """These bytes, fewer only where the message ends before.  Whoever asks bounds `length`."""
        if self.data is not None:
            return self.data[start : start + length]
        if length <= PIECE:
            data: bytes = await self._content.read(start, length)
            return data
        end = min(start + length, self.size)
        pieces = [
            await self._content.read(place, min(PIECE, end - place)) for place in range(start, end, PIECE)
        ]
        return b"".join(pieces)

    def close(self) -> None:
        """No more reads will come."""
        if self._content is not None:
            self._content.close()


async def sources(
    mailbox: Any, uids: Sequence[int], sizes: Sequence[int], start: int = 0
) -> list[Source | None]:
    """
    The messages from position `start` on, as many as fit in one piece, at least one.

    Args:
        uids: ascending.
        sizes: their octets.

    Returns:
        None for a message that is gone.  The caller closes each.
    """
    if sizes[start] > PIECE or not IReadsMany.providedBy(mailbox):
        return [await _open(mailbox, uids[start])]
    fitting = takewhile(PIECE.__ge__, accumulate(sizes[start : start + MANY]))
    wanted = uids[start : start + len(list(fitting))]
    found = dict(await mailbox.contents(UIDSet.of(wanted), PIECE))
    if not found:
        # It is gone, or does not fit because the store counts otherwise.
        return [await _open(mailbox, uids[start])]
    # What is missing before the last one found is gone; what comes after it may not have fitted.
    there = wanted[: bisect_right(wanted, max(found))]
    return [Source(uid, found[uid]) if uid in found else None for uid in there]


async def _open(mailbox: Any, uid: int) -> Source | None:
    try:
        return Source(uid, None, await mailbox.content(uid))
    except NoSuchMessage:
        return None
