"""
Next hops: where mail for other hosts goes, as a value and as text.

What stands in `Target.place` for the agent `RELAY`, and in the configuration:

    example.com                    the hosts that the domain's MX records name
    [192.0.2.1]  [IPv6:2001:db8::1]   this host, as an address literal in a recipient says it
    smtp:HOST:PORT                 this host, by SMTP; port 25 if left out
    smtps:HOST:PORT                with TLS from the first byte; port 465 if left out
    lmtp:HOST:PORT                 by LMTP; port 24 if left out
    smtp:unix:/PATH  lmtp:unix:/PATH   by a UNIX socket

HOST is a name, an IPv4 address, or an address in brackets.  Options follow, each after a
semicolon:

    ;tls=none|may|encrypt|verify   instead of what the TLS policy says
    ;login=NAME                    log in with the credentials of this name; unless `tls` says
                                   otherwise, the host then has to prove who it is

The first two kinds come from addresses that strangers may choose, and are looked up with
suspicion; the others are somebody's settings, and trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from mailplat.auth.names import canonical_domain
from mailplat.errors import ConfigurationError, InvalidName, NoSuchDomain
from mailplat.values import Address

#: Protocol -> port, where the hop names none.
PORTS = {"smtp": 25, "smtps": 465, "lmtp": 24}

#: What a TLS requirement may ask for (`TLSRequirement.level`).
LEVELS = ("none", "may", "encrypt", "verify")

_OPTION = re.compile(r"(tls|login)=([!-:<-~]+)")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


@dataclass(frozen=True, slots=True)
class NextHop:
    """
    See the top of this file; `parse` and `str` are inverse.

    Attributes:
        protocol: "mx" for a domain or an address literal, else "smtp", "smtps" or "lmtp".
        host: a domain (A-labels) or an address literal for "mx"; else a host name, an address
            without brackets, or the path of a UNIX socket.
        port: 0 for "mx" and for a path.
        tls: one of `LEVELS`, or empty for what the policy says.
        login: the name of credentials, or empty.
    """

    protocol: str
    host: str
    port: int = 0
    tls: str = ""
    login: str = ""

    @classmethod
    def parse(cls, text: str) -> NextHop:
        """
        Raises:
            ValueError: `text` is no next hop.
        """
        place, *words = text.split(";")
        options: dict[str, Any] = {}
        for word in words:
            found = _OPTION.fullmatch(word)
            if found is None or found[1] in options:
                raise ValueError(f"{text!r}: {word!r} is no option")
            options[found[1]] = found[2]
        if options.get("tls", "may") not in LEVELS:
            raise ValueError(f"{text!r}: tls is one of {', '.join(LEVELS)}")
        protocol, colon, rest = place.partition(":")
        try:
            if colon and protocol.lower() in PORTS:
                protocol = protocol.lower()
                return cls(protocol, *_host_and_port(rest, PORTS[protocol]), **options)
            return cls("mx", _literal(place) if place.startswith("[") else canonical_domain(place), **options)
        except (ValueError, InvalidName):
            raise ValueError(f"{text!r} is no next hop") from None

    @classmethod
    def parse_host(cls, text: str) -> NextHop:
        """
        A smarthost, as `--relayhost` has it: HOST or HOST:PORT by SMTP, or any next hop that
        names its protocol.

        Raises:
            ValueError.
        """
        return cls.parse(text if is_hop(text) else f"smtp:{text}")

    def __str__(self) -> str:
        if self.protocol == "mx":
            text = self.host
        elif self.is_unix:
            text = f"{self.protocol}:unix:{self.host}"
        else:
            host = f"[{self.host}]" if ":" in self.host else self.host
            text = f"{self.protocol}:{host}:{self.port}"
        for name, value in (("tls", self.tls), ("login", self.login)):
            if value:
                text += f";{name}={value}"
        return text

    @property
    def is_unix(self) -> bool:
        """It is a UNIX socket."""
        return self.host.startswith("/")

    @property
    def literal(self) -> str:
        """The address that it names without a name, or empty."""
        if self.protocol == "mx":
            return self.host[1:-1].removeprefix("IPv6:") if self.host.startswith("[") else ""
        return "" if _is_name(self.host) else self.host


def is_hop(text: str) -> bool:
    """Whether `text` names a next hop by its protocol, and not, for example, a delivery agent."""
    return text.partition(":")[0].lower() in PORTS


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    if text.startswith("unix:"):
        path = text[5:]
        if not path.startswith("/") or not path.isprintable():
            raise ValueError
        return path, 0
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::(.*))?", text)
    if bracketed is not None:
        host, port = str(_address(bracketed[1])), bracketed[2]
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
        host = canonical_domain(host) if _is_name(host) else str(ip_address(host))
    if port is None:
        return host, default
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError
    return host, int(port)


def _literal(text: str) -> str:
    """An address literal as addresses have it (RFC 5321 §4.1.3), in its one spelling."""
    if not text.endswith("]"):
        raise ValueError
    address = _address(text[1:-1])
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _address(text: str) -> str:
    if text[:5].upper() == "IPV6:":
        text = str(IPv6Address(text[5:]))
    if "%" in text:
        raise ValueError
    return str(ip_address(text))


def _is_name(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return not host.startswith("/")
    return False


class NextHops:
    """
    Chooses the next hop for mail that leaves the house.

    The first that is there is taken: a route for the recipient's domain, one for the sender,
    the smarthost, and the recipient's own domain.

    Args:
        relayhost: takes everything that has no route of its own; None to deliver directly.
        domains: recipients' domains, `.example.com` for all below it -> hop; the longest
            that fits counts.
        senders: `local@domain` or a domain -> hop; the null sender has none.

    Raises:
        ConfigurationError: a key is no domain or address.
    """

    def __init__(
        self,
        relayhost: NextHop | None = None,
        domains: Mapping[str, NextHop] | None = None,
        senders: Mapping[str, NextHop] | None = None,
    ) -> None:
        self._relayhost = relayhost
        mistakes: list[str] = []
        self._domains = _by_name(domains or {}, mistakes, "route of domain")
        self._senders = _by_name(senders or {}, mistakes, "route of sender")
        if mistakes:
            raise ConfigurationError("\n".join(mistakes))

    def __call__(self, sender: Address | None, recipient: Address) -> str:
        """As `choose`, as text: what `Router` asks for."""
        return str(self.choose(recipient, sender))

    def choose(self, recipient: Address, sender: Address | None) -> NextHop:
        """
        Raises:
            NoSuchDomain: the recipient's domain is not one that can be.
        """
        domain = recipient.domain
        if domain.startswith("["):
            found = None
        else:
            try:
                domain = canonical_domain(domain)
            except InvalidName:
                raise NoSuchDomain() from None
            found = self._route(domain)
        return found or self._sender_route(sender) or self._relayhost or _direct(domain)

    def _route(self, domain: str) -> NextHop | None:
        found = self._domains.get(domain)
        while found is None and domain:
            _, dot, domain = domain.partition(".")
            found = self._domains.get(dot + domain)
        return found

    def _sender_route(self, sender: Address | None) -> NextHop | None:
        if sender is None or not self._senders:
            return None
        try:
            domain = canonical_domain(sender.domain)
        except InvalidName:
            return None
        return self._senders.get(f"{sender.local.lower()}@{domain}") or self._senders.get(domain)


def _direct(domain: str) -> NextHop:
    try:
        return NextHop("mx", _literal(domain) if domain.startswith("[") else domain)
    except ValueError:
        raise NoSuchDomain() from None


def _by_name(table: Mapping[str, NextHop], mistakes: list[str], what: str) -> dict[str, NextHop]:
    found: dict[str, NextHop] = {}
    for name, hop in table.items():
        local, at, domain = name.rpartition("@")
        dot = "." if domain.startswith(".") and not at else ""
        try:
            found[f"{local.lower()}{at}{dot}{canonical_domain(domain.removeprefix(dot))}"] = hop
        except InvalidName:
            mistakes.append(f"{what} {name}: not a domain")
    return found
