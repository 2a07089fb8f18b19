"""Where a command ends, and what happens to the rest of one that is refused."""

from __future__ import annotations

from time import thread_time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap.framing import Announced, Chunk, Complete, Endless, Framer, Wrong

NEXT = b"n NOOP\r\n"


def pieces(data: bytes, decision: str = "take", step: int = 0, most: int = 1000) -> list[Any]:
    """
    All pieces of `data`, fed whole or `step` octets at a time; neighbouring chunks joined.

    Every literal gets the same decision.
    """
    framer = Framer(most_skipped=1000)
    found: list[Any] = []
    for start in range(0, len(data), step or len(data) or 1):
        framer.receive(data[start : start + (step or len(data))])
        while (piece := framer.next_piece(most)) is not None:
            if isinstance(piece, Chunk) and found and isinstance(found[-1], Chunk):
                found[-1] = Chunk(found[-1].data + piece.data)
            else:
                found.append(piece)
            if isinstance(piece, Announced):
                getattr(framer, decision)()
            elif isinstance(piece, Endless):
                return found
    return found


class FramingTests(SynchronousTestCase):
    def check(self, data: bytes, expected: list[Any], decision: str = "take", most: int = 1000) -> None:
        """Whole, octet by octet, by threes, and each time with a tail."""
        for step in (0, 1, 3):
            self.assertEqual(pieces(data, decision, step, most), expected, step)
            tailed = pieces(data + NEXT, decision, step, most)
            self.assertEqual(tailed, [*expected, Complete(b"n NOOP")], step)

    def test_line(self) -> None:
        self.check(b"a NOOP\r\n", [Complete(b"a NOOP")])

    def test_empty_line(self) -> None:
        self.check(b"\r\n", [Complete(b"")])

    def test_several(self) -> None:
        self.check(b"a NOOP\r\nb NOOP\r\n", [Complete(b"a NOOP"), Complete(b"b NOOP")])

    def test_literals(self) -> None:
        self.check(
            b"a LOGIN {3}\r\nb\r\n {2+}\r\n{}\r\n",
            [
                Announced(b"a LOGIN ", (), 3, True),
                Announced(b"a LOGIN \0 ", (b"b\r\n",), 2, False),
                Complete(b"a LOGIN \0 \0", (b"b\r\n", b"{}")),
            ],
        )

    def test_empty_literal(self) -> None:
        self.check(b"a X {0}\r\n\r\n", [Announced(b"a X ", (), 0, True), Complete(b"a X \0", (b"",))])

    def test_literal_may_hold_anything(self) -> None:
        self.check(
            b"a X {4+}\r\n\0\xff\r\n\r\n",
            [Announced(b"a X ", (), 4, False), Complete(b"a X \0", (b"\0\xff\r\n",))],
        )

    def test_stream(self) -> None:
        self.check(
            b"a APPEND x {5}\r\nhello\r\n",
            [Announced(b"a APPEND x ", (), 5, True), Chunk(b"hello"), Complete(b"")],
            "stream",
        )

    def test_stream_of_nothing(self) -> None:
        self.check(b"a X {0}\r\n\r\n", [Announced(b"a X ", (), 0, True), Complete(b"")], "stream")

    def test_text_after_stream(self) -> None:
        self.check(
            b"a X {1+}\r\nh more\r\n",
            [Announced(b"a X ", (), 1, False), Chunk(b"h"), Complete(b" more")],
            "stream",
        )

    def test_refused_and_the_client_waits(self) -> None:
        # It was not told to go on, so what comes is the next command.
        self.check(b"a X {6}\r\nb NOOP\r\n", [Announced(b"a X ", (), 6, True), Complete(b"b NOOP")], "refuse")

    def test_refused_and_the_literal_comes(self) -> None:
        # One that looks like commands; and the command goes on after it, with more literals.
        self.check(
            b"a X {16+}\r\nb NOOP\r\nc NOOP\r\n y {8+}\r\nd NOOP\r\n\r\n",
            [Announced(b"a X ", (), 16, False)],
            "refuse",
        )

    def test_skipping_ends_where_a_client_waits(self) -> None:
        self.check(b"a X {2+}\r\nhi {99}\r\n", [Announced(b"a X ", (), 2, False)], "refuse")

    def test_faults(self) -> None:
        for line, why in (
            (b"a NO\0OP\r\n", "NUL"),
            (b"a NO\rOP\r\n", "bare CR"),
            (b"a NOOP\r\r\n", "bare CR"),
            (b"a NOOP\n", "bare LF"),
            (b'a LOGIN "\xc3\xa4" x\r\n', "8-bit"),
        ):
            for step in (0, 1):
                wrong, after = pieces(line + NEXT, step=step)
                self.assertIsInstance(wrong, Wrong, line)
                self.assertIn(why.lower(), wrong.why.lower())
                self.assertTrue(wrong.text.startswith(b"a "))
                self.assertEqual(after, Complete(b"n NOOP"))

    def test_fault_before_a_literal_that_comes(self) -> None:
        for line in (b"a \xff {8+}\r\n", b"a x {8+}\n", b"a \0 {8+}\r\n", b"a \r {8+}\r\n"):
            for step in (0, 1):
                wrong, after = pieces(line + b"b NOOP\r\n more\r\n" + NEXT, step=step)
                self.assertIsInstance(wrong, Wrong)
                self.assertEqual(after, Complete(b"n NOOP"))

    def test_overlong_line(self) -> None:
        for tail in (
            b"\r\n",
            b" {8+}\r\nb NOOP\r\n\r\n",
            b" {8+}\r\nb NOOP\r\n {3+}\r\nxyz\r\n",
            b" {8}\r\n",
        ):
            for step in (0, 1, 7, 64):
                for length in (95, 150, 400):
                    found = pieces(b"a " + b"x" * length + tail + NEXT, "refuse", step, most=90)
                    self.assertEqual([type(piece) for piece in found], [Wrong, Complete], (tail, step))
                    self.assertEqual(found[0].why, "Command too long")
                    self.assertEqual(found[1].text, b"n NOOP")

    def test_longest_line(self) -> None:
        self.check(b"x" * 90 + b"\r\n", [Complete(b"x" * 90)], most=90)
        found = pieces(b"x" * 91 + b"\r\n", most=90)
        self.assertEqual([type(piece) for piece in found], [Wrong])

    def test_limit_is_of_the_whole_command(self) -> None:
        found = pieces(b"a " + b"x" * 50 + b" {1+}\r\ny" + b"x" * 50 + b"\r\n" + NEXT, most=90)
        self.assertEqual([type(piece) for piece in found], [Announced, Wrong, Complete])

    def test_memory_of_an_endless_line_is_bounded(self) -> None:
        framer = Framer(1000)
        for _ in range(1000):
            framer.receive(b"x" * 1000)
            framer.next_piece(5000)
            self.assertLess(framer.buffered, 8000)

    def test_buffered_counts_what_is_held(self) -> None:
        framer = Framer(1000)
        framer.receive(b"a X {10+}\r\n01234")
        self.assertIsInstance(framer.next_piece(100), Announced)
        framer.take()
        self.assertIsNone(framer.next_piece(100))
        self.assertEqual(framer.buffered, len(b"a X ") + 5)
        framer.receive(b"56789\r\n")
        self.assertIsInstance(framer.next_piece(100), Complete)
        self.assertEqual(framer.buffered, 0)

    def test_endless_literal(self) -> None:
        for size in (b"1001", b"99999999999999999999", b"9" * 60, b"9" * 500):
            for start in (b"a X ", b"a \xff "):
                with self.subTest(size=size, start=start):
                    self.assertIsInstance(pieces(start + b"{" + size + b"+}\r\n")[-1], Endless)

    def test_huge_literal_that_waits(self) -> None:
        for size in (b"99999999999999999999", b"9" * 500):
            (found,) = pieces(b"a X {" + size + b"}\r\n", "refuse")
            self.assertIsInstance(found, Announced)
            self.assertGreaterEqual(found.size, 10**19)
            self.assertEqual(found.text, b"a X ")

    def test_not_a_literal(self) -> None:
        # twisted.md E 15: numbers that only int() understands.
        for marker in (b"{-1}", b"{1_0}", b"{+5}", b"{}", b"{ 5}", b"{5 }", b"{5}x", b"{5-}", b"{5++}"):
            self.check(b"a X " + marker + b"\r\n", [Complete(b"a X " + marker)])

    def test_discard(self) -> None:
        framer = Framer(1000)
        for data in (b"a NO", b"a X {5+}\r\nab", b"a \xff {9+}\r\nab", b"x" * 300):
            framer.receive(data)
            piece = framer.next_piece(100)
            if isinstance(piece, Announced):
                framer.take()
            framer.discard()
            self.assertEqual(framer.buffered, 0)
            framer.receive(NEXT)
            self.assertEqual(framer.next_piece(100), Complete(b"n NOOP"))

    def test_decisions_are_due_once(self) -> None:
        framer = Framer(1000)
        self.assertRaises(RuntimeError, framer.take)
        framer.receive(b"a {1}\r\n")
        framer.next_piece(100)
        self.assertRaises(RuntimeError, framer.next_piece, 100)
        framer.refuse()
        self.assertRaises(RuntimeError, framer.stream)

    def test_octet_by_octet_is_linear(self) -> None:
        framer = Framer(1000)
        started = thread_time()
        for _ in range(65536):
            framer.receive(b"x")
            framer.next_piece(65536)
        self.assertLess(thread_time() - started, 2)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.sampled_from([b"a", b" ", b"{3+}", b"{2}", b"\r\n", b"\r", b"\n", b"\0", b"\xff", b"{99+}"])
        ),
        st.sampled_from(["take", "stream", "refuse"]),
    )
    def test_cutting_does_not_matter(self, words: list[bytes], decision: str) -> None:
        data = b"".join(words)
        self.assertEqual(pieces(data, decision), pieces(data, decision, step=1))
