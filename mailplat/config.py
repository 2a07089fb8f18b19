"""
Settings: a TOML file and the command line, read into one frozen value.

Both speak the same words.  A file looks like this; every key may be left out:

    data = "/var/lib/mailplat"
    hostname = "mail.example.test"
    domains = ["example.test"]
    store = "sqlite"
    auth = ["file:/etc/mail/passwords"]
    plaintext-login = "loopback"            # never, loopback or always
    message-size-limit = 52428800
    postmaster = "alice@example.test"

    [listen]                                # a Twisted endpoint string, or several
    smtp = "tcp:25"
    imaps = ["tcp:993", "tcp6:993"]

    [tls]
    certificate = "fullchain.pem"
    key = "privkey.pem"

    [aliases]
    "sales@example.test" = ["alice", "bob@example.test"]

    [limits.smtp]                           # the fields of that protocol's Limits
    recipients = 500

A word on the command line replaces the same word of the file.  All mistakes are collected
and raised together, each with its place.  Relative paths in a file count from the file's
directory, those on the command line from the working directory.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from twisted.internet.endpoints import serverFromString

from mailplat.auth.guessers import GuessLimits
from mailplat.auth.names import canonical_domain
from mailplat.connection import ConnectionLimits
from mailplat.delivery.aliases import split_address
from mailplat.delivery.intake import IntakeLimits
from mailplat.delivery.routing import RoutingLimits
from mailplat.errors import ConfigurationError, InvalidName
from mailplat.imap.limits import Limits as IMAPLimits
from mailplat.pop3.engine import Limits as POP3Limits
from mailplat.smtp.engine import Limits as SMTPLimits


@dataclass(frozen=True, slots=True)
class Kind:
    """
    What a word like `imaps` means.

    Attributes:
        word: as on the command line and in the file.
        service: which protocol answers.
        tls: it speaks TLS from the first byte.
        default: endpoint when nothing is named; None for none, and `{data}` is the data
            directory, quoted as endpoint strings want it.
    """

    word: str
    service: str
    tls: bool
    default: str | None
    about: str


KINDS = (
    Kind("smtp", "smtp", False, "tcp:2525:interface=127.0.0.1", "mail from other servers"),
    Kind("submission", "submission", False, "tcp:2587:interface=127.0.0.1", "mail from users, after login"),
    Kind("submissions", "submission", True, None, "mail from users, over TLS at once"),
    Kind("lmtp", "lmtp", False, "unix:{data}/lmtp:mode=600", "mail from another mail server in front"),
    Kind("imap", "imap", False, "tcp:2143:interface=127.0.0.1", "reading mail"),
    Kind("imaps", "imap", True, "tcp:2993:interface=127.0.0.1", "reading mail, over TLS at once"),
    Kind("pop3", "pop3", False, "tcp:2110:interface=127.0.0.1", "fetching mail"),
    Kind("pop3s", "pop3", True, "tcp:2995:interface=127.0.0.1", "fetching mail, over TLS at once"),
)

DEFAULT_DATA = "mailplat-data"
DEFAULT_DOMAIN = "localhost"
DEFAULT_STORE = "sqlite"
DEFAULT_MESSAGE_SIZE = 52_428_800

#: Octets of a UNIX socket's path (unix(7): 108, and the last one is NUL).
MOST_SOCKET_PATH = 107

PLAINTEXT_LOGIN = ("never", "loopback", "always")

#: The tables under [limits], and what their keys are fields of.
LIMITS: Mapping[str, type] = {
    "connections": ConnectionLimits,
    "logins": GuessLimits,
    "smtp": SMTPLimits,
    "imap": IMAPLimits,
    "pop3": POP3Limits,
    "intake": IntakeLimits,
    "routing": RoutingLimits,
}

#: Fields of limits that `message-size-limit` sets, for every protocol alike.
MESSAGE_SIZE: Mapping[str, str] = {"smtp": "message", "imap": "append_size", "intake": "message_size"}


@dataclass(frozen=True, slots=True)
class Listener:
    """One endpoint (a Twisted server endpoint string) and what it speaks."""

    kind: Kind
    endpoint: str


@dataclass(frozen=True, slots=True)
class Settings:
    """
    All that a server is told.

    Attributes:
        data: absolute path of the data directory; it need not exist yet.
        domains: ours, the first one stands in where one is needed; never empty.
        hostname: the name in greetings and trace fields.
        listeners: what to listen on.
        left_out: listeners of the default that cannot be here: a UNIX socket's path has its limit.
        certificate, key: PEM files, absolute; both None for a self-signed certificate.
            `key` is None where the certificate's file holds it too.
        store: as in `IStoreFactory`, `name` or `name:argument`.
        auth: strcred lines, tried in this order; empty for the account file.
        plaintext_login: "never", "loopback" or "always".
        message_size_limit: octets.
        aliases: see `delivery.routing.Router`.
        postmaster: an address of ours, or None for the first account.
        limits: by the names of `LIMITS`; every name is there.
    """

    data: str
    domains: tuple[str, ...] = (DEFAULT_DOMAIN,)
    hostname: str = "localhost"
    listeners: tuple[Listener, ...] = ()
    left_out: tuple[Listener, ...] = ()
    certificate: str | None = None
    key: str | None = None
    store: str = DEFAULT_STORE
    auth: tuple[str, ...] = ()
    plaintext_login: str = "loopback"
    message_size_limit: int = DEFAULT_MESSAGE_SIZE
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    postmaster: str | None = None
    limits: Mapping[str, Any] = field(
        default_factory=lambda: {name: limits() for name, limits in LIMITS.items()}
    )


def default_listeners(data: str) -> tuple[Listener, ...]:
    """Everything on loopback, LMTP in the data directory, whether or not its path is too long."""
    # A colon or an equals sign would end the path (twisted.internet.endpoints).
    quoted = re.sub(r"[\\:=]", r"\\\g<0>", data)
    return tuple(
        Listener(kind, kind.default.format(data=quoted)) for kind in KINDS if kind.default is not None
    )


def _usable(
    listeners: tuple[Listener, ...], data: str
) -> tuple[tuple[Listener, ...], tuple[Listener, ...]]:
    """Default listeners, and apart from them those whose socket in the data directory has too long a path."""
    left_out = tuple(
        listener
        for listener in listeners
        if listener.endpoint.startswith("unix:")
        and len(os.fsencode(os.path.join(data, listener.kind.word))) > MOST_SOCKET_PATH
    )
    return tuple(listener for listener in listeners if listener not in left_out), left_out


def load(
    file: str | None = None, words: Mapping[str, Any] | None = None, directory: str | None = None
) -> Settings:
    """
    Read settings.

    Args:
        file: a TOML file, or None.
        words: from the command line: text, or a sequence of texts for words that may be
            repeated; None and empty sequences count as not given.
        directory: what relative paths on the command line count from; None for the working
            directory.

    Raises:
        ConfigurationError: `text` has one line for each mistake.
    """
    reader = _Reader()
    directory = os.path.abspath(directory or ".")
    if file is not None:
        reader.read_file(os.path.join(directory, file), file)
    reader.read_words(words or {}, directory)
    settings = reader.settings(directory)
    if reader.mistakes:
        raise ConfigurationError("\n".join(reader.mistakes))
    return settings


@dataclass(frozen=True, slots=True)
class _Given:
    """A value, where it stands, and the directory that its relative paths count from."""

    value: Any
    place: str
    directory: str


class _Reader:
    """Gathers values by word, then checks them; every mistake is noted and passed over."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []
        self._given: dict[str, _Given] = {}
        self._limits: dict[str, dict[str, _Given]] = {}

    # Gathering

    def read_file(self, path: str, name: str) -> None:
        try:
            with open(path, "rb") as stream:
                document = tomllib.load(stream)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            self.mistakes.append(f"{name}: {getattr(error, 'strerror', None) or error}")
            return
        directory = os.path.dirname(path)
        for key, value in document.items():
            if key in _TABLES:
                if isinstance(value, dict):
                    _TABLES[key](self, value, name, directory)
                else:
                    self.mistakes.append(f"{name}: {key}: must be a table, [{key}]")
            elif key in _TOP:
                self._given[key] = _Given(value, f"{name}: {key}", directory)
            else:
                self._unknown(name, key, (*_TOP, *_TABLES), _WORDS_ELSEWHERE)

    def _read_listen(self, table: dict[str, Any], name: str, directory: str) -> None:
        self._read_table("listen", table, [kind.word for kind in KINDS], name, directory)

    def _read_tls(self, table: dict[str, Any], name: str, directory: str) -> None:
        self._read_table("tls", table, ["certificate", "key"], name, directory)

    def _read_table(
        self, table: str, values: dict[str, Any], words: Sequence[str], name: str, directory: str
    ) -> None:
        for key, value in values.items():
            if key in words:
                self._given[key] = _Given(value, f"{name}: [{table}] {key}", directory)
            else:
                self._unknown(f"{name}: [{table}]", key, words)

    def _read_aliases(self, table: dict[str, Any], name: str, directory: str) -> None:
        self._given["aliases"] = _Given(table, f"{name}: [aliases]", directory)

    def _read_limits(self, table: dict[str, Any], name: str, directory: str) -> None:
        for section, values in table.items():
            if section not in LIMITS:
                self._unknown(f"{name}: [limits]", section, tuple(LIMITS))
            elif not isinstance(values, dict):
                self.mistakes.append(f"{name}: [limits] {section}: must be a table, [limits.{section}]")
            else:
                place = f"{name}: [limits.{section}]"
                known = [
                    known.name for known in fields(LIMITS[section]) if known.name != MESSAGE_SIZE.get(section)
                ]
                for key, value in values.items():
                    if key == MESSAGE_SIZE.get(section):
                        self.mistakes.append(f"{place} {key}: is set by message-size-limit")
                    elif key in known:
                        self._limits.setdefault(section, {})[key] = _Given(value, f"{place} {key}", directory)
                    else:
                        self._unknown(place, key, known)

    def read_words(self, words: Mapping[str, Any], directory: str) -> None:
        given = {word: value for word, value in words.items() if value is not None and value != []}
        if "certificate" in given:
            # The file's key belongs to the file's certificate.
            self._given.pop("key", None)
        for word, value in given.items():
            if isinstance(value, list | tuple):
                value = list(value)
            self._given[_KEYS.get(word, word)] = _Given(value, f"--{word}", directory)

    def _unknown(
        self, place: str, key: str, known: Sequence[str], elsewhere: Mapping[str, str] | None = None
    ) -> None:
        text = f"{place}: {key}: unknown key"
        if elsewhere and key in elsewhere:
            text += f", did you mean {elsewhere[key]}?"
        elif close := get_close_matches(key.replace("_", "-"), known, 1) or get_close_matches(key, known, 1):
            text += f', did you mean "{close[0]}"?'
        self.mistakes.append(text)

    # Checking

    def settings(self, directory: str) -> Settings:
        data = self._path("data") or os.path.join(directory, DEFAULT_DATA)
        certificate, key = self._path("certificate", readable=True), self._path("key", readable=True)
        if key and not certificate and "certificate" not in self._given:
            self.mistakes.append(f"{self._given['key'].place}: there is no certificate for this key")
        limits = {section: self._limits_of(section) for section in LIMITS}
        domains = self._domains()
        hostname = self._text("hostname", _host_name) or _own_host_name()
        listeners, left_out = self._listeners(), tuple[Listener, ...]()
        if not listeners:
            listeners, left_out = _usable(default_listeners(data), data)
        return Settings(
            data=data,
            domains=domains,
            hostname=hostname,
            listeners=listeners,
            left_out=left_out,
            certificate=certificate,
            key=key,
            store=self._text("store", _part) or DEFAULT_STORE,
            auth=self._texts("auth", _part),
            plaintext_login=self._text("plaintext-login", _plaintext_login) or "loopback",
            message_size_limit=self._size("message-size-limit", DEFAULT_MESSAGE_SIZE),
            aliases=self._aliases(),
            postmaster=self._text("postmaster", _address),
            limits=limits,
        )

    def _mistake(self, given: _Given, text: str) -> None:
        self.mistakes.append(f"{given.place}: {text}")

    def _text(self, word: str, check: Callable[[str], str | None]) -> str | None:
        given = self._given.get(word)
        return None if given is None else self._checked(given, given.value, check)

    def _texts(self, word: str, check: Callable[[str], str | None]) -> tuple[str, ...]:
        given = self._given.get(word)
        if given is None:
            return ()
        values = given.value if isinstance(given.value, list) else [given.value]
        checked = [self._checked(given, value, check) for value in values]
        return tuple(value for value in checked if value is not None)

    def _checked(self, given: _Given, value: Any, check: Callable[[str], str | None]) -> str | None:
        """The text if it is one and `check` finds no fault with it."""
        if not isinstance(value, str):
            self._mistake(given, f"must be text, not {_type_name(value)}")
        elif not value:
            self._mistake(given, "must not be empty")
        elif fault := check(value):
            self._mistake(given, f"{value}: {fault}")
        else:
            return value
        return None

    def _path(self, word: str, readable: bool = False) -> str | None:
        given = self._given.get(word)
        text = self._text(word, lambda text: None)
        if given is None or text is None:
            return None
        path = os.path.normpath(os.path.join(given.directory, os.path.expanduser(text)))
        if readable:
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                self._mistake(given, f"{path}: {error.strerror}")
        return path

    def _domains(self) -> tuple[str, ...]:
        domains = self._texts("domains", _domain)
        return tuple(dict.fromkeys(canonical_domain(domain) for domain in domains)) or (DEFAULT_DOMAIN,)

    def _listeners(self) -> tuple[Listener, ...]:
        return tuple(
            Listener(kind, endpoint) for kind in KINDS for endpoint in self._texts(kind.word, _endpoint)
        )

    def _size(self, word: str, default: int) -> int:
        given = self._given.get(word)
        if given is None:
            return default
        value = given.value
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value, re.ASCII):
            value = int(value)
        if type(value) is not int or value <= 0:
            self._mistake(given, "must be a whole number of octets above 0")
            return default
        return value

    def _aliases(self) -> dict[str, tuple[str, ...]]:
        given = self._given.get("aliases")
        aliases = {}
        for name, targets in (given.value if given else {}).items():
            place = _Given(None, f"{given.place} {name}" if given else "", "")
            if fault := _address(name):
                self._mistake(place, fault)
            if not isinstance(targets, list):
                targets = [targets]
            if not targets:
                self._mistake(place, "has no targets")
            checked = [self._checked(place, target, _address) for target in targets]
            aliases[name] = tuple(target for target in checked if target is not None)
        return aliases

    def _limits_of(self, section: str) -> Any:
        limits = LIMITS[section]
        values = {}
        defaults = limits()
        for key, given in self._limits.get(section, {}).items():
            default = getattr(defaults, key)
            value = given.value
            wanted: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
            if type(value) not in wanted:
                self._mistake(given, f"must be {_TYPE_NAMES[type(default)]}, not {_type_name(value)}")
            elif isinstance(value, int | float) and not isinstance(value, bool) and not 0 <= value < 2**53:
                self._mistake(given, f"{value} is out of range")
            else:
                values[key] = value
        return limits(**values)


