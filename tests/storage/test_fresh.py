"""What has just come in is in memory, as long as there is room and nothing came between."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailplat.storage.fresh import Fresh
from mailplat.uids import UIDSet


class FreshTests(SynchronousTestCase):
    def found(self, fresh: Fresh, mailbox: int, first: int, last: int) -> list[tuple[int, bytes]] | None:
        records = fresh.records(mailbox, UIDSet(((first, last),)))
        return None if records is None else list(zip(records.uids, records.records, strict=True))

    def test_one_after_the_other(self) -> None:
        fresh = Fresh()
        for uid in (5, 6, 7):
            fresh.add(1, uid, b"%d" % uid)
        fresh.add(2, 1, b"")
        self.assertEqual(self.found(fresh, 1, 5, 7), [(5, b"5"), (6, b"6"), (7, b"7")])
        self.assertEqual(self.found(fresh, 1, 6, 6), [(6, b"6")])
        self.assertEqual(self.found(fresh, 2, 1, 1), [(1, b"")])
        for mailbox, first, last in ((1, 4, 5), (1, 7, 8), (2, 2, 2), (3, 1, 1)):
            self.assertIsNone(self.found(fresh, mailbox, first, last))

    def test_what_others_put_between_is_not_known(self) -> None:
        fresh = Fresh()
        for uid in (5, 6, 8):
            fresh.add(1, uid, b"%d" % uid)
        self.assertIsNone(self.found(fresh, 1, 5, 8))
        self.assertEqual(self.found(fresh, 1, 8, 8), [(8, b"8")])

    def test_forgotten(self) -> None:
        fresh = Fresh()
        fresh.add(1, 1, b"x")
        fresh.forget(1)
        fresh.forget(1)
        self.assertIsNone(self.found(fresh, 1, 1, 1))

    def test_bounded_by_octets(self) -> None:
        """The mailbox where nothing came for longest goes; one that is too large by itself begins anew."""
        fresh = Fresh(most=1000)
        for uid in range(1, 5):
            for mailbox in (1, 2):
                fresh.add(mailbox, uid, b"x" * 52)
        fresh.add(1, 5, b"x" * 52)
        fresh.add(3, 1, b"x" * 52)
        fresh.add(4, 1, b"x" * 52)
        self.assertIsNone(self.found(fresh, 2, 1, 4))
        self.assertEqual(len(self.found(fresh, 1, 1, 5) or ()), 5)
        for uid in range(2, 12):
            fresh.add(3, uid, b"x" * 152)
        self.assertIsNone(self.found(fresh, 1, 1, 5))
        self.assertIsNone(self.found(fresh, 3, 1, 2))
        fresh.add(5, 1, b"x" * 2000)
        self.assertIsNone(self.found(fresh, 5, 1, 1))
