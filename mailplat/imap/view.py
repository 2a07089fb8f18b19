"""
What a connection sees of a mailbox: message sequence numbers, `\\Recent`, and what is new.

A store speaks of UIDs and of what changed after a modseq.  IMAP counts messages from 1,
and lets a client believe in messages that are gone until it is told.  In between stand:

`MailboxView`
    the rows of a live mailbox as packed arrays, one for all sessions on it.  Loaded once by
    `changes(0)`, then advanced by `changes(since)`; however many sessions ask meanwhile, they
    share one call.  The arrays are always the truth as of the last call.  Of a very large mailbox they
    come after SELECT was answered.

`Selected`
    what one client believes, kept as its difference from the truth:

        believed = (rows up to `last`)  +  `lag`

    `last` is the largest UID the client was told of by EXISTS, `lag` the UIDs that were
    expunged and not yet told.  Mostly there is no lag, nothing of its own is stored, and a
    sequence number is a position plus one.

    Where there are no rows yet the client is told what the mailbox's counters say: so many messages
    with UIDs up to `last`, at one moment of its log (`counted`).  When the rows are there, what
    vanished since that moment is the lag, and what changed is news like any other.

`Views`
    the views of a server by mailbox.  Views that nobody looks at are kept while there is
    room for their bytes.

Positions in the arrays hold until the next `await`; UIDs and sequence numbers hold until
the client is told otherwise.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress, count, repeat
from sys import byteorder
from typing import Any

from twisted.internet.defer import Deferred

from mailplat.imap.kept import Kept
from mailplat.imap.refusal import GiveUp
from mailplat.interfaces import IClaimsRecent
from mailplat.uids import EVERYTHING, NOTHING, Run, UIDSet
from mailplat.values import BLOCK, SEEN, Changes, Columns, MailboxStatus, block_of

#: What a row takes in a view, in octets.
ROW_SIZE = 32

#: Fewer runs than this are cut out of the arrays one by one; more, by copying what stays.
FEW_RUNS = 16

#: Where the low octet of each word stands in `array("Q").tobytes()`.
LOW_OCTET = 0 if byteorder == "little" else 7

#: Low octet of a flag word -> 0 where \\Seen is not set.
_SEEN_TABLE = bytes(octet & SEEN for octet in range(256))

#: Flag words looked at in one step when the first unseen message is sought.
_STEP = 8192


class MailboxView:
    """
    The rows of one live mailbox, shared by all sessions that selected it.

    Args:
        mailbox: an `IMailbox`.
        number: tells this view from the others of a server, also from those that are gone.
        lines: what was said of rows, shared by the views of a server.

    Attributes:
        columns: all rows as of `upto`.  For reading only; copy (slice) what has to
            survive an `await`.
        upto: the modseq that `columns` is complete to.
    """

    __slots__ = (
        "_cancel", "_claimed", "_counted", "_flying", "_hinted", "_sessions", "_waiting", "columns", "lines",
        "mailbox", "number", "upto",
    )  # fmt: skip

    def __init__(self, mailbox: Any, number: int = 0, lines: Kept[bytes] | None = None) -> None:
        self.mailbox = mailbox
        self.number = number
        self.lines: Kept[bytes] = lines or Kept(0)
        self.columns = Columns()
        self.upto = 0
        self._sessions: set[Selected] = set()
        self._counted: set[Selected] = set()  # those that were told counters, and wait for rows
        self._waiting: list[Deferred[None]] = []
        self._claimed = 0  # the largest UID when somebody claimed what is recent
        self._flying = False
        self._hinted = True
        self._cancel: Callable[[], None] = mailbox.watch(self._hint)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def loaded(self) -> bool:
        """There are rows, or it is known that there are none."""
        return self.upto > 0

    @property
    def newest(self) -> int:
        """The largest UID, 0 if the mailbox is empty."""
        return self.columns.uids[-1] if self.columns.uids else 0

    @property
    def watched(self) -> bool:
        """Somebody has it selected."""
        return bool(self._sessions or self._counted)

    def refresh(self) -> Awaitable[None]:
        """
        Everything that was visible in the mailbox at this call is in `columns` afterwards.

        Calls to the mailbox never overlap: who asks while one is under way shares the next.

        Raises:
            what `IMailbox.changes` raises.
        """
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        if not self._flying:
            self._flying = True
            Deferred.fromCoroutine(self._fly())
        return waiter

    async def follow(self) -> None:
        """As `refresh`, but only if a hint came since the last call to the mailbox."""
        if self._hinted or self._flying:
            await self.refresh()

    def load(self) -> None:
        """Have the rows come for those who were told counters; if that fails, who needs them asks again."""
        if self._counted:
            Deferred.fromCoroutine(self.follow()).addErrback(lambda _: None)

    async def claim_recent(self, newest: int) -> UIDSet:
        """
        As `IClaimsRecent.claim_recent`; of many sessions that hear of a message only one asks.

        Args:
            newest: the largest UID that the session heard of.

        Raises:
            what `IClaimsRecent.claim_recent` raises.
        """
        if self._claimed >= newest:
            return NOTHING
        self._claimed = newest
        try:
            claimed: UIDSet = await self.mailbox.claim_recent()
        except BaseException:
            self._claimed = 0
            raise
        return claimed

    def learn(self, changed: Columns) -> None:
        """
        Take over rows that a call of ours has just changed, so that `refresh` need not read them.

        Each call has a modseq of its own, so if theirs is the next one nothing else happened in
        between.  Otherwise, or if a call is under way that may know more, they are left to it.
        """
        if changed.modseqs and changed.modseqs[0] == self.upto + 1 and not self._flying:
            self._apply(Changes(self.upto + 1, changed), NOTHING)

    def close(self) -> None:
        """Watch the mailbox no more."""
        self._cancel()

    def add(self, session: Selected) -> None:
        """Called by `Selected`."""
        (self._sessions if session.counted is None else self._counted).add(session)

    def remove(self, session: Selected) -> None:
        """Called by `Selected`."""
        self._sessions.discard(session)
        self._counted.discard(session)

    def _hint(self) -> None:
        self._hinted = True
        for session in chain(self._sessions, self._counted):
            session.wake()

    async def _fly(self) -> None:
        """Fetch changes for those who wait, until nobody does."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            # A hint that comes while the call is under way may tell of something after it.
            self._hinted = False
            try:
                await self._advance()
            except Exception as error:
                self._hinted = True
                for waiter in waiting:
                    waiter.errback(error)
            else:
                for waiter in waiting:
                    waiter.callback(None)
        self._flying = False

    async def _advance(self) -> None:
        await self._take(self.upto)
        # Who was told counters of a later moment asks for a call of its own.
        for moment in {session.moment for session in self._counted if session.moment <= self.upto}:
            changed, vanished = await self._take(moment)
            for session in [session for session in self._counted if session.moment == moment]:
                if session.match(changed, vanished):
                    self._counted.remove(session)
                    self._sessions.add(session)

    async def _take(self, since: int) -> tuple[Sequence[int], UIDSet]:
        """Take over what happened since then, known or not: UIDs of what changed and of what vanished."""
        changes = await self.mailbox.changes(since)
        vanished = changes.vanished
        if vanished is None:
            vanished = NOTHING
            if changes.upto != self.upto and self.columns.uids:
                # The store cannot tell: what it has no more is what vanished.
                left = (await self.mailbox.columns(EVERYTHING)).uids
                vanished = UIDSet.of(set(self.columns.uids).difference(left))
        self._apply(changes, vanished)
        return changes.changed.uids, vanished

    def _apply(self, changes: Changes, vanished: UIDSet) -> None:
        mine, theirs = self.columns, changes.changed
        self.upto = max(self.upto, changes.upto)
        if not mine.uids:
            self.columns = theirs
            return
        # UIDs ascend in the order in which messages become visible: new ones go to the end.
        new = bisect_right(theirs.uids, mine.uids[-1])
        if new < len(theirs):
            for column, more in zip(mine.arrays(), theirs.arrays(), strict=True):
                column.extend(more[new:])
        if new:
            self._change(theirs, new)
        if theirs.overflow:
            mine.overflow.update(theirs.overflow)
        if vanished:
            self._drop(vanished)

    def _change(self, theirs: Columns, known: int) -> None:
        """Take over the first `known` rows of `theirs`, which are not new."""
        mine = self.columns
        uids = theirs.uids[:known]
        start = bisect_left(mine.uids, uids[0])
        if mine.uids[start : start + known] == uids:
            mine.flags[start : start + known] = theirs.flags[:known]
            mine.modseqs[start : start + known] = theirs.modseqs[:known]
        else:
            positions = map(bisect_left, repeat(mine.uids), uids)
            changed_rows = zip(positions, uids, theirs.flags, theirs.modseqs, strict=False)
            for position, uid, word, modseq in changed_rows:
                if mine.uids[position] == uid:
                    mine.flags[position] = word
                    mine.modseqs[position] = modseq
        if mine.overflow:
            for uid in mine.overflow.keys() & set(uids):
                del mine.overflow[uid]
        if self._sessions:
            changed = UIDSet.of(uids)
            for session in self._sessions:
                session.changed(changed)

    def _drop(self, vanished: UIDSet) -> None:
        columns = self.columns
        found = list(vanished.slices(columns.uids))
        if not found:
            return
        gone = array("I")
        for piece in found:
            gone.extend(columns.uids[piece])
        for session in self._sessions:
            session.vanished(gone, vanished)
        arrays = columns.arrays()
        if len(found) <= FEW_RUNS:
            for piece in reversed(found):
                for column in arrays:
                    del column[piece]
        else:
            starts = [0, *(piece.stop for piece in found)]
            stops = [*(piece.start for piece in found), len(columns)]
            for column in arrays:
                kept = array(column.typecode)
                for start, stop in zip(starts, stops, strict=True):
                    kept.extend(column[start:stop])
                column[:] = kept
        if columns.overflow:
            for uid in [uid for uid in columns.overflow if uid in vanished]:
                del columns.overflow[uid]


