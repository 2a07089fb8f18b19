"""
Tells senders what became of their mail: failure, delay, and success where they asked for it.

What is to be told follows from NOTIFY, RET, ENVID and ORCPT (RFC 3461), and becomes a new queue
item for the sender, with the null reverse-path.  A message that has the null reverse-path itself is
never reported about (RFC 5321 §4.5.5), so there is no report about a report.

`mailplat.message.report` knows how a report is written.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from mailplat.delivery.queue import Schedule
from mailplat.errors import Expired, NoSuchRecipient, TemporaryError
from mailplat.interfaces import IRouter, ISpool, ISpooledMessage, NewItem
from mailplat.message.compose import path
from mailplat.message.outline import BadRecord, header_size
from mailplat.message.report import Frame, RecipientStatus, delivery_status, needs_utf8, plain
from mailplat.values import Address, Envelope, Outcome, QueuedRecipient, QueueItem, ReportRequest

_PIECE = 128 * 1024

#: Recipients that the text for a person names; the part for programs names all.
_NAMED = 20

#: A reply's code, and its enhanced code if it has one of the same class (RFC 2034 §4).
_REPLY = re.compile(r"\s*([245])[0-9][0-9](?:[ -]+(\1\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.]))?(?![0-9])")

_MESSAGE_ID = re.compile(rb"^Message-ID[ \t]*:[ \t\r\n]*(<[!-;=?-~]{1,250}>)", re.IGNORECASE | re.MULTILINE)

#: Too old (RFC 3463 §3.5): a persistent transient failure, although it is the end of it.
_EXPIRED = "4.4.7"


@dataclass(frozen=True, slots=True)
class ReportLimits:
    """
    Attributes:
        whole: a failed message up to this size, in octets, comes back whole if its sender did not
            say; a larger one as its header.
        header: octets of a header that are brought back.
    """

    whole: int = 65_536
    header: int = 262_144


class Reports:
    """
    Makes the reports of one server.

    Each method answers with an item for the queue, to be added in the commit that writes down what it
    tells; the caller closes its `body` afterwards.  It is None if there is nothing to tell: the sender
    did not ask, or there is nobody to tell it to.

    Args:
        router: says where senders are.
        spool: takes a report as it is written.
        hostname: ours.
        postmaster: whom reports are from.
        new_id: gives a new identifier, an atom, at each call.
        schedule: says until when mail is tried, and when reports are given up.
        clock: its seconds are those since 1970.
    """

    def __init__(
        self,
        router: IRouter,
        spool: ISpool,
        hostname: str,
        postmaster: Address,
        new_id: Callable[[], str],
        schedule: Schedule,
        clock: IReactorTime,
        limits: ReportLimits | None = None,
    ) -> None:
        self._router = router
        self._spool = spool
        self._hostname = hostname
        self._postmaster = postmaster
        self._new_id = new_id
        self._schedule = schedule
        self._clock = clock
        self._limits = limits or ReportLimits()

    async def report(
        self,
        item: QueueItem,
        about: Sequence[tuple[QueuedRecipient, Outcome]],
        message: ISpooledMessage,
        prefix: bytes,
    ) -> NewItem | None:
        """
        About recipients that are done with, for better or worse, or delayed if the error is temporary.

        Args:
            about: recipients of `item`, as they are after the last attempt, and what became of it.
            message, prefix: the item's; they stay the caller's.

        Raises:
            StorageFull; and TemporaryError, when it is not known where the sender is.
        """
        now = int(self._clock.seconds())
        until = self._schedule.end(item.envelope, item.arrived)
        statuses = [
            _status(one, outcome, now, until) for one, outcome in about if _wanted(one.request, outcome)
        ]
        return await self._report(item, statuses, message, prefix, now)

    async def _report(
        self,
        item: QueueItem,
        statuses: Sequence[RecipientStatus],
        message: ISpooledMessage,
        prefix: bytes,
        now: int,
    ) -> NewItem | None:
        sender = item.envelope.sender
        if sender is None or not statuses:
            return None
        if sender.domain.startswith("["):
            # An account's sender is an address of ours; this one is a stranger's, who cannot have us
            # connect to an address of his choice.
            return None
        try:
            targets = await self._router.route(sender, None)
        except NoSuchRecipient:
            return None
        header = prefix + await self._header(message)
        envelope = item.envelope
        whole = False
        if any(one.action == "failed" for one in statuses):
            # RFC 3461 §4.3: RET is about failures only.
            whole = envelope.returns == "FULL" or (not envelope.returns and item.size <= self._limits.whole)
        eight_bit = not header.isascii()
        if whole and not eight_bit:
            declared = envelope.body != "7BIT" or envelope.utf8
            eight_bit = declared if message.data is None else not message.data.isascii()
        # A sender that has no UTF-8 in its own mail may not be able to take any (RFC 6533 §2).
        utf8 = not str(sender).isascii() or (
            envelope.utf8
            and not (header.isascii() and envelope.envelope_id.isascii() and not needs_utf8(statuses))
        )
        subject, text = _words(self._hostname, statuses, whole)
        message_id = _MESSAGE_ID.search(header)
        frame = Frame(
            self._new_id(),
            self._hostname,
            self._postmaster,
            sender,
            now,
            subject,
            message_id[1].decode("ascii") if message_id else "",
            utf8,
            eight_bit,
            whole,
        )
        status = delivery_status(self._hostname, envelope.envelope_id, item.arrived, statuses, utf8)
        writer = self._spool.begin()
        try:
            await writer.write(frame.opening(text, status))
            if whole:
                await writer.write(prefix)
                for start in range(0, message.size, _PIECE):
                    await writer.write(await message.read(start, _PIECE))
            else:
                await writer.write(header)
            await writer.write(frame.closing())
            body = await writer.finish()
        except BaseException:
            writer.abandon()
            raise
        back = Envelope(None, body="8BITMIME" if eight_bit or utf8 else "7BIT", utf8=utf8)
        notice = self._schedule.first_notice(back, now)
        # No more reports come of it: they would have nobody to go to.
        never = ReportRequest(frozenset())
        recipients = [
            QueuedRecipient(number, target, never, due=now, notice=notice)
            for number, target in enumerate(targets)
        ]
        return NewItem(back, body, b"", recipients, account="", arrived=now)

    async def _header(self, message: ISpooledMessage) -> bytes:
        """The message's header, up to whole lines of the limit."""
        try:
            size = header_size(message.outline)
        except BadRecord:
            size = message.size
        size = min(size, self._limits.header)
        if message.data is not None:
            header: bytes = message.data[:size]
        else:
            pieces = [
                await message.read(start, min(_PIECE, size - start)) for start in range(0, size, _PIECE)
            ]
            header = b"".join(pieces)
        end = header.find(b"\r\n\r\n")
        if end >= 0:
            return header[: end + 2]
        return header[: header.rfind(b"\r\n") + 2] if b"\r\n" in header else b""


