"""
What is known of messages without reading them: their outlines, and what FETCH and SEARCH say of those.

Outlines are read for many messages at once, and ENVELOPE, BODY and BODYSTRUCTURE are cut out of all
of them together; whole blocks of them the mailbox may keep (`imap/derived`).  A message is scanned
again if its store kept no outline of it, and the records of such messages stay in a cache; so do the
texts that SEARCH looks at.  Messages never change, so nothing in them grows old.  Both are bounded by
octets.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import compress, islice

from twisted.internet.defer import Deferred

from mailplat.errors import NoSuchMessage
from mailplat.imap.commands import Item
from mailplat.imap.derived import BlockForms
from mailplat.imap.kept import Kept
from mailplat.imap.reading import PIECE, Source, sources
from mailplat.imap.texts import Block, TextsOf
from mailplat.imap.view import MailboxView, Rows
from mailplat.interfaces import IReadsOutlines
from mailplat.message import outline
from mailplat.message.structure import Scanner
from mailplat.uids import UIDSet
from mailplat.values import BLOCK, Outlined, Records, block_of

#: Messages that are looked at together.
OUTLINES = 256

#: Where only envelopes are looked at: so many are read together, and so many looked at in one go.
READ = 1024
AT_ONCE = 64

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
    Outline records by message for those that their store does not keep, and texts of all.

    Args:
        most: octets of records that are kept; the one not used for longest goes first.
        most_texts: octets of what was searched, likewise.

    Attributes:
        blocks: what mailboxes keep.
    """

    def __init__(self, most: int = 8 * 1024 * 1024, most_texts: int = 16 * 1024 * 1024) -> None:
        self._records: Kept[bytes] = Kept(most)
        self._texts: Kept[Block] = Kept(most_texts)
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

    async def texts(
        self,
        view: MailboxView,
        texts_of: TextsOf,
        uids: Sequence[int],
        sizes: Sequence[int],
        pause: Pause,
    ) -> tuple[list[Block], Sequence[int]]:
        """
        What the envelopes of some messages say.

        Args:
            texts_of: makes it of some envelopes.
            uids: array("I") of some thousand, ascending.
            sizes: their octets.

        Returns:
            the texts of these messages and of others, and the UIDs of those that are gone.
        """
        found = []
        unknown: list[int] = []
        for number, some in _neighbours(uids):
            block = self._texts.get((view.number, texts_of, number)) or Block((), ())
            lacking = [] if block.uids == some else sorted(set(some).difference(block.uids))
            found.append((number, block, lacking))
            unknown += lacking
        if not unknown:
            return [block for _, block, _ in found], ()
        there: list[int] = []
        texts: list[bytes | None] = []
        size_of = dict(zip(uids, sizes, strict=True))

        def ahead(start: int) -> Deferred[Records]:
            """The next records, which are being read while texts are made of others."""
            return Deferred.fromCoroutine(_records(view, UIDSet.of(unknown[start : start + READ])))

        reading = ahead(0)
        try:
            for start in range(0, len(unknown), READ):
                wanted = unknown[start : start + READ]
                records = await reading
                reading = ahead(start + READ)
                forms: Sequence[Sequence[bytes | None]] | None = _cut(records, [Item.ENVELOPE], wanted)
                if forms is None:
                    some_sizes = [size_of[uid] for uid in wanted]
                    forms = await self._scanned(view, [Item.ENVELOPE], wanted, some_sizes, pause)
                there += compress(wanted, forms[0])
                left = iter([envelope for envelope in forms[0] if envelope is not None])
                while now := list(islice(left, AT_ONCE)):
                    texts += texts_of(now)
                    await pause()
        finally:
            # Of what is read and not looked at any more, nobody needs to hear.
            reading.addErrback(lambda _: None)
            reading.cancel()
        blocks = []
        for number, block, lacking in found:
            if lacking:
                first, last = (bisect_right(there, edge * BLOCK) for edge in (number - 1, number))
                block = block.joined_by(there[first:last], texts[first:last])
                self._texts.keep((view.number, texts_of, number), block)
            blocks.append(block)
        return blocks, sorted(set(unknown).difference(there))

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


def _neighbours(uids: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """The UIDs of each block among some that ascend, with the block's number."""
    start = 0
    while start < len(uids):
        number = block_of(uids[start])
        stop = bisect_right(uids, number * BLOCK, start)
        yield number, uids[start:stop]
        start = stop


_CURRENT = bytes([outline.VERSION])

_NO_RECORDS = Records(array("I"), ())
