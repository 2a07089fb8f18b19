"""
Mail inside an application that already exists.

Here it is a small web application with members of its own.  They get a mailbox each, in a
store of the application's choice, with the password they have on the web site, over IMAP
and SMTP factories that are put together by hand.  Nothing is global: this script runs two
such applications in one process.

    python examples/host_in_app.py

prints where each of them listens; http://.../ shows how many messages its members have.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

from mailplat.auth.names import Names
from mailplat.auth.portal import MailPortal
from mailplat.auth.realm import MailRealm
from mailplat.delivery.intake import Intake
from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.routing import Router
from mailplat.imap.server import IMAPFactory
from mailplat.smtp.server import SMTPFactory
from mailplat.storage.memory import MemoryStore
from mailplat.storage.spool import Spool


@implementer(ICredentialsChecker)
class Members:
    """The application's own idea of who may log in."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = {name.encode(): password.encode() for name, password in passwords.items()}

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        if self._passwords.get(credentials.username) == credentials.password:
            return succeed(credentials.username)
        return fail(UnauthorizedLogin())


class Front(Resource):
    """The application's web page."""

    isLeaf = True

    def __init__(self, store: Any) -> None:
        super().__init__()
        self._store = store

    def render_GET(self, request: Any) -> Any:
        Deferred.fromCoroutine(self._count()).addCallbacks(
            lambda lines: (request.write("".join(lines).encode()), request.finish()), request.processingFailed
        )
        return NOT_DONE_YET

    async def _count(self) -> list[str]:
        lines = []
        for name in await self._store.accounts():
            inbox = await (await self._store.account(name)).open("INBOX")
            lines.append(f"{name} {(await inbox.status()).messages}\n")
        return lines


class App:
    """
    The web application, now with mail.

    Args:
        domain: of its members' addresses.
        members: address to password.
        directory: where large messages are while they arrive; nobody else's.
    """

    def __init__(self, reactor: Any, domain: str, members: Mapping[str, str], directory: str) -> None:
        self._reactor = reactor
        self._members = members
        self.store = MemoryStore()
        router = Router(Names([domain]), self.store)
        intake = Intake(router, LocalDelivery(self.store, reactor), domain, reactor)
        # Anonymous peers may bring mail for members: that is what SMTP is about.
        checkers = [Members(members), AllowAnonymousAccess()]
        portal = MailPortal(MailRealm(self.store, intake), checkers, reactor)
        self._spool = Spool(directory, reactor)
        self.factories = {
            "http": Site(Front(self.store)),
            "smtp": SMTPFactory(portal, self._spool, reactor, hostname=domain),
            "imap": IMAPFactory(portal, self._spool, reactor),
        }
        self.ports: dict[str, Any] = {}

    async def start(self) -> None:
        """Listen on a free port of loopback for each of the factories."""
        self._spool.start()
        await self.store.start()
        for name in self._members:
            await self.store.create_account(name)
        for word, factory in self.factories.items():
            endpoint = TCP4ServerEndpoint(self._reactor, 0, interface="127.0.0.1")
            self.ports[word] = await endpoint.listen(factory)

    async def stop(self) -> None:
        """Let everybody go who reads or sends mail."""
        await gatherResults([port.stopListening() or succeed(None) for port in self.ports.values()])
        await gatherResults([self.factories[word].stop(5) for word in ("smtp", "imap")])
        await self.store.stop()

    def addresses(self) -> str:
        """Where it listens, a line."""
        return " ".join(f"{word}=127.0.0.1:{port.getHost().port}" for word, port in self.ports.items())


async def main(reactor: Any) -> None:
    directory = tempfile.mkdtemp()
    members = {
        "red.example": {"anna@red.example": "apple", "emil@red.example": "earth"},
        "blue.example": {"anna@blue.example": "berry"},
    }
    apps = [
        App(reactor, domain, passwords, os.path.join(directory, domain))
        for domain, passwords in members.items()
    ]
    for app in apps:
        await app.start()
        print(app.addresses(), flush=True)
    stopped: Deferred[None] = Deferred()
    reactor.addSystemEventTrigger("before", "shutdown", stopped.callback, None)
    await stopped
    for app in apps:
        await app.stop()
    shutil.rmtree(directory)


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)), sys.argv[1:])
