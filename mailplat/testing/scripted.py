"""
An SMTP or LMTP server that misbehaves as a test wants it to.

    server = ScriptedServer({"RCPT": ["250 2.1.5 OK", "450 4.2.1 Busy"], ".": DROP})

A script says what is done at each point; where it is silent the server behaves well.  It runs
on a `mailplat.testing.network` and, given a reactor as its clock, on real ports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from mailplat.testing.fakes import server_tls


class Fault(Enum):
    """What a server may do instead of a reply."""

    HANG = "say nothing, and wait"
    DROP = "close the connection"
    RESET = "break the connection"


HANG, DROP, RESET = Fault


@dataclass(frozen=True, slots=True)
class Slow:
    """Do `then` only after so many seconds."""

    seconds: float
    then: Act


@dataclass(frozen=True, slots=True)
class Flood:
    """
    Say a line over and over, as fast as it is read, and then `then`.

    Attributes:
        line: without CR LF.
        times: how often; by default a million times.
    """

    line: str = "250-and another thing"
    times: int = 1_000_000
    then: Act = Fault.HANG


@dataclass(frozen=True, slots=True)
class Raw:
    """Send these bytes as they are."""

    data: bytes


#: What a server does at one point: says a reply (lines parted by "\n", without CR LF), or else.
Act = str | Fault | Slow | Flood | Raw

#: Word -> what to do there: an act; several, one for each time, of which the last goes on; or a
#: function of the command's argument.  The words: "CONNECT", "EHLO", "HELO", "LHLO", "STARTTLS",
#: "AUTH", "MAIL", "RCPT", "DATA", "." (the end of the message, also of one sent by BDAT), "BDAT",
#: "RSET", "NOOP", "QUIT", "VRFY".
Script = dict[str, Act | list[Act] | Callable[[str], Act]]


@dataclass(frozen=True, slots=True)
class Received:
    """A transaction as a `ScriptedServer` saw it: arguments of MAIL and RCPT, and the message."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes


class ScriptedServer(ServerFactory):
    """
    See the top of this file.

    Args:
        script: see `Script`; it can be changed at any time.
        hostname: how it calls itself.
        clock: what `Slow` waits for; needed for nothing else.
        extensions: lines of the answer to EHLO and LHLO.
        tls: a context factory for STARTTLS; True for one made now.
        lmtp: speak LMTP: one reply for each recipient at the end of a message.

    Attributes:
        script: as given.
        received: the messages that came in whole, whatever was said then, in order.
        commands: all lines but those of messages, in order.
        open: connections now.
        most_open: connections at one time, at the most.
    """

    noisy = False

    def __init__(
        self,
        script: Script | None = None,
        *,
        hostname: str = "mx.example.test",
        clock: IReactorTime | None = None,
        extensions: Sequence[str] = ("PIPELINING", "SIZE 10000000", "8BITMIME", "ENHANCEDSTATUSCODES"),
        tls: Any = None,
        lmtp: bool = False,
    ) -> None:
        self.script: Script = script if script is not None else {}
        self.hostname = hostname
        self.clock = clock
        self.extensions = tuple(extensions)
        self.tls = server_tls() if tls is True else tls
        self.lmtp = lmtp
        self.received: list[Received] = []
        self.commands: list[str] = []
        self.open = 0
        self.most_open = 0
        self._times: dict[str, int] = {}

    def buildProtocol(self, addr: IAddress | None) -> ScriptedConnection:
        return ScriptedConnection(self)

    def act(self, word: str, argument: str = "") -> Act | None:
        """What the script says for this word, this time; None for nothing."""
        told = self.script.get(word)
        if isinstance(told, list):
            time = self._times.get(word, 0)
            self._times[word] = time + 1
            return told[min(time, len(told) - 1)]
        if callable(told):
            return told(argument)
        return told


