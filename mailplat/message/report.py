"""
Reports about the delivery of a message (RFC 3464 in the frame of RFC 6522), written as bytes.

A report has three parts: what a person reads, what a program reads, and the message that it is
about, or its header.  Here the first two are written and the third begun; its bytes follow, and
`closing` ends it all.

Much of what a report says was said by other hosts, so nothing here believes it: control characters
become spaces, lines are folded, words that no line holds are cut, and 8-bit text goes only where
RFC 6533 has it.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mailplat.message.compose import WIDTH, path, rfc5322_date
from mailplat.values import Address

#: Octets of one word: a line must not have more than 998 (RFC 5322 §2.1.1), and a character has at most 4.
_LONGEST_WORD = 220

#: Characters of what another host said; the rest is left out.
MOST_TEXT = 2000

# Everything that some program takes for the end of a line, and what is no character at all.
_UNPRINTABLE = re.compile("[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]+")
_PLAIN = re.compile("[!-~]+(?: [!-~]+)*")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
# RFC 6533 §3: what utf-8-addr-xtext writes as \x{...}, and utf-8-addr-unitext, which needs no more than this.
_NOT_XTEXT = re.compile(r"[^\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e]")
# RFC 3464 §2.3.2: an atom, and what follows it.
_TYPED = re.compile(r"([A-Za-z0-9-]{1,40});(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """
    What is reported of one recipient.

    Attributes:
        address: as it was tried.
        action: "failed", "delayed", "delivered" or "relayed" (RFC 3464 §2.3.3).
        status: a status code (RFC 3463).
        original: as in `ReportRequest.original`.
        host: the host that answered; empty if none did.
        text: its reply; or why it went wrong, where no host said so.
        last_attempt, retry_until: seconds since 1970; None if there is none.
    """

    address: Address
    action: str
    status: str
    original: str = ""
    host: str = ""
    text: str = ""
    last_attempt: int | None = None
    retry_until: int | None = None


def plain(text: str, utf8: bool = True) -> str:
    """One line of it, without what may not stand in one."""
    text = _UNPRINTABLE.sub(" ", text[:MOST_TEXT]).strip()
    return text if utf8 else _NOT_ASCII.sub("?", text)


def field(name: str, value: str, utf8: bool = False) -> bytes:
    """A header field of unstructured text, folded; nothing if there is no text."""
    if len(name) + 2 + len(value) <= WIDTH and _PLAIN.fullmatch(value):
        # Nearly all are so, and there may be thousands of them.
        return f"{name}: {value}\r\n".encode("ascii")
    words = [
        word[start : start + _LONGEST_WORD]
        for word in plain(value, utf8).split(" ")
        for start in range(0, len(word), _LONGEST_WORD)
    ]
    if not words:
        return b""
    lines = [f"{name}:"]
    for word in words:
        # RFC 3464 fields are read by programs that expect the value's beginning on the first line.
        if len(lines[-1]) + 1 + len(word) > WIDTH and lines[-1] != f"{name}:":
            lines.append(" " + word)
        else:
            lines[-1] += " " + word
    return ("\r\n".join(lines) + "\r\n").encode("utf-8")


def typed_address(kind: str, address: str, utf8: bool) -> str:
    """
    `type; address` (RFC 3464 §2.3.1).  An address that is not ASCII has type utf-8, as it is in a
    report that may have it so (RFC 6533 §3), and otherwise written in ASCII.
    """
    address = _UNPRINTABLE.sub(" ", address).strip()
    if address.isascii():
        # Under type utf-8 too: a report that is ASCII says in it what the sender said.
        return f"{kind}; {address}"
    if not utf8:
        address = _NOT_XTEXT.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)
    return f"utf-8; {address}"


def needs_utf8(recipients: Iterable[RecipientStatus]) -> bool:
    """Whether an address among them is not ASCII."""
    return not all((str(one.address) + one.original).isascii() for one in recipients)


def delivery_status(
    hostname: str,
    envelope_id: str,
    arrived: int,
    recipients: Sequence[RecipientStatus],
    utf8: bool,
) -> bytes:
    """
    The content of message/delivery-status, or with `utf8` of message/global-delivery-status.

    Args:
        hostname: ours, the Reporting-MTA.
        envelope_id: see `Envelope.envelope_id`.
        arrived: seconds since 1970.
    """
    # RFC 3464 §2.2
    blocks = [
        field("Original-Envelope-Id", envelope_id, utf8)
        + field("Reporting-MTA", f"dns; {hostname}", utf8)
        + field("Arrival-Date", rfc5322_date(arrived))
    ]
    for one in recipients:
        # RFC 3464 §2.3
        lines = []
        original = _TYPED.fullmatch(one.original)
        if original is not None:
            lines.append(field("Original-Recipient", typed_address(original[1], original[2], utf8), utf8))
        lines += [
            field("Final-Recipient", typed_address("rfc822", path(one.address), utf8), utf8),
            field("Action", one.action),
            field("Status", one.status),
        ]
        if one.host:
            lines.append(field("Remote-MTA", f"dns; {one.host}", utf8))
        if one.text:
            # RFC 3464 §2.3.6: type smtp is a reply as it came over the wire, and nothing else.
            lines.append(
                field("Diagnostic-Code", ("smtp; " if one.host else "x-mailplat; ") + one.text, utf8)
            )
        if one.last_attempt is not None:
            lines.append(field("Last-Attempt-Date", rfc5322_date(one.last_attempt)))
        if one.retry_until is not None:
            lines.append(field("Will-Retry-Until", rfc5322_date(one.retry_until)))
        blocks.append(b"".join(lines))
    return b"\r\n".join(blocks)


@dataclass(frozen=True, slots=True)
class Frame:
    """
    A report around what it says.

    Attributes:
        identifier: an atom unlike others; the boundary is made of it, so that no message can have it.
        hostname: ours.
        sender: whom it is from.
        recipient: whom it is for.
        date: seconds since 1970.
        subject: ASCII.
        message_id: of the message that it is about, with its angle brackets; empty if unknown.
        utf8: as in `delivery_status`.
        eight_bit: the third part is not ASCII.
        whole: the third part is the message, not only its header.
    """

    identifier: str
    hostname: str
    sender: Address
    recipient: Address
    date: int
    subject: str
    message_id: str
    utf8: bool
    eight_bit: bool
    whole: bool

    @property
    def boundary(self) -> str:
        return f"report-{self.identifier}"

    def opening(self, text: str, status: bytes) -> bytes:
        """
        Everything before the third part's bytes.

        Args:
            text: for a person; lines ended by LF.
            status: see `delivery_status`.
        """
        utf8 = self.utf8
        eight = utf8 or self.eight_bit
        header = [
            field("Date", rfc5322_date(self.date)),
            b'From: "Mail Delivery System" <%b>\r\n' % path(self.sender).encode("utf-8", "replace"),
            b"To: <%b>\r\n" % path(self.recipient).encode("utf-8", "replace"),
            field("Subject", self.subject),
            field("Message-ID", f"<{self.identifier}@{self.hostname}>"),
            field("References", self.message_id),
            # RFC 3834 §5: nobody who answers by himself answers this.
            field("Auto-Submitted", "auto-replied"),
            b"MIME-Version: 1.0\r\n",
            b"Content-Type: multipart/report; report-type=delivery-status;\r\n"
            b'\tboundary="%b"\r\n' % self.boundary.encode(),
            b"Content-Transfer-Encoding: 8bit\r\n" if eight else b"",
            b"\r\n",
        ]
        kind = b"message/global-delivery-status" if utf8 else b"message/delivery-status"
        fields = self._part(kind, b"8bit" if utf8 else b"") + status + b"\r\n"
        parts = (self._text(text), fields, self._third())
        return b"".join(header) + b"".join(b"--%b\r\n%b" % (self.boundary.encode(), part) for part in parts)

    def closing(self) -> bytes:
        """Everything after the third part's bytes."""
        return b"\r\n--%b--\r\n" % self.boundary.encode()

    def _text(self, text: str) -> bytes:
        content = text.replace("\n", "\r\n").encode("utf-8", "replace")
        if content.isascii():
            return self._part(b"text/plain; charset=us-ascii", b"") + content + b"\r\n"
        encoded = b2a_qp(content, istext=True)
        return self._part(b"text/plain; charset=utf-8", b"quoted-printable") + encoded + b"\r\n"

    def _third(self) -> bytes:
        # RFC 6522 §3, RFC 6533 §4, §5
        names = (b"text/rfc822-headers", b"message/rfc822"), (b"message/global-headers", b"message/global")
        return self._part(names[self.utf8][self.whole], b"8bit" if self.eight_bit else b"")

    def _part(self, kind: bytes, encoding: bytes) -> bytes:
        lines = b"Content-Type: %b\r\n" % kind
        if encoding:
            lines += b"Content-Transfer-Encoding: %b\r\n" % encoding
        return lines + b"\r\n"
