"""
Queue items as text: for people, and as JSON for programs.

What strangers chose (addresses, replies, headers) is shown without the characters that a
terminal would obey.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from mailplat.message.compose import path, rfc5322_date
from mailplat.values import LOCAL, NEVER, RELAY, QueuedRecipient, QueueItem, QueueStatus

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))

#: Characters of a reply that a line of the list has room for.
_REPLY = 100


def printable(text: str) -> str:
    """One line, with control characters and the like spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def span(seconds: float) -> str:
    """`5 d 3 h`, and below a day the largest unit alone: `12 min`, `40 s`."""
    left = max(0, int(seconds))
    unit, length = next((unit, length) for unit, length in _UNITS if left >= length or length == 1)
    hours = left % length // 3600 if unit == "d" else 0
    return f"{left // length} {unit}" + f" {hours} h" * bool(hours)


def octets(size: int) -> str:
    """`730`, `12 K`, `3.4 M`."""
    if size < 1024:
        return str(size)
    if size < 1024 * 1024:
        return f"{size / 1024:.0f} K"
    return f"{size / 1024 / 1024:.1f} M"


def next_hop(recipient: QueuedRecipient) -> str:
    """Where the recipient's copy goes: the next hop itself for the relay, `agent:place` for others."""
    agent, place = recipient.target.agent, recipient.target.place
    return place if agent == RELAY else agent if agent == place else f"{agent}:{place}"


def _sender(item: QueueItem) -> str:
    return printable(f"<{path(item.envelope.sender)}>")


def _when(recipient: QueuedRecipient, now: float) -> str:
    if recipient.due >= NEVER:
        return "held"
    return "due now" if recipient.due <= now else f"in {span(recipient.due - now)}"


def _address(recipient: QueuedRecipient) -> str:
    """The address, and the next hop where the address does not say it."""
    address, hop = recipient.target.address, next_hop(recipient)
    text = path(address)
    if hop not in (address.domain, f"{LOCAL}:{address}"):
        text += f" by {hop}"
    return printable(text)


def _reply(recipient: QueuedRecipient) -> str:
    text = printable(recipient.reply)
    if recipient.host:
        text = f"{printable(recipient.host)}: {text}"
    return text if len(text) <= _REPLY else text[: _REPLY - 1] + "…"


HEADING = f"{'ID':>8}  {'AGE':>8}  {'SIZE':>7}  SENDER, AND RECIPIENTS THAT ARE NOT DONE WITH"


def lines(item: QueueItem, recipients: Sequence[QueuedRecipient], now: float) -> Iterator[str]:
    """
    An item in the list.

    Args:
        recipients: of the item, those to show.
    """
    yield f"{item.id:>8}  {span(now - item.arrived):>8}  {octets(item.size):>7}  {_sender(item)}"
    for recipient in recipients:
        words = [_address(recipient), _when(recipient, now)]
        if recipient.attempts:
            words.append("tried once" if recipient.attempts == 1 else f"tried {recipient.attempts} times")
        yield f"{'':29}{', '.join(words)}"
        if recipient.reply:
            yield f"{'':31}{_reply(recipient)}"


def totals(status: QueueStatus, now: float) -> str:
    """The last line of a list."""
    if not status.items:
        return "nothing is queued"
    messages = "1 message" if status.items == 1 else f"{status.items} messages"
    recipients = "1 recipient" if status.recipients == 1 else f"{status.recipients} recipients"
    held = f", {status.held} held" if status.held else ""
    return f"{messages}, {recipients}{held}, the oldest for {span(now - status.oldest)}"


def _date(seconds: int, now: float) -> str:
    if seconds >= NEVER:
        return "never (held)"
    ago = f"{span(now - seconds)} ago" if seconds <= now else f"in {span(seconds - now)}"
    return f"{rfc5322_date(seconds)}  ({ago})"


def description(item: QueueItem, now: float) -> Iterator[str]:
    """Everything that is known of an item, but for the message itself."""
    envelope = item.envelope
    rows = [
        ("item", str(item.id)),
        ("sender", _sender(item)),
        ("account", printable(item.account)),
        ("arrived", _date(item.arrived, now)),
        ("size", f"{item.size} octets"),
        ("body", envelope.body + (", SMTPUTF8" if envelope.utf8 else "")),
        ("envelope id", printable(envelope.envelope_id)),
        ("returns", envelope.returns),
    ]
    for recipient in item.recipients:
        request = recipient.request
        notify = None if request.notify is None else ", ".join(sorted(request.notify)) or "NEVER"
        rows += [
            ("", ""),
            ("recipient", f"{printable(path(recipient.target.address))}  (number {recipient.number})"),
            ("  next hop", printable(next_hop(recipient))),
            ("  next attempt", _date(recipient.due, now)),
            ("  attempts", str(recipient.attempts)),
            ("  last host", printable(recipient.host)),
            ("  last reply", printable(recipient.reply)),
            ("  next notice", _date(recipient.notice, now)),
            ("  told already", "of the delay" if recipient.delayed else ""),
            ("  notify", notify or ""),
            ("  original", printable(request.original)),
        ]
    for name, value in rows:
        if value or not name:
            yield f"{name:16}{value}".rstrip()


def as_json(item: QueueItem, recipients: Sequence[QueuedRecipient], **more: Any) -> str:
    """
    An item as one line of JSON; times are seconds since 1970, null for never.

    Args:
        more: further members.
    """
    envelope = item.envelope
    return json.dumps(
        {
            "id": item.id,
            "sender": None if envelope.sender is None else path(envelope.sender),
            "account": item.account,
            "arrived": item.arrived,
            "size": item.size,
            "body": envelope.body,
            "utf8": envelope.utf8,
            "returns": envelope.returns,
            "envelope_id": envelope.envelope_id,
            "recipients": [
                {
                    "number": one.number,
                    "address": path(one.target.address),
                    "agent": one.target.agent,
                    "place": one.target.place,
                    "held": one.due >= NEVER,
                    "due": _or_null(one.due),
                    "notice": _or_null(one.notice),
                    "attempts": one.attempts,
                    "host": one.host,
                    "reply": one.reply,
                    "notify": None if one.request.notify is None else sorted(one.request.notify),
                    "original": one.request.original,
                    "delayed": one.delayed,
                }
                for one in recipients
            ],
            **more,
        }
    )


def _or_null(seconds: int) -> int | None:
    return None if seconds >= NEVER else seconds
