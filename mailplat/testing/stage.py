"""
What dialogues are played on: a store, a portal, and the directives that set them up.

    stage = Stage(MemoryStore())
    factory = lambda: POP3Factory(stage.portal, clock, limits=Limits(**stage.limits), ...)
    await Dialogue(path, factory, clock, directives=stage.directives).run()

Directives:

    @ account NAME PASSWORD            an account that can log in
    @ deliver NAME MESSAGE [MAILBOX]   a message of `mailplat.testing.corpus` comes in
    @ flag NAME UIDS FLAG...           flags of INBOX are added by somebody else
    @ expunge NAME UIDS                messages of INBOX are removed by somebody else
    @ service WORD                     sets `stage.service`
    @ limit NAME VALUE                 sets `stage.limits[NAME]`, a whole number or a fraction
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.cred.portal import Portal

from mailplat.auth.realm import MailRealm
from mailplat.interfaces import IMailReceiver, IMailStore
from mailplat.testing.corpus import message
from mailplat.testing.fakes import AnonymousChecker, MemoryChecker, RecordingReceiver, new_message
from mailplat.uids import UIDSet
from mailplat.values import FlagChange, Peer


class Stage:
    """
    Args:
        store: started.
        receivers: see `MailRealm`; by default everybody gets `receiver`.

    Attributes:
        receiver: remembers what came in by SMTP.
        checker: knows the accounts of `@ account`.
        service, limits: what the directives of these names said.
    """

    def __init__(
        self, store: IMailStore, receivers: Callable[[Peer, str | None], IMailReceiver] | None = None
    ) -> None:
        self.store = store
        self.receiver = RecordingReceiver()
        self.checker = MemoryChecker({})
        realm = MailRealm(store, receivers or (lambda peer, account: self.receiver))
        self.portal = Portal(realm, [self.checker, AnonymousChecker()])
        self.service = ""
        self.limits: dict[str, float] = {}
        self.directives: dict[str, Callable[..., object]] = {
            "account": self.account,
            "deliver": self.deliver,
            "flag": self.flag,
            "expunge": self.expunge,
            "service": self._serve,
            "limit": self._limit,
        }

    async def account(self, name: str, password: str) -> None:
        await self.store.create_account(name)
        self.checker.passwords[name] = password

    async def deliver(self, name: str, what: str, mailbox: str = "INBOX") -> None:
        account = await self.store.account(name)
        await (await account.open(mailbox)).append([new_message(message(what))])

    async def flag(self, name: str, uids: str, *flags: str) -> None:
        mailbox = await (await self.store.account(name)).open("INBOX")
        await mailbox.set_flags(UIDSet.parse(uids), FlagChange(add=frozenset(flags)))

    async def expunge(self, name: str, uids: str) -> None:
        mailbox = await (await self.store.account(name)).open("INBOX")
        await mailbox.expunge(UIDSet.parse(uids), deleted_only=False)

    def _serve(self, word: str) -> None:
        self.service = word

    def _limit(self, name: str, value: str) -> None:
        self.limits[name] = float(value) if "." in value else int(value)
