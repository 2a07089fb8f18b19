"""
IMAP on Twisted: `IMAPFactory` for any stream endpoint.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.cred.portal import Portal

from mailplat.connection import ConnectionLimits, MailFactory
from mailplat.imap.limits import Limits
from mailplat.imap.outlines import Outlines
from mailplat.imap.session import IMAPSession
from mailplat.imap.view import Views
from mailplat.interfaces import ISpool
from mailplat.message.compose import InternalDates
from mailplat.wire import Wire


class IMAPFactory(MailFactory):
    """
    Makes the connections of one listener; they share what they know of mailboxes.

    Args:
        portal: any `twisted.cred` portal whose realm gives `IMailAccount`s.
        spool: where APPEND's messages go while they arrive.
        reactor: provides IReactorTime.
        tls: a TLS context factory for STARTTLS, or None to not offer it.
        plaintext_login: who may send passwords without TLS: "never", "loopback", "always".
        limits: what a peer may send.
        connections: how many connections, and how patient with them.
    """

    def __init__(
        self,
        portal: Portal,
        spool: ISpool,
        reactor: Any,
        *,
        tls: Any = None,
        plaintext_login: str = "loopback",
        limits: Limits | None = None,
        connections: ConnectionLimits | None = None,
    ) -> None:
        if plaintext_login not in ("never", "loopback", "always"):
            raise ValueError(f"plaintext_login is never, loopback or always, not {plaintext_login!r}")
        super().__init__("imap", reactor, tls=tls, limits=connections)
        self.portal = portal
        self.spool = spool
        self.plaintext_login = plaintext_login
        self.limits = limits or Limits()
        self._views = Views()
        self._outlines = Outlines()
        self._dates = InternalDates()

    def session(self, wire: Wire) -> IMAPSession:
        return IMAPSession(
            wire,
            self.portal,
            self.spool,
            plaintext_login=self.plaintext_login,
            limits=self.limits,
            views=self._views,
            outlines=self._outlines,
            dates=self._dates,
            clock=time.time,
            later=self.reactor.callLater,
            log=self.log,
        )

    def refusal(self) -> bytes:
        return b"* BYE Too many connections, try again later\r\n"
