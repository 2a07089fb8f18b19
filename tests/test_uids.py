"""Sets of UIDs behave as sets of integers do."""

from array import array

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.uids import EVERYTHING, LARGEST, NOTHING, UIDSet

numbers = st.sets(st.integers(1, 60))


class UIDSetTests(SynchronousTestCase):
    @given(numbers, numbers)
    def test_algebra(self, a: set[int], b: set[int]) -> None:
        x, y = UIDSet.of(a), UIDSet.of(b)
        self.assertEqual(list(x), sorted(a))
        self.assertEqual(list(x | y), sorted(a | b))
        self.assertEqual(list(x & y), sorted(a & b))
        self.assertEqual(list(x - y), sorted(a - b))
        self.assertEqual(len(x), len(a))
        self.assertEqual([n in x for n in range(62)], [n in a for n in range(62)])
        self.assertEqual((x | y), UIDSet.of(a | b))

    @given(numbers)
    def test_parse_is_the_inverse_of_print(self, a: set[int]) -> None:
        if a:
            self.assertEqual(UIDSet.parse(str(UIDSet.of(a))), UIDSet.of(a))

    @given(numbers, st.integers(1, 10))
    def test_chunks(self, a: set[int], size: int) -> None:
        pieces = list(UIDSet.of(a).chunks(size))
        self.assertEqual([n for piece in pieces for n in piece], sorted(a))
        self.assertTrue(all(len(piece) == size for piece in pieces[:-1]))

    @given(numbers, numbers)
    def test_slices(self, a: set[int], held: set[int]) -> None:
        ordered = array("I", sorted(held))
        found = [n for piece in UIDSet.of(a).slices(ordered) for n in ordered[piece]]
        self.assertEqual(found, sorted(a & held))

    def test_star(self) -> None:
        self.assertEqual(UIDSet.parse("3:*", 7).runs, ((3, 7),))
        # "*:4" and "12:*" in a mailbox whose largest UID is 7: ranges turn round.
        self.assertEqual(UIDSet.parse("*:4", 7).runs, ((4, 7),))
        self.assertEqual(UIDSet.parse("12:*", 7).runs, ((7, 12),))

    def test_refused(self) -> None:
        for text in ("", "0", "1:", ":1", "1:2:3", "a", "1,,2", "-1", "1_0", "4294967296", "１", " 1", "01"):
            with self.assertRaises(ValueError, msg=repr(text)):
                UIDSet.parse(text)

    def test_ends(self) -> None:
        self.assertEqual((NOTHING.first, NOTHING.last, len(NOTHING)), (0, 0, 0))
        self.assertEqual((EVERYTHING.first, EVERYTHING.last), (1, LARGEST))
