"""
FETCH: from a plan to what must be asked of a mailbox, to pieces of the answer.

Items that columns answer are rendered in bulk, a thousand messages a piece; so are, some hundred
at a time, those that outlines have ready: while some pieces are told the outlines of the next ones
are read.  What was said once of many messages is said again until something in them changes.  For
sections messages are read as many small ones as fit in a piece, or in ranges.  What is held for one
connection is bounded by a few pieces, whatever was asked for.

`\\Seen` is set for a piece of messages before any of it is read, in one call.  Where that fails the
answer is given all the same (`Fetching.unseen`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress, islice

from twisted.internet.defer import Deferred

from mailplat.errors import MailError, NoSuchMessage
from mailplat.imap.commands import COLUMN_ITEMS, OUTLINE_ITEMS, FetchItem, FetchPlan, Item
from mailplat.imap.outlines import FORMS, OUTLINES, Outlines
from mailplat.imap.reading import PIECE, Source, sources
from mailplat.imap.refusal import GiveUp
from mailplat.imap.responses import NONE, RowRenderer, kinds_of
from mailplat.imap.subset import FieldFilter
from mailplat.imap.view import Rows, Selected
from mailplat.message import sections
from mailplat.message.outline import BadRecord, Outline, header_size, rendered
from mailplat.uids import NOTHING, UIDSet
from mailplat.values import SEEN, Columns, FlagChange, Outlined, Records
from mailplat.wire import Wire, WireError

#: Rows rendered at a time.
ROWS = 1000

#: Octets of outlines that are read in one call, about, and pieces.
READ = 512 * 1024
MOST_PIECES = 16

_SET_SEEN = FlagChange(add=frozenset({"\\Seen"}))


@dataclass(frozen=True, slots=True)
class _Piece:
    """
    Some messages of which something is said.

    Attributes:
        recent: those of them with \\Recent, and maybe others.
        key: what it is kept by; None if it is not.
        lines: as it was said before, if it is known.
    """

    rows: Rows
    recent: UIDSet
    key: Hashable = None
    lines: bytes | None = None


@dataclass(slots=True)
class Fetching:
    """
    One FETCH.

    Attributes:
        selected: whose messages.
        plan: what of them.
        renderer: of the mailbox.
        outlines: those that the store does not keep.
        wire: where the answer goes.
        extra: items besides the plan's whenever FLAGS are told unasked: UID or MODSEQ.
        unseen: why \\Seen could not be set; after that it is not tried again.
    """

    selected: Selected
    plan: FetchPlan
    renderer: RowRenderer
    outlines: Outlines
    wire: Wire
    extra: tuple[Item, ...] = ()
    unseen: MailError | None = None

    async def run(self, uids: UIDSet, changed_since: int | None) -> bool:
        """
        Write the answers for these messages.

        Args:
            changed_since: only those whose modseq is greater.

        Returns:
            False if some of them were gone (RFC 5530 EXPUNGEISSUED).

        Raises:
            GiveUp: the rest of an answer that was begun cannot be read.
        """
        complete = not self.selected.lagging(uids)
        plan = self.plan
        most = ROWS if plan.columns_only else OUTLINES
        pieces: Iterator[Rows] = self.selected.pieces(uids, most, blocks=plan.outlines)
        if changed_since is not None:
            pieces = (rows for piece in pieces if (rows := newer(piece, changed_since)).columns.uids)
        if plan.sections:
            for rows in pieces:
                complete = await self._messages(rows) and complete
        elif plan.outlines:
            complete = await self._outlined(pieces) and complete
        else:
            kinds = kinds_of(plan.items)
            for rows in pieces:
                await self._say(self._piece(rows, kinds), kinds)
        return complete

    async def _outlined(self, pieces: Iterator[Rows]) -> bool:
        """Items that outlines have ready, and columns; False if some messages were gone."""
        plan, view, outlines = self.plan, self.selected.view, self.outlines
        wanted = kinds_of(item for item in plan.items if item.kind in OUTLINE_ITEMS)
        kinds = kinds_of(item for item in plan.items if item.kind in COLUMN_ITEMS) + wanted

        def ahead() -> tuple[list[_Piece], Deferred[tuple[list[list[bytes] | None], Records]]]:
            """The next pieces, and the reading of what is not known of them, which is under way."""
            some = [self._piece(rows, kinds) for rows in islice(pieces, most)]
            unknown = [piece.rows for piece in some if piece.lines is None]
            return some, Deferred.fromCoroutine(outlines.read(view, wanted, unknown))

        there, most = True, 1
        here, reading = ahead()
        try:
            while here:
                found, records = await reading
                octets = sum(map(len, chain(records.records, *filter(None, found))))
                most = min(READ * len(found) // octets + 1, MOST_PIECES) if octets else MOST_PIECES
                some, ready = here, iter(found)
                here, reading = ahead()
                for piece in some:
                    if piece.lines is not None:
                        await self._say(piece, kinds)
                    elif (joined := next(ready)) is not None:
                        await self._say(piece, kinds, dict(zip(wanted, joined, strict=True)))
                    else:
                        forms = await outlines.cut(view, records, wanted, piece.rows, self.wire.pause)
                        if None in forms[0]:
                            there = False
                            mask = [form is not None for form in forms[0]]
                            piece = _Piece(piece.rows.chosen(mask), piece.recent)
                            forms = [list(compress(each, mask)) for each in forms]
                        await self._say(piece, kinds, dict(zip(wanted, forms, strict=True)))
        finally:
            # Of what is read and not told any more, nobody needs to hear.
            reading.addErrback(lambda _: None)
            reading.cancel()
            Deferred.fromCoroutine(outlines.blocks.hand_over(last=True))
        return there

    def _piece(self, rows: Rows, kinds: Sequence[Item]) -> _Piece:
        columns, view = rows.columns, self.selected.view
        if not isinstance(rows.numbers, range):
            return _Piece(rows, self.selected.recent)
        # UIDs do not come back, and a row that changes gets the greatest modseq: as many rows between the
        # same ends, with the same greatest modseq, are the same.
        ends = columns.uids[0], columns.uids[-1]
        modseq, recent = 0, NOTHING
        if Item.FLAGS in kinds or Item.MODSEQ in kinds:
            modseq, recent = max(columns.modseqs), self.selected.recent & UIDSet((ends,))
        key = (view.number, tuple(kinds), rows.numbers, ends, modseq, recent)
        return _Piece(rows, recent, key, view.lines.get(key))

    async def _say(
        self, piece: _Piece, kinds: Sequence[Item], prepared: Mapping[Item, Sequence[object]] = NONE
    ) -> None:
        """
        Args:
            kinds: what is said of each row.
            prepared: what columns do not have of it.
        """
        rows, lines, view = piece.rows, piece.lines, self.selected.view
        if lines is None:
            lines = self.renderer.lines(rows.numbers, rows.columns, kinds, piece.recent, prepared)
            # What would not fit if it were said of all messages would only push out itself and others.
            if piece.key is not None and len(lines) * len(view) <= view.lines.most * len(rows.columns):
                view.lines.keep(piece.key, lines)
        self.wire.write(lines)
        if Item.FLAGS in kinds:
            self.selected.told(rows.columns)
        await self.wire.drained()
        await self.wire.pause()

    async def _messages(self, rows: Rows) -> bool:
        plan, selected = self.plan, self.selected
        mailbox = selected.view.mailbox
        newly_seen = NOTHING
        if plan.sets_seen and not selected.read_only and self.unseen is None:
            rows, newly_seen = await self._see(rows)
        columns = rows.columns
        if not columns.uids:
            return True
        outlined: dict[int, Outlined] = {}
        if plan.outlines:
            found: Sequence[Outlined] = await mailbox.outlines(UIDSet.of(columns.uids))
            outlined = {one.uid: one for one in found}
        wanted = [item for item in plan.items if item.kind in COLUMN_ITEMS]
        fields = self.renderer.fields(columns, kinds_of(wanted), selected.recent)
        unasked: list[list[bytes]] | None = None
        if newly_seen and Item.FLAGS not in plan.kinds:
            kinds = [kind for kind in (Item.FLAGS, *self.extra) if kind not in plan.kinds]
            unasked = self.renderer.fields(columns, kinds, selected.recent)
        if Item.FLAGS in plan.kinds:
            selected.told(columns)
        # Where a part lies has to be looked up; of several sections each is as much as was read.
        whole = len(plan.sections) == 1 and not plan.outlines
        complete = True
        position = 0
        uids, sizes = columns.uids, columns.sizes
        while position < len(uids):
            opened = await sources(mailbox, uids, sizes, position)
            try:
                for offset, source in enumerate(opened):
                    index = position + offset
                    row = fields[index]
                    if unasked is not None and uids[index] in newly_seen:
                        row = row + unasked[index]
                    if source is None:
                        complete = False
                    elif source.data is not None and whole:
                        self._whole(rows.numbers[index], row, plan.sections[0], source.data)
                    else:
                        one = outlined.get(uids[index])
                        done = await self._message(rows.numbers[index], row, one, source)
                        complete = complete and done
            finally:
                for source in opened:
                    if source is not None:
                        source.close()
            position += len(opened)
            await self.wire.drained()
            await self.wire.pause()
        return complete

    async def _see(self, rows: Rows) -> tuple[Rows, UIDSet]:
        """Set \\Seen where it is not; the rows as they are then, and which were changed."""
        columns = rows.columns
        unseen = UIDSet.of(compress(columns.uids, [not word & SEEN for word in columns.flags]))
        if not unseen:
            return rows, NOTHING
        mailbox = self.selected.view.mailbox
        try:
            result = await mailbox.set_flags(unseen, _SET_SEEN, None)
            self.selected.view.learn(result.changed)
            await self.selected.view.refresh()
        except MailError as error:
            self.unseen = error
            return rows, NOTHING
        # This session hears of it in this very answer.
        self.selected.told(result.changed)
        again = list(self.selected.pieces(UIDSet.of(columns.uids), len(columns) or 1))
        return (again[0] if again else Rows((), Columns())), UIDSet.of(result.changed.uids)

    def _whole(self, number: int, words: list[bytes], item: FetchItem, message: bytes) -> None:
        """The answer for a message in memory, where only it or a range of it is wanted."""
        if item.partial is not None:
            begin, most = item.partial
            message = message[begin : begin + most]
        write, said = self.wire.write, b" ".join([*words, item.label])
        write(b"* %d FETCH (%b {%d}\r\n" % (number, said, len(message)))
        write(_without_nul(message))
        write(b")\r\n")

    async def _message(
        self, number: int, row: list[bytes], outlined: Outlined | None, source: Source
    ) -> bool:
        """One message's answer; False if it is gone and nothing was written."""
        plan = self.plan
        record: bytes | None = None
        if outlined is not None:
            try:
                record = await self.outlines.record(
                    self.selected.view.number, outlined, source, self.wire.pause
                )
            except NoSuchMessage:
                return False
        elif plan.outlines:
            return False
        words = list(row)
        if record is not None:
            for item in plan.items:
                if item.kind in OUTLINE_ITEMS:
                    words.append(item.label + b" " + rendered(record, FORMS[item.kind]))
        self.wire.write(b"* %d FETCH (" % number + b" ".join(words))
        apart = b" " if words else b""
        for item in plan.sections:
            self.wire.write(apart + item.label + b" ")
            apart = b" "
            try:
                await self._section(item, source, outlined, record)
            except WireError:
                raise
            except Exception as error:
                # Whatever is said now would be read as a part of this answer.
                raise GiveUp from error
        self.wire.write(b")\r\n")
        if len(plan.sections) > 1:
            # Of one section a piece is no more than what was read.
            await self.wire.drained()
        return True

    async def _section(
        self, item: FetchItem, source: Source, outlined: Outlined | None, record: bytes | None
    ) -> None:
        ranges = _ranges(item, source, outlined, record)
        if ranges is None:
            # RFC 3501 §6.4.5 says nothing of parts that are not there; NIL is what nstring has for it.
            self.wire.write(b"NIL")
            return
        if item.what in ("HEADER.FIELDS", "HEADER.FIELDS.NOT"):
            await self._fields(item, source, *ranges[0])
            return
        if item.partial is not None:
            ranges = _part_of(ranges, *item.partial)
        if source.data is not None:
            # One of many that are small.
            octets = b"".join([source.data[start : start + length] for start, length in ranges])
            self.wire.write(b"{%d}\r\n%b" % (len(octets), _without_nul(octets)))
            return
        left = sum(length for _, length in ranges)
        self.wire.write(b"{%d}\r\n" % left)
        for start, length in ranges:
            end = start + length
            while start < end:
                piece = await _piece(source, start, end)
                self.wire.write(_without_nul(piece))
                start += len(piece)
                left -= len(piece)
                if left:
                    # The last one leaves together with what follows it.
                    await self.wire.drained()

    async def _fields(self, item: FetchItem, source: Source, start: int, length: int) -> None:
        """The chosen fields of the header at `start`."""
        begin, most = item.partial or (0, length + 4)
        if length <= PIECE:
            header = await source.read(start, length)
            chosen = _without_nul(sections.select_fields(header, item.fields, item.negate))
            literal = chosen[begin : begin + most]
            self.wire.write(b"{%d}\r\n%b" % (len(literal), literal))
            return
        # Looked through twice rather than held: the length of a literal comes first.
        size = 0
        async for piece in _chosen(item, source, start, length):
            size += len(piece)
            await self.wire.pause()
        size = max(0, min(size - begin, most))
        self.wire.write(b"{%d}\r\n" % size)
        async for piece in _chosen(item, source, start, length):
            part = piece[begin : begin + size]
            begin = max(0, begin - len(piece))
            size -= len(part)
            self.wire.write(_without_nul(part))
            await self.wire.drained()
            await self.wire.pause()


