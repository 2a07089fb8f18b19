"""
What all topics of the store contract stand on: a store, an account, and what the store does.

Trial's test case is mixed in by the store's author; if the topics were test cases
themselves, every module that imports them would run them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest
from zope.interface.interface import InterfaceClass

from mailplat.errors import MailboxExists
from mailplat.interfaces import IMailAccount, IMailbox, IMailStore, NewMessage
from mailplat.testing.fakes import MemoryMessage
from mailplat.uids import EVERYTHING, UIDSet
from mailplat.values import Columns, flag_names

if TYPE_CHECKING:
    # Trial's has the same names, but no types.
    from unittest import TestCase as Base
else:
    Base = object

Test = TypeVar("Test", bound=Callable[..., Awaitable[None]])

ALICE = "alice@example.test"
BOB = "bob@example.test"

#: How many stories are tried, and how long they are.
STORIES = 25
STEPS = 14

#: What a store does beyond showing mail; an attribute of `StoreCase` each.
WISHES = ("makes_accounts", "makes_mailboxes", "accepts_mail", "keeps_flags", "expunges_mail")


def wants(*needed: str | InterfaceClass) -> Callable[[Test], Test]:
    """
    Mark what a test needs: names of `WISHES`, and optional interfaces.

    The test is skipped, with the reason, for a store that does not do it.
    """

    def decorate(test: Test) -> Test:
        @wraps(test)
        async def gated(self: StoreCase) -> None:
            for need in needed:
                if isinstance(need, str):
                    if not getattr(self, need):
                        raise SkipTest(f"the store says {need} = False")
                elif need not in self.account.abilities:
                    raise SkipTest(f"the account does not name {need.__name__} among its abilities")
            await test(self)

        return gated  # type: ignore[return-value]  # wraps() keeps what it is, not what mypy knows

    return decorate


class Case(Base):
    """
    What the topics of every contract use.

    Attributes:
        shortens: look for the shortest story that goes wrong, which takes a while.
    """

    shortens = True

    def new_directory(self) -> str:
        """A new directory, which goes when the test ends."""
        directory = TemporaryDirectory(prefix="mailplat-")
        self.addCleanup(directory.cleanup)
        return directory.name

    async def at_once(self, calls: Iterable[Awaitable[Any]]) -> list[Any]:
        """Start all calls before any can end.  Returns results and Failures, in order."""

        async def wait(call: Awaitable[Any]) -> Any:
            return await call

        started = [Deferred.fromCoroutine(wait(call)) for call in calls]
        return [result for _, result in await DeferredList(started, consumeErrors=True)]

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Let the reactor run until `condition()`; hints may come a little later."""
        from twisted.internet import reactor

        waited = 0.0
        while not condition():
            if waited > seconds:
                self.fail("it did not come about")
            await deferLater(reactor, 0.001)
            waited += 0.001

    async def raises(
        self, error: type[Exception] | tuple[type[Exception], ...], call: Awaitable[Any]
    ) -> None:
        """The call raises one of these."""
        wanted = error if isinstance(error, tuple) else (error,)
        names = " or ".join(one.__name__ for one in wanted)
        try:
            result = await call
        except wanted:
            return
        except Exception as other:
            self.fail(f"{names} should have been raised, not {other!r}")
        self.fail(f"{names} should have been raised; the answer was {result!r}")

    async def each_story(
        self, steps: Callable[[Any], Any], tell: Callable[[list[Any], int], Awaitable[None]]
    ) -> None:
        """
        Have Hypothesis make up stories and find the shortest that goes wrong.

        It calls and does not await, so it works in a thread of its own, and what it
        calls comes back to the reactor.  A test that takes too long is given up, and so
        is its thread: Twisted would wait for it for ever.

        Args:
            steps: given `hypothesis.strategies`, a strategy for one step.
            tell: given the steps, and the story's number.
        """
        try:
            from hypothesis import HealthCheck, Phase, given, settings, strategies
        except ImportError:
            raise SkipTest("Hypothesis is not installed (pip install mailplat[testing])") from None
        from twisted.internet import reactor as running

        reactor: Any = running
        number = 0
        outcomes: SimpleQueue[Failure | None] = SimpleQueue()
        over = False

        def give_up() -> None:
            nonlocal over
            over = True
            outcomes.put(None)

        self.addCleanup(give_up)

        @settings(
            max_examples=STORIES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate, Phase.shrink] if self.shortens else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategies.lists(steps(strategies), min_size=3, max_size=STEPS))
        def one(story: list[Any]) -> None:
            nonlocal number
            number += 1
            reactor.callFromThread(begin, story, number)
            outcome = outcomes.get()
            if over:
                raise GivenUp
            if outcome is not None:
                outcome.raiseException()

        def begin(story: list[Any], number: int) -> None:
            told = _as_deferred(tell, story, number)
            told.addCallbacks(lambda _: outcomes.put(None), outcomes.put)

        told: Deferred[None] = Deferred()
        # Trial has answered for a test that it gave up; that must not be done twice.
        deferToThread(one).addBoth(lambda result: None if over else told.callback(result))
        await told