class ScriptedConnection(LineReceiver):
    """One connection to a `ScriptedServer`."""

    delimiter = b"\r\n"
    MAX_LENGTH = 1 << 20
    transport: Any

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._secure = False
        self._hung = False
        self._data: list[bytes] | None = None
        self._chunk = 0
        self._last = False
        self._reset()

    def connectionMade(self) -> None:
        server = self._server
        server.open += 1
        server.most_open = max(server.most_open, server.open)
        self._do(server.act("CONNECT") or f"220 {server.hostname} ESMTP")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.open -= 1
        self._hung = True

    def lineReceived(self, line: bytes) -> None:
        if self._hung:
            return
        if self._data is not None:
            if line == b".":
                self._end_of_message()
            else:
                self._data.append(line.removeprefix(b"."))
            return
        text = line.decode("utf-8", "replace")
        self._server.commands.append(text)
        word, _, argument = text.partition(" ")
        self._command(word.upper(), argument)

    def rawDataReceived(self, data: bytes) -> None:
        piece, rest = data[: self._chunk], data[self._chunk :]
        self._chunk -= len(piece)
        self._chunks.append(piece)
        if not self._chunk:
            if self._last:
                self._end_of_message()
            else:
                self._do(self._server.act("BDAT") or "250 2.0.0 Chunk taken")
            self.setLineMode(rest)

    def _command(self, word: str, argument: str) -> None:
        if word == "BDAT":
            size, *last = argument.split()
            self._chunk, self._last = int(size), bool(last)
            self.setRawMode()
            if not self._chunk:
                self.rawDataReceived(b"")
            return
        act = self._server.act(word, argument) or self._well_behaved(word)
        self._do(act, lambda reply: self._replied(word, argument, reply))

    def _replied(self, word: str, argument: str, reply: str) -> None:
        """What follows from a reply to a command."""
        if reply[:1] not in ("2", "3"):
            return
        if word == "STARTTLS":
            self._secure = True
            self.transport.startTLS(self._server.tls)
            self._reset()
        elif word == "MAIL":
            self._sender = argument
        elif word == "RCPT":
            self._recipients.append(argument)
        elif word == "DATA":
            self._data = []
        elif word in ("RSET", "EHLO", "HELO", "LHLO"):
            self._reset()
        elif word == "QUIT":
            self.transport.loseConnection()

    def _well_behaved(self, word: str) -> str:
        server = self._server
        if word in ("EHLO", "LHLO"):
            if (word == "LHLO") != server.lmtp:
                return "500 5.5.1 Not this protocol"
            offered = [*server.extensions, *(["STARTTLS"] if server.tls and not self._secure else ())]
            return "\n".join(
                f"250{' ' if number == len(offered) else '-'}{line}"
                for number, line in enumerate([server.hostname, *offered])
            )
        if word == "STARTTLS":
            return "220 2.0.0 Go ahead" if server.tls and not self._secure else "502 5.5.1 No TLS here"
        if word == "DATA":
            return "354 Go ahead" if self._recipients else "554 5.5.1 No valid recipients"
        if word == "QUIT":
            return "221 2.0.0 Bye"
        if word == "VRFY":
            return "252 2.0.0 Perhaps"
        if word == "AUTH" and any(line.startswith("AUTH") for line in server.extensions):
            return "235 2.7.0 Welcome, whoever you are"
        if word in ("HELO", "MAIL", "RCPT", "RSET", "NOOP"):
            return "250 2.0.0 OK"
        return "500 5.5.1 Unknown command"

    def _end_of_message(self) -> None:
        data = b"".join(self._chunks) if self._data is None else b"".join(d + b"\r\n" for d in self._data)
        recipients = tuple(self._recipients)
        self._server.received.append(Received(self._sender, recipients, data))
        self._reset()
        self._answer(recipients if self._server.lmtp else ("",))

    def _answer(self, recipients: tuple[str, ...]) -> None:
        """One reply after the other, for LMTP (RFC 2033 §4.2)."""
        if recipients:
            act = self._server.act(".", recipients[0]) or "250 2.0.0 Taken"
            self._do(act, lambda reply: self._answer(recipients[1:]))

    def _reset(self) -> None:
        self._sender = ""
        self._recipients: list[str] = []
        self._data = None
        self._chunks: list[bytes] = []

    def _do(self, act: Act, done: Callable[[str], object] = lambda reply: None) -> None:
        if isinstance(act, str):
            self.sendLine(act.replace("\n", "\r\n").encode())
            done(act)
        elif isinstance(act, Raw):
            self.transport.write(act.data)
        elif isinstance(act, Slow):
            if self._server.clock is None:
                raise ValueError("what is slow needs a clock")
            # What the client says meanwhile is read afterwards.
            self.pauseProducing()
            self._server.clock.callLater(act.seconds, self._go_on, act.then, done)
        elif isinstance(act, Flood):
            self.pauseProducing()
            _Flooding(self.transport, act, lambda: self._go_on(act.then, done))
        else:
            self._hung = True
            if act is DROP:
                self.transport.loseConnection()
            elif act is RESET:
                self.transport.abortConnection()

    def _go_on(self, act: Act, done: Callable[[str], object]) -> None:
        if not self._hung:
            self._do(act, done)
            if not isinstance(act, Slow | Flood):
                self.resumeProducing()


@implementer(IPushProducer)
class _Flooding:
    """Writes as fast as the other side reads."""

    def __init__(self, transport: Any, flood: Flood, done: Callable[[], object]) -> None:
        self._transport = transport
        self._line = f"{flood.line}\r\n".encode()
        self._left = flood.times
        self._done = done
        transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._going = True
        while self._going and self._left:
            now = min(self._left, 1000)
            self._left -= now
            self._transport.write(self._line * now)
            if not self._left:
                self._transport.unregisterProducer()
                self._done()

    def pauseProducing(self) -> None:
        self._going = False

    def stopProducing(self) -> None:
        self._going = False
