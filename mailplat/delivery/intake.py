"""
Where mail enters the house: what one peer may send, and what happens to it.

A receiver is the avatar of one SMTP or LMTP peer.  There are two kinds.  A `Receiver`
takes mail for our own recipients only, from anybody: it is what anonymous peers get.  A
`SubmissionReceiver` belongs to an account: it takes mail only under sender addresses
that the account owns, and completes what the client left out (RFC 6409 §8).

Both put the trace of the message into a *prefix*; the message itself is never rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailplat.errors import (
    MailError,
    MessageRefused,
    MessageTooLarge,
    NoRouteYet,
    PermanentError,
    RelayDenied,
    SenderRefused,
)
from mailplat.interfaces import IDeliveryAgent, IMailReceiver, IRouter, ISpooledMessage
from mailplat.message import compose
from mailplat.message.outline import header_size
from mailplat.values import Address, Envelope, Outcome, Peer

_PIECE = 128 * 1024

_RECEIVED = re.compile(rb"^Received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_DATE = re.compile(rb"^Date[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^Message-ID[ \t]*:", re.IGNORECASE | re.MULTILINE)


def identifiers() -> Callable[[], str]:
    """
    Gives a new identifier for a message at each call, 80 random bits in hexadecimal.

    They have to differ, not to be secret, so the system is asked for randomness only once.
    """
    bits = Random().getrandbits
    return lambda: f"{bits(80):020x}"


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """
    Attributes:
        message_size: octets a message may declare by SIZE= (RFC 1870).
        received: Received fields a message may bring; more means that it goes in a
            circle (RFC 5321 §6.3).
        header: octets of the header that are looked at.
    """

    message_size: int = 52_428_800
    received: int = 100
    header: int = 1024 * 1024


@implementer(IMailReceiver)
class Receiver:
    """
    Takes mail for our own recipients.

    Args:
        peer: who sends; the Received field names it.
        router: says where recipients are.
        agent: delivers to the accounts that the router named.
        hostname: ours, for the Received field.
        clock: tells the date of the Received field.
        new_id: gives a new identifier, an atom, at each call.
    """

    def __init__(
        self,
        peer: Peer,
        router: IRouter,
        agent: IDeliveryAgent,
        hostname: str,
        clock: IReactorTime,
        new_id: Callable[[], str],
        limits: IntakeLimits | None = None,
    ) -> None:
        self._peer = peer
        self._router = router
        self._agent = agent
        self._hostname = hostname
        self._clock = clock
        self._limits = limits or IntakeLimits()
        self._new_id = new_id
        #: What the router said about the recipients of the transaction under way.
        self._routes: dict[Address, Sequence[str | Address]] = {}

    authenticated = False

    async def sender(self, envelope: Envelope) -> None:
        self._routes.clear()
        if envelope.size > self._limits.message_size:
            raise MessageTooLarge()

    async def recipient(self, envelope: Envelope, recipient: Address) -> None:
        if recipient.domain and not self._router.is_local(recipient.domain):
            raise self._elsewhere()
        self._routes[recipient] = await self._local_route(recipient)

    async def message(self, envelope: Envelope, message: ISpooledMessage) -> Sequence[Outcome]:
        header = await self._header(message)
        if len(_RECEIVED.findall(header)) > self._limits.received:
            raise MessageRefused("Too many Received fields: the message goes in a circle")
        prefix = self._prefix(envelope, header)
        errors: dict[Address, MailError | None] = {}
        pairs: list[tuple[Address, str]] = []
        for recipient in envelope.recipients:
            try:
                route = self._routes.get(recipient) or await self._local_route(recipient)
            except MailError as error:
                errors[recipient] = error
            else:
                pairs += [(recipient, target) for target in route if isinstance(target, str)]
        for outcome in await self._agent.deliver(envelope, message, prefix, pairs) if pairs else ():
            errors[outcome.recipient] = _worse(errors.get(outcome.recipient), outcome.error)
        return [Outcome(recipient, errors.get(recipient)) for recipient in envelope.recipients]

    # Inside

    def _elsewhere(self) -> MailError:
        """Why a recipient of another host is not accepted."""
        return RelayDenied()

    async def _local_route(self, recipient: Address) -> Sequence[str | Address]:
        route = await self._router.route(recipient)
        if not all(isinstance(target, str) for target in route):
            # An alias that leads out of the house, wholly or in part.  To take it for the accounts
            # alone would lose the rest.
            raise NoRouteYet()
        return route

    async def _header(self, message: ISpooledMessage) -> bytes:
        size = min(header_size(message.outline), self._limits.header)
        if message.data is not None:
            data: bytes = message.data
            return data[:size]
        pieces: list[bytes] = []
        for start in range(0, size, _PIECE):
            pieces.append(await message.read(start, min(_PIECE, size - start)))
        return b"".join(pieces)

    def _prefix(self, envelope: Envelope, header: bytes) -> bytes:
        """The trace field that every copy has (RFC 5321 §4.4)."""
        peer = self._peer
        protocol = compose.protocol_name(
            peer.service,
            extended=peer.extended,
            tls=peer.tls is not None,
            authenticated=self.authenticated,
            utf8=envelope.utf8,
        )
        return compose.received(
            hello=peer.hello,
            peer_host=peer.host,
            hostname=self._hostname,
            protocol=protocol,
            identifier=self._new_id(),
            date=int(self._clock.seconds()),
            # Naming one of several recipients would tell it to the others (RFC 5321 §7.6).
            recipient=envelope.recipients[0] if len(envelope.recipients) == 1 else None,
            tls=peer.tls,
        )


class SubmissionReceiver(Receiver):
    """
    Takes mail of one account's owner.

    Args:
        account: who logged in; the rest is as for `Receiver`.
    """

    authenticated = True

    def __init__(
        self,
        account: str,
        peer: Peer,
        router: IRouter,
        agent: IDeliveryAgent,
        hostname: str,
        clock: IReactorTime,
        new_id: Callable[[], str],
        limits: IntakeLimits | None = None,
    ) -> None:
        super().__init__(peer, router, agent, hostname, clock, new_id, limits)
        self._account = account

    async def sender(self, envelope: Envelope) -> None:
        await super().sender(envelope)
        # The null reverse-path belongs to nobody: notifications of a user agent have it
        # (RFC 8098 §3).
        if envelope.sender is not None and not await self._router.owns(self._account, envelope.sender):
            raise SenderRefused("This sender address is not yours")

    def _elsewhere(self) -> MailError:
        return NoRouteYet()

    def _prefix(self, envelope: Envelope, header: bytes) -> bytes:
        prefix = super()._prefix(envelope, header)
        # RFC 6409 §8.2, §8.3: what a message must have and the client left out.
        if not _DATE.search(header):
            prefix += b"Date: %b\r\n" % compose.rfc5322_date(int(self._clock.seconds())).encode("ascii")
        if not _MESSAGE_ID.search(header):
            domain = self._account.rpartition("@")[2] or self._hostname
            prefix += f"Message-ID: <{self._new_id()}@{domain}>\r\n".encode("ascii")
        return prefix


@dataclass(frozen=True, slots=True)
class Intake:
    """
    Makes the receiver of a peer: what `MailRealm` asks for one.

    Called with the peer and with the account it logged in as, None for nobody.
    """

    router: IRouter
    agent: IDeliveryAgent
    hostname: str
    clock: IReactorTime
    limits: IntakeLimits = IntakeLimits()
    new_id: Callable[[], str] = field(default_factory=identifiers)

    def __call__(self, peer: Peer, account: str | None) -> Receiver:
        parts = (peer, self.router, self.agent, self.hostname, self.clock, self.new_id, self.limits)
        return Receiver(*parts) if account is None else SubmissionReceiver(account, *parts)


def _worse(one: MailError | None, other: MailError | None) -> MailError | None:
    """Of two results for one recipient the one to report: what may be tried again goes first."""
    if one is None or (isinstance(one, PermanentError) and other is not None):
        return other
    return one
