"""
The running queue: what waits in an `IQueueStore` is tried, and tried again, until it is done with.

The truth is in the store; here stand only the attempts under way.  Work is found by next
hop, so that a slow or dead one holds up nothing but itself:

    find     which next hops have something due, besides those that are busy already
    take     some items of one next hop; they stand in its line
    attempt  an item of the line at a time, by the agent, a few side by side
    settle   what came of it, with the report that it is worth, in one commit

A next hop that cannot be reached at all rests (5, 10, 20 minutes and so on), and one item
of it is tried then; the others keep their place without costing an attempt each.  Senders
are told of delays and of the end by the clock, whether there was an attempt or not.

Whatever happens, an item is in the store until an attempt's outcome is: a crash repeats at
most the attempts that were under way.  Those of an agent that is in one commit with the queue
(`IDeliversWithQueue`, our own mailboxes) are not even repeated.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mailplat.errors import Expired, HostUnreachable, MailError, NoSuchMessage, TemporaryError
from mailplat.interfaces import (
    IDeliversWithQueue,
    IDeliveryAgent,
    IQueueStore,
    ISpooledMessage,
    NewItem,
)
from mailplat.logs import tell
from mailplat.values import (
    NO_REQUESTS,
    Envelope,
    Outcome,
    QueuedRecipient,
    QueueItem,
    ReportRequest,
    Settled,
    Target,
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """
    When a recipient is tried again, and when its sender hears of it; all in seconds.

    Attributes:
        retries: from the first failed attempt to the second, and so on; the last one repeats.
            RFC 5321 §4.5.4.1 asks for 30 minutes at least once the first attempts are over.
        jitter: the part of each interval that is left to chance, so that what failed together
            does not come back together.
        delay_notice: the sender is told of the delay after this; 0 for never.
        lifetime: after this it is given up (RFC 5321 §4.5.4.1: 4 to 5 days at least).
        report_lifetime: the same for messages without a sender, which nobody waits for.
    """

    retries: tuple[int, ...] = (300, 600, 1200, 2400, 4800, 9600, 14400)
    jitter: float = 0.1
    delay_notice: int = 4 * 3600
    lifetime: int = 5 * 86400
    report_lifetime: int = 2 * 86400

    def interval(self, attempts: int, chance: float) -> int:
        """Seconds to wait after so many failed attempts; `chance` is from 0 to 1."""
        interval = self.retries[min(attempts, len(self.retries)) - 1]
        return int(interval * (1 + self.jitter * (chance - 0.5)))

    def end(self, envelope: Envelope, arrived: int) -> int:
        """When an item is given up."""
        return arrived + (self.report_lifetime if envelope.sender is None else self.lifetime)

    def first_notice(self, envelope: Envelope, arrived: int) -> int:
        """When the sender of a new item is to be told for the first time."""
        end = self.end(envelope, arrived)
        return min(arrived + self.delay_notice, end) if self.delay_notice else end


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """
    Attributes:
        attempts: under way at one time, in all, and next hops worked on.
        attempts_per_place: of one next hop; fewer are allowed when few are left for others.
        line: items taken from the store at a time, for one next hop.
        failing: next hops whose failures in a row are remembered.
        look: seconds after which the store is looked at, though nothing was heard from it.
        pause: seconds between two looks at least, however much is heard.
        again: seconds after which a store that failed is asked again.
        stop: seconds that attempts have to end when the queue is stopped.
    """

    attempts: int = 1000
    attempts_per_place: int = 20
    line: int = 100
    failing: int = 10_000
    look: float = 60.0
    pause: float = 0.05
    again: float = 5.0
    stop: float = 5.0


class Reporter(Protocol):
    """Tells senders, if they want to hear: `mailplat.delivery.reports`."""

    def report(
        self,
        item: QueueItem,
        about: Sequence[tuple[QueuedRecipient, Outcome]],
        message: ISpooledMessage,
        prefix: bytes,
    ) -> Awaitable[NewItem | None]:
        """
        A report to the sender of `item`, or None if it wants none; the caller closes its body.

        Args:
            about: recipients that are done with, for better or worse, or delayed if the error is
                temporary.
        """


class Line:
    """
    A next hop that is being worked on.

    Attributes:
        waiting: items taken from the store for it.
        running: attempts under way.
        taking: the store is being asked for more.
        dry: when last asked, the store had no more that was due.
        news: it may have more by now, though it is being asked.
        put_off: something of it was, which the store does not tell.
        resting: it could not be reached; what still runs was begun before that was known.
    """

    __slots__ = ("agent", "dry", "news", "place", "put_off", "resting", "running", "taking", "waiting")

    def __init__(self, agent: str, place: str) -> None:
        self.agent = agent
        self.place = place
        self.waiting: deque[QueueItem] = deque()
        self.running = 0
        self.taking = False
        self.dry = False
        self.news = False
        self.put_off = False
        self.resting = False

    @property
    def key(self) -> tuple[str, str]:
        return self.agent, self.place


class Queue:
    """
    Args:
        store: what waits; started.
        agents: by the names that `Target.agent` has.
        reporter: tells senders of failures, delays and successes.
        reactor: provides IReactorTime; its seconds are those since 1970.
        random: for the schedule's jitter.

    Attributes:
        running: attempts under way.
    """

    log = Logger()

    def __init__(
        self,
        store: IQueueStore,
        agents: Mapping[str, IDeliveryAgent],
        reporter: Reporter,
        reactor: Any,
        *,
        schedule: Schedule | None = None,
        limits: QueueLimits | None = None,
        random: Random | None = None,
    ) -> None:
        self.store = store
        self.schedule = schedule or Schedule()
        self.running = 0
        self._agents = agents
        self._reporter = reporter
        self._reactor = reactor
        self._limits = limits or QueueLimits()
        self._chance = (random or Random()).random
        self._lines: dict[tuple[str, str], Line] = {}
        # Next hop -> attempts in a row that could not reach it.
        self._failing: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._begun = False
        self._unwatch: Callable[[], None] | None = None
        self._timer: IDelayedCall | None = None
        self._looking = False
        self._kicked = False
        self._looked = 0.0
        self._told = 0.0
        self._ends: list[Deferred[None]] = []

    # Life

    def start(self) -> None:
        """Begin to work."""
        self._begun = True
        self._told = 0.0
        self._unwatch = self.store.watch(self.kick)
        self.kick()

    def stop(self) -> Deferred[None]:
        """
        Begin no attempt any more.

        Returns:
            fires when none is under way, or after `QueueLimits.stop`.  The store must not be
            stopped before: what was delivered would be delivered again.
        """
        self._begun = False
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        self._cancel_timer()
        for line in list(self._lines.values()):
            self._fill(line)
        if self._idle():
            return succeed(None)
        end: Deferred[None] = Deferred()
        self._ends.append(end)
        late = self._reactor.callLater(self._limits.stop, self._ended)
        return end.addBoth(lambda _: late.cancel() if late.active() else None)

    def _idle(self) -> bool:
        return (
            not self.running and not self._looking and not any(line.taking for line in self._lines.values())
        )

    def _ended(self) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            end.callback(None)

    # New items

    def item(
        self,
        envelope: Envelope,
        recipients: Sequence[tuple[Target, ReportRequest]],
        body: ISpooledMessage,
        prefix: bytes,
        account: str = "",
    ) -> NewItem:
        """
        What to give to the store's `add` or `ICommitsTogether.commit`, to be tried at once or
        at the envelope's release.

        Args:
            body: stays the caller's, who closes it when the item was added.
        """
        now = int(self._reactor.seconds())
        arrived = max(now, envelope.release)
        notice = self.schedule.first_notice(envelope, arrived)
        return NewItem(
            replace(envelope, recipients=(), requests=NO_REQUESTS),
            body,
            prefix,
            [
                QueuedRecipient(number, target, request, due=arrived, notice=notice)
                for number, (target, request) in enumerate(recipients)
            ],
            account,
            arrived,
        )

    # Finding work

    def kick(self) -> None:
        """Something may have become due: look, now or soon."""
        if not self._begun:
            return
        if self._looking:
            self._kicked = True
            return
        soon = self._looked + self._limits.pause
        if self._reactor.seconds() < soon:
            self._wake_at(soon)
            return
        self._looking = True
        self._run(self._look())

    async def _look(self) -> None:
        self._cancel_timer()
        self._kicked = False
        self._looked = now = self._reactor.seconds()
        try:
            for line in list(self._lines.values()):
                line.dry = False
                line.news = True
                self._fill(line)
            later = await self._find(now)
            if now >= self._told + self._limits.look:
                self._told = now
                await self._tell_overdue(int(now))
        except MailError as error:
            self.log.error("The queue cannot be read: {error}", error=error)
            later = now + self._limits.again
        finally:
            self._looking = False
            self._finished()
        if self._begun:
            if self._kicked:
                self.kick()
            else:
                self._wake_at(min(later, now + self._limits.look))

    async def _find(self, now: float) -> float:
        """Begin to work on next hops that have something due; when to look again."""
        limits = self._limits
        while self._begun and (room := limits.attempts - len(self._lines)) > 0:
            most = min(room, limits.line)
            found = await self.store.places(most, list(self._lines))
            for agent, place, due in found:
                if due > now:
                    return float(due)
                if (agent, place) not in self._lines and self._begun:
                    line = self._lines[agent, place] = Line(agent, place)
                    self._fill(line)
            if len(found) < most:
                break
        return now + limits.look

    def _fill(self, line: Line) -> None:
        """Have as many attempts under way as may be, and enough in the line for the next ones."""
        if not self._begun or line.resting:
            self._give_back(line)
        else:
            while line.waiting and line.running < self._allowed(line):
                line.running += 1
                self.running += 1
                self._run(self._attempt(line, line.waiting.popleft()))
            if not line.taking and not line.dry and not line.waiting and line.running < self._allowed(line):
                line.taking = True
                self._run(self._take(line))
        if not line.running and not line.taking and not line.waiting:
            self._lines.pop(line.key, None)
            self._finished()
            if line.put_off:
                # When it is due again must be asked for.
                self.kick()

    def _allowed(self, line: Line) -> int:
        if line.key in self._failing:
            # Whether it is there again, one attempt finds out.
            return 1
        free = self._limits.attempts - self.running
        return max(1, min(self._limits.attempts_per_place, line.running + free // 10))

    async def _take(self, line: Line) -> None:
        most = 1 if line.key in self._failing else self._limits.line
        line.news = False
        try:
            items = await self.store.take(line.agent, line.place, int(self._reactor.seconds()), most)
        except MailError as error:
            self.log.error("The queue cannot be read: {error}", error=error)
            items = ()
        line.taking = False
        line.dry = len(items) < most and not line.news
        line.waiting.extend(items)
        self._fill(line)

    def _give_back(self, line: Line) -> None:
        for item in line.waiting:
            self.store.give_back(item.id, [recipient.number for recipient in item.recipients])
        line.waiting.clear()

    def _finished(self) -> None:
        """Something ended; whoever waits for all of it is told."""
        if self._ends and self._idle():
            self._ended()
        elif self._begun and not self._looking and len(self._lines) == self._limits.attempts - 1:
            # There was no room for more next hops until now.
            self.kick()

    # An attempt

    async def _attempt(self, line: Line, item: QueueItem) -> None:
        try:
            await self._try(line, item)
        except Exception:
            # A bug of ours: the item stays taken, so that it does no more harm until the next start.
            self.log.failure("Queue item {item} could not be tried", item=item.id)
        finally:
            self.running -= 1
            line.running -= 1
            self._fill(line)

    async def _try(self, line: Line, item: QueueItem) -> None:
        numbers = [recipient.number for recipient in item.recipients]
        try:
            message, prefix = await self.store.message(item.id)
        except NoSuchMessage:
            self.store.give_back(item.id, numbers)
            return
        except MailError as error:
            results, _ = self._judged(item, [_failed(recipient, error) for recipient in item.recipients])
            line.put_off = True
            await self._settle(results, None)
            return
        report = None
        try:
            if await self._together(line, item, message, prefix):
                return
            results, ended = self._judged(item, await self._outcomes(line, item, message, prefix))
            if ended:
                report = await self._reporter.report(item, ended, message, prefix)
        except MailError as error:
            # Nobody can be told now: what failed is tried, and told, once more.
            self.log.error("Queue item {item} cannot be reported: {error}", item=item.id, error=error)
            results = [self._unreported(result, ended) for result in results]
        finally:
            message.close()
        line.put_off = line.put_off or any(result.recipient is not None for result in results)
        await self._settle(results, report)

    async def _together(self, line: Line, item: QueueItem, message: ISpooledMessage, prefix: bytes) -> bool:
        """
        Deliver and write it down in one commit, so that a crash repeats nothing.

        Returns:
            False if that cannot be, or did not go well for all; then nothing was done.
        """
        agent = self._agents.get(line.agent)
        if not IDeliversWithQueue.providedBy(agent):
            return False
        together: IDeliversWithQueue = agent
        done = [(one, Outcome(one.target.address)) for one in item.recipients]
        results = [Settled(item.id, one.number, None) for one in item.recipients]
        envelope, targets = _asked(item)
        report = None
        try:
            report = await self._reporter.report(item, done, message, prefix)
            items = [] if report is None else [report]
            ids = await together.deliver_with(envelope, message, prefix, targets, self.store, items, results)
            if ids is None:
                return False
        except MailError:
            return False
        except Exception:
            self.log.failure("Queue item {item} could not be delivered in one commit", item=item.id)
            return False
        finally:
            if report is not None:
                report.body.close()
        for one, outcome in done:
            self._note(item, one, outcome)
        return True

    async def _outcomes(
        self, line: Line, item: QueueItem, message: ISpooledMessage, prefix: bytes
    ) -> Sequence[Outcome]:
        envelope, targets = _asked(item)
        agent = self._agents.get(line.agent)
        error: MailError
        try:
            if agent is None:
                raise TemporaryError(f"There is no delivery agent called {line.agent}")
            outcomes = await agent.deliver(envelope, message, prefix, targets)
            if len(outcomes) != len(targets):
                raise RuntimeError(f"{len(outcomes)} outcomes for {len(targets)} targets")
            self._failing.pop(line.key, None)
            return outcomes
        except HostUnreachable as unreachable:
            error = unreachable
            await self._rest(line)
        except MailError as refused:
            error = refused
        except Exception:
            self.log.failure(
                "Delivery of queue item {item} by {agent} failed", item=item.id, agent=line.agent
            )
            error = TemporaryError()
        return [_failed(recipient, error) for recipient in item.recipients]

    async def _rest(self, line: Line) -> None:
        """Leave a next hop alone that could not be reached."""
        if line.resting:
            return
        line.resting = True
        failures = self._failing.pop(line.key, 0) + 1
        self._failing[line.key] = failures
        if len(self._failing) > self._limits.failing:
            self._failing.popitem(last=False)
        until = int(self._reactor.seconds()) + self.schedule.interval(failures, self._chance())
        try:
            await self.store.rest(line.agent, line.place, until)
        except MailError as error:
            self.log.warn("{place} should rest, and does not: {error}", place=line.place, error=error)

    def _judged(
        self, item: QueueItem, outcomes: Sequence[Outcome]
    ) -> tuple[list[Settled], list[tuple[QueuedRecipient, Outcome]]]:
        """What is to be written down, and what became of the recipients that are done with."""
        now = int(self._reactor.seconds())
        end = self.schedule.end(item.envelope, item.arrived)
        results: list[Settled] = []
        ended: list[tuple[QueuedRecipient, Outcome]] = []
        for recipient, outcome in zip(item.recipients, outcomes, strict=True):
            reply = outcome.reply or (outcome.error.text if outcome.error else "")
            attempts = recipient.attempts + 1
            tried = replace(recipient, attempts=attempts, host=outcome.host, reply=reply)
            if isinstance(outcome.error, TemporaryError) and now < end:
                wait = self.schedule.interval(attempts, self._chance())
                left = replace(tried, due=min(now + wait, end))
                results.append(Settled(item.id, recipient.number, left))
            else:
                if isinstance(outcome.error, TemporaryError):
                    outcome = replace(outcome, error=Expired(reason=outcome.error.text))
                results.append(Settled(item.id, recipient.number, None))
                ended.append((tried, outcome))
            self._note(item, tried, outcome)
        return results, ended

    def _unreported(self, result: Settled, ended: Sequence[tuple[QueuedRecipient, Outcome]]) -> Settled:
        """The result of a failure that its sender could not be told of: another attempt."""
        for recipient, outcome in ended:
            if recipient.number == result.number and outcome.error is not None:
                due = int(self._reactor.seconds()) + self.schedule.interval(1, self._chance())
                return replace(result, recipient=replace(recipient, due=due))
        return result

    def _note(self, item: QueueItem, recipient: QueuedRecipient, outcome: Outcome) -> None:
        what = "delivered"
        if outcome.error is not None:
            what = "deferred" if isinstance(outcome.error, TemporaryError) else "failed"
        tell(
            self.log,
            "Queue item {item} {what}: {recipient} by {agent} to {place}, {reply}",
            item=item.id,
            what=what,
            recipient=str(recipient.target.address),
            agent=recipient.target.agent,
            place=recipient.target.place,
            host=outcome.host,
            reply=recipient.reply or "done",
        )

    async def _settle(self, results: Sequence[Settled], report: NewItem | None) -> None:
        """Write it down, however often it takes: what is done must not be done again."""
        try:
            while True:
                try:
                    await self.store.settle(results, [report] if report is not None else [])
                    return
                except MailError as error:
                    self.log.error("The queue cannot be written: {error}", error=error)
                    if not self._begun:
                        return
                    await self._pass(self._limits.again)
        finally:
            if report is not None:
                report.body.close()

    # Telling senders by the clock

    async def _tell_overdue(self, now: int) -> None:
        while self._begun:
            items = await self.store.take_overdue(now, self._limits.line)
            told = [await self._tell(item, now) for item in items]
            if len(items) < self._limits.line or not all(told):
                return

    async def _tell(self, item: QueueItem, now: int) -> bool:
        """False if that cannot be done now."""
        end = self.schedule.end(item.envelope, item.arrived)
        over = now >= end
        results: list[Settled] = []
        about: list[tuple[QueuedRecipient, Outcome]] = []
        for one in item.recipients:
            error: MailError = Expired(reason=one.reply) if over else TemporaryError(one.reply)
            outcome = Outcome(one.target.address, error, one.host, one.reply)
            about.append((one, outcome))
            left = None if over else replace(one, notice=end, delayed=True)
            results.append(Settled(item.id, one.number, left))
            if over:
                self._note(item, one, outcome)
        try:
            message, prefix = await self.store.message(item.id)
            try:
                report = await self._reporter.report(item, about, message, prefix)
            finally:
                message.close()
        except MailError as error:
            # The next look finds it again.
            self.log.error("Queue item {item} cannot be reported: {error}", item=item.id, error=error)
            self.store.give_back(item.id, [one.number for one in item.recipients])
            return False
        await self._settle(results, report)
        return True

    # Time

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(coroutine).addErrback(
            lambda failure: self.log.failure("The queue stumbled", failure=failure)
        )

    def _pass(self, seconds: float) -> Deferred[None]:
        passed: Deferred[None] = Deferred()
        self._reactor.callLater(seconds, passed.callback, None)
        return passed

    def _wake_at(self, when: float) -> None:
        self._cancel_timer()
        delay = max(0.0, when - self._reactor.seconds())
        self._timer = self._reactor.callLater(delay, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.kick()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _asked(item: QueueItem) -> tuple[Envelope, list[Target]]:
    """What an agent is asked to deliver."""
    targets = [recipient.target for recipient in item.recipients]
    envelope = replace(
        item.envelope,
        recipients=tuple(target.address for target in targets),
        requests={recipient.target.address: recipient.request for recipient in item.recipients},
    )
    return envelope, targets


def _failed(recipient: QueuedRecipient, error: MailError) -> Outcome:
    return Outcome(recipient.target.address, error)
