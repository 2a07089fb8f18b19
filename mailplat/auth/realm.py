"""
The realm: from an account's name to what its owner may do.

Three avatars: `IMailAccount` for IMAP and `IMaildrop` for POP3, both from the store, and
`IMailReceiver` for SMTP and LMTP, which is also given to anonymous peers.

An account in the store is what makes a local recipient.  Whom a checker knows and the
store does not gets an account there at the first login: so an operator who names a
checker need not make accounts twice, though mail for somebody who never logged in is
refused until the account is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ANONYMOUS
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from mailplat.auth.maildrop import InboxMaildrop
from mailplat.auth.names import Names
from mailplat.errors import (
    AccountExists,
    CannotDo,
    InUse,
    InvalidName,
    LoginFailed,
    NoSuchAccount,
    NotPermitted,
)
from mailplat.interfaces import IMailAccount, IMaildrop, IMailReceiver, IMailStore
from mailplat.values import Peer

#: Makes the avatar of SMTP for a peer and its account, None if anonymous.
Receivers = Callable[[Peer, str | None], IMailReceiver]

#: Interface, avatar, logout.
Avatar = tuple[type[Interface], Any, Callable[[], None]]


@implementer(IRealm)
class MailRealm:
    """
    Args:
        store: where accounts are.
        receivers: makes the avatar of SMTP and LMTP.
        naming: makes the names that checkers answer with canonical; not needed where the
            checkers are those of `mailplat.auth.checkers`, whose names are.
    """

    def __init__(self, store: IMailStore, receivers: Receivers, naming: Names | None = None) -> None:
        self._store = store
        self._receivers = receivers
        self._naming = naming or Names()
        self._held: set[str] = set()

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: Any, *interfaces: type[Interface]
    ) -> Deferred[Avatar]:
        """
        The avatar for the first of `interfaces` that there is.

        Args:
            avatarId: the account's name in UTF-8, or cred's ANONYMOUS.
            mind: the `Peer`.

        Fails with:
            LoginFailed: an anonymous peer wants more than to bring mail, or the name can't be
                an account's.
            NoSuchAccount: the store has no such account and makes none.
            InUse: the maildrop is.
            CannotDo: none of `interfaces` is of ours.
        """
        return Deferred.fromCoroutine(self._avatar(avatarId, mind, interfaces))

    async def _avatar(self, identity: Any, mind: Any, interfaces: tuple[type[Interface], ...]) -> Avatar:
        for interface in interfaces:
            if interface is IMailReceiver:
                return await self._receiver(identity, mind)
            if interface is IMailAccount or interface is IMaildrop:
                name = self._name(identity)
                if not await self._ensure(name):
                    raise NoSuchAccount
                if interface is IMaildrop:
                    return await self._maildrop(name)
                return interface, await self._store.account(name), _nothing
        raise CannotDo

    async def _receiver(self, identity: Any, peer: Peer) -> Avatar:
        account = None
        if identity != ANONYMOUS:
            account = self._name(identity)
            # A store that makes no accounts is no reason not to send mail.
            await self._ensure(account)
        return IMailReceiver, self._receivers(peer, account), _nothing

    async def _maildrop(self, name: str) -> Avatar:
        # RFC 1939 §4: exclusive.  In memory, so that nothing is left behind by a killed process.
        if name in self._held:
            raise InUse
        self._held.add(name)
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self._held.discard(name)

        try:
            maildrop = await self._open_maildrop(name, release)
        except BaseException:
            release()
            raise
        return IMaildrop, maildrop, maildrop.release

    async def _open_maildrop(self, name: str, release: Callable[[], None]) -> InboxMaildrop:
        return await InboxMaildrop.of(await self._store.account(name), release)

    def _name(self, identity: Any) -> str:
        if identity == ANONYMOUS or not isinstance(identity, (bytes, str)):
            raise LoginFailed
        name = self._naming.login_name(identity)
        if name is None:
            raise LoginFailed(reason=f"A checker answered with {identity!r}, which is no account name")
        return name

    async def _ensure(self, name: str) -> bool:
        """Whether the store has the account, which it is asked to make if it has not."""
        if await self._store.has_account(name):
            return True
        try:
            await self._store.create_account(name)
        except AccountExists:
            return True
        except (NotPermitted, InvalidName):
            return False
        return True


def _nothing() -> None:
    """Logging out of what is not held."""
