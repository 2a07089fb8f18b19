"""
The data directory: what stands where in it, which version it has, and that one server has it.

    version            of this layout; what is inside `mail` has a version of its own
    server.lock        held (flock) by the server that runs; gone with its process
    accounts           who may log in
    aliases            see `delivery.aliases`; need not be there
    forwards           the same, written by `mailplat forward`
    mail/              the default store
    queue/             mail that waits, where the store keeps no queue of its own
    spool/             messages while they arrive
    transcripts/       what was said on connections, where somebody asked for it
    self-signed.pem    the certificate of a server that was given none
    lmtp               the default LMTP socket

It is for its owner alone (mode 0700).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence

from mailplat.errors import DataDirectoryError

_VERSION = "version"
_LOCK = "server.lock"

#: Step n makes layout n+1 out of layout n, given the directory; a released step never changes.
STEPS: Sequence[Callable[[str], None]] = ()


class DataDirectory:
    """
    Args:
        path: absolute; need not exist yet.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = -1

    @property
    def accounts(self) -> str:
        return os.path.join(self.path, "accounts")

    @property
    def aliases(self) -> str:
        return os.path.join(self.path, "aliases")

    @property
    def forwards(self) -> str:
        return os.path.join(self.path, "forwards")

    @property
    def queue(self) -> str:
        return os.path.join(self.path, "queue")

    @property
    def spool(self) -> str:
        return os.path.join(self.path, "spool")

    @property
    def transcripts(self) -> str:
        return os.path.join(self.path, "transcripts")

    def prepare(self, steps: Sequence[Callable[[str], None]] = STEPS) -> None:
        """
        Make it, or see that it is ours, and bring it to the present version.

        Raises:
            DataDirectoryError: it is somebody else's or a later version's, or may not be written.
        """
        try:
            self._prepare(steps)
        except OSError as error:
            raise DataDirectoryError(
                f"{error.filename or self.path} cannot be used: {error.strerror}"
            ) from error

    def _prepare(self, steps: Sequence[Callable[[str], None]]) -> None:
        newest = len(steps) + 1
        os.makedirs(self.path, 0o700, exist_ok=True)
        path = os.path.join(self.path, _VERSION)
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                text = file.read(100).strip()
        except FileNotFoundError:
            # A file system of its own has a lost+found; hidden files are the operator's affair.
            others = [name for name in os.listdir(self.path) if name[0] != "." and name != "lost+found"]
            if others:
                raise DataDirectoryError(
                    f"{self.path} is not a data directory of mailplat, and not empty: {sorted(others)[0]}"
                ) from None
            os.chmod(self.path, 0o700)
            self._write_version(newest)
            return
        if not text.isdecimal():
            raise DataDirectoryError(f"{path} holds no version: {text!r}")
        version = int(text)
        if version > newest:
            raise DataDirectoryError(
                f"{self.path} has version {version}, made by a later mailplat; "
                f"this one knows versions up to {newest}"
            )
        for number in range(version, newest):
            steps[number - 1](self.path)
            self._write_version(number + 1)

    def _write_version(self, version: int) -> None:
        path = os.path.join(self.path, _VERSION)
        fresh = os.path.join(self.path, f".{_VERSION}.{os.getpid()}")
        with open(fresh, "w", encoding="ascii") as file:
            file.write(f"{version}\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def lock(self) -> None:
        """
        Be the one server on this directory, until `unlock` or the end of the process.

        Raises:
            DataDirectoryError: another one is.
        """
        try:
            self._lock = os.open(
                os.path.join(self.path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise DataDirectoryError(f"{self.path} is in use by another server") from None
        except OSError as error:
            self.unlock()
            raise DataDirectoryError(f"{self.path} cannot be locked: {error.strerror}") from error

    def unlock(self) -> None:
        """May be called at any time."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
