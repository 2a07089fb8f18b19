"""Dialogues: what passes, and how it is told what does not."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.testing.fakes import server_tls
from mailplat.testing.wire import Dialogue, DialogueError, add_dialogues
from tests.testing.echo import EchoFactory

DIALOGUES = Path(__file__).parent / "dialogues"


@add_dialogues(DIALOGUES)
class Synchronous(SynchronousTestCase):
    async def play(self, path: Path) -> None:
        clock = Clock()
        await Dialogue(path, EchoFactory("imap", clock, tls=server_tls()), clock).run()
        self.assertEqual(clock.getDelayedCalls(), [])


@add_dialogues(DIALOGUES)
class OnARealReactor(TestCase):
    """As with a store that works in threads."""

    async def play(self, path: Path) -> None:
        from twisted.internet import reactor

        clock = Clock()
        factory = EchoFactory("imap", clock, tls=server_tls())
        await Dialogue(path, factory, clock, reactor=reactor).run()


class Wrong(SynchronousTestCase):
    """A conversation that went otherwise is an error that says where."""

    def played(self, text: str, **more: Any) -> Deferred[None]:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name, "dialogue.txt")
        path.write_text(text, "utf-8")
        clock = Clock()
        dialogue = Dialogue(path, lambda: EchoFactory("imap", clock), clock, **more)
        return Deferred.fromCoroutine(dialogue.run())

    def error(self, text: str, **more: Any) -> str:
        failure = self.failureResultOf(self.played(text, **more), DialogueError)
        assert isinstance(failure, Failure)
        return str(failure.value)

    def test_another_line(self) -> None:
        error = self.error("S: +OK ready\nC: hello\nS: goodbye\n")
        for part in (":3\n", "expected: S: goodbye", "came:     hello", "    S: +OK ready", "    C: hello"):
            self.assertIn(part, error)

    def test_no_line(self) -> None:
        self.assertIn("(nothing)", self.error("S: +OK ready\nS: more\n"))
        self.assertIn("line 5", self.error("S: +OK ready\nC: many\nS*\nS: line 6\n"))
        self.assertIn("(closed)", self.error("S: +OK ready\nC: quit\nS: bye\nS: more\n"))

    def test_no_match(self) -> None:
        self.assertIn("came:     +OK ready", self.error("S~ OK\n"))

    def test_not_silent(self) -> None:
        self.assertIn("came:     +OK ready", self.error("S-\n"))

    def test_not_closed(self) -> None:
        self.assertIn("closed", self.error("S: +OK ready\nS! closed\n"))

    def test_what_is_left_at_the_end(self) -> None:
        self.assertIn("came:     line 1", self.error("S: +OK ready\nC: many\n"))

    def test_sending_to_nobody(self) -> None:
        self.assertIn("has closed", self.error("S*\nC: quit\nS: bye\nS! closed\nC: hello\n"))

    def test_unbound_name(self) -> None:
        self.assertIn("${tag}", self.error("S: ${tag}\n"))

    def test_no_such_directive(self) -> None:
        self.assertIn("frobnicate", self.error("@ frobnicate it\n"))

    def test_not_a_dialogue(self) -> None:
        for line in ("X: hello", "C~ hello", "S! open", "0C: hello"):
            self.failureResultOf(self.played(line), DialogueError)

    def test_directives_of_the_case(self) -> None:
        told: list[tuple[str, ...]] = []

        async def remember(*words: str) -> None:
            told.append(words)

        text = "S~ \\+OK (?P<w>.*)\n@ remember 'one word' ${w}\n"
        self.successResultOf(self.played(text, directives={"remember": remember}))
        self.assertEqual(told, [("one word", "ready")])

    def test_a_directive_that_fails(self) -> None:
        def fail() -> None:
            raise ZeroDivisionError("oh")

        error = self.error("S*\n@ fail\n", directives={"fail": fail})
        self.assertIn(":2", error)
        self.assertIn("ZeroDivisionError: oh", error)

    def test_no_dialogues(self) -> None:
        self.assertRaises(ValueError, add_dialogues, DIALOGUES / "none")


class PlayingTheServer(SynchronousTestCase):
    """The file is the server, and a client is tried."""

    def played(self, text: str, *words: bytes) -> Deferred[None]:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name, "dialogue.txt")
        path.write_text(text, "utf-8")

        class Client(Protocol):
            """Says a word whenever it hears something, and then hangs up."""

            left = list(words)

            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                if self.left:
                    self.transport.write(self.left.pop(0))
                else:
                    self.transport.loseConnection()

        def connect() -> None:
            dialogue.endpoint.connect(Factory.forProtocol(Client))

        dialogue = Dialogue(path, None, Clock(), directives={"connect": connect}, client=True)
        return Deferred.fromCoroutine(dialogue.run())

    def error(self, text: str, *words: bytes) -> str:
        return str(self.failureResultOf(self.played(text, *words), DialogueError).value)

    def test_all_well(self) -> None:
        text = "@ connect\nC-\nS: hello\nC: one\nS: ${name}\\c\nC~ two (?P<rest>.*)\nS: ${rest}\nC! closed\n"
        text = text.replace("${name}", "again")
        self.successResultOf(self.played(text, b"one\r\n", b"two three\r\n"))

    def test_two_connections(self) -> None:
        text = "@ connect\n@ connect\n2S: hello\n2C: one\nC-\n@ hangup\nC! closed\n"
        self.successResultOf(self.played(text, b"one\r\n"))

    def test_another_line(self) -> None:
        error = self.error("@ connect\nS: hello\nC: two\n", b"one\r\n")
        for part in (":3\n", "expected: C: two", "came:     one", "    S: hello"):
            self.assertIn(part, error)

    def test_nobody_connected(self) -> None:
        self.assertIn("the client has not opened connection 1", self.error("S: hello\n"))

    def test_saying_something_to_nobody(self) -> None:
        error = self.error("@ connect\nS: hello\nC! closed\nS: hello\n")
        self.assertIn("the client has closed the connection", error)

    def test_more_than_was_expected(self) -> None:
        self.assertIn("the end of the dialogue", self.error("@ connect\nS: hello\n", b"one\r\n"))

    def test_each_side_has_its_lines(self) -> None:
        self.assertIn("not a line of a dialogue", self.error("S~ hello\n"))
