"""
The small words of IMAP, read and printed: strings, numbers, sets, flags, dates, mailbox names.

A `Cursor` walks over one command.  Each of its steps is one regular expression matched at
the place where it stands, so reading is linear, never recurses, and the loop over
characters runs in C.  Where the client sent a literal the text of the command has a NUL
(framing refuses real ones), and the cursor takes the literal from its list.

Everything wrong is a `Malformed`, and nothing else is ever raised for what a client sent.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from re import Pattern

from mailplat.uids import LARGEST, NOTHING, Run, UIDSet
from mailplat.values import SEPARATOR, SYSTEM_FLAGS

#: The largest modseq (RFC 7162 §7 mod-sequence-value, 63 bits).
LARGEST_MODSEQ = (1 << 63) - 1

#: INTERNALDATE as IMAP can write it: the years 1 to 9999.
EARLIEST_DATE = -62135596800
LATEST_DATE = 253402300799

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Malformed(ValueError):
    """What the client sent is not IMAP; the text may be shown to it."""


class NoName(Malformed):
    """A string, but no name that a mailbox could have (RFC 3501 §5.1): a NO, not a BAD."""


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """
    A sequence set as the client wrote it, such as `1:3,7:*` (RFC 3501 §9 sequence-set).

    Attributes:
        text: valid, if it came from a `Cursor`.
    """

    text: str

    def resolve(self, star: int) -> UIDSet:
        """
        The numbers meant, where `*` is the largest number in use.

        Args:
            star: 0 if no number is in use; then ranges with `*` mean nothing.

        Raises:
            ValueError: `text` is not a sequence set.
        """
        if self.text == "1:*":
            return UIDSet(((1, star),)) if star else NOTHING
        runs: list[Run] = []
        for item in self.text.split(","):
            first, colon, last = item.partition(":")
            start = star if first == "*" else int(first)
            end = start if not colon else star if last == "*" else int(last)
            if start and end:
                # "2:4 and 4:2 are equivalent" (RFC 3501 §9 seq-range)
                runs.append((start, end) if start <= end else (end, start))
        return UIDSet(runs)

    def __str__(self) -> str:
        return self.text


# RFC 3501 §9: ATOM-CHAR is any CHAR but atom-specials; ASTRING-CHAR allows "]" besides;
# a tag is ASTRING-CHARs without "+"; list-char allows the wildcards.
_ATOM = rb"[!#$&'+\-./0-9:;<=>?@A-Z\[^_`a-z|}~,]++"
_ATOM_RE = re.compile(_ATOM)
_ASTRING_RE = re.compile(rb"[!#$&'+\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~,]++")
_PATTERN_RE = re.compile(rb"[!#$%&'*+\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~,]++")
_TAG_RE = re.compile(rb"[!#$&'\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~,]++")
_WORD_RE = re.compile(rb"[A-Za-z][A-Za-z0-9.]*+")

# QUOTED-CHAR is 7-bit, without CR and LF; only the quote and the backslash may be escaped.
_QUOTED_RE = re.compile(rb'"((?>(?:[^"\\\x00\r\n\x80-\xff]++|\\["\\])*))"')
_ESCAPE_RE = re.compile(rb"\\(.)", re.DOTALL)

_NUMBER_RE = re.compile(rb"[0-9]++")
_SET_ITEM = rb"(?:\*|[1-9][0-9]{0,9}+)(?>(?::(?:\*|[1-9][0-9]{0,9}+))?)"
_SET_RE = re.compile(rb"%b(?>(?:,%b)*)" % (_SET_ITEM, _SET_ITEM))
_LONG_NUMBER_RE = re.compile(rb"[0-9]{10}")

_FLAG = rb"\\?+%b" % _ATOM
_FLAGS = rb"%b(?>(?: %b)*)" % (_FLAG, _FLAG)
_FLAGS_RE = re.compile(_FLAGS)
_FLAG_LIST_RE = re.compile(rb"\((?>(?:%b)?)\)" % _FLAGS)

_DATE_RE = re.compile(rb'("?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1')
_DATE_TIME_RE = re.compile(
    rb'"([ 0-9][0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)
_MONTH_NUMBERS = {name.lower().encode(): number for number, name in enumerate(MONTHS, 1)}

_CANONICAL_FLAGS = {name.lower(): name for name in SYSTEM_FLAGS}

#: Stands in a command's text where the client sent a literal.
PLACE = b"\0"


class Cursor:
    """
    A place in one command.

    Args:
        text: the command without its CRLF; `PLACE` for each literal.
        literals: their octets, in order.

    Every method that reads moves on past what it read, or raises `Malformed`.
    """

    __slots__ = ("_next_literal", "at", "literals", "text")

    def __init__(self, text: bytes, literals: Sequence[bytes] = (), at: int = 0) -> None:
        self.text = text
        self.literals = literals
        self.at = at
        self._next_literal = 0

    def match(self, pattern: Pattern[bytes], what: str) -> re.Match[bytes]:
        """The match of `pattern` here; `what` names it in the error."""
        found = pattern.match(self.text, self.at)
        if found is None:
            raise Malformed(f"{what} expected")
        self.at = found.end()
        return found

    def peek(self, literally: bytes) -> bool:
        """Whether `literally` stands here."""
        return self.text.startswith(literally, self.at)

    def skip(self, literally: bytes) -> bool:
        """Move past `literally` if it stands here."""
        if self.text.startswith(literally, self.at):
            self.at += len(literally)
            return True
        return False

    def expect(self, literally: bytes, what: str) -> None:
        """Move past `literally`, which must stand here."""
        if not self.skip(literally):
            raise Malformed(f"{what} expected")

    def space(self) -> None:
        """Exactly one space."""
        if not self.skip(b" "):
            raise Malformed("Space expected" if self.at < len(self.text) else "Arguments missing")

    @property
    def at_end(self) -> bool:
        return self.at == len(self.text)

    def end(self) -> None:
        """Nothing may follow."""
        if self.at != len(self.text):
            raise Malformed("Too many arguments, or garbage after them")

    @property
    def rest(self) -> bytes:
        """All that was not read yet, with `PLACE` for literals."""
        return self.text[self.at :]

    # Strings

    def tag(self) -> bytes:
        return self.match(_TAG_RE, "Tag")[0]

    def word(self, what: str) -> str:
        """A name of the protocol, such as a command or an item, in capitals."""
        return self.match(_WORD_RE, what)[0].decode("ascii").upper()

    def atom(self, what: str) -> bytes:
        return self.match(_ATOM_RE, what)[0]

    def string(self, what: str) -> bytes:
        """A quoted string or a literal."""
        if self.skip(PLACE):
            literal = self.literals[self._next_literal]
            self._next_literal += 1
            # RFC 3501 §9: a literal is made of CHAR8, which NUL is not.
            if PLACE in literal:
                raise Malformed("NUL in a literal")
            return literal
        inner = self.match(_QUOTED_RE, what)[1]
        return _ESCAPE_RE.sub(rb"\1", inner) if b"\\" in inner else inner

    def astring(self, what: str) -> bytes:
        """An atom, a quoted string or a literal."""
        found = _ASTRING_RE.match(self.text, self.at)
        if found is None:
            return self.string(what)
        self.at = found.end()
        return found[0]

    def nstring(self, what: str) -> bytes | None:
        """A string, or NIL."""
        if self.text[self.at : self.at + 3].upper() == b"NIL":
            self.at += 3
            return None
        return self.string(what)

    # Numbers

    def number(self, what: str, most: int = LARGEST, least: int = 0) -> int:
        digits = self.match(_NUMBER_RE, what)[0]
        # int() of very many digits is quadratic, and no number here has more than 19.
        if len(digits) > 19 or not least <= (value := int(digits)) <= most:
            raise Malformed(f"{what} out of range")
        return value

    def sequence_set(self, most_ranges: int) -> SequenceSet:
        """At most `most_ranges` numbers and ranges; each number is checked, `*` is kept."""
        found = self.match(_SET_RE, "Sequence set")[0]
        if found.count(b",") >= most_ranges:
            raise Malformed("Too many ranges in a sequence set")
        if any(int(number) > LARGEST for number in _LONG_NUMBER_RE.findall(found)):
            raise Malformed("Number too large in a sequence set")
        return SequenceSet(found.decode("ascii"))

    # Flags

    def flag_list(self) -> list[str]:
        """Flags in parentheses, perhaps none; system flags in their canonical spelling."""
        return _flags(self.match(_FLAG_LIST_RE, "Flag list")[0][1:-1])

    def flags(self) -> list[str]:
        """Flags in parentheses, or one or more without (RFC 3501 §9 store-att-flags)."""
        return self.flag_list() if self.peek(b"(") else _flags(self.match(_FLAGS_RE, "Flag")[0])

    # Dates

    def date(self) -> date:
        """A day, quoted or not (RFC 3501 §9 date)."""
        _, day, month, year = self.match(_DATE_RE, "Date").groups()
        return _day(year, month, day)

    def date_time(self) -> int:
        """Seconds since 1970 UTC (RFC 3501 §9 date-time)."""
        day, month, year, *rest = self.match(_DATE_TIME_RE, "Date and time").groups()
        hours, minutes, seconds, sign, zone_hours, zone_minutes = rest
        hour, minute, second = int(hours), int(minutes), int(seconds)
        zone = int(zone_hours) * 60 + int(zone_minutes)
        # 60 is a leap second.
        if hour > 23 or minute > 59 or second > 60 or zone >= 24 * 60 or int(zone_minutes) > 59:
            raise Malformed("No such time")
        days = _day(year, month, day).toordinal() - _EPOCH
        moment = days * 86400 + hour * 3600 + minute * 60 + second
        moment += -zone * 60 if sign == b"+" else zone * 60
        if not EARLIEST_DATE <= moment <= LATEST_DATE:
            raise Malformed("No such time")
        return moment

    # Mailboxes

    def mailbox(self) -> str:
        """A mailbox name, decoded; INBOX in capitals."""
        return decode_mailbox(self.astring("Mailbox name"))

    def mailbox_reference(self) -> str:
        """A mailbox name, or a part of one that need not make sense by itself."""
        return _decode_part(self.astring("Mailbox name"))

    def mailbox_pattern(self) -> str:
        """As `mailbox_reference`, where `*` and `%` may stand unquoted (RFC 3501 §9 list-mailbox)."""
        found = _PATTERN_RE.match(self.text, self.at)
        if found is None:
            return _decode_part(self.string("Mailbox pattern"))
        self.at = found.end()
        return _decode_part(found[0])


_LEADING_TAG_RE = re.compile(rb"(%b)(?=[ \r\n]|\Z)" % _TAG_RE.pattern)


def leading_tag(text: bytes) -> bytes:
    """The tag at the beginning of whatever was received, or b"*" if there is none."""
    found = _LEADING_TAG_RE.match(text)
    return found[1] if found else b"*"


_EPOCH = date(1970, 1, 1).toordinal()


def _day(year: bytes, month: bytes, day: bytes) -> date:
    try:
        return date(int(year), _MONTH_NUMBERS[month.lower()], int(day))
    except (KeyError, ValueError):
        raise Malformed("No such date") from None


def _flags(listed: bytes) -> list[str]:
    return [_CANONICAL_FLAGS.get(name.lower(), name) for name in listed.decode("ascii").split()]


# Mailbox names (RFC 3501 §5.1.3)

_SHIFTED_RE = re.compile(rb"&([A-Za-z0-9+,]*)-")
_CONTROL_RE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNPRINTABLE_RE = re.compile(r"[^\x20-\x7e]+|&")


def decode_mailbox(raw: bytes) -> str:
    """
    A mailbox name from its modified UTF-7.

    Only the one canonical spelling of each name is taken, so that printing it gives `raw`
    again, save for INBOX: its name is the same in any case, and so is the first level of
    the names below it.

    Raises:
        NoName: 8-bit or control characters, in clear or encoded, or wrong UTF-7.
    """
    if not raw.isascii() or b"\x7f" in raw or (raw and min(raw) < 0x20):
        raise NoName("Mailbox name is not printable ASCII")
    if b"&" in raw:
        name = _decode_shifts(raw)
    else:
        name = raw.decode("ascii")
    if name[:5].upper() == "INBOX" and name[5:6] in ("", SEPARATOR):
        return "INBOX" + name[5:]
    return name


def _decode_part(raw: bytes) -> str:
    """As `decode_mailbox`; wrong UTF-7 stays as it is, and no name matches it."""
    try:
        return decode_mailbox(raw)
    except NoName:
        return raw.decode("ascii", "replace")


def _decode_shifts(raw: bytes) -> str:
    wrong = NoName("Mailbox name is not valid modified UTF-7")
    # Text outside of shifts, and base64, by turns.
    pieces = _SHIFTED_RE.split(raw)
    decoded: list[str] = []
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            decoded.append(piece.decode("ascii"))
        elif not piece:
            decoded.append("&")
        else:
            try:
                words = binascii.a2b_base64(piece.replace(b",", b"/") + b"=" * (-len(piece) % 4))
                decoded.append(words.decode("utf-16-be"))
            except (binascii.Error, UnicodeDecodeError):
                raise wrong from None
    name = "".join(decoded)
    # What was encoded without need, padded with other than zeros, or left unshifted.
    if encode_mailbox(name) != raw:
        raise wrong
    if _CONTROL_RE.search(name):
        raise NoName("Mailbox name contains control characters")
    return name


def encode_mailbox(name: str) -> bytes:
    """A mailbox name in modified UTF-7."""
    if name.isascii() and name.isprintable() and "&" not in name:
        return name.encode("ascii")
    return _UNPRINTABLE_RE.sub(_shift, name).encode("ascii")


def _shift(found: re.Match[str]) -> str:
    text = found[0]
    if text == "&":
        return "&-"
    encoded = binascii.b2a_base64(text.encode("utf-16-be", "replace"), newline=False).decode("ascii")
    return "&" + encoded.rstrip("=").replace("/", ",") + "-"


# Printing strings

_QUOTABLE_RE = re.compile(rb"[^\x00\r\n\x80-\xff]*")
_QUOTE_RE = re.compile(rb'(["\\])')

#: Longer strings are sent as literals; some clients have small buffers for a line.
LONGEST_QUOTED = 1000


def string(text: bytes) -> bytes:
    """
    A string, quoted where it can be and else as a literal.

    NUL, which no string can hold, becomes 0x80, as in other servers' answers.
    """
    if len(text) <= LONGEST_QUOTED and _QUOTABLE_RE.fullmatch(text):
        if b'"' in text or b"\\" in text:
            text = _QUOTE_RE.sub(rb"\\\1", text)
        return b'"%b"' % text
    return literal(text)


def literal(text: bytes) -> bytes:
    """A literal; see `string` about NUL."""
    return b"{%d}\r\n%b" % (len(text), text.replace(b"\0", b"\x80"))


def nstring(text: bytes | None) -> bytes:
    """A string, or NIL."""
    return b"NIL" if text is None else string(text)


def astring(text: bytes) -> bytes:
    """An atom where that is enough, else a string."""
    # A bare NIL would be an atom too, yet some readers take it for nothing.
    if _ASTRING_RE.fullmatch(text) and text.upper() != b"NIL":
        return text
    return string(text)


def mailbox(name: str) -> bytes:
    """A mailbox name, encoded and printed as an astring."""
    return astring(encode_mailbox(name))
