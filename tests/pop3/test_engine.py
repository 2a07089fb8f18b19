"""POP3's framing."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.pop3.engine import Bad, Command, Limits, POP3Engine, Response
from mailplat.wire import Need

LIMITS = Limits(line=20, auth_line=30)


def events(engine: POP3Engine) -> list[Any]:
    found: list[Any] = []
    while (event := engine.next_event()) is not Need.DATA:
        found.append(event)
    return found


class Lines(SynchronousTestCase):
    CASES: tuple[tuple[bytes, Any], ...] = (
        (b"STAT\r\n", Command("STAT", b"")),
        (b"stat \r\n", Command("STAT", b"")),
        (b"RETR 1\r\n", Command("RETR", b"1")),
        (b"PASS  a b \r\n", Command("PASS", b" a b ")),
        (b"PASS a\tb\x01\r\n", Command("PASS", b"a\tb\x01")),
        ("USER jürgen\r\n".encode(), Command("USER", "jürgen".encode())),
        (b"pass \xff\r\n", Command("PASS", b"\xff")),
        (b"\r\n", Command("", b"")),
        (b"A" * 18 + b"\r\n", Command("A" * 18, b"")),
        (b"A" * 19 + b"\r\n", Bad.TOO_LONG),
        (b"A" * 500 + b"\r\n", Bad.TOO_LONG),
        (b"auth " + b"A" * 23 + b"\r\n", Command("AUTH", b"A" * 23)),
        (b"AUTH " + b"A" * 24 + b"\r\n", Bad.TOO_LONG),
        (b"RETR \xff\r\n", Bad.NOT_TEXT),
        (b"RETR\t1\r\n", Bad.NOT_TEXT),
        (b"USER a\0b\r\n", Bad.NOT_TEXT),
        (b"A\nB\r\n", Bad.NOT_TEXT),
        (b"A\rB\r\n", Bad.NOT_TEXT),
        (b"A\r\r\n", Bad.NOT_TEXT),
        (b"\xff\r\n", Bad.NOT_TEXT),
    )

    def test_whole(self) -> None:
        for data, event in self.CASES:
            engine = POP3Engine(LIMITS)
            engine.receive(data)
            self.assertEqual(events(engine), [event], data)
            self.assertEqual(engine.buffered, 0)

    def test_byte_by_byte(self) -> None:
        for data, event in self.CASES:
            engine = POP3Engine(LIMITS)
            for index in range(len(data)):
                self.assertEqual(events(engine), [], data)
                engine.receive(data[index : index + 1])
            self.assertEqual(events(engine), [event], data)

    def test_with_a_tail(self) -> None:
        for data, event in self.CASES:
            engine = POP3Engine(LIMITS)
            engine.receive(data + b"NOOP\r\nQU")
            self.assertEqual(events(engine), [event, Command("NOOP", b"")], data)
            self.assertEqual(engine.buffered, 2)

    def test_a_line_without_end_is_not_kept(self) -> None:
        engine = POP3Engine(LIMITS)
        for _ in range(100):
            engine.receive(b"A" * 1000)
            self.assertIs(engine.next_event(), Need.DATA)
            self.assertLessEqual(engine.buffered, 1)
        engine.receive(b"\r")
        self.assertIs(engine.next_event(), Need.DATA)
        engine.receive(b"\nNOOP\r\n")
        self.assertEqual(events(engine), [Bad.TOO_LONG, Command("NOOP", b"")])

    def test_response(self) -> None:
        for response, event in (
            (b"QUIT", Response(b"QUIT")),
            (b"", Response(b"")),
            (b"\xff\0", Response(b"\xff\0")),
            (b"A" * 28, Response(b"A" * 28)),
            (b"A" * 29, Bad.TOO_LONG),
        ):
            engine = POP3Engine(LIMITS)
            engine.expect_response()
            engine.receive(response + b"\r\nQUIT\r\n")
            self.assertEqual(events(engine), [event, Command("QUIT", b"")])

    def test_discard(self) -> None:
        engine = POP3Engine(LIMITS)
        engine.expect_response()
        engine.receive(b"A" * 500)
        engine.next_event()
        engine.receive(b"B\r\nNOOP\r\nNO")
        engine.discard()
        self.assertEqual((engine.buffered, engine.next_event()), (0, Need.DATA))
        engine.receive(b"STAT\r\n")
        self.assertEqual(events(engine), [Command("STAT", b"")])

    @given(st.lists(st.binary(max_size=40)))
    def test_however_it_is_cut(self, pieces: list[bytes]) -> None:
        whole, cut = POP3Engine(LIMITS), POP3Engine(LIMITS)
        whole.receive(b"".join(pieces))
        found: list[Any] = []
        for piece in pieces:
            cut.receive(piece)
            found += events(cut)
        self.assertEqual(found, events(whole))
        self.assertEqual(len(found), b"".join(pieces).count(b"\r\n"))

    def test_pipelined(self) -> None:
        self.assertEqual(POP3Engine(Limits(pipelined=99)).most_buffered, 99)

    def test_most_buffered_leaves_room_for_a_line(self) -> None:
        limits = Limits()
        self.assertGreater(POP3Engine(limits).most_buffered, max(limits.line, limits.auth_line))
