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
    aliases-file = "/etc/mail/aliases"      # by default `aliases` in the data directory

    [listen]                                # a Twisted endpoint string, or several
    smtp = "tcp:25"
    imaps = ["tcp:993", "tcp6:993"]

    [tls]
    certificate = "fullchain.pem"
    key = "privkey.pem"

    [aliases]
    "sales@example.test" = ["alice", "bob@example.test"]

    [agents]                                # to be named by aliases, as "agent:lists"
    lists = "lmtp:unix:/run/mailman/lmtp"
    archive = "pipe:/usr/local/bin/archive {recipient}"

    [relay]                                 # mail for other hosts
    relayhost = "smtp.provider.test:587;login=provider"
    tls = "may"                             # none, may, encrypt or verify
    authorities = "roots.pem"               # whom "verify" believes; by default the system's
    sources = ["192.0.2.1"]                 # addresses to connect from
    networks = ["10.0.0.0/8"]               # of ours, which others' domains may lead to

    [relay.routes]                          # a recipient's domain, .domain for all below it
    "example.org" = "smtp:mx.internal.test:2525"

    [relay.senders]                         # a sender's address or domain
    "news@example.test" = "smtps:bulk.test"

    [relay.domains]                         # TLS towards a domain
    "example.com" = "verify mx.example.com"

    [relay.logins.provider]
    user = "me"
    password-file = "provider.password"

    [limits.schedule]                       # the fields of Schedule; so for all limits
    retries = [300, 600, 1200, 2400]
    lifetime = 432000

A word on the command line replaces the same word of the file.  All mistakes are collected
and raised together, each with its place.  Relative paths in a file count from the file's
directory, those on the command line from the working directory.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from typing import Any

from twisted.internet.endpoints import serverFromString

