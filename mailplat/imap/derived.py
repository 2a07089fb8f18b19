"""
ENVELOPE, BODY and BODYSTRUCTURE of whole blocks of messages, as far as a mailbox keeps them.

A client that has no copy asks for them of all messages; outlines lie where their bodies' rows are,
all over the store.  So what was cut out once is given to the mailbox, for neighbours together
(`IKeepsDerived`), and the next client's answer is made of a few large reads.  What is kept of a block
is the version of outlines that its forms were cut out of, and the forms, with NUL between, which
none of them can contain (RFC 3501 §9 CHAR8).

What was made is handed over behind the answer that it was made for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import contains

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from mailplat.errors import MailError
from mailplat.imap.commands import Item
from mailplat.imap.view import MailboxView, Rows
from mailplat.interfaces import IKeepsDerived
from mailplat.message.outline import VERSION
from mailplat.uids import UIDSet
from mailplat.values import BLOCK, Derived, block_of

#: Blocks with fewer messages, on the average, are not worth a row each.
FEW = 32

_CURRENT = bytes([VERSION])

_NONE: Mapping[int, int] = {}


class BlockForms:
    """
    What mailboxes keep, and what they are to keep.

    Args:
        most: octets that may wait to be handed over while others are.
    """

    _log = Logger()

    def __init__(self, most: int = 8 * 1024 * 1024) -> None:
        self._most = most
        self._waiting: dict[MailboxView, list[Derived]] = {}
        self._size = 0
        self._lock = DeferredLock()
        self._refused: set[int] = set()

    async def ready(
        self, view: MailboxView, kinds: Sequence[Item], pieces: Sequence[Rows]
    ) -> list[list[bytes] | None]:
        """
        Args:
            pieces: cut so that blocks are whole (`Selected.pieces`).

        Returns:
            for each piece and each of `kinds` what is said of the messages, NUL between; None for a
            piece of which something is not kept.
        """
        if not IKeepsDerived.providedBy(view.mailbox):
            return [None] * len(pieces)
        blocks = [blocks_of(view, rows) for rows in pieces]
        wanted = UIDSet.of(block for some in blocks for block in some)
        if not wanted:
            return [None] * len(pieces)
        found = {
            (one.kind, one.block, one.messages): memoryview(one.octets)[2:]
            for one in await view.mailbox.derived([kind.value for kind in kinds], wanted)
            if one.octets[:2] == _CURRENT + b"\0"
        }
        ready: list[list[bytes] | None] = []
        for some in blocks:
            # A block without a message that is still there was forgotten, and one that the view knows more of
            # than the mailbox has another number of them.
            forms = [[found.get((kind.value, *block)) for block in some.items()] for kind in kinds]
            there = some and not any(None in each for each in forms)
            ready.append([b"\0".join(filter(None, each)) for each in forms] if there else None)
        return ready

    def keep(
        self, view: MailboxView, rows: Rows, kinds: Sequence[Item], forms: Sequence[Sequence[bytes]]
    ) -> None:
        """
        Have the mailbox keep what was made for a piece, as far as it has whole blocks.

        Args:
            forms: for each of `kinds` that of each row.
        """
        if view.number in self._refused or not IKeepsDerived.providedBy(view.mailbox):
            return
        start = 0
        for block, count in blocks_of(view, rows).items():
            for kind, each in zip(kinds, forms, strict=True):
                some = each[start : start + count]
                if not any(map(contains, some, repeat(0))):
                    made = Derived(kind.value, block, count, b"\0".join((_CURRENT, *some)))
                    self._waiting.setdefault(view, []).append(made)
                    self._size += len(made.octets)
            start += count

    async def hand_over(self, last: bool = False) -> None:
        """
        Give what waits to the mailboxes: all if it was the last, otherwise if it has become much.

        Returns when that has begun, which is after what was handed over before is kept.
        """
        if self._size > (0 if last else self._most):
            await self._lock.acquire()
            waiting, self._waiting, self._size = self._waiting, {}, 0
            Deferred.fromCoroutine(self._hand_over(waiting))

    async def _hand_over(self, waiting: Mapping[MailboxView, Sequence[Derived]]) -> None:
        for view, some in waiting.items():
            try:
                await view.mailbox.keep_derived(some)
            except MailError:
                # Where there is no room for what can be made again, there is none to try again and again.
                self._refused.add(view.number)
            except Exception:
                self._refused.add(view.number)
                self._log.failure("A mailbox failed to keep what was made of its messages")
        self._lock.release()


def blocks_of(view: MailboxView, rows: Rows) -> Mapping[int, int]:
    """Block -> how many of these rows are in it, if they are of whole blocks that can get no more."""
    if not isinstance(rows.numbers, range):
        return _NONE
    uids, there = rows.columns.uids, view.columns.uids
    first, last = block_of(uids[0]), block_of(uids[-1])
    left, right = bisect_left(there, uids[0]), bisect_right(there, uids[-1])
    if (
        len(uids) < FEW * (last - first + 1)
        or (left and block_of(there[left - 1]) == first)
        or (block_of(there[right]) == last if right < len(there) else uids[-1] < last * BLOCK)
    ):
        return _NONE
    starts = [bisect_left(uids, (block - 1) * BLOCK + 1) for block in range(first, last + 1)]
    counts = zip(range(first, last + 1), starts, [*starts[1:], len(uids)], strict=True)
    return {block: stop - start for block, start, stop in counts if start < stop}
