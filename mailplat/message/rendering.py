"""
ENVELOPE, and the fields of BODY and BODYSTRUCTURE, as IMAP sends them (RFC 3501 §7.4.2, §9).

Bytes go out as they came, encoded words and all: what is 7-bit and short as a quoted
string, anything else as a literal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mailplat.message.addresses import Mailbox

#: A string longer than this is sent as a literal: clients may bound their lines.
LONGEST_QUOTED = 1000

# RFC 3501 §9: QUOTED-CHAR is a TEXT-CHAR (no CR, LF, NUL, nothing 8-bit) without specials.
_NOT_PLAIN = re.compile(rb"[^\x01-\x09\x0b\x0c\x0e-!#-\[\]-\x7f]").search
_SPECIAL = re.compile(rb'(["\\])')


def string(value: bytes) -> bytes:
    """A string: quoted, or a literal."""
    if len(value) <= LONGEST_QUOTED:
        if _NOT_PLAIN(value) is None:
            return b'"' + value + b'"'
        if value.isascii() and b"\r" not in value and b"\n" not in value and b"\0" not in value:
            return b'"' + _SPECIAL.sub(rb"\\\1", value) + b'"'
    if b"\0" in value:
        # RFC 3501 §9: CHAR8 excludes NUL, and there is no other way to say it.
        value = value.replace(b"\0", b"")
    return b"{%d}\r\n%s" % (len(value), value)


def nstring(value: bytes | None) -> bytes:
    """A string, or NIL for None."""
    return b"NIL" if value is None else string(value)


def address_list(entries: Iterable[Mailbox]) -> bytes:
    """Addresses in parentheses, or NIL for none."""
    pieces = []
    for name, route, local, host in entries:
        pieces.append(
            b"(%s %s %s %s)"
            % (
                b"NIL" if name is None else string(name),
                b"NIL" if route is None else string(route),
                b"NIL" if local is None else string(local),
                b"NIL" if host is None else string(host),
            )
        )
    return b"(%s)" % b"".join(pieces) if pieces else b"NIL"


def envelope(fields: Mapping[bytes, bytes], addresses: Mapping[bytes, list[Mailbox]]) -> bytes:
    """
    ENVELOPE.

    Args:
        fields: lower-case name -> unfolded value; an absent one is NIL, an empty one "".
        addresses: lower-case name -> what `addresses.parse` made of it.
    """
    none: list[Mailbox] = []
    author = address_list(addresses.get(b"from", none))
    sender = address_list(addresses.get(b"sender", none))
    reply_to = address_list(addresses.get(b"reply-to", none))
    return b"(%s %s %s %s %s %s %s %s %s %s)" % (
        nstring(fields.get(b"date")),
        nstring(fields.get(b"subject")),
        author,
        # RFC 3501 §7.4.2: the server fills these from From, absent or empty.
        author if sender == b"NIL" else sender,
        author if reply_to == b"NIL" else reply_to,
        address_list(addresses.get(b"to", none)),
        address_list(addresses.get(b"cc", none)),
        address_list(addresses.get(b"bcc", none)),
        nstring(fields.get(b"in-reply-to")),
        nstring(fields.get(b"message-id")),
    )


_PLAIN_SUBJECT = re.compile(rb'\((?:NIL|"[^"\\]*") (?:NIL|"([^"\\]*)") ').match
_NSTRING = re.compile(rb'NIL|"((?>(?:[^"\\]++|\\.)*))"|\{([0-9]+)\}\r\n', re.DOTALL).match
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def subject_of(rendered: bytes) -> bytes | None:
    """The subject in what `envelope` made, None for NIL."""
    plain = _PLAIN_SUBJECT(rendered)
    if plain is not None:
        subject: bytes | None = plain[1]
        return subject
    position, found = 1, None
    for _ in ("date", "subject"):
        match = _NSTRING(rendered, position)
        if match is None:
            return None
        position = match.end()
        quoted, length = match.groups()
        found = None if quoted is None else _ESCAPED.sub(rb"\1", quoted)
        if length is not None:
            found = rendered[position : position + int(length)]
            position += int(length)
        position += 1
    return found


def subjects_of(envelopes: Iterable[bytes]) -> list[bytes | None]:
    """`subject_of` each."""
    return [
        subject_of(envelope) if plain is None else plain[1]
        for envelope, plain in ((envelope, _PLAIN_SUBJECT(envelope)) for envelope in envelopes)
    ]


def parameters(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """body-fld-param: names and values in parentheses, or NIL for none."""
    rendered = b" ".join([b"%s %s" % (string(name), string(value)) for name, value in pairs])
    return b"(%s)" % rendered if rendered else b"NIL"


def disposition(parsed: tuple[bytes, list[tuple[bytes, bytes]]] | None) -> bytes:
    """body-fld-dsp."""
    if parsed is None or not parsed[0]:
        return b"NIL"
    return b"(%s %s)" % (string(parsed[0].lower()), parameters(parsed[1]))


def languages(value: bytes | None) -> bytes:
    """body-fld-lang of a Content-Language field (RFC 3282 §2): one string, or several in parentheses."""
    if value is None:
        return b"NIL"
    tags = [tag for tag in map(bytes.strip, value.split(b",", 100)[:100]) if tag]
    if not tags:
        return b"NIL"
    if len(tags) == 1:
        return string(tags[0])
    return b"(%s)" % b" ".join(map(string, tags))
