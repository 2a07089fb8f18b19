"""
The engine without a session: bytes in, events out.

`events` plays the least of sessions: DATA, BDAT and AUTH switch the mode, nothing else does.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.smtp.data import Fault
from mailplat.smtp.engine import Bad, End, Limits, Response, SMTPEngine
from mailplat.smtp.grammar import Command, Malformed, parse_bdat
from mailplat.wire import Need

SMALL = Limits(line=40, auth_line=80, message=100, pipelined=200)


def events(blocks: Iterable[bytes], limits: Limits = SMALL) -> list[object]:
    """All events, adjacent pieces of content joined and empty ones left out."""
    engine = SMTPEngine(limits)
    seen: list[object] = []
    for block in blocks:
        engine.receive(block)
        while (event := engine.next_event()) is not Need.DATA:
            if isinstance(event, bytes):
                if not event:
                    continue
                if seen and isinstance(seen[-1], bytes):
                    event = seen.pop() + event
            seen.append(event)
            if isinstance(event, Command):
                if event.verb == "DATA":
                    engine.begin_data()
                elif event.verb == "BDAT":
                    # A chunk without a size is not begun; the session closes then.
                    with contextlib.suppress(Malformed):
                        engine.begin_chunk(*parse_bdat(event.argument))
                elif event.verb == "AUTH":
                    engine.expect_response()
    return seen


def content_forgotten(seen: list[object]) -> list[object]:
    """Without the pieces of content that was refused at its end: who saw them forgets them."""
    refused = {number - 1 for number, event in enumerate(seen) if isinstance(event, End) and event.fault}
    return [e for number, e in enumerate(seen) if not (number in refused and isinstance(e, bytes))]


COMPLETE = End(None)
BARE = End(Fault.LONE_LINE_BREAK)
LARGE = End(Fault.TOO_LARGE)
DATA = Command("DATA", "")

CASES: dict[str, tuple[bytes, list[object]]] = {
    "a command": (b"NOOP\r\n", [Command("NOOP", "")]),
    "lower case and white space": (b"mail  From:<a@b>  \t\r\n", [Command("MAIL", "From:<a@b>")]),
    "an empty line": (b"\r\n", [Command("", "")]),
    "pipelined": (b"RSET\r\nNOOP x\r\n", [Command("RSET", ""), Command("NOOP", "x")]),
    "as long as may be": (b"NOOP " + b"x" * 33 + b"\r\n", [Command("NOOP", "x" * 33)]),
    "one octet too long": (b"NOOP " + b"x" * 34 + b"\r\n", [Bad.TOO_LONG]),
    "far too long": (b"NOOP " + b"x\r" * 500 + b"\r\n", [Bad.TOO_LONG]),
    "too long, not text": (b"\0\xff" * 500 + b"\r\n", [Bad.TOO_LONG]),
    "a long AUTH line": (
        b"auth x " + b"=" * 71 + b"\r\n*\r\n",
        [Command("AUTH", "x " + "=" * 71), Response(b"*")],
    ),
    "too long an AUTH line": (b"AUTH x " + b"=" * 72 + b"\r\n", [Bad.TOO_LONG]),
    "AUTHOR is not AUTH": (b"AUTHOR " + b"=" * 40 + b"\r\n", [Bad.TOO_LONG]),
    "a response": (b"AUTH x\r\nAGEAYg==\r\n", [Command("AUTH", "x"), Response(b"AGEAYg==")]),
    "an empty response": (b"AUTH x\r\n\r\n", [Command("AUTH", "x"), Response(b"")]),
    "a response of any octets": (
        b"AUTH x\r\n\0\xff\n\r\r\n",
        [Command("AUTH", "x"), Response(b"\0\xff\n\r")],
    ),
    "a long response": (b"AUTH x\r\n" + b"=" * 78 + b"\r\n", [Command("AUTH", "x"), Response(b"=" * 78)]),
    "too long a response": (b"AUTH x\r\n" + b"=" * 79 + b"\r\n", [Command("AUTH", "x"), Bad.TOO_LONG]),
    "NUL": (b"NOOP \0\r\n", [Bad.NOT_TEXT]),
    "bare LF": (b"NOOP\nRSET\r\n", [Bad.NOT_TEXT]),
    "bare CR": (b"NOOP\rRSET\r\n", [Bad.NOT_TEXT]),
    "LF first": (b"\nNOOP\r\n", [Bad.NOT_TEXT]),
    "CR CR LF": (b"NOOP\r\r\n", [Bad.NOT_TEXT]),
    "escape": (b"NOOP \x1b[0m\r\n", [Bad.NOT_TEXT]),
    "eighth bit": (b"NOOP \xe4\r\n", [Bad.NOT_TEXT]),
    "UTF-8 where no address stands": ("NOOP ä\r\n".encode(), [Bad.NOT_TEXT]),
    "UTF-8 in an address": ("RCPT TO:<ä@b>\r\n".encode(), [Command("RCPT", "TO:<ä@b>")]),
    "C1 control in an address": ("RCPT TO:<\x85@b>\r\n".encode(), [Bad.NOT_TEXT]),
    "line separator in an address": ("RCPT TO:<\u2028@b>\r\n".encode(), [Bad.NOT_TEXT]),
    "overlong UTF-8": (b"RCPT TO:<\xc0\x80@b>\r\n", [Bad.NOT_TEXT]),
    "surrogates in UTF-8": (b"RCPT TO:<\xed\xa0\x80@b>\r\n", [Bad.NOT_TEXT]),
    "verb in another script": ("ＮＯＯＰ\r\n".encode(), [Bad.NOT_TEXT]),
    "a message": (b"DATA\r\nA: b\r\n\r\nc\r\n.\r\n", [DATA, b"A: b\r\n\r\nc\r\n", COMPLETE]),
    "an empty message": (b"DATA\r\n.\r\n", [DATA, COMPLETE]),
    "an empty line is a message": (b"DATA\r\n\r\n.\r\n", [DATA, b"\r\n", COMPLETE]),
    "dots": (
        b"DATA\r\n..\r\n.a\r\n...\r\nb.\r\n. \r\n.\r\n",
        [DATA, b".\r\na\r\n..\r\nb.\r\n \r\n", COMPLETE],
    ),
    "the limit without the dots": (
        b"DATA\r\n" + b"..x\r\n" * 25 + b".\r\n",
        [DATA, b".x\r\n" * 25, COMPLETE],
    ),
    "too large": (b"DATA\r\n" + b"x" * 99 + b"\r\n.\r\n", [DATA, LARGE]),
    "far too large": (b"DATA\r\n" + b"x\r\n" * 2000 + b".\r\n", [DATA, LARGE]),
    "bare LF in a message": (b"DATA\r\na\nb\r\n.\r\n", [DATA, BARE]),
    "bare CR in a message": (b"DATA\r\na\rb\r\n.\r\n", [DATA, BARE]),
    "bare before too large": (b"DATA\r\na\n" + b"x\r\n" * 200 + b".\r\n", [DATA, BARE]),
    "bare after too large": (b"DATA\r\n" + b"x\r\n" * 200 + b"a\n\r\n.\r\n", [DATA, BARE]),
    "a chunk": (b"BDAT 7 LAST\r\na\r\nb\r\n.", [Command("BDAT", "7 LAST"), b"a\r\nb\r\n.", COMPLETE]),
    "chunks": (
        b"BDAT 3\r\na\r\nBDAT 5\r\n.\r\nb\rBDAT 1 LAST\r\n\n",
        [
            *(Command("BDAT", "3"), b"a\r\n", COMPLETE),
            *(Command("BDAT", "5"), b".\r\nb", COMPLETE),
            *(Command("BDAT", "1 LAST"), b"\r\n", COMPLETE),
        ],
    ),
    "a chunk of nothing": (b"BDAT 0\r\n", [Command("BDAT", "0"), COMPLETE]),
    "a last chunk of nothing": (
        b"BDAT 1\r\naBDAT 0 LAST\r\n",
        [Command("BDAT", "1"), b"a", COMPLETE, Command("BDAT", "0 LAST"), COMPLETE],
    ),
    "CR at the very end": (b"BDAT 2 LAST\r\na\r", [Command("BDAT", "2 LAST"), BARE]),
    "CR, then a last chunk of nothing": (
        b"BDAT 2\r\na\rBDAT 0 LAST\r\n",
        [Command("BDAT", "2"), b"a", COMPLETE, Command("BDAT", "0 LAST"), BARE],
    ),
    "CR, then a chunk with another letter": (
        b"BDAT 2\r\na\rBDAT 1 LAST\r\nb",
        [Command("BDAT", "2"), b"a", COMPLETE, Command("BDAT", "1 LAST"), BARE],
    ),
    "LF at the start of a chunk": (b"BDAT 2 LAST\r\n\na", [Command("BDAT", "2 LAST"), BARE]),
    "too large a chunk": (b"BDAT 101 LAST\r\n" + b"x" * 101, [Command("BDAT", "101 LAST"), LARGE]),
    "chunks too large together": (
        b"BDAT 60\r\n" + b"x" * 60 + b"BDAT 41 LAST\r\n" + b"y" * 41,
        [Command("BDAT", "60"), b"x" * 60, COMPLETE, Command("BDAT", "41 LAST"), LARGE],
    ),
    "a message after chunks": (
        b"BDAT 100 LAST\r\n" + b"x" * 100 + b"BDAT 1 LAST\r\ny",
        [Command("BDAT", "100 LAST"), b"x" * 100, COMPLETE, Command("BDAT", "1 LAST"), b"y", COMPLETE],
    ),
}

# What may be the beginning of the end is held back; what is surely text is not.
for _name, _begun in {"CR": b"\r", "CR LF": b"\r\n", "dot": b"\r\n.", "CR again": b"\r\n.\r"}.items():
    CASES[f"unfinished, {_name}"] = (b"DATA\r\na" + _begun, [DATA, b"a"])

TAIL = b"NOOP tail\r\n"


class EngineTests(SynchronousTestCase):
    def test_whole(self) -> None:
        for name, (data, expected) in CASES.items():
            with self.subTest(name):
                self.assertEqual(content_forgotten(events([data])), expected)

    def test_byte_by_byte(self) -> None:
        for name, (data, expected) in CASES.items():
            with self.subTest(name):
                single = [data[at : at + 1] for at in range(len(data))]
                self.assertEqual(content_forgotten(events(single)), expected)

    def test_with_a_tail(self) -> None:
        for name, (data, expected) in CASES.items():
            # Where content is unfinished, or AUTH the last command, the tail would be part of them.
            if not name.startswith("unfinished"):
                with self.subTest(name):
                    found = content_forgotten(events([data + TAIL]))
                    self.assertEqual(found, [*expected, Command("NOOP", "tail")])

    def test_cut_in_two_anywhere(self) -> None:
        for name, (data, expected) in CASES.items():
            if len(data) < 300:
                with self.subTest(name):
                    for at in range(len(data)):
                        found = content_forgotten(events([data[:at], data[at:]]))
                        self.assertEqual(found, expected, at)

    @given(
        st.lists(
            st.sampled_from(
                [
                    *(data for data, _ in CASES.values()),
                    b"\r",
                    b"\n",
                    b".",
                    b"x",
                    b"\r\n.\r\n",
                ]
            ),
            max_size=6,
        ).map(b"".join),
        st.lists(st.integers(0, 400), max_size=6),
    )
    def test_any_cut_is_the_same(self, data: bytes, cuts: list[int]) -> None:
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        blocks = [data[first:last] for first, last in itertools.pairwise(edges)]
        whole, pieces = events([data]), events(blocks)
        for seen in (whole, pieces):
            # Content without its end: how much of it was handed out before a fault is met differs.
            if seen and isinstance(seen[-1], bytes):
                seen.pop()
        self.assertEqual(content_forgotten(whole), content_forgotten(pieces))

    @given(st.lists(st.binary(max_size=80), max_size=8))
    def test_garbage(self, blocks: list[bytes]) -> None:
        for event in events(blocks):
            self.assertIsInstance(event, Command | Bad | Response | bytes | End)


class Dots(SynchronousTestCase):
    """Dot-stuffing at every offset of a block's edge."""

    MESSAGE = b".\r\n..\r\n.a\r\n\r\n.\r\nb.c\r\n...\r\n"

    def test_every_offset(self) -> None:
        lines = self.MESSAGE.split(b"\r\n")
        stuffed = b"\r\n".join(b"." + line if line[:1] == b"." else line for line in lines) + b".\r\n"
        wire = b"DATA\r\n" + stuffed + TAIL
        expected = [DATA, self.MESSAGE, COMPLETE, Command("NOOP", "tail")]
        for first in range(6, len(wire)):
            for second in (first, first + 1, first + 2, first + 4):
                self.assertEqual(events([wire[:first], wire[first:second], wire[second:]]), expected)

    @given(
        st.lists(st.sampled_from([b".", b"..", b".a", b"a", b"", b"a.", b". ."]), max_size=12),
        st.integers(1, 5),
    )
    def test_any_message(self, lines: list[bytes], step: int) -> None:
        message = b"".join(line + b"\r\n" for line in lines)
        stuffed = b"".join((b"." if line[:1] == b"." else b"") + line + b"\r\n" for line in lines)
        wire = b"DATA\r\n" + stuffed + b".\r\n"
        found = events([wire[at : at + step] for at in range(0, len(wire), step)])
        self.assertEqual(found, [DATA, *([message] if message else []), COMPLETE])