from mailplat.auth.names import canonical_domain
from mailplat.delivery.aliases import AGENT, split_address, target
from mailplat.delivery.hops import NextHop, is_hop
from mailplat.delivery.tls_policy import parse_requirement
from mailplat.errors import ConfigurationError, InvalidName
from mailplat.settings import (
    DEFAULT_DATA,
    DEFAULT_DOMAIN,
    DEFAULT_MESSAGE_SIZE,
    DEFAULT_STORE,
    KINDS,
    LIMITS,
    MESSAGE_SIZE,
    PLAINTEXT_LOGIN,
    Listener,
    RelaySettings,
    Settings,
    default_listeners,
    usable,
)
from mailplat.smtp.client import Login
from mailplat.values import LOCAL, RELAY


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

    def _read_relay(self, table: dict[str, Any], name: str, directory: str) -> None:
        for key, value in table.items():
            place = f"{name}: [relay] {key}"
            if key not in _RELAY:
                self._unknown(f"{name}: [relay]", key, _RELAY)
            elif key in _RELAY_TABLES and not isinstance(value, dict):
                self.mistakes.append(f"{place}: must be a table, [relay.{key}]")
            else:
                if key in _RELAY_TABLES:
                    place = f"{name}: [relay.{key}]"
                self._given[_in_relay(key)] = _Given(value, place, directory)

    def _read_agents(self, table: dict[str, Any], name: str, directory: str) -> None:
        self._given["agents"] = _Given(table, f"{name}: [agents]", directory)

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
        agents = self._agents()
        hostname = self._text("hostname", _host_name) or _own_host_name()
        listeners, left_out = self._listeners(), tuple[Listener, ...]()
        if not listeners:
            listeners, left_out = usable(default_listeners(data), data)
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
            aliases=self._aliases(agents),
            aliases_file=self._path("aliases-file", readable=True),
            agents=agents,
            relay=self._relay(),
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

    def _aliases(self, agents: Collection[str]) -> dict[str, tuple[str, ...]]:
        given = self._given.get("aliases")
        aliases = {}
        for name, targets in (given.value if given else {}).items():
            place = _Given(None, f"{given.place} {name}" if given else "", "")
            if fault := _alias(name):
                self._mistake(place, fault)
            if not isinstance(targets, list):
                targets = [targets]
            if not targets:
                self._mistake(place, "has no targets")
            checked = [self._checked(place, text, _target) for text in targets]
            for text in checked:
                if text is not None and text.startswith(AGENT) and text[len(AGENT) :] not in agents:
                    self._mistake(place, f"{text}: there is no such agent in [agents]")
            aliases[name] = tuple(text for text in checked if text is not None)
        return aliases

    def _entries(self, word: str) -> Iterator[tuple[str, _Given]]:
        """The keys of a table, each with its value's own place."""
        given = self._given.get(word)
        if given is not None:
            for key, value in given.value.items():
                yield key, _Given(value, f"{given.place} {key}", given.directory)

    def _agents(self) -> dict[str, str]:
        agents = {}
        for name, given in self._entries("agents"):
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or name in (LOCAL, RELAY):
                self._mistake(given, "the name is a lower-case word, other than local and relay")
            spec = self._checked(given, given.value, _agent)
            if spec is not None:
                agents[name] = spec
        return agents

    def _relay(self) -> RelaySettings:
        logins = self._logins()
        relayhost = self._given.get("relayhost")
        hops = [] if relayhost is None else self._hops([("", relayhost)], NextHop.parse_host)
        routes = self._hops(self._entries(_in_relay("routes")), NextHop.parse, _domain_or_below)
        senders = self._hops(self._entries(_in_relay("senders")), NextHop.parse, _sender)
        for _, given, hop in (*hops, *routes, *senders):
            if hop.login and hop.login not in logins:
                self._mistake(given, f"there is no login {hop.login}: [relay.logins.{hop.login}]")
        domains = {}
        for name, given in self._entries(_in_relay("domains")):
            if fault := _domain_or_below(name):
                self._mistake(given, fault)
            domains[name] = self._checked(given, given.value, _tls) or "may"
        return RelaySettings(
            relayhost=hops[0][2] if hops else None,
            routes={name: hop for name, _, hop in routes},
            senders={name: hop for name, _, hop in senders},
            tls=self._text(_in_relay("tls"), _tls) or "may",
            domains=domains,
            authorities=self._path(_in_relay("authorities"), readable=True),
            logins=logins,
            sources=self._texts(_in_relay("sources"), _ip_address),
            networks=self._texts(_in_relay("networks"), _ip_network),
        )

    def _hops(
        self,
        entries: Iterable[tuple[str, _Given]],
        parse: Callable[[str], NextHop],
        check: Callable[[str], str | None] = lambda name: None,
    ) -> list[tuple[str, _Given, NextHop]]:
        found = []
        for name, given in entries:
            if fault := check(name):
                self._mistake(given, fault)
            text = self._checked(given, given.value, lambda text: _fault_of(parse, text))
            if text is not None:
                found.append((name, given, parse(text)))
        return found

    def _logins(self) -> dict[str, Login]:
        logins = {}
        for name, given in self._entries(_in_relay("logins")):
            values = given.value
            if not isinstance(values, dict):
                self._mistake(given, f"must be a table, [relay.logins.{name}]")
                continue
            for key in values:
                if key not in _LOGIN:
                    self._unknown(given.place, key, _LOGIN)
            word = f"{_in_relay('logins')}.{name}"
            for key, value in values.items():
                self._given[f"{word}.{key}"] = _Given(value, f"{given.place} {key}", given.directory)
            user = self._text(f"{word}.user", lambda text: None)
            password = self._text(f"{word}.password", lambda text: None)
            file = self._path(f"{word}.password-file", readable=True)
            if file is not None and os.access(file, os.R_OK):
                with open(file, encoding="utf-8", errors="replace") as stream:
                    password = stream.readline().rstrip("\r\n")
            if not user or not password:
                self._mistake(given, "needs user, and password or password-file")
            else:
                logins[name] = Login(user, password)
        return logins

    def _limits_of(self, section: str) -> Any:
        limits = LIMITS[section]
        values = {}
        defaults = limits()
        for key, given in self._limits.get(section, {}).items():
            default = getattr(defaults, key)
            value = given.value
            wanted: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
            if isinstance(default, tuple):
                if isinstance(value, list) and value and all(type(one) in (int, float) for one in value):
                    values[key] = tuple(type(default[0])(one) for one in value)
                else:
                    self._mistake(given, "must be a list of numbers")
            elif type(value) not in wanted:
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
    "agents": _Reader._read_agents,
    "relay": _Reader._read_relay,
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
    "aliases-file",
)

_RELAY_TABLES = ("routes", "senders", "domains", "logins")
_RELAY = ("relayhost", "tls", "authorities", "sources", "networks", *_RELAY_TABLES)
_LOGIN = ("user", "password", "password-file")


def _in_relay(key: str) -> str:
    """The word for a key of [relay], which the command line may not have for something else."""
    return key if key == "relayhost" else f"relay.{key}"


#: Words of the command line that have another name in the file.
_KEYS = {"domain": "domains"}

#: Keys that people will look for at the top of a file.
_WORDS_ELSEWHERE = {
    **{kind.word: f'"{kind.word}" under [listen]' for kind in KINDS},
    **{word: f'"{word}" under [tls]' for word in ("certificate", "key")},
    "relayhost": '"relayhost" under [relay]',
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


def _agent(text: str) -> str | None:
    return _fault_of(NextHop.parse, text) if is_hop(text) else _part(text)


def _alias(text: str) -> str | None:
    return _domain(text[1:]) if text.startswith("@") else _address(text)


def _target(text: str) -> str | None:
    return None if _fault_of(target, text) is None else "is not an address"


def _domain_or_below(text: str) -> str | None:
    return _domain(text.removeprefix("."))


def _sender(text: str) -> str | None:
    return _domain(text.rpartition("@")[2])


def _tls(text: str) -> str | None:
    return _fault_of(parse_requirement, text)


def _ip_address(text: str) -> str | None:
    return _fault_of(ip_address, text)


def _ip_network(text: str) -> str | None:
    return _fault_of(ip_network, text)


def _fault_of(parse: Callable[[str], Any], text: str) -> str | None:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
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
