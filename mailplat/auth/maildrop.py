"""
The maildrop that a POP3 session sees: INBOX as it was at login, for one session at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from zope.interface import implementer

from mailplat.errors import NoSuchMessage
from mailplat.interfaces import IMailAccount, IMailbox, IMaildrop, IMessageContent
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import Outlined


@implementer(IMaildrop)
class InboxMaildrop:
    """
    Args:
        name: the account's name.
        mailbox: its INBOX.
        uids, sizes: the snapshot, by ascending UID.
        release: lets others have the maildrop; may be called twice.
    """

    def __init__(
        self,
        name: str,
        mailbox: IMailbox,
        uids: Sequence[int],
        sizes: Sequence[int],
        release: Callable[[], None],
    ) -> None:
        self.name = name
        self._mailbox = mailbox
        self._uids = uids
        self._release = release
        # UIDVALIDITY makes identifiers differ even if INBOX is made anew (RFC 1939 §7 UIDL).
        validity = mailbox.uid_validity
        self._messages = [(f"{validity}.{uid}", size) for uid, size in zip(uids, sizes, strict=True)]

    @classmethod
    async def of(cls, account: IMailAccount, release: Callable[[], None]) -> InboxMaildrop:
        """The maildrop of an account; the caller holds the lock that `release` lets go."""
        mailbox = await account.open("INBOX")
        columns = await mailbox.columns(EVERYTHING)
        return cls(account.name, mailbox, columns.uids, columns.sizes, release)

    def messages(self) -> Sequence[tuple[str, int]]:
        return self._messages

    async def content(self, index: int) -> IMessageContent:
        return await self._mailbox.content(self._uids[index])

    async def outline(self, index: int) -> Outlined:
        uid = self._uids[index]
        found = await self._mailbox.outlines(UIDSet.of([uid]))
        if not found:
            raise NoSuchMessage
        return found[0]

    async def delete(self, indexes: Iterable[int]) -> None:
        uids = UIDSet.of(self._uids[index] for index in indexes)
        if uids:
            await self._mailbox.expunge(uids, deleted_only=False)

    def release(self) -> None:
        self._release()
