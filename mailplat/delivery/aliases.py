"""
Aliases: names that stand for other addresses, from the configuration and from files.

A file is the traditional one of aliases(5), as far as it is safe:

    # who reads postmaster's mail, and a group
    postmaster: alice
    team:       alice, bob,
                carol@elsewhere.test
    @old.test:  alice@example.test      # everybody there who is nobody else
    lists:      agent:mailman           # a delivery agent of the configuration

The name is `local@domain`, a local part for all of our domains, or `@domain` for whoever has no
account there.  Changes of a file are seen within a second; one that has mistakes is reported
and does not count until they are mended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.logger import Logger

from mailplat.auth.names import Names, canonical_local
from mailplat.errors import ConfigurationError, InvalidName
from mailplat.values import Address

#: Begins a target that is a delivery agent.
AGENT = "agent:"

#: Seconds between two looks at a file.
LOOK = 1.0


@dataclass(frozen=True, slots=True)
class AgentNamed:
    """A target that is no address: a delivery agent of the configuration."""

    name: str


#: What an alias stands for.
Targets = tuple[Address | AgentNamed, ...]


def split_address(text: str) -> Address:
    """
    `local@domain`, or a local part alone (the domain is empty then).

    Raises:
        ValueError: a part is missing, or there is a space or a control character.
    """
    local, at, domain = text.rpartition("@")
    if not at:
        local, domain = text, ""
    if not local or (at and not domain) or any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError(f"{text!r} is not an address")
    return Address(local, domain.lower())


def target(text: str) -> Address | AgentNamed:
    """
    What one target of an alias says.

    Raises:
        ValueError.
    """
    if text.startswith(AGENT):
        if not text[len(AGENT) :]:
            raise ValueError(f"{text!r} names no agent")
        return AgentNamed(text[len(AGENT) :])
    return split_address(text)


class Aliases:
    """
    A table of aliases, checked.

    Args:
        names: knows our domains and the canonical form of an address.
        table: name -> targets; a target without a domain means the domain of the recipient.

    Raises:
        ConfigurationError: with a line for each mistake: a name that is no address or not in a
            domain of ours, a target that is none, no targets.
    """

    def __init__(self, names: Names, table: Mapping[str, Sequence[str]]) -> None:
        # Canonical `local@domain`, local part, or `@domain` -> targets
        self._targets: dict[str, Targets] = {}
        mistakes = []
        for name, targets in table.items():
            try:
                self.add(names, name, targets)
            except ValueError as error:
                mistakes.append(f"alias {name}: {error}")
        if mistakes:
            raise ConfigurationError("\n".join(mistakes))

    def add(self, names: Names, name: str, targets: Sequence[str]) -> None:
        """
        One more alias.

        Raises:
            ValueError: says what is wrong with it.
        """
        try:
            key = _key(names, name)
        except InvalidName:
            raise ValueError(f"{name!r} is not an address") from None
        if not targets:
            raise ValueError(f"{name!r} has no targets")
        self._targets[key] = tuple(target(text) for text in targets)

    def __len__(self) -> int:
        return len(self._targets)

    def targets(self, name: str) -> Targets | None:
        """The targets of a canonical `local@domain`, or of its local part."""
        return self._targets.get(name) or self._targets.get(name.rpartition("@")[0])

    def catch_all(self, domain: str) -> Targets | None:
        """Who gets the mail of whoever has no account in this domain."""
        return self._targets.get(f"@{domain}")


class AliasFile:
    """
    Aliases in a file that may change.

    Args:
        path: need not exist.
        names: as for `Aliases`.
        seconds: tells the time.
        in_thread: calls a function elsewhere and gives a Deferred: a long file takes long.

    Attributes:
        aliases: as the file was when it last was good.

    Raises:
        ConfigurationError: the file as it is now has mistakes; each with its line.
    """

    log = Logger()

    def __init__(
        self,
        path: str,
        names: Names,
        seconds: Callable[[], float],
        in_thread: Callable[..., Deferred[Any]] | None = None,
    ) -> None:
        self.path = path
        self._names = names
        self._seconds = seconds
        self._in_thread = in_thread or execute
        self._looked = seconds()
        self._seen = _stamp(path)
        self._reading = False
        self.aliases = self._read()

    def current(self) -> Aliases:
        """The aliases, as of the last look; looks again if that was a while ago."""
        now = self._seconds()
        if now >= self._looked + LOOK or now < self._looked:
            self._looked = now
            seen = _stamp(self.path)
            if seen != self._seen and not self._reading:
                self._seen = seen
                self._reading = True
                self._in_thread(self._read).addCallbacks(self._take, self._keep)
        return self.aliases

    def _read(self) -> Aliases:
        try:
            with open(self.path, encoding="utf-8") as stream:
                text = stream.read()
        except FileNotFoundError:
            return Aliases(self._names, {})
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from None
        table, mistakes = parse(text)
        aliases = Aliases(self._names, {})
        for name, (line, targets) in table.items():
            try:
                aliases.add(self._names, name, targets)
            except ValueError as error:
                mistakes.append(f"line {line}: {error}")
        if mistakes:
            raise ConfigurationError("\n".join(f"{self.path}: {mistake}" for mistake in mistakes))
        return aliases

    def _take(self, aliases: Aliases) -> None:
        self._reading = False
        self.aliases = aliases
        self.log.info("{path}: {count} aliases", path=self.path, count=len(aliases))

    def _keep(self, failure: Any) -> None:
        self._reading = False
        self.log.error("Aliases stay as they were: {reason}", reason=failure.getErrorMessage())


def parse(text: str) -> tuple[dict[str, tuple[int, list[str]]], list[str]]:
    """
    The lines of an alias file.

    Returns:
        name -> (line, targets), and the mistakes, each with its line.
    """
    table: dict[str, tuple[int, list[str]]] = {}
    mistakes: list[str] = []
    targets: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0]
        if not line.strip():
            continue
        if line[0].isspace():
            if targets is None:
                mistakes.append(f"line {number}: nothing to continue")
                continue
            rest = line
        else:
            name, colon, rest = line.partition(":")
            name = name.strip()
            if not colon or not name:
                mistakes.append(f"line {number}: NAME: TARGET, ... expected")
                targets = None
                continue
            if name in table:
                mistakes.append(f"line {number}: {name} was given in line {table[name][0]} already")
            targets = []
            table[name] = number, targets
        targets += [target for word in rest.split(",") if (target := word.strip())]
    return table, mistakes


def _key(names: Names, name: str) -> str:
    if name.startswith("@"):
        if not names.is_ours(name[1:]):
            raise ValueError(f"{name[1:]} is not a domain of this server")
        return names.canonical("x", name[1:])[1:]
    address = split_address(name)
    if not address.domain:
        return canonical_local(address.local)
    if not names.is_ours(address.domain):
        raise ValueError(f"{address.domain} is not a domain of this server")
    return names.canonical(address.local, address.domain)


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Differs when the file does."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
