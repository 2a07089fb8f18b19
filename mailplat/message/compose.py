"""
Lines that are written into messages, and dates in the forms mail knows.

Trace fields (RFC 5321 §4.4), Return-Path and Delivered-To for a copy's prefix; dates of
RFC 5322 §3.3 and IMAP's INTERNALDATE, both ways.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterable
from time import gmtime
from typing import NamedTuple

from mailplat.values import Address, TLSInfo

# Trace fields

#: A header line is folded before it gets longer, where it can be (RFC 5322 §2.1.1).
WIDTH = 78

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_ATOMS = re.compile(r"[^\s\x00-\x20\x7f\"(),:;<>@\[\\\]]+")


def _clean(text: str) -> str:
    """Text that cannot end its line, nor a comment around it."""
    return _CONTROL.sub(" ", text).replace("\\", "/").replace("(", "[").replace(")", "]").strip()


def path(address: Address | None) -> str:
    """`local@domain` as it stands between angle brackets, the local part quoted where it must be."""
    if address is None:
        return ""
    local = _CONTROL.sub("", address.local)
    if not _ATOMS.fullmatch(local) or local.startswith(".") or local.endswith(".") or ".." in local:
        escaped = local.replace("\\", "\\\\").replace('"', '\\"')
        local = f'"{escaped}"'
    domain = _CONTROL.sub("", address.domain)
    return f"{local}@{domain}" if domain else local


def folded(name: str, pieces: Iterable[str]) -> bytes:
    """A field of these pieces, with a line break between two where the line gets too long."""
    lines = [f"{name}:"]
    for piece in pieces:
        if len(lines[-1]) + 1 + len(piece) > WIDTH and len(lines[-1]) > len(name) + 1:
            lines.append("\t" + piece)
        else:
            lines[-1] += " " + piece
    return ("\r\n".join(lines) + "\r\n").encode("utf-8", "replace")


def protocol_name(service: str, *, extended: bool, tls: bool, authenticated: bool, utf8: bool = False) -> str:
    """
    What follows "with" (RFC 3848; RFC 6531 §4.3 for SMTPUTF8).

    Args:
        service: "smtp", "submission" or "lmtp".
        extended: EHLO was said, not HELO.
    """
    secured = ("S" if tls else "") + ("A" if authenticated else "")
    if service == "lmtp":
        return ("UTF8LMTP" if utf8 else "LMTP") + secured
    if not extended:
        return "SMTP"
    return ("UTF8SMTP" if utf8 else "ESMTP") + secured


def received(
    *,
    hello: str,
    peer_host: str,
    hostname: str,
    protocol: str,
    identifier: str,
    date: int,
    recipient: Address | None = None,
    tls: TLSInfo | None = None,
) -> bytes:
    """
    The Received field that a server adds (RFC 5321 §4.4), ended by CRLF.

    Args:
        hello: the name the client gave; it is only what it says.
        peer_host: the client's IP address; "" for a UNIX socket.
        hostname: this server's name.
        protocol: see `protocol_name`.
        identifier: the "id", an atom.
        date: seconds since 1970 UTC.
        recipient: the "for"; to be given only where the message has one recipient, since
            others must not learn of each other.
    """
    said = _ATOMS.fullmatch(hello) or re.fullmatch(r"\[[0-9A-Za-z:.]+\]", hello)
    name = hello if said else "unknown"
    if not peer_host:
        source = "(local)"
    elif ":" in peer_host:
        source = f"([IPv6:{_clean(peer_host)}])"  # RFC 5321 §4.1.3
    else:
        source = f"([{_clean(peer_host)}])"
    pieces = [f"from {name}", source, f"by {_clean(hostname)}", f"with {protocol}"]
    if tls is not None:
        # RFC 8314 §4.3 wants the cipher recorded; a comment is read by everybody.
        pieces.append(f"({_clean(tls.version)} {_clean(tls.cipher)})".replace(" )", ")"))
    pieces.append(f"id {_clean(identifier)}")
    if recipient is not None:
        pieces.append(f"for <{path(recipient)}>")
    pieces[-1] += ";"
    pieces.append(rfc5322_date(date))
    return folded("Received", pieces)


def received_locally(
    *, user: int, hostname: str, identifier: str, date: int, recipient: Address | None = None
) -> bytes:
    """
    The Received field of a message that came by no protocol, ended by CRLF; arguments as for
    `received`.

    Args:
        user: the number of the user who sent it.
    """
    pieces = [f"by {_clean(hostname)}", f"(mailplat, from userid {user})", f"id {_clean(identifier)}"]
    if recipient is not None:
        pieces.append(f"for <{path(recipient)}>")
    pieces[-1] += ";"
    pieces.append(rfc5322_date(date))
    return folded("Received", pieces)


def return_path(sender: Address | None) -> bytes:
    """The Return-Path field of final delivery (RFC 5321 §4.4), `<>` for None."""
    return f"Return-Path: <{path(sender)}>\r\n".encode("utf-8", "replace")


def delivered_to(recipient: Address) -> bytes:
    """The Delivered-To field (RFC 9228)."""
    return f"Delivered-To: {path(recipient)}\r\n".encode("utf-8", "replace")


# Dates

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBERS = {name.lower().encode(): number for number, name in enumerate(_MONTHS, 1)}

# What a 64-bit count of seconds may say and a date may show: years 1 to 9999.
_FIRST, _LAST = -62135596800, 253402300799


def rfc5322_date(seconds: int) -> str:
    """`Tue, 24 Nov 2026 00:15:58 +0000` (RFC 5322 §3.3), always in UTC."""
    year, month, day, hour, minute, second, weekday, *_ = gmtime(min(max(seconds, _FIRST), _LAST))
    return (
        f"{_DAYS[weekday]}, {day} {_MONTHS[month - 1]} {year:04d} {hour:02d}:{minute:02d}:{second:02d} +0000"
    )


class InternalDates:
    """
    INTERNALDATE as FETCH sends it, quotes included: `"24-Nov-2026 00:15:58 +0000"` (RFC 3501 §9
    date-time), always in UTC.

    Keeps what it needs for the days it has seen, as messages come in crowds; a server holds one.
    """

    #: Days remembered, a few hundred octets each.
    most = 4096

    def __init__(self) -> None:
        self._days: dict[int, bytes] = {}
        self._times = [b" %02d:%02d:" % (minute // 60, minute % 60) for minute in range(1440)]
        self._seconds = [b'%02d +0000"' % second for second in range(60)]

    def __call__(self, seconds: int) -> bytes:
        minutes, second = divmod(seconds, 60)
        number, minute = divmod(minutes, 1440)
        day = self._days.get(number)
        if day is None:
            day = self._day(number)
        return day + self._times[minute] + self._seconds[second]

    def many(self, dates: Iterable[int]) -> list[bytes]:
        """One for each of `dates`, faster than one by one."""
        times, rests = self._times, self._seconds
        rendered: list[bytes] = []
        append = rendered.append
        begin = end = 0
        for date in dates:
            # Most are of the same day as the one before.
            if not begin <= date < end:
                number = date // 86400
                day = self._days.get(number) or self._day(number)
                begin, end = number * 86400, (number + 1) * 86400
            seconds = date - begin
            append(day + times[seconds // 60] + rests[seconds % 60])
        return rendered

    def _day(self, number: int) -> bytes:
        year, month, day, *_ = gmtime(min(max(number * 86400, _FIRST), _LAST))
        # RFC 3501 §9 date-day-fixed: a space before a single digit.
        rendered = b'"%2d-%s-%04d' % (day, _MONTHS[month - 1].encode(), year)
        if len(self._days) >= self.most:
            self._days.clear()
        self._days[number] = rendered
        return rendered


class Date(NamedTuple):
    """
    A date as its writer stated it.

    Attributes:
        year, month, day: in the writer's own zone; what SENTBEFORE, SENTON and SENTSINCE
            compare, "disregarding time and timezone" (RFC 3501 §6.4.4).
        seconds: the instant, since 1970 UTC.
    """

    year: int
    month: int
    day: int
    seconds: int


# The day of the week may be missing or wrong, separators may be hyphens, and two-digit
# years, missing seconds and named zones are in old mail (RFC 5322 §4.3).
_DATE = re.compile(
    rb"""
    (?: ^ | [\s,] ) ([0-9]{1,2}) [\s\-./]{1,10} ([A-Za-z]{3})[A-Za-z]{0,6} [\s\-.,/]{1,10} ([0-9]{2,4})
    (?: [\s,]{1,10} ([0-9]{1,2}) \s?[:.]\s? ([0-9]{2}) (?: \s?[:.]\s? ([0-9]{2}) )?
        (?: [.,][0-9]{1,9} )?
        (?: \s{0,10} (?: ([+-]) ([0-9]{2}) :? ([0-9]{2}) | ([A-Za-z]{1,5}) ) )?
    )?
    """,
    re.VERBOSE,
)
# asctime: Tue Nov 24 00:15:58 2026
_ASCTIME = re.compile(
    rb"([A-Za-z]{3})[a-z]{0,6}\s{1,3}([0-9]{1,2})\s{1,3}([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?"
    rb"\s{1,3}(?:[A-Z]{3,4}\s{1,3})?([0-9]{4})"
)
# RFC 5322 §4.3
_ZONES = {
    b"EDT": -4,
    b"EST": -5,
    b"CDT": -5,
    b"CST": -6,
    b"MDT": -6,
    b"MST": -7,
    b"PDT": -7,
    b"PST": -8,
}


def parse_date(raw: bytes) -> Date | None:
    """
    The date in a Date field's value, or None if there is none to be found.

    Comments are passed over; an unknown zone counts as UTC (RFC 5322 §4.3).
    """
    raw = raw[:200]
    if b"(" in raw:
        raw = re.sub(rb"\([^()]*\)?", b" ", raw)
    match = _DATE.search(raw)
    if match is not None:
        day, month, year, hour, minute, second, sign, zone_hours, zone_minutes, zone = match.groups()
        offset = 0
        if sign is not None:
            offset = (int(zone_hours) * 60 + int(zone_minutes)) * (-60 if sign == b"-" else 60)
        elif zone is not None:
            offset = _ZONES.get(zone.upper(), 0) * 3600
    else:
        match = _ASCTIME.search(raw)
        if match is None:
            return None
        month, day, hour, minute, second, year = match.groups()
        offset = 0
    number = _MONTH_NUMBERS.get(month.lower())
    if number is None:
        return None
    full_year = int(year)
    # RFC 5322 §4.3
    if len(year) == 2:
        full_year += 2000 if full_year < 50 else 1900
    elif len(year) == 3:
        full_year += 1900
    return _checked(full_year, number, int(day), int(hour or 0), int(minute or 0), int(second or 0), offset)


def _checked(
    year: int, month: int, day: int, hour: int, minute: int, second: int, offset: int
) -> Date | None:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    longest = 29 if month == 2 and leap else (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]
    if year < 1 or not 1 <= day <= longest:
        return None
    if hour > 23 or minute > 59 or second > 60 or abs(offset) >= 86400:
        # The day is all that can be believed.
        hour = minute = second = offset = 0
    return Date(year, month, day, timegm((year, month, day, hour, minute, second)) - offset)
