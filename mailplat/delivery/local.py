"""
Delivery to the mailboxes of this house.

Each account gets one copy: the shared body behind a prefix of its own (Return-Path and
Delivered-To, then the trace lines that all copies have).  Where the store can, all copies
are one commit.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mailplat.errors import MailError, PermanentError, TemporaryError
from mailplat.interfaces import (
    Delivery,
    ICommitsTogether,
    IDeliversWithQueue,
    IMailStore,
    IQueueStore,
    ISpooledMessage,
    NewItem,
    NewMessage,
)
from mailplat.message import compose
from mailplat.values import Envelope, Outcome, Settled, Target

#: Where mail arrives.
INBOX = "INBOX"


@implementer(IDeliversWithQueue)
class LocalDelivery:
    """
    Puts messages into INBOX; places are account names.

    Args:
        store: where the accounts are.  If it provides ICommitsTogether, all recipients of a
            message are one commit.
        clock: tells the INTERNALDATE.
    """

    def __init__(self, store: IMailStore, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock
        self._log = Logger()

    async def deliver(
        self,
        envelope: Envelope,
        message: ISpooledMessage,
        prefix: bytes,
        targets: Sequence[Target],
    ) -> Sequence[Outcome]:
        errors = await self._append(self._deliveries(envelope, message, prefix, targets))
        return [Outcome(target.address, errors[target.place]) for target in targets]

    async def deliver_with(
        self,
        envelope: Envelope,
        message: ISpooledMessage,
        prefix: bytes,
        targets: Sequence[Target],
        queue: IQueueStore,
        items: Sequence[NewItem] = (),
        results: Sequence[Settled] = (),
    ) -> Sequence[int] | None:
        store = self._store
        if not ICommitsTogether.providedBy(store) or store.queue is not queue:
            return None
        together: ICommitsTogether = store
        deliveries = self._deliveries(envelope, message, prefix, targets)
        _, ids = await together.commit(deliveries, items, results)
        return ids

    def _deliveries(
        self, envelope: Envelope, message: ISpooledMessage, prefix: bytes, targets: Sequence[Target]
    ) -> list[Delivery]:
        """One for each account."""
        date = int(self._clock.seconds())
        # RFC 5321 §4.4: final delivery puts the return path at the very top.
        return_path = compose.return_path(envelope.sender)
        deliveries: dict[str, Delivery] = {}
        for target in targets:
            account = target.place
            if account not in deliveries:
                own = return_path + compose.delivered_to(target.address) + prefix
                deliveries[account] = Delivery(account, INBOX, NewMessage(message, own, frozenset(), date))
        return list(deliveries.values())

    async def _append(self, deliveries: Sequence[Delivery]) -> dict[str, MailError | None]:
        """What became of each account's copy."""
        store = self._store
        if ICommitsTogether.providedBy(store):
            together: ICommitsTogether = store
            try:
                await together.commit(deliveries)
            except PermanentError as error:
                # Nothing was appended.  Perhaps one account is the reason: the others
                # shall not suffer for it.
                if len(deliveries) == 1:
                    return {deliveries[0].account: error}
            except TemporaryError as error:
                return {delivery.account: error for delivery in deliveries}
            else:
                return {delivery.account: None for delivery in deliveries}
        return {delivery.account: await self._append_one(delivery) for delivery in deliveries}

    async def _append_one(self, delivery: Delivery) -> MailError | None:
        try:
            account = await self._store.account(delivery.account)
            mailbox = await account.open(delivery.mailbox)
            await mailbox.append([delivery.message])
        except MailError as error:
            return error
        except Exception:
            # Others may have their copy already, and their outcome must be told.
            self._log.failure("delivery to {account} failed", account=delivery.account)
            return TemporaryError()
        return None
