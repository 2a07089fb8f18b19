"""What the tests of delivery stand on: a memory store, messages, and how to wait for none."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailplat.auth.names import Names
from mailplat.interfaces import IMailStore, ISpooledMessage
from mailplat.message.structure import Scanner
from mailplat.storage.memory import MemoryStore
from mailplat.values import Address

BODY = b"From: a@elsewhere.test\r\nSubject: hello\r\n\r\nHello\r\n"


def now(coroutine):
    """The result of a coroutine that has no reason to wait."""
    results = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert results, "it waits"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


async def store_with(*accounts):
    store = MemoryStore()
    await store.start()
    for account in accounts:
        await store.create_account(account)
    return store


async def messages_of(store, account):
    """Everything in the INBOX of an account, oldest first."""
    inbox = await (await store.account(account)).open("INBOX")
    found = []
    for uid in (await inbox.changes(0)).changed.uids:
        content = await inbox.content(uid)
        found.append(await content.read(0, content.size))
    return found


@implementer(ISpooledMessage)
class Spooled:
    """A message that is complete, in memory or behind `read` only."""

    path = None

    def __init__(self, body=BODY, in_memory=True):
        scanner = Scanner()
        scanner.feed(body)
        self.outline = scanner.record()
        self.data = body if in_memory else None
        self.size = len(body)
        self._body = body

    async def read(self, start, length):
        return self._body[start : start + length]

    def close(self):
        pass


def address(text):
    local, _, domain = text.rpartition("@")
    return Address(local, domain) if local else Address(text, "")


@implementer(IMailStore)
class OneByOne:
    """A store without ICommitsTogether in front of one that has it."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)


def names(*domains):
    return Names(domains or ("example.test",))
