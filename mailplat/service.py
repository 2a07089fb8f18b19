"""
The composition root: settings in, a mail server out.

`MailService` is a Twisted service.  It is the only place where concrete parts are put
together; what it cannot know (reactor, directories, where to print) is given to it.

How it starts, and what may go wrong when:

1. `privilegedStartService` binds what may need privileges, that is all but UNIX sockets.
   Nobody is let in yet.
2. `startService` opens the data directory, binds the rest, and makes the parts.
3. Then, when the reactor runs, the store is started and the doors are opened; `started`
   fires.

What goes wrong in 1 and 2 is raised, in 3 it is `started`'s failure; either way nothing
is left bound or locked.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from random import Random
from typing import Any

from twisted.application.service import Service
from twisted.cred import strcred
from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from mailplat.auth.accounts import AccountFile
from mailplat.auth.checkers import AccountChecker, NamedChecker
from mailplat.auth.names import Names
from mailplat.auth.portal import MailPortal
from mailplat.auth.realm import MailRealm
from mailplat.connection import MailFactory
from mailplat.datadir import DataDirectory
from mailplat.delivery.aliases import AliasFile, split_address
from mailplat.delivery.exchangers import Exchangers
from mailplat.delivery.hops import NextHops, is_hop
from mailplat.delivery.intake import Intake, identifiers
from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.queue import Queue
from mailplat.delivery.rates import Rates
from mailplat.delivery.relay import Relay
from mailplat.delivery.reports import Reports
from mailplat.delivery.routing import Router
from mailplat.delivery.tls_policy import ConfiguredTLS
from mailplat.dns import DNSResolver
from mailplat.errors import AccountExists, ConfigurationError, MailError, NotPermitted, StartFailed
from mailplat.imap.server import IMAPFactory
from mailplat.interfaces import IResolver, IScramCredentials, StoreContext
from mailplat.listening import Bound, bind, is_unix, speaks_tls
from mailplat.plugins import make_agent, make_store
from mailplat.pop3.server import POP3Factory
from mailplat.settings import Settings
from mailplat.smtp.server import SMTPFactory
from mailplat.storage.spool import Spool
from mailplat.storage.sqlite import SQLiteStore
from mailplat.tls import CertificateFiles, CertificateSource, self_signed
from mailplat.transcripts import Transcripts
from mailplat.trust import Trust
from mailplat.values import LOCAL, RELAY, Address

#: Seconds that connections have for what is under way when the server stops.
GRACE = 7.0

#: Accounts that the store is asked to make at one time.
AT_ONCE = 500

#: A word for --auth: the account file of the data directory, to be chained with others.
ACCOUNTS = "accounts"

#: The local part of the first account.
FIRST_ACCOUNT = "me"

# Without the characters that are taken for one another.
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


class MailService(Service):
    """
    Args:
        settings: what to be.
        reactor: provides IReactorCore, IReactorTime, IReactorThreads, IReactorTCP and so on.
        announce: called with the service once it runs, see `bound` and `first_account`.
        resolver: looks other hosts up; by default in the DNS, as the system is set up.

    Attributes:
        bound: the listeners, with their ports, while it runs.
        first_account: name and password of the account that this start made, or None.  It
            exists nowhere else: whoever is told shows it to the operator, or it is lost.
        certificate: the file of the self-signed certificate, or None if one was given.
        started: fires when the doors are open; fails with a MailError, `StartFailed` for
            what is a bug.  Stopped before that, it stays silent.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        announce: Callable[[MailService], None] | None = None,
        resolver: IResolver | None = None,
    ) -> None:
        self.settings = settings
        self.setName("mailplat")
        self._reactor = reactor
        self._announce = announce
        self._dns = None if resolver else DNSResolver(reactor, limits=settings.limits["dns"])
        self._resolver: Any = resolver or self._dns
        self._directory = DataDirectory(settings.data)
        self.started: Deferred[None] = Deferred()
        self._reset()

    def _reset(self) -> None:
        self.bound: list[Bound] = []
        self.factories: dict[str, MailFactory] = {}
        self.first_account: tuple[str, str] | None = None
        self.certificate: str | None = None
        self._privileged = False
        self._store: Any = None
        self._queue_store: Any = None
        self._queue: Any = None
        self._relay: Any = None
        self._store_started = False
        self._starting: Deferred[None] | None = None

    # Starting

    def privilegedStartService(self) -> None:
        """
        Raises:
            CannotListen: then nothing is bound.
        """
        super().privilegedStartService()
        if self.started.called:
            self.started = Deferred()
        self._privileged = True
        self._bind(unix=False)

    def startService(self) -> None:
        """
        Raises:
            MailError: then nothing is bound, locked or running.
        """
        if not self._privileged:
            self.privilegedStartService()
        try:
            self._directory.prepare()
            self._directory.lock()
            self._bind(unix=True)
            self._make_parts()
        except BaseException:
            self._let_go()
            raise
        super().startService()
        starting = Deferred.fromCoroutine(self._start())
        starting.addErrback(self._start_failed)
        if not starting.called:
            self._starting = starting

    def _bind(self, unix: bool) -> None:
        try:
            for listener in self.settings.listeners:
                if is_unix(listener) == unix:
                    self.bound.append(bind(listener, self._reactor))
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Undo `privilegedStartService` and `startService`, without waiting."""
        for bound in self.bound:
            # Ports of Twisted close at the reactor's next turn, or at exit.
            bound.close()
        self._directory.unlock()
        self._reset()

    def _make_parts(self) -> None:
        settings, reactor, directory = self.settings, self._reactor, self._directory
        self._names = Names(settings.domains)
        self._accounts = AccountFile(directory.accounts, self._names)
        self._store = make_store(settings.store, StoreContext(reactor, directory.path))
        self._certificates = self._certificate_source()
        limits = {name: self._sized(name) for name in settings.limits}
        spool = Spool(directory.spool, reactor)
        spool.start()
        self._transcripts = Transcripts(directory.transcripts, reactor.seconds)
        router = make_router(settings, self._names, self._store, directory, reactor)
        local = LocalDelivery(self._store, reactor)
        self._make_queue(router, local, spool, limits)
        intake = Intake(
            router,
            local,
            settings.hostname,
            reactor,
            limits["intake"],
            queue=self._queue,
            rates=Rates(reactor.seconds, limits["rates"]),
        )
        realm = MailRealm(self._store, intake, self._names)
        portal = MailPortal(realm, [], reactor, limits["logins"])
        for spec in settings.auth or (ACCOUNTS,):
            self._add_checker(portal, spec)
        portal.registerChecker(AllowAnonymousAccess())

        common: dict[str, Any] = {
            "tls": self._certificates,
            "plaintext_login": settings.plaintext_login,
            "connections": limits["connections"],
        }
        hostname = settings.hostname
        for service in dict.fromkeys(listener.kind.service for listener in settings.listeners):
            if service == "imap":
                factory: MailFactory = IMAPFactory(portal, spool, reactor, limits=limits["imap"], **common)
            elif service == "pop3":
                factory = POP3Factory(portal, reactor, hostname=hostname, limits=limits["pop3"], **common)
            else:
                factory = SMTPFactory(
                    portal,
                    spool,
                    reactor,
                    hostname=hostname,
                    service=service,
                    limits=limits["smtp"],
                    reports=True,
                    hold=limits["schedule"].lifetime,
                    **common,
                )
            factory.observe = self._transcripts.observe
            self.factories[service] = factory

    def _make_queue(
        self, router: Router, local: LocalDelivery, spool: Spool, limits: Mapping[str, Any]
    ) -> None:
        """What carries mail to other hosts and tries again, and the store that it stands in."""
        settings, reactor = self.settings, self._reactor
        queue_store = getattr(self._store, "queue", None)
        if queue_store is None:
            # The mail store has none: an embedded store of its own, without accounts.
            self._queue_store = SQLiteStore(self._directory.queue, reactor)
            queue_store = self._queue_store.queue
        relay = settings.relay
        exchangers = Exchangers(
            self._resolver,
            Random(),
            names=(settings.hostname, *self._names.domains),
            addresses=self._own_addresses(),
            private=relay.networks,
        )
        self._relay = Relay(
            reactor,
            exchangers,
            hostname=settings.hostname,
            policy=ConfiguredTLS(relay.tls, relay.domains),
            trust=Trust(relay.authorities or ""),
            logins=relay.logins,
            sources=relay.sources,
            limits=limits["relay"],
            client_limits=limits["client"],
            observe=self._transcripts.observe,
        )
        context = StoreContext(reactor, self._directory.path)
        own = {name: spec for name, spec in settings.agents.items() if not is_hop(spec)}
        agents = {name: make_agent(spec, context) for name, spec in own.items()}
        reports = Reports(
            router,
            spool,
            settings.hostname,
            Address("postmaster", self._names.domains[0]),
            identifiers(),
            limits["schedule"],
            reactor,
            limits["reports"],
        )
        self._queue = Queue(
            queue_store,
            {**agents, LOCAL: local, RELAY: self._relay},
            reports,
            reactor,
            schedule=limits["schedule"],
            limits=limits["queue"],
        )

    def _own_addresses(self) -> list[str]:
        """Where mail from other hosts is taken: a domain whose MX leads here leads in a circle."""
        addresses = [bound.address for bound in self.bound if bound.listener.kind.service == "smtp"]
        hosts = [address.host for address in addresses if isinstance(address, IPv4Address | IPv6Address)]
        return [host for host in hosts if not ip_address(host).is_unspecified]

    def _sized(self, name: str) -> Any:
        """The limits of this name, with the message size that all have in common."""
        limits, size = self.settings.limits[name], self.settings.message_size_limit
        if name == "smtp":
            return replace(limits, message=size)
        if name == "imap":
            return replace(limits, append_size=size, skipped=max(limits.skipped, size))
        if name == "intake":
            return replace(limits, message_size=size)
        return limits

    def _certificate_source(self) -> CertificateSource:
        settings = self.settings
        if settings.certificate is None:
            try:
                self.certificate = self_signed(self._directory.path, settings.hostname)
            except OSError as error:
                raise ConfigurationError(f"no certificate can be made: {error}") from error
            files = CertificateFiles(self.certificate)
        else:
            files = CertificateFiles(settings.certificate, settings.key or "")
        return CertificateSource([files], self._reactor.seconds)

    def _add_checker(self, portal: MailPortal, spec: str) -> None:
        name, _, argument = spec.partition(":")
        if name == ACCOUNTS:
            accounts = self._accounts
            if argument:
                accounts = AccountFile(os.path.join(self._directory.path, argument), self._names)
            portal.registerChecker(AccountChecker(accounts, self._reactor))
            return
        try:
            checker: Any = strcred.makeChecker(spec)
        except strcred.InvalidAuthType:
            raise ConfigurationError(f"--auth {spec}: there is no checker called {name}") from None
        except Exception as error:
            # Whatever a checker's factory raises for arguments that it cannot take.
            raise ConfigurationError(f"--auth {spec}: {error}") from error
        if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
            # Its strcred factory keeps text, and credentials are bytes.
            checker.users = {_octets(name): _octets(word) for name, word in checker.users.items()}
        if IScramCredentials not in checker.credentialInterfaces:
            checker = NamedChecker(checker, self._names)
        portal.registerChecker(checker)

    async def _start(self) -> None:
        await self._store.start()
        self._store_started = True
        if self._queue_store is not None:
            await self._queue_store.start()
        await self._make_accounts()
        if not self.running:
            # Stopped meanwhile, and who does that waits for us to return.
            return
        self._queue.start()
        for bound in self.bound:
            factory = self.factories[bound.listener.kind.service]
            factory.start()
            if bound.listener.kind.tls and not speaks_tls(bound.listener):
                bound.open(TLSMemoryBIOFactory(self._certificates, False, factory))
            else:
                bound.open(factory)
        self._starting = None
        if self._announce is not None:
            self._announce(self)
        self.started.callback(None)

    async def _make_accounts(self) -> None:
        """Give everybody who may log in an account in the store; make the first one."""
        if not self.settings.auth and not await _in_thread(self._reactor, self._accounts.names):
            name, password = f"{FIRST_ACCOUNT}@{self._names.domains[0]}", new_password()
            if not await self._store.accounts() or await self._store.has_account(name):
                await _in_thread(self._reactor, self._accounts.add, name, password)
                self.first_account = name, password
        if not self.settings.auth or ACCOUNTS in self.settings.auth:
            names = await _in_thread(self._reactor, self._accounts.names)
            await ensure_accounts(self._store, names, lambda: bool(self.running))

    def _start_failed(self, failure: Any) -> Deferred[None]:
        started, error = self.started, failure.value
        if not isinstance(error, MailError):
            self.log.failure("the server cannot start", failure=failure)
            error = StartFailed(reason=str(error))
        self._starting = None
        stopped: Deferred[None] = maybeDeferred(self.stopService)

        def tell(_: object) -> None:
            started.errback(error)

        return stopped.addBoth(tell)

    # Stopping

    def stopService(self) -> Deferred[None]:
        """
        Let nobody in any more, have sessions finish what is under way, and close the store.

        Returns:
            fires when all is closed, within some ten seconds.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._starting is not None:
            # In the middle of its start a store cannot be stopped.
            starting, self._starting = self._starting, None
            await starting
        await DeferredList([bound.close() for bound in self.bound], consumeErrors=True)
        ending = [factory.stop(GRACE) for factory in self.factories.values()]
        if self._queue is not None:
            ending.append(self._queue.stop())
        await DeferredList(ending, consumeErrors=True)
        if self._relay is not None:
            # What has not ended by now is broken off, and that is its outcome.
            await self._relay.stop()
            if self._dns is not None:
                self._dns.close()
            await self._queue.stop()
        try:
            if self._store_started:
                await self._store.stop()
                if self._queue_store is not None:
                    await self._queue_store.stop()
        finally:
            self._directory.unlock()
            self._reset()


