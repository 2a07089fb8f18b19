"""
SMTP, submission and LMTP on Twisted: `SMTPFactory` for any stream endpoint.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.portal import Portal

from mailplat.connection import ConnectionLimits, MailFactory
from mailplat.interfaces import ISpool
from mailplat.smtp.engine import Limits
from mailplat.smtp.grammar import Reply
from mailplat.smtp.parameters import Offered
from mailplat.smtp.session import SMTPSession
from mailplat.wire import Wire

SERVICES = ("smtp", "submission", "lmtp")


class SMTPFactory(MailFactory):
    """
    Makes the connections of one listener.

    Args:
        portal: any `twisted.cred` portal whose realm gives `IMailReceiver`s.  For "smtp"
            and "lmtp" it must admit anonymous peers; for "submission" the SASL mechanisms
            offered follow from its checkers.
        spool: where messages go while they arrive.
        reactor: provides IReactorTime.
        hostname: our name, ASCII.
        service: "smtp", "submission" or "lmtp".
        tls: a TLS context factory for STARTTLS, or None to not offer it.
        plaintext_login: who may send passwords without TLS: "never", "loopback", "always".
        limits: what a peer may send.
        connections: how many connections, and how patient with them.
        reports: the realm's receivers send delivery reports as they are asked for; offers DSN.
        hold: seconds that they hold a message at the most; offers FUTURERELEASE on submission.
    """

    def __init__(
        self,
        portal: Portal,
        spool: ISpool,
        reactor: Any,
        *,
        hostname: str,
        service: str = "smtp",
        tls: Any = None,
        plaintext_login: str = "loopback",
        limits: Limits | None = None,
        connections: ConnectionLimits | None = None,
        reports: bool = False,
        hold: int = 0,
    ) -> None:
        if service not in SERVICES:
            raise ValueError(f"service is one of {', '.join(SERVICES)}, not {service!r}")
        if plaintext_login not in ("never", "loopback", "always"):
            raise ValueError(f"plaintext_login is never, loopback or always, not {plaintext_login!r}")
        if not hostname.isascii() or not hostname.isprintable() or " " in hostname or not hostname:
            raise ValueError(f"hostname is a name in ASCII, not {hostname!r}")
        super().__init__(service, reactor, tls=tls, limits=connections)
        self.portal = portal
        self.spool = spool
        self.hostname = hostname
        self.plaintext_login = plaintext_login
        self.limits = limits or Limits()
        self.reports = reports
        self.hold = hold

    def session(self, wire: Wire) -> SMTPSession:
        return SMTPSession(
            wire,
            self.portal,
            self.spool,
            hostname=self.hostname,
            plaintext_login=self.plaintext_login,
            limits=self.limits,
            log=self.log,
            offered=self.offered,
        )

    def offered(self) -> Offered:
        """What the sessions take besides what every server does, at this moment."""
        submission = self.service == "submission"
        return Offered(
            self.limits.message,
            login=submission,
            reports=self.reports,
            hold=self.hold if submission else 0,
            now=int(self.reactor.seconds()),
        )

    def refusal(self) -> bytes:
        return bytes(Reply(421, (f"{self.hostname} Too many connections, try again later",), "4.3.2"))