@dataclass(frozen=True, slots=True)
class Rows:
    """
    Some messages as a client numbers them.

    Attributes:
        numbers: message sequence numbers, ascending.
        columns: their rows, in the same order; a copy.
    """

    numbers: Sequence[int]
    columns: Columns

    def runs(self) -> Sequence[Run]:
        """Their UIDs, in runs that may name other UIDs besides, which no message of the mailbox has."""
        uids = self.columns.uids
        return [(uids[0], uids[-1])] if isinstance(self.numbers, range) else UIDSet.of(uids).runs

    def chosen(self, mask: Iterable[object]) -> Rows:
        """Those for which the mask is true."""
        kept = list(mask)
        columns = Columns.of(compress(self.columns.rows(), kept))
        return Rows(list(compress(self.numbers, kept)), columns)


@dataclass(frozen=True, slots=True)
class News:
    """
    What a client is to be told now, in this order.

    Attributes:
        expunged: sequence numbers for EXPUNGE; descending, so that each holds whatever
            was said before it.
        exists: number of messages for EXISTS, or None.
        recent: for RECENT, or None.
        keywords: the mailbox has more keywords than the client was told.
        changed: UIDs of messages whose flags changed.
    """

    expunged: Sequence[int]
    exists: int | None
    recent: int | None
    keywords: bool
    changed: UIDSet


