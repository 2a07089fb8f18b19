"""
How fast a host may be gone about: less after it pushed back, more again while all goes well.

For each host there is a number of connections that it may have at one time.  It is halved when
the host says that it is busy, and grows by one whenever as many attempts as it allows went
well.  A host that could not be reached is left alone for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

K = TypeVar("K")


@dataclass(slots=True)
class _Host:
    allowed: int
    well: int = 0
    until: float = 0.0
    reason: str = ""


class Pace(Generic[K]):
    """
    Args:
        clock: tells the time.
        most: connections that a host may have at the most, and at first.
        rest: seconds that a host is left alone that could not be reached.
        remembered: hosts that are remembered; those longest ago are forgotten.
    """

    def __init__(self, clock: IReactorTime, most: int, rest: float, remembered: int) -> None:
        self._clock = clock
        self._most = most
        self._rest = rest
        self._remembered = remembered
        self._hosts: dict[K, _Host] = {}

    def allowed(self, host: K) -> int:
        """Connections that it may have now; at least one."""
        found = self._hosts.get(host)
        return self._most if found is None else found.allowed

    def resting(self, host: K) -> str:
        """Why it is left alone, or an empty text if it is not."""
        found = self._hosts.get(host)
        return found.reason if found is not None and self._clock.seconds() < found.until else ""

    def went_well(self, host: K) -> bool:
        """Something was delivered; whether it may have more connections than before."""
        found = self._hosts.get(host)
        if found is None:
            return False
        found.until = 0.0
        found.well += 1
        if found.well < found.allowed:
            return False
        found.well = 0
        found.allowed += 1
        if found.allowed >= self._most:
            del self._hosts[host]
        return True

    def pushed_back(self, host: K) -> None:
        """It was busy."""
        self.limit(host, self.allowed(host) // 2)

    def limit(self, host: K, most: int) -> None:
        """It was found to take no more connections than so many."""
        found = self._host(host)
        found.allowed = max(1, min(found.allowed, most))
        found.well = 0

    def failed(self, host: K, reason: str) -> None:
        """It could not be reached."""
        self.pushed_back(host)
        found = self._host(host)
        found.until = self._clock.seconds() + self._rest
        found.reason = reason

    def _host(self, host: K) -> _Host:
        found = self._hosts.pop(host, None) or _Host(self._most)
        while len(self._hosts) >= self._remembered:
            del self._hosts[next(iter(self._hosts))]
        self._hosts[host] = found
        return found
