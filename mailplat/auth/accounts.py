"""
The account file: who may log in, and what proves it.

One file, read whole, replaced whole.  Its first line is a header with a secret, every
other line is `NAME:RECORD`; the record is that of SCRAM-SHA-256 in the notation of RFC
5803 and serves PLAIN and LOGIN as well.  Passwords cannot be had back from it.

Whoever changes it holds a lock on a file beside it, writes a new file, syncs it and puts
it in the old one's place: a reader sees the old accounts or the new ones, whenever it
looks and whoever is killed.  A running server notices by the file's identity.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from twisted.logger import Logger

from mailplat import sasl
from mailplat.auth.names import Names
from mailplat.errors import (
    AccountExists,
    ConfigurationError,
    DataDirectoryError,
    InvalidName,
    InvalidPassword,
    NoSuchAccount,
    StorageFull,
)
from mailplat.values import ScramRecord

log = Logger()

#: Octets of a password; PLAIN and LOGIN must fit a command line with their base64.
MOST_PASSWORD = 512

_HEADER = "mailplat-accounts"
_VERSION = "1"
_SCHEME = "SCRAM-SHA-256"

#: What tells one state of the file from another: inode, mtime in ns, size; None if it does not exist.
Identity = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True, repr=False)
class _Contents:
    identity: Identity
    secret: bytes
    records: dict[str, str]


class AccountFile:
    """
    The accounts in one file, which need not exist yet.

    Its methods wait for the disk (and those that take a password, for the hash), so they
    are for the command line; a server asks `record` and `invented`, which never wait, and
    calls `refresh` off the reactor when `stale`.

    Args:
        path: the file.
        naming: how names are made canonical, wherever they are given.
        iterations: rounds for new records, and for invented ones.
        random: gives that many unguessable bytes.
    """

    def __init__(
        self,
        path: str,
        naming: Names | None = None,
        *,
        iterations: int = sasl.ITERATIONS,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.path = path
        self.naming = naming or Names()
        self._iterations = iterations
        self._random = random
        # While there is no file there is no secret in it, but the answers must be stable already.
        self._contents = _Contents(None, random(32), {})
        self._seen: Identity = None

    # What a server asks

    def stale(self) -> bool:
        """The file is not as it was when last looked at; a few microseconds."""
        return self._identify() != self._seen

    def refresh(self) -> None:
        """
        Read the file again.

        One that can't be read or understood is logged, and the accounts known before stay.
        May be called in any thread.
        """
        identity = self._identify()
        try:
            self._contents = self._read()
            self._seen = self._contents.identity
        except DataDirectoryError as error:
            log.error("Accounts are as they were: {error}", error=str(error))
            self._seen = identity

    def record(self, name: str) -> ScramRecord | None:
        """What proves the password of a canonical name, as of the last `refresh`; None if unknown."""
        text = self._contents.records.get(name)
        return _parse(text) if text is not None else None

    def invented(self, name: bytes) -> ScramRecord:
        """
        The record that somebody who does not exist might have: the same one every time, also after
        a restart, and no password goes with it.
        """
        secret = self._contents.secret
        salt = hmac.digest(secret, b"salt " + name, "sha256")[:16]
        stored_key = hmac.digest(secret, b"stored " + name, "sha256")
        server_key = hmac.digest(secret, b"server " + name, "sha256")
        return ScramRecord(salt, self._iterations, stored_key, server_key, known=False)

    # What the command line does

    def names(self) -> list[str]:
        """
        All accounts, sorted.

        Raises:
            DataDirectoryError: the file is not one of ours.
        """
        return sorted(self._read().records)

    def add(self, name: str, password: str) -> str:
        """
        Make an account.

        Returns:
            its canonical name.

        Raises:
            InvalidName, InvalidPassword, AccountExists, StorageFull, DataDirectoryError.
        """
        account = self._name(name)
        record = self._new_record(password)
        with self._changing() as records:
            if account in records:
                raise AccountExists(f"The account {account} exists already")
            records[account] = record
        return account

    def set_password(self, name: str, password: str) -> None:
        """
        Raises:
            NoSuchAccount, InvalidPassword, StorageFull, DataDirectoryError.
        """
        account = self._existing_name(name)
        record = self._new_record(password)
        with self._changing() as records:
            if account not in records:
                raise NoSuchAccount(f"No such account: {account}")
            records[account] = record

    def remove(self, name: str) -> None:
        """
        Raises:
            NoSuchAccount, StorageFull, DataDirectoryError.
        """
        account = self._existing_name(name)
        with self._changing() as records:
            if account not in records:
                raise NoSuchAccount(f"No such account: {account}")
            del records[account]

    def import_lines(self, lines: Iterable[str]) -> list[str]:
        """
        Make accounts of lines of `NAME:PASSWORD`, all or none.  Empty lines are passed over.

        Returns:
            their canonical names, in the order of the lines.

        Raises:
            ConfigurationError: one line of text for each that is wrong, in their order; passwords are
                not in it.
            StorageFull, DataDirectoryError.
        """
        known = self._read().records
        wrong: list[str] = []
        found: dict[str, str] = {}
        numbers: dict[str, int] = {}
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\r\n")
            if not line:
                continue
            name, colon, password = line.partition(":")
            try:
                account = self._name(name)
                _checked_password(password)
            except (InvalidName, InvalidPassword) as error:
                wrong.append(f"line {number}: {error.text if colon else 'not NAME:PASSWORD'}")
                continue
            if account in known:
                wrong.append(f"line {number}: {account} exists already")
            elif account in found:
                wrong.append(f"line {number}: {account} was on line {numbers[account]} already")
            found[account] = password
            numbers[account] = number
        if wrong:
            raise ConfigurationError("\n".join(wrong))
        # Hashing releases the interpreter lock, so all cores help.
        with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
            hashed = dict(zip(found, threads.map(self._new_record, found.values()), strict=True))
        with self._changing() as records:
            wrong = [f"line {numbers[name]}: {name} exists already" for name in found if name in records]
            if wrong:
                raise ConfigurationError("\n".join(wrong))
            records.update(hashed)
        return list(found)

    # Inside

    def _name(self, name: str) -> str:
        account = self.naming.login_name(name)
        if account is None:
            raise InvalidName(f"Not an account name: {name[:80]!r}")
        return account

    def _existing_name(self, name: str) -> str:
        account = self.naming.login_name(name)
        if account is None:
            raise NoSuchAccount(f"No such account: {name[:80]!r}")
        return account

    def _new_record(self, password: str) -> str:
        prepared = _checked_password(password)
        salt = self._random(16)
        salted = sasl.salted_password(prepared, salt, self._iterations)
        return _render(sasl.record_of(salted, salt, self._iterations))

    def _identify(self) -> Identity:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        except OSError:
            # Whatever is wrong with it, `refresh` will meet it too, and say so.
            return (0, 0, 0)
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> _Contents:
        try:
            with open(self.path, encoding="utf-8") as file:
                found = os.fstat(file.fileno())
                lines = file.read().split("\n")
        except FileNotFoundError:
            return _Contents(None, self._contents.secret, {})
        except OSError as error:
            raise DataDirectoryError(f"{self.path}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise DataDirectoryError(f"{self.path} is not an account file") from None
        header = lines[0].split(":")
        if len(header) != 3 or header[0] != _HEADER:
            raise DataDirectoryError(f"{self.path} is not an account file")
        if header[1] != _VERSION:
            raise DataDirectoryError(f"{self.path} was written by another version of mailplat")
        records: dict[str, str] = {}
        for number, line in enumerate(lines[1:], 2):
            name, colon, record = line.partition(":")
            if colon and record.startswith(_SCHEME):
                records[name] = record
            elif line:
                raise DataDirectoryError(f"{self.path}, line {number}: not NAME:{_SCHEME}$...")
        identity = found.st_ino, found.st_mtime_ns, found.st_size
        return _Contents(identity, b64decode(header[2]), records)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, str]]:
        """The records, to be changed by the only one who may; written when the block ends well."""
        try:
            with open(self.path + ".lock", "ab", opener=_private) as lock:
                self._give_to_owner(lock.fileno())
                fcntl.flock(lock, fcntl.LOCK_EX)
                contents = self._read()
                yield contents.records
                self._write(contents)
        except OSError as error:
            raise StorageFull(reason=str(error)) from error

    def _write(self, contents: _Contents) -> None:
        lines = [f"{_HEADER}:{_VERSION}:{b64encode(contents.secret).decode('ascii')}"]
        lines += [f"{name}:{record}" for name, record in sorted(contents.records.items())]
        text = "\n".join(lines) + "\n"
        fresh = self.path + ".new"
        with open(fresh, "w", encoding="utf-8", opener=_private) as file:
            os.fchmod(file.fileno(), 0o600)
            self._give_to_owner(file.fileno())
            file.write(text)
            file.flush()
            # Two changes within one tick of the file system's clock must still look different.
            if contents.identity is not None:
                written = max(os.fstat(file.fileno()).st_mtime_ns, contents.identity[1] + 1)
                os.utime(file.fileno(), ns=(written, written))
            os.fsync(file.fileno())
        os.rename(fresh, self.path)
        directory = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _give_to_owner(self, descriptor: int) -> None:
        """Root on the command line must not take the file away from the server's user."""
        if os.geteuid() == 0:
            directory = os.stat(os.path.dirname(self.path) or ".")
            os.fchown(descriptor, directory.st_uid, directory.st_gid)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _checked_password(password: str) -> bytes:
    try:
        prepared = sasl.saslprep(password).encode("utf-8")
    except ValueError:
        raise InvalidPassword("A password may not have control characters") from None
    if not prepared:
        raise InvalidPassword("The password is empty")
    if len(prepared) > MOST_PASSWORD:
        raise InvalidPassword(f"The password is longer than {MOST_PASSWORD} octets")
    return prepared


def _render(record: ScramRecord) -> str:
    """RFC 5803 §2: scheme$iterations:salt$stored key:server key."""
    salt, stored, server = (
        b64encode(part).decode("ascii") for part in (record.salt, record.stored_key, record.server_key)
    )
    return f"{_SCHEME}${record.iterations}:{salt}${stored}:{server}"


def _parse(text: str) -> ScramRecord | None:
    try:
        _, rounds, keys = text.split("$")
        iterations, salt = rounds.split(":")
        stored, server = keys.split(":")
        record = ScramRecord(b64decode(salt), int(iterations), b64decode(stored), b64decode(server))
    except ValueError:
        return None
    return record if len(record.stored_key) == 32 and 0 < record.iterations <= 10_000_000 else None
