"""The store contract itself: it is whole, it notices, and it says what it does not try."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any
from unittest.result import TestResult as Result

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from mailplat.errors import MailboxExists, NotPermitted
from mailplat.interfaces import IMailAccount, IMailbox, IMailStore
from mailplat.storage.memory import MemoryAccount, MemoryMailbox, MemoryStore
from mailplat.testing.contract.base import StoreCase, body
from mailplat.testing.stores import MailboxStoreContract
from mailplat.uids import NOTHING
from mailplat.values import Changes, Columns, FlagChange, FlagsSet


class Contract(MailboxStoreContract, TestCase):
    __test__ = False  # run by the tests below only
    shortens = False

    def make_store(self) -> IMailStore:
        return MemoryStore()


def outcome(case: type, name: str) -> Result:
    result = Result()
    case(name).run(result)
    return result


def names(topic: type) -> set[str]:
    return {name for name in vars(topic) if name.startswith("test_")}


class Whole(SynchronousTestCase):
    def test_no_test_hides_another(self) -> None:
        topics = [topic for topic in Contract.__mro__ if issubclass(topic, StoreCase)]
        seen: set[str] = set()
        for topic in topics:
            self.assertEqual(seen & names(topic), set(), topic.__name__)
            seen |= names(topic)
        self.assertGreater(len(seen), 80)

    def test_all_are_coroutines(self) -> None:
        for name in dir(Contract):
            if name.startswith("test_"):
                self.assertTrue(inspect.iscoroutinefunction(getattr(Contract, name)), name)


# Ways to break the promises, and the test that must notice.

original = {
    name: getattr(MemoryMailbox, name)
    for name in ("append", "set_flags", "changes", "copy", "contents", "claim_recent", "_tell", "_close")
}


async def changes_in_pieces(self: Any, since: int) -> Changes:
    """Says nothing of what vanished."""
    news: Changes = await original["changes"](self, since)
    return Changes(news.upto, news.changed, NOTHING)


async def changes_late(self: Any, since: int) -> Changes:
    """Claims to have told what it left out."""
    news: Changes = await original["changes"](self, since)
    return Changes(news.upto, Columns.of(list(news.changed.rows())[:1]), news.vanished)


async def changes_none(self: Any, since: int) -> Changes:
    """Cannot tell what vanished: allowed."""
    news: Changes = await original["changes"](self, since)
    return Changes(news.upto, news.changed, None)


async def touch_all(self: Any, uids: Any, change: FlagChange, unchanged_since: int | None = None) -> FlagsSet:
    """Looks at `unchanged_since` never."""
    answer: FlagsSet = await original["set_flags"](self, uids, change)
    return answer


async def append_some(self: Any, messages: Sequence[Any]) -> Sequence[int]:
    """Loses keywords."""
    plain = [
        type(m)(m.body, m.prefix, frozenset(f for f in m.flags if f[0] == "\\"), m.date) for m in messages
    ]
    uids: Sequence[int] = await original["append"](self, plain)
    return uids


async def claim_nothing(self: Any) -> Any:
    return NOTHING


def tell_nobody(self: Any) -> None:
    return None


MUTANTS: list[tuple[str, Callable[..., Any], tuple[str, ...]]] = [
    ("changes", changes_in_pieces, ("test_vanished", "test_two_followers", "test_one_after_the_other")),
    ("changes", changes_late, ("test_all_rows", "test_two_followers", "test_at_once")),
    ("set_flags", touch_all, ("test_unchanged_since", "test_one_of_many_wins")),
    ("append", append_some, ("test_append_with_flags", "test_one_after_the_other")),
    ("claim_recent", claim_nothing, ("test_each_message_is_recent_once", "test_one_claims")),
    ("_close", tell_nobody, ("test_a_deleted_mailbox_is_empty", "test_append_to_a_deleted_mailbox")),
]


class Notices(TestCase):
    """
    Each is run in a class of its own.

    The stories need the reactor, so they are awaited by trial, as any other test of
    this class is.
    """

    def broken(self, attribute: str, replacement: Callable[..., Any]) -> None:
        self.patch(MemoryMailbox, attribute, replacement)

    async def fails(self, name: str) -> bool:
        case = Contract(name)
        await case._begin()
        try:
            await getattr(case, name)()
        except Exception:
            return True
        return False

    async def test_broken_stores(self) -> None:
        for attribute, replacement, tests in MUTANTS:
            setattr(MemoryMailbox, attribute, replacement)
            try:
                for name in tests:
                    self.assertTrue(await self.fails(name), f"{name} did not notice {replacement.__name__}")
            finally:
                setattr(MemoryMailbox, attribute, original[attribute])
            for name in tests:
                self.assertFalse(await self.fails(name), name)

    async def test_a_store_that_cannot_tell_what_vanished(self) -> None:
        self.patch(MemoryMailbox, "changes", changes_none)
        for name in ("test_vanished", "test_two_followers", "test_one_after_the_other", "test_at_once"):
            self.assertFalse(await self.fails(name), name)

    async def test_a_store_that_hints_at_nothing(self) -> None:
        self.patch(MemoryMailbox, "_tell", tell_nobody)
        case = Contract("test_hints")
        await case._begin()
        with self.assertRaises(AssertionError):
            mailbox = await case.filled(1)
            told: list[int] = []
            mailbox.watch(lambda: told.append(1))
            await mailbox.append([case.message()])
            await case.until(lambda: bool(told), seconds=0.01)


# A store that only shows mail


async def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
    raise NotPermitted()


@implementer(IMailbox)
class Shown(MemoryMailbox):
    read_only = True
    add = MemoryMailbox.append
    append = set_flags = expunge = copy = refuse


@implementer(IMailAccount)
class ShownAccount(MemoryAccount):
    abilities = frozenset()
    add = MemoryAccount.create
    create = delete = rename = refuse

    def _make(self, name: str, special_use: str | None) -> MemoryMailbox:
        mailbox = Shown(self, name, self._store.next_uid_validity(), special_use)
        self._names[name] = mailbox
        return mailbox


class ShownStore(MemoryStore):
    create_account = remove_account = refuse


class ShownTests(MailboxStoreContract, TestCase):
    """Such a store can be tried too; `commit` is its author's omission, so it is no ability here."""

    makes_accounts = makes_mailboxes = accepts_mail = keeps_flags = expunges_mail = False

    def make_store(self) -> IMailStore:
        return ShownStore()

    async def place(self, account: str, mailbox: str, bodies: Sequence[bytes]) -> None:
        accounts = self.store._accounts
        if account not in accounts:
            accounts[account] = ShownAccount(self.store, account)
            accounts[account]._furnish()
        with contextlib.suppress(MailboxExists):
            await accounts[account].add(mailbox)
        await accounts[account].find(mailbox).add([self.message(data) for data in bodies])

    def test_abilities_are_provided(self) -> None:
        """A subclass of a store with abilities cannot lose them."""


class StuckTests(MailboxStoreContract, TestCase):
    """A store that does not answer: not run here, see `Stuck`."""

    __test__ = False
    timeout = 0.5

    def make_store(self) -> IMailStore:
        return MemoryStore()

    async def told(self, story: list[Any], number: int) -> None:
        await Deferred()


class Stuck(SynchronousTestCase):
    def test_it_ends(self) -> None:
        """By trial's timeout, with all its threads: one that waits would keep the process for ever."""
        result = outcome(StuckTests, "test_one_after_the_other")
        self.assertEqual(len(result.errors), 1)
        self.assertIn("TimeoutError", str(result.errors[0][1]))


class Skips(SynchronousTestCase):
    def test_the_reason_is_shown(self) -> None:
        result = outcome(ShownTests, "test_append")
        self.assertEqual(len(result.skipped), 1)
        self.assertIn("accepts_mail = False", str(result.skipped[0][1]))
        result = outcome(ShownTests, "test_move")
        self.assertIn("IMovesMessages", str(result.skipped[0][1]))
        result = outcome(ShownTests, "test_bytes")
        self.assertEqual((result.skipped, result.wasSuccessful()), ([], True))

    def test_bodies_differ(self) -> None:
        self.assertNotEqual(body(1), body(2))
