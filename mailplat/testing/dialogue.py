"""
Conversations in plain text, played against a real factory over a connection in memory.

A dialogue is a text file:

    # a comment; empty lines are passed over
    @ directive words       something the test case, or this module, does
    C: text                 the client sends text and CR LF; escapes \\r \\n \\t \\\\ \\xNN are
                            known, any other backslash stands for itself; \\c at the end: no CR LF
    S: text                 the server's next line is exactly this
    S~ regex                ... matches this regular expression as a whole; (?P<name>...)
                            binds a name, and ${name} stands for its text in later lines
    S*                      any number of lines, up to the first that the next expectation takes
    S-                      the server has sent nothing more now
    S! closed               the server closed the connection
    2C: 2S: 2S~ ...         a second (third, ...) connection, opened where it is first named

Directives known here, where N is a connection, 1 if left out:

    @ tls [N]               the client begins TLS now, for example after STARTTLS was granted
    @ secure                connections opened from here on speak TLS at once
    @ peer HOST             connections opened from here on come from this address (default 127.0.0.1)
    @ clock SECONDS         time passes
    @ hangup [N]            the client closes
    @ reset [N]             the connection breaks
    @ hold [N], @ release [N]   the client stops reading, and reads again
    @ stop                  the server goes down (grace of 10 seconds)

When the file ends, everything the server said must have been expected.

A client is tried the other way round, with `client=True`: the file plays the server, so `S:` is
what it says, and `C:`, `C~`, `C*`, `C-` and `C! closed` what is expected of the client.  The client
connects by `Dialogue.endpoint`; a connection's number says when it was opened.  `@ hangup`,
`@ reset`, `@ hold` and `@ release` are then the server's doing, and instead of `@ tls` there is

    @ upgrade TEXT          the server says TEXT (escapes as above) and begins TLS right after it
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailplat.connection import MailFactory
from mailplat.testing.transport import Pipe

#: How long a server with threads may take for a line, in seconds.
PATIENCE = 20.0

#: How long a server with threads is given to say something where it should be silent.
SILENCE = 0.05

_LINE = re.compile(r"(?P<number>[1-9]\d*)?(?P<side>[CS])(?P<kind>[:~*!-]) ?(?P<text>.*)")
_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|([rnt\\]))")
_ESCAPED = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}
_NAME = re.compile(r"\$\{(\w+)\}")


class DialogueError(AssertionError):
    """The conversation went otherwise, or the file cannot be read as a dialogue."""


@dataclass(frozen=True, slots=True)
class _Step:
    line: int
    side: str  # "C", "S" or "@"
    kind: str  # ":", "~", "*", "-", "!"; for a directive its name
    text: str
    connection: int


def _parse(path: Path, plays: str) -> list[_Step]:
    """
    Args:
        plays: "C" or "S", the side that the file plays; of the other one it says what is expected.
    """
    steps: list[_Step] = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("@"):
            name, _, text = line[1:].strip().partition(" ")
            steps.append(_Step(number, "@", name, text, 0))
            continue
        found = _LINE.fullmatch(line)
        if found is None or (found["side"] == plays and found["kind"] != ":"):
            raise DialogueError(f"{path}:{number}: not a line of a dialogue: {line!r}")
        if found["kind"] == "!" and found["text"].strip() != "closed":
            raise DialogueError(f"{path}:{number}: only '{found['side']}! closed' is known")
        steps.append(_Step(number, found["side"], found["kind"], found["text"], int(found["number"] or 1)))
    return steps


def _bytes(text: str) -> bytes:
    """What `C:` sends for this text."""
    data = text.encode("utf-8")
    end = b"\r\n"
    if data.endswith(b"\\c") and not data.endswith(b"\\\\c"):
        data, end = data[:-2], b""
    return _ESCAPE.sub(lambda m: bytes((int(m[1], 16),)) if m[1] else _ESCAPED[m[2]], data) + end


class _End(Protocol):
    """The file's end of a connection: keeps what the other side said."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.lines: list[str] = []
        self.lost = False
        self.skipping = False

    def dataReceived(self, data: bytes) -> None:
        *lines, self.data = (self.data + data).split(b"\r\n")
        self.lines += [line.decode("utf-8", "backslashreplace") for line in lines]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Leads a client to `arrived`, which makes a connection and answers its protocol."""

    def __init__(self, arrived: Callable[[Any], Any]) -> None:
        self._arrived = arrived

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        return succeed(self._arrived(protocolFactory))


class Dialogue:
    """
    One dialogue file and what it is played against.

    Args:
        path: the file.
        factory: a factory, or what makes one; called when the first connection is
            opened, so that directives before may still say how it is made.  None with `client`.
        clock: the factory's reactor.
        directives: further directives: called with the words after the name, may
            return an awaitable.
        reactor: where answers may take a while because a part of the server works in
            threads, the reactor they come back to; otherwise every answer is there at once.
        client_tls: the client's context factory; the default trusts anybody.
        client: what is tried is a client; the file plays the server.
        server_tls: with `client`: the server's context factory.

    Attributes:
        endpoint: with `client`: an IStreamClientEndpoint that leads here.
        names: the names bound by `S~` so far.
    """

    def __init__(
        self,
        path: str | Path,
        factory: MailFactory | Callable[[], MailFactory] | None,
        clock: Clock,
        *,
        directives: Mapping[str, Callable[..., object]] | None = None,
        reactor: Any = None,
        client_tls: Any = None,
        client: bool = False,
        server_tls: Any = None,
    ) -> None:
        self.endpoint = _Endpoint(self._arrived)
        self._plays, self._hears = ("S", "C") if client else ("C", "S")
        self._server_tls = server_tls
        self.names: dict[str, str] = {}
        self._path = Path(path)
        self._factory = factory
        self._clock = clock
        self._reactor = reactor
        self._client_tls = client_tls
        self._clients: dict[int, _End] = {}
        self._pipes: dict[int, Pipe] = {}
        self._host = "127.0.0.1"
        self._secure = False
        self._transcript: list[str] = []
        self._directives: dict[str, Callable[..., object]] = {
            **({"upgrade": self._upgrade} if client else {"tls": self._start_tls}),
            "secure": self._from_now_on_secure,
            "peer": self._from_now_on_peer,
            "clock": self._pass_time,
            "hangup": self._hang_up,
            "reset": self._reset,
            "hold": self._hold,
            "release": self._release,
            "stop": self._stop,
            **(directives or {}),
        }

    async def run(self) -> None:
        """
        Play it.

        Raises:
            DialogueError: with the place, what was expected, what came, and the
                conversation up to there.
        """
        step = _Step(0, "@", "", "", 0)
        try:
            for step in _parse(self._path, self._plays):
                await self._play(step)
            await self._settle()
            for number, client in self._clients.items():
                if (client.lines or client.data) and not client.skipping:
                    raise self._wrong(number, "the end of the dialogue", self._next(client))
        except DialogueError as error:
            if not step.line:
                raise
            raise DialogueError(self._report(step, str(error))) from None
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            raise DialogueError(self._report(step, message)) from error
        finally:
            for pipe in self._pipes.values():
                pipe.cut()

    # Steps

    async def _play(self, step: _Step) -> None:
        if step.side == "@":
            await self._direct(step)
            return
        client = await self._connected(step.connection)
        if step.side == self._plays:
            data = _bytes(self._substituted(step.text))
            if client.lost:
                other = "client" if self._plays == "S" else "server"
                raise DialogueError(f"the {other} has closed the connection; not sent: {step.text}")
            self._note(step.connection, self._plays, step.text)
            self._skip(step.connection, client)
            client.transport.write(data)
            self._pump()
        elif step.kind == "*":
            client.skipping = True
        elif step.kind == "-":
            await self._settle()
            self._skip(step.connection, client)
            if client.lines or client.data:
                raise self._wrong(step.connection, "nothing", self._next(client))
        elif step.kind == "!":
            await self._until(lambda: client.lost)
            self._skip(step.connection, client)
            if client.lines or client.data or not client.lost:
                raise self._wrong(step.connection, "the connection to be closed", self._next(client))
            self._note(step.connection, self._hears, "(closed)")
        else:
            await self._expect(step, client)

    async def _direct(self, step: _Step) -> None:
        directive = self._directives.get(step.kind)
        if directive is None:
            raise DialogueError(f"no such directive: {step.kind}")
        self._transcript.append(f"@ {step.kind} {step.text}".rstrip())
        result = directive(*shlex.split(self._substituted(step.text)))
        if isinstance(result, Awaitable):
            await result
        self._pump()

    async def _expect(self, step: _Step, client: _End) -> None:
        exact = self._substituted(step.text)
        pattern = re.escape(exact) if step.kind == ":" else self._substituted(step.text, re.escape)
        regex = re.compile(pattern)
        passed = 0

        def ready() -> bool:
            nonlocal passed
            if not client.skipping:
                return bool(client.lines) or client.lost
            while passed < len(client.lines) and not regex.fullmatch(client.lines[passed]):
                passed += 1
            return passed < len(client.lines) or client.lost

        await self._until(ready)
        if client.skipping and passed < len(client.lines):
            for line in client.lines[:passed]:
                self._note(step.connection, self._hears, line)
            del client.lines[:passed]
        client.skipping = False
        found = regex.fullmatch(client.lines[0]) if client.lines else None
        if found is None:
            raise self._wrong(step.connection, f"{self._hears}{step.kind} {step.text}", self._next(client))
        self._note(step.connection, self._hears, client.lines.pop(0))
        self.names.update({name: text for name, text in found.groupdict().items() if text is not None})

    def _substituted(self, text: str, quoted: Callable[[str], str] = str) -> str:
        def value(found: re.Match[str]) -> str:
            try:
                return quoted(self.names[found[1]])
            except KeyError:
                raise DialogueError(f"${{{found[1]}}} was not bound by any S~ before") from None

        return _NAME.sub(value, text)

    # Connections

    async def _connected(self, number: int) -> _End:
        client = self._clients.get(number)
        if client is None and self._plays == "S":
            raise DialogueError(f"the client has not opened connection {number}")
        if client is None:
            client = self._clients[number] = _End()
            factory = self._made_factory()
            address = IPv6Address if ":" in self._host else IPv4Address
            peer = address("TCP", self._host, 40000 + number)
            tls = (self._trusting(), factory.tls) if self._secure else None
            server = factory.buildProtocol(peer)
            here = IPv4Address("TCP", "127.0.0.1", 25)
            self._pipes[number] = Pipe(client, server, peer, here, self._clock, tls)
            self._pump()
        return client

    def _arrived(self, client: Any) -> Any:
        """A client connects to us."""
        number = len(self._clients) + 1
        end = self._clients[number] = _End()
        here, there = IPv4Address("TCP", "127.0.0.1", 40000 + number), IPv4Address("TCP", self._host, 25)
        # A client that speaks TLS at once brings it with it.
        tls = (None, self._server_tls) if self._secure else None
        protocol = client.buildProtocol(there)
        self._pipes[number] = Pipe(protocol, end, here, there, self._clock, tls)
        return protocol

    def _made_factory(self) -> MailFactory:
        if not isinstance(self._factory, MailFactory):
            assert self._factory is not None
            self._factory = self._factory()
        return self._factory

    def _trusting(self) -> Any:
        if self._client_tls is None:
            self._client_tls = CertificateOptions()
        return self._client_tls

    def _client(self, number: str) -> _End:
        try:
            return self._clients[int(number)]
        except (KeyError, ValueError):
            raise DialogueError(f"there is no connection {number}") from None

    def _pump(self) -> None:
        """Let everything happen that can happen now, without time passing."""
        for _ in range(100_000):
            self._clock.advance(0)
            moved = [pipe.pump() for pipe in self._pipes.values()]
            due = any(call.getTime() <= self._clock.seconds() for call in self._clock.getDelayedCalls())
            if not due and not any(moved):
                return
        raise DialogueError("the conversation does not come to rest")

    async def _until(self, ready: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait until `ready()`, or until it is clear that it will not be."""
        self._pump()
        if self._reactor is not None:
            deadline = self._reactor.seconds() + patience
            while not ready() and self._reactor.seconds() < deadline:
                await deferLater(self._reactor, 0.001, lambda: None)
                self._pump()
        ready()

    async def _settle(self) -> None:
        await self._until(lambda: False, SILENCE)

    # Directives

    async def _start_tls(self, number: str = "1") -> None:
        client = self._client(number)
        if client.lines or client.data:
            raise self._wrong(int(number), "nothing before TLS", self._next(client))
        client.transport.startTLS(self._trusting())
        self._pump()

    def _upgrade(self, text: str) -> None:
        number = max(self._clients)
        self._note(number, "S", text)
        transport = self._clients[number].transport
        transport.write(_bytes(text))
        # Before anything moves: what the client says next is TLS.
        transport.startTLS(self._server_tls)

    def _from_now_on_secure(self) -> None:
        self._secure = True

    def _from_now_on_peer(self, host: str) -> None:
        self._host = host

    def _pass_time(self, seconds: str) -> None:
        self._pump()
        self._clock.advance(float(seconds))

    def _hang_up(self, number: str = "1") -> None:
        self._client(number).transport.loseConnection()

    def _reset(self, number: str = "1") -> None:
        self._client(number)
        self._pipes[int(number)].cut()

    def _hold(self, number: str = "1") -> None:
        self._client(number)
        self._pipes[int(number)].hold(True, self._plays == "S")

    def _release(self, number: str = "1") -> None:
        self._client(number)
        self._pipes[int(number)].hold(False, self._plays == "S")

    def _stop(self) -> None:
        self._made_factory().stop(10.0)

    # Telling

    def _note(self, connection: int, side: str, text: str) -> None:
        self._transcript.append(f"{connection if connection > 1 else ''}{side}: {text}")

    def _skip(self, connection: int, client: _End) -> None:
        """After `S*`, pass over what has been said."""
        if client.skipping:
            client.skipping = False
            for line in client.lines:
                self._note(connection, self._hears, line)
            client.lines.clear()
            client.data = b""

    def _next(self, client: _End) -> str:
        if client.lines:
            return client.lines[0]
        if client.data:
            return f"{client.data[:200]!r} (no CR LF)"
        return "(closed)" if client.lost else "(nothing)"

    def _wrong(self, connection: int, expected: str, came: str) -> DialogueError:
        rest = self._clients[connection].lines[1:10]
        after = "".join(f"\n            {line}" for line in rest)
        return DialogueError(f"  connection {connection}\n  expected: {expected}\n  came:     {came}{after}")

    def _report(self, step: _Step, message: str) -> str:
        conversation = "\n".join(f"    {line}" for line in self._transcript[-60:])
        return f"{self._path}:{step.line}\n{message}\n  so far:\n{conversation}"


Case = TypeVar("Case", bound=type)


def add_dialogues(directory: str | Path) -> Callable[[Case], Case]:
    """
    A class decorator: a test method for each `*.txt` of a directory.

    Each calls `self.play(path)`, which the class gives, and which makes a `Dialogue` and
    awaits or returns its `run()`.

    Raises:
        ValueError: there are no dialogues, so the tests would pass without trying
            anything.
    """
    paths = sorted(Path(directory).glob("*.txt"))
    if not paths:
        raise ValueError(f"no dialogues in {directory}")

    def add(case: Case) -> Case:
        for path in paths:
            name = "test_" + re.sub(r"\W", "_", path.stem)
            setattr(case, name, _test(path, name))
        return case

    return add


def _test(path: Path, name: str) -> Callable[[Any], object]:
    def test(self: Any) -> object:
        async def played() -> None:
            await self.play(path)

        deferred = Deferred.fromCoroutine(played())
        # A synchronous test case would not notice what it is handed back.
        return deferred if isinstance(self, TestCase) else self.successResultOf(deferred)

    test.__name__ = name
    test.__doc__ = f"{path.name}"
    return test