def make_router(
    settings: Settings, names: Names, store: Any, directory: DataDirectory, reactor: Any
) -> Router:
    """
    What says where recipients are, as the settings have it; commands ask the same.

    Args:
        names: knows our domains.
        reactor: provides IReactorTime and IReactorThreads.

    Raises:
        ConfigurationError.
    """
    postmaster = None
    if settings.postmaster is not None:
        address = split_address(settings.postmaster)
        postmaster = names.canonical(address.local, address.domain or names.domains[0])
    relay = settings.relay
    paths = settings.aliases_file or directory.aliases, directory.forwards
    in_thread = partial(_in_thread, reactor)
    return Router(
        names,
        store,
        settings.aliases,
        postmaster,
        settings.limits["routing"],
        files=[AliasFile(path, names, reactor.seconds, in_thread) for path in paths],
        hops=NextHops(relay.relayhost, relay.routes, relay.senders),
        agents={name: (RELAY, spec) for name, spec in settings.agents.items() if is_hop(spec)},
    )


async def ensure_account(store: Any, name: str) -> bool:
    """
    Have the store make the account unless it has it.

    Returns:
        False if the store makes no accounts.
    """
    return await store.has_account(name) or await _make_account(store, name)


async def _make_account(store: Any, name: str) -> bool:
    try:
        await store.create_account(name)
    except AccountExists:
        pass
    except NotPermitted:
        return False
    return True


async def ensure_accounts(store: Any, names: list[str], wanted: Callable[[], bool] = lambda: True) -> None:
    """
    As `ensure_account`, many at once, so that a store can commit them together.

    Args:
        wanted: asked now and then; if it says no, the rest is left.
    """
    there = set(await store.accounts())
    missing = [name for name in names if name not in there]
    for start in range(0, len(missing), AT_ONCE):
        if not wanted():
            return
        some = missing[start : start + AT_ONCE]
        await gatherResults(
            [Deferred.fromCoroutine(_make_account(store, name)) for name in some], consumeErrors=True
        )


def new_password() -> str:
    """Sixteen characters, 80 bits, in groups of four."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))


def _octets(text: str | bytes) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else text


def _in_thread(reactor: Any, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    # Files and hashing would hold the reactor.
    return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)
