"""What POP3 tests share: a server with accounts and messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailplat.pop3.engine import Limits
from mailplat.pop3.server import POP3Factory
from mailplat.storage.memory import MemoryStore
from mailplat.testing.fakes import new_message, portal_for
from mailplat.uids import EVERYTHING, UIDSet

ALICE = "alice@example.test"

#: By the names that dialogues use.
MESSAGES = {
    "basic": b"From: bob@example.test\r\nSubject: basic\r\n\r\nHello\r\nAlice\r\n",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nb.\r\n.\r\n",
    "bodiless": b"Subject: nothing to say\r\n\r\n",
    "headless": b"\r\nno header\r\n",
    "unended": b"Subject: unended\r\n\r\nno line break",
    "utf8": "Subject: Grüße\r\n\r\nhéllo\r\n".encode(),
    "latin1": "Subject: Grüße\r\n\r\nhéllo\r\n".encode("latin-1"),
}


class Server:
    """
    A POP3 server in memory.

    Directives of dialogues: `account`, `deliver`, `expunge`, `limit`, `option`.
    """

    def __init__(self, clock: Clock, store: Any = None, **options: Any) -> None:
        self.clock = clock
        self.store: Any = store or MemoryStore()
        self.passwords: dict[str, str] = {}
        self.options = options
        self.limits = Limits()
        self.directives = {
            "account": self.account,
            "deliver": self.deliver,
            "expunge": self.expunge,
            "limit": self.limit,
            "option": self.option,
        }

    async def account(self, name: str, password: str) -> None:
        """An account, with a password."""
        self.passwords[name] = password
        await self.store.create_account(name)

    async def inbox(self, name: str) -> Any:
        return await (await self.store.account(name)).open("INBOX")

    async def deliver(self, name: str, *messages: str) -> None:
        """Messages by their names in `MESSAGES`."""
        inbox = await self.inbox(name)
        for message in messages:
            await inbox.append([new_message(MESSAGES[message])])

    async def expunge(self, name: str, position: str) -> None:
        """The message at a position, as another session would."""
        inbox = await self.inbox(name)
        uids = (await inbox.columns(EVERYTHING)).uids
        await inbox.expunge(UIDSet.of([uids[int(position) - 1]]), deleted_only=False)

    def limit(self, name: str, value: str) -> None:
        kind = type(getattr(self.limits, name))
        self.limits = replace(self.limits, **{name: kind(value)})

    def option(self, name: str, value: str) -> None:
        self.options[name] = {"True": True, "False": False, "None": None}.get(value, value)

    def factory(self, portal: Any = None) -> POP3Factory:
        portal = portal or portal_for(self.passwords, self.store)
        return POP3Factory(portal, self.clock, hostname="mail.test", limits=self.limits, **self.options)


def now(awaitable: Any) -> Any:
    """The result of what needs no waiting."""
    results: list[Any] = []

    async def run() -> None:
        results.append(await awaitable)

    Deferred.fromCoroutine(run())
    (result,) = results
    return result