class StoreCase(Case):
    """
    Attributes:
        makes_accounts: False if `create_account` raises NotPermitted.
        makes_mailboxes: False if `create`, `delete` and `rename` do.
        accepts_mail: False if `append` and `copy` do.
        keeps_flags: False if `set_flags` does.
        expunges_mail: False if `expunge` does.
        store: started.
        account: ALICE's.
    """

    makes_accounts = True
    makes_mailboxes = True
    accepts_mail = True
    keeps_flags = True
    expunges_mail = True

    store: IMailStore
    account: IMailAccount

    # What the store's author gives

    def make_store(self) -> IMailStore | Awaitable[IMailStore]:
        """A new, empty store, not started."""
        raise TypeError(f"{type(self).__name__} makes no store")

    #: For a store that keeps mail over a restart: given the stopped store, the next
    #: process's store over the same data, not started.  May be a coroutine.
    restart_store: Any = None

    async def place(self, account: str, mailbox: str, bodies: Sequence[bytes]) -> None:
        """
        Have `mailbox` of `account` hold these messages after those it has, in this order.

        Account and mailbox are made if they are missing.  To be overridden where the
        store makes accounts or mailboxes, or takes mail, in some other way.
        """
        if not await self.store.has_account(account):
            await self.store.create_account(account)
        owner = await self.store.account(account)
        if mailbox != "INBOX":
            with suppress(MailboxExists):
                await owner.create(mailbox)
        if bodies:
            await (await owner.open(mailbox)).append([self.message(body) for body in bodies])

    # What trial calls

    def setUp(self) -> Any:
        return Deferred.fromCoroutine(self._begin())

    async def _begin(self) -> None:
        self.store = await given(self.make_store())
        await self.store.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(given(self.store.stop())))
        await self.place(ALICE, "INBOX", [])
        self.account = await self.store.account(ALICE)

    # What topics use

    def message(
        self,
        body: bytes = b"Subject: test\r\n\r\nHello\r\n",
        flags: Iterable[str] = (),
        date: int = 1_000_000_000,
        prefix: bytes = b"",
        outline: bytes = b"an outline",
    ) -> NewMessage:
        """A message whose outline is something that only the core could read."""
        return NewMessage(MemoryMessage(body, outline), prefix, frozenset(flags), date)

    async def filled(self, count: int, name: str = "INBOX") -> IMailbox:
        """The mailbox of ALICE, after placing `count` messages."""
        await self.place(ALICE, name, [body(number) for number in range(count)])
        return await self.account.open(name)

    async def flags(self, mailbox: IMailbox, uids: UIDSet = EVERYTHING) -> dict[int, set[str]]:
        """UID -> names of flags."""
        return named(mailbox, await mailbox.columns(uids))

    async def whole(self, mailbox: IMailbox, uid: int) -> bytes:
        """The message's bytes, prefix included."""
        content = await mailbox.content(uid)
        try:
            return await content.read(0, content.size)
        finally:
            content.close()


async def given(value: Any) -> Any:
    """`value`, awaited if it can be."""
    return await value if isinstance(value, Awaitable) else value


def body(number: int) -> bytes:
    """A small message unlike others."""
    return b"From: a@example.test\r\nSubject: number %d\r\n\r\nBody of number %d\r\n" % (number, number)


def named(mailbox: IMailbox, columns: Columns) -> dict[int, set[str]]:
    """UID -> names of flags, of the rows in `columns`."""
    return {uid: set(flag_names(word, mailbox.keywords)) for uid, word, *_ in columns.rows()}


def some(*uids: int) -> UIDSet:
    return UIDSet.of(uids)


def _as_deferred(tell: Callable[..., Any], story: list[Any], number: int) -> Any:
    """In the reactor thread: start telling a story."""
    return Deferred.fromCoroutine(tell(story, number))


class GivenUp(BaseException):
    """Nobody waits for this story any more; no Exception, so that Hypothesis tries no other."""