async def _piece(source: Source, start: int, end: int) -> bytes:
    """The next octets of a range; never none, as a literal must be as long as was announced."""
    piece = await source.read(start, min(PIECE, end - start))
    if not piece:
        raise NoSuchMessage(reason="The message is shorter than its mailbox says")
    return piece


async def _chosen(item: FetchItem, source: Source, start: int, length: int) -> AsyncIterator[bytes]:
    """What HEADER.FIELDS chooses of a large header."""
    fields = FieldFilter(item.fields, item.negate)
    end = start + length
    while start < end:
        piece = await _piece(source, start, end)
        start += len(piece)
        yield fields.feed(piece)
    yield fields.finish()


def _ranges(
    item: FetchItem, source: Source, outlined: Outlined | None, record: bytes | None
) -> Sequence[tuple[int, int]] | None:
    """Where a section lies, None if the message has no such part."""
    if not item.path and item.what is None:
        return [(0, source.size)]
    assert outlined is not None and record is not None
    if not item.path and item.what in ("HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT"):
        # Known without taking the record apart, and what most clients ask for.
        end = min(source.size, outlined.prefix_size + header_size(record))
        return [(end, source.size - end)] if item.what == "TEXT" else [(0, end)]
    what = "HEADER" if item.what in ("HEADER.FIELDS", "HEADER.FIELDS.NOT") else item.what
    try:
        outline = Outline.from_bytes(record)
    except BadRecord:
        return None
    return sections.locate(outline, outlined.prefix_size, source.size, item.path, what)


def _without_nul(octets: bytes) -> bytes:
    """A literal may not hold a NUL (RFC 3501 §9 CHAR8); lengths stay as they were announced."""
    return octets.replace(b"\0", b"\x80") if b"\0" in octets else octets


def _part_of(ranges: Iterable[tuple[int, int]], begin: int, most: int) -> list[tuple[int, int]]:
    """The octets of some ranges from `begin` on, `most` of them (RFC 3501 §6.4.5, partial)."""
    found = []
    for start, length in ranges:
        skipped = min(begin, length)
        begin -= skipped
        taken = min(length - skipped, most)
        most -= taken
        if taken:
            found.append((start + skipped, taken))
    return found


def newer(rows: Rows, modseq: int) -> Rows:
    """Those rows whose modseq is greater."""
    mask = [each > modseq for each in rows.columns.modseqs]
    return rows if all(mask) else rows.chosen(mask)
