"""
Where message bodies are: pack files that only grow, and one file for each large body.

A `PackWriter` belongs to the one thread that writes.  It puts the bodies of a whole batch
into its current pack with few system calls and one sync.  Each process appends to a pack
of its own, which it holds by a lock that ends with the process.  Nothing here says which
bytes are alive: that is the index's business, and bytes the index does not point to are
garbage wherever they stand, so a torn tail needs no repair.

`OpenFiles` is for those who read, in any thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mailplat.interfaces import IInPieces

PACKS = "packs"
LARGE = "large"

#: A pack is left for a new one when it has this many octets.
ROLL = 64 * 1024 * 1024

#: What is no more octets together is not worth a sync of its own, and goes into the index.
FEW = 16 * 1024

#: Octets read at a time.
_PIECE = 1024 * 1024

#: Buffers for one writev; the least IOV_MAX that POSIX systems have in practice.
_BUFFERS = 1024

#: Octets for one writev, unless one buffer has more: of more the kernel makes larger pages of its cache,
#: which sometimes takes several times as long.
_WRITTEN = 1024 * 1024


class Disk:
    """The system calls that change the disk, in one place so that a test can make them fail."""

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, buffers: Sequence[bytes]) -> None:
        """Write all of the buffers where the file's position is."""
        for portion in _portions(buffers):
            left = sum(map(len, portion)) - os.writev(descriptor, portion)
            if left:
                # A short write: on a disk that has just become full, or past 2 GiB.
                rest = memoryview(b"".join(portion))[-left:]
                while rest:
                    rest = rest[os.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)


@dataclass(slots=True, eq=False)
class StoredFile:
    """
    A file of bodies, as the writer knows it.

    Attributes:
        name: relative to the store's directory.
        row: its row in the index; None until one is committed.
    """

    name: str
    large: bool
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a body is.

    Attributes:
        file: None if it is to go into the index.
        checksum: its CRC-32.
        data: the body itself, then.
    """

    file: StoredFile | None
    position: int
    size: int
    checksum: int
    data: bytes = b""


def _portions(buffers: Sequence[bytes]) -> Iterator[list[bytes]]:
    """What is written by one call each."""
    portion: list[bytes] = []
    octets = 0
    for buffer in buffers:
        if portion and (octets + len(buffer) > _WRITTEN or len(portion) == _BUFFERS):
            yield portion
            portion, octets = [], 0
        portion.append(buffer)
        octets += len(buffer)
    if portion:
        yield portion


def _pieces_of(body: Any) -> Sequence[bytes] | None:
    """A body that is in memory."""
    if IInPieces.providedBy(body):
        pieces: Sequence[bytes] = body.pieces
        return pieces
    return None if body.data is None else (body.data,)


def lock_file(descriptor: int) -> bool:
    """Take the lock on a pack; False if another process has it.  Closing gives it back."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def checksum_of(descriptor: int, position: int, size: int) -> tuple[int, int]:
    """How many of these octets there are, and their CRC-32."""
    length = checksum = 0
    while length < size:
        piece = os.pread(descriptor, min(_PIECE, size - length), position + length)
        if not piece:
            break
        checksum = zlib.crc32(piece, checksum)
        length += len(piece)
    return length, checksum


