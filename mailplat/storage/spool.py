"""
The default spool: small messages in memory, large ones in a file.

While a message is written its structure is found (`mailplat.message.structure`), so nobody
reads it again for that.  A message that outgrows memory goes to a file in the spool's directory,
which is synced by `finish`: a store on the same file system links it in and need not copy.

A file lives as long as its message is held.  What a killed process left behind is removed by `start`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from mailplat.errors import StorageFull
from mailplat.interfaces import IInPieces, ISpool, ISpooledMessage, ISpoolWriter
from mailplat.message.structure import Scanner

#: Messages up to this size stay in memory, in octets.
IN_MEMORY = 1024 * 1024

#: Pieces of so many octets on the average need not be joined to be written; shorter ones cost more.
LONG = 16 * 1024

#: Octets given to one `write` of a file, so that no call holds the reactor for long.
PIECE = 128 * 1024


@implementer(ISpooledMessage)
class InMemory:
    """A spooled message held in memory."""

    path: str | None = None

    def __init__(self, data: bytes, outline: bytes) -> None:
        self.data: bytes | None = data
        self.size = len(data)
        self.outline = outline

    async def read(self, start: int, length: int) -> bytes:
        assert self.data is not None
        return self.data[start : start + length]

    def close(self) -> None:
        """Nothing is held open."""


@implementer(IInPieces)
class InPieces:
    """A spooled message held in memory as it came, joined for the first who asks for `data`."""

    path: str | None = None

    def __init__(self, pieces: Sequence[bytes], size: int, outline: bytes) -> None:
        self.pieces = pieces
        self.size = size
        self.outline = outline

    @property
    def data(self) -> bytes:
        if len(self.pieces) > 1:
            # One assignment: the store's thread may be reading the attribute.
            self.pieces = (b"".join(self.pieces),)
        return self.pieces[0]

    async def read(self, start: int, length: int) -> bytes:
        first = self.pieces[0]
        # The header, mostly.
        whole = first if start + length <= len(first) else self.data
        return whole[start : start + length]

    def close(self) -> None:
        """Nothing is held open."""


@implementer(ISpooledMessage)
class InFile:
    """A spooled message in a synced file, which goes when the message is closed."""

    data: bytes | None = None

    def __init__(self, file: int, path: str, size: int, outline: bytes) -> None:
        self._file: int | None = file
        self.path: str | None = path
        self.size = size
        self.outline = outline

    async def read(self, start: int, length: int) -> bytes:
        if self._file is None:
            raise ValueError("read of a closed message")
        return os.pread(self._file, length, start)

    def close(self) -> None:
        if self._file is not None and self.path is not None:
            os.close(self._file)
            self._file = None
            with suppress(OSError):
                os.unlink(self.path)


@implementer(ISpoolWriter)
class Writer:
    """See `ISpoolWriter`.  Made by `Spool.begin`."""

    def __init__(self, spool: Spool) -> None:
        self.size = 0
        self._spool = spool
        self._scanner = Scanner()
        self._chunks: list[bytes] = []
        self._file: int | None = None
        self._path = ""

    async def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._scanner.feed(chunk)
        if self._file is None:
            self._chunks.append(chunk)
            if self.size <= self._spool.in_memory:
                return
            chunk = b"".join(self._chunks)
            self._chunks.clear()
            try:
                self._file, self._path = tempfile.mkstemp(prefix="spool-", dir=self._spool.directory)
            except OSError as error:
                raise StorageFull(reason=str(error)) from error
        try:
            for start in range(0, len(chunk), PIECE):
                _write_all(self._file, chunk[start : start + PIECE])
        except OSError as error:
            self.abandon()
            raise StorageFull(reason=str(error)) from error

    async def finish(self) -> InMemory | InPieces | InFile:
        outline = self._scanner.record()
        if self._file is None:
            if 1 < len(self._chunks) <= self.size // LONG:
                return InPieces(tuple(self._chunks), self.size, outline)
            return InMemory(b"".join(self._chunks), outline)
        file, self._file = self._file, None
        try:
            # Of a large file this takes as long as the disk does: not in the reactor's thread.
            await self._spool.in_thread(os.fdatasync, file)
        except OSError as error:
            self._forget(file)
            raise StorageFull(reason=str(error)) from error
        return InFile(file, self._path, self.size, outline)

    def abandon(self) -> None:
        self._chunks.clear()
        if self._file is not None:
            file, self._file = self._file, None
            self._forget(file)

    def _forget(self, file: int) -> None:
        os.close(file)
        with suppress(OSError):
            os.unlink(self._path)


@implementer(ISpool)
class Spool:
    """
    A spool over a directory.

    Args:
        directory: made if missing, for this user only.  For links it must be on the store's
            file system.
        reactor: provides IReactorThreads and IReactorFromThreads.
        in_memory: messages up to this size do not touch the disk.
        in_thread: calls a blocking function elsewhere and returns an awaitable.
    """

    def __init__(
        self,
        directory: str,
        reactor: Any,
        *,
        in_memory: int = IN_MEMORY,
        in_thread: Callable[..., Any] | None = None,
    ) -> None:
        self.directory = directory
        self.in_memory = in_memory
        self._reactor = reactor
        self.in_thread = in_thread or self._defer

    def _defer(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)

    def start(self) -> None:
        """
        Make the directory, and remove what a killed process left in it.

        Nobody else may be using the directory.

        Raises:
            StorageFull: the directory cannot be made.
        """
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            for entry in os.scandir(self.directory):
                if entry.name.startswith("spool-"):
                    os.unlink(entry.path)
        except OSError as error:
            raise StorageFull(reason=str(error)) from error

    def begin(self) -> Writer:
        return Writer(self)


async def whole(message: ISpooledMessage) -> bytes:
    """All octets of a message, for those who keep it in memory."""
    if message.data is not None:
        data: bytes = message.data
        return data
    return b"".join([await message.read(start, PIECE) for start in range(0, message.size, PIECE)])


def _write_all(file: int, data: bytes) -> None:
    """`os.write` may write less than it was given, on a disk that fills up."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