class Modes(SynchronousTestCase):
    def test_discard_forgets_everything(self) -> None:
        for before, mode in [
            (b"NOOP\r\nRSET\r\n", None),
            (b"half a comm", None),
            (b"x" * 500, None),
            (b"content", SMTPEngine.begin_data),
            (b"content\r\n.\r\nNOOP\r\n", SMTPEngine.begin_data),
            (b"", SMTPEngine.expect_response),
            (b"12", lambda engine: engine.begin_chunk(5, False)),
        ]:
            engine = SMTPEngine(SMALL)
            if mode is not None:
                mode(engine)
            engine.receive(before)
            engine.next_event()
            engine.discard()
            self.assertEqual(engine.buffered, 0)
            self.assertIs(engine.next_event(), Need.DATA)
            engine.receive(b"EHLO x\r\n")
            self.assertEqual(engine.next_event(), Command("EHLO", "x"))

    def test_skipped_content_gives_its_end_only(self) -> None:
        engine = SMTPEngine(SMALL)
        engine.begin_data()
        engine.receive(b"one\r\n")
        self.assertEqual(engine.next_event(), b"one")
        engine.skip_content()
        engine.receive(b"two\r\n")
        self.assertEqual(engine.next_event(), b"")
        self.assertIs(engine.next_event(), Need.DATA)
        engine.receive(b".\r\n")
        self.assertEqual(engine.next_event(), COMPLETE)

    def test_forgotten_chunks_do_not_count(self) -> None:
        engine = SMTPEngine(SMALL)
        for _ in range(3):
            engine.begin_chunk(80, False)
            engine.receive(b"x" * 80)
            self.assertEqual(engine.next_event(), b"x" * 80)
            self.assertEqual(engine.next_event(), COMPLETE)
            engine.forget_chunks()


