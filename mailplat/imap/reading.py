"""
Reading messages for FETCH and SEARCH, a bounded piece at a time.

Small messages come many in one call where the mailbox can do that (`IReadsMany`); of larger
ones only ranges are read.  A message is scanned again if its store kept no outline of it,
and the records of such messages stay in a cache bounded by its octets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mailplat.errors import NoSuchMessage
from mailplat.interfaces import IReadsMany
from mailplat.message.outline import VERSION
from mailplat.message.structure import Scanner
from mailplat.uids import UIDSet
from mailplat.values import Outlined

#: The most that is read, held and written at a time, in octets.
PIECE = 128 * 1024

#: Messages up to this size are read whole, many together; of larger ones ranges.
SMALL = 32 * 1024

#: Outlines asked for in one call.
OUTLINES = 250

#: Lets others run if this turn has lasted long enough (`Wire.pause`).
Pause = Callable[[], Awaitable[None]]


class Source:
    """
    The bytes of one message, in memory or to be read.

    Attributes:
        uid: the message.
        size: octets, prefix and body.
    """

    __slots__ = ("_content", "_data", "size", "uid")

    def __init__(self, uid: int, data: bytes | None, content: Any = None) -> None:
        self.uid = uid
        self._data = data
        self._content = content
        self.size: int = len(data) if data is not None else content.size

    async def read(self, start: int, length: int) -> bytes:
        """These bytes, fewer only where the message ends before.  Whoever asks bounds `length`."""
        if self._data is not None:
            return self._data[start : start + length]
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
    stop = start
    if IReadsMany.providedBy(mailbox):
        room = PIECE
        while stop < len(uids) and sizes[stop] <= SMALL and sizes[stop] <= room:
            room -= sizes[stop]
            stop += 1
    if stop <= start + 1:
        return [await _open(mailbox, uids[start])]
    wanted = uids[start:stop]
    found = dict(await mailbox.contents(UIDSet.of(wanted), PIECE))
    # What is missing is gone, or did not fit because the store counts otherwise.
    return [Source(uid, found[uid]) if uid in found else await _open(mailbox, uid) for uid in wanted]


async def _open(mailbox: Any, uid: int) -> Source | None:
    try:
        return Source(uid, None, await mailbox.content(uid))
    except NoSuchMessage:
        return None


class Outlines:
    """
    Outline records by message, for those that their store does not keep.

    Args:
        most: octets of records that are kept; the one not used for longest goes first.
    """

    def __init__(self, most: int = 8 * 1024 * 1024) -> None:
        self._most = most
        self._size = 0
        self._records: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    async def record(self, view: int, outlined: Outlined, source: Source | None, pause: Pause) -> bytes:
        """
        The record of a message.

        Args:
            view: the number of the mailbox's view (`MailboxView.number`).
            source: opened if it is None and needed.

        Raises:
            NoSuchMessage.
        """
        if outlined.outline is not None and outlined.outline[:1] == _CURRENT:
            return outlined.outline
        key = (view, outlined.uid)
        record = self._records.get(key)
        if record is not None:
            self._records.move_to_end(key)
            return record
        if source is None:
            raise NoSuchMessage()
        scanner = Scanner()
        for start in range(outlined.prefix_size, source.size, PIECE):
            scanner.feed(await source.read(start, PIECE))
            await pause()
        record = scanner.finish().to_bytes()
        # Somebody else may have scanned it meanwhile.
        self._size += len(record) - len(self._records.pop(key, b""))
        self._records[key] = record
        while self._size > self._most and len(self._records) > 1:
            _, dropped = self._records.popitem(last=False)
            self._size -= len(dropped)
        return record

    def has(self, view: int, outlined: Outlined) -> bool:
        """`record` will not need a source."""
        current = outlined.outline is not None and outlined.outline[:1] == _CURRENT
        return current or (view, outlined.uid) in self._records


_CURRENT = bytes([VERSION])
