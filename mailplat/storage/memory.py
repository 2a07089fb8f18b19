"""
The reference store: accounts, mailboxes and messages in plain Python objects.

It is the shortest honest reading of `mailplat.interfaces`, with every ability, and it is
gone with its process.  Nothing here waits, except for the bytes of a body that is not in
memory; these are fetched before anything is changed, so each call is atomic by itself.

How a mailbox is kept: rows by UID, and one log of (modseq, UIDs touched).  What happened
after a modseq is then a question with one answer: of the UIDs touched since, those still
there are changed and the others have vanished.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from mailplat.errors import (
    AccountExists,
    InvalidName,
    MailboxExists,
    NoSuchAccount,
    NoSuchMailbox,
    NoSuchMessage,
    NotPermitted,
)
from mailplat.interfaces import (
    Delivery,
    IClaimsRecent,
    ICommitsTogether,
    IMailAccount,
    IMailbox,
    IMailStore,
    IMessageContent,
    IMovesMessages,
    IReadsMany,
    NewItem,
    NewMessage,
)
from mailplat.storage.memory_queue import MemoryQueue, arrival
from mailplat.storage.spool import whole
from mailplat.uids import EVERYTHING, NOTHING, UIDSet
from mailplat.values import (
    DELETED,
    SEEN,
    SEPARATOR,
    SPECIAL_MAILBOXES,
    Changes,
    Columns,
    Copied,
    FlagChange,
    FlagsSet,
    MailboxInfo,
    MailboxStatus,
    Outlined,
    Settled,
    flag_names,
    flag_word,
)


@implementer(IMessageContent)
class MemoryContent:
    """A message's prefix and body, read as one range without joining them."""

    def __init__(self, prefix: bytes, body: bytes) -> None:
        self._prefix = prefix
        self._body = body
        self.size = len(prefix) + len(body)

    async def read(self, start: int, length: int) -> bytes:
        cut = len(self._prefix)
        end = start + length
        return self._prefix[start:end] + self._body[max(0, start - cut) : max(0, end - cut)]

    def close(self) -> None:
        """Nothing is held open."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A message as it is in its mailbox; `word` counts keywords as that mailbox does."""

    uid: int
    word: int
    modseq: int
    date: int
    prefix: bytes
    body: bytes
    outline: bytes

    @property
    def size(self) -> int:
        return len(self.prefix) + len(self.body)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A message before it has a UID."""

    flags: Iterable[str]
    date: int
    prefix: bytes
    body: bytes
    outline: bytes


async def _arrival(message: NewMessage) -> _Arrival:
    body = message.body
    return _Arrival(message.flags, message.date, message.prefix, await whole(body), body.outline)


@implementer(IMailbox, IMovesMessages, IReadsMany, IClaimsRecent)
class MemoryMailbox:
    """
    See `IMailbox`.

    Methods whose names begin with an underscore change rows without telling anybody;
    whoever calls them calls `_tell` on each mailbox afterwards, when all is in place.
    """

    read_only = False

    def __init__(self, account: MemoryAccount, name: str, uid_validity: int, special_use: str | None) -> None:
        self.name = name
        self.uid_validity = uid_validity
        self.special_use = special_use
        self.keywords: list[str] = []
        self._account = account
        self._rows: dict[int, _Row] = {}
        self._uids: list[int] = []
        self._uid_next = 1
        self._claimed = 0
        # 1, not 0: IMAP cannot say a modseq of 0 (RFC 7162 §7), and what comes next must be greater.
        self._modseq = 1
        self._log: list[tuple[int, UIDSet]] = []
        self._hints: dict[object, Callable[[], None]] = {}
        self._gone = False

    # Reading

    async def status(self) -> MailboxStatus:
        rows = self._rows.values()
        return MailboxStatus(
            messages=len(rows),
            unseen=sum(not row.word & SEEN for row in rows),
            recent=len(self._uids) - bisect_right(self._uids, self._claimed),
            uid_next=self._uid_next,
            uid_validity=self.uid_validity,
            highest_modseq=self._modseq,
            size=sum(row.size for row in rows),
        )

    async def columns(self, uids: UIDSet) -> Columns:
        return _columns(self._select(uids))

    async def outlines(self, uids: UIDSet) -> Sequence[Outlined]:
        return [Outlined(row.uid, len(row.prefix), row.outline) for row in self._select(uids)]

    async def content(self, uid: int) -> MemoryContent:
        if (row := self._rows.get(uid)) is None:
            raise NoSuchMessage()
        return MemoryContent(row.prefix, row.body)

    async def contents(self, uids: UIDSet, limit: int) -> Sequence[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        for row in self._select(uids):
            limit -= row.size
            if limit < 0:
                break
            found.append((row.uid, row.prefix + row.body))
        return found

    async def changes(self, since: int) -> Changes:
        if since >= self._modseq:
            return Changes(self._modseq, Columns())
        if since <= 0:
            return Changes(self._modseq, _columns(self._select(EVERYTHING)))
        start = bisect_right(self._log, since, key=lambda entry: entry[0])
        touched = UIDSet(chain.from_iterable(uids.runs for _, uids in self._log[start:]))
        changed = self._select(touched)
        return Changes(self._modseq, _columns(changed), touched - UIDSet.of(row.uid for row in changed))

    def watch(self, hint: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._hints[key] = hint

        def stop() -> None:
            self._hints.pop(key, None)

        return stop

    # Changing

    async def append(self, messages: Sequence[NewMessage]) -> Sequence[int]:
        arrivals = [await _arrival(message) for message in messages]
        uids = self._add(arrivals)
        self._tell()
        return uids

    async def set_flags(
        self, uids: UIDSet, change: FlagChange, unchanged_since: int | None = None
    ) -> FlagsSet:
        rows = self._select(uids)
        refused = NOTHING
        if unchanged_since is not None:
            refused = UIDSet.of(row.uid for row in rows if row.modseq > unchanged_since)
            rows = [row for row in rows if row.modseq <= unchanged_since]
        if not rows:
            return FlagsSet(Columns(), refused)
        add = flag_word(change.add, self.keywords)
        # With a limit of 0 no name is new: what nobody has cannot be taken away.
        remove = flag_word(change.remove, self.keywords, limit=0)
        if change.replace:
            wanted = [add] * len(rows)
        else:
            wanted = [(row.word | add) & ~remove for row in rows]
        modseq = self._modseq + 1
        changed = [
            replace(row, word=word, modseq=modseq)
            for row, word in zip(rows, wanted, strict=True)
            if row.word != word
        ]
        if changed:
            self._rows.update((row.uid, row) for row in changed)
            self._note(UIDSet.of(row.uid for row in changed))
            self._tell()
        return FlagsSet(_columns(changed), refused)

    async def expunge(self, uids: UIDSet, deleted_only: bool = True) -> UIDSet:
        doomed = UIDSet.of(row.uid for row in self._select(uids) if row.word & DELETED or not deleted_only)
        self._remove(doomed)
        self._tell()
        return doomed

    async def copy(self, uids: UIDSet, destination: str) -> Copied:
        target = self._account.find(destination)
        copied = self._copy(uids, target)
        target._tell()
        return copied

    async def move(self, uids: UIDSet, destination: str) -> Copied:
        target = self._account.find(destination)
        if target is self:
            raise NotPermitted("Cannot move messages to the mailbox they are in")
        moved = self._copy(uids, target)
        self._remove(UIDSet.of(moved.sources))
        target._tell()
        self._tell()
        return moved

    async def claim_recent(self) -> UIDSet:
        first = bisect_right(self._uids, self._claimed)
        self._claimed = self._uid_next - 1
        return UIDSet.of(self._uids[first:])

    # Beneath them

    def _select(self, uids: UIDSet) -> list[_Row]:
        """The rows of these UIDs, ascending."""
        return [self._rows[uid] for piece in uids.slices(self._uids) for uid in self._uids[piece]]

    def _note(self, touched: UIDSet) -> None:
        """Give the next modseq to a change of these UIDs."""
        self._modseq += 1
        self._log.append((self._modseq, touched))

    def _tell(self) -> None:
        for hint in list(self._hints.values()):
            hint()

    def _add(self, arrivals: Sequence[_Arrival]) -> list[int]:
        if self._gone:
            raise NoSuchMailbox()
        if not arrivals:
            return []
        uids = list(range(self._uid_next, self._uid_next + len(arrivals)))
        self._uid_next += len(arrivals)
        self._note(UIDSet.of(uids))
        for uid, new in zip(uids, arrivals, strict=True):
            word = flag_word(new.flags, self.keywords)
            self._rows[uid] = _Row(uid, word, self._modseq, new.date, new.prefix, new.body, new.outline)
        self._uids += uids
        return uids

    def _copy(self, uids: UIDSet, target: MemoryMailbox) -> Copied:
        rows = self._select(uids)
        copies = target._add(
            [
                _Arrival(flag_names(row.word, self.keywords), row.date, row.prefix, row.body, row.outline)
                for row in rows
            ]
        )
        return Copied(target.uid_validity, [row.uid for row in rows], copies)

    def _remove(self, uids: UIDSet) -> None:
        """Remove these, which are all there."""
        if uids:
            for uid in uids:
                del self._rows[uid]
            self._uids = list(self._rows)
            self._note(uids)

    def _close(self) -> None:
        """The mailbox was deleted; to those who have it open, all its messages vanish."""
        self._gone = True
        self._remove(UIDSet.of(self._uids))
        self._tell()


def _columns(rows: Iterable[_Row]) -> Columns:
    return Columns.of((row.uid, row.word, row.modseq, row.size, row.date) for row in rows)


@implementer(IMailAccount)
class MemoryAccount:
    """
    See `IMailAccount`.

    A name without a mailbox, which only has or had children, stands for None.
    """

    abilities: frozenset[InterfaceClass] = frozenset(
        (ICommitsTogether, IMovesMessages, IReadsMany, IClaimsRecent)
    )

    def __init__(self, store: MemoryStore, name: str) -> None:
        self.name = name
        self._store = store
        self._names: dict[str, MemoryMailbox | None] = {}
        self._subscribed: set[str] = set()

    async def mailboxes(self) -> Sequence[MailboxInfo]:
        return [
            MailboxInfo(
                name,
                selectable=mailbox is not None,
                subscribed=name in self._subscribed,
                special_use=mailbox.special_use if mailbox else None,
                exists=name in self._names,
            )
            for name in sorted(self._names.keys() | self._subscribed)
            for mailbox in (self._names.get(name),)
        ]

    async def open(self, name: str) -> MemoryMailbox:
        return self.find(name)

    def find(self, name: str) -> MemoryMailbox:
        """As `open`, at once."""
        if (mailbox := self._names.get(name)) is None:
            raise NoSuchMailbox()
        return mailbox

    async def create(self, name: str, special_use: str | None = None) -> None:
        self._check(name)
        if self._names.get(name) is not None:
            raise MailboxExists()
        self._make_parents(name)
        self._make(name, special_use)

    async def delete(self, name: str) -> None:
        if name == "INBOX":
            raise NotPermitted("INBOX cannot be deleted")
        if name not in self._names:
            raise NoSuchMailbox()
        mailbox = self._names[name]
        if any(self._below(name)):
            if mailbox is None:
                raise NotPermitted("The name has others below it")
            self._names[name] = None
        else:
            del self._names[name]
        if mailbox is not None:
            mailbox._close()

    async def rename(self, old: str, new: str) -> None:
        if old not in self._names:
            raise NoSuchMailbox()
        self._check(new)
        if new in self._names:
            raise MailboxExists()
        if old == "INBOX":
            self._make_parents(new)
            source, target = self.find(old), self._make(new, None)
            moved = source._copy(EVERYTHING, target)
            source._remove(UIDSet.of(moved.sources))
            source._tell()
            return
        if new.startswith(old + SEPARATOR):
            raise NotPermitted("A mailbox cannot be moved below itself")
        self._make_parents(new)
        for name in [old, *self._below(old)]:
            mailbox = self._names.pop(name)
            renamed = new + name[len(old) :]
            self._names[renamed] = mailbox
            if mailbox is not None:
                mailbox.name = renamed

    async def subscribe(self, name: str, subscribed: bool) -> None:
        self._check(name)
        # The list is its own: a mailbox that goes stays on it (RFC 3501 §6.3.9).
        if subscribed:
            self._subscribed.add(name)
        else:
            self._subscribed.discard(name)

    def _check(self, name: str) -> None:
        if not self._store.has(self):
            raise NoSuchAccount()
        if not (_is_printable(name) and all(name.split(SEPARATOR))):
            raise InvalidName()

    def _below(self, name: str) -> Iterator[str]:
        return (other for other in list(self._names) if other.startswith(name + SEPARATOR))

    def _make_parents(self, name: str) -> None:
        levels = name.split(SEPARATOR)
        for depth in range(1, len(levels)):
            parent = SEPARATOR.join(levels[:depth])
            if parent not in self._names:
                self._make(parent, None)

    def _make(self, name: str, special_use: str | None) -> MemoryMailbox:
        mailbox = MemoryMailbox(self, name, self._store.next_uid_validity(), special_use)
        self._names[name] = mailbox
        return mailbox

    def _furnish(self) -> None:
        for name, special_use in {"INBOX": None, **SPECIAL_MAILBOXES}.items():
            self._make(name, special_use)
            self._subscribed.add(name)

    def _close(self) -> None:
        names, self._names = self._names, {}
        for mailbox in names.values():
            if mailbox is not None:
                mailbox._close()


@implementer(IMailStore, ICommitsTogether)
class MemoryStore:
    """
    See `IMailStore`.

    Args:
        clock: seconds since 1970; a new mailbox's UIDVALIDITY is this or, if that was given
            already, the next number.  Mail is gone with the process, and a client must not
            take the next one's messages for those it remembers.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.queue = MemoryQueue()
        self._clock = clock
        self._uid_validity = 0
        self._accounts: dict[str, MemoryAccount] = {}

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close: `start` finds everything as it was."""

    async def accounts(self) -> Sequence[str]:
        return sorted(self._accounts)

    async def has_account(self, name: str) -> bool:
        return name in self._accounts

    async def account(self, name: str) -> MemoryAccount:
        return self._find(name)

    async def create_account(self, name: str) -> None:
        if not _is_printable(name):
            raise InvalidName()
        if name in self._accounts:
            raise AccountExists()
        account = self._accounts[name] = MemoryAccount(self, name)
        account._furnish()

    async def remove_account(self, name: str) -> None:
        account = self._find(name)
        del self._accounts[name]
        account._close()

    async def commit(
        self,
        deliveries: Sequence[Delivery],
        items: Sequence[NewItem] = (),
        results: Sequence[Settled] = (),
    ) -> tuple[Sequence[int], Sequence[int]]:
        arrivals = [await _arrival(delivery.message) for delivery in deliveries]
        queued = [await arrival(item) for item in items]
        by_mailbox: dict[MemoryMailbox, list[int]] = {}
        for index, delivery in enumerate(deliveries):
            mailbox = self._find(delivery.account).find(delivery.mailbox)
            by_mailbox.setdefault(mailbox, []).append(index)
        # From here nothing can fail.
        uids = [0] * len(deliveries)
        for mailbox, indexes in by_mailbox.items():
            for index, uid in zip(indexes, mailbox._add([arrivals[i] for i in indexes]), strict=True):
                uids[index] = uid
        ids = self.queue.put(queued)
        self.queue.put_down(results)
        for mailbox in by_mailbox:
            mailbox._tell()
        if ids:
            self.queue.tell()
        return uids, ids

    def has(self, account: MemoryAccount) -> bool:
        """The account was not removed."""
        return self._accounts.get(account.name) is account

    def next_uid_validity(self) -> int:
        """One that no mailbox of this store had."""
        self._uid_validity = max(self._uid_validity + 1, int(self._clock()))
        return self._uid_validity

    def _find(self, name: str) -> MemoryAccount:
        if (account := self._accounts.get(name)) is None:
            raise NoSuchAccount()
        return account


def _is_printable(name: str) -> bool:
    """Not empty, without control characters and without half a surrogate pair."""
    return bool(name) and not any(
        character < " " or "\x7f" <= character <= "\x9f" or "\ud800" <= character <= "\udfff"
        for character in name
    )
