"""
Delivery to a file: a mailbox in the mbox format, as programs on the same machine read it.

    file:/var/mail/archive

A message is appended under both locks that are customary (flock, and fcntl's record lock), with
lines that look like the start of a message quoted as mboxrd does, so that nothing is lost.  It
counts as delivered when it is synced; one that failed half way is cut off again.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from time import asctime, gmtime
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.plugin import IPlugin
from zope.interface import implementer

from mailplat.errors import ConfigurationError, MailError, StorageFull, TemporaryError
from mailplat.interfaces import IAgentFactory, IDeliveryAgent, ISpooledMessage, StoreContext
from mailplat.message import compose
from mailplat.values import Envelope, Outcome, Target

_PIECE = 128 * 1024

# mboxrd: one more ">" before what would look like the start of a message, quoted or not.
_FROM = re.compile(rb"^(>*From )", re.MULTILINE)


@implementer(IDeliveryAgent)
class FileAgent:
    """
    Args:
        path: absolute; made if it is missing, for this user only.
        reactor: provides IReactorTime, IReactorThreads and IReactorFromThreads.
    """

    def __init__(self, path: str, reactor: Any) -> None:
        self._path = path
        self._reactor = reactor
        # Of two writers in this process the record lock knows nothing.
        self._turn = DeferredLock()

    async def deliver(
        self, envelope: Envelope, message: ISpooledMessage, prefix: bytes, targets: Sequence[Target]
    ) -> Sequence[Outcome]:
        # All targets are this one file, which gets one copy.
        address = targets[0].address
        own = compose.return_path(envelope.sender) + compose.delivered_to(address) + prefix
        sender = compose.path(envelope.sender).replace(" ", "_") or "MAILER-DAEMON"
        line = f"From {sender} {asctime(gmtime(self._reactor.seconds()))}\n".encode()
        await self._turn.acquire()
        try:
            error = await self._append(line, own, message)
        finally:
            self._turn.release()
        return [Outcome(target.address, error) for target in targets]

    async def _append(self, line: bytes, own: bytes, message: ISpooledMessage) -> MailError | None:
        try:
            file: int = await self._in_thread(_open, self._path)
        except BlockingIOError:
            return TemporaryError("The file is locked", reason=self._path)
        except OSError as error:
            return StorageFull(reason=f"{self._path}: {error}")
        end = os.fstat(file).st_size
        try:
            await self._in_thread(_write, file, line)
            async for lines in _lines(own, message):
                await self._in_thread(_write, file, _FROM.sub(rb">\1", lines.replace(b"\r\n", b"\n")))
            # An empty line ends a message.
            await self._in_thread(_write, file, b"\n")
            await self._in_thread(os.fsync, file)
        except OSError as error:
            await self._in_thread(os.ftruncate, file, end)
            return StorageFull(reason=f"{self._path}: {error}")
        finally:
            # Both locks go with it.
            os.close(file)
        return None

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)


async def _lines(own: bytes, message: ISpooledMessage) -> AsyncIterator[bytes]:
    """The copy in pieces that end where a line does; a last line that does not end is ended."""
    rest = own
    for start in range(0, message.size, _PIECE):
        rest += await message.read(start, _PIECE)
        cut = rest.rfind(b"\n") + 1
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest if rest.endswith(b"\n") else rest + b"\n"


def _open(path: str) -> int:
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


@implementer(IPlugin, IAgentFactory)
class FileAgentFactory:
    """Found by the name `file`."""

    name = "file"
    help = "Appends to a file in mbox format.  The argument is its absolute path."

    def generate(self, argument: str, context: StoreContext) -> FileAgent:
        if not os.path.isabs(argument):
            raise ConfigurationError(f"file:{argument}: an absolute path is needed")
        return FileAgent(argument, context.reactor)
