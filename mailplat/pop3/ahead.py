"""
The answer that a client will ask for next, made while it takes the one before.

Who fetches its mail names one message at a time, and says nothing until it has all of it: a server that
waits as well lets half of the time go by.
"""

from __future__ import annotations


class Room:
    """
    What all connections of a listener hold of what nobody has asked for yet.

    Attributes:
        left: octets that may still be held.
    """

    __slots__ = ("left",)

    def __init__(self, most: int) -> None:
        self.left = most


class Ahead:
    """
    At most one answer of one connection.

    Args:
        room: shared with others.
        most: octets of a message that is worth it.
    """

    __slots__ = ("_answer", "_index", "_most", "_room")

    def __init__(self, room: Room, most: int) -> None:
        self._room = room
        self._most = most
        self._index = -1
        self._answer = b""

    def fits(self, size: int) -> bool:
        """Whether the answer for a message of so many octets may be made."""
        return size <= self._most and size <= self._room.left

    def keep(self, index: int, answer: bytes) -> None:
        """Hold the answer for a message; after `take`, which empties the place."""
        self._index, self._answer = index, answer
        self._room.left -= len(answer)

    def take(self, index: int) -> bytes:
        """The answer for this message, b"" if it is not there; another one is forgotten."""
        there, answer = self._index, self._answer
        if not answer:
            return answer
        self._index, self._answer = -1, b""
        self._room.left += len(answer)
        return answer if there == index else b""

    def forget(self) -> None:
        """Nobody will ask for it."""
        self.take(-1)
