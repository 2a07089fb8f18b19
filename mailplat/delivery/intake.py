"""
Where mail enters the house: what one peer may send, and what happens to it.

A receiver is the avatar of one SMTP or LMTP peer.  There are three kinds.  A `Receiver`
takes mail for our own recipients only, from anybody: it is what anonymous peers get.  A
`SubmissionReceiver` belongs to an account: it takes mail only under sender addresses
that the account owns, and completes what the client left out (RFC 6409 §8).  A
`LocalReceiver` does so for programs on this host.

All put the trace of the message into a *prefix*; the message itself is never rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mailplat.delivery.acceptance import Acceptance, Accepted, Copy
from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.queue import Queue
from mailplat.delivery.rates import Rates
from mailplat.errors import (
    MailError,
    MessageRefused,
    MessageTooLarge,
    PermanentError,
    RelayDenied,
    SenderRefused,
)
from mailplat.interfaces import IMailReceiver, IRouter, ISpooledMessage, IVerifiesAddresses
from mailplat.logs import tell
from mailplat.message import compose
from mailplat.message.outline import header_size
from mailplat.values import LOCAL, NO_REQUEST, Address, Envelope, Outcome, Peer, ReportRequest, Target

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


@dataclass(frozen=True, slots=True)
class Intake:
    """
    What all receivers have in common, and what makes them: what `MailRealm` asks for one.

    Called with the peer and with the account it logged in as, None for nobody.

    Args:
        router: says where recipients are.
        agent: delivers to the accounts of this house.
        hostname: ours, for the Received field.
        clock: tells the date of the Received field.
        new_id: gives a new identifier, an atom, at each call.
        queue: what carries mail to other hosts, and tries again; without one mail is for our own
            accounts only.
        rates: how much mail one account or peer may send; None for as much as it likes.
    """

    router: IRouter
    agent: LocalDelivery
    hostname: str
    clock: IReactorTime
    limits: IntakeLimits = IntakeLimits()
    new_id: Callable[[], str] = field(default_factory=identifiers)
    queue: Queue | None = None
    rates: Rates | None = None

    def __call__(self, peer: Peer, account: str | None) -> Receiver:
        return Receiver(self, peer) if account is None else SubmissionReceiver(self, peer, account)


@implementer(IMailReceiver)
class Receiver:
    """
    Takes mail for our own recipients.

    Args:
        house: what it shares with all others.
        peer: who sends; the Received field names it.
    """

    authenticated = False
    _account = ""
    _log = Logger()

    def __init__(self, house: Intake, peer: Peer) -> None:
        self._house = house
        self._peer = peer
        #: What the router said about the recipients of the transaction under way.
        self._routes: dict[Address, Sequence[Target]] = {}

    async def sender(self, envelope: Envelope) -> None:
        self._routes.clear()
        if envelope.size > self._house.limits.message_size:
            raise MessageTooLarge()

    async def recipient(self, envelope: Envelope, recipient: Address) -> None:
        if recipient.domain and not self._house.router.is_local(recipient.domain):
            self._may_relay()
        self._routes[recipient] = await self._route(recipient, envelope.sender)
        self._spend()

    async def message(self, envelope: Envelope, message: ISpooledMessage) -> Sequence[Outcome]:
        header = await self._header(message)
        most = self._house.limits.received
        # The word alone is counted in a tenth of the time, and stands there as often as the field at least.
        if header.lower().count(b"received") > most and len(_RECEIVED.findall(header)) > most:
            raise MessageRefused("Too many Received fields: the message goes in a circle")
        prefix = self._prefix(envelope, header)
        errors: dict[Address, MailError | None] = {}
        copies: list[tuple[Address, Copy]] = []
        for number, recipient in enumerate(dict.fromkeys(envelope.recipients)):
            try:
                route = self._routes.get(recipient) or await self._route(recipient, envelope.sender)
            except MailError as error:
                errors[recipient] = error
            else:
                # RFC 2033 §4.2: over LMTP each recipient has a reply of its own.
                reply = number if self._peer.service == "lmtp" else 0
                copies += [
                    (recipient, Copy(target, _request(envelope, recipient, target), reply))
                    for target in route
                ]
        if copies:
            acceptance = Acceptance(self._house.agent, self._house.queue)
            accepted = await acceptance.accept(
                envelope, message, prefix, [copy for _, copy in copies], self._account
            )
            for (recipient, _), failure in zip(copies, accepted.errors, strict=True):
                errors[recipient] = _worse(errors.get(recipient), failure)
            self._note(envelope, message, accepted)
        return [Outcome(recipient, errors.get(recipient)) for recipient in envelope.recipients]

    # Inside

    def _note(self, envelope: Envelope, message: ISpooledMessage, accepted: Accepted) -> None:
        """One line for each message that is taken over: where it came from, and where it is now."""
        failed = len(accepted.errors) - accepted.errors.count(None)
        if failed == len(accepted.errors):
            return
        peer = self._peer
        text = (
            "Accepted on {service} from {host}, {account}, connection {connection}: {sender} to {recipients} "
            "recipients, {size} octets: {delivered} delivered, {queued} queued, {failed} failed"
        )
        tell(
            self._log,
            text if accepted.item is None else text + ", queue item {item}",
            service=peer.service,
            host=peer.host or "this machine",
            account=self._account or "not logged in",
            connection=peer.connection,
            sender=str(envelope.sender or "<>"),
            recipients=len(envelope.recipients),
            size=message.size,
            delivered=len(accepted.errors) - failed - accepted.queued,
            queued=accepted.queued,
            failed=failed,
            item=accepted.item,
        )

    def _spend(self) -> None:
        """One more recipient.  Raises RateExceeded."""
        if (rates := self._house.rates) is not None and not self._peer.is_loopback:
            rates.spend_as_peer(self._peer.host)

    def _may_relay(self) -> None:
        """Raise RelayDenied: this peer may send to our own domains only."""
        raise RelayDenied()

    async def _route(self, recipient: Address, sender: Address | None) -> Sequence[Target]:
        route: Sequence[Target] = await self._house.router.route(recipient, sender)
        if self._house.queue is None and not all(target.agent == LOCAL for target in route):
            # To take it for the accounts alone would lose the rest.
            raise RelayDenied("This server carries no mail to other hosts")
        return route

    async def _header(self, message: ISpooledMessage) -> bytes:
        size = min(header_size(message.outline), self._house.limits.header)
        pieces: list[bytes] = []
        for start in range(0, size, _PIECE):
            pieces.append(await message.read(start, min(_PIECE, size - start)))
        return b"".join(pieces)

    def _prefix(self, envelope: Envelope, header: bytes) -> bytes:
        """What stands before every copy."""
        return self._received(envelope)

    def _received(self, envelope: Envelope) -> bytes:
        """The trace field (RFC 5321 §4.4)."""
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
            hostname=self._house.hostname,
            protocol=protocol,
            identifier=self._house.new_id(),
            date=int(self._house.clock.seconds()),
            # Naming one of several recipients would tell it to the others (RFC 5321 §7.6).
            recipient=envelope.recipients[0] if len(envelope.recipients) == 1 else None,
            tls=peer.tls,
        )


@implementer(IVerifiesAddresses)
class SubmissionReceiver(Receiver):
    """
    Takes mail of one account's owner.

    Args:
        account: who logged in; the rest is as for `Receiver`.
    """

    authenticated = True

    def __init__(self, house: Intake, peer: Peer, account: str) -> None:
        super().__init__(house, peer)
        self._account = account

    async def sender(self, envelope: Envelope) -> None:
        await super().sender(envelope)
        # The null reverse-path belongs to nobody: notifications of a user agent have it
        # (RFC 8098 §3).
        if envelope.sender is not None and not await self._house.router.owns(self._account, envelope.sender):
            raise SenderRefused("This sender address is not yours")

    async def verify(self, address: Address) -> bool:
        await self._house.router.route(address, None)
        return not address.domain or self._house.router.is_local(address.domain)

    def _spend(self) -> None:
        if (rates := self._house.rates) is not None:
            rates.spend_as_account(self._account)

    def _may_relay(self) -> None:
        """Whoever has an account here may send to everybody."""

    def _prefix(self, envelope: Envelope, header: bytes) -> bytes:
        prefix = super()._prefix(envelope, header)
        # RFC 6409 §8.2, §8.3: what a message must have and the client left out.
        if not _DATE.search(header):
            prefix += b"Date: %b\r\n" % compose.rfc5322_date(int(self._house.clock.seconds())).encode("ascii")
        if not _MESSAGE_ID.search(header):
            domain = self._account.rpartition("@")[2] or self._house.hostname
            prefix += f"Message-ID: <{self._house.new_id()}@{domain}>\r\n".encode("ascii")
        return prefix


class LocalReceiver(SubmissionReceiver):
    """
    Takes mail of programs on this host that may write to the data directory anyway.

    They may send under any address of our domains, whether there is such an account or not
    (`root`, `www-data`).

    Args:
        house: see `Receiver`.
        user: who runs the program, for the Received field.
    """

    def __init__(self, house: Intake, user: int) -> None:
        super().__init__(house, Peer("local", "", 0), "")
        self._user = user

    async def sender(self, envelope: Envelope) -> None:
        await Receiver.sender(self, envelope)
        if envelope.sender is not None and not self._house.router.is_local(envelope.sender.domain):
            raise SenderRefused(f"{envelope.sender} is in no domain of this server")

    def _spend(self) -> None:
        """There is nobody to count it for."""

    def _received(self, envelope: Envelope) -> bytes:
        return compose.received_locally(
            user=self._user,
            hostname=self._house.hostname,
            identifier=self._house.new_id(),
            date=int(self._house.clock.seconds()),
            recipient=envelope.recipients[0] if len(envelope.recipients) == 1 else None,
        )


def _request(envelope: Envelope, recipient: Address, target: Target) -> ReportRequest:
    """What the sender wants to hear about one copy of a recipient's mail."""
    request = envelope.requests.get(recipient, NO_REQUEST)
    if target.address != recipient and not request.original:
        # RFC 3461 §5.2.1: the sender knows the recipient by the address it wrote.
        return replace(request, original=f"rfc822;{compose.path(recipient)}")
    return request


def _worse(one: MailError | None, other: MailError | None) -> MailError | None:
    """Of two results for one recipient the one to report: what may be tried again goes first."""
    if one is None or (isinstance(one, PermanentError) and other is not None):
        return other
    return one
