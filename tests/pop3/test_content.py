"""Dot-stuffing and TOP, wherever the pieces end."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.pop3.content import Stuffer, Top, stuffed

#: Messages of what matters.
MESSAGES = st.lists(st.sampled_from([b".", b"\r\n", b"\r", b"\n", b"a", b"..", b"\r\n\r\n", b"\r\n."])).map(
    b"".join
)


def cut(message: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(message) + 1) for place in places} | {0, len(message)})
    return [message[start:end] for start, end in pairwise(ends)]


def pieces_stuffed(pieces: list[bytes]) -> bytes:
    stuffer = Stuffer()
    return b"".join(map(stuffer.feed, pieces)) + stuffer.end()


def topped(pieces: list[bytes], lines: int) -> bytes:
    top, sent = Top(lines), b""
    for piece in pieces:
        sent += top.feed(piece)
        if top.complete:
            break
    return sent


class Stuffing(SynchronousTestCase):
    def test_cases(self) -> None:
        for message, sent in (
            (b"", b".\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n.\r\n", b"..\r\n..\r\n.\r\n"),
            (b"a.\r\n.b\r\n", b"a.\r\n..b\r\n.\r\n"),
            (b"a\r\n..\r\n", b"a\r\n...\r\n.\r\n"),
            (b"a\n.\n", b"a\n..\n\r\n.\r\n"),
            (b"a\r", b"a\r\r\n.\r\n"),
            (b"\r\n", b"\r\n.\r\n"),
        ):
            self.assertEqual(stuffed(message), sent)
            self.assertEqual(pieces_stuffed([message]), sent)
            for place in range(1, len(message)):
                self.assertEqual(pieces_stuffed([message[:place], message[place:]]), sent, place)
            self.assertEqual(pieces_stuffed([message[n : n + 1] for n in range(len(message))]), sent)

    @given(MESSAGES, st.lists(st.integers(0, 1000)))
    @example(b"a\r\n.", [2])
    def test_a_client_gets_it_back(self, message: bytes, places: list[int]) -> None:
        """As one who ends lines at CR LF reads it, and as one who does at LF."""
        sent = pieces_stuffed(cut(message, places))
        self.assertEqual(sent, stuffed(message))
        for end in (b"\r\n", b"\n"):
            lines = sent.split(end)
            # The first line that is a dot is the last one: nothing in the message ends it.
            last = next(
                n for n, line in enumerate(lines) if line.rstrip(b"\r" if end == b"\n" else b"") == b"."
            )
            self.assertEqual(lines[last + 1 :], [b""])
        if message.count(b"\n") == message.count(b"\r\n"):
            lines = sent.split(b"\r\n")[:-2]
            back = b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in lines)
            self.assertIn(back, (message, message + b"\r\n"))


class Cutting(SynchronousTestCase):
    MESSAGE = b"A: b\r\nC: d\r\n\r\none\r\ntwo\r\n\r\nfour\r\nfive"

    def test_cases(self) -> None:
        header = b"A: b\r\nC: d\r\n\r\n"
        for lines, sent in (
            (0, header),
            (1, header + b"one\r\n"),
            (2, header + b"one\r\ntwo\r\n"),
            (3, header + b"one\r\ntwo\r\n\r\n"),
            (4, header + b"one\r\ntwo\r\n\r\nfour\r\n"),
            (5, self.MESSAGE),
            (10**18, self.MESSAGE),
        ):
            self.assertEqual(topped([self.MESSAGE], lines), sent)
            for place in range(1, len(self.MESSAGE)):
                self.assertEqual(topped([self.MESSAGE[:place], self.MESSAGE[place:]], lines), sent, place)
            self.assertEqual(topped([bytes((octet,)) for octet in self.MESSAGE], lines), sent)

    def test_no_body_or_no_header(self) -> None:
        for message, sent in (
            (b"", b""),
            (b"A: b\r\n", b"A: b\r\n"),
            (b"A: b", b"A: b"),
            (b"A: b\r\n\r\n", b"A: b\r\n\r\n"),
            (b"\r\n", b"\r\n"),
            (b"\r\nbody\r\n", b"\r\n"),
        ):
            self.assertEqual(topped([message], 0), sent)
            self.assertEqual(topped([bytes((octet,)) for octet in message], 0), sent)

    @given(MESSAGES, st.integers(0, 6), st.lists(st.integers(0, 1000)))
    def test_however_it_is_cut(self, message: bytes, lines: int, places: list[int]) -> None:
        sent = topped(cut(message, places), lines)
        self.assertEqual(sent, topped([message], lines))
        self.assertTrue(message.startswith(sent))
        header, blank, body = (b"\r\n" + message).partition(b"\r\n\r\n")
        if blank:
            expected = b"\n".join([*body.split(b"\n")[:lines], b""]) if lines else b""
            wanted = (header + blank)[2:] + (body if body.count(b"\n") < lines else expected)
            self.assertEqual(sent, wanted)
        else:
            self.assertEqual(sent, message)
