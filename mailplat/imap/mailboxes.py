"""
The commands that work on names: SELECT, LIST, CREATE and their kin, STATUS, APPEND.

A part of `mailplat.imap.session.IMAPSession`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from mailplat.errors import NoSuchMailbox
from mailplat.imap import commands, responses
from mailplat.imap.engine import Bad, Fatal, IMAPEngine, MessageChunk, MessageEnd, State
from mailplat.imap.limits import Limits
from mailplat.imap.refusal import GiveUp, Refused
from mailplat.imap.view import Selected, Views
from mailplat.interfaces import ISpool, NewMessage
from mailplat.message.compose import InternalDates
from mailplat.values import SEPARATOR, MailboxInfo
from mailplat.wire import Wire

#: A mailbox with more messages is selected before its rows are there, and without UNSEEN then; to load
#: fewer takes a few milliseconds.
FEW = 131072

#: Names looked at in one step of LIST.
NAMES = 500

_LINE_END = re.compile(rb"\r\n|\r|\n")


class MailboxCommands:
    """See the module."""

    _engine: IMAPEngine
    _wire: Wire
    _spool: ISpool
    _limits: Limits
    _views: Views
    _dates: InternalDates
    _clock: Callable[[], float]
    _later: Callable[..., IDelayedCall]
    _account: Any
    _selected: Selected | None
    _renderer: responses.RowRenderer | None
    _condstore: bool

    def _enable_condstore(self) -> None:
        raise TypeError

    # Selecting

    def _unselect(self) -> None:
        selected, self._selected = self._selected, None
        self._renderer = None
        if selected is not None:
            selected.close()
            self._views.release(selected.view)
        if self._engine.state is State.SELECTED:
            self._engine.state = State.AUTHENTICATED

    async def _select(self, command: commands.Select) -> tuple[str, bytes]:
        # RFC 3501 §6.3.1: a SELECT that fails leaves no mailbox selected.
        self._unselect()
        if command.condstore:
            self._condstore = True
        mailbox = await self._account.open(command.mailbox)
        read_only = isinstance(command, commands.Examine) or mailbox.read_only
        view = self._views.of(mailbox)
        try:
            status = await mailbox.status()
            counted = None
            # Which messages are \Recent to a client that claims none only rows tell.
            if status.messages > FEW and not view.loaded and not (read_only and status.recent):
                counted = status
            else:
                await view.refresh()
            selected = Selected(view, read_only, self._wire.wake, counted)
        except BaseException:
            self._views.release(view)
            raise
        self._selected = selected
        self._renderer = responses.RowRenderer(mailbox, self._dates)
        try:
            await (selected.catch_up(hinted=True) if counted is None else selected.claim_counted())
        except BaseException:
            self._unselect()
            raise
        selected.news(expunges=True)  # all of it is in what follows
        wire = self._wire
        wire.write(responses.flags(mailbox.keywords))
        wire.write(responses.permanent_flags(mailbox.keywords, read_only))
        wire.write(responses.number(selected.exists, b"EXISTS"))
        wire.write(responses.number(selected.count_recent(), b"RECENT"))
        unseen = selected.first_unseen()
        if unseen:
            wire.write(b"* OK [UNSEEN %d] First unseen\r\n" % unseen)
        wire.write(b"* OK [UIDVALIDITY %d] UIDs are valid\r\n" % mailbox.uid_validity)
        uid_next = max(status.uid_next, view.newest + 1)
        wire.write(b"* OK [UIDNEXT %d] Predicted next UID\r\n" % uid_next)
        wire.write(b"* OK [HIGHESTMODSEQ %d] Highest\r\n" % selected.moment)
        self._engine.state = State.SELECTED
        if counted is not None:
            # Once the answer is on its way, so that the interpreter is not busy with rows before.
            self._later(0, view.load)
        return "Selected", b"READ-ONLY" if read_only else b"READ-WRITE"

    # Names

    async def _create(self, command: commands.Create) -> tuple[str, bytes]:
        await self._account.create(command.mailbox)
        return "CREATE completed", b""

    async def _delete(self, command: commands.Delete) -> tuple[str, bytes]:
        await self._account.delete(command.mailbox)
        return "DELETE completed", b""

    async def _rename(self, command: commands.Rename) -> tuple[str, bytes]:
        await self._account.rename(command.old, command.new)
        return "RENAME completed", b""

    async def _subscribe(self, command: commands.Subscribe | commands.Unsubscribe) -> tuple[str, bytes]:
        await self._account.subscribe(command.mailbox, isinstance(command, commands.Subscribe))
        return "Completed", b""

    async def _list(self, command: commands.List) -> tuple[str, bytes]:
        lsub = isinstance(command, commands.Lsub)
        kind = b"LSUB" if lsub else b"LIST"
        if not command.pattern:
            # RFC 3501 §6.3.8: an empty pattern asks for the separator.
            self._wire.write(b'* %b (\\Noselect) "/" ""\r\n' % kind)
            return "Completed", b""
        pattern = Pattern(command.reference + command.pattern)
        infos: Sequence[MailboxInfo] = await self._account.mailboxes()
        parents = {parent for info in infos if info.exists for parent in _above(info.name)}
        for start in range(0, len(infos), NAMES):
            for info in infos[start : start + NAMES]:
                listed = info.subscribed if lsub else info.exists
                if listed and pattern.matches(info.name):
                    self._wire.write(responses.listed(kind, info, info.name in parents))
            await self._wire.drained()
            await self._wire.pause()
        if lsub and "%" in pattern.text:
            await self._list_above(pattern, [info.name for info in infos if info.subscribed])
        return "Completed", b""

    async def _list_above(self, pattern: Pattern, subscribed: Sequence[str]) -> None:
        """RFC 3501 §6.3.9: "%" shows a name above a subscribed one that it does not reach."""
        above = {parent for name in subscribed for parent in _above(name)}.difference(subscribed)
        for name in sorted(filter(pattern.matches, above)):
            self._wire.write(responses.listed(b"LSUB", MailboxInfo(name, selectable=False), True))
        await self._wire.drained()

    async def _namespace(self, command: commands.Namespace) -> tuple[str, bytes]:
        self._wire.write(b'* NAMESPACE (("" "/")) NIL NIL\r\n')
        return "NAMESPACE completed", b""

    async def _status(self, command: commands.Status) -> tuple[str, bytes]:
        mailbox = await self._account.open(command.mailbox)
        if "HIGHESTMODSEQ" in command.items:
            self._enable_condstore()
        status = await mailbox.status()
        values = {
            "MESSAGES": status.messages,
            "RECENT": status.recent,
            "UIDNEXT": status.uid_next,
            "UIDVALIDITY": status.uid_validity,
            "UNSEEN": status.unseen,
            "HIGHESTMODSEQ": status.highest_modseq,
            "APPENDLIMIT": self._limits.append_size,
        }
        items = [(item, values[item]) for item in command.items]
        self._wire.write(responses.status(command.mailbox, items))
        return "STATUS completed", b""

    # APPEND

    async def _append(self, command: commands.Append) -> tuple[str, bytes]:
        try:
            mailbox = await self._account.open(command.mailbox)
        except NoSuchMailbox as error:
            self._engine.refuse_message()
            # RFC 3501 §6.3.11
            raise Refused(error.text, b"TRYCREATE") from None
        except BaseException:
            self._engine.refuse_message()
            raise
        if command.synchronizing:
            self._wire.write(b"+ Send the message\r\n")
        self._engine.accept_message()
        writer = self._spool.begin()
        self._wire.phase(self._limits.literal_timeout, self._limits.append_rate)
        try:
            await self._receive(writer)
            body = await writer.finish()
        except BaseException:
            writer.abandon()
            raise
        finally:
            self._wire.phase(None)
        try:
            date = command.date if command.date is not None else int(self._clock())
            uids = await mailbox.append([NewMessage(body, b"", command.flags, date)])
        finally:
            body.close()
        return "APPEND completed", b"APPENDUID %d %d" % (mailbox.uid_validity, uids[0])

    async def _receive(self, writer: Any) -> None:
        """Read the message to its end, whatever happens to it on the way."""
        trouble: Exception | None = None
        held = b""
        while True:
            event = await self._wire.event(self._limits.literal_timeout)
            if isinstance(event, MessageChunk):
                if trouble is not None:
                    continue
                data = held + event.data
                # A CR at the end may be half of a CR LF.
                held = b"\r" if data.endswith(b"\r") else b""
                if held:
                    data = data[:-1]
                if b"\0" in data:
                    # RFC 3501 §9: CHAR8 is any octet but NUL.
                    trouble = Refused("The message has a NUL in it", b"CANNOT")
                    continue
                try:
                    await writer.write(with_line_ends(data))
                except Exception as error:
                    trouble = error
            elif isinstance(event, MessageEnd):
                if trouble is not None:
                    raise trouble
                if held:
                    await writer.write(b"\r\n")
                return
            elif isinstance(event, Bad):
                raise Refused(event.text)
            elif isinstance(event, Fatal):
                raise GiveUp(event.text)
            else:
                raise Refused("End of message expected")


def with_line_ends(data: bytes) -> bytes:
    """Lines ended by CR LF, whatever ended them; a CR at the end of `data` must not be half of one."""
    # Two searches for a single octet: a quarter of what it takes to count the three kinds of line ends.
    if data.replace(b"\r", b"").replace(b"\n", b"\r\n") == data:
        return data
    return _LINE_END.sub(b"\r\n", data)


def _above(name: str) -> list[str]:
    """The names above a name, nearest last."""
    parts = name.split(SEPARATOR)
    return [SEPARATOR.join(parts[:end]) for end in range(1, len(parts))]


_WILDCARDS = re.compile(r"[*%]+")


class Pattern:
    """
    A pattern of LIST and LSUB: `*` is anything, `%` anything within a level (RFC 3501 §6.3.8).

    Args:
        text: reference and pattern, joined.
    """

    def __init__(self, text: str) -> None:
        # Several wildcards together are worth the strongest of them.
        self.text = _WILDCARDS.sub(lambda run: "*" if "*" in run[0] else "%", text)
        # RFC 3501 §5.1: INBOX in any case.
        self._for_inbox = re.sub("(?i)inbox", "INBOX", self.text)

    def matches(self, name: str) -> bool:
        """Takes time in proportion to the square of the name's length at most, whatever the pattern."""
        # Where in `name` the pattern read so far may end.
        places = {0}
        for character in self._for_inbox if name == "INBOX" else self.text:
            if not places:
                return False
            if character == "*":
                places = set(range(min(places), len(name) + 1))
            elif character == "%":
                reached: set[int] = set()
                for place in sorted(places):
                    while place not in reached:
                        reached.add(place)
                        if place == len(name) or name[place] == SEPARATOR:
                            break
                        place += 1
                places = reached
            else:
                places = {place + 1 for place in places if name[place : place + 1] == character}
        return len(name) in places
