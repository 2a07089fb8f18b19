"""
Slowing down those who guess passwords, without keeping anybody out.

Failures count against the address they come from, never against the account that is
guessed at.  After a few, tries from that address take turns, each later than the last by
a delay that doubles up to a bound; a minute without a try forgives one failure.  An
account that has logged in from an address before has a turn of its own there, so that a
guesser behind the same router doesn't hold it up.  On loopback every account has one from
the start: webmail or a proxy may stand there, with everybody behind it.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from mailplat.errors import LoginUnavailable

#: An address, or an address and an account that is at home there.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class GuessLimits:
    """
    Attributes:
        free: failures that cost nothing.
        first_delay: seconds between two tries after the next one; it doubles with each.
        longest_delay: seconds it grows to.
        longest_wait: seconds that a try waits for its turn; those that would wait
            longer are refused at once.
        forgiven_after: seconds after which one failure is forgotten.
        most_waiting: tries that may wait, from everywhere.
        most_at_once: tries that may be under way from one address.
        most_remembered: addresses with failures, and accounts at home, each.
    """

    free: int = 5
    first_delay: float = 0.5
    longest_delay: float = 15.0
    longest_wait: float = 30.0
    forgiven_after: float = 60.0
    most_waiting: int = 1000
    most_at_once: int = 100
    most_remembered: int = 10_000


class _Record:
    __slots__ = ("failures", "next_turn", "since")

    def __init__(self) -> None:
        self.failures = 0
        self.since = 0.0
        self.next_turn = 0.0


class Guessers:
    """What is remembered about addresses; bounded, and gone with the process."""

    def __init__(self, clock: IReactorTime, limits: GuessLimits | None = None) -> None:
        self._clock = clock
        self._limits = limits or GuessLimits()
        self._records: OrderedDict[Key, _Record] = OrderedDict()
        self._at_home: OrderedDict[Key, None] = OrderedDict()
        self._under_way: dict[Key, int] = {}
        self._waiting = 0

    @property
    def remembered(self) -> int:
        """Entries in memory."""
        return len(self._records) + len(self._at_home) + len(self._under_way)

    async def begin(self, host: str, account: str) -> Key:
        """
        Wait for a turn.

        Args:
            host: an IP address; "" for a UNIX socket.
            account: whom the peer claims to be.

        Returns:
            what to give to `end`, which must be called then.

        Raises:
            LoginUnavailable: too many wait already, here or in all.
        """
        key = (network(host), account[:320])
        if key not in self._at_home and not _is_loopback(key[0]):
            key = (key[0], "")
        under_way = self._under_way.get(key, 0)
        if under_way >= self._limits.most_at_once:
            raise LoginUnavailable("Too many logins at once, please try again later")
        wait = self._turn(key)
        self._under_way[key] = under_way + 1
        try:
            if wait > 0:
                await self._wait(wait)
        except BaseException:
            self._leave(key)
            raise
        return key

    def end(self, key: Key, right: bool | None, host: str, account: str) -> None:
        """
        A try is over.

        Args:
            right: whether the credentials were; None if that was not found out.
        """
        self._leave(key)
        if right:
            home = (network(host), account[:320])
            self._at_home[home] = None
            self._at_home.move_to_end(home)
            if len(self._at_home) > self._limits.most_remembered:
                self._at_home.popitem(last=False)
        elif right is not None:
            record = self._records.setdefault(key, _Record())
            record.failures = self._failures(record) + 1
            record.since = self._clock.seconds()
            self._records.move_to_end(key)
            if len(self._records) > self._limits.most_remembered:
                self._records.popitem(last=False)

    def _leave(self, key: Key) -> None:
        left = self._under_way[key] - 1
        if left:
            self._under_way[key] = left
        else:
            del self._under_way[key]

    def _failures(self, record: _Record) -> int:
        now = self._clock.seconds()
        if record.since > now:
            # The clock jumped back: nobody waits for it to come forward again.
            record.since = record.next_turn = now
        forgiven = int((now - record.since) / self._limits.forgiven_after)
        # The longest delay is reached long before this; more would only take longer to forgive.
        return max(0, min(record.failures, 30) - forgiven)

    def _turn(self, key: Key) -> float:
        """Seconds until this try's turn, which is taken."""
        record = self._records.get(key)
        if record is None:
            return 0.0
        failures = self._failures(record)
        if not failures:
            del self._records[key]
            return 0.0
        over = failures - self._limits.free
        if over < 0:
            return 0.0
        now = self._clock.seconds()
        delay = min(self._limits.longest_delay, self._limits.first_delay * 2.0**over)
        turn = max(now, record.next_turn) + delay
        if turn - now > self._limits.longest_wait:
            raise LoginUnavailable("Too many failed logins, please try again later")
        record.next_turn = turn
        return turn - now

    async def _wait(self, seconds: float) -> None:
        if self._waiting >= self._limits.most_waiting:
            raise LoginUnavailable("Too many logins at once, please try again later")
        self._waiting += 1
        try:
            await deferLater(self._clock, seconds)
        finally:
            self._waiting -= 1


def _is_loopback(host: str) -> bool:
    # As `mailplat.values.Peer.is_loopback`.
    return host in ("", "::1") or host.startswith("127.")


def network(host: str) -> str:
    """Whom an address counts for: itself, or for IPv6 the /64 around it, which one customer has."""
    if ":" not in host or _is_loopback(host):
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