class SequenceError(ValueError):
    """A message sequence number that the client cannot know."""


class Selected:
    """
    What one client believes of the mailbox it selected.

    Args:
        view: refreshed before, unless the client is told counters.
        read_only: selected with EXAMINE, or nothing may be changed in it.
        wake: called when there may be news; must be cheap and never raise.
        counted: the counters that the client is told, without any \\Recent if it is read-only; `catch_up`
            has to be awaited before anything is asked of messages.

    Attributes:
        counted: as given, until there are rows.
        last: the largest UID the client knows of.
        lag: UIDs of messages that are gone without the client knowing, ascending.
        pending: UIDs of messages with flags the client was not told.
        recent: UIDs of messages with \\Recent in this session (RFC 3501 §2.3.2).
        read_only: as given.
    """

    __slots__ = (
        "_claimed", "_keywords", "_recent", "_wake", "counted", "lag", "last", "pending", "read_only",
        "recent", "view",
    )  # fmt: skip

    def __init__(
        self,
        view: MailboxView,
        read_only: bool,
        wake: Callable[[], None],
        counted: MailboxStatus | None = None,
    ) -> None:
        self.view = view
        self.read_only = read_only
        self.counted = counted
        self.last = view.newest if counted is None else counted.uid_next - 1
        self.lag: Sequence[int] = ()
        self.pending = NOTHING
        self.recent = NOTHING
        self._claimed = 0
        self._recent = 0  # as the client was told last
        self._keywords = len(view.mailbox.keywords)
        self._wake = wake
        view.add(self)

    def close(self) -> None:
        """Be told nothing any more.  May be called twice."""
        self.view.remove(self)

    # What the view calls

    def wake(self) -> None:
        """There may be news."""
        self._wake()

    def changed(self, uids: UIDSet) -> None:
        """The flags of these messages changed; some may be new."""
        if uids.last > self.last:
            uids = uids & UIDSet(((1, self.last),))
        self.pending = self.pending | uids if self.pending else uids

    def vanished(self, uids: array[int], same: UIDSet) -> None:
        """These messages are gone; `same` may name more."""
        known = uids if uids[-1] <= self.last else uids[: bisect_right(uids, self.last)]
        if known:
            self.lag = array("I", sorted([*self.lag, *known])) if self.lag else known
        if self.pending:
            self.pending = self.pending - same
        if self.recent:
            self.recent = self.recent - same

    def match(self, changed: Sequence[int], vanished: UIDSet) -> bool:
        """
        There are rows now, and this changed and vanished since the moment that `counted` is of.

        Returns:
            False if that does not say which messages the client believes in.
        """
        assert self.counted is not None
        missing = self.counted.messages - bisect_right(self.view.columns.uids, self.last)
        gone = self.known(vanished)
        # It may name some that had vanished before; if it does not, it is as many as are missing.
        if missing and missing != len(gone):
            return False
        self.counted = None
        if missing:
            self.vanished(array("I", gone), gone)
        if changed:
            self.changed(UIDSet.of(changed))
        return True

    # Numbers

    @property
    def moment(self) -> int:
        """The modseq of what the client believes, as far as it was told."""
        return self.view.upto if self.counted is None else self.counted.highest_modseq

    @property
    def exists(self) -> int:
        """How many messages the client believes there are."""
        if self.counted is not None:
            return self.counted.messages
        return bisect_right(self.view.columns.uids, self.last) + len(self.lag)

    def uid_at(self, number: int) -> int:
        """The UID of a message sequence number, which must be from 1 to `exists`."""
        uids, lag = self.view.columns.uids, self.lag
        position = number - 1
        if not lag:
            return uids[position]
        # Of two ascending lists merged: how many of `lag` come before this position?
        before = bisect_left(
            range(len(lag)), position, key=lambda index: bisect_left(uids, lag[index]) + index
        )
        if before < len(lag) and bisect_left(uids, lag[before]) + before == position:
            return lag[before]
        return uids[position - before]

    def number_of(self, uid: int) -> int:
        """The message sequence number of a UID that the client knows of."""
        return bisect_left(self.view.columns.uids, uid) + bisect_left(self.lag, uid) + 1

    def from_numbers(self, numbers: UIDSet, lenient: bool = False) -> UIDSet:
        """
        The UIDs of message sequence numbers, as runs that may name other UIDs besides,
        which no message has.

        Args:
            lenient: pass over numbers that are too large.

        Raises:
            SequenceError: there are not so many messages (RFC 3501 §9 seq-number).
        """
        exists = self.exists
        if numbers.last > exists:
            if not lenient:
                raise SequenceError("No such message sequence number")
            numbers = numbers & UIDSet(((1, exists),))
        return UIDSet([(self.uid_at(first), self.uid_at(last)) for first, last in numbers.runs])

    def to_numbers(self, uids: UIDSet) -> UIDSet:
        """The message sequence numbers of those of these UIDs that are still there."""
        ordered, lag = self.view.columns.uids, self.lag
        runs: list[tuple[int, int]] = []
        for piece in (uids & UIDSet(((1, self.last),))).slices(ordered):
            start, stop = piece.start, piece.stop
            before = bisect_left(lag, ordered[start])
            # A lagging message among them splits the run of numbers.
            while before < len(lag) and lag[before] < ordered[stop - 1]:
                cut = bisect_left(ordered, lag[before], start, stop)
                runs.append((start + before + 1, cut + before))
                start = cut
                before += 1
            runs.append((start + before + 1, stop + before))
        return UIDSet(runs)

    @property
    def star(self) -> int:
        """The largest UID of a message, for `*` in a set of UIDs; 0 if there is none."""
        exists = self.exists
        return self.uid_at(exists) if exists else 0

    def known(self, uids: UIDSet) -> UIDSet:
        """Those of these UIDs that the client may hear of; the runs stay runs."""
        return uids if uids.last <= self.last else uids & UIDSet(((1, self.last),))

    def lagging(self, uids: UIDSet) -> bool:
        """The client believes in one of these that is gone."""
        return any(uid in uids for uid in self.lag)

    # Rows

    def pieces(self, uids: UIDSet, most: int, blocks: bool = False) -> Iterator[Rows]:
        """
        The messages of these UIDs that are still there, ascending, `most` at a time.

        Each piece is looked up when it is asked for, so the view may advance in between.

        Args:
            blocks: fewer, where otherwise messages of one block (`values.BLOCK`) would be parted.
        """
        runs = uids.runs
        index = 0
        start = 0
        while index < len(runs):
            columns = Columns()
            numbers: Sequence[int] = ()
            ordered = self.view.columns.uids
            end = bisect_right(ordered, self.last)
            full = False
            while index < len(runs) and not full:
                first, last = runs[index]
                left = bisect_left(ordered, max(first, start), 0, end)
                if left == end:
                    index = len(runs)
                    break
                right = bisect_right(ordered, last, left, end)
                room = left + most - len(columns)
                full = right >= room
                if right > room:
                    right = room
                    if blocks:
                        border = (block_of(ordered[room]) - 1) * BLOCK + 1
                        right = bisect_left(ordered, border, left, room)
                        if right == left and not columns.uids:
                            right = room
                    start = ordered[right - 1] + 1 if right > left else start
                else:
                    index += 1
                if left < right:
                    found = self._numbers(left, right)
                    numbers = [*numbers, *found] if numbers else found
                    self._gather(columns, left, right)
            if columns.uids:
                if self.view.columns.overflow:
                    overflow = self.view.columns.overflow
                    columns.overflow = {uid: overflow[uid] for uid in columns.uids if uid in overflow}
                yield Rows(numbers, columns)

    def _numbers(self, left: int, right: int) -> Sequence[int]:
        """Sequence numbers of the rows at these positions."""
        uids, lag = self.view.columns.uids, self.lag
        if not lag:
            return range(left + 1, right + 1)
        before = bisect_left(lag, uids[left])
        if before == bisect_left(lag, uids[right - 1]):
            return range(left + before + 1, right + before + 1)
        offsets = map(bisect_left, repeat(lag), uids[left:right])
        return [position + offset for position, offset in enumerate(offsets, left + 1)]

    def _gather(self, columns: Columns, left: int, right: int) -> None:
        mine = self.view.columns
        if columns.uids:
            for column, more in zip(columns.arrays(), mine.arrays(), strict=True):
                column.extend(more[left:right])
        else:
            columns.uids = mine.uids[left:right]
            columns.flags = mine.flags[left:right]
            columns.modseqs = mine.modseqs[left:right]
            columns.sizes = mine.sizes[left:right]
            columns.dates = mine.dates[left:right]

    def first_unseen(self) -> int:
        """The sequence number of the first message without \\Seen; 0 if there is none."""
        words = self.view.columns.flags
        end = bisect_right(self.view.columns.uids, self.last)
        for start in range(0, end, _STEP):
            octets = words[start : min(end, start + _STEP)].tobytes()[LOW_OCTET::8]
            found = octets.translate(_SEEN_TABLE).find(b"\0")
            if found >= 0:
                return self._numbers(start + found, start + found + 1)[0]
        return 0

    def count_recent(self) -> int:
        """How many of the messages the client knows of are \\Recent in this session; it counts as told."""
        if self.counted is not None:
            self._recent = len(self.known(self.recent))
            return self._recent
        uids = self.view.columns.uids
        found = self.known(self.recent).slices(uids) if self.recent else ()
        self._recent = sum(piece.stop - piece.start for piece in found)
        return self._recent

    # News

    async def catch_up(self, hinted: bool = False) -> None:
        """
        Bring the view up to date, and claim what is \\Recent; `news` then tells.

        Args:
            hinted: only if the mailbox gave a hint.

        Raises:
            GiveUp: it cannot be known which messages the client believes in.
        """
        view = self.view
        mailbox = view.mailbox
        await (view.follow() if hinted and self.counted is None else view.refresh())
        if self.counted is not None:
            raise GiveUp("The mailbox changed too much while it was opened, please connect again")
        if view.newest > self._claimed and IClaimsRecent.providedBy(mailbox):
            self._claimed = view.newest
            if not self.read_only:
                claimed = await view.claim_recent(view.newest)
            else:
                # RFC 3501 §6.3.2: nothing loses \Recent here.  A claim takes all there are, so what
                # nobody claimed are the newest.
                unclaimed = (await view.mailbox.status()).recent
                claimed = UIDSet.of(view.columns.uids[-unclaimed:]) if unclaimed else NOTHING
            if claimed:
                self.recent = self.recent | claimed

    async def claim_counted(self) -> None:
        """Claim what is \\Recent among what was counted, so that it can be told before there are rows."""
        assert self.counted is not None
        if self.counted.recent and IClaimsRecent.providedBy(self.view.mailbox):
            self.recent = await self.view.claim_recent(self.last)
        self._claimed = self.last

    @property
    def has_news(self) -> bool:
        """`news` would have something to tell."""
        return bool(
            self.pending
            or self.lag
            or self.view.newest > self.last
            or len(self.view.mailbox.keywords) > self._keywords
        )

    def news(self, expunges: bool) -> News:
        """
        What the client is to be told now; from here on it counts as told.

        Args:
            expunges: EXPUNGE may be sent now (RFC 3501 §7.4.1).
        """
        view = self.view
        uids = view.columns.uids
        expunged: Sequence[int] = ()
        if expunges and self.lag:
            positions = map(bisect_left, repeat(uids), self.lag)
            expunged = array("I", [position + before for before, position in enumerate(positions, 1)])[::-1]
            self.lag = ()
        exists = recent = None
        if view.newest > self.last:
            self.last = view.newest
            exists = len(uids) + len(self.lag)
            recent = self.count_recent()
        elif expunged and (told := self._recent) and told != (count := self.count_recent()):
            recent = count
        changed, self.pending = self.pending, NOTHING
        return News(expunged, exists, recent, self.has_new_keywords(), changed)

    def has_new_keywords(self) -> bool:
        """The mailbox has more keywords than the client was told; from here on they count as told."""
        known, self._keywords = self._keywords, len(self.view.mailbox.keywords)
        return self._keywords > known

    def told(self, rows: Columns) -> None:
        """The client was told the flags of these rows; they may have changed again since."""
        if self.pending:
            mine = self.view.columns
            # What is pending is there: what vanished is taken off.
            same = [
                uid
                for uid, modseq in zip(rows.uids, rows.modseqs, strict=True)
                if uid in self.pending and mine.modseqs[bisect_left(mine.uids, uid)] <= modseq
            ]
            self.pending = self.pending - UIDSet.of(same)


