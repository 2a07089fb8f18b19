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
from mailplat.smtp.data import has_lone_line_break
from mailplat.smtp.extensions import Extensions
from mailplat.smtp.grammar import encode_xtext, format_path, is_ascii
from mailplat.values import NO_REQUEST, Address, Envelope, ReportRequest
from mailplat.wire import Wire

#: Octets read at a time while a message is only looked at.
_PIECE = 128 * 1024

#: A message up to this size is sent in one piece, together with the commands before it.
_SMALL = 128 * 1024


class Outgoing:
    """
    Attributes:
        recipients: all of them.
        refused: by index, the error of those that this host cannot be told of.
        mail: the MAIL command.
        rcpt: the RCPT command of each recipient, by index; empty for those in `refused`.
        whole: the content, if it is small and at hand; None otherwise.
    """

    def __init__(self, recipients: Sequence[Address], prefix: bytes, message: ISpooledMessage) -> None:
        self.recipients = recipients
        self.refused: dict[int, MailError] = {}
        self.mail = b""
        self.rcpt: list[bytes] = []
        self.whole: bytes | None = None
        self._prefix = prefix
        self._message = message

    async def pieces(self, length: int) -> AsyncIterator[bytes]:
        """The content, `length` octets at a time."""
        if self.whole is not None:
            yield self.whole
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
    Args:
        wire: others run while a large message is looked at.

    Raises:
        WireError.
    """
    outgoing = Outgoing(recipients, prefix, message)
    size = len(prefix) + message.size
    # RFC 1870 §6.1
    if extensions.most_size and size > extensions.most_size:
        text = f"The next host takes messages of at most {extensions.most_size} octets, this has {size}"
        return _all_refused(outgoing, MessageTooLarge(text))
    if message.data is not None and size <= _SMALL:
        outgoing.whole = prefix + message.data
        if has_lone_line_break(outgoing.whole):
            return _all_refused(
                outgoing, InvalidMessage("Message contains a CR or LF that is not part of CR LF")
            )
    sender = envelope.sender and _with_ascii_domain(envelope.sender)
    addressed = [_with_ascii_domain(recipient) for recipient in recipients]
    utf8 = extensions.utf8 and (envelope.utf8 or not all(map(is_ascii, (sender, *addressed))))
    if not utf8:
        if not is_ascii(sender):
            return _all_refused(outgoing, UTF8Unsupported())
        for index, recipient in enumerate(addressed):
            if not is_ascii(recipient):
                outgoing.refused[index] = UTF8Unsupported()
    eight_bit = envelope.body == "8BITMIME" or (message.data is not None and not message.data.isascii())

    mail = f"MAIL FROM:{format_path(sender)}"
    if extensions.size:
        mail += f" SIZE={size}"
    if eight_bit and extensions.eight_bit:
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
        if index in outgoing.refused:
            outgoing.rcpt.append(b"")
            continue
        request = envelope.requests.get(recipients[index], NO_REQUEST)
        parameters = _report_parameters(request) if extensions.dsn else ""
        outgoing.rcpt.append(f"RCPT TO:{format_path(recipient)}{parameters}\r\n".encode())
    return outgoing


def _all_refused(outgoing: Outgoing, error: MailError) -> Outgoing:
    outgoing.refused = dict.fromkeys(range(len(outgoing.recipients)), error)
    return outgoing


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
