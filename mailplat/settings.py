"""
What a server can be told: frozen values, with the defaults of everything.

`mailplat.config` reads them from a file and the command line; whoever builds a `MailService` in
Python makes them directly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mailplat.auth.guessers import GuessLimits
from mailplat.connection import ConnectionLimits
from mailplat.delivery.hops import NextHop
from mailplat.delivery.intake import IntakeLimits
from mailplat.delivery.queue import QueueLimits, Schedule
from mailplat.delivery.rates import RateLimits
from mailplat.delivery.relay import RelayLimits
from mailplat.delivery.reports import ReportLimits
from mailplat.delivery.routing import RoutingLimits
from mailplat.dns import ResolverLimits
from mailplat.imap.limits import Limits as IMAPLimits
from mailplat.pop3.engine import Limits as POP3Limits
from mailplat.smtp.client import ClientLimits, Login
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
    "rates": RateLimits,
    "schedule": Schedule,
    "queue": QueueLimits,
    "relay": RelayLimits,
    "client": ClientLimits,
    "dns": ResolverLimits,
    "reports": ReportLimits,
}

#: Fields of limits that `message-size-limit` sets, for every protocol alike.
MESSAGE_SIZE: Mapping[str, str] = {"smtp": "message", "imap": "append_size", "intake": "message_size"}


@dataclass(frozen=True, slots=True)
class Listener:
    """One endpoint (a Twisted server endpoint string) and what it speaks."""

    kind: Kind
    endpoint: str


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """
    How mail for other hosts goes.

    Attributes:
        relayhost: takes what has no route of its own; None to deliver directly.
        routes: domains of recipients -> next hop.
        senders: addresses or domains of senders -> next hop.
        tls: what TLS must be like, see `mailplat.delivery.tls_policy`.
        domains: the same for some domains.
        authorities: a PEM file, absolute, or None for the system's.
        logins: name -> credentials, for the hops that name them.
        sources: addresses to connect from.
        networks: our own networks, which domains of others may lead to.
    """

    relayhost: NextHop | None = None
    routes: Mapping[str, NextHop] = field(default_factory=dict)
    senders: Mapping[str, NextHop] = field(default_factory=dict)
    tls: str = "may"
    domains: Mapping[str, str] = field(default_factory=dict)
    authorities: str | None = None
    logins: Mapping[str, Login] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


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
        aliases_file: absolute; None for `aliases` in the data directory, which need not exist.
        agents: name -> as in `IAgentFactory`, `name` or `name:argument`, or a next hop.
        postmaster: an address of ours, or None for the first account.
        relay: how mail for other hosts goes.
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
    aliases_file: str | None = None
    agents: Mapping[str, str] = field(default_factory=dict)
    postmaster: str | None = None
    relay: RelaySettings = field(default_factory=RelaySettings)
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


def usable(listeners: tuple[Listener, ...], data: str) -> tuple[tuple[Listener, ...], tuple[Listener, ...]]:
    """Default listeners, and apart from them those whose socket in the data directory has too long a path."""
    left_out = tuple(
        listener
        for listener in listeners
        if listener.endpoint.startswith("unix:")
        and len(os.fsencode(os.path.join(data, listener.kind.word))) > MOST_SOCKET_PATH
    )
    return tuple(listener for listener in listeners if listener not in left_out), left_out
