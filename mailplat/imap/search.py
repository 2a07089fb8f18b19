"""
SEARCH: which messages of a mailbox meet a criterion (RFC 3501 §6.4.4).

The rows are looked at a few thousand at a time.  For each such piece a criterion says of
every row whether it certainly holds, and whether it may hold; both are integers with one
octet a row, so that AND, OR and NOT are single operations on large numbers.  What flags,
dates, sizes and numbers decide is decided there, at the speed of C.  Of messages of which it is
not known yet the envelopes are looked at, for SENT... and SUBJECT, some hundred at a time; what they
say is kept in a form in which it is quickly looked for again (`texts`).  Only those that are still
open are read: their header, and last their text.

Dates of arrival are compared by their day in UTC; the day of a Date field is the one that
stands there, whatever its zone.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from email.utils import parsedate
from itertools import chain, compress, starmap
from sys import byteorder
from typing import Any

from mailplat.imap import commands
from mailplat.imap.commands import Key, When
from mailplat.imap.outlines import OUTLINES, Outlines, Pause
from mailplat.imap.reading import PIECE, Source, sources
from mailplat.imap.responses import number_words
from mailplat.imap.texts import Block, TextsOf, folded, folded_words
from mailplat.imap.view import Rows, Selected
from mailplat.interfaces import ISearches
from mailplat.message import addresses, headers, sections
from mailplat.message.outline import BadRecord, Outline, header_size
from mailplat.message.rendering import subjects_of
from mailplat.uids import UIDSet
from mailplat.values import SYSTEM_FLAGS, Outlined

#: Rows looked at in one step.
STEP = 4096

_EPOCH = date(1970, 1, 1).toordinal()
_DAY = 86400

#: Bit -> table that makes 1 of octets with this bit set, and 0 of others.
_HAS_BIT = [bytes(octet >> bit & 1 for octet in range(256)) for bit in range(8)]


class Found:
    """
    What a search found: sequence numbers or UIDs, ascending.

    Attributes:
        first_modseq: the modseq of the first, 0 if there is none or none was asked for.
        last_modseq: the modseq of the last.
        highest_modseq: the greatest of all.
    """

    __slots__ = ("_pieces", "first_modseq", "highest_modseq", "last_modseq")

    def __init__(self) -> None:
        self._pieces: list[tuple[Sequence[int], bytes]] = []
        self.first_modseq = 0
        self.last_modseq = 0
        self.highest_modseq = 0

    def add(self, numbers: Sequence[int], mask: bytes) -> None:
        """Those of the next numbers, ascending, where the mask is 1 and not 0."""
        self._pieces.append((numbers, mask))

    @property
    def numbers(self) -> array[int]:
        """All of them."""
        return array("I", chain.from_iterable(starmap(compress, self._pieces)))

    @property
    def words(self) -> bytes:
        """All of them as text, with a space before each."""
        return b"".join(starmap(number_words, self._pieces))


async def search(
    selected: Selected, key: Key, by_uid: bool, outlines: Outlines, pause: Pause, modseqs: bool = False
) -> Found:
    """
    The messages that meet `key`.

    Args:
        by_uid: answer with UIDs rather than sequence numbers.
        pause: awaited between steps.
        modseqs: find those of the messages, too.

    Raises:
        what the mailbox raises.
    """
    searching = _Searching(compiled(key, selected), selected, outlines, pause)
    found = Found()
    everything = UIDSet(((1, selected.last),))
    for rows in selected.pieces(everything, STEP):
        chosen = await searching.chosen(rows)
        if chosen:
            mask = chosen.to_bytes(len(rows.columns), "little")
            if modseqs:
                some = array("Q", compress(rows.columns.modseqs, mask))
                found.first_modseq = found.first_modseq or some[0]
                found.last_modseq = some[-1]
                found.highest_modseq = max(found.highest_modseq, max(some))
            found.add(rows.columns.uids if by_uid else rows.numbers, mask)
        await pause()
    return found


@dataclass(frozen=True, slots=True)
class _Searching:
    """What stays the same during one search."""

    criterion: Criterion
    selected: Selected
    outlines: Outlines
    pause: Pause

    async def chosen(self, rows: Rows) -> int:
        """The mask of the rows that meet the criterion."""
        criterion, mailbox = self.criterion, self.selected.view.mailbox
        ones = _ones(len(rows.columns))
        certain, possible = criterion.bounds(rows, ones)
        unknown = possible & ~certain
        if unknown and ISearches.providedBy(mailbox):
            uids = compress(rows.columns.uids, unknown.to_bytes(len(rows.columns), "little"))
            await criterion.look_up(mailbox, UIDSet.of(uids), rows)
            certain, possible = criterion.bounds(rows, ones)
            unknown = possible & ~certain
        if unknown and criterion.asks_envelopes:
            await criterion.see(self, rows, unknown.to_bytes(len(rows.columns), "little"))
            certain, possible = criterion.bounds(rows, ones)
            unknown = possible & ~certain
        if not unknown:
            return certain
        matching = bytearray(len(rows.columns))
        for indexes in _some(rows, unknown):
            await self._look_at(rows, indexes, matching)
            await self.pause()
        return certain | int.from_bytes(matching, "little")

    def texts(
        self, rows: Rows, mask: bytes, texts_of: TextsOf
    ) -> Awaitable[tuple[list[Block], Sequence[int]]]:
        """As `Outlines.texts`, of the rows where the mask is 1."""
        uids = array("I", compress(rows.columns.uids, mask))
        sizes = array("Q", compress(rows.columns.sizes, mask))
        return self.outlines.texts(self.selected.view, texts_of, uids, sizes, self.pause)

    async def _look_at(self, rows: Rows, indexes: list[int], matching: bytearray) -> None:
        """Decide about the rows at these indexes by their messages."""
        uids, sizes = rows.columns.uids, rows.columns.sizes
        listed = await self.selected.view.mailbox.outlines(UIDSet.of([uids[index] for index in indexes]))
        outlined = {one.uid: one for one in listed}
        # Those that are gone by now meet nothing.
        to_read = [index for index in indexes if uids[index] in outlined]
        while to_read:
            opened = await sources(
                self.selected.view.mailbox,
                [uids[index] for index in to_read],
                [sizes[index] for index in to_read],
            )
            try:
                for index, source in zip(to_read, opened, strict=False):
                    if source is not None:
                        message = self._message(outlined[source.uid], source)
                        matching[index] = await self.criterion.holds(index, message)
                        await self.pause()
            finally:
                for source in opened:
                    if source is not None:
                        source.close()
            del to_read[: len(opened)]

    def _message(self, outlined: Outlined, source: Source) -> _Message:
        return _Message(outlined, source, self.selected.view.number, self.outlines, self.pause)


def _ones(length: int) -> int:
    return int.from_bytes(b"\1" * length, "little")


def _some(rows: Rows, mask: int) -> Iterator[list[int]]:
    """Where the mask is set, some hundred at a time."""
    length = len(rows.columns)
    wanted = list(compress(range(length), mask.to_bytes(length, "little")))
    for start in range(0, len(wanted), OUTLINES):
        yield wanted[start : start + OUTLINES]


# Messages, read as far as needed


class _Message:
    """A message whose header and text are read when somebody asks."""

    __slots__ = ("_fields", "_outlined", "_outlines", "_pause", "_record", "_source", "_view")

    def __init__(
        self, outlined: Outlined, source: Source, view: int, outlines: Outlines, pause: Pause
    ) -> None:
        self._outlined = outlined
        self._source = source
        self._view = view
        self._outlines = outlines
        self._pause = pause
        self._record: bytes | None = None
        self._fields: list[tuple[bytes, bytes]] | None = None

    async def record(self) -> bytes:
        if self._record is None:
            self._record = await self._outlines.record(self._view, self._outlined, self._source, self._pause)
        return self._record

    async def fields(self) -> list[tuple[bytes, bytes]] | None:
        """(name in lower case, value) of each header field; None if the header is too large for that."""
        if self._fields is None:
            size = await self._header_size()
            if size > PIECE:
                return None
            self._fields = headers.fields(await self._source.read(0, size))
        return self._fields

    async def large_fields(self) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """The same, some at a time."""
        async for piece in self._header_pieces(0, await self._header_size()):
            yield headers.fields(piece)

    async def header_has(self, wanted: str) -> bool:
        """The header contains `wanted`, which is case-folded and not empty."""
        return await self._decoded_has(0, await self._header_size(), wanted)

    async def _header_size(self) -> int:
        """Octets of the header as clients see it, its blank line included."""
        return self._outlined.prefix_size + header_size(await self.record())

    async def _header_pieces(self, start: int, length: int) -> AsyncIterator[bytes]:
        """A header in pieces that end where a field ends, as long as it has ends."""
        rest = b""
        end = start + length
        while start < end:
            raw = rest + await self._source.read(start, min(PIECE, end - start))
            start += PIECE
            cut = len(raw)
            if start < end:
                ends = _LAST_FIELD_END.match(raw)
                cut = ends.end() if ends is not None else cut
            rest = raw[cut:]
            yield raw[:cut]
            await self._pause()

    async def _decoded_has(self, start: int, length: int, wanted: str) -> bool:
        before = ""
        async for raw in self._header_pieces(start, length):
            text = before + headers.decode_words(_unfolded(raw)).casefold()
            if wanted in text:
                return True
            before = _tail(text, wanted)
        return False

    async def body_has(self, wanted: str) -> bool:
        """Some text in the body contains `wanted`, which is case-folded and not empty."""
        data, record = self._source.data, await self.record()
        # Most messages can be passed over without taking them apart.
        if data is not None and sections.as_it_stands(record, data.isascii()) and not _contains(data, wanted):
            return False
        outline = Outline.from_bytes(record)
        for place in sections.searchable(outline, self._outlined.prefix_size):
            if place.header:
                if await self._decoded_has(place.start, place.length, wanted):
                    return True
            elif await self._text_has(place, wanted):
                return True
        return False

    async def _text_has(self, place: sections.Searchable, wanted: str) -> bool:
        decoder = sections.TextDecoder(place.encoding, place.charset)
        end = place.start + place.length
        before = ""
        for start in range(place.start, end, PIECE):
            raw = await self._source.read(start, min(PIECE, end - start))
            text = decoder.feed(raw)
            if start + PIECE >= end:
                text += decoder.finish()
            text = before + text.casefold()
            if wanted in text:
                return True
            before = _tail(text, wanted)
            await self._pause()
        return False


#: The last line end that no white space follows.
_LAST_FIELD_END = re.compile(rb"[\s\S]*\n(?=[^ \t])")


def _tail(text: str, wanted: str) -> str:
    """The end of a piece of text in which `wanted` may have begun."""
    return text[-(len(wanted) - 1) :] if len(wanted) > 1 else ""


def _contains(data: bytes, wanted: str) -> bool:
    """UTF-8 contains a text, which is case-folded."""
    if data.isascii():
        return wanted.isascii() and wanted.encode() in data.lower()
    return wanted in data.decode("utf-8", "replace").casefold()


def _unfolded(raw: bytes) -> bytes:
    return raw.replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")


def _subjects(envelopes: Sequence[bytes]) -> Sequence[bytes | None]:
    return folded_words(subjects_of(envelopes))


def _stated_days(envelopes: Sequence[bytes]) -> Sequence[bytes | None]:
    return list(map(_stated_day, envelopes))


def _stated_day(envelope: bytes) -> bytes | None:
    """The day of the Date field, which is the first of ENVELOPE (RFC 3501 §7.4.2), as 2024-12-31."""
    if not envelope.startswith(b'("'):
        return None
    text = envelope[2 : envelope.find(b'"', 2)][:100].decode("latin-1")
    try:
        parsed = parsedate(text)
        return _day(date(*parsed[:3])) if parsed is not None else None
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


def _day(day: date) -> bytes:
    return day.isoformat().encode()


# Criteria

#: What has to be read of a message before a criterion can be decided, cheapest first.
_NOTHING, _ENVELOPE, _HEADER, _BODY = range(4)


class Criterion:
    """
    Part of a search.

    Attributes:
        need: what has to be read of messages that `bounds` leaves open.
        asks_envelopes: envelopes decide something.
    """

    need = _NOTHING
    asks_envelopes = False

    def bounds(self, rows: Rows, ones: int) -> tuple[int, int]:
        """Masks of the rows for which it holds certainly, and possibly."""
        return 0, ones

    async def look_up(self, mailbox: Any, among: UIDSet, rows: Rows) -> None:
        """Ask a mailbox that has an index over text (`ISearches`)."""

    async def see(self, searching: _Searching, rows: Rows, mask: bytes) -> None:
        """Look at the envelopes of the rows where the mask is 1."""

    async def holds(self, index: int, message: _Message) -> bool:
        """Whether it holds for a row of the last `bounds`, reading the message if need be."""
        raise AssertionError("a criterion that bounds decides is not asked")


class _Cheap(Criterion):
    """What columns decide: `test` makes an octet 0 or 1 of each row."""

    def __init__(self, test: Callable[[Rows], bytes]) -> None:
        self._test = test
        self._mask = b""

    def bounds(self, rows: Rows, ones: int) -> tuple[int, int]:
        self._mask = self._test(rows)
        mask = int.from_bytes(self._mask, "little")
        return mask, mask

    async def holds(self, index: int, message: _Message) -> bool:
        return bool(self._mask[index])


class _All(Criterion):
    def __init__(self, criteria: Sequence[Criterion]) -> None:
        self._criteria = sorted(criteria, key=lambda criterion: criterion.need)
        self.need = self._criteria[-1].need
        self.asks_envelopes = any(criterion.asks_envelopes for criterion in criteria)

    def bounds(self, rows: Rows, ones: int) -> tuple[int, int]:
        certain = possible = ones
        for criterion in self._criteria:
            one_certain, one_possible = criterion.bounds(rows, ones)
            certain &= one_certain
            possible &= one_possible
        return certain, possible

    async def look_up(self, mailbox: Any, among: UIDSet, rows: Rows) -> None:
        for criterion in self._criteria:
            await criterion.look_up(mailbox, among, rows)

    async def see(self, searching: _Searching, rows: Rows, mask: bytes) -> None:
        for criterion in self._criteria:
            await criterion.see(searching, rows, mask)

    async def holds(self, index: int, message: _Message) -> bool:
        for criterion in self._criteria:
            if not await criterion.holds(index, message):
                return False
        return True


class _Any(Criterion):
    def __init__(self, criteria: Sequence[Criterion]) -> None:
        self._criteria = sorted(criteria, key=lambda criterion: criterion.need)
        self.need = self._criteria[-1].need
        self.asks_envelopes = any(criterion.asks_envelopes for criterion in criteria)

    def bounds(self, rows: Rows, ones: int) -> tuple[int, int]:
        certain = possible = 0
        for criterion in self._criteria:
            one_certain, one_possible = criterion.bounds(rows, ones)
            certain |= one_certain
            possible |= one_possible
        return certain, possible

    async def look_up(self, mailbox: Any, among: UIDSet, rows: Rows) -> None:
        for criterion in self._criteria:
            await criterion.look_up(mailbox, among, rows)

    async def see(self, searching: _Searching, rows: Rows, mask: bytes) -> None:
        for criterion in self._criteria:
            await criterion.see(searching, rows, mask)

    async def holds(self, index: int, message: _Message) -> bool:
        for criterion in self._criteria:
            if await criterion.holds(index, message):
                return True
        return False


class _Not(Criterion):
    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion
        self.need = criterion.need
        self.asks_envelopes = criterion.asks_envelopes

    def bounds(self, rows: Rows, ones: int) -> tuple[int, int]:
        certain, possible = self._criterion.bounds(rows, ones)
        return ones ^ possible, ones ^ certain

    async def look_up(self, mailbox: Any, among: UIDSet, rows: Rows) -> None:
        await self._criterion.look_up(mailbox, among, rows)

    async def see(self, searching: _Searching, rows: Rows, mask: bytes) -> None:
        await self._criterion.see(searching, rows, mask)

    async def holds(self, index: int, message: _Message) -> bool:
        return not await self._criterion.holds(index, message)


class _Learned(Criterion):
    """What is found out beforehand, for many rows at once."""

    def __init__(self) -> None:
        self._known = 0
        self._yes = 0
        self._rows: Rows | None = None

    def bounds(self, rows: Rows, ones: int) -> tuple[int, int]:
        if self._rows is not rows:
            self._rows, self._known, self._yes = rows, 0, 0
        return self._yes, self._yes | (ones ^ self._known)

    def learn(self, known: bytes | bytearray, yes: bytes | bytearray) -> None:
        """Masks of the rows of the last `bounds`."""
        self._known |= int.from_bytes(known, "little")
        self._yes |= int.from_bytes(yes, "little")

    def decided(self, index: int) -> bool | None:
        """What is known of a row, None if nothing is."""
        if self._known >> 8 * index & 1:
            return bool(self._yes >> 8 * index & 1)
        return None


class _Indexed(_Learned):
    """What an index over text may decide."""

    def __init__(self, field: str | None, text: str) -> None:
        super().__init__()
        self._indexed = field
        self._text = text

    async def look_up(self, mailbox: Any, among: UIDSet, rows: Rows) -> None:
        if self._text:
            found = await mailbox.containing(self._indexed, self._text, among)
            uids = rows.columns.uids
            self.learn(_members(among, uids), _members(found & among, uids))


class _Enveloped(_Learned):
    """
    What an envelope decides.

    Attributes:
        texts_of: makes what is looked at of some envelopes.
    """

    need = _ENVELOPE
    asks_envelopes = True
    texts_of: TextsOf

    def fitting(self, block: Block) -> Iterable[int]:
        """The UIDs of the messages for which the criterion holds."""
        raise NotImplementedError

    async def see(self, searching: _Searching, rows: Rows, mask: bytes) -> None:
        uids, known, yes = rows.columns.uids, bytearray(mask), bytearray(len(mask))
        blocks, gone = await searching.texts(rows, mask, self.texts_of)
        for uid in gone:
            known[bisect_left(uids, uid)] = 0
        for block in blocks:
            for uid in self.fitting(block):
                index = bisect_left(uids, uid)
                if index < len(uids) and uids[index] == uid:
                    yes[index] = 1
        self.learn(known, yes)

    async def holds(self, index: int, message: _Message) -> bool:
        # Of a message that can be read the envelope was seen before.
        return bool(self.decided(index))


class _Sent(_Enveloped):
    texts_of = staticmethod(_stated_days)

    def __init__(self, when: When, day: date) -> None:
        super().__init__()
        self._when = when
        # Days so written are ordered as their octets are.
        self._day = _day(day)

    def fitting(self, block: Block) -> Iterable[int]:
        if self._when is When.BEFORE:
            return block.fitting(self._day.__gt__)
        return block.fitting(self._day.__eq__ if self._when is When.ON else self._day.__le__)


class _Words:
    """Text that fields are searched for."""

    def __init__(self, text: str) -> None:
        self._wanted = text.casefold()
        # Most messages can be passed over without decoding anything.
        self._plain = self._wanted.encode() if text.isascii() else None

    def within(self, value: bytes) -> bool:
        """They stand in the value of a field.  The empty text does in every one (RFC 3501 §6.4.4)."""
        if self._plain is not None and b"=?" not in value and value.isascii():
            return self._plain in value.lower()
        return self._wanted in headers.decode_words(value).casefold()


class _Subject(_Enveloped, _Indexed):
    texts_of = staticmethod(_subjects)

    def __init__(self, text: str) -> None:
        _Indexed.__init__(self, "subject", text)
        self._wanted = folded(text)

    def fitting(self, block: Block) -> Iterable[int]:
        return block.having(self._wanted)


#: Fields that are searched as ENVELOPE has them, too (RFC 3501 §6.4.4).
_ADDRESS_FIELDS = frozenset({b"from", b"to", b"cc", b"bcc"})

#: What the envelope of an address leaves out: comments, escapes, white space around the "@".
_ODD_ADDRESS = re.compile(rb"[(\\]|[ \t]@|@[ \t]")


class _Header(_Indexed):
    need = _HEADER

    def __init__(self, field: str, text: str) -> None:
        super().__init__(field, text)
        self._field = field.lower().encode("utf-8", "replace")
        self._words = _Words(text)

    async def holds(self, index: int, message: _Message) -> bool:
        if (decided := self.decided(index)) is not None:
            return decided
        fields = await message.fields()
        if fields is not None:
            return self._among(fields)
        async for some in message.large_fields():
            if self._among(some):
                return True
        return False

    def _among(self, fields: list[tuple[bytes, bytes]]) -> bool:
        for name, value in fields:
            if name == self._field:
                if self._words.within(value):
                    return True
                odd = name in _ADDRESS_FIELDS and _ODD_ADDRESS.search(value)
                if odd and self._words.within(_addresses(value)):
                    return True
        return False


def _addresses(value: bytes) -> bytes:
    """Addresses as their envelope has them: `name <local@host>, ...`."""
    return b", ".join(
        b"%b <%b@%b>" % (one.name or b"", one.local or b"", one.host or b"") for one in addresses.parse(value)
    )


class _Body(_Indexed):
    need = _BODY

    def __init__(self, text: str) -> None:
        super().__init__(None, text)
        self._wanted = text.casefold()

    async def holds(self, index: int, message: _Message) -> bool:
        if (decided := self.decided(index)) is not None:
            return decided
        # Every text contains the empty string.
        return not self._wanted or await _body_has(message, self._wanted)


class _Text(Criterion):
    need = _BODY

    def __init__(self, text: str) -> None:
        self._wanted = text.casefold()

    async def holds(self, index: int, message: _Message) -> bool:
        if not self._wanted:
            return True
        return await message.header_has(self._wanted) or await _body_has(message, self._wanted)


async def _body_has(message: _Message, wanted: str) -> bool:
    try:
        return await message.body_has(wanted)
    except BadRecord:
        return False


# From keys to criteria


def compiled(key: Key, selected: Selected) -> Criterion:
    """The criterion of a key, for this client."""
    match key:
        case commands.And(keys):
            return _All([compiled(inner, selected) for inner in keys])
        case commands.Or(left, right):
            return _Any([compiled(left, selected), compiled(right, selected)])
        case commands.Not(inner):
            return _Not(compiled(inner, selected))
        case commands.SentOn(when, day):
            return _Sent(when, day)
        case commands.HeaderContains(field, text):
            return _Header(field, text)
        case commands.SubjectContains(text):
            return _Subject(text)
        case commands.BodyContains(text):
            return _Body(text)
        case commands.TextContains(text):
            return _Text(text)
        case _:
            return _Cheap(_column_test(key, selected))


def _column_test(key: Key, selected: Selected) -> Callable[[Rows], bytes]:
    match key:
        case commands.HasFlag(flag, present):
            return _flag_test(flag, present, selected)
        case commands.Recent(present):
            return lambda rows: _members(selected.recent, rows.columns.uids, present)
        case commands.ReceivedOn(when, day):
            return _day_test(when, day)
        case commands.Larger(size):
            return lambda rows: bytes(map(size.__lt__, rows.columns.sizes))
        case commands.Smaller(size):
            return lambda rows: bytes(map(size.__gt__, rows.columns.sizes))
        case commands.Numbered(numbers):
            wanted = numbers.resolve(selected.exists)
            return lambda rows: _members(wanted, rows.numbers)
        case commands.UIDs(uids):
            listed = uids.resolve(selected.star)
            return lambda rows: _members(listed, rows.columns.uids)
        case commands.ModSeq(modseq):
            # One modseq is kept a message, whatever entry is named (RFC 7162 §3.1.5).
            return lambda rows: bytes(map(modseq.__le__, rows.columns.modseqs))
        case commands.All():
            return lambda rows: b"\1" * len(rows.columns)
        case _:
            raise TypeError(f"not a search key: {key!r}")


def _members(wanted: UIDSet, ordered: Sequence[int], present: bool = True) -> bytes:
    """1 for those of `ordered`, ascending, that are in the set; the contrary if not `present`."""
    mask = bytearray(len(ordered)) if present else bytearray(b"\1") * len(ordered)
    if wanted and ordered:
        within = wanted & UIDSet(((ordered[0], ordered[-1]),))
        inside = b"\1" if present else b"\0"
        for piece in within.slices(ordered):
            mask[piece] = inside * (piece.stop - piece.start)
    return bytes(mask)


def _flag_test(flag: str, present: bool, selected: Selected) -> Callable[[Rows], bytes]:
    names = [name.lower() for name in (*SYSTEM_FLAGS, *selected.view.mailbox.keywords)]
    if flag.lower() not in names:
        # A keyword that no message has.
        return lambda rows: (b"\0" if present else b"\1") * len(rows.columns)
    bit = names.index(flag.lower())
    flip = bytes((1, 0))
    if bit >= 64:

        def test(rows: Rows) -> bytes:
            overflow = rows.columns.overflow
            mask = bytes([overflow.get(uid, 0) >> bit & 1 for uid in rows.columns.uids])
            return mask if present else mask.translate(flip.ljust(256, b"\0"))
    else:
        octet = bit >> 3 if byteorder == "little" else 7 - (bit >> 3)
        table = _HAS_BIT[bit & 7]
        if not present:
            table = table.translate(flip.ljust(256, b"\0"))

        def test(rows: Rows) -> bytes:
            return rows.columns.flags.tobytes()[octet::8].translate(table)

    return test


def _day_test(when: When, day: date) -> Callable[[Rows], bytes]:
    # RFC 3501 §6.4.4: disregarding time and timezone; the zone here is UTC.
    start = (day.toordinal() - _EPOCH) * _DAY
    stop = start + _DAY
    if when is When.BEFORE:
        return lambda rows: bytes(map(start.__gt__, rows.columns.dates))
    if when is When.SINCE:
        return lambda rows: bytes(map(start.__le__, rows.columns.dates))
    return lambda rows: bytes([start <= moment < stop for moment in rows.columns.dates])
