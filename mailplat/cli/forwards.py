"""
`mailplat forward`: an account's mail goes on to other addresses.

What is said here stands in the file `forwards` of the data directory: an alias file, which a
running server looks at every second (`mailplat.delivery.aliases`).
"""

from __future__ import annotations

import argparse
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mailplat.auth.names import Names
from mailplat.cli.directory import Directory
from mailplat.cli.directory import add_words as add_directory_words
from mailplat.datadir import DataDirectory
from mailplat.delivery.aliases import Aliases, parse
from mailplat.errors import ConfigurationError, NoSuchAccount, StorageFull

_HEADER = "# Written by `mailplat forward`.\n"

#: Targets of an account's mail, by its name.
Forwards = dict[str, list[str]]


def add_words(commands: Any) -> None:
    parser = commands.add_parser(
        "forward",
        allow_abbrev=False,
        help="send an account's mail on to other addresses",
        description=(
            "Send an account's mail on to other addresses; without any, say where it goes; without NAME, "
            "say it of everybody.  A running server knows it within a second."
        ),
    )
    parser.set_defaults(run=_forward)
    parser.add_argument("name", metavar="NAME", nargs="?", help="the account")
    parser.add_argument("addresses", metavar="ADDRESS", nargs="*", help="where its mail goes")
    parser.add_argument("--keep", action="store_true", help="the account gets it as well")
    parser.add_argument("--off", action="store_true", help="its mail goes nowhere else any more")
    add_directory_words(parser)


def _forward(words: argparse.Namespace) -> int:
    directory = Directory(words)
    path = DataDirectory(directory.settings.data).forwards
    if words.name is None:
        for known, targets in sorted(_read(path).items()):
            print(f"{known}: {', '.join(targets)}")
        return 0
    accounts = directory.accounts
    name = accounts.naming.login_name(words.name)
    if name is None or name not in accounts.names():
        raise NoSuchAccount(f"There is no account {words.name}")
    if words.off and (words.addresses or words.keep):
        raise ConfigurationError("--off goes alone")
    if not words.off and not words.addresses:
        print(", ".join(_read(path).get(name, [name])))
        return 0
    if words.off:
        forget(directory.settings.data, name)
        return 0
    goes_to = [*([name] if words.keep else []), *words.addresses]
    # As the server will read it.
    Aliases(Names([name.rpartition("@")[2]]), {name: goes_to})
    with _changing(path) as forwards:
        forwards[name] = goes_to
    return 0


def forget(data: str, name: str) -> None:
    """Whoever has no account here any more has nothing to forward."""
    path = DataDirectory(data).forwards
    if name in _read(path):
        with _changing(path) as forwards:
            forwards.pop(name, None)


@contextmanager
def _changing(path: str) -> Iterator[Forwards]:
    """What the file says, to be changed, and written when all went well; one process at a time."""
    try:
        with open(f"{path}.lock", "a", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            forwards = _read(path)
            yield forwards
            _write(path, forwards)
    except OSError as error:
        raise StorageFull(reason=f"{path}: {error}") from error


def _read(path: str) -> Forwards:
    try:
        with open(path, encoding="utf-8") as stream:
            table, mistakes = parse(stream.read())
    except FileNotFoundError:
        return {}
    if mistakes:
        raise ConfigurationError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return {name: targets for name, (_, targets) in table.items()}


def _write(path: str, forwards: Mapping[str, Sequence[str]]) -> None:
    fresh = f"{path}.new"
    with open(fresh, "w", encoding="utf-8", opener=_private) as stream:
        stream.write(_HEADER)
        stream.writelines(f"{name}: {', '.join(targets)}\n" for name, targets in sorted(forwards.items()))
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(fresh, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
