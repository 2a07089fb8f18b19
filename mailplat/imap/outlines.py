"""
What is known of messages without reading them: their outlines, and what FETCH says of those.

A message is scanned again if its store kept no outline of it, and the records of such
messages stay in a cache.  ENVELOPE, BODY and BODYSTRUCTURE are cut out of records; what was
cut out stays in another one, shared by all connections, as the next client of a mailbox asks
for the same.  Messages never change, so nothing in them grows old.  Both are bounded by octets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import compress, islice

from twisted.internet.defer import Deferred

from mailplat.errors import NoSuchMessage
from mailplat.imap.commands import Item
from mailplat.imap.kept import Kept
from mailplat.imap.reading import PIECE, Source, sources
from mailplat.imap.texts import Block, TextsOf
from mailplat.imap.view import MailboxView
from mailplat.message.outline import VERSION, rendered_body, rendered_bodystructure, rendered_envelope
from mailplat.message.structure import Scanner
from mailplat.uids import UIDSet
from mailplat.values import Outlined

#: Outlines asked for in one call.
OUTLINES = 256

#: Where only envelopes are looked at: so many are read together, and so many looked at in one go.
READ = 1024
AT_ONCE = 64

#: Lets others run if this turn has lasted long enough (`Wire.pause`).
Pause = Callable[[], Awaitable[None]]

#: How the forms that a record holds are cut out of it.
CUT: Mapping[Item, Callable[[bytes], bytes]] = {
    Item.ENVELOPE: rendered_envelope,
    Item.BODY: rendered_body,
    Item.BODYSTRUCTURE: rendered_bodystructure,
}


class Outlines:
    """
    Outline records by message for those that their store does not keep, and forms of all.

    Args:
        most: octets of records that are kept; the one not used for longest goes first.
        most_forms: octets of forms, likewise.
        most_texts: octets of what was searched, likewise.
    """

    def __init__(
        self,
        most: int = 8 * 1024 * 1024,
        most_forms: int = 48 * 1024 * 1024,
        most_texts: int = 16 * 1024 * 1024,
    ) -> None:
        self._records: Kept[bytes] = Kept(most)
        self._texts: Kept[Block] = Kept(most_texts)
        self._forms = Forms(most_forms)

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

    async def forms(
        self,
        view: MailboxView,
        kinds: Sequence[Item],
        uids: Sequence[int],
        sizes: Sequence[int],
        pause: Pause,
    ) -> list[list[bytes | None]]:
        """
        ENVELOPE, BODY or BODYSTRUCTURE of some messages.

        Args:
            uids: of `OUTLINES` messages or fewer, ascending.
            sizes: their octets.

        Returns:
            for each of `kinds` what `CUT` makes of each message; None for one that is gone.
        """
        found = [self._forms.get(view.number, kind, uids) for kind in kinds]
        unknown = [None in forms for forms in zip(*found, strict=True)]
        if not any(unknown):
            return found
        records = await self._read(view, list(compress(uids, unknown)), list(compress(sizes, unknown)), pause)
        for index, kind in enumerate(kinds):
            made = dict(zip(records, map(CUT[kind], records.values()), strict=True))
            self._forms.keep(view.number, kind, made)
            # What was made, else what was kept.
            found[index] = list(map(made.get, uids, found[index]))
        return found

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

        def ahead(start: int) -> Deferred[Sequence[bytes | None]]:
            """The next envelopes, which are being read while texts are made of others."""
            wanted = unknown[start : start + READ]
            reading = self._envelopes(view, wanted, [size_of[uid] for uid in wanted], pause)
            return Deferred.fromCoroutine(reading)

        reading = ahead(0)
        try:
            for start in range(0, len(unknown), READ):
                envelopes = await reading
                reading = ahead(start + READ)
                there += compress(unknown[start : start + READ], envelopes)
                left = iter([envelope for envelope in envelopes if envelope is not None])
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
                first, last = (bisect_left(there, edge * _BLOCK) for edge in (number, number + 1))
                block = block.joined_by(there[first:last], texts[first:last])
                self._texts.keep((view.number, texts_of, number), block)
            blocks.append(block)
        return blocks, sorted(set(unknown).difference(there))

    async def _envelopes(
        self, view: MailboxView, uids: Sequence[int], sizes: Sequence[int], pause: Pause
    ) -> Sequence[bytes | None]:
        """ENVELOPE of each message, None for one that is gone."""
        if not uids:
            return ()
        records = await self._read(view, uids, sizes, pause)
        return [rendered_envelope(records[uid]) if uid in records else None for uid in uids]

    async def _read(
        self, view: MailboxView, uids: Sequence[int], sizes: Sequence[int], pause: Pause
    ) -> dict[int, bytes]:
        """The records of these messages by UID, ascending; of those that are still there."""
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
        return {uid: record for uid, record in found.items() if record is not None}


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


_CURRENT = bytes([VERSION])
