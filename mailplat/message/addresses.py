"""
Address lists (RFC 5322 §3.4, obsolete forms §4.4) as ENVELOPE wants them.

A list becomes a flat sequence of `Mailbox`es, where a group is opened by one without a host
and closed by one without anything (RFC 3501 §7.4.2).  Mail is full of lists that follow no
grammar: something sensible is made of any octets, in linear time, and nothing raises.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final, NamedTuple


class Mailbox(NamedTuple):
    """
    One entry of an address list; None is IMAP's NIL.

    Attributes:
        name: display name without quoting, encoded words as they stood.
        route: the obsolete source route, "@a,@b".
        local: the part before the @; the name of the group in an entry that opens one; None
            in the entry that closes it.
        host: the domain; "" if the address has none; None in the two entries of a group.
    """

    name: bytes | None
    route: bytes | None
    local: bytes | None
    host: bytes | None


GROUP_END: Final = Mailbox(None, None, None, None)

#: What comes after this many entries of a list is left out.
MOST: Final = 1000

#: The same for tokens that had to be looked at one by one, which takes up to a microsecond each.
MOST_TOKENS: Final = 5000

# The two forms that nearly all addresses have; each up to the comma behind it.  Possessive
# repeats do not try again what failed, so a list that is neither costs one pass.
_PLAIN = re.compile(
    rb"""
    [ \t\r\n]*+
    (?:
      (?: "([^"\\\r\n]*+)" | ([^\s\0"(),.:;<>@\[\\\]]++(?>(?:[ \t]++[^\s\0"(),:;<>@\[\\\]]++)*)) )? [ \t]*+
      <([^\s\0"(),:;<>@\[\\\]]++)@([^\s\0"(),:;<>@\[\\\]]++)>
    |
      ([^\s\0"(),:;<>@\[\\\]]++)@([^\s\0"(),:;<>@\[\\\]]++)
    )
    [ \t\r\n]*+ (,|\Z)
    """,
    re.VERBOSE,
)

# Every octet belongs to some token; what is not closed runs to the end.
_TOKEN = re.compile(
    rb"""
      ([ \t\r\n\0]++)
    | "([^"\\]*+(?>(?:\\.[^"\\]*+)*))(?:"|\\?\Z)
    | ([<>@,;:()])
    | (\[[^\[\]\\<>,;]*+\]?)
    | ((?>(?:[^\s\0"<>@,;:()\[\\]++|\\.)+))
    | (.)
    """,
    re.VERBOSE | re.DOTALL,
)
# How the inside of "<" starts where a comma does not end the entry: it separates the hosts of
# a route, and there may be one too many (RFC 5322 §4.4 obs-domain-list).
_IN_ROUTE: Final[tuple[list[bytes], ...]] = ([], [b"@"])
_PARENTHESIS = re.compile(rb"\\.|[()]", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def parse(raw: bytes, most: int = MOST) -> list[Mailbox]:
    """
    The entries of an unfolded address field, in order.

    Args:
        most: what comes after so many entries is left out (a group is closed all the same).
    """
    found: list[Mailbox] = []
    slow: _Parser | None = None
    position, end = 0, len(raw)
    while position < end and len(found) < most:
        match = _PLAIN.match(raw, position)
        if match is None:
            slow = slow or _Parser(found)
            position = slow.parse_one(raw, position)
            continue
        quoted, words, local, host, bare_local, bare_host, _ = match.groups()
        if bare_local is not None:
            found.append(Mailbox(None, None, bare_local, bare_host))
        else:
            found.append(Mailbox(quoted or words or None, None, local, host))
        position = match.end()
    del found[most:]
    if slow is not None and _in_group(found):
        found.append(GROUP_END)
    return found


def _in_group(found: list[Mailbox]) -> bool:
    """The last group opened is not closed."""
    last = next((entry for entry in reversed(found) if entry.host is None), GROUP_END)
    return last is not GROUP_END


class _Parser:
    """The long way: comments, groups, routes, odd quoting and mistakes."""

    def __init__(self, found: list[Mailbox]) -> None:
        self.found = found
        self.tokens_left = MOST_TOKENS
        self.in_group = False
        self._clear()

    def _clear(self) -> None:
        # Words before "<", or the whole of an address without one; an empty one says that
        # white space or a comment stood there.
        self.words: list[bytes] = []
        self.has_at = False  # there is an @ in `words`
        self.comment: bytes = b""
        self.angle: list[bytes] | None = None
        self.angle_at = -1
        self.route: bytes | None = None
        self.closed = False

    def parse_one(self, raw: bytes, position: int) -> int:
        """Take one entry, or the opening or end of a group; where the next one starts."""
        end = len(raw)
        while position < end:
            match = _TOKEN.match(raw, position)
            if match is None or not self.tokens_left:
                position = end
                break
            self.tokens_left -= 1
            kind, start, position = match.lastindex, position, match.end()
            if kind == 1:
                self._word(b"")
            elif kind == 2:
                text = match[2]
                self._word(_ESCAPED.sub(rb"\1", text) if b"\\" in text else text)
            elif kind == 3:
                sign = match[3]
                if sign == b"(":
                    position = self._after_comment(raw, start)
                    self.comment = _ESCAPED.sub(rb"\1", raw[start + 1 : position].removesuffix(b")")).strip()
                    self._word(b"")
                elif self._special(sign):
                    return position
            else:
                self._word(match[0])
        self._flush()
        return position

    def _after_comment(self, raw: bytes, start: int) -> int:
        """Where the comment ends that starts at `start`; an unclosed one runs to the end."""
        depth = 0
        for match in islice(_PARENTHESIS.finditer(raw, start), self.tokens_left):
            self.tokens_left -= 1
            depth += (match[0] == b"(") - (match[0] == b")")
            if not depth:
                return match.end()
        return len(raw)

    def _word(self, word: bytes) -> None:
        if self.closed:
            return
        if self.angle is not None:
            if word:
                self.angle.append(word)
        elif word or (self.words and self.words[-1]):
            self.words.append(word)

    def _special(self, sign: bytes) -> bool:
        """Take one of `<>@,;:`; whether it ends an entry."""
        if sign == b"@":
            if self.angle is not None and not self.closed:
                self.angle_at = len(self.angle)
                self.angle.append(sign)
            elif self.angle is None:
                self.has_at = True
                self.words.append(sign)
        elif sign == b"<":
            if self.angle is None:  # else a second one, "<<a@b>>"
                self.angle = []
        elif sign == b">":
            if self.angle is not None:
                self.closed = True
        elif sign == b":" and self.angle is not None:
            # RFC 5322 §4.4 obs-route: all up to here was the way, not the address.  What is
            # no route, as in <mailto:a@b>, is no part of the address either.
            if not self.closed:
                self.route = b"".join(self.angle) if self.angle[:1] == [b"@"] else None
                self.angle, self.angle_at = [], -1
        elif sign == b":" and not self.has_at and not self.in_group:
            self.found.append(Mailbox(None, None, _phrase(self.words) or b"", None))
            self.in_group = True
            self._clear()
            return True
        elif sign == b":":
            self._word(sign)
        elif sign == b"," and not self.closed and self.angle is not None and self.angle[:1] in _IN_ROUTE:
            if self.angle and self.angle[-1] != sign:
                self.angle.append(sign)
        else:
            self._flush()
            if sign == b";" and self.in_group:
                self.found.append(GROUP_END)
                self.in_group = False
            return True
        return False

    def _flush(self) -> None:
        # A "<>" beside an address is nothing.
        if self.angle or (self.angle is not None and not self.has_at):
            name = _phrase(self.words) or self.comment or None
            if self.angle_at < 0:
                local, host = b"".join(self.angle), b""
            else:
                local, host = b"".join(self.angle[: self.angle_at]), b"".join(self.angle[self.angle_at + 1 :])
            if local or host or name:
                self.found.append(Mailbox(name, self.route, local, host))
        elif self.has_at:
            before: list[bytes] = []
            for run in _runs(self.words):
                if b"@" not in run:
                    before.append(b"".join(run))
                    continue
                at = len(run) - 1 - run[::-1].index(b"@")
                name = b" ".join(before) or self.comment or None  # RFC 822 habit: user@host (Full Name)
                local, host = b"".join(run[:at]), b"".join(run[at + 1 :])
                if local or host or name:
                    self.found.append(Mailbox(name, None, local, host))
                before = []  # there may be another, where a comma was forgotten
        else:
            local = _phrase(self.words)
            if local:
                self.found.append(Mailbox(self.comment or None, None, local, b""))
        self._clear()


def _phrase(words: list[bytes]) -> bytes:
    return b"".join([word or b" " for word in words]).strip()


def _runs(words: list[bytes]) -> list[list[bytes]]:
    """
    Words that belong together.  White space parts them, except beside an @ or a dot, where
    RFC 5322 §4.4 allows one within an address.
    """
    runs: list[list[bytes]] = []
    apart, last = True, b""
    for word in words:
        if not word:
            apart = not last.endswith((b"@", b"."))
            continue
        if not runs or (apart and not word.startswith((b"@", b"."))):
            runs.append([word])
        else:
            runs[-1].append(word)
        apart, last = False, word
    return runs
