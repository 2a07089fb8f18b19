"""What every queue store does with what it is given, wherever it keeps it."""

from __future__ import annotations

from dataclasses import replace

from mailplat.values import Envelope, QueuedRecipient


def stated(envelope: Envelope) -> Envelope:
    """As much of an envelope as is kept; see `QueueItem.envelope`."""
    return Envelope(
        envelope.sender,
        body=envelope.body,
        utf8=envelope.utf8,
        returns=envelope.returns,
        envelope_id=envelope.envelope_id,
    )


def merged(new: QueuedRecipient, old: QueuedRecipient, taken: QueuedRecipient | None) -> QueuedRecipient:
    """
    What a recipient becomes; see `IQueueStore.settle`.

    Args:
        new: what the attempt came to.
        old: as it is now; only its number, target, due and notice matter.
        taken: as it was handed out for the attempt; None if nobody took it.
    """
    if taken is None or (taken.target, taken.due, taken.notice) == (old.target, old.due, old.notice):
        return replace(new, number=old.number)
    # An operator decided otherwise while the attempt was under way.
    return replace(new, number=old.number, target=old.target, due=old.due, notice=old.notice)
