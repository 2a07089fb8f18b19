"""
How a message is taken over: what is local is delivered, the rest queued, in one commit if that can be.

Whoever reads the reply may forget the message, so every target is in one of three places by
then: delivered, in the queue, or named in the reply as failed.  Where one reply stands for
several targets (SMTP has one for all recipients, LMTP one for each, behind which an alias may
have many) and only some of them failed, the others cannot be taken back: those that failed
go to the queue, which tries them again or reports them to the sender.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailplat.delivery.local import LocalDelivery
from mailplat.delivery.queue import Queue
from mailplat.errors import MailError, PermanentError
from mailplat.interfaces import ISpooledMessage
from mailplat.values import LOCAL, Envelope, ReportRequest, Target


@dataclass(frozen=True, slots=True)
class Copy:
    """
    One copy that a message becomes.

    Attributes:
        target: where it goes.
        request: what the sender wants to hear about it.
        reply: copies with the same number share a reply.
    """

    target: Target
    request: ReportRequest
    reply: int

    @property
    def is_immediate(self) -> bool:
        """It can be delivered at once, and nobody wants to hear that it was."""
        return self.target.agent == LOCAL and "SUCCESS" not in (self.request.notify or ())


@dataclass(frozen=True, slots=True)
class Accepted:
    """
    What became of the copies.

    Attributes:
        errors: for each copy an error, or None if it is delivered or queued, durably.
        item: the queue's id of what is queued, if anything is.
        queued: how many copies that are.
    """

    errors: Sequence[MailError | None]
    item: int | None = None
    queued: int = 0


@dataclass(frozen=True, slots=True)
class Acceptance:
    """
    Args:
        local: delivers to the accounts of this house.
        queue: for everything else; without one all targets must be local.
    """

    local: LocalDelivery
    queue: Queue | None = None

    async def accept(
        self,
        envelope: Envelope,
        message: ISpooledMessage,
        prefix: bytes,
        copies: Sequence[Copy],
        account: str,
    ) -> Accepted:
        """
        Take the message over for these copies.

        Args:
            prefix: trace header lines for every copy.
            account: who submitted it; empty for a stranger.

        Raises:
            MailError: the same for all; nothing was taken over.
        """
        targets: list[Target] = []
        later: list[tuple[Target, ReportRequest]] = []
        for copy in copies:
            if copy.is_immediate and not envelope.release:
                targets.append(copy.target)
            else:
                later.append((copy.target, copy.request))
        if self.queue is None or not later:
            return await self._deliver(envelope, message, prefix, copies, account)
        item = self.queue.item(envelope, later, message, prefix, account)
        try:
            ids = await self.local.deliver_with(envelope, message, prefix, targets, self.queue.store, [item])
        except PermanentError:
            # One of the accounts is the reason; the queue finds out which, and reports it.
            ids = None
        if ids is None:
            later = [(copy.target, copy.request) for copy in copies]
            ids = await self.queue.store.add([self.queue.item(envelope, later, message, prefix, account)])
        return Accepted([None] * len(copies), ids[0], len(later))

    async def _deliver(
        self,
        envelope: Envelope,
        message: ISpooledMessage,
        prefix: bytes,
        copies: Sequence[Copy],
        account: str,
    ) -> Accepted:
        outcomes = await self.local.deliver(envelope, message, prefix, [copy.target for copy in copies])
        errors = [outcome.error for outcome in outcomes]
        if self.queue is None or not any(errors):
            return Accepted(errors)
        pairs = list(zip(copies, errors, strict=True))
        taken = {copy.reply for copy, error in pairs if error is None}
        failed = [
            (copy.target, copy.request) for copy, error in pairs if error is not None and copy.reply in taken
        ]
        errors = [None if copy.reply in taken else error for copy, error in pairs]
        if not failed:
            return Accepted(errors)
        ids = await self.queue.store.add([self.queue.item(envelope, failed, message, prefix, account)])
        return Accepted(errors, ids[0], len(failed))
