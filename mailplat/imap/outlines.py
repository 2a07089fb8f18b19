"""
What is known of messages without reading them: their outlines, and what FETCH and SEARCH say of those.

Outlines are read for many messages at once, and ENVELOPE, BODY and BODYSTRUCTURE are cut out of all
of them together.  A message is scanned again if its store kept no outline of it, and the records of
such messages stay in a cache.  What SEARCH had cut out stays in another one, shared by all
connections, as the next client of a mailbox asks for the same.  Messages never change, so nothing
in them grows old.  Both are bounded by octets.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import compress

from mailplat.errors import NoSuchMessage
from mailplat.imap.commands import Item
from mailplat.imap.derived import BlockForms
from mailplat.imap.kept import Kept
from mailplat.imap.reading import PIECE, Source, sources
from mailplat.imap.view import MailboxView, Rows
from mailplat.interfaces import IReadsOutlines
from mailplat.message import outline
from mailplat.message.structure import Scanner
from mailplat.uids import UIDSet
from mailplat.values import Outlined, Records

#: Messages that are looked at together.
OUTLINES = 256

#: Lets others run if this turn has lasted long enough (`Wire.pause`).
Pause = Callable[[], Awaitable[None]]

#: What a record holds for each of these.
FORMS: Mapping[Item, int] = {
    Item.ENVELOPE: outline.ENVELOPE,
    Item.BODY: outline.BODY,
    Item.BODYSTRUCTURE: outline.BODYSTRUCTURE,
}


class Outlines:
    """
    Outline records by message for those that their store does not keep, and forms of all.

    Args:
        most: octets of records that are kept; the one not used for longest goes first.
        most_forms: octets of forms, likewise.

    Attributes:
        blocks: what mailboxes keep.
    """

    def __init__(self, most: int = 8 * 1024 * 1024, most_forms: int = 48 * 1024 * 1024) -> None:
        self._records = Kept(most)
        self._forms = Forms(most_forms)
        self.blocks = BlockForms()

    async def record(self, view: int, outlined: Outlined, source: Source | None, pause: Pause) -> bytes:
        """
        The record of a message.

        Args:
            view: the number of the mailbox's view (`MailboxView.number`).
            source: opened if it is None and needed.

        Raises:
            NoSuchMessage.
        """
        record = self.known(view, outlined)
        if record is not None:
            return record
        if source is None:
            raise NoSuchMessage()
        scanner = Scanner()
        for start in range(outlined.prefix_size, source.size, PIECE):
            scanner.feed(await source.read(start, PIECE))
            await pause()
        record = scanner.finish().to_bytes()
        self._records.keep((view, outlined.uid), record)
        return record

    def known(self, view: int, outlined: Outlined) -> bytes | None:
        """The record if it can be had without a source."""
        if outlined.outline is not None and outlined.outline[:1] == _CURRENT:
            return outlined.outline
        return self._records.get((view, outlined.uid))

    async def read(
        self, view: MailboxView, kinds: Sequence[Item], pieces: Sequence[Rows]
    ) -> tuple[list[list[bytes] | None], Records]:
        """
        What can be had of some messages by reading many at once; `cut` sees to the others.

        Args:
            kinds: ENVELOPE, BODY or BODYSTRUCTURE.
            pieces: each of `OUTLINES` messages or fewer.

        Returns:
            as `BlockForms.ready`; and records of the messages in the pieces that are not.
        """
        ready = await self.blocks.ready(view, kinds, pieces)
        left = [rows for rows, forms in zip(pieces, ready, strict=True) if forms is None]
        return ready, await _records(view, UIDSet(run for rows in left for run in rows.runs()))

    async def cut(
        self, view: MailboxView, records: Records, kinds: Sequence[Item], rows: Rows, pause: Pause
    ) -> Sequence[Sequence[bytes | None]]:
        """
        Args:
            records: of these messages and others.

        Returns:
            for each of `kinds` the form of each message; None for one that is gone.
        """
        uids, sizes = rows.columns.uids, rows.columns.sizes
        forms = _cut(records, kinds, uids)
        if forms is None:
            return await self._scanned(view, kinds, uids, sizes, pause)
        self.blocks.keep(view, rows, kinds, forms)
        await self.blocks.hand_over()
        return forms

    async def forms(
        self,
        view: MailboxView,
        kinds: Sequence[Item],
        uids: Sequence[int],
        sizes: Sequence[int],
        pause: Pause,
    ) -> list[list[bytes | None]]:
        """
        As `cut`, and what was made is kept in memory.

        Args:
            uids: of `OUTLINES` messages or fewer, ascending.
            sizes: their octets.
        """
        found = [self._forms.get(view.number, kind, uids) for kind in kinds]
        unknown = [None in forms for forms in zip(*found, strict=True)]
        if not any(unknown):
            return found
        uids_left, sizes_left = list(compress(uids, unknown)), list(compress(sizes, unknown))
        records = await _records(view, UIDSet.of(uids_left))
        forms: Sequence[Sequence[bytes | None]] | None = _cut(records, kinds, uids_left)
        if forms is None:
            forms = await self._scanned(view, kinds, uids_left, sizes_left, pause)
        for index, kind in enumerate(kinds):
            made = {
                uid: form for uid, form in zip(uids_left, forms[index], strict=True) if form is not None
            }
            self._forms.keep(view.number, kind, made)
            # What was made, else what was kept.
            found[index] = list(map(made.get, uids, found[index]))
        return found

    async def _scanned(
        self,
        view: MailboxView,
        kinds: Sequence[Item],
        uids: Sequence[int],
        sizes: Sequence[int],
        pause: Pause,
    ) -> list[list[bytes | None]]:
        """As `cut`, message by message; those of which no outline is kept are read."""
        listed: Sequence[Outlined] = await view.mailbox.outlines(UIDSet.of(uids))
        found = {one.uid: self.known(view.number, one) for one in listed}
        size_of = dict(zip(uids, sizes, strict=True))
        unscanned = [one for one in listed if found[one.uid] is None]
        while unscanned:
            wanted = [one.uid for one in unscanned]
            opened = await sources(view.mailbox, wanted, [size_of[uid] for uid in wanted])
            try:
                for one, source in zip(unscanned, opened, strict=False):
                    if source is not None:
                        found[one.uid] = await self.record(view.number, one, source, pause)
            finally:
                for source in opened:
                    if source is not None:
                        source.close()
            del unscanned[: len(opened)]
        records = list(map(found.get, uids))
        return [
            [None if record is None else outline.rendered(record, FORMS[kind]) for record in records]
            for kind in kinds
        ]


async def _records(view: MailboxView, uids: UIDSet) -> Records:
    """The records of these messages, none if their mailbox cannot read many."""
    if not uids or not IReadsOutlines.providedBy(view.mailbox):
        return _NO_RECORDS
    records: Records = await view.mailbox.records(uids)
    return records


def _cut(records: Records, kinds: Sequence[Item], uids: Sequence[int]) -> list[list[bytes]] | None:
    """What `kinds` have of these messages, ascending; None if not all of them are among the records."""
    start, stop = bisect_left(records.uids, uids[0]), bisect_right(records.uids, uids[-1])
    some = records.records[start:stop]
    if records.uids[start:stop] != array("I", uids):
        there = dict(zip(records.uids, records.records, strict=True))
        some = [there.get(uid, b"") for uid in uids]
    try:
        return outline.rendered_many(some, [FORMS[kind] for kind in kinds])
    except outline.BadRecord:
        # Such as none, or one of an earlier version.
        return None


#: Messages with UIDs that differ only in the low bits are neighbours.
_BLOCK = 256

#: What a form takes beside its octets: an object's head, and its place in a block.
_OVERHEAD = 40


class Forms:
    """
    Octets by message and kind, in blocks of neighbours; the block not used for longest goes first.

    Args:
        most: octets that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._blocks: OrderedDict[tuple[int, Item, int], list[bytes | None]] = OrderedDict()

    def get(self, view: int, kind: Item, uids: Sequence[int]) -> list[bytes | None]:
        """
        Args:
            uids: ascending.

        Returns:
            None for those that are not kept.
        """
        found: list[bytes | None] = []
        for number, some in _neighbours(uids):
            key = (view, kind, number)
            block = self._blocks.get(key)
            if block is None:
                found += [None] * len(some)
            else:
                self._blocks.move_to_end(key)
                found += map(block.__getitem__, map((_BLOCK - 1).__and__, some))
        return found

    def keep(self, view: int, kind: Item, forms: Mapping[int, bytes]) -> None:
        """Keep these, by UID, ascending."""
        for number, some in _neighbours(list(forms)):
            key = (view, kind, number)
            block = self._blocks.pop(key, None)
            if block is None:
                block = [None] * _BLOCK
            else:
                self._size -= _cost(block)
            for uid in some:
                block[uid & _BLOCK - 1] = forms[uid]
            self._blocks[key] = block
            self._size += _cost(block)
        while self._size > self._most:
            _, block = self._blocks.popitem(last=False)
            self._size -= _cost(block)


def _neighbours(uids: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """The UIDs of each block among some that ascend, with the block's number."""
    start = 0
    while start < len(uids):
        number = uids[start] // _BLOCK
        stop = bisect_left(uids, (number + 1) * _BLOCK, start)
        yield number, uids[start:stop]
        start = stop


def _cost(block: list[bytes | None]) -> int:
    return sum(map(len, filter(None, block))) + _OVERHEAD * _BLOCK


_CURRENT = bytes([outline.VERSION])

_NO_RECORDS = Records(array("I"), ())
