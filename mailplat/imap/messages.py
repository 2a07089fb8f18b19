"""
The commands on the selected mailbox: FETCH, STORE, SEARCH, COPY, MOVE, EXPUNGE, CLOSE.

A part of `mailplat.imap.session.IMAPSession`.  Sequence numbers end here: below are UIDs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailplat.errors import NoSuchMailbox
from mailplat.imap import commands, responses
from mailplat.imap.commands import Item
from mailplat.imap.fetch import Fetching
from mailplat.imap.grammar import SequenceSet
from mailplat.imap.outlines import Outlines
from mailplat.imap.refusal import Refused, code_of
from mailplat.imap.search import search
from mailplat.imap.view import Selected, SequenceError
from mailplat.interfaces import IMovesMessages
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import Columns, Copied, FlagChange, flag_word
from mailplat.wire import Wire

#: Messages told of at a time.
ROWS = 1000


class MessageCommands:
    """See the module."""

    _wire: Wire
    _outlines: Outlines
    _account: Any
    _selected: Selected | None
    _renderer: responses.RowRenderer | None
    _condstore: bool

    def _enable_condstore(self) -> None:
        raise TypeError

    def _unselect(self) -> None:
        raise TypeError

    def _mailbox(self) -> tuple[Selected, responses.RowRenderer]:
        assert self._selected is not None and self._renderer is not None
        return self._selected, self._renderer

    async def _rows(self) -> tuple[Selected, responses.RowRenderer]:
        """As `_mailbox`, and its rows are there."""
        selected, renderer = self._mailbox()
        if selected.counted is not None:
            await selected.catch_up(hinted=True)
        return selected, renderer

    def _meant(self, selected: Selected, by_uid: bool, numbers: SequenceSet) -> UIDSet:
        """The UIDs that a client means."""
        if by_uid:
            return selected.known(numbers.resolve(selected.star))
        try:
            return selected.from_numbers(numbers.resolve(selected.exists))
        except SequenceError as error:
            raise Refused(str(error)) from None

    def _writable(self, selected: Selected) -> None:
        if selected.read_only:
            raise Refused("The mailbox is read-only", b"READ-ONLY")

    def _extra(self) -> tuple[Item, ...]:
        """What comes with FLAGS that nobody asked for (RFC 7162 §3.2)."""
        return (Item.UID, Item.MODSEQ) if self._condstore else ()

    def _write_keywords(self, selected: Selected) -> None:
        """RFC 3501 §7.2.6: what flags there are is told before they are used."""
        keywords = selected.view.mailbox.keywords
        self._wire.write(responses.flags(keywords))
        self._wire.write(responses.permanent_flags(keywords, selected.read_only))

    async def _tell_flags(self, selected: Selected, uids: UIDSet, by_uid: bool = False) -> None:
        """Untagged FETCH with the flags of these messages, as they are now."""
        _, renderer = self._mailbox()
        kinds = [Item.FLAGS, *self._extra()]
        if by_uid and Item.UID not in kinds:
            # RFC 3501 §6.4.8
            kinds.insert(0, Item.UID)
        for rows in selected.pieces(uids, ROWS):
            selected.told(rows.columns)
            self._wire.write(renderer.lines(rows.numbers, rows.columns, kinds, selected.recent))
            await self._wire.drained()
            await self._wire.pause()

    async def _tell_modseqs(self, selected: Selected, changed: Columns) -> None:
        """RFC 7162 §3.1.3: where flags are not told, their new modseqs are all the same."""
        _, renderer = self._mailbox()
        for rows in selected.pieces(UIDSet.of(changed.uids), ROWS):
            kinds = (Item.UID, Item.MODSEQ)
            self._wire.write(renderer.lines(rows.numbers, rows.columns, kinds, selected.recent))
            await self._wire.drained()

    async def _fetch(self, command: commands.Fetch) -> tuple[str, bytes]:
        selected, renderer = await self._rows()
        uids = self._meant(selected, command.uid, command.numbers)
        if command.changed_since is not None or Item.MODSEQ in command.plan.kinds:
            self._enable_condstore()
        extra = self._extra()
        if command.uid and Item.UID not in extra:
            extra = (Item.UID, *extra)
        if (Item.FLAGS in command.plan.kinds or command.plan.sets_seen) and selected.has_new_keywords():
            self._write_keywords(selected)
        fetching = Fetching(selected, command.plan, renderer, self._outlines, self._wire, extra)
        complete = await fetching.run(uids, command.changed_since)
        if fetching.unseen is not None:
            # RFC 3501 §7.1.2: a warning; what was asked for was answered all the same.
            text = f"\\Seen was not set: {fetching.unseen.text}"
            self._wire.write(responses.tagged(b"*", b"NO", text, code_of(fetching.unseen)))
        # RFC 5530 EXPUNGEISSUED: some are gone, which the client will hear of later.
        return "FETCH completed", b"" if complete or command.uid else b"EXPUNGEISSUED"

    async def _store(self, command: commands.Store) -> tuple[str, bytes]:
        selected, _ = await self._rows()
        self._writable(selected)
        uids = self._meant(selected, command.uid, command.numbers)
        if command.unchanged_since is not None:
            self._enable_condstore()
        mailbox = selected.view.mailbox
        await selected.catch_up(hinted=True)
        before = _believed(selected, uids) if command.silent else {}
        result = await mailbox.set_flags(uids, command.change, command.unchanged_since)
        selected.view.learn(result.changed)
        await selected.catch_up(hinted=False)
        if selected.has_new_keywords():
            self._write_keywords(selected)
        if not command.silent:
            await self._tell_flags(selected, uids - result.refused, command.uid)
        else:
            selected.told(_own(result.changed, before, command.change, mailbox.keywords))
            if self._condstore:
                await self._tell_modseqs(selected, result.changed)
        if result.refused:
            told = result.refused if command.uid else selected.to_numbers(result.refused)
            return "Conditional STORE failed for some", b"MODIFIED " + responses.uid_set(told)
        complete = command.uid or not selected.lagging(uids)
        return "STORE completed", b"" if complete else b"EXPUNGEISSUED"

    async def _search(self, command: commands.Search) -> tuple[str, bytes]:
        selected, _ = await self._rows()
        if command.modseq:
            self._enable_condstore()
        # New messages count only once the client was told of them.
        found = await search(
            selected, command.key, command.uid, self._outlines, self._wire.pause, command.modseq
        )
        if command.returns is None:
            modseq = found.highest_modseq if command.modseq else None
            self._wire.write(responses.searched(found.words, modseq))
        else:
            # RFC 4731 §3.2: with MIN or MAX alone the modseq is that message's.
            modseq = None
            if command.modseq:
                modseq = {
                    frozenset({"MIN"}): found.first_modseq,
                    frozenset({"MAX"}): found.last_modseq,
                    frozenset({"MIN", "MAX"}): max(found.first_modseq, found.last_modseq),
                }.get(command.returns, found.highest_modseq)
            answer = responses.esearched(command.tag, command.uid, found.numbers, command.returns, modseq)
            self._wire.write(answer)
        return "SEARCH completed", b""

    async def _copy(self, command: commands.Copy) -> tuple[str, bytes]:
        selected, _ = await self._rows()
        uids = self._meant(selected, command.uid, command.numbers)
        try:
            copied = await selected.view.mailbox.copy(uids, command.mailbox)
        except NoSuchMailbox as error:
            raise Refused(error.text, b"TRYCREATE") from None
        self._something_was(command, copied)
        return "COPY completed", _copy_code(copied)

    async def _move(self, command: commands.Move) -> tuple[str, bytes]:
        selected, _ = await self._rows()
        if IMovesMessages not in self._account.abilities:
            raise Refused("Unknown command")
        self._writable(selected)
        uids = self._meant(selected, command.uid, command.numbers)
        mailbox = selected.view.mailbox
        movable = IMovesMessages.providedBy(mailbox)
        try:
            if command.mailbox == mailbox.name:
                # RFC 6851 §3: allowed where COPY is.  Stores have no such move; the copies come first, so
                # that nothing is ever lost.
                moved = await mailbox.copy(uids, command.mailbox)
                await mailbox.expunge(UIDSet.of(moved.sources), deleted_only=False)
            elif movable:
                moved = await mailbox.move(uids, command.mailbox)
            else:
                raise Refused("This mailbox cannot move messages", b"CANNOT")
        except NoSuchMailbox as error:
            raise Refused(error.text, b"TRYCREATE") from None
        self._something_was(command, moved)
        code = _copy_code(moved)
        if code:
            # RFC 6851 §4.3: the code comes before the EXPUNGEs.
            self._wire.write(responses.tagged(b"*", b"OK", "Moved", code))
        return "MOVE completed", b""

    def _something_was(self, command: commands.Copy | commands.Move, copied: Copied) -> None:
        """
        By number a client names messages that it believes in: if all of them are gone, nothing was
        copied, and it should know (RFC 2180 §4.4).
        """
        if not command.uid and not copied.sources:
            raise Refused("These messages are gone", b"EXPUNGEISSUED")

    async def _expunge(self, command: commands.Expunge | commands.UIDExpunge) -> tuple[str, bytes]:
        selected, _ = await self._rows()
        self._writable(selected)
        # RFC 3501 §6.4.3: all that have \Deleted at this moment, whoever set it and whether this client
        # was told or not; of a message that it never heard of it will not hear either.
        uids = EVERYTHING
        if isinstance(command, commands.UIDExpunge):
            uids = self._meant(selected, True, command.uids)
        if uids:
            await selected.view.mailbox.expunge(uids, deleted_only=True)
            await selected.catch_up()
        code = b"HIGHESTMODSEQ %d" % selected.view.upto if self._condstore else b""
        return "EXPUNGE completed", code

    async def _close(self, command: commands.Close | commands.Unselect) -> tuple[str, bytes]:
        selected, _ = self._mailbox()
        try:
            if isinstance(command, commands.Close) and not selected.read_only:
                # RFC 3501 §6.4.2: as EXPUNGE does, silently.
                await selected.view.mailbox.expunge(EVERYTHING, deleted_only=True)
        finally:
            self._unselect()
        return "Completed", b""


def _believed(selected: Selected, uids: UIDSet) -> dict[int, int]:
    """UID -> flag word of those messages of which the client knows it."""
    known: dict[int, int] = {}
    for rows in selected.pieces(uids, ROWS):
        known.update((uid, word) for uid, word, *_ in rows.columns.rows() if uid not in selected.pending)
    return known


def _own(changed: Columns, before: dict[int, int], change: FlagChange, keywords: Sequence[str]) -> Columns:
    """
    The rows that are as the client must think they are after its own change.

    It asked for silence about these only (RFC 3501 §6.4.6): where somebody else changed flags as
    well, it is told.
    """
    names = list(keywords)
    add, remove = flag_word(change.add, names), flag_word(change.remove, names)

    def expected(word: int) -> int:
        return add if change.replace else (word | add) & ~remove

    rows = changed.rows()
    return Columns.of(row for row in rows if row[0] in before and expected(before[row[0]]) == row[1])


def _copy_code(copied: Copied) -> bytes:
    """COPYUID (RFC 4315 §3); nothing if nothing was copied."""
    if not copied.sources:
        return b""
    sources, copies = responses.uid_set(copied.sources), responses.uid_set(copied.copies)
    return b"COPYUID %d %b %b" % (copied.uid_validity, sources, copies)
