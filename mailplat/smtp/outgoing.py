"""
A message made ready for one host: what that host can take of it, and its commands.

Here stands what a client does where a host lacks an extension: a domain in its ASCII form,
an 8-bit message made a 7-bit one, a parameter left out; and where nothing can be done, the
error, before anything is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import idna

from mailplat.errors import (
    InvalidMessage,
    MailError,
    MessageTooLarge,
    UTF8Unsupported,
)
from mailplat.interfaces import ISpooledMessage
from mailplat.message.downgrade import HEADER, Step, converted, plan, regions
from mailplat.message.outline import BadRecord, Outline
from mailplat.message.structure import Scanner
from mailplat.smtp.data import Fault, has_lone_line_break
from mailplat.smtp.extensions import Extensions
from mailplat.smtp.grammar import encode_xtext, format_path, is_ascii
from mailplat.values import NO_REQUEST, Address, Envelope, ReportRequest
from mailplat.wire import Wire

#: Octets read at a time while a message is only looked at.
_PIECE = 128 * 1024

#: A header that has to be changed is not longer than this.
_LONGEST_HEADER = 128 * 1024

#: A message up to this size is sent in one piece, together with the commands before it.
_SMALL = 128 * 1024


class Outgoing:
    """
    Attributes:
        recipients: all of them.
        refused: by index, the error of those that this host cannot be told of.
        mail: the MAIL command.
        rcpt: the RCPT command of each recipient, by index.
        whole: the content, if it is small and at hand; None otherwise.
        steps: how the message is made a 7-bit one; None if it goes as it is.
    """

    def __init__(self, recipients: Sequence[Address], prefix: bytes, message: ISpooledMessage) -> None:
        self.recipients = recipients
        self.refused: dict[int, MailError] = {}
        self.mail = b""
        self.rcpt: list[bytes] = []
        self.whole: bytes | None = None
        self.steps: Sequence[Step] | None = None
        self._prefix = prefix
        self._message = message

    async def pieces(self, length: int) -> AsyncIterator[bytes]:
        """The content, about `length` octets at a time."""
        if self.whole is not None:
            yield self.whole
            return
        if self.steps is not None:
            if self._prefix:
                yield self._prefix
            async for piece in converted(self.steps, self._message.read, length):
                yield piece
            return
        start = 0
        piece = self._prefix
        while start < self._message.size:
            data = await self._message.read(start, length - len(piece) if len(piece) < length else length)
            start += len(data)
            yield piece + data if piece else data
            piece = b""
        if piece:
            yield piece


async def prepare(
    envelope: Envelope,
    message: ISpooledMessage,
    prefix: bytes,
    recipients: Sequence[Address],
    extensions: Extensions,
    wire: Wire,
) -> Outgoing:
    """
    Make a message ready, as far as it can be.

    Args:
        wire: others run while a large message is looked at.

    Raises:
        WireError.
    """
    outgoing = Outgoing(recipients, prefix, message)
    sender = envelope.sender and _with_ascii_domain(envelope.sender)
    addressed = [_with_ascii_domain(recipient) for recipient in recipients]
    utf8 = extensions.utf8 and (envelope.utf8 or not all(map(is_ascii, (sender, *addressed))))
    try:
        await _fit(outgoing, envelope, sender, message, prefix, extensions, utf8, wire)
    except MailError as error:
        outgoing.refused = dict.fromkeys(range(len(recipients)), error)
        return outgoing

    mail = f"MAIL FROM:{format_path(sender)}"
    # Of a converted message the size is not known before it is sent.
    if extensions.size and outgoing.steps is None:
        mail += f" SIZE={len(prefix) + message.size}"
    if extensions.eight_bit and (
        envelope.body == "8BITMIME" or (message.data is not None and not message.data.isascii())
    ):
        mail += " BODY=8BITMIME"
    if utf8:
        mail += " SMTPUTF8"
    if extensions.dsn:
        if envelope.returns:
            mail += f" RET={envelope.returns}"
        if envelope.envelope_id:
            mail += f" ENVID={encode_xtext(envelope.envelope_id.encode())}"
    outgoing.mail = f"{mail}\r\n".encode()
    for index, recipient in enumerate(addressed):
        if not utf8 and not is_ascii(recipient):
            outgoing.refused[index] = UTF8Unsupported()
        request = envelope.requests.get(recipients[index], NO_REQUEST)
        parameters = _report_parameters(request) if extensions.dsn else ""
        outgoing.rcpt.append(f"RCPT TO:{format_path(recipient)}{parameters}\r\n".encode())
    return outgoing


async def _fit(
    outgoing: Outgoing,
    envelope: Envelope,
    sender: Address | None,
    message: ISpooledMessage,
    prefix: bytes,
    extensions: Extensions,
    utf8: bool,
    wire: Wire,
) -> None:
    """
    Find out whether and how this host can be given the message.

    Raises:
        MessageTooLarge, InvalidMessage, UTF8Unsupported, CannotConvert: it cannot.
        WireError.
    """
    size = len(prefix) + message.size
    # RFC 1870 §6.1
    if extensions.most_size and size > extensions.most_size:
        raise MessageTooLarge(
            f"The next host takes messages of {extensions.most_size} octets, this one has {size}"
        )
    if not utf8 and not is_ascii(sender):
        raise UTF8Unsupported
    if message.data is not None and size <= _SMALL:
        outgoing.whole = prefix + message.data
        if has_lone_line_break(outgoing.whole):
            raise InvalidMessage(Fault.LONE_LINE_BREAK.value)
    # RFC 6531 §3.1: SMTPUTF8 brings 8BITMIME with it, even where a host forgot to say so.
    if utf8 or (extensions.eight_bit and not envelope.utf8):
        return
    if not prefix.isascii():
        raise UTF8Unsupported
    if await _is_ascii(message, wire):
        return
    if envelope.utf8:
        await _check_headers(message, wire)
    if not extensions.eight_bit:
        outgoing.steps = await _conversion(message, wire)
        outgoing.whole = None


# What is in a message


async def _is_ascii(message: ISpooledMessage, wire: Wire) -> bool:
    if message.data is not None:
        return message.data.isascii()
    return await _region_is_ascii(message, 0, message.size, wire)


async def _region_is_ascii(message: ISpooledMessage, start: int, end: int, wire: Wire) -> bool:
    for position in range(start, end, _PIECE):
        if not (await message.read(position, min(_PIECE, end - position))).isascii():
            return False
        await wire.pause()
    return True


async def _outline(message: ISpooledMessage, wire: Wire) -> Outline:
    try:
        return Outline.from_bytes(message.outline)
    except BadRecord:
        scanner = Scanner()
        for position in range(0, message.size, _PIECE):
            scanner.feed(await message.read(position, _PIECE))
            await wire.pause()
        return scanner.finish()


async def _check_headers(message: ISpooledMessage, wire: Wire) -> None:
    """
    Raises:
        UTF8Unsupported: there is a header that is not ASCII, in the message or in one of its parts.
    """
    for region in regions(await _outline(message, wire)):
        if region.kind == HEADER and not await _region_is_ascii(message, region.start, region.end, wire):
            raise UTF8Unsupported("The next host does not take internationalized headers")


async def _conversion(message: ISpooledMessage, wire: Wire) -> Sequence[Step]:
    """
    Raises:
        CannotConvert.
    """
    found = regions(await _outline(message, wire))
    eight_bit = set()
    headers: dict[int, bytes] = {}
    for index, region in enumerate(found):
        if not await _region_is_ascii(message, region.start, region.end, wire):
            eight_bit.add(index)
        elif region.kind == HEADER and region.end - region.start <= _LONGEST_HEADER:
            headers[index] = await message.read(region.start, region.end - region.start)
    return plan(found, eight_bit, headers)


# Words


def _with_ascii_domain(address: Address) -> Address:
    """The address with its domain in A-labels; as it is where there are none."""
    if address.domain.isascii():
        return address
    try:
        domain = idna.encode(address.domain, uts46=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return address
    return replace(address, domain=domain)


def _report_parameters(request: ReportRequest) -> str:
    """NOTIFY and ORCPT (RFC 3461 §4.1, §4.2), each after a space."""
    text = ""
    if request.notify is not None:
        text += f" NOTIFY={','.join(sorted(request.notify)) or 'NEVER'}"
    if request.original:
        kind, _, address = request.original.partition(";")
        if kind.lower() == "utf-8" or not address.isascii():
            # RFC 6533 §3: this form is understood by a host with SMTPUTF8 and by one without.
            text += f" ORCPT=utf-8;{_utf8_xtext(address)}"
        else:
            text += f" ORCPT={kind};{encode_xtext(address.encode())}"
    return text


def _utf8_xtext(address: str) -> str:
    """utf-8-addr-xtext (RFC 6533 §3)."""
    return "".join(
        char if "!" <= char <= "~" and char not in "+=\\" else f"\\x{{{ord(char):02X}}}" for char in address
    )
