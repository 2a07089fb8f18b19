"""
The store: mailplat's interfaces over `mailplat_eml.tree`.

Each question looks at the disk first, in a thread, one look at a time for each account.
What the store cannot do it says: changing is NotPermitted, what vanished is left for the
caller to find out, and the only ability is to read many messages in one hop to a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from mailplat.errors import NoSuchAccount, NoSuchMailbox, NoSuchMessage, NotPermitted
from mailplat.interfaces import IMailAccount, IMailbox, IMailStore, IMessageContent, IReadsMany
from mailplat.uids import UIDSet
from mailplat.values import Changes, Columns, MailboxInfo, MailboxStatus, Outlined
from mailplat_eml import tree

#: Seconds between looks at a mailbox that somebody watches.
INTERVAL = 10.0


async def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
    """The mail is somebody else's."""
    raise NotPermitted("These mailboxes are only shown here")


@implementer(IMessageContent)
class EmlContent:
    """A message, held until it is closed, whatever becomes of its file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    async def read(self, start: int, length: int) -> bytes:
        return self._data[start : start + length]

    def close(self) -> None:
        self._data = b""


@implementer(IMailbox, IReadsMany)
class EmlMailbox:
    read_only = True
    keywords = ()

    def __init__(self, account: EmlAccount, name: str, uid_validity: int) -> None:
        self.name = name
        self.uid_validity = uid_validity
        self._account = account
        self._last = tree.Box(uid_validity)
        self._hints: list[Callable[[], None]] = []
        self._looking = LoopingCall(self._look)
        self._looking.clock = account.reactor

    async def status(self) -> MailboxStatus:
        box = await self._box()
        return MailboxStatus(
            messages=len(box.files),
            unseen=len(box.files),
            recent=0,
            uid_next=box.uid_next,
            uid_validity=self.uid_validity,
            highest_modseq=box.modseq,
            size=sum(message.size for message in box.files.values()),
        )

    async def columns(self, uids: UIDSet) -> Columns:
        return columns(message for _, message in chosen(await self._box(), uids))

    async def outlines(self, uids: UIDSet) -> Sequence[Outlined]:
        return [Outlined(message.uid, 0, None) for _, message in chosen(await self._box(), uids)]

    async def content(self, uid: int) -> EmlContent:
        found = await self._account.read(self.name, chosen(await self._box(), UIDSet.of([uid])))
        for _, data in found:
            return EmlContent(data)
        raise NoSuchMessage()

    async def contents(self, uids: UIDSet, limit: int) -> Sequence[tuple[int, bytes]]:
        fitting: list[tuple[str, tree.Message]] = []
        for file, message in chosen(await self._box(), uids):
            limit -= message.size
            if limit < 0:
                break
            fitting.append((file, message))
        return await self._account.read(self.name, fitting)

    async def changes(self, since: int) -> Changes:
        box = await self._box()
        if since >= box.modseq:
            return Changes(box.modseq, Columns())
        changed = [message for message in in_order(box) if message.modseq > since or since <= 0]
        return Changes(box.modseq, columns(changed), vanished=None)

    def watch(self, hint: Callable[[], None]) -> Callable[[], None]:
        self._hints.append(hint)
        if not self._looking.running:
            self._looking.start(INTERVAL, now=False)

        def stop() -> None:
            if hint in self._hints:
                self._hints.remove(hint)
            if not self._hints and self._looking.running:
                self._looking.stop()

        return stop

    append = set_flags = expunge = copy = refuse

    async def _box(self) -> tree.Box:
        """The mailbox as it is on the disk now; empty if it is gone or another."""
        box = (await self._account.look()).boxes.get(self.name)
        if box is None or box.uid_validity != self.uid_validity:
            last = self._last
            box = last if not last.files else tree.Box(self.uid_validity, last.uid_next, last.modseq + 1)
        news, self._last = box.modseq != self._last.modseq, box
        if news:
            for hint in list(self._hints):
                hint()
        return box

    def _look(self) -> Deferred[Any]:
        # A disk that cannot be read now may be there again next time.
        return Deferred.fromCoroutine(self._box()).addErrback(lambda failure: None)


def in_order(box: tree.Box) -> list[tree.Message]:
    return sorted(box.files.values(), key=lambda message: message.uid)


def chosen(box: tree.Box, uids: UIDSet) -> list[tuple[str, tree.Message]]:
    """(file, message) of these UIDs, ascending."""
    found = [item for item in box.files.items() if item[1].uid in uids]
    return sorted(found, key=lambda item: item[1].uid)


def columns(messages: Iterable[tree.Message]) -> Columns:
    return Columns.of((m.uid, 0, m.modseq, m.size, m.date) for m in messages)


@implementer(IMailAccount)
class EmlAccount:
    abilities = frozenset({IReadsMany})

    def __init__(self, name: str, directory: str, reactor: Any) -> None:
        self.name = name
        self.reactor = reactor
        self._directory = directory
        self._index: tree.Index | None = None
        self._lock = DeferredLock()
        self._open: dict[str, EmlMailbox] = {}

    async def mailboxes(self) -> Sequence[MailboxInfo]:
        index = await self.look()
        subscribed = set(index.subscribed)
        return [
            MailboxInfo(name, name in index.boxes, name in subscribed, exists=name in index.boxes)
            for name in sorted(subscribed | index.boxes.keys())
        ]

    async def open(self, name: str) -> EmlMailbox:
        # A name is looked up among those found on the disk: it never becomes a path.
        box = (await self.look()).boxes.get(name)
        if box is None:
            raise NoSuchMailbox()
        mailbox = self._open.get(name)
        if mailbox is None or mailbox.uid_validity != box.uid_validity:
            mailbox = self._open[name] = EmlMailbox(self, name, box.uid_validity)
        return mailbox

    async def subscribe(self, name: str, subscribed: bool) -> None:
        def change(index: tree.Index) -> tree.Index:
            names = {*index.subscribed, name} if subscribed else {*index.subscribed} - {name}
            return tree.save(self._directory, tree.Index(index.last_validity, index.boxes, sorted(names)))

        await self._next_index(change)

    create = delete = rename = refuse

    async def look(self) -> tree.Index:
        now = int(self.reactor.seconds())
        return await self._next_index(lambda index: tree.look(self._directory, index, now))

    async def read(self, mailbox: str, files: list[tuple[str, tree.Message]]) -> list[tuple[int, bytes]]:
        """(UID, bytes) of those files that are still there."""

        def read() -> list[tuple[int, bytes]]:
            found = []
            for file, message in files:
                try:
                    found.append((message.uid, tree.read(self._directory, mailbox, file, message.stamp)))
                except FileNotFoundError:
                    continue
            return found

        return await self._in_thread(read)

    async def _next_index(self, change: Callable[[tree.Index], tree.Index]) -> tree.Index:
        await self._lock.acquire()
        try:
            if self._index is None:
                self._index = await self._in_thread(tree.load, self._directory)
            self._index = await self._in_thread(change, self._index)
            return self._index
        finally:
            self._lock.release()

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *args)


@implementer(IMailStore)
class EmlStore:
    """
    Args:
        directory: holds a directory for each account.
        reactor: provides IReactorTime and IReactorThreads.
    """

    def __init__(self, directory: str, reactor: Any) -> None:
        self._directory = directory
        self._reactor = reactor
        self._accounts: dict[str, EmlAccount] = {}

    async def start(self) -> None:
        """Nothing is kept open."""

    async def stop(self) -> None:
        """What was looked up is forgotten."""
        self._accounts.clear()

    async def accounts(self) -> Sequence[str]:
        pool = self._reactor.getThreadPool()
        return await deferToThreadPool(self._reactor, pool, tree.accounts, self._directory)

    async def has_account(self, name: str) -> bool:
        return name in await self.accounts()

    async def account(self, name: str) -> EmlAccount:
        if not await self.has_account(name):
            raise NoSuchAccount()
        if name not in self._accounts:
            self._accounts[name] = EmlAccount(name, f"{self._directory}/{name}", self._reactor)
        return self._accounts[name]

    create_account = remove_account = refuse
