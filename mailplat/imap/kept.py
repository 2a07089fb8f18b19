"""Octets that are kept because somebody may ask for them again, as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sized
from typing import Generic, TypeVar

T = TypeVar("T", bound=Sized)


class Kept(Generic[T]):
    """
    Octets, or what says by its length how many it takes, by key.

    Bounded: those not used for longest go first.

    Args:
        most: octets in all.

    Attributes:
        most: as given.
    """

    __slots__ = ("_size", "_values", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._size = 0
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """None if it is not there, or not any more."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def keep(self, key: Hashable, value: T) -> None:
        """From now on `get` finds it, also if it is larger than the bound, until something else is kept."""
        self._size += len(value) - len(self._values.pop(key, ()))
        self._values[key] = value
        while self._size > self.most and len(self._values) > 1:
            _, dropped = self._values.popitem(last=False)
            self._size -= len(dropped)