class Buffering(SynchronousTestCase):
    """Memory: `Limits.pipelined`, `Limits.line` and `Limits.auth_line` bound what is held."""

    def test_pipelined(self) -> None:
        engine = SMTPEngine(SMALL)
        self.assertEqual(engine.most_buffered, SMALL.pipelined)
        engine.receive(b"NOOP\r\n" * 40)
        self.assertGreater(engine.buffered, engine.most_buffered)
        for left in range(39, -1, -1):
            engine.next_event()
            self.assertEqual(engine.buffered, left * 6)

    def test_an_endless_line_is_not_kept(self) -> None:
        for begin in (b"NOOP ", b"AUTH "):
            engine = SMTPEngine(SMALL)
            engine.receive(begin)
            for _ in range(100):
                engine.receive(b"x" * 30)
                self.assertIs(engine.next_event(), Need.DATA)
                self.assertLessEqual(engine.buffered, SMALL.auth_line)
            engine.receive(b"\r\nRSET\r\n")
            self.assertEqual(engine.next_event(), Bad.TOO_LONG)
            self.assertEqual(engine.next_event(), Command("RSET", ""))

    def test_content_is_not_kept(self) -> None:
        engine = SMTPEngine(SMALL)
        engine.begin_data()
        for _ in range(100):
            engine.receive(b"x" * 30)
            engine.next_event()
            self.assertLessEqual(engine.buffered, 4)