class Views:
    """
    The views of a server, one for each live mailbox.

    Args:
        most_idle: octets of rows that views without a session may take together; the
            one not used for longest goes first.
        most_lines: octets of `MailboxView.lines`.
    """

    def __init__(self, most_idle: int = 64 * 1024 * 1024, most_lines: int = 64 * 1024 * 1024) -> None:
        self._most_idle = most_idle
        self._lines: Kept[bytes] = Kept(most_lines)
        self._numbers = count(1)
        self._views: dict[int, MailboxView] = {}
        self._idle: OrderedDict[int, MailboxView] = OrderedDict()

    def __len__(self) -> int:
        return len(self._views)

    def of(self, mailbox: Any) -> MailboxView:
        """The view of this live mailbox, an `IMailbox`; not refreshed."""
        # By identity: a mailbox need not be hashable, and its view keeps it alive.
        view = self._views.get(id(mailbox))
        if view is None:
            view = self._views[id(mailbox)] = MailboxView(mailbox, next(self._numbers), self._lines)
        return view

    def release(self, view: MailboxView) -> None:
        """Called when a session is through with a view, or failed to get into it."""
        key = id(view.mailbox)
        if view.watched or self._views.get(key) is not view:
            return
        self._idle[key] = view
        self._idle.move_to_end(key)
        self._trim()

    def forget(self, view: MailboxView) -> None:
        """Do not hand this view out again: its mailbox is gone or failed."""
        key = id(view.mailbox)
        if self._views.get(key) is view:
            del self._views[key]
            self._idle.pop(key, None)
            view.close()

    def _trim(self) -> None:
        # Who was selected again since is idle no more.
        for key in [key for key, view in self._idle.items() if view.watched]:
            del self._idle[key]
        size = sum(map(_cost, self._idle.values()))
        while size > self._most_idle and self._idle:
            _, view = self._idle.popitem(last=False)
            size -= _cost(view)
            self.forget(view)


def _cost(view: MailboxView) -> int:
    # Beside its rows a view keeps its mailbox alive, so that many empty ones count too.
    return len(view) * ROW_SIZE + 16 * 1024
