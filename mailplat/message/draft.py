"""
What a program on this host hands to `sendmail`, made into a message.

Such text has line ends of its system, perhaps no header at all, recipients in its header if
that was asked for, and copies to recipients that the others are not to know of.  Here it
becomes what may travel: lines ended by CR LF, a header, and no Bcc.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from mailplat.message.addresses import Mailbox, parse
from mailplat.message.headers import unfolded
from mailplat.values import Address

# RFC 5322 §2.2: a name of printable characters without a colon, and what is folded behind it.
_FIELD = rb"([!-9;-~]++)[ \t]*+:([^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))"
_HEADER = re.compile(rb"(?>(?:" + _FIELD + rb")*)")
_FIELDS = re.compile(_FIELD)

#: Not for others to see, or not for the sender to say (RFC 5322 §3.6.3, RFC 5321 §4.4).
_REMOVED = frozenset((b"bcc", b"resent-bcc", b"return-path"))

_TO = (b"to", b"cc", b"bcc")
_RESENT_TO = (b"resent-to", b"resent-cc", b"resent-bcc")

_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")


@dataclass(frozen=True, slots=True)
class Draft:
    """
    Attributes:
        text: the message, lines ended by CR LF.
        recipients: those that its header names, in order, once each; the domain may be empty.
        names: of the fields of the header, in lower case.
        utf8: the header has characters beyond ASCII.
    """

    text: bytes
    recipients: tuple[Address, ...]
    names: frozenset[bytes]
    utf8: bool

    @classmethod
    def read(cls, text: bytes, dot: bool = False) -> Draft:
        """
        Args:
            text: lines ended by LF, CR LF or CR.
            dot: a line of a dot alone ends the message.
        """
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if text and not text.endswith(b"\n"):
            text += b"\n"
        if dot and (end := (b"\n" + text).find(b"\n.\n")) >= 0:
            text = text[:end]
        if text.startswith((b"From ", b">From ")):
            # The line that separates messages in a mailbox file.
            text = text.partition(b"\n")[2]
        found = _HEADER.match(text)
        size = found.end() if found else 0
        header, body = text[:size], text[size:]
        if not body.startswith(b"\n"):
            body = b"\n" + body
        fields = [(match[1].lower(), match) for match in _FIELDS.finditer(header)]
        names = frozenset(name for name, _ in fields)
        wanted = _RESENT_TO if names.intersection(_RESENT_TO) else _TO
        recipients = addresses(unfolded(match[2]) for name, match in fields if name in wanted)
        kept = b"".join([match[0] for name, match in fields if name not in _REMOVED])
        whole = (kept + body).replace(b"\n", b"\r\n")
        return cls(whole, recipients, names - _REMOVED, not kept.isascii())


def addresses(lists: Iterable[bytes]) -> tuple[Address, ...]:
    """The addresses in address lists (RFC 5322 §3.4), in order, once each; the domain may be empty."""
    found = (_address(mailbox) for value in lists for mailbox in parse(value))
    return tuple(dict.fromkeys(address for address in found if address is not None))


def _address(mailbox: Mailbox) -> Address | None:
    if not mailbox.local or mailbox.host is None:
        # A group's name or its end (RFC 3501 §7.4.2).
        return None
    local, host = mailbox.local.decode("utf-8", "replace"), mailbox.host.decode("utf-8", "replace")
    return Address(local, host.lower())


def from_field(name: str, address: str) -> bytes:
    """
    A From field.

    Args:
        name: of a person; may be empty.
        address: as `compose.path` writes it.
    """
    name = " ".join(name.split())
    if not name:
        return f"From: {address}\r\n".encode()
    if not name.isascii():
        # RFC 2047 §2: an encoded word has 75 characters at most, and no half of a character.
        pieces = (name[start : start + 11].encode("utf-8", "replace") for start in range(0, len(name), 11))
        name = "\r\n ".join(f"=?utf-8?b?{b64encode(piece).decode('ascii')}?=" for piece in pieces)
    elif not _ATOMS.fullmatch(name):
        escaped = "".join(c for c in name if c.isprintable()).replace("\\", "\\\\").replace('"', '\\"')
        name = f'"{escaped}"'
    return f"From: {name} <{address}>\r\n".encode()
