"""
Turns: how much may be under way at one time, by key and in all.

    await turns.enter(key)
    try: ...
    finally: turns.leave(key)

Who comes first goes first, among those of the same key.  Among keys the one with the least
under way is served first, and half of what there is in all is kept for keys that have nothing:
some that never give back what they took do not keep the others from theirs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, succeed

K = TypeVar("K")


class Turns(Generic[K]):
    """
    Args:
        each: how many a key may have, at least one; asked every time, so it may change.
        most: how many there are in all.
    """

    def __init__(self, each: Callable[[K], int], most: int = 1 << 30) -> None:
        self._each = each
        self._most = most
        self._total = 0
        self._looking = False
        self._taken: Counter[K] = Counter()
        self._waiting: dict[K, deque[Deferred[None]]] = {}

    def taken(self, key: K) -> int:
        """How many the key has now."""
        return self._taken[key]

    def enter(self, key: K) -> Deferred[None]:
        """
        Returns:
            fires when it is one's turn; may be cancelled until then.
        """
        if key not in self._waiting and self._may(key):
            self._take(key)
            return succeed(None)
        turn: Deferred[None] = Deferred(lambda turn: self._forget(key, turn))
        self._waiting.setdefault(key, deque()).append(turn)
        return turn

    def leave(self, key: K) -> None:
        """Give back what `enter` gave; those who wait may begin in here."""
        self._total -= 1
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]
        self.look()

    def look(self) -> None:
        """Let begin who may; called when `each` allows more than before."""
        if self._looking:
            # Who begins may end in here as well: whoever is looking already sees to it, however
            # many they are.
            return
        self._looking = True
        try:
            while ready := [key for key in self._waiting if self._may(key)]:
                key = min(ready, key=self.taken)
                # To the end of the line, for those that have as much.
                waiting = self._waiting.pop(key)
                turn = waiting.popleft()
                if waiting:
                    self._waiting[key] = waiting
                self._take(key)
                turn.callback(None)
        finally:
            self._looking = False

    def _may(self, key: K) -> bool:
        taken = self._taken[key]
        if not taken:
            return self._total < self._most
        return taken < self._each(key) and taken < self._most // 2 - self._total

    def _take(self, key: K) -> None:
        self._total += 1
        self._taken[key] += 1

    def _forget(self, key: K, turn: Deferred[None]) -> None:
        waiting = self._waiting[key]
        waiting.remove(turn)
        if not waiting:
            del self._waiting[key]
