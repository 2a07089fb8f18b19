"""
Sets of UIDs or of sequence numbers, kept as runs.

A mailbox of a million messages is one run, so the sets that travel between protocols
and stores stay small, and set algebra costs what the number of runs is, never what the
number of messages is.  Sets are values: immutable, sorted, their runs disjoint and never
adjacent.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Protocol

Run = tuple[int, int]  #: first and last number, both included

#: The largest number IMAP can say (RFC 3501 §9 nz-number, 32 bits).
LARGEST = 0xFFFFFFFF


class Ascending(Protocol):
    """Numbers in ascending order, found by position: a list, or an `array` of UIDs."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> int: ...


class UIDSet:
    """
    An immutable set of numbers from 1 to 2**32 - 1.

    Args:
        runs: (first, last) pairs in any order; they may overlap.  An empty pair
            (first > last) is left out.
    """

    __slots__ = ("_firsts", "runs")

    runs: tuple[Run, ...]

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        merged: list[Run] = []
        for first, last in sorted(runs):
            if first > last:
                continue
            if merged and first <= merged[-1][1] + 1:
                if last > merged[-1][1]:
                    merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        self.runs = tuple(merged)
        self._firsts: list[int] | None = None

    @classmethod
    def of(cls, numbers: Iterable[int]) -> UIDSet:
        """The set of these numbers, in any order, repeated or not."""
        ordered = sorted(set(numbers))
        if not ordered:
            return NOTHING
        if ordered[-1] - ordered[0] == len(ordered) - 1:
            return cls(((ordered[0], ordered[-1]),))
        runs: list[Run] = []
        first = previous = ordered[0]
        for number in ordered:
            if number > previous + 1:
                runs.append((first, previous))
                first = number
            previous = number
        runs.append((first, previous))
        return cls(runs)

    @classmethod
    def parse(cls, text: str, star: int = LARGEST) -> UIDSet:
        """
        Read `1:3,5,7:*` (RFC 3501 §9 sequence-set), with `*` meaning `star`.

        Raises:
            ValueError: the text is not a sequence set.
        """
        runs: list[Run] = []
        for item in text.split(","):
            ends = [_number(end, star) for end in item.split(":")]
            if len(ends) > 2:
                raise ValueError(f"not a sequence set: {text[:80]!r}")
            # "2:4 and 4:2 are equivalent" (RFC 3501 §9 seq-range)
            runs.append((min(ends), max(ends)))
        return cls(runs)

    def __str__(self) -> str:
        """The set in IMAP's notation; an empty set is an empty string."""
        return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in self.runs)

    def __repr__(self) -> str:
        return f"UIDSet({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return self.runs == other.runs if isinstance(other, UIDSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.runs)

    def __bool__(self) -> bool:
        return bool(self.runs)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.runs)

    def __iter__(self) -> Iterator[int]:
        """The numbers, ascending."""
        return chain.from_iterable(range(first, last + 1) for first, last in self.runs)

    def __contains__(self, number: int) -> bool:
        if self._firsts is None:
            self._firsts = [first for first, _ in self.runs]
        index = bisect_right(self._firsts, number) - 1
        return index >= 0 and number <= self.runs[index][1]

    @property
    def first(self) -> int:
        """The smallest number; 0 for an empty set."""
        return self.runs[0][0] if self.runs else 0

    @property
    def last(self) -> int:
        """The largest number; 0 for an empty set."""
        return self.runs[-1][1] if self.runs else 0

    def __or__(self, other: UIDSet) -> UIDSet:
        return UIDSet(self.runs + other.runs)

    def __and__(self, other: UIDSet) -> UIDSet:
        found: list[Run] = []
        mine, theirs = self.runs, other.runs
        i = j = 0
        while i < len(mine) and j < len(theirs):
            first = max(mine[i][0], theirs[j][0])
            last = min(mine[i][1], theirs[j][1])
            if first <= last:
                found.append((first, last))
            if mine[i][1] < theirs[j][1]:
                i += 1
            else:
                j += 1
        return UIDSet(found)

    def __sub__(self, other: UIDSet) -> UIDSet:
        left: list[Run] = []
        theirs = other.runs
        j = 0
        for first, last in self.runs:
            while j < len(theirs) and theirs[j][1] < first:
                j += 1
            k = j
            while k < len(theirs) and theirs[k][0] <= last:
                if theirs[k][0] > first:
                    left.append((first, theirs[k][0] - 1))
                first = theirs[k][1] + 1
                k += 1
            if first <= last:
                left.append((first, last))
        return UIDSet(left)

    def slices(self, ordered: Ascending) -> Iterator[slice]:
        """
        Where these numbers stand in an ascending sequence (such as an `array` of UIDs).

        Yields:
            one non-empty slice of `ordered` a run, ascending.  Numbers that `ordered`
            lacks are passed over.
        """
        for first, last in self.runs:
            start = bisect_left(ordered, first)
            stop = bisect_right(ordered, last, lo=start)
            if start < stop:
                yield slice(start, stop)

    def chunks(self, size: int) -> Iterator[UIDSet]:
        """The same numbers, ascending, in sets of at most `size`."""
        piece: list[Run] = []
        room = size
        for first, last in self.runs:
            while first <= last:
                end = min(last, first + room - 1)
                piece.append((first, end))
                room -= end - first + 1
                first = end + 1
                if not room:
                    yield UIDSet(piece)
                    piece, room = [], size
        if piece:
            yield UIDSet(piece)


def _number(text: str, star: int) -> int:
    if text == "*":
        return star
    # isdecimal alone would let other scripts' digits pass; int() would let "1_0" pass.
    if not (text.isascii() and text.isdecimal()) or text[0] == "0" or len(text) > 10:
        raise ValueError(f"not a number: {text[:20]!r}")
    number = int(text)
    if number > LARGEST:
        raise ValueError(f"number too large: {text}")
    return number


NOTHING = UIDSet()
EVERYTHING = UIDSet(((1, LARGEST),))
