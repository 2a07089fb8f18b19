"""
The words of SMTP and LMTP, read and written (RFC 5321 §4, RFC 6531 §3.3, RFC 4954 §4).

Everything here takes one command line, or one reply, that is complete and without its
CR LF, and says what it means; nothing here knows state.  Reading and writing are inverse:
`Command.parse(bytes(command)) == command`, and so for paths, xtext and replies.

Where a reader is kinder than the RFC, a comment begins with "Kindness".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

from mailplat.values import Address

#: RFC 5321 §4.5.3.1.1 to .3, in octets; a path is counted with its angle brackets.
MOST_LOCAL_PART = 64
MOST_DOMAIN = 255
MOST_PATH = 256

#: RFC 5321 §4.5.3.1.5, in octets with the CR LF.
MOST_REPLY_LINE = 512

#: RFC 1870 §3 and RFC 3030 §2: sizes are at most this many digits.
MOST_SIZE_DIGITS = 20


class Malformed(ValueError):
    """The text is not what the grammar asks for; `str()` of it may be shown to the peer."""


class MalformedParameter(Malformed):
    """The path was understood; what follows it was not."""


# Commands


class Command(NamedTuple):
    """
    A command line.

    Attributes:
        verb: in capitals.
        argument: what follows the first space, without white space around it; may be "".
    """

    verb: str
    argument: str

    @classmethod
    def parse(cls, text: str) -> Command:
        """Split a line; any text gives a command, known or not."""
        verb, _, argument = text.partition(" ")
        # White space before the CR LF is to be tolerated (RFC 5321 §4.1.1).
        return cls(verb.strip().upper(), argument.strip())

    def __bytes__(self) -> bytes:
        """The line with its CR LF."""
        return f"{self.verb} {self.argument}\r\n".encode() if self.argument else f"{self.verb}\r\n".encode()


# Addresses and paths

# RFC 5321 §4.1.2 with RFC 6531 §3.3: atext and labels may hold UTF-8 beyond ASCII; here
# anything but controls, the no-break space, and the separators of lines and paragraphs.
_BEYOND = r"\u00a1-\u2027\u202a-\ud7ff\ue000-\U0010ffff"
_TEXT = re.compile(rf"[ -~{_BEYOND}]*")
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-{_BEYOND}]+"
# Kindness: underscores occur in the names of real hosts.
_LABEL = rf"[A-Za-z0-9_{_BEYOND}](?:[A-Za-z0-9_\-{_BEYOND}]*[A-Za-z0-9_{_BEYOND}])?"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LABELS = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_UNESCAPE = re.compile(r"\\(.)", re.DOTALL)

# RFC 5321 §4.1.2 A-d-l: one domain after another, each after "@", a colon at the end.
_ROUTE = re.compile(r"((?:@(?:[^\s,:@<>\[\]]+|\[[^\s@<>\[\]]*\]),?)+):")
_ROUTE_DOMAIN = re.compile(r"@([^@,]+|\[[^\]]*\])(?:,(?=@)|$)")

_PATH = re.compile(rf"<({_QUOTED}|[^\s\"<>@]+)@([^\s<>@]+)>")

# What nearly every line is: a plain address, and nothing more to check but lengths.
_PLAIN_PATH = re.compile(
    r"<([A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+)*)"
    r"@([a-z0-9](?:[a-z0-9\-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9\-]*[a-z0-9])?)*)>"
)


def is_text(text: str) -> bool:
    """No control characters, nor what some reader may take for the end of a line."""
    return _TEXT.fullmatch(text) is not None


def parse_domain(text: str) -> str:
    """
    A domain in lower case, or an address literal in its one spelling.

    Raises:
        Malformed.
    """
    if text[:1] == "[":
        return _literal(text)
    if not _LABELS.fullmatch(text):
        raise Malformed("Malformed domain")
    if len(text.encode()) > MOST_DOMAIN:
        raise Malformed("Domain too long")
    for label in text.split("."):
        # RFC 1035 §2.3.4; a U-label is longer as an A-label, which resolving will tell.
        if len(label) > 63:
            raise Malformed("Domain label too long")
    return text.lower()


def _literal(text: str) -> str:
    # RFC 5321 §4.1.3.  No tag but IPv6 was ever registered.
    if text[-1:] != "]":
        raise Malformed("Malformed address literal")
    inner = text[1:-1]
    try:
        if inner[:5].upper() == "IPV6:":
            if "%" in inner:
                raise Malformed("Malformed address literal")
            return f"[IPv6:{IPv6Address(inner[5:])}]"
        return f"[{IPv4Address(inner)}]"
    except AddressValueError:
        raise Malformed("Malformed address literal") from None


def parse_local_part(text: str) -> str:
    """
    A local part without its quoting; its case is kept.

    Raises:
        Malformed.
    """
    if text[:1] == '"':
        if not re.fullmatch(_QUOTED, text):
            raise Malformed("Malformed local part")
        local = _UNESCAPE.sub(r"\1", text[1:-1])
        # RFC 5321 allows `""`; nothing here could tell it from no local part at all.
        if not local:
            raise Malformed("Empty local part")
        if not is_text(local):
            raise Malformed("Malformed local part")
    elif _DOT_STRING.fullmatch(text):
        local = text
    else:
        raise Malformed("Malformed local part")
    if len(local.encode()) > MOST_LOCAL_PART:
        raise Malformed("Local part too long")
    return local


def parse_mailbox(text: str) -> Address:
    """
    `local@domain` without angle brackets.

    Raises:
        Malformed.
    """
    address, end = _path_at(f"<{text}>", 0)
    if address is None or end != len(text) + 2:
        raise Malformed("Malformed address")
    return address


def _path_at(text: str, start: int) -> tuple[Address | None, int]:
    # The path at `start`, and where it ends in `text`.
    found = _PLAIN_PATH.match(text, start)
    if found is not None and found.end() - start <= MOST_PATH:
        local, domain = found.groups()
        if len(local) <= MOST_LOCAL_PART and len(domain) <= 63:
            return Address(local, domain), found.end()
    if text[start : start + 2] == "<>":
        return None, start + 2
    if text[start : start + 1] != "<":
        raise Malformed("An address stands in angle brackets")
    # A source route is taken and forgotten (RFC 5321 §3.6.1, appendix C).
    routed = _ROUTE.match(text, start + 1)
    if routed is not None:
        _check_route(routed.group(1))
        # Its colon becomes the path's opening bracket, so that positions stay as they are.
        start = routed.end() - 1
        text = f"{text[:start]}<{text[start + 1 :]}"
    found = _PATH.match(text, start)
    if found is None:
        raise Malformed("Malformed address")
    if len(found.group().encode()) > MOST_PATH:
        raise Malformed("Address too long")
    return Address(parse_local_part(found.group(1)), parse_domain(found.group(2))), found.end()


def _check_route(route: str) -> None:
    position = 0
    while position < len(route):
        found = _ROUTE_DOMAIN.match(route, position)
        if found is None:
            raise Malformed("Malformed source route")
        parse_domain(found.group(1))
        position = found.end()


def format_path(address: Address | None) -> str:
    """A path in angle brackets, its local part quoted if it must be; `<>` for None."""
    if address is None:
        return "<>"
    if not address.domain:
        return f"<{address.local}>"
    local = address.local
    if not _DOT_STRING.fullmatch(local):
        local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"<{local}@{address.domain}>"


def is_ascii(address: Address | None) -> bool:
    """The address needs no SMTPUTF8."""
    return address is None or (address.local.isascii() and address.domain.isascii())


# MAIL and RCPT

Parameters = Mapping[str, str | None]

_NONE: Parameters = {}
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([!-<>-~\u00a1-\U0010ffff]+))?")


def parse_mail(argument: str) -> tuple[Address | None, Parameters]:
    """
    The argument of MAIL: `FROM:<reverse-path> parameters`.

    Returns:
        None for the null path, and the parameters by keyword in capitals.

    Raises:
        Malformed, MalformedParameter.
    """
    return _path_and_parameters(argument, "FROM:")


def parse_rcpt(argument: str) -> tuple[Address, Parameters]:
    """
    The argument of RCPT: `TO:<forward-path> parameters`.

    Raises:
        Malformed, MalformedParameter.
    """
    # `<postmaster>` alone, in any case, needs no domain (RFC 5321 §4.1.1.3).
    if argument[:3].upper() == "TO:":
        path = argument[3:].lstrip(" ")
        if path[:12].lower() == "<postmaster>":
            return Address("postmaster", ""), _parameters(path[12:])
    address, parameters = _path_and_parameters(argument, "TO:")
    if address is None:
        raise Malformed("A recipient is not empty")
    return address, parameters


def _path_and_parameters(argument: str, word: str) -> tuple[Address | None, Parameters]:
    start = len(word)
    if argument[:start] != word and argument[:start].upper() != word:
        raise Malformed(f"{word}<address> expected")
    # Kindness: widespread clients put a space after the colon.
    while argument[start : start + 1] == " ":
        start += 1
    if start:
        argument = argument[start:]
    address, end = _path_at(argument, 0)
    return address, _parameters(argument[end:]) if end < len(argument) else _NONE


def _parameters(text: str) -> Parameters:
    if not text.strip():
        return _NONE
    if text[0] != " ":
        raise Malformed("Malformed address")
    parameters: dict[str, str | None] = {}
    for word in text.split():
        found = _PARAMETER.fullmatch(word)
        if found is None:
            raise MalformedParameter("Malformed parameter")
        keyword = found.group(1).upper()
        if keyword in parameters:
            raise MalformedParameter(f"Parameter {keyword} given twice")
        parameters[keyword] = found.group(2)
    return parameters


def format_parameters(parameters: Parameters) -> str:
    """Parameters as they stand after a path, each after a space."""
    return "".join(f" {key}" if value is None else f" {key}={value}" for key, value in parameters.items())


def parse_size(text: str | None) -> int:
    """
    The value of SIZE= or of a chunk (RFC 1870 §3, RFC 3030 §2).

    Raises:
        MalformedParameter.
    """
    # isdecimal alone would take other scripts' digits.
    if text is None or not (text.isascii() and text.isdecimal()) or len(text) > MOST_SIZE_DIGITS:
        raise MalformedParameter("Malformed size")
    return int(text)


def parse_bdat(argument: str) -> tuple[int, bool]:
    """
    The argument of BDAT: octets, and whether it is the last chunk (RFC 3030 §2).

    Raises:
        Malformed.
    """
    words = argument.split()
    if not words or len(words) > 2 or (len(words) == 2 and words[1].upper() != "LAST"):
        raise Malformed("Syntax: BDAT size [LAST]")
    return parse_size(words[0]), len(words) == 2


_HELLO = re.compile(r"[!#-'*+\-./0-9:=?A-\[\]-~]+")


def parse_hello(argument: str) -> str:
    """
    The name in EHLO, HELO or LHLO.

    Kindness: real clients give names that are neither a domain nor an address literal,
    and RFC 5321 §4.1.4 forbids to refuse mail for that.  Anything of visible ASCII that
    could not end a comment or an address in a header is taken.

    Raises:
        Malformed.
    """
    if len(argument) > MOST_DOMAIN or not _HELLO.fullmatch(argument):
        raise Malformed("A domain or address literal is needed")
    return argument


# xtext (RFC 3461 §4)

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEX = re.compile(rb"\+([0-9A-F]{2})")
_TO_HEX = re.compile(rb"[^!-*,-<>-~]")


def decode_xtext(text: str) -> bytes:
    """
    The octets that xtext stands for.

    Raises:
        MalformedParameter.
    """
    if not _XTEXT.fullmatch(text):
        raise MalformedParameter("Malformed xtext")
    return _HEX.sub(lambda found: bytes((int(found.group(1), 16),)), text.encode())


def encode_xtext(octets: bytes) -> str:
    """Octets as xtext."""
    return _TO_HEX.sub(lambda found: b"+%02X" % ord(found.group()), octets).decode()


# Replies

_REPLY_LINE = re.compile(r"([2-5][0-9][0-9])(?:([ \-])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


@dataclass(frozen=True, slots=True)
class Reply:
    """
    A reply (RFC 5321 §4.2).

    Attributes:
        code: 200 to 599.
        lines: one text a line, at least one, of printable characters.
        enhanced: "2.1.0" (RFC 3463), put before each line's text (RFC 2034 §4), or "".
    """

    code: int
    lines: tuple[str, ...]
    enhanced: str = ""

    def __bytes__(self) -> bytes:
        """
        The reply with its CR LFs, never a line over `MOST_REPLY_LINE` octets.

        A longer text is cut, and what is not printable ASCII becomes "?": a reply is
        ours, but words in it may be a peer's.
        """
        before = f"{self.enhanced} " if self.enhanced else ""
        last = len(self.lines) - 1
        written = []
        for number, line in enumerate(self.lines):
            text = f"{self.code}{' ' if number == last else '-'}{before}{_printable(line)}"
            written.append(text[: MOST_REPLY_LINE - 2] + "\r\n")
        return "".join(written).encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> Reply:
        """
        Read one whole reply.

        Raises:
            Malformed: it is no reply, or its lines disagree about the code.
        """
        if not data.endswith(b"\r\n"):
            raise Malformed("Incomplete reply")
        rows = data[:-2].decode("utf-8", "replace").split("\r\n")
        code = ""
        lines = []
        for number, row in enumerate(rows):
            found = _REPLY_LINE.fullmatch(row)
            if found is None or (code and found.group(1) != code):
                raise Malformed("Malformed reply")
            code = found.group(1)
            if (found.group(2) == "-") != (number < len(rows) - 1):
                raise Malformed("Malformed reply")
            lines.append(found.group(3) or "")
        first = _ENHANCED.match(lines[0])
        # The class of the enhanced code is the first digit of the code (RFC 2034 §4).
        if first is None or first.group(1)[0] != code[0]:
            return cls(int(code), tuple(lines))
        enhanced = first.group(1)
        before = f"{enhanced} "
        return cls(int(code), tuple(line.removeprefix(before) for line in lines), enhanced)


def _printable(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def reply(code: int, enhanced: str, text: str) -> bytes:
    """A reply of one line, as bytes."""
    return bytes(Reply(code, (text,), enhanced))