_TABLES: Mapping[str, Callable[[_Reader, dict[str, Any], str, str], None]] = {
    "listen": _Reader._read_listen,
    "tls": _Reader._read_tls,
    "aliases": _Reader._read_aliases,
    "limits": _Reader._read_limits,
}

_TOP = (
    "data",
    "domains",
    "hostname",
    "store",
    "auth",
    "plaintext-login",
    "message-size-limit",
    "postmaster",
)

#: Words of the command line that have another name in the file.
_KEYS = {"domain": "domains"}

#: Keys that people will look for at the top of a file.
_WORDS_ELSEWHERE = {
    **{kind.word: f'"{kind.word}" under [listen]' for kind in KINDS},
    **{word: f'"{word}" under [tls]' for word in ("certificate", "key")},
}

_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "a table",
}


def _type_name(value: object) -> str:
    return _TYPE_NAMES.get(type(value), "a date")


# Checks: what is wrong with a text, or None


def _domain(text: str) -> str | None:
    try:
        canonical_domain(text)
    except InvalidName:
        return "is not a domain name"
    return None


def _host_name(text: str) -> str | None:
    # A machine without a name calls itself by its address literal (RFC 5321 §4.1.3).
    if re.fullmatch(r"\[[0-9A-Za-z:.]+\]", text) or (text.isascii() and _domain(text) is None):
        return None
    return "is not a host name"


def _own_host_name() -> str:
    # gethostname only: a fully qualified name would take a look at the DNS, which may wait.
    name = socket.gethostname()
    return name if _host_name(name) is None else "localhost"


def _address(text: str) -> str | None:
    try:
        split_address(text)
    except ValueError:
        return "is not an address"
    return None


def _plaintext_login(text: str) -> str | None:
    return None if text in PLAINTEXT_LOGIN else "must be never, loopback or always"


def _part(text: str) -> str | None:
    return None if re.match(r"[\w.-]+(:|$)", text) else "must look like NAME or NAME:ARGUMENT"


def _endpoint(text: str) -> str | None:
    try:
        # Nothing is opened yet: an endpoint only uses its reactor to listen.
        serverFromString(None, text)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except Exception as error:
        # Whatever a parser, ours or a plugin's, raises for arguments that it cannot take.
        return f"is not an endpoint ({error})"
    return None