def _wanted(request: ReportRequest, outcome: Outcome) -> bool:
    """RFC 3461 §4.1, and §5.2.1: who passes the request on leaves it to the next host."""
    notify = request.notify
    if outcome.error is None:
        return "SUCCESS" in (notify or ()) and not outcome.passed_on
    return notify is None or ("DELAY" if isinstance(outcome.error, TemporaryError) else "FAILURE") in notify


def _status(one: QueuedRecipient, outcome: Outcome, now: int, until: int) -> RecipientStatus:
    error, host, text = outcome.error, outcome.host, outcome.reply
    last_attempt: int | None = now
    retry_until = None
    if error is None:
        action = "relayed" if outcome.relayed else "delivered"
        status = _status_of(host, text, "2") or "2.0.0"
    elif isinstance(error, TemporaryError):
        action, last_attempt, retry_until = "delayed", None, until
        status = _status_of(host, text, "4") or "4.0.0"
    elif isinstance(error, Expired):
        # What matters is why it was not delivered all the time: see the last attempt.
        action, status = "failed", _EXPIRED
        host, text = host or one.host, text or one.reply or error.text
    else:
        action = "failed"
        status = _status_of(host, text, "5") or error.status
        text = text or error.text
    return RecipientStatus(
        one.target.address, action, status, one.request.original, host, text, last_attempt, retry_until
    )