class PackWriter:
    """
    Appends bodies.

    Args:
        directory: the store's.
        candidates: answers with (row, name) of packs in the index that might have room.
        roll: octets after which a new pack is begun.
        few: bodies of no more octets together are left to the index.
    """

    def __init__(
        self,
        directory: str,
        disk: Disk,
        candidates: Callable[[], Sequence[tuple[int, str]]],
        roll: int,
        few: int,
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._candidates = candidates
        self._roll = roll
        self._few = few
        self._descriptor = -1
        self._resumed = False
        self._batch: list[StoredFile] = []
        self._begin = 0  # the length of the pack before the batch; between batches its length
        self._doubtful = False
        self.length = 0
        self.current: StoredFile | None = None

    def place(self, bodies: Sequence[Any], moved: bool = False) -> dict[int, Place | Exception]:
        """
        Write and sync these `ISpooledMessage`s, each once; if they are few and small, find out that they
        are to go into the index.

        Args:
            moved: they come from the index, and go to a pack however few they are.

        Returns:
            id of the body -> its place, or why this one alone could not be stored.

        Raises:
            OSError: the disk failed; nothing of it is kept.
        """
        places: dict[int, Place | Exception] = {}
        small: list[tuple[Any, Sequence[bytes]]] = []
        self._batch = []
        self._doubtful = False
        try:
            for body in bodies:
                if id(body) in places:
                    continue
                pieces = _pieces_of(body)
                if pieces is None:
                    places[id(body)] = self._adopt(body)
                else:
                    places[id(body)] = _PENDING
                    small.append((body, pieces))
            if self._batch:
                self._disk.sync_directory(os.path.join(self._directory, LARGE))
            if not moved and sum(body.size for body, _ in small) <= self._few:
                for body, pieces in small:
                    data = b"".join(pieces)
                    places[id(body)] = Place(None, 0, len(data), zlib.crc32(data), data)
            else:
                self._append(small, places)
        except OSError:
            self.settle(False)
            raise
        return places

    def doubt(self) -> None:
        """A commit failed, and nobody knows whether a crash would bring it to light."""
        self._doubtful = True

    def settle(self, kept: bool) -> None:
        """
        The batch of the last `place` has ended.

        Args:
            kept: rows may point to what it wrote to the pack.  If not, the room is given
                back: a full disk must not become fuller by what could not be stored.
        """
        if self._doubtful:
            # What may be pointed to stays where it is; the next start knows.
            if self.current is not None and self.current.row is None:
                self._let_go()
        else:
            for file in self._batch:
                if file.row is None:
                    self.remove(file.name)
            if not kept and self.current is not None and self.length > self._begin:
                self.length = self._begin
                self._cut_back()
        self._batch = []
        self._begin = self.length
        self._doubtful = False

    def _append(self, small: list[tuple[Any, Sequence[bytes]]], places: dict[int, Place | Exception]) -> None:
        pack = self._pack()
        position = self.length
        buffers: list[bytes] = []
        for body, pieces in small:
            size = checksum = 0
            for piece in pieces:
                checksum = zlib.crc32(piece, checksum)
                size += len(piece)
            places[id(body)] = Place(pack, position, size, checksum)
            position += size
            buffers += pieces
        try:
            self._disk.write(self._descriptor, buffers)
        except OSError:
            self._cut_back()
            raise
        try:
            self._disk.sync(self._descriptor)
        except OSError:
            # After a failed sync nobody knows what the disk has, and trying again may
            # report success for pages that were dropped: this pack is not written again.
            self.abandon()
            raise
        self.length = position

    def _cut_back(self) -> None:
        """Give back what lies beyond `length`."""
        try:
            self._disk.truncate(self._descriptor, self.length)
            os.lseek(self._descriptor, self.length, os.SEEK_SET)
        except OSError:
            self.abandon()

    def _pack(self) -> StoredFile:
        if self.current is not None and self.length >= self._roll:
            self.abandon()
        if self.current is None and not self._resumed:
            self._resumed = True
            self._resume()
        if self.current is None:
            self._create()
        assert self.current is not None
        return self.current

    def _create(self) -> None:
        name = f"{PACKS}/{uuid.uuid4().hex}"
        path = os.path.join(self._directory, name)
        descriptor = self._disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            if not lock_file(descriptor):
                raise OSError(errno.EAGAIN, "a new pack is locked", path)
            # The name must be on disk before a row points to it.
            self._disk.sync_directory(os.path.dirname(path))
        except OSError:
            os.close(descriptor)
            self.remove(name)
            raise
        self._take(descriptor, StoredFile(name, False), 0)

    def _resume(self) -> None:
        """Go on with the pack that an earlier run left unfinished, if nobody else does."""
        for row, name in self._candidates():
            path = os.path.join(self._directory, name)
            try:
                descriptor = self._disk.open(path, os.O_WRONLY)
            except OSError:
                continue
            length = os.fstat(descriptor).st_size
            # Asked again under the lock: a wholly dead pack may have been removed meanwhile.
            if length < self._roll and lock_file(descriptor) and (row, name) in self._candidates():
                os.lseek(descriptor, length, os.SEEK_SET)
                self._take(descriptor, StoredFile(name, False, row), length)
                return
            os.close(descriptor)

    def _take(self, descriptor: int, file: StoredFile, length: int) -> None:
        self._descriptor = descriptor
        self.current = file
        self.length = self._begin = length

    def abandon(self) -> None:
        """Append no more to the current pack, and remove it if nothing points to it."""
        pack = self.current
        self._let_go()
        if pack is not None and pack.row is None:
            self.remove(pack.name)

    def _let_go(self) -> None:
        if self.current is not None:
            os.close(self._descriptor)
        self._descriptor = -1
        self.current = None

    def _adopt(self, body: Any) -> Place | Exception:
        """A large body: link its file, or copy it if it is on another file system."""
        source = body.path
        if source is None:
            return ValueError("a spooled message has neither data nor path")
        file = StoredFile(f"{LARGE}/{uuid.uuid4().hex}", True)
        target = os.path.join(self._directory, file.name)
        size = body.size
        try:
            try:
                self._disk.link(source, target)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                    raise
                self._batch.append(file)
                self._copy(source, target)
            else:
                self._batch.append(file)
        except FileNotFoundError as error:
            # Only this message's owner can have removed it.
            return error
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size != size:
                return ValueError(f"a spooled message says {size} octets and its file has another number")
            # Just written, so this reads memory.
            _, checksum = checksum_of(descriptor, 0, size)
        finally:
            os.close(descriptor)
        return Place(file, 0, size, checksum)

    def _copy(self, source: str, target: str) -> None:
        descriptor = self._disk.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with open(source, "rb") as original, os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(original, copy, 1024 * 1024)
            copy.flush()
            self._disk.sync(copy.fileno())

    def may_remove(self, name: str) -> int:
        """
        The descriptor that keeps a dead pack from being appended to by another process
        while its row is removed, or -1 if somebody has it.  The caller closes it.
        """
        if self.current is not None and self.current.name == name:
            if self.length < self._roll // 16:
                return -1
            # Worth its room: go on with another one.  The lock is ours already.
            descriptor, self._descriptor, self.current = self._descriptor, -1, None
            return descriptor
        try:
            descriptor = os.open(os.path.join(self._directory, name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1
        if lock_file(descriptor):
            return descriptor
        os.close(descriptor)
        return -1

    def remove(self, name: str) -> None:
        """Unlink a file; one that stays is found and removed at a later start."""
        with suppress(OSError):
            self._disk.unlink(os.path.join(self._directory, name))

    def close(self) -> None:
        self.abandon()


_PENDING = RuntimeError("not written yet")


class OpenFile:
    """A file of bodies open for reading; closed when nobody holds this object any more."""

    __slots__ = ("descriptor",)

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, length: int) -> bytes:
        """Exactly `length` octets unless the file ends before."""
        piece = os.pread(self.descriptor, length, start)
        if len(piece) < length:
            pieces = [piece]
            while piece and length > (got := sum(map(len, pieces))):
                piece = os.pread(self.descriptor, length - got, start + got)
                pieces.append(piece)
            return b"".join(pieces)
        return piece

    def read_now(self, start: int, length: int) -> bytearray | None:
        """The same if the octets are in memory already, so that it cannot wait; else None."""
        buffer = bytearray(length)
        try:
            got = os.preadv(self.descriptor, [buffer], start, os.RWF_NOWAIT)
        except (OSError, AttributeError):
            return None
        return buffer if got == length else None

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class InIndex:
    """A body that waits in the index, to be read like an `OpenFile` that has nothing else."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, start: int, length: int) -> bytes:
        return self._data[start : start + length]

    read_now = read


class OpenFiles:
    """The files most recently read, by the row they have in the index."""

    def __init__(self, directory: str, most: int = 128) -> None:
        self._directory = directory
        self._most = most
        self._files: OrderedDict[int, OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, row: int, name: str) -> OpenFile:
        """Raises FileNotFoundError if it has been removed."""
        with self._lock:
            file = self._files.get(row)
            if file is not None:
                self._files.move_to_end(row)
                return file
        file = OpenFile(os.path.join(self._directory, name))
        with self._lock:
            self._files[row] = file
            if len(self._files) > self._most:
                self._files.popitem(last=False)
        return file

    def forget(self, rows: Iterable[int]) -> None:
        """These files are being removed: let their space go when the last reader has finished."""
        with self._lock:
            for row in rows:
                self._files.pop(row, None)

    def close(self) -> None:
        with self._lock:
            self._files.clear()
