"""
What the parameters of MAIL and RCPT mean: words of the protocol to words of the house.

Each parameter is a row of a table with the function that reads it.  Which of them a server
takes is `Offered`, the same value that says what EHLO advertises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mailplat.smtp.grammar import (
    Malformed,
    MalformedParameter,
    Parameters,
    decode_xtext,
    parse_mailbox,
    parse_size,
)
from mailplat.values import Address, Envelope, ReportRequest

#: Longest ENVID and ORCPT, in characters as given (RFC 3461 §4.4, §4.2).
MOST_ENVELOPE_ID = 100
MOST_ORIGINAL = 500


class UnknownParameter(Exception):
    """A parameter that this server does not take."""


class DeclaredTooLarge(Exception):
    """SIZE= says more than the server takes."""


@dataclass(frozen=True, slots=True)
class Offered:
    """
    What a server takes besides what every server does.

    Attributes:
        size: octets of a message at the most.
        login: AUTH= may be given (RFC 4954 §5).
        reports: delivery reports are sent as asked for (DSN, RFC 3461).
        hold: seconds that a message may be held at the most (FUTURERELEASE, RFC 4865); 0 if
            it is not offered.
        now: seconds since 1970, for what `hold` counts from.
    """

    size: int
    login: bool = False
    reports: bool = False
    hold: int = 0
    now: int = 0


def stated(sender: Address | None, parameters: Parameters, offered: Offered) -> Envelope:
    """
    The envelope that MAIL states.

    Raises:
        MalformedParameter, UnknownParameter, DeclaredTooLarge.
    """
    fields: dict[str, Any] = {}
    for keyword, value in parameters.items():
        read = _OF_MAIL.get(keyword)
        if read is None:
            raise UnknownParameter(keyword)
        read(value, offered, fields)
    return Envelope(sender, **fields)


def requested(parameters: Parameters, offered: Offered) -> ReportRequest:
    """
    What RCPT asks for.

    Raises:
        MalformedParameter, UnknownParameter.
    """
    notify, original = None, ""
    for keyword, value in parameters.items():
        if keyword == "NOTIFY" and offered.reports:
            notify = _notify(value)
        elif keyword == "ORCPT" and offered.reports:
            original = _original(value)
        else:
            raise UnknownParameter(keyword)
    return ReportRequest(notify, original)


# Of MAIL


def _size(value: str | None, offered: Offered, fields: dict[str, Any]) -> None:
    fields["size"] = size = parse_size(value)
    if size > offered.size:
        raise DeclaredTooLarge


def _body(value: str | None, offered: Offered, fields: dict[str, Any]) -> None:
    # RFC 6152 §2.  Content with the eighth bit set is taken without it too: to refuse or to
    # change it would help nobody (RFC 5321 §2.4 lets it pass).
    fields["body"] = body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise MalformedParameter("BODY is 7BIT or 8BITMIME")


def _utf8(value: str | None, offered: Offered, fields: dict[str, Any]) -> None:
    if value is not None:
        raise MalformedParameter("SMTPUTF8 has no value")
    fields["utf8"] = True


def _submitter(value: str | None, offered: Offered, fields: dict[str, Any]) -> None:
    # Read, and believed of nobody (RFC 4954 §5): a mailbox, or "<>", in xtext.
    if not offered.login:
        raise UnknownParameter("AUTH")
    try:
        submitter = decode_xtext(value or "").decode()
        if submitter != "<>":
            parse_mailbox(submitter)
    except (Malformed, UnicodeDecodeError):
        raise MalformedParameter("Malformed AUTH parameter") from None


def _returns(value: str | None, offered: Offered, fields: dict[str, Any]) -> None:
    if not offered.reports:
        raise UnknownParameter("RET")
    fields["returns"] = returns = (value or "").upper()
    if returns not in ("FULL", "HDRS"):
        raise MalformedParameter("RET is FULL or HDRS")


def _envelope_id(value: str | None, offered: Offered, fields: dict[str, Any]) -> None:
    if not offered.reports:
        raise UnknownParameter("ENVID")
    if not value or len(value) > MOST_ENVELOPE_ID:
        raise MalformedParameter(f"ENVID has 1 to {MOST_ENVELOPE_ID} characters")
    fields["envelope_id"] = _printable(decode_xtext(value), "ENVID")


def _hold_for(value: str | None, offered: Offered, fields: dict[str, Any]) -> None:
    _hold(offered.now + parse_size(value), offered, fields)


def _hold_until(value: str | None, offered: Offered, fields: dict[str, Any]) -> None:
    # RFC 4865 §4, erratum 2040: a date-time of RFC 3339 §5.6.
    if not _DATE_TIME.fullmatch(value or ""):
        raise MalformedParameter("Malformed date and time")
    try:
        moment = datetime.fromisoformat((value or "").upper())
        when = int(moment.astimezone(UTC).timestamp())
    except (ValueError, OverflowError):
        raise MalformedParameter("Malformed date and time") from None
    _hold(when, offered, fields)


def _hold(when: int, offered: Offered, fields: dict[str, Any]) -> None:
    if not offered.hold:
        raise UnknownParameter("HOLDFOR")
    if "release" in fields:
        raise MalformedParameter("Only one of HOLDFOR and HOLDUNTIL")
    if when > offered.now + offered.hold:
        raise MalformedParameter("That is later than messages are held here")
    # What is to be released in the past is to be released now.
    fields["release"] = when if when > offered.now else 0


_OF_MAIL: Mapping[str, Callable[[str | None, Offered, dict[str, Any]], None]] = {
    "SIZE": _size,  # RFC 1870
    "BODY": _body,  # RFC 6152
    "SMTPUTF8": _utf8,  # RFC 6531
    "AUTH": _submitter,  # RFC 4954
    "RET": _returns,  # RFC 3461
    "ENVID": _envelope_id,
    "HOLDFOR": _hold_for,  # RFC 4865
    "HOLDUNTIL": _hold_until,
}

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)

# Of RCPT


def _notify(value: str | None) -> frozenset[str]:
    words = (value or "").upper().split(",")
    if words == ["NEVER"]:
        return frozenset()
    if not set(words) <= {"SUCCESS", "FAILURE", "DELAY"}:
        raise MalformedParameter("NOTIFY is NEVER, or some of SUCCESS, FAILURE, DELAY")
    return frozenset(words)


def _original(value: str | None) -> str:
    """`type;address` with the address decoded (RFC 3461 §4.2, RFC 6533 §3)."""
    kind, semicolon, text = (value or "").partition(";")
    if len(value or "") > MOST_ORIGINAL or not semicolon or not text or not _ATOM.fullmatch(kind):
        raise MalformedParameter("ORCPT is type;address")
    if kind.lower() == "utf-8":
        address = _ESCAPED.sub(_unescaped, text)
        if not address.isprintable():
            raise MalformedParameter("Malformed ORCPT")
    else:
        address = _printable(decode_xtext(text), "ORCPT")
    return f"{kind.lower()};{address}"


_ATOM = re.compile(r"[A-Za-z0-9-]+")

#: One character in utf-8-addr-xtext or utf-8-addr-unitext (RFC 6533 §3).
_ESCAPED = re.compile(r"\\x\{([0-9A-F]{1,6})\}")


def _unescaped(found: re.Match[str]) -> str:
    number = int(found.group(1), 16)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise MalformedParameter("Malformed ORCPT")
    return chr(number)


def _printable(octets: bytes, keyword: str) -> str:
    """Text that can stand in a header of a report."""
    if not all(0x20 <= octet < 0x7F for octet in octets):
        raise MalformedParameter(f"Malformed {keyword}")
    return octets.decode("ascii")
