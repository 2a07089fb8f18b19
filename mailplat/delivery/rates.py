"""
How much mail one account or one peer may send in a while.

A bucket for each holds an hour's worth and fills evenly, so that a short burst passes and a
stolen password does not become a flood.  What is remembered is bounded and gone with the
process; whoever was forgotten has a full bucket again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from mailplat.errors import RateExceeded

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class RateLimits:
    """
    Attributes:
        account: recipients an hour of one account; 0 for no limit.
        peer: recipients an hour of one address that did not log in; 0 for no limit.
            Loopback is not counted.
        remembered: accounts and peers that are remembered.
    """

    account: int = 2000
    peer: int = 0
    remembered: int = 10_000


class Rates:
    """
    Buckets by key, filled by the clock.

    Args:
        seconds: tells the time.
    """

    def __init__(self, seconds: Callable[[], float], limits: RateLimits | None = None) -> None:
        self.limits = limits or RateLimits()
        self._seconds = seconds
        # Key -> what is left, and when that was so.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend_as_account(self, name: str) -> None:
        """One recipient of an account's mail.  Raises RateExceeded."""
        self._spend(f"a{name}", self.limits.account)

    def spend_as_peer(self, host: str) -> None:
        """One recipient of mail from an address.  Raises RateExceeded."""
        self._spend(f"p{host}", self.limits.peer)

    def _spend(self, key: str, rate: int) -> None:
        if not rate:
            return
        now = self._seconds()
        left, since = self._buckets.pop(key, (float(rate), now))
        # A clock that went back fills nothing.
        left = min(rate, left + max(0.0, now - since) * rate / _HOUR)
        enough = left >= 1
        self._buckets[key] = (left - 1 if enough else left), now
        if len(self._buckets) > self.limits.remembered:
            self._buckets.popitem(last=False)
        if not enough:
            raise RateExceeded(reason=f"more than {rate} recipients an hour")
