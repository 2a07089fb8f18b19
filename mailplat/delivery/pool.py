"""
Connections that have nothing to do for the moment, kept for the next message to the same host.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall


class Connected(Protocol):
    """
    What is kept.

    Attributes:
        usable: it can still be used; False once the other side is gone.
    """

    @property
    def usable(self) -> bool: ...

    def quit(self) -> Deferred[None]:
        """Say goodbye and close; fires when that is done, and never fails."""


K = TypeVar("K", bound=Hashable)
H = TypeVar("H", bound=Hashable)
C = TypeVar("C", bound=Connected)


class Pool(Generic[K, C]):
    """
    Args:
        clock: provides IReactorTime.
        seconds: how long something is kept; 0 to keep nothing.
        most: how much is kept at one time; what came first is closed for what comes last.
        group: what `count` and `close_one` are asked about, of a key.
    """

    def __init__(self, clock: Any, seconds: float, most: int, group: Callable[[K], Hashable]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._most = most
        self._group = group
        self._idle: dict[C, tuple[K, IDelayedCall]] = {}
        # The same by key and by group, each in the order in which it was put in.
        self._keys: dict[K, dict[C, None]] = {}
        self._groups: dict[Hashable, dict[C, None]] = {}

    def __len__(self) -> int:
        return len(self._idle)

    def count(self, group: Hashable) -> int:
        """How much is kept of this group."""
        return len(self._groups.get(group, ()))

    def take(self, key: K) -> C | None:
        """What was put in last under this key and is still usable."""
        while key in self._keys:
            connected = next(reversed(self._keys[key]))
            self._remove(connected)
            if connected.usable:
                return connected
            connected.quit()
        return None

    def put(self, key: K, connected: C) -> None:
        """Keep it, or close it if it is not usable."""
        if not connected.usable or self._seconds <= 0 or self._most <= 0:
            connected.quit()
            return
        while len(self._idle) >= self._most:
            self._close(next(iter(self._idle)))
        self._idle[connected] = key, self._clock.callLater(self._seconds, self._close, connected)
        self._keys.setdefault(key, {})[connected] = None
        self._groups.setdefault(self._group(key), {})[connected] = None

    def close_one(self, group: Hashable) -> None:
        """Make room: close what was put in first of this group, if there is something."""
        if group in self._groups:
            self._close(next(iter(self._groups[group])))

    def close(self) -> list[Deferred[None]]:
        """Close everything; what `quit` said of each."""
        return [self._close(connected) for connected in list(self._idle)]

    def _close(self, connected: C) -> Deferred[None]:
        self._remove(connected)
        return connected.quit()

    def _remove(self, connected: C) -> None:
        key, timer = self._idle.pop(connected)
        if timer.active():
            timer.cancel()
        _forget(self._keys, key, connected)
        _forget(self._groups, self._group(key), connected)


def _forget(kept: dict[H, dict[C, None]], key: H, connected: C) -> None:
    kept[key].pop(connected)
    if not kept[key]:
        del kept[key]
