"""Bytes in, events out: states, literals, APPEND, AUTHENTICATE, IDLE, and every limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailplat.imap import commands as c
from mailplat.imap.engine import (
    ALLOWED,
    Bad,
    Continue,
    Done,
    Fatal,
    IMAPEngine,
    Limits,
    MessageChunk,
    MessageEnd,
    No,
    Response,
    State,
)
from mailplat.wire import Need

TAIL = b"n NOOP\r\n"
LIMITS = Limits(
    line=2000,
    line_before_login=500,
    literals=100,
    literals_before_login=20,
    literal_count=5,
    append_size=50,
    skipped=1000,
    sasl_line=80,
    pipelined=5000,
    pipelined_before_login=1500,
    bad_commands=4,
)


def accept(engine: IMAPEngine) -> None:
    engine.accept_message()


def refuse(engine: IMAPEngine) -> None:
    engine.refuse_message()


def events(
    data: bytes,
    state: State = State.SELECTED,
    step: int = 0,
    decide: Callable[[IMAPEngine], None] = accept,
    limits: Limits = LIMITS,
) -> list[Any]:
    """
    What comes out of `data`, fed whole or `step` octets at a time; neighbouring chunks joined.

    AUTHENTICATE expects one response.
    """
    engine = IMAPEngine(limits)
    engine.state = state
    found: list[Any] = []
    step = step or len(data) or 1
    for start in range(0, len(data), step):
        engine.receive(data[start : start + step])
        while (event := engine.next_event()) is not Need.DATA:
            if isinstance(event, MessageChunk) and found and isinstance(found[-1], MessageChunk):
                found[-1] = MessageChunk(found[-1].data + event.data)
            else:
                found.append(event)
            if isinstance(event, c.Append):
                decide(engine)
            elif isinstance(event, c.Authenticate):
                engine.expect_response()
            elif isinstance(event, Fatal):
                return found
    return found


class Cases(SynchronousTestCase):
    def check(self, data: bytes, expected: list[Any], state: State = State.SELECTED, **more: Any) -> None:
        """Whole, octet by octet, by sevens, and each time with a tail."""
        for step in (0, 1, 7):
            self.assertEqual(events(data, state, step, **more), expected)
            tailed = events(data + TAIL, state, step, **more)
            self.assertEqual(tailed, [*expected, c.Noop(b"n")])


class CommandTests(Cases):
    def test_pipelined(self) -> None:
        self.check(b"a CHECK\r\nb noop\r\nc CLOSE\r\n", [c.Check(b"a"), c.Noop(b"b"), c.Close(b"c")])

    def test_literals(self) -> None:
        self.check(
            b"a LOGIN {3}\r\nbob {4}\r\np\r\nw\r\n",
            [Continue(), Continue(), c.Login(b"a", b"bob", b"p\r\nw")],
            State.NOT_AUTHENTICATED,
        )
        self.check(
            b"a LOGIN {3+}\r\nbob {0+}\r\n\r\n",
            [c.Login(b"a", b"bob", b"")],
            State.NOT_AUTHENTICATED,
        )

    def test_bad(self) -> None:
        for line, tag in (
            (b"", b"*"),
            (b"a", b"a"),
            (b"a ", b"a"),
            (b"a FOO", b"a"),
            (b" a NOOP", b"*"),
            (b"+ NOOP", b"*"),
            (b"* NOOP", b"*"),
            (b"a  NOOP", b"a"),
            (b"a NOOP x", b"a"),
            (b"a NO\0OP", b"a"),
            (b"a \xff", b"a"),
            (b"\xff NOOP", b"*"),
            (b"DONE", b"DONE"),
            (b"a STATUS b (FOO)", b"a"),
        ):
            with self.subTest(line=line):
                bad, after = events(line + b"\r\n" + TAIL)
                self.assertIsInstance(bad, Bad)
                self.assertEqual(bad.tag, tag)
                self.assertEqual(after, c.Noop(b"n"))

    def test_unknown_charset(self) -> None:
        (no,) = events(b"a SEARCH CHARSET x ALL\r\n")
        self.assertIsInstance(no, No)
        self.assertEqual(no.tag, b"a")
        self.assertTrue(no.code.startswith(b"BADCHARSET (US-ASCII UTF-8 "))

    def test_states(self) -> None:
        selected = {
            *("CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "SEARCH", "FETCH", "STORE", "COPY", "MOVE"),
            *("UID EXPUNGE", "UID SEARCH", "UID FETCH", "UID STORE", "UID COPY", "UID MOVE"),
        }
        anywhere = {"CAPABILITY", "NOOP", "LOGOUT", "ID"}
        before = {"STARTTLS", "LOGIN", "AUTHENTICATE"}
        arguments = {
            **dict.fromkeys(("SELECT", "EXAMINE", "CREATE", "DELETE", "SUBSCRIBE", "UNSUBSCRIBE"), " x"),
            **dict.fromkeys(("LOGIN", "RENAME", "LIST", "LSUB"), " x y"),
            **dict.fromkeys(("COPY", "UID COPY", "MOVE", "UID MOVE"), " 1 x"),
            **dict.fromkeys(("FETCH", "UID FETCH"), " 1 FLAGS"),
            **dict.fromkeys(("STORE", "UID STORE"), " 1 FLAGS ()"),
            **dict.fromkeys(("SEARCH", "UID SEARCH"), " ALL"),
            "UID EXPUNGE": " 1",
            "ID": " NIL",
            "AUTHENTICATE": " PLAIN",
            "ENABLE": " X",
            "STATUS": " x (UNSEEN)",
            "APPEND": " x {1}",
        }
        for name in ALLOWED:
            for state in State:
                (event,) = events(f"a {name}{arguments.get(name, '')}\r\n".encode(), state)
                if state is State.LOGOUT:
                    allowed = False
                elif state is State.NOT_AUTHENTICATED:
                    allowed = name in anywhere | before
                else:
                    allowed = name not in before and (name not in selected or state is State.SELECTED)
                with self.subTest(name=name, state=state):
                    self.assertEqual(isinstance(event, c.Command), allowed)
                    self.assertEqual(event.tag, b"a")

    def test_state_changes_between_pipelined_commands(self) -> None:
        engine = IMAPEngine()
        engine.receive(b"a LOGIN u p\r\nb SELECT INBOX\r\nc FETCH 1 UID\r\n")
        self.assertIsInstance(engine.next_event(), c.Login)
        engine.state = State.AUTHENTICATED
        self.assertIsInstance(engine.next_event(), c.Select)
        engine.state = State.SELECTED
        self.assertIsInstance(engine.next_event(), c.Fetch)
        self.assertIs(engine.next_event(), Need.DATA)

    def test_discard(self) -> None:
        for data in (b"b NOOP\r\n", b"b LO", b"b LOGIN {5+}\r\nab", b"b FOO {10+}\r\nab"):
            engine = IMAPEngine()
            engine.receive(b"a STARTTLS\r\n" + data)
            self.assertEqual(engine.next_event(), c.StartTLS(b"a"))
            if data[2:5] != b"NOO":
                engine.next_event()
            engine.discard()
            self.assertEqual(engine.buffered, 0)
            self.assertIs(engine.next_event(), Need.DATA)
            engine.receive(TAIL)
            self.assertEqual(engine.next_event(), c.Noop(b"n"))


class RefusedLiteralTests(Cases):
    """A literal in a command that is refused is never taken for a command."""

    def test_the_client_waits(self) -> None:
        # No Continue, so what comes next is a command.
        for line in (b"a FOO {9}", b"a CHECK {9}", b"a LOGIN {9}", b"a SELECT {101}", b"a APPEND x y {9}"):
            found = events(line + b"\r\n" + TAIL)
            self.assertEqual(
                [type(event) for event in found], [Bad, c.Noop] if b"CHECK" not in line else [Continue]
            )

    def test_the_literal_comes(self) -> None:
        for line in (
            *(b"a FOO ", b"", b"* ", b"a LOGIN ", b"a \xff ", b"a \0", b"a APPEND x y ", b"a FETCH 1 FLAGS("),
            *(b"a CHECK ", b"a SELECT x y ", b'a LOGIN "x'),
        ):
            for step in (0, 1):
                with self.subTest(line=line, step=step):
                    found = events(line + b"{10+}\r\nx DELETE a\r\n" + TAIL, step=step)
                    self.assertEqual([type(event) for event in found], [Bad, c.Noop])

    def test_too_large(self) -> None:
        for step in (0, 1):
            found = events(b"a SELECT {101+}\r\n" + b"x CLOSE\r\n" * 11 + b"  \r\n" + TAIL, step=step)
            self.assertEqual([type(event) for event in found], [Bad, c.Noop])

    def test_sizes_that_are_none(self) -> None:
        # twisted.md E 15
        for size in (b"{-1}", b"{1_0}", b"{-1+}", b"{0x10}", b"{}", b"{1.}"):
            found = events(b"a APPEND x " + size + b"\r\n" + TAIL)
            self.assertEqual([type(event) for event in found], [Bad, c.Noop])


class AppendTests(Cases):
    def test_accepted(self) -> None:
        for plus, waits in ((b"", True), (b"+", False)):
            self.check(
                rb"a APPEND x (\Seen) {12" + plus + b"}\r\nb NOOP\r\n\0\xff\r\n\r\n",
                [
                    c.Append(b"a", "x", frozenset({"\\Seen"}), None, 12, waits),
                    MessageChunk(b"b NOOP\r\n\0\xff\r\n"),
                    MessageEnd(b"a"),
                ],
            )

    def test_name_in_a_literal(self) -> None:
        self.check(
            b"a APPEND {1}\r\nx {2}\r\nhi\r\n",
            [
                Continue(),
                c.Append(b"a", "x", frozenset(), None, 2, True),
                MessageChunk(b"hi"),
                MessageEnd(b"a"),
            ],
        )

    def test_empty(self) -> None:
        self.check(
            b"a APPEND x {0}\r\n\r\n",
            [c.Append(b"a", "x", frozenset(), None, 0, True), MessageEnd(b"a")],
        )

    def test_refused_before_it_is_sent(self) -> None:
        self.check(b"a APPEND x {9}\r\n", [c.Append(b"a", "x", frozenset(), None, 9, True)], decide=refuse)

    def test_refused_though_it_comes(self) -> None:
        for rest in (b"\r\n", b" {10+}\r\nc CLOSE \r\n\r\n", b" and more\r\n"):
            self.check(
                b"a APPEND x {10+}\r\nb CLOSE \r\n" + rest,
                [c.Append(b"a", "x", frozenset(), None, 10, False)],
                decide=refuse,
            )

    def test_more_than_a_message(self) -> None:
        append = c.Append(b"a", "x", frozenset(), None, 2, False)
        for rest in (b" \r\n", b"x\r\n", b" (\\Seen) {9+}\r\nb CLOSE\r\n\r\n", b"\n", b"\r\r\n", b"\0\r\n"):
            for step in (0, 1):
                found = events(b"a APPEND x {2+}\r\nhi" + rest + TAIL, step=step)
                self.assertEqual(found[:2], [append, MessageChunk(b"hi")])
                self.assertEqual([type(event) for event in found[2:]], [Bad, c.Noop])
                self.assertEqual(found[2].tag, b"a")

    def test_decision_is_due(self) -> None:
        engine = IMAPEngine()
        engine.state = State.AUTHENTICATED
        self.assertRaises(RuntimeError, engine.accept_message)
        engine.receive(b"a APPEND x {9}\r\n")
        engine.next_event()
        self.assertRaises(RuntimeError, engine.next_event)
        engine.refuse_message()
        self.assertRaises(RuntimeError, engine.refuse_message)

    def test_size_limit(self) -> None:
        (append, *_) = events(b"a APPEND x {50+}\r\n" + b"x" * 50 + b"\r\n")
        self.assertIsInstance(append, c.Append)
        self.check(b"a APPEND x {51}\r\n", [No(b"a", b"TOOBIG", "Message too large")])
        self.check(
            b"a APPEND x {54+}\r\n" + b"b CLOSE\r\n" * 6 + b"\r\n",
            [No(b"a", b"TOOBIG", "Message too large")],
        )

    def test_message_is_not_held(self) -> None:
        engine = IMAPEngine()
        engine.state = State.AUTHENTICATED
        engine.receive(b"a APPEND x {1000000}\r\n")
        engine.next_event()
        engine.accept_message()
        for _ in range(10):
            engine.receive(b"x" * 100_000)
            self.assertEqual(engine.next_event(), MessageChunk(b"x" * 100_000))
            self.assertEqual(engine.buffered, 0)
        engine.receive(b"\r\n")
        self.assertEqual(engine.next_event(), MessageEnd(b"a"))


class AuthenticateTests(Cases):
    def check_response(self, line: bytes, expected: Any) -> None:
        self.check(
            b"a AUTHENTICATE PLAIN\r\n" + line + b"\r\n",
            [c.Authenticate(b"a", "PLAIN", None), expected],
            State.NOT_AUTHENTICATED,
        )

    def test_responses(self) -> None:
        self.check_response(b"YWJj", Response(b"abc"))
        self.check_response(b"", Response(b""))
        self.check_response(b"*", Response(None))

    def test_no_responses(self) -> None:
        for line in (b"YWJ", b"=", b"YWJj=", b"Y WJj", b"a NOOP", b"*x", b"!", b"YWJjZB=="):
            self.check_response(line, Bad(b"a", "Invalid base64"))
        self.check_response(b"x {3}", Bad(b"a", "Base64 expected"))
        self.check_response(b"x {10+}\r\nb LOGOUT\r\n", Bad(b"a", "Base64 expected"))
        self.check_response(b"YW\0J", Bad(b"a", "NUL in a command"))

    def test_limit(self) -> None:
        self.check_response(b"YWJj" * 20, Response(b"abc" * 20))
        self.check_response(b"YWJj" * 21, Bad(b"a", "Command too long"))
        self.check_response(b"YWJj" * 200, Bad(b"a", "Command too long"))

    def test_several_rounds(self) -> None:
        engine = IMAPEngine()
        engine.receive(b"a AUTHENTICATE LOGIN\r\nYQ==\r\nYg==\r\nb NOOP\r\n")
        engine.next_event()
        for expected in (b"a", b"b"):
            engine.expect_response()
            self.assertEqual(engine.next_event(), Response(expected))
        self.assertEqual(engine.next_event(), c.Noop(b"b"))


class IdleTests(Cases):
    def test_done(self) -> None:
        for word in (b"DONE", b"done"):
            self.check(b"a IDLE\r\n" + word + b"\r\n", [c.Idle(b"a"), Done(b"a")])

    def test_anything_else(self) -> None:
        for line in (b"b NOOP", b"", b"DONE ", b"DONE\0", b"b FOO {9}", b"b FOO {9+}\r\nb CLOSE\r\n"):
            for step in (0, 1):
                idle, bad, noop = events(b"a IDLE\r\n" + line + b"\r\n" + TAIL, step=step)
                self.assertEqual(idle, c.Idle(b"a"))
                self.assertIsInstance(bad, Bad)
                self.assertEqual(bad.tag, b"a")
                self.assertEqual(noop, c.Noop(b"n"))

    def test_waits(self) -> None:
        self.assertEqual(events(b"a IDLE\r\nDON"), [c.Idle(b"a")])


class LimitTests(Cases):
    def test_line(self) -> None:
        for state, most in ((State.NOT_AUTHENTICATED, 500), (State.SELECTED, 2000)):
            # "t NOOP" with a tag that fills the line.
            fits, too_long = (b"t" * (most - 5 + more) + b" NOOP\r\n" for more in (0, 1))
            self.assertIsInstance(events(fits, state)[0], c.Noop)
            for data in (too_long, b"t NOOP " + b"x" * 9000 + b"\r\n"):
                for step in (0, 1):
                    found = events(data + TAIL, state, step)
                    self.assertEqual([type(event) for event in found], [Bad, c.Noop])
                    self.assertEqual(found[0].text, "Command too long")

    def test_literals(self) -> None:
        for state, command, most in (
            (State.NOT_AUTHENTICATED, b"LOGIN x", 20),
            (State.SELECTED, b"RENAME x", 100),
        ):
            for size, kinds in ((most, [Continue]), (most + 1, [Bad])):
                found = events(b"a %b {%d}\r\n" % (command, size), state)
                self.assertEqual([type(event) for event in found], kinds)
        # All of a command together.
        self.assertIsInstance(events(b"a LOGIN {15}\r\n" + b"x" * 15 + b" {6}\r\n")[-1], Bad)

    def test_literal_count(self) -> None:
        for count, kind in ((5, c.Search), (6, Bad)):
            (found,) = events(b"a SEARCH" + b" TEXT {1+}\r\nx" * count + b"\r\n")
            self.assertIsInstance(found, kind)

    def test_skipped(self) -> None:
        self.assertEqual([type(event) for event in events(b"a FOO {1000+}\r\n")], [Bad])
        for start in (b"a FOO ", b"a APPEND x ", b"\xff ", b"a IDLE\r\n", b"a APPEND x {1+}\r\ny"):
            for size in (b"1001", b"9" * 30, b"9" * 300):
                found = events(start + b"{" + size + b"+}\r\n" + TAIL)
                self.assertIsInstance(found[-1], Fatal, start)

    def test_bad_commands(self) -> None:
        found = events(b"a\r\n" * 10)
        self.assertEqual([type(event) for event in found], [Bad] * 4 + [Fatal])
        # One after the other: a good one in between starts anew.
        found = events((b"a\r\n" * 3 + TAIL) * 3)
        self.assertEqual([type(event) for event in found], ([Bad] * 3 + [c.Noop]) * 3)

    def test_what_is_buffered_is_bounded(self) -> None:
        """Reading never stops within a command that is allowed, however small `pipelined` is."""
        for limits in (LIMITS, Limits(), Limits(pipelined=1, pipelined_before_login=1)):
            engine = IMAPEngine(limits)
            early = engine.most_buffered
            self.assertGreaterEqual(early, limits.pipelined_before_login)
            self.assertGreater(early, limits.line_before_login + limits.literals_before_login)
            self.assertGreater(early, limits.sasl_line)
            engine.state = State.SELECTED
            self.assertGreaterEqual(engine.most_buffered, limits.pipelined)
            self.assertGreater(engine.most_buffered, limits.line + limits.literals)

    def test_engine_takes_what_it_cannot_use(self) -> None:
        """Whatever comes, `next_event` leaves less than `most_buffered` when it wants more."""
        for data in (b"x" * 700, b"a LOGIN {20+}\r\n", b"a FOO {900+}\r\n", b"\0" * 700, b"a {20+}\r\n" * 9):
            for state in (State.NOT_AUTHENTICATED, State.SELECTED):
                engine = IMAPEngine(LIMITS)
                engine.state = state
                over = False
                for _ in range(100):
                    engine.receive(data)
                    while not over and (event := engine.next_event()) is not Need.DATA:
                        over = isinstance(event, Fatal)
                    if over:
                        break
                    self.assertLessEqual(engine.buffered, engine.most_buffered)


class GarbageTests(SynchronousTestCase):
    words = st.sampled_from(
        [
            b"a ",
            b"NOOP",
            b"LOGIN",
            b"APPEND x ",
            b"IDLE",
            b"DONE",
            b"AUTHENTICATE PLAIN",
            b"SEARCH",
            b"FETCH 1 ",
            b"{3}\r\n",
            b"{3+}\r\n",
            b"{60+}\r\n",
            b"{999+}\r\n",
            b"\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\x00",
            b"\xff",
            b"UID",
            b"(",
            b")",
            b"*",
            b"1",
            b'"',
            b"\\",
            b"FLAGS",
            b"ALL",
            b"YWJj",
            b"x" * 90,
        ]
    )

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(words, max_size=25).map(b"".join) | st.binary(max_size=60),
        st.sampled_from(State),
        st.sampled_from([accept, refuse]),
        st.integers(1, 9),
    )
    def test_cutting_does_not_matter(
        self, data: bytes, state: State, decide: Callable[[IMAPEngine], None], step: int
    ) -> None:
        """And nothing is ever raised."""
        whole = events(data, state, 0, decide)
        self.assertEqual(events(data, state, step, decide), whole)