def _status_of(host: str, reply: str, kind: str) -> str:
    """The status code of a host's reply; empty if it has none of that class."""
    match = _REPLY.match(reply[:40])
    if not host or match is None or match[1] != kind:
        return ""
    return match[2] or f"{kind}.0.0"


# For a person

_HEADINGS = (
    ("failed", "It could not be delivered to:"),
    ("delayed", "It has not been delivered yet to:"),
    ("delivered", "It was delivered to:"),
    (
        "relayed",
        "It was passed on to a mail system that does not report on deliveries. You will hear nothing more "
        "of it, unless it fails:",
    ),
)

#: Beginning of a status code, without its class -> what its reader can do.  The first that fits holds.
_ADVICE = (
    ("1.10", "The domain of this address says that it takes no mail. Check the address."),
    ("1.1", "Check the address: nobody of this name is known there."),
    ("1.2", "Check the part after the @: there is no such domain."),
    ("1.", "Check the address."),
    ("2.2", "The mailbox is full. Try again later, or reach the recipient in another way."),
    ("2.3", "The message is too large for this recipient. Send it without attachments, or in parts."),
    ("2.", "The mailbox cannot take mail. Reach the recipient in another way."),
    ("3.4", "The message is too large for the mail system there. Send it without attachments, or in parts."),
    ("4.", "The mail system there did not answer or would not take the message. Try again later."),
    ("7.", "The mail system there refuses the message. Its answer may say why; its administrator can help."),
)


def _words(hostname: str, statuses: Sequence[RecipientStatus], whole: bool) -> tuple[str, str]:
    """Subject and text."""
    actions = {one.action for one in statuses}
    if "failed" in actions:
        subject = "Your message could not be delivered"
    elif "delayed" in actions:
        subject = "Your message is delayed (you need not send it again)"
    else:
        subject = "Your message was delivered" if actions == {"delivered"} else "Your message was passed on"
    paragraphs = [_wrapped(f"This is the mail system at {hostname}. It reports on a message that you sent.")]
    for action, heading in _HEADINGS:
        about = [one for one in statuses if one.action == action]
        if about:
            paragraphs += [_wrapped(heading), *map(_paragraph, about[:_NAMED])]
            if len(about) > _NAMED:
                paragraphs.append(_wrapped(f"and {len(about) - _NAMED} more, named in the next part."))
    if "delayed" in actions:
        paragraphs.append(
            _wrapped(
                "You need not do anything: it is tried again, and you will be told if it fails in the end."
            )
        )
    what = "Your message" if whole else "The header of your message"
    paragraphs.append(_wrapped(f"{what} is attached."))
    return subject, "\n\n".join(paragraphs) + "\n"


def _paragraph(one: RecipientStatus) -> str:
    lines = [f"  {plain(path(one.address))}"]
    said = plain(one.text)
    if one.action not in ("delivered", "relayed"):
        if said:
            lines.append(_wrapped(f"{plain(one.host)} said: {said}" if one.host else said, 4))
        if one.status == _EXPIRED:
            lines.append(_wrapped("It was tried for as long as it is worth trying, and given up.", 4))
        if one.action == "failed":
            kind = one.status.partition(".")[2]
            lines += [_wrapped(advice, 4) for start, advice in _ADVICE if kind.startswith(start)][:1]
    elif said and one.host:
        lines.append(_wrapped(f"{plain(one.host)} said: {said}", 4))
    return "\n".join(lines)


def _wrapped(text: str, indent: int = 0) -> str:
    space = " " * indent
    return textwrap.fill(text, 76, initial_indent=space, subsequent_indent=space, break_on_hyphens=False)
