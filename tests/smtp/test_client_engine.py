"""Replies found in bytes, however these come, and no more of them than a limit allows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.errors import PermanentError, TemporaryError
from mailplat.smtp.client_engine import Broken, ClientLimits, ReplyEngine
from mailplat.smtp.conversation import MOST_TEXT, refusal, text_of
from mailplat.smtp.extensions import Extensions
from mailplat.smtp.grammar import Reply
from mailplat.wire import Need

LIMITS = ClientLimits(reply_line=60, reply_lines=4, reply=120)

#: What a host sends, and what it means.
CASES: tuple[tuple[bytes, list[object]], ...] = (
    (b"220 ready\r\n", [Reply(220, ("ready",))]),
    (b"250\r\n", [Reply(250, ("",))]),
    (b"250 \r\n", [Reply(250, ("",))]),
    (b"250-one\r\n250-two\r\n250 three\r\n", [Reply(250, ("one", "two", "three"))]),
    (b"550-5.1.1 one\r\n550 5.1.1 two\r\n", [Reply(550, ("one", "two"), "5.1.1")]),
    (b"250 a\r\n354 b\r\n421 c\r\n", [Reply(250, ("a",)), Reply(354, ("b",)), Reply(421, ("c",))]),
    # Kindness: LF alone.
    (b"250-a\n250 b\n220 c\r\n", [Reply(250, ("a", "b")), Reply(220, ("c",))]),
    (b"hello\r\n250 ok\r\n", [Broken.NO_REPLY]),
    (b"\r\n", [Broken.NO_REPLY]),
    (b"150 no such class\r\n", [Broken.NO_REPLY]),
    (b"650 no such class\r\n", [Broken.NO_REPLY]),
    (b"250-a\r\n251 b\r\n", [Broken.NO_REPLY]),
    (b"2500 ok\r\n", [Broken.NO_REPLY]),
    (b"250-a\r\nhello\r\n", [Broken.NO_REPLY]),
    (b"250 " + b"x" * 54 + b"\r\n", [Reply(250, ("x" * 54,))]),
    (b"250 " + b"x" * 55 + b"\r\n", [Broken.TOO_LONG]),
    (b"250 " + b"x" * 500, [Broken.TOO_LONG]),
    (b"250-a\r\n" * 3 + b"250 b\r\n", [Reply(250, ("a", "a", "a", "b"))]),
    (b"250-a\r\n" * 4 + b"250 b\r\n", [Broken.TOO_MUCH]),
    ((b"250-" + b"x" * 50 + b"\r\n") * 3, [Broken.TOO_MUCH]),
)


def heard(pieces: list[bytes], limits: ClientLimits = LIMITS) -> list[object]:
    """What comes of these pieces, up to what breaks the conversation."""
    engine = ReplyEngine(limits)
    events: list[object] = []
    for piece in pieces:
        engine.receive(piece)
        while (event := engine.next_event()) is not Need.DATA:
            events.append(event)
            if isinstance(event, Broken):
                return events
    return events


class Replies(SynchronousTestCase):
    def test_whole(self) -> None:
        for data, events in CASES:
            self.assertEqual(heard([data]), events, data)

    def test_byte_by_byte(self) -> None:
        for data, events in CASES:
            self.assertEqual(heard([data[index : index + 1] for index in range(len(data))]), events, data)

    def test_with_a_tail(self) -> None:
        for data, events in CASES:
            if data.endswith(b"\n") and not isinstance(events[-1], Broken):
                self.assertEqual(heard([data + b"250 ta", b"il\r\n"]), [*events, Reply(250, ("tail",))], data)
                self.assertEqual(heard([data + b"250-ta"]), events, data)

    def test_nothing_comes_after_what_is_broken(self) -> None:
        engine = ReplyEngine(LIMITS)
        engine.receive(b"hello\r\n250 ok\r\n")
        for _ in range(2):
            self.assertIs(engine.next_event(), Broken.NO_REPLY)
            engine.receive(b"250 ok\r\n")
            self.assertEqual(engine.buffered, 0)

    def test_a_million_lines_are_not_kept(self) -> None:
        engine = ReplyEngine(ClientLimits())
        block = b"250-more\r\n" * 1000
        most = 0
        for _ in range(1000):
            engine.receive(block)
            most = max(most, engine.buffered)
            if engine.next_event() is Broken.TOO_MUCH:
                break
        self.assertIs(engine.next_event(), Broken.TOO_MUCH)
        self.assertLessEqual(most, len(block))

    def test_discard(self) -> None:
        engine = ReplyEngine(LIMITS)
        engine.receive(b"250-a\r\n250-b\r\n25")
        self.assertIs(engine.next_event(), Need.DATA)
        engine.discard()
        self.assertEqual(engine.buffered, 0)
        engine.receive(b"220 c\r\n")
        self.assertEqual(engine.next_event(), Reply(220, ("c",)))

    @given(
        st.lists(st.sampled_from([data for data, _ in CASES] + [b"250 \xff\r\n", b"250-"]), max_size=6),
        st.lists(st.integers(0, 400), max_size=8),
    )
    def test_cuts_change_nothing(self, parts: list[bytes], cuts: list[int]) -> None:
        data = b"".join(parts)
        places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        pieces = [data[start:end] for start, end in pairwise(places)]
        self.assertEqual(heard(pieces), heard([data]))

    @given(st.lists(st.binary(max_size=80), max_size=8))
    def test_garbage(self, pieces: list[bytes]) -> None:
        for event in heard(pieces):
            self.assertIsInstance(event, Reply | Broken)

    def test_what_waits(self) -> None:
        """While more than `buffered` waits, the connection is not read from."""
        engine = ReplyEngine(ClientLimits(buffered=100))
        self.assertEqual(engine.most_buffered, 100)
        engine.receive(b"250 ok\r\n" * 20)
        self.assertEqual(engine.buffered, 160)
        engine.next_event()
        self.assertEqual(engine.buffered, 152)


class Words(SynchronousTestCase):
    def test_text(self) -> None:
        for reply, text in (
            (Reply(250, ("ok",)), "250 ok"),
            (Reply(250, ("",)), "250"),
            (Reply(550, ("one ", " two"), "5.1.1"), "550 5.1.1 one two"),
            (Reply(550, ("a\tb\x00\x1b\r\x7f\u2028ü",)), "550 a?b??????"),
        ):
            self.assertEqual(text_of(reply), text)
        self.assertEqual(len(text_of(Reply(550, ("x" * 4000,)))), MOST_TEXT)

    def test_refusals(self) -> None:
        """An error has the host's words, and its status where it gave one (RFC 3463)."""
        for reply, kind, status in (
            (Reply(550, ("no",), "5.1.1"), PermanentError, "5.1.1"),
            (Reply(550, ("no",)), PermanentError, PermanentError.status),
            (Reply(450, ("no",), "4.2.1"), TemporaryError, "4.2.1"),
        ):
            error = refusal(reply)
            self.assertEqual((type(error), error.status, error.text), (kind, status, text_of(reply)))

    def test_extensions(self) -> None:
        nothing = Extensions()
        for lines, offered in (
            ((), nothing),
            (("",), nothing),
            (
                ("pipelining", "ChUnKiNg", "8bitmime"),
                replace(nothing, pipelining=True, chunking=True, eight_bit=True),
            ),
            (("SIZE",), replace(nothing, size=True)),
            (("SIZE 0",), replace(nothing, size=True)),
            (("SIZE 1000 junk",), replace(nothing, size=True, most_size=1000)),
            (("SIZE -1",), replace(nothing, size=True)),
            (("SIZE " + "9" * 30,), replace(nothing, size=True)),
            (
                ("AUTH plain LOGIN", "AUTH=LOGIN CRAM-MD5"),
                replace(nothing, mechanisms=("PLAIN", "LOGIN", "CRAM-MD5")),
            ),
            (("AUTH",), nothing),
            (("DSN", "SMTPUTF8", "STARTTLS"), replace(nothing, dsn=True, utf8=True, starttls=True)),
            (
                ("LIMITS MAILMAX=3 rcptmax=10 RCPTDOMAINMAX=x =4 NEW",),
                replace(nothing, most_transactions=3, most_recipients=10),
            ),
            (("X-UNKNOWN with words", "PIPELINING EXTRA"), replace(nothing, pipelining=True)),
        ):
            self.assertEqual(Extensions.parse(lines), offered, lines)
