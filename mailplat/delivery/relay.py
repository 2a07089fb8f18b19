"""
The agent that sends mail to other hosts.

A place is a next hop (`mailplat.delivery.hops`).  `mailplat.delivery.exchangers` says which
hosts take its mail, and they are tried in this order until one has been spoken to: what it
says about the message holds.  Only a host that could not be reached, or will have nothing to
do with us, sends us on to the next.

Connections are used again for the next message to the same host, under the same terms.  How
many there are is bounded for each next hop, for each host and in all (`Turns`), less towards
hosts that push back (`Pace`); nobody holds one of the connections there are in all while
waiting for a name server or for a busy host, so what is slow is slow for its own mail only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import NoRouteError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from mailplat.connection import Observe
from mailplat.delivery.exchangers import Candidate, Exchangers
from mailplat.delivery.hops import NextHop
from mailplat.delivery.pace import Pace
from mailplat.delivery.pool import Pool
from mailplat.delivery.turns import Turns
from mailplat.errors import (
    HostUnreachable,
    MailError,
    NoSuchDomain,
    PermanentError,
    TemporaryError,
    TLSFailed,
)
from mailplat.interfaces import IDeliveryAgent, ISpooledMessage, ITLSPolicy
from mailplat.logs import tell
from mailplat.smtp.client import ClientLimits, ClientSettings, Login, SMTPClient, connect
from mailplat.trust import Trust
from mailplat.values import Address, Envelope, Outcome, Target, TLSRequirement


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """
    Attributes:
        connections: at one time, in all; half of them are for next hops that have none yet.
        per_hop: connections at one time for one next hop.
        per_host: connections at one time to one address; fewer while it pushes back.
        idle: connections that are kept although there is nothing to send.
        idle_time: seconds that they are kept.
        messages: sent in one connection.
        tries: addresses that are connected to for one attempt, those to which there is no way not
            counted.
        rest: seconds that an address is left alone that could not be reached.
        longest: seconds that sending one message in one connection may take.
        remembered: addresses of which is remembered how they fared.
    """

    connections: int = 500
    per_hop: int = 10
    per_host: int = 20
    idle: int = 100
    idle_time: float = 5.0
    messages: int = 100
    tries: int = 5
    rest: float = 60.0
    longest: float = 3600.0
    remembered: int = 10_000


#: A host's address and port.
_At = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Terms:
    """What two messages must have in common to share a connection."""

    host: str
    address: str
    port: int
    protocol: str
    requirement: TLSRequirement
    login: str

    @property
    def at(self) -> _At:
        return self.address, self.port


@dataclass(frozen=True, slots=True)
class _Job:
    """A message on its way to one place."""

    place: str
    envelope: Envelope
    message: ISpooledMessage
    prefix: bytes
    recipients: tuple[Address, ...]


class _HasEnough(Exception):
    """A host takes no further connection from us, but has some."""


@dataclass(eq=False, slots=True)
class _Line:
    """A connection, and what was made of it."""

    client: SMTPClient
    sent: int = 0
    most: int = field(default=100)

    @property
    def usable(self) -> bool:
        return self.client.usable and self.sent < self.most

    def quit(self) -> Deferred[None]:
        return self.client.quit()


@implementer(IDeliveryAgent)
class Relay:
    """
    Sends messages to other hosts; places are next hops.

    Args:
        reactor: provides IReactorTime, IReactorTCP and IReactorUNIX.
        exchangers: says which hosts take the mail of a next hop.
        hostname: ours, ASCII; what we call ourselves.
        policy: what TLS must be like, where a hop does not say.
        trust: whose certificates are believed.
        logins: the credentials that hops name.
        sources: addresses to connect from, one of each family at the most; the system's choice
            where there is none.
        limits, client_limits: see there.
        observe: as `mailplat.connection.MailFactory.observe`.

    Raises:
        ValueError: one of `sources` is no address, or there are two of a family.
    """

    def __init__(
        self,
        reactor: Any,
        exchangers: Exchangers,
        *,
        hostname: str,
        policy: ITLSPolicy,
        trust: Trust,
        logins: Mapping[str, Login] | None = None,
        sources: Sequence[str] = (),
        limits: RelayLimits | None = None,
        client_limits: ClientLimits | None = None,
        observe: Observe | None = None,
    ) -> None:
        self._observe = observe
        self._reactor = reactor
        self._exchangers = exchangers
        self._hostname = hostname
        self._policy = policy
        self._trust = trust
        self._logins = dict(logins or {})
        self._sources = {ip_address(source).version: source for source in sources}
        if len(self._sources) != len(sources):
            raise ValueError("two addresses of one family to connect from")
        self._limits = limits = limits or RelayLimits()
        self._client_limits = client_limits or ClientLimits()
        self._pace: Pace[_At] = Pace(reactor, limits.per_host, limits.rest, limits.remembered)
        self._hops: Turns[str] = Turns(lambda place: limits.per_hop)
        self._hosts: Turns[_At] = Turns(self._pace.allowed)
        self._all: Turns[str] = Turns(lambda place: limits.connections, limits.connections)
        self._pool: Pool[_Terms, _Line] = Pool(reactor, limits.idle_time, limits.idle, lambda terms: terms.at)
        self._busy: set[SMTPClient] = set()
        self._dialing: set[Deferred[SMTPClient]] = set()
        self._stopped = False
        self._log = Logger()

    async def deliver(
        self,
        envelope: Envelope,
        message: ISpooledMessage,
        prefix: bytes,
        targets: Sequence[Target],
    ) -> Sequence[Outcome]:
        by_place: dict[str, list[int]] = defaultdict(list)
        for index, target in enumerate(targets):
            by_place[target.place].append(index)
        jobs = [
            _Job(place, envelope, message, prefix, tuple(targets[index].address for index in indexes))
            for place, indexes in by_place.items()
        ]
        if len(jobs) == 1:
            return await self._go(jobs[0])
        outcomes: dict[int, Outcome] = {}
        results = await gatherResults([Deferred.fromCoroutine(self._outcomes(job)) for job in jobs])
        for indexes, result in zip(by_place.values(), results, strict=True):
            outcomes.update(zip(indexes, result, strict=True))
        return [outcomes[index] for index in range(len(targets))]

    def start(self) -> None:
        """Make connections again, after a `stop`."""
        self._stopped = False

    def stop(self) -> Deferred[None]:
        """
        Close all connections, and make no new ones; what is being sent has a temporary outcome.

        Returns:
            fires when goodbye is said to all.
        """
        self._stopped = True
        ending = self._pool.close()
        for dialing in list(self._dialing):
            dialing.cancel()
        for client in list(self._busy):
            client.abort()
        return gatherResults(ending).addCallback(lambda _: None)

    # One next hop

    async def _outcomes(self, job: _Job) -> Sequence[Outcome]:
        try:
            return await self._go(job)
        except MailError as error:
            return [Outcome(recipient, error) for recipient in job.recipients]

    async def _go(self, job: _Job) -> Sequence[Outcome]:
        """
        Raises:
            MailError: for all recipients; nobody was spoken to about the message.
        """
        await self._hops.enter(job.place)
        try:
            try:
                hop = _hop(job.place)
                candidates = await self._exchangers.candidates(hop)
            except MailError as error:
                self._tell(job, error)
                raise
            return await self._try(job, hop, candidates)
        finally:
            self._hops.leave(job.place)

    async def _try(self, job: _Job, hop: NextHop, candidates: Sequence[Candidate]) -> Sequence[Outcome]:
        errors: list[MailError] = []
        tries = 0
        for candidate in sorted(candidates, key=self._eagerness):
            at = candidate.address, candidate.port
            if reason := self._pace.resting(at):
                errors.append(HostUnreachable(reason))
                continue
            if tries >= self._limits.tries:
                break
            try:
                terms = await self._terms(hop, candidate)
                return await self._by(job, terms)
            except (TemporaryError, PermanentError) as error:
                self._tell(job, error, candidate)
                # That there is no way to a family's addresses from here is found out at once.
                tries += not isinstance(error.__cause__, NoRouteError)
                errors.append(type(error)(f"{candidate}: {error.text}", error.reason))
        # What may be otherwise later counts more than a refusal.
        worst = next((error for error in errors if not isinstance(error, PermanentError)), errors[0])
        if isinstance(worst, HostUnreachable | PermanentError):
            raise worst
        raise HostUnreachable(worst.text, worst.reason)

    def _eagerness(self, candidate: Candidate) -> tuple[int, bool]:
        # A connection that is there already saves one.
        return candidate.preference, not self._pool.count((candidate.address, candidate.port))

    async def _terms(self, hop: NextHop, candidate: Candidate) -> _Terms:
        """
        Raises:
            TemporaryError: the host is not to be used now.
        """
        if hop.login and hop.login not in self._logins:
            raise TemporaryError(f"There are no credentials called {hop.login}")
        if hop.is_unix:
            requirement = TLSRequirement("none", source="local")
        elif hop.tls:
            requirement = TLSRequirement(hop.tls, source="configuration")
        else:
            requirement = await self._policy.requirement(hop.host, candidate.host)
            if hop.login and requirement.source == "default" and not _is_loopback(candidate.address):
                # A password is not for whoever answers.
                requirement = TLSRequirement("verify", source="login")
        return _Terms(candidate.host, candidate.address, candidate.port, hop.protocol, requirement, hop.login)

    # One host

    async def _by(self, job: _Job, terms: _Terms) -> Sequence[Outcome]:
        """
        Raises:
            HostUnreachable, PermanentError: there is no connection to this host.
        """
        at = terms.at
        while True:
            await self._hosts.enter(at)
            try:
                if reason := self._pace.resting(at):
                    raise HostUnreachable(reason)
                return await self._in_turn(job, terms)
            except _HasEnough:
                # One of those that are there will be free.
                continue
            finally:
                self._hosts.leave(at)

    async def _in_turn(self, job: _Job, terms: _Terms) -> Sequence[Outcome]:
        at = terms.at
        await self._all.enter(job.place)
        try:
            return await self._send(job, terms)
        except TLSFailed:
            # What is wrong for this message may be right for others.
            raise
        except HostUnreachable as error:
            if self._stopped:
                raise
            others = self._hosts.taken(at) - 1
            if others:
                self._pace.limit(at, others)
                raise _HasEnough from None
            self._pace.failed(at, f"{terms.host} could not be reached lately: {error.text}")
            raise
        finally:
            self._all.leave(job.place)

    async def _send(self, job: _Job, terms: _Terms) -> Sequence[Outcome]:
        line = self._pool.take(terms)
        while line is not None:
            try:
                return await self._say(job, terms, line)
            except HostUnreachable:
                # It had ended while nobody looked.
                line = self._pool.take(terms)
        if self._hosts.taken(terms.at) + self._pool.count(terms.at) > self._pace.allowed(terms.at):
            # Kept under other terms.
            self._pool.close_one(terms.at)
        return await self._say(job, terms, _Line(await self._connect(terms), most=self._limits.messages))

    async def _say(self, job: _Job, terms: _Terms, line: _Line) -> Sequence[Outcome]:
        client = line.client
        self._busy.add(client)
        late = self._reactor.callLater(self._limits.longest, client.abort)
        try:
            line.sent += 1
            outcomes = await client.send(job.envelope, job.message, job.prefix, job.recipients)
        except Exception:
            client.abort()
            raise
        finally:
            self._busy.discard(client)
            if late.active():
                late.cancel()
        self._tell_outcomes(job, terms, client, outcomes)
        errors = [outcome.error for outcome in outcomes]
        if all(isinstance(error, TemporaryError) for error in errors) or any(
            isinstance(error, HostUnreachable) for error in errors
        ):
            self._pace.pushed_back(terms.at)
        elif self._pace.went_well(terms.at):
            self._hosts.look()
        self._pool.put(terms, line)
        return outcomes

    async def _connect(self, terms: _Terms) -> SMTPClient:
        settings = ClientSettings(
            hello=self._hostname,
            lmtp=terms.protocol == "lmtp",
            requirement=terms.requirement,
            login=self._logins[terms.login] if terms.login else None,
            implicit_tls=terms.protocol == "smtps",
            limits=self._client_limits,
        )
        try:
            return await self._dial(terms, settings)
        except TLSFailed as error:
            if terms.requirement.level != "may" or settings.implicit_tls:
                raise
            # RFC 7435 §3: where TLS is only better than nothing, nothing is better than no mail.
            self._log.info(
                "relay: no TLS with {host}[{address}]:{port}, going on without: {error}",
                host=terms.host,
                address=terms.address,
                port=terms.port,
                error=str(error),
            )
            return await self._dial(
                terms, replace(settings, requirement=replace(terms.requirement, level="none"))
            )

    async def _dial(self, terms: _Terms, settings: ClientSettings) -> SMTPClient:
        if self._stopped:
            raise HostUnreachable("We are shutting down")
        dialing = Deferred.fromCoroutine(
            connect(self._endpoint(terms), terms.host, settings, self._reactor, self._trust, self._observe)
        )
        self._dialing.add(dialing)
        try:
            return await dialing
        except CancelledError:
            if self._stopped:
                raise HostUnreachable("We are shutting down") from None
            raise
        finally:
            self._dialing.discard(dialing)

    def _endpoint(self, terms: _Terms) -> IStreamClientEndpoint:
        timeout = self._client_limits.connect_timeout
        address = terms.address
        if not terms.port:
            return UNIXClientEndpoint(self._reactor, address, timeout=timeout)
        endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        source = self._sources.get(ip_address(address).version)
        bind = None if source is None or _is_loopback(address) else (source, 0)
        return endpoint(self._reactor, address, terms.port, timeout=timeout, bindAddress=bind)

    # The log

    def _tell(self, job: _Job, error: MailError, candidate: Candidate | None = None) -> None:
        """Nobody was spoken to, or nobody would listen."""
        tell(
            self._log,
            "relay: {sender} to {recipients} by {hop}, {host}: {result}: {error}",
            sender=str(job.envelope.sender or "<>"),
            recipients=list(map(str, job.recipients)),
            hop=job.place,
            host=str(candidate) if candidate is not None else "no host",
            result="refused" if isinstance(error, PermanentError) else "deferred",
            error=str(error),
        )

    def _tell_outcomes(
        self, job: _Job, terms: _Terms, client: SMTPClient, outcomes: Sequence[Outcome]
    ) -> None:
        """One line for each thing that the host said."""
        said: dict[tuple[str, str], list[str]] = defaultdict(list)
        for outcome in outcomes:
            error = outcome.error
            result = (
                "sent" if error is None else "refused" if isinstance(error, PermanentError) else "deferred"
            )
            said[result, outcome.reply or str(error or "")].append(str(outcome.recipient))
        for (result, reply), recipients in said.items():
            tell(
                self._log,
                "relay: {sender} to {recipients} by {hop}, {host}[{address}]:{port}, "
                "TLS {tls} ({required} by {policy}): {result}: {reply}",
                sender=str(job.envelope.sender or "<>"),
                recipients=recipients,
                hop=job.place,
                host=terms.host,
                address=terms.address,
                port=terms.port,
                tls=client.tls.version if client.tls is not None else "none",
                required=terms.requirement.level,
                policy=terms.requirement.source,
                result=result,
                reply=reply,
            )


def _hop(place: str) -> NextHop:
    """
    Raises:
        NoSuchDomain: it is a domain that cannot be.
        HostUnreachable: it is somebody's setting; the mail waits until it is mended.
    """
    try:
        return NextHop.parse(place)
    except ValueError:
        if ":" in place or ";" in place:
            raise HostUnreachable(f"{place} is no next hop") from None
        raise NoSuchDomain() from None


def _is_loopback(address: str) -> bool:
    return not address.startswith("/") and ip_address(address).is_loopback
