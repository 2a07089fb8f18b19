"""
Delivery to a program: the message on its standard input, the outcome in its exit status.

    pipe:/usr/bin/procmail -d {recipient}

The words are split as a shell would, but no shell is asked, so nothing in an address can be taken
for a command.  Each target has a run of its own.  Exit statuses are those of sysexits.h, as
programs that take mail have used them for ever: 0 is delivered, 75 (EX_TEMPFAIL) asks for
another attempt, anything else is a failure for good.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ProcessProtocol
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from mailplat.errors import (
    ConfigurationError,
    MailError,
    MessageRefused,
    NoSuchRecipient,
    PermanentError,
    TemporaryError,
)
from mailplat.interfaces import IAgentFactory, IDeliveryAgent, ISpooledMessage, StoreContext
from mailplat.message import compose
from mailplat.values import Address, Envelope, Outcome, Target

#: Exit status (sysexits.h) -> what it means; others are failures for good.
STATUSES: Mapping[int, Callable[[str], MailError]] = {
    65: MessageRefused,  # EX_DATAERR
    67: NoSuchRecipient,  # EX_NOUSER
    69: TemporaryError,  # EX_UNAVAILABLE
    71: TemporaryError,  # EX_OSERR
    74: TemporaryError,  # EX_IOERR
    75: TemporaryError,  # EX_TEMPFAIL
}

#: What may be written into the words of the command line.
PLACES = ("recipient", "sender", "local", "domain")

_PIECE = 128 * 1024


@dataclass(frozen=True, slots=True)
class PipeLimits:
    """
    Attributes:
        time: seconds that a run may take; then it is killed, and tried again later.
        runs: at one time.
        output: octets of what it says that are kept, for the log and for reports.
    """

    time: float = 300.0
    runs: int = 10
    output: int = 1000


@implementer(IDeliveryAgent)
class PipeAgent:
    """
    Args:
        words: the program and its arguments; `{recipient}`, `{sender}`, `{local}` and
            `{domain}` stand for parts of the envelope, `{sender}` for nothing if it is null.
        reactor: provides IReactorProcess and IReactorTime.
    """

    def __init__(self, words: Sequence[str], reactor: Any, limits: PipeLimits | None = None) -> None:
        self._words = words
        self._reactor = reactor
        self._limits = limits or PipeLimits()
        self._turns = DeferredSemaphore(self._limits.runs)

    async def deliver(
        self, envelope: Envelope, message: ISpooledMessage, prefix: bytes, targets: Sequence[Target]
    ) -> Sequence[Outcome]:
        outcomes = []
        for target in targets:
            error = await self._run(envelope, message, prefix, target.address)
            outcomes.append(Outcome(target.address, error))
        return outcomes

    async def _run(
        self, envelope: Envelope, message: ISpooledMessage, prefix: bytes, recipient: Address
    ) -> MailError | None:
        filled = {
            "recipient": str(recipient),
            "sender": str(envelope.sender or ""),
            "local": recipient.local,
            "domain": recipient.domain,
        }
        if any(value.startswith("-") for value in filled.values()):
            # A program could take it for an option.
            return NoSuchRecipient()
        # RFC 5321 §4.4: final delivery puts the return path at the very top.
        own = compose.return_path(envelope.sender) + compose.delivered_to(recipient) + prefix
        await self._turns.acquire()
        try:
            run = _Run(self._limits.output)
            words = [_filled(word, filled) for word in self._words]
            # The program is not told more of us than where programs are.
            environment = {"PATH": os.environ.get("PATH", os.defpath)}
            try:
                self._reactor.spawnProcess(run, words[0], words, env=environment)
            except OSError as error:
                return TemporaryError("The program cannot be started", reason=f"{words[0]}: {error}")
            late = self._reactor.callLater(self._limits.time, run.kill)
            try:
                await run.write(own)
                for start in range(0, message.size, _PIECE):
                    await run.write(await message.read(start, _PIECE))
                run.finish()
                return await run.ended
            finally:
                if late.active():
                    late.cancel()
                run.kill()
        finally:
            self._turns.release()


@implementer(IPushProducer)
class _Run(ProcessProtocol):
    """
    One run.

    Attributes:
        ended: fires with the error that its exit status means, or None.
    """

    transport: Any

    def __init__(self, output: int) -> None:
        self.ended: Deferred[MailError | None] = Deferred()
        self._output = b""
        self._most = output
        self._room: Deferred[None] | None = None
        self._choked = False
        self._over = False
        self._killed = False

    def connectionMade(self) -> None:
        self.transport.pipes[0].registerProducer(self, True)

    async def write(self, data: bytes) -> None:
        """Give it more to read; waits while it does not."""
        if self._choked and not self._over:
            self._room = Deferred()
            await self._room
        if not self._over:
            self.transport.write(data)

    def finish(self) -> None:
        """There is no more to read."""
        # Twisted closes a pipe that has a producer only once that resumes.
        if (pipe := self.transport.pipes.get(0)) is not None:
            pipe.unregisterProducer()
            self.transport.closeStdin()

    def kill(self) -> None:
        """End it if it still runs."""
        if not self._over:
            self._killed = True
            self.transport.signalProcess("KILL")
            self.resumeProducing()

    def outReceived(self, data: bytes) -> None:
        self._output = (self._output + data)[: self._most]

    errReceived = outReceived

    def pauseProducing(self) -> None:
        self._choked = True

    def resumeProducing(self) -> None:
        self._choked = False
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """It reads no more; its exit status says what that means."""
        self.resumeProducing()

    def childConnectionLost(self, childFD: int) -> None:
        super().childConnectionLost(childFD)
        if childFD == 0:
            self.resumeProducing()

    def processEnded(self, reason: Failure) -> None:
        self._over = True
        self.resumeProducing()
        self.ended.callback(None if isinstance(reason.value, ProcessDone) else self._meaning(reason.value))

    def _meaning(self, value: Any) -> MailError:
        said = " ".join(self._output.decode("utf-8", "replace").split())
        if self._killed:
            return TemporaryError("The program took too long", reason=said)
        if value.signal is not None:
            return TemporaryError(f"The program ended by signal {value.signal}", reason=said)
        text = said or f"The program ended with status {value.exitCode}"
        return STATUSES.get(value.exitCode, PermanentError)(text)


_PLACE = re.compile("{(" + "|".join(PLACES) + ")}")


def _filled(word: str, places: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda found: places[found.group(1)], word)


@implementer(IPlugin, IAgentFactory)
class PipeAgentFactory:
    """Found by the name `pipe`."""

    name = "pipe"
    help = (
        "Runs a program for each recipient, with the message on its standard input.  The argument "
        "is its command line, in which {recipient}, {sender}, {local} and {domain} are filled in."
    )

    def generate(self, argument: str, context: StoreContext) -> PipeAgent:
        try:
            words = shlex.split(argument)
        except ValueError as error:
            raise ConfigurationError(f"pipe:{argument}: {error}") from None
        if not words or not os.path.isabs(words[0]):
            raise ConfigurationError(f"pipe:{argument}: the program's absolute path is needed")
        return PipeAgent(words, context.reactor)
