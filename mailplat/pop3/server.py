"""
POP3 on Twisted: `POP3Factory` for any stream endpoint.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.portal import Portal

from mailplat.connection import ConnectionLimits, MailFactory
from mailplat.pop3.ahead import Room
from mailplat.pop3.engine import Limits
from mailplat.pop3.session import POP3Session
from mailplat.wire import Wire


class POP3Factory(MailFactory):
    """
    Makes the connections of one listener.

    Args:
        portal: any `twisted.cred` portal whose realm gives `IMaildrop`s; the SASL mechanisms
            offered follow from its checkers.
        reactor: provides IReactorTime.
        hostname: our name, ASCII.
        tls: a TLS context factory for STLS, or None to not offer it.
        plaintext_login: who may send passwords without TLS: "never", "loopback", "always".
        utf8_to_all: see `POP3Session`.
        limits: what a peer may send.
        connections: how many connections, and how patient with them.
    """

    def __init__(
        self,
        portal: Portal,
        reactor: Any,
        *,
        hostname: str,
        tls: Any = None,
        plaintext_login: str = "loopback",
        utf8_to_all: bool = True,
        limits: Limits | None = None,
        connections: ConnectionLimits | None = None,
    ) -> None:
        if plaintext_login not in ("never", "loopback", "always"):
            raise ValueError(f"plaintext_login is never, loopback or always, not {plaintext_login!r}")
        if not hostname.isascii() or not hostname.isprintable() or " " in hostname or not hostname:
            raise ValueError(f"hostname is a name in ASCII, not {hostname!r}")
        super().__init__("pop3", reactor, tls=tls, limits=connections)
        self.portal = portal
        self.hostname = hostname
        self.plaintext_login = plaintext_login
        self.utf8_to_all = utf8_to_all
        self.limits = limits or Limits()
        self._room = Room(self.limits.ahead_together)

    def session(self, wire: Wire) -> POP3Session:
        return POP3Session(
            wire,
            self.portal,
            hostname=self.hostname,
            plaintext_login=self.plaintext_login,
            utf8_to_all=self.utf8_to_all,
            limits=self.limits,
            room=self._room,
            log=self.log,
        )

    def refusal(self) -> bytes:
        return b"-ERR [SYS/TEMP] Too many connections, try again later\r\n"
