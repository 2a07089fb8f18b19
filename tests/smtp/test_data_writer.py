"""What is written after DATA is what is read after DATA."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.smtp.data import DataReader, DataWriter, LineCheck, LoneLineBreak, has_lone_line_break

#: Messages made of what matters.
TEXTS = st.lists(st.sampled_from([b".", b"\r\n", b"a", b"..", b"\r\n.", b"\r\n.\r\n", b"line\r\n"])).map(
    b"".join
)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def written(pieces: list[bytes]) -> bytes:
    writer = DataWriter()
    return b"".join([writer.feed(piece) for piece in pieces]) + writer.finish()


class Writing(SynchronousTestCase):
    def test_examples(self) -> None:
        for message, data in (
            (b"", b".\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.\r\n..b\r\n", b"a\r\n..\r\n...b\r\n.\r\n"),
            (b"\r\n\r\n", b"\r\n\r\n.\r\n"),
            (b"a.b\r\n", b"a.b\r\n.\r\n"),
        ):
            self.assertEqual(written([message]), data)
            self.assertEqual(written([message[i : i + 1] for i in range(len(message))]), data)

    @given(TEXTS, st.lists(st.integers(0, 200)), st.lists(st.integers(0, 200)))
    def test_round_trip(self, message: bytes, cuts: list[int], others: list[int]) -> None:
        """Whatever the pieces on both sides, the message arrives, with its last line ended."""
        data = written(cut(message, cuts))
        reader = DataReader(1_000_000)
        pieces, after = [], -1
        for block in cut(data, others):
            piece, after = reader.feed(block)
            pieces.append(piece)
        ended = message if not message or message.endswith(b"\r\n") else message + b"\r\n"
        self.assertEqual((b"".join(pieces), after, reader.fault), (ended, 0, None))


class Checking(SynchronousTestCase):
    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\r\n", b"line\r\n"])).map(b"".join),
        st.lists(st.integers(0, 99)),
    )
    def test_lone_breaks(self, message: bytes, cuts: list[int]) -> None:
        check = LineCheck()
        passed, lone = b"", False
        try:
            for piece in cut(message, cuts):
                block = check.feed(piece)
                self.assertFalse(block.endswith(b"\r"))
                passed += block
            check.finish()
        except LoneLineBreak:
            lone = True
        self.assertEqual(lone, has_lone_line_break(message))
        self.assertTrue(message.startswith(passed))
        if not lone:
            self.assertEqual(passed, message)
